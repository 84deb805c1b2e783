"""`ct status`: what is delivered, published, rejected, waiting.

What goes here: options and printing. What does not: the questions to the ledger (``adapters.status``).
"""

from __future__ import annotations

import click

from ct_assets.cli.output import emit, table

_TITLES = {
    "deliveries": "Deliveries",
    "published": "Published",
    "held": "Waiting for approval (ct deliver --approve REVISION_ID NAME)",
    "incidents": "Open incidents",
    "champions": "Champions",
    "forecasts": "Forecasts",
}


@click.command()
@click.option("--pipeline", help="One pipeline only.")
@click.option("--json", "as_json", is_flag=True, help="One JSON value a line.")
def status(pipeline: str | None, as_json: bool) -> None:
    """What is delivered, published, rejected, waiting."""
    from ct_assets.adapters.datasets import daily_spec
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.adapters.status import summary
    from ct_assets.settings import load

    settings = load()
    if pipeline is not None:
        daily_spec(pipeline)
    with connect(prepared_url(settings)) as conn:
        found = summary(conn, pipeline)
    if as_json:
        emit(found, True)
        return
    shown = [f"{title}\n{table(found[part])}" for part, title in _TITLES.items() if found[part]]
    emit(None, False, "\n\n".join(shown) or "nothing is delivered yet: ct deliver --pipeline NAME FILE...")
