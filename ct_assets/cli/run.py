"""`ct run`: bring everything delivered through a pipeline's assets, in this process, as real Dagster runs.

What goes here: options, progress, the summary people read. What does not: which runs are due (`orchestration.runs`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ct_assets.cli.interrupts import INTERRUPTED, lost_connection, second_ends_at_once
from ct_assets.cli.output import emit, say
from ct_assets.errors import UsageError

if TYPE_CHECKING:
    from ct_assets.adapters.postgres.revival import Revival
    from ct_assets.orchestration.runs import RunLoop, RunReport
    from ct_assets.orchestration.stream_runs import StreamLoop
    from ct_assets.platform.spec import PipelineSpec
    from ct_assets.settings import Settings


@click.command()
@click.option("--pipeline", required=True, help="Name of the pipeline, as in its defs.yaml.")
@click.option(
    "--release-forecast",
    "release",
    metavar="NAME",
    help="Publish a forecast that was held as implausible; NAME is who says so.",
)
@click.option("--retrain", is_flag=True, help="Train even though nothing that a training depends on has changed.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON line.")
def run(pipeline: str, release: str | None, retrain: bool, as_json: bool) -> None:
    """Publish what was delivered, rebuild what depends on it, retrain once if the data or the pipeline file changed.

    Exit 1 when a delivery was rejected or a step failed; the other days go on. Safe to repeat at any time: a run that
    was killed is resumed by the next one.
    """
    from ct_assets.settings import load

    settings = load()
    try:
        with second_ends_at_once() as interrupts:
            report = run_pipeline(settings, pipeline, release, interrupts.any, retrain)
    except KeyboardInterrupt:
        say(interrupted(settings, pipeline))
        raise click.exceptions.Exit(INTERRUPTED) from None
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


def run_pipeline(
    settings: Settings,
    name: str,
    release: str | None = None,
    stopping: Callable[[], bool] = lambda: False,
    retrain: bool = False,
) -> RunReport:
    """One pass over pipeline ``name``; progress goes to stderr. ``release``: who takes a forecast beyond its bounds;
    ``stopping`` is asked between its runs; ``retrain``: train in any case.

    Raises :class:`CtError` for wrong usage.
    """
    started = time.monotonic()
    from ct_assets.adapters.datasets import pipeline_spec
    from ct_assets.adapters.postgres.revival import revived

    spec = pipeline_spec(name)  # a wrong name is said before Dagster is imported
    if retrain:
        refuse_retraining(spec)
    from ct_assets.components.retraining_pipeline import alone, resolve
    from ct_assets.orchestration.instance import open_instance
    from ct_assets.orchestration.resources import RESOURCE, Installation
    from ct_assets.orchestration.runs import RunLoop, RunReport
    from ct_assets.orchestration.stream_pipeline import resolve_stream
    from ct_assets.orchestration.stream_runs import StreamLoop
    from ct_assets.orchestration.training import RELEASED, RETRAIN

    report, installation = RunReport(name), Installation(settings)
    if release is not None:
        installation.kept[RELEASED] = release
    if retrain:
        installation.kept[RETRAIN] = uuid.uuid4().hex
    with one_at_a_time(settings, name), revived(settings.home, say) as revival, open_instance(settings) as instance:
        shared = alone(spec, {RESOURCE: installation}), instance, say, report
        if spec.source.mode == "streaming":
            loop = StreamLoop(installation, resolve_stream(spec), *shared, stopping)
        else:
            loop = RunLoop(installation, resolve(spec), *shared, stopping)
        go_through(loop, revival)
    report.seconds = time.monotonic() - started
    return report


def refuse_retraining(spec: PipelineSpec) -> None:
    """`--retrain` where it would say nothing: raises UsageError."""
    if spec.source.mode == "streaming":
        raise UsageError("--retrain is for pipelines of daily files", hint="`ct model train` trains on a stream")
    if spec.model is None:
        raise UsageError(f"pipeline {spec.name!r} has no model to train", hint=f"add `model:` to {spec.file}")


@contextmanager
def one_at_a_time(settings: Settings, pipeline: str) -> Iterator[None]:
    """Wait until no other `ct run` of this pipeline is at work: two at once would both train on the same data.

    The lock belongs to a connection, so it ends with its process. When the server is killed both go on: nothing but
    time is lost then, the ledger decides what is still due.
    """
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url

    key = f"ct run {pipeline}"
    with connect(prepared_url(settings), autocommit=True) as conn:
        if conn.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", (key,)).fetchone() == (False,):
            say(f"another `ct run` of {pipeline} is at work: waiting for it (Ctrl-C leaves it alone)")
            conn.execute("select pg_advisory_lock(hashtextextended(%s, 0))", (key,))
        yield


def go_through(loop: RunLoop | StreamLoop, revival: Revival) -> None:
    """One pass; another one when the embedded server had to be started again meanwhile and something failed of it.

    What is due is asked of the ledger each time, so a further pass does only what is left. A connection that broke for
    another reason is raised.
    """
    quieten_database_retries()
    for last in (False, False, True):
        before, lost = revival.count, None
        try:
            loop.through()
        except Exception as error:
            if lost_connection(error) is None:
                raise
            lost = error
        if (lost is None and not loop.report.failures) or revival.look() == before or last:
            if lost is not None:
                raise lost
            return
        say("going on with what is left")
        loop.report.failures.clear()
        loop.report.decided.pop("pending", None)


def quieten_database_retries() -> None:
    """dagster-postgres logs every retry with a five-line driver message on the root logger; one sentence says it here."""
    import logging

    logging.getLogger().addFilter(lambda record: "Retrying failed database connection" not in record.getMessage())


def interrupted(settings: Settings, pipeline: str) -> str:
    """What was reached when Ctrl-C came, asked of the ledger."""
    from ct_assets.adapters.postgres.connect import connect, url_for

    go_on = f"nothing half is visible; `ct run --pipeline {pipeline}` goes on"
    query = "select count(*) filter (where state <> 'pending'), count(*) from ledger.delivery where pipeline = %s"
    try:
        with connect(url_for(settings)) as conn:
            decided, every = conn.execute(query, (pipeline,)).fetchone() or (0, 0)
    except Exception:  # noqa: BLE001 - no ledger yet, or it is gone: the sentence holds without figures
        return f"interrupted: {go_on}"
    return f"interrupted: {decided} of {every} deliveries are decided, {go_on}"


def standing(report: RunReport) -> str:
    """What earlier runs left open: they exit 0 again, but somebody still has to deliver a mended file."""
    refused = sum(row["delivery_id"] is not None for row in report.standing)
    shown = ", ".join(f"{row['day'] or report.pipeline} {row['rule']}" for row in report.standing[:3])
    more = f" and {len(report.standing) - 3} more" if len(report.standing) > 3 else ""
    return (
        f"STANDING {len(report.standing)} open incidents from earlier, {refused} of them rejected deliveries: {shown}{more}\n"
        f"  `ct status --pipeline {report.pipeline}` shows them; a mended delivery of the day closes them,"
        f" a mended contract too (`ct deliver --pipeline {report.pipeline} --rejected`; of a day that is published,"
        f" `ct quarantine replay --pipeline {report.pipeline} --day DAY`)"
    )


def describe(report: RunReport) -> str:
    """The report as a few lines."""
    if report.nothing_new:
        return f"{report.pipeline}: nothing new was delivered; everything is up to date"
    none = "nothing was finished" if report.failures else "no new delivery"
    counts = ", ".join(f"{len(days)} {state}" for state, days in sorted(report.decided.items())) or none
    lines = [f"{report.pipeline}: {counts}"]
    lines += [f"{view}: {days} days rebuilt" for view, days in report.features_rebuilt.items()]
    if report.training:
        lines.append(", ".join(f"{name} {value}" for name, value in report.training.items()))
    lines.append(f"{len(report.runs)} Dagster runs, {report.seconds:.1f} s")
    return "\n".join(lines)
