"""`ct sample`: seeded sample data with its planted truth.

What goes here: options and printing. What does not: how the data comes about (``ct_assets.sampling``).
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ct_assets.cli.output import emit, say, writing
from ct_assets.errors import UsageError

if TYPE_CHECKING:
    from ct_assets.sampling.arrivals import ArrivalOptions, Arrivals

_FOLDER = "a folder, or a place to make one"


@click.group()
def sample() -> None:
    """Write seeded sample data with its planted truth."""


@sample.command("sales")
@click.option("--days", type=int, default=90, show_default=True, help="Calendar days; closed days get no file.")
@click.option("--seed", type=int, default=7, show_default=True, help="The same seed gives the same bytes.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write into.")
@click.option("--products", type=int, default=120, show_default=True, help="How many products the shop sells.")
@click.option("--start", type=click.DateTime(["%Y-%m-%d"]), default="2011-03-01", show_default=True, help="First day.")
@click.option("--no-dirt", is_flag=True, help="Only good lines: no cancellations, duplicates or broken lines.")
@click.option("--json", "as_json", is_flag=True, help="Print the totals as one line of JSON.")
def sales(days: int, seed: int, out: Path, products: int, start: dt.datetime, no_dirt: bool, as_json: bool) -> None:  # noqa: PLR0913 (one parameter an option)
    """Daily sales files `YYYY-MM-DD.csv` and `truth.json`: what was planted in them."""
    from ct_assets.sampling.sales import SampleOptions, write_sales

    try:
        options = SampleOptions(days=days, seed=seed, products=products, start=start.date(), dirt=not no_dirt)
    except ValueError as wrong:
        raise UsageError(str(wrong)) from wrong
    others = sorted(path.name for path in out.glob("*.csv")) if out.is_dir() else []
    with writing("--out", out, _FOLDER):
        truth = write_sales(out, options)
    stale = [name for name in others if name not in truth["files"]]
    if stale:
        say(
            f"note: {out} also holds {len(stale)} CSV files of another sample ({stale[0]} ...); truth.json says nothing of them"
        )
    totals = {"out": str(out), "files": len(truth["files"]), **truth["totals"]}
    emit(
        totals,
        as_json,
        f"{totals['files']} files, {totals['read']} lines in {out}: {totals['good']} good, {totals['quarantined']} to be quarantined, "
        f"{totals['duplicates']} duplicates; truth.json holds what was planted",
    )


@sample.command("events")
@click.option("--users", type=int, default=2_000, show_default=True, help="How many shoppers there are.")
@click.option("--hours", type=float, default=24.0, show_default=True, help="Length of the stream in event time.")
@click.option("--seed", type=int, default=7, show_default=True, help="The same seed gives the same bytes.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for events.jsonl and the truth.")
@click.option(
    "--to", "url", help="Produce into log://DIR or kafka://HOST:PORT/TOPIC; the truth goes to --out if given."
)
@click.option("--partitions", type=click.IntRange(1, 1024), default=4, show_default=True)
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    default="2026-01-01",
    show_default=True,
    help="First moment, UTC.",
)
@click.option("--end-now", is_flag=True, help="Shift the stream so that it ends now (instead of --start).")
@click.option(
    "--no-signal", is_flag=True, help="Purchases that nothing announces: no model can be better than the base rate."
)
@click.option("--no-dirt", is_flag=True, help="No late, repeated, conflicting or broken messages, no robot.")
@click.option("--json", "as_json", is_flag=True, help="Print the totals as one line of JSON.")
@click.pass_context
def events(ctx: click.Context, /, out: Path | None, url: str | None, **given: Any) -> None:
    """A shop's clicks and purchases, with the true probability of a purchase behind every click."""
    if out is None and url is None:
        raise UsageError(
            "say where the events go", hint="--out DIR for files, --to log://DIR or kafka://... to produce"
        )
    from ct_assets.sampling.arrivals import arrive
    from ct_assets.sampling.events import describe, write_events

    options = _arrival_options(given, url)
    arrivals = arrive(options)
    if out is None:
        truth = describe(arrivals, options)
    else:
        with writing("--out", out, _FOLDER):
            truth = write_events(out, arrivals, options)
    if url is not None:
        _produce(url, arrivals, options.partitions)
    where = " and ".join(str(place) for place in (out, url) if place is not None)
    planted = ", ".join(f"{count:,} {name}" for name, count in truth["planted"].items())
    emit(truth, bool(given["as_json"]), f"{truth['messages']:,} messages in {where}: {planted}")


def _arrival_options(given: dict[str, Any], url: str | None) -> ArrivalOptions:
    from ct_assets.sampling.arrivals import ArrivalOptions
    from ct_assets.sampling.shoppers import ShopOptions

    start, now = given["start"].replace(tzinfo=dt.UTC), dt.datetime.now(dt.UTC).replace(microsecond=0)
    if given["end_now"]:
        start = now - dt.timedelta(hours=given["hours"])
    sent = int(now.timestamp()) * 1_000_000 if url is not None and url.startswith("kafka://") else None
    try:
        shop = ShopOptions(given["users"], given["hours"], given["seed"], signal=not given["no_signal"])
    except ValueError as wrong:
        raise UsageError(str(wrong)) from wrong
    return ArrivalOptions(shop, start, given["partitions"], dirt=not given["no_dirt"], sent_us=sent)


def _produce(url: str, arrivals: Arrivals, partitions: int) -> None:
    """Send in order of arrival; the embedded log keeps the planted append times, a broker stamps its own."""
    from ct_assets.adapters.events.port import open_sink
    from ct_assets.sampling.events import batches
    from ct_assets.settings import load

    sink = open_sink(url, load(), partitions=partitions)
    try:
        for partition, payloads, append_times in batches(arrivals):
            sink.send(payloads, partition=partition, append_time=append_times)
        sink.flush()
    finally:
        sink.close()
