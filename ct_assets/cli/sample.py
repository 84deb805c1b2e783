"""`ct sample`: seeded sample data with its planted truth.

What goes here: options and printing. What does not: how the data comes about (``ct_assets.sampling``).
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import click

from ct_assets.cli.output import emit, say
from ct_assets.errors import UsageError


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
