"""`ct predict`: read the published forecasts of the champion.

What goes here: options and printing. What does not: forecasting (the asset `prediction/...` publishes).
"""

from __future__ import annotations

import click

from ct_assets.cli.output import emit, say, table
from ct_assets.errors import CtError, UsageError, did_you_mean


@click.command()
@click.option("--prediction", help="Which one; may be left out when there is only one.")
@click.option("--stock-code", "--entity", "entity", help="Only this product.")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Only this day of the horizon.")
@click.option(
    "--limit", type=int, default=20, show_default=True, help="Rows of the text table (0: all); JSON is never cut."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row.")
def predict(prediction: str | None, entity: str | None, day, limit: int, as_json: bool) -> None:
    """Read the champion's published forecasts; the last good ones stay when a run fails.

    Units a product and open day of the next 7 days. p50 and p90 are the day's share of the WEEK's quantile: they add up
    to the week's, which is what stock is planned by. They are no quantiles of the single day: on the real days 89 % of
    days lie at or below p90, but 76 % at or below p50, because most products sell nothing on most days. The week's own
    figures are in the table prediction.<name>_total.
    """
    from ct_assets import settings
    from ct_assets.adapters import forecasts
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url

    with connect(prepared_url(settings.load())) as conn:
        name = _chosen(prediction, forecasts.predictions(conn))
        about = forecasts.current(conn, name)
        wanted = entity.strip().upper() if entity else None
        rows = forecasts.read(conn, name, wanted, day.date() if day else None)
    if about is not None:
        say(
            f"{name}: model version {about['model_version']}, as of {about['as_of']}, published {about['created_at']:%Y-%m-%d %H:%M} UTC"
        )
    if not rows:
        raise CtError(
            f"no forecast for {entity or 'any product'}{f' on {day.date()}' if day else ''}",
            hint="leave out --stock-code or --day to see what there is",
        )
    if as_json:
        for row in rows:
            emit(row, True)
        return
    kept = rows if limit <= 0 else rows[:limit]
    shown = [
        {k: f"{v:.2f}" if isinstance(v, float) else v for k, v in row.items() if k not in ("model", "created_at")}
        for row in kept
    ]
    emit(None, False, table(shown))
    if len(kept) < len(rows):
        say(f"{len(rows) - len(kept)} more rows: --limit 0, or --stock-code")


def _chosen(asked: str | None, there: list[str]) -> str:
    if not there:
        raise CtError(
            "no forecast is published yet",
            hint="`ct run --pipeline NAME` publishes one once a model has passed its gates",
        )
    if asked is None and len(there) == 1:
        return there[0]
    if asked not in there:
        raise UsageError(
            f"no prediction {asked!r}",
            hint=did_you_mean(asked or "", there) or f"--prediction one of: {', '.join(there)}",
        )
    return asked
