"""`ct demo`: the whole way once, on sample data, in a home of its own; every claim it makes it checks.

What goes here: options, which parts are told, what to look at next. What does not: the chapters (``demo_batch``,
``demo_stream``), how they are told (``demo_story``). The work is done by the same `ct` commands a person types.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from ct_assets.cli.output import say

PARTS = ("all", "batch", "stream")


@click.command()
@click.option(
    "--home", type=click.Path(file_okay=False, path_type=Path), help="Folder of the demo (default: demo in CT_HOME)."
)
@click.option("--part", type=click.Choice(PARTS), default="all", show_default=True, help="Tell one part alone.")
@click.option("--kafka", is_flag=True, help="Stream through a real Kafka broker (needs Java and Maven).")
@click.option("--days", type=click.IntRange(75, 400), default=90, show_default=True, help="Calendar days of history.")
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of the sample data.")
def demo(home: Path | None, part: str, kafka: bool, days: int, seed: int) -> None:
    """Daily sales to a champion's forecasts, with what goes wrong; a shop's events to features that decay. Checks itself."""
    from ct_assets import settings
    from ct_assets.cli.demo_claims import Claims
    from ct_assets.cli.demo_story import Story, fresh_home, server

    chosen = (home or settings.load().home / "demo").expanduser().absolute()
    running = fresh_home(chosen)
    story = Story(chosen, seed, days)
    try:
        if part != "stream":
            from ct_assets.cli import demo_batch

            with Claims(chosen) as claims:
                demo_batch.tell(story, claims)
        if part != "batch":
            from ct_assets.cli import demo_stream

            demo_stream.tell(story, kafka)
    finally:
        server(chosen).stop()
        running.close()
    say("")
    click.echo(story.summary())
    click.echo(f"\n{story.holds} claims checked against the data and the ledgers, all hold.")
    click.echo(f"{time.perf_counter() - story.started:.0f} s in all. Look next at:\n{_next_steps(chosen, part)}")


def _next_steps(home: Path, part: str) -> str:
    """Commands that show what the demo left behind."""
    shown = os.path.relpath(home) if home.is_relative_to(Path.cwd()) else str(home)
    ct = f"CT_HOME={shown} .venv/bin/ct"
    steps = {f"CT_HOME={shown} make ui": "the assets, their plots, checks and automation in Dagster"}
    if part != "stream":
        steps |= {
            f"{ct} status": "what is published, rejected, corrected",
            f"{ct} quarantine list --pipeline sales": "how many rows were held back each day, and why",
            f"{ct} model list": "the models that were trained, and which leads",
            f"{ct} predict": "the published forecasts",
            "docs/guides/own-csv.md": "the same with a CSV of your own",
        }
    if part != "batch":
        steps |= {
            f"{ct} features get --view user_activity --entity user_id=42": "what a user did lately, as of now",
            f"{ct} dead-letter list": "messages that were set aside, and why",
            f"{ct} model show shop/purchase_propensity": "what the propensity was judged by, and its gates",
            f"{ct} serve": "the champion's scores over HTTP",
            "docs/streaming.md": "what the numbers mean",
        }
    width = max(map(len, steps))
    return "\n".join(f"  {command.ljust(width)}  {text}" for command, text in steps.items())
