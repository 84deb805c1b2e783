"""`ct run`: bring everything delivered through a pipeline's assets, in this process, as real Dagster runs.

What goes here: options, progress, the summary people read. What does not: which runs are due (`orchestration.runs`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ct_assets.cli.output import emit, say

if TYPE_CHECKING:
    from ct_assets.orchestration.runs import RunReport
    from ct_assets.settings import Settings


@click.command()
@click.option("--pipeline", required=True, help="Name of the pipeline, as in its defs.yaml.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON line.")
def run(pipeline: str, as_json: bool) -> None:
    """Publish what was delivered, rebuild what depends on it, retrain once if the data changed.

    Exit 1 when a delivery was rejected or a step failed; the other days go on. Safe to repeat at any time: a run that
    was killed is resumed by the next one.
    """
    from ct_assets.settings import load

    report = run_pipeline(load(), pipeline)
    for rejected in report.rejected:
        say(f"REJECTED {rejected['file']}: {rejected.get('message', 'see `ct status`')}")
    for held in report.held:
        say(f"held     {held['file']}: a correction of {held['day']} waits for approval")
    for failure in report.failures:
        say(f"FAILED   {failure}")
    if report.standing:
        say(standing(report))
    emit(report.as_json(), as_json, describe(report))
    if not report.ok:
        raise click.exceptions.Exit(1)


def run_pipeline(settings: Settings, name: str) -> RunReport:
    """One pass over pipeline ``name``; progress goes to stderr. Raises :class:`CtError` for wrong usage."""
    started = time.monotonic()
    from ct_assets.adapters.datasets import pipeline_spec

    spec = pipeline_spec(name)  # a wrong name is said before Dagster is imported
    from ct_assets.components.retraining_pipeline import resolve
    from ct_assets.definitions import build_defs
    from ct_assets.orchestration.instance import open_instance
    from ct_assets.orchestration.resources import RESOURCE, Installation
    from ct_assets.orchestration.runs import RunLoop, RunReport
    from ct_assets.orchestration.stream_pipeline import resolve_stream
    from ct_assets.orchestration.stream_runs import StreamLoop

    report, installation = RunReport(name), Installation(settings)
    with open_instance(settings) as instance:
        shared = build_defs({RESOURCE: installation}), instance, say, report
        if spec.source.mode == "streaming":
            StreamLoop(installation, resolve_stream(spec), *shared).through()
        else:
            RunLoop(installation, resolve(spec), *shared).through()
    report.seconds = time.monotonic() - started
    return report


def standing(report: RunReport) -> str:
    """What earlier runs left open: they exit 0 again, but somebody still has to deliver a mended file."""
    refused = sum(row["delivery_id"] is not None for row in report.standing)
    shown = ", ".join(f"{row['day'] or report.pipeline} {row['rule']}" for row in report.standing[:3])
    more = f" and {len(report.standing) - 3} more" if len(report.standing) > 3 else ""
    return (
        f"STANDING {len(report.standing)} open incidents from earlier, {refused} of them rejected deliveries: {shown}{more}\n"
        f"  `ct status --pipeline {report.pipeline}` shows them; a mended delivery of the day closes them"
    )


def describe(report: RunReport) -> str:
    """The report as a few lines."""
    if report.nothing_new:
        return f"{report.pipeline}: nothing new was delivered; everything is up to date"
    counts = ", ".join(f"{len(days)} {state}" for state, days in sorted(report.decided.items())) or "no new delivery"
    lines = [f"{report.pipeline}: {counts}"]
    lines += [f"{view}: {days} days rebuilt" for view, days in report.features_rebuilt.items()]
    if report.training:
        lines.append(", ".join(f"{name} {value}" for name, value in report.training.items()))
    lines.append(f"{len(report.runs)} Dagster runs, {report.seconds:.1f} s")
    return "\n".join(lines)
