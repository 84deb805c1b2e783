"""`ct quarantine list|show|export|replay`: rows that broke a rule.

What goes here: options and printing. What does not: reading them (``adapters.quarantine``), replay (``adapters.publish``).
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import click

from ct_assets.cli.output import emit, say, table, working, writing

PIPELINE = click.option(
    "--pipeline", help="Name of the pipeline, as in its defs.yaml; not needed when there is only one."
)
DAY = click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="One business day (YYYY-MM-DD).")
RULE = click.option("--rule", help="Only rows that broke this rule.")
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON value a line.")


@click.group()
def quarantine() -> None:
    """List, show, export and replay quarantined rows."""


@quarantine.command("list")
@click.option("--pipeline", help="One pipeline only, as named in its defs.yaml.")
@JSON
def list_days(pipeline: str | None, as_json: bool) -> None:
    """Days with quarantined rows, and how many broke which rule; of every pipeline unless one is named."""
    found = [row for name in _pipelines(pipeline) for row in _days_of(name)]
    if as_json:
        for row in found:
            emit({**row, "day": row["day"].isoformat()}, True)
        return
    for row in found:
        row["reasons"] = ", ".join(f"{rule} {rows}" for rule, rows in sorted((row["reasons"] or {}).items()))
    columns = ("pipeline", "day", "revision", "file", "rows", "reasons")
    emit(None, False, table(found, columns[pipeline is not None :]) if found else "no row is quarantined")


def _pipelines(pipeline: str | None) -> list[str]:
    from ct_assets.adapters.datasets import daily_spec, load_specs

    if pipeline is not None:
        return [daily_spec(pipeline).name]
    return sorted(spec.name for spec in load_specs().values() if spec.source.mode == "daily")


def _days_of(pipeline: str) -> list[dict[str, Any]]:
    from ct_assets.adapters.quarantine import summary

    dataset, conn = _open(pipeline)
    with conn:
        return [{"pipeline": pipeline, **row} for row in summary(conn, dataset.name)]


@quarantine.command()
@PIPELINE
@DAY
@RULE
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most this many rows.")
@JSON
def show(pipeline: str | None, day: dt.datetime | None, rule: str | None, limit: int, as_json: bool) -> None:
    """Quarantined rows as they were delivered, with file, line and the rules they break."""
    from ct_assets.adapters.quarantine import rows

    dataset, conn = _open(pipeline)
    with conn:
        _known_rule(conn, dataset, rule)
        found = 0
        for row in rows(conn, dataset.name, day=day and day.date(), rule=rule, limit=limit):
            value = {"day": row.day.isoformat(), "file": row.file, "sha256": row.sha256, "line": row.line}
            value |= {"reasons": row.reasons, "raw": row.raw}
            emit(value, as_json, f"{row.file}:{row.line}  {', '.join(row.reasons)}\n  {row.raw!r}")
            found += 1
    if not found:
        asked = ([f"of {day:%Y-%m-%d}"] if day else []) + ([f"that broke {rule}"] if rule else [])
        say(" ".join(["no quarantined row", *asked]))
    elif found == limit:
        say(f"the first {limit}; more with --limit, all of them with `ct quarantine export`")


@quarantine.command()
@PIPELINE
@DAY
@RULE
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write (default: stdout).")
def export(pipeline: str | None, day: dt.datetime | None, rule: str | None, out: Path | None) -> None:
    """Write quarantined rows as CSV, escaped so that a spreadsheet cannot run them."""
    import sys

    from ct_assets.adapters.quarantine import export as write
    from ct_assets.adapters.quarantine import rows

    dataset, conn = _open(pipeline)
    with conn:
        _known_rule(conn, dataset, rule)
        found = rows(conn, dataset.name, day=day and day.date(), rule=rule)
        if out is None:
            count = write(found, sys.stdout)
        else:
            with writing("--out", out):
                stream = out.open("w", encoding="utf-8", newline="")
            with stream:
                count = write(found, stream)
    say(f"{count} rows{f' in {out}' if out else ''}")


@quarantine.command()
@PIPELINE
@click.option(
    "--day", type=click.DateTime(["%Y-%m-%d"]), multiple=True, help="Business day; may be given several times."
)
@click.option("--all", "every", is_flag=True, help="Every day that has quarantined rows.")
@JSON
def replay(pipeline: str | None, day: tuple[dt.datetime, ...], every: bool, as_json: bool) -> None:
    """Judge the stored bytes of days again under the present contract: a new revision where something changed.

    Running it twice changes nothing the second time.
    """
    from ct_assets.adapters.publish import replay as again
    from ct_assets.adapters.quarantine import summary
    from ct_assets.errors import UsageError
    from ct_assets.settings import load

    dataset, conn = _open(pipeline)
    with conn:
        days = [d.date() for d in day] or ([row["day"] for row in summary(conn, dataset.name)] if every else [])
    if not days and not every:
        raise UsageError("no day was named", hint="--day YYYY-MM-DD, or --all")
    rejected = False
    for one in sorted(set(days)):
        with working(f"replaying {one}"):
            decisions = again(load(), dataset, one)
        for decision in decisions:
            rejected |= decision.state == "rejected"
            _show_replay(one, decision, as_json)
    if rejected:
        raise click.exceptions.Exit(1)


def _show_replay(day: dt.date, decision, as_json: bool) -> None:
    revision = decision.publication.revision if decision.publication else None
    diff = decision.publication.diff if decision.publication else None
    value = {"day": day.isoformat(), "file": decision.delivery.name, "state": decision.state, "changed": decision.fresh}
    value |= {"judged_again": decision.fresh or decision.unchanged}
    value |= {"revision": revision, "diff": diff, "verdict": decision.verdict}
    emit(value, as_json, f"{day}  {_in_words(decision, revision)}")


def _in_words(decision, revision: int | None) -> str:
    rows, wrong = decision.verdict.get("rows", {}), decision.verdict.get("rejected")
    if decision.state == "rejected" and wrong:
        where = f"line {wrong['line']}: " if wrong.get("line") else ""
        stays = f"; revision {revision} stays" if revision else ""
        return f"rejected, nothing was written ({wrong['rule']}): {where}{wrong['message']}{stays}"
    if decision.unchanged:
        return f"judged again, the same rows: revision {revision} stays"
    if not decision.fresh:
        return f"nothing to do: same bytes, same contract, same code (revision {revision})"
    return f"{decision.state}, revision {revision}: {rows.get('good')} good, {rows.get('quarantined')} quarantined"


def _known_rule(conn, dataset, rule: str | None) -> None:
    """Refuse a rule that neither the contract nor any quarantined row knows: an empty answer would look like good news."""
    from ct_assets.adapters.quarantine import summary
    from ct_assets.errors import UsageError, did_you_mean

    if rule is None or rule in {r.name for r in dataset.schema.rules}:
        return
    broken = {name for row in summary(conn, dataset.name) for name in row["reasons"] or ()}
    if rule in broken:  # a rule of an earlier contract, or of reading (broken_quoting, field_count)
        return
    known = sorted(broken) or sorted(r.name for r in dataset.schema.rules)
    hint = f"{'broken so far' if broken else 'the contract has'}: {', '.join(known)}"
    near = did_you_mean(rule, {*broken, *(r.name for r in dataset.schema.rules)})
    raise UsageError(f"no rule {rule!r} in {dataset.name}", hint=f"{near} {hint}" if near else hint)


def _open(pipeline: str | None):
    from ct_assets.adapters.datasets import pipeline_dataset
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.adapters.tables import ensure_tables
    from ct_assets.settings import load

    settings = load()
    dataset = pipeline_dataset(pipeline, settings)
    conn = connect(prepared_url(settings), autocommit=True)
    ensure_tables(conn, dataset)
    return dataset, conn
