"""`ct deliver`: copy files into a pipeline's landing area.

What goes here: options and printing. What does not: the copying (``adapters.landing``), inboxes (``adapters.inbox``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ct_assets.cli.interrupts import INTERRUPTED, second_ends_at_once
from ct_assets.cli.output import emit, progress, say
from ct_assets.errors import UsageError

if TYPE_CHECKING:
    from ct_assets.adapters.landing import Delivered
    from ct_assets.settings import Settings


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--pipeline", required=True, help="Name of the pipeline, as in its defs.yaml.")
@click.option("--inbox", is_flag=True, help="Take what lies complete in the pipeline's inbox folder instead of FILES.")
@click.option(
    "--approve", type=(int, str), metavar="REVISION_ID NAME", help="Publish a held correction; NAME is who approves."
)
@click.option(
    "--rejected",
    is_flag=True,
    help="Take rejected deliveries again, from the bytes kept (after the contract was mended).",
)
@click.option(
    "--restore",
    type=int,
    metavar="DELIVERY_ID",
    help="Put an earlier delivery of a day in front again, as a new revision (to take back a wrong correction).",
)
@click.option("--yes", is_flag=True, help="With --rejected or --restore: do it; without, only the plan is printed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON value a line.")
def deliver(  # noqa: PLR0913 - one parameter an option
    files: tuple[Path, ...],
    pipeline: str,
    inbox: bool,
    approve: tuple[int, str] | None,
    rejected: bool,
    restore: int | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Copy FILES (never move them) into the landing area, in the given order.

    The same bytes for the same day are known by their digest, whatever their name: nothing happens twice.
    """
    from ct_assets.adapters.datasets import daily_spec
    from ct_assets.settings import load

    settings = load()
    daily_spec(pipeline)
    if approve is not None:
        _approve(settings, pipeline, *approve, as_json)
    elif restore is not None:
        _restore(settings, pipeline, restore, yes, as_json)
    elif rejected:
        _rejected(settings, pipeline, yes, as_json)
    elif inbox:
        _inbox(settings, pipeline, as_json)
    elif not files:
        raise UsageError("no file was named", hint="ct deliver --pipeline NAME FILE..., or --inbox")
    else:
        _files(settings, pipeline, files, as_json)


def _files(settings: Settings, pipeline: str, files: tuple[Path, ...], as_json: bool) -> None:
    from ct_assets.adapters.landing import Landing

    done = 0
    try:
        with second_ends_at_once(), Landing(settings, pipeline) as landing:
            for path in progress(files, "delivering", total=len(files)):
                _show(landing.take_in(path), pipeline, as_json)
                done += 1
    except KeyboardInterrupt:
        say(
            f"interrupted: {done} of {len(files)} files are delivered, nothing half; the same command delivers the rest"
        )
        raise click.exceptions.Exit(INTERRUPTED) from None
    say(f"next: ct run --pipeline {pipeline}")


def _rejected(settings: Settings, pipeline: str, yes: bool, as_json: bool) -> None:
    """The plan, and with ``yes`` the deed. What a newer delivery of the same day replaced stays as it is."""
    from ct_assets.adapters import landing
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url

    with connect(prepared_url(settings), autocommit=True) as conn:
        found = landing.rejected(conn, pipeline)
        for delivery in found:
            why = (delivery.verdict or {}).get("rejected") or {}
            day = delivery.day.isoformat() if delivery.day else None
            value = {"delivery_id": delivery.delivery_id, "file": delivery.name, "day": day, "rule": why.get("rule")}
            text = (
                f"{delivery.delivery_id:>6}  {day or 'undated   '}  {delivery.name}: {why.get('message', 'rejected')}"
            )
            emit(value, as_json, text)
        if not found:
            say(f"no rejected delivery of {pipeline} waits to be taken again")
        elif yes:
            say(f"{landing.take_again(conn, found)} deliveries wait again; next: ct run --pipeline {pipeline}")
        else:
            say(f"{len(found)} rejected deliveries would be judged again: add --yes")


def _restore(settings: Settings, pipeline: str, delivery_id: int, yes: bool, as_json: bool) -> None:
    """The plan, and with ``yes`` the deed: the next run judges and publishes the bytes kept as a new revision."""
    from ct_assets.adapters import landing
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url

    with connect(prepared_url(settings), autocommit=True) as conn:
        found, instead = landing.restorable(conn, pipeline, delivery_id)
        if yes:
            landing.restore(conn, pipeline, delivery_id)
    day = found.day.isoformat() if found.day else None
    value = {"delivery_id": delivery_id, "file": found.name, "day": day, "was_revision": instead.behind}
    value |= {"replaces_revision": instead.revision, "replaces_file": instead.file, "done": yes}
    text = f"{day or 'undated'}: {found.name} (revision {instead.behind}) in front of {instead.file} (revision {instead.revision}), as a new revision"
    emit(value, as_json, text)
    say(f"next: ct run --pipeline {pipeline}" if yes else "add --yes to do it")


def _inbox(settings: Settings, pipeline: str, as_json: bool) -> None:
    from ct_assets.adapters.inbox import inbox_folder, scan

    found = scan(settings, pipeline, wait=True)
    for delivered in found.taken:
        _show(delivered, pipeline, as_json)
    for name, reason in found.waiting.items():
        say(f"waiting  {name}: {reason}")
    for name, reason in found.refused.items():
        say(f"refused  {name}: {reason}")
    say(f"inbox: {inbox_folder(settings, pipeline)}")
    if found.refused:
        raise click.exceptions.Exit(1)


def _approve(settings: Settings, pipeline: str, revision_id: int, by: str, as_json: bool) -> None:
    from ct_assets.adapters.publish import approve

    done = approve(settings, pipeline, revision_id, by)
    value = {"revision_id": done.revision_id, "dataset": done.dataset, "day": str(done.day), "state": done.state}
    emit(
        value,
        as_json,
        f"revision {done.revision} of {done.dataset} {done.day} is published, approved by {done.approved_by}",
    )


def _show(delivered: Delivered, pipeline: str, as_json: bool) -> None:
    day = delivered.day.isoformat() if delivered.day else None
    value = {
        "delivery_id": delivered.delivery_id,
        "file": delivered.name,
        "sha256": delivered.sha256,
        "day": day,
        "bytes": delivered.bytes,
        "new": delivered.new,
        "repaired": delivered.repaired,
        "in_front": delivered.in_front and vars(delivered.in_front),
        "state": delivered.state,
    }
    known = "" if delivered.new else f" (known already: {delivered.state})"
    if delivered.repaired:
        known += "; the stored bytes were damaged or gone and are repaired"
    emit(value, as_json, f"{delivered.delivery_id:>6}  {day or 'undated   '}  {delivered.name}{known}")
    if (front := delivered.in_front) is not None:
        say(
            f"        these bytes are revision {front.behind}; readers see revision {front.revision}, from {front.file}. Nothing was"
            f" changed\n        to put them in front again: ct deliver --pipeline {pipeline} --restore {delivered.delivery_id} --yes"
        )
