"""Published forecasts on a real PostgreSQL: replaced whole, the last good ones stay."""

from __future__ import annotations

import datetime as dt

import polars as pl
import psycopg
import pytest

from ct_assets.adapters import forecasts
from ct_assets.adapters.forecasts import Forecast, ForecastRefused

DAY = dt.date(2011, 10, 1)


def forecast(version: int, mean: float, **changed) -> Forecast:
    days = [DAY + dt.timedelta(days=i) for i in (1, 2)]
    rows = [
        (code, day, mean * (i + 1), mean * (i + 1), mean * 3 * (i + 1))
        for i, code in enumerate(("A", "B"))
        for day in days
    ]
    daily = pl.DataFrame(rows, schema=["stock_code", "day", "mean", "p50", "p90"], orient="row")
    totals = daily.group_by("stock_code", maintain_order=True).agg(
        pl.len().cast(pl.Int32).alias("open_days"), pl.col("mean", "p50", "p90").sum()
    )
    given = {"daily": daily, "totals": totals} | changed
    return Forecast("demand_7d", "stock_code", "demand_7d", version, DAY, **given)


def test_the_newest_forecast_replaces_the_one_before_whole(pg_url: str) -> None:
    with psycopg.connect(pg_url) as conn:
        forecasts.publish(conn, forecast(1, 2.0))
        forecasts.publish(conn, forecast(2, 5.0, daily=forecast(2, 5.0).daily.filter(pl.col("stock_code") == "A")))
        rows = forecasts.read(conn, "demand_7d")
        assert [(r["entity"], r["day"].isoformat(), r["mean"], r["model_version"]) for r in rows] == [
            ("A", "2011-10-02", 5.0, 2),
            ("A", "2011-10-03", 5.0, 2),
        ]
        shown = conn.execute("select stock_code, open_days, mean from prediction.demand_7d_total order by 1").fetchall()
        assert shown == [("A", 2, 10.0), ("B", 2, 20.0)]
        assert conn.execute("select count(*) from store.demand_7d").fetchone() == (6,)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("mean", float("nan"), "not finite"), ("p90", -1.0, "not finite"), ("p50", 99.0, "P50 above P90")],
)
def test_a_bad_forecast_is_refused_and_the_last_good_one_stays(
    pg_url: str, column: str, value: float, message: str
) -> None:
    with psycopg.connect(pg_url) as conn:
        forecasts.publish(conn, forecast(1, 2.0))
        conn.commit()
        bad = forecast(2, 5.0)
        spoiled = bad.daily.with_columns(
            pl.when(pl.col("stock_code") == "B").then(value).otherwise(pl.col(column)).alias(column)
        )
        with pytest.raises(ForecastRefused, match=message):
            forecasts.publish(conn, forecast(2, 5.0, daily=spoiled))
        conn.rollback()
        current = forecasts.current(conn, "demand_7d")
        assert current is not None
        assert (current["model_version"], len(forecasts.read(conn, "demand_7d"))) == (1, 4)


def test_an_empty_forecast_is_refused(pg_url: str) -> None:
    with psycopg.connect(pg_url) as conn, pytest.raises(ForecastRefused, match="no rows"):
        forecasts.publish(conn, forecast(1, 2.0, daily=forecast(1, 2.0).daily.clear()))


def test_readers_see_the_old_forecast_until_the_new_one_commits(pg_url: str) -> None:
    with psycopg.connect(pg_url) as writer, psycopg.connect(pg_url, autocommit=True) as reader:
        forecasts.publish(writer, forecast(1, 2.0))
        writer.commit()
        forecasts.publish(writer, forecast(2, 5.0))
        assert {r["model_version"] for r in forecasts.read(reader, "demand_7d", "A")} == {1}
        writer.commit()
        assert {r["model_version"] for r in forecasts.read(reader, "demand_7d", "A", DAY + dt.timedelta(days=1))} == {2}
