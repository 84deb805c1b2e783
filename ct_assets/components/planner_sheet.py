"""The sheet that planners take away: the champion's forecast of the coming week, as a checked pandas DataFrame.

What goes here: the job and its one op. What does not: forecasting, and the file format (`orchestration.sheets`).
"""
# No `from __future__ import annotations`: it breaks Dagster's `context` annotations.

import dagster as dg

from ct_assets.orchestration.frames import PLANNER_FORECAST
from ct_assets.orchestration.pipeline import Pipeline
from ct_assets.orchestration.resources import RESOURCE
from ct_assets.orchestration.sheets import SHEETS, planner_frame


def planner_sheet(pipeline: Pipeline) -> dg.JobDefinition:
    """Job `<pipeline>_planner_sheet`: reads the published forecast, checks it, writes `reports/<model>/forecast_<as of>.csv`."""
    model = str(pipeline.names.model)

    @dg.op(
        name=f"{model}_sheet", out=dg.Out(PLANNER_FORECAST, io_manager_key=SHEETS), required_resource_keys={RESOURCE}
    )
    def sheet(context: dg.OpExecutionContext) -> dg.Output:
        frame, key = planner_frame(getattr(context.resources, RESOURCE), model)
        return dg.Output(frame, metadata={"key": key})

    @dg.job(
        name=f"{pipeline.names.pipeline}_planner_sheet", description="The published forecast as a sheet for planners."
    )
    def job() -> None:
        sheet()

    return job
