"""Where a person's DataFrame crosses: what planners get is checked, escaped, and stops the step when it is wrong."""

from __future__ import annotations

import dagster as dg
import pandas as pd
import pytest

from ct_assets.adapters.storage import open_storage
from ct_assets.orchestration.frames import PLANNER_FORECAST
from ct_assets.orchestration.resources import RESOURCE, Installation
from ct_assets.orchestration.sheets import SHEETS, sheet_writer
from ct_assets.settings import Settings

GOOD = pd.DataFrame(
    {
        "stock_code": ["=cmd|'/C calc'!A0", "20001"],
        "open_days": [6, 6],
        "mean": [1.5, 2.0],
        "p50": [1.0, 2.0],
        "p90": [3.0, 4.0],
    }
)


def write(settings: Settings, frame: object) -> dg.ExecuteInProcessResult:
    @dg.op(out=dg.Out(PLANNER_FORECAST, io_manager_key=SHEETS))
    def sheet() -> dg.Output:
        return dg.Output(frame, metadata={"key": "reports/demand_7d/forecast_2011-01-07.csv"})

    @dg.job(
        resource_defs={SHEETS: sheet_writer, RESOURCE: dg.ResourceDefinition.hardcoded_resource(Installation(settings))}
    )
    def job():
        sheet()

    return job.execute_in_process(raise_on_error=False)


def test_a_good_sheet_is_written_and_no_cell_of_it_calculates(settings: Settings):
    assert write(settings, GOOD).success
    text = open_storage(settings).get("reports/demand_7d/forecast_2011-01-07.csv").decode()
    assert text.split("\r\n")[:3] == [
        "stock_code,open_days,mean,p50,p90", "'=cmd|'/C calc'!A0,6,1.5,1.0,3.0", "20001,6,2.0,2.0,4.0"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (GOOD.assign(p50=[-1.0, 2.0]), "InRange"),
        (GOOD.assign(stock_code=["A", "A"]), "Unique"),
        (GOOD.assign(mean=[None, 1.0]), "mean"),
        (GOOD.assign(open_days=[8, 6]), "InRange"),
        (GOOD.drop(columns="mean"), "mean not in dataframe"),
        (GOOD.assign(margin=1.0), "Strict"),
        ([1, 2], "pandas.DataFrame"),
    ],
)
def test_a_wrong_sheet_stops_the_step_and_nothing_is_written(settings: Settings, frame: object, reason: str):
    result = write(settings, frame)
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure)
    checks = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_OUTPUT]
    told = str(failure.step_failure_data.error) + "".join(str(event.event_specific_data) for event in checks)
    assert reason in told
    assert list(open_storage(settings).list("reports")) == []
