"""Features, model versions and forecasts of the kill soak, and what readers must see of them.

What goes here: one step of each, and comparisons with a twin that nobody killed. What does not: killing (``soak_kill``),
deliveries (``soak_sales``). Model and forecast are made up: what dies here is their transaction, not a training.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import psycopg

from ct_assets.adapters import champion as pointer
from ct_assets.adapters import forecasts, landing, ledger
from ct_assets.adapters.artefacts import Artefact
from ct_assets.adapters.crash import Crash
from ct_assets.adapters.datasets import pipeline_dataset
from ct_assets.adapters.feature_tables import FeatureSource, build, read_features, stale_days
from ct_assets.adapters.publish import publish_delivery
from ct_assets.adapters.retraining import Promotion, enter
from ct_assets.settings import Settings

MODEL, PREDICTION = "soak", "soak_7d"
SOURCE = FeatureSource(zone="Europe/London")
AS_OF = dt.date(2011, 3, 31)


def build_features(conn: psycopg.Connection, url: str, crash: Crash) -> str:
    """Build what is stale, dying at a point of ``crash``."""
    return f"built {len(build(conn, url, SOURCE, stale_days(conn, SOURCE), crash))}"


def promote(conn: psycopg.Connection, run: str, crash: Crash) -> str:
    """Register the version of a run and let it lead."""
    leads = pointer.champion(conn, MODEL)
    origin = pointer.Provenance(AS_OF, None, "recipe", "data", "contract", "soak", 7)
    made = pointer.Candidate(MODEL, run, origin, Artefact(f"models/{MODEL}/{run}.skops", "0" * 64))
    return f"leads {enter(conn, made, 'soak', Promotion(leads.generation if leads else None), crash)}"


def forecast(serial: int) -> forecasts.Forecast:
    """Forecasts of forty products over a week, different for each serial number."""
    days = [AS_OF + dt.timedelta(days=i) for i in range(1, 8)]
    rows = [(str(20_000 + p), day, serial + p / 8, serial + p / 16, serial + p / 4) for p in range(40) for day in days]
    daily = pl.DataFrame(rows, schema=["stock_code", "day", "mean", "p50", "p90"], orient="row")
    totals = daily.group_by("stock_code", maintain_order=True).agg(
        pl.len().cast(pl.Int32).alias("open_days"), pl.col("mean", "p50", "p90").sum()
    )
    return forecasts.Forecast(PREDICTION, "stock_code", MODEL, serial, AS_OF, daily, totals)


def publish_forecast(url: str, serial: int, crash: Crash) -> str:
    """Publish in one transaction, as `publish_forecasts` does."""
    with psycopg.connect(url) as conn:
        return f"published {forecasts.publish(conn, forecast(serial), crash)}"


def compare_features(conn: psycopg.Connection, settings: Settings, current: dict[dt.date, Path]) -> list[str]:
    """Differences between the stored features and those of a twin: the newest files, published and built once."""
    assert settings.ledger_url is not None
    days = sorted(current)
    with _twin(settings) as other:
        dataset = pipeline_dataset("sales", other)
        assert other.ledger_url is not None
        for day in days:
            (delivered,) = landing.deliver(other, "sales", [current[day]])
            with psycopg.connect(other.ledger_url) as look:
                delivery = ledger.delivery(look, delivered.delivery_id)
            assert delivery is not None
            publish_delivery(other, dataset, delivery)
        with psycopg.connect(other.ledger_url, autocommit=True) as look:
            build(look, other.ledger_url, SOURCE, days)
        want = read_features(other.ledger_url, days)
    got = read_features(settings.ledger_url, days)
    found = [] if got.equals(want) and len(want) else [f"features differ: {len(got)} rows, the twin has {len(want)}"]
    found += [f"{day}: features are stale" for day in stale_days(conn, SOURCE)]
    rows = conn.execute(
        "select count(*) filter (where v.version_id is null), count(*) from store.product_daily s"
        " left join ledger.feature_version v using (version_id)"
    ).fetchone()
    told = conn.execute("select sum(rows), count(*) filter (where superseded_at is null) from ledger.feature_version")
    counted = told.fetchone()
    assert rows is not None
    assert counted is not None
    if rows != (0, counted[0]) or counted[1] != len(days):
        found.append(f"feature rows without version and rows: {rows}; the ledger says {counted} for {len(days)} days")
    return found


@contextmanager
def _twin(settings: Settings) -> Iterator[Settings]:
    """A second database on the same server, migrated and empty, gone afterwards."""
    from ct_assets.adapters.postgres.migrate import migrate

    assert settings.ledger_url is not None
    name = f"twin_of_{urlsplit(settings.ledger_url).path.strip('/')}"[:60]
    url = urlsplit(settings.ledger_url)._replace(path=f"/{name}").geturl()
    with psycopg.connect(settings.ledger_url, autocommit=True) as conn:
        conn.execute(f"create database {name}".encode())
        try:
            migrate(url)
            yield dataclasses.replace(settings, ledger_url=url)
        finally:
            conn.execute(f"drop database {name} with (force)".encode())


def compare_models(conn: psycopg.Connection, runs: list[str]) -> list[str]:
    """Versions numbered without a gap in the order of ``runs``, each of which led in its turn."""
    versions = [(v.version, v.run_id) for v in pointer.versions(conn, MODEL)]
    moves = [(move["generation"], move["version"]) for move in pointer.history(conn, MODEL)]
    leads = pointer.champion(conn, MODEL)
    numbers = range(1, len(runs) + 1)
    found = [] if versions == list(zip(numbers, runs, strict=True)) else [f"model versions: {versions}"]
    if moves != [(n, n) for n in numbers] or leads is None or (leads.version, leads.generation) != moves[-1][::-1]:
        found.append(f"champion: {leads} after {moves}")
    return found


def compare_forecasts(conn: psycopg.Connection, serials: list[int]) -> list[str]:
    """Readers see the last forecast, whole; the ledger has one row for each that was published."""
    last = forecast(serials[-1])
    shown = conn.execute(
        "select stock_code, day, mean, p50, p90, model_version from prediction.soak_7d order by stock_code, day"
    ).fetchall()
    total = conn.execute("select stock_code, open_days, mean, p50, p90 from prediction.soak_7d_total order by 1")
    found = [] if shown == [(*row, serials[-1]) for row in last.daily.rows()] else ["forecast differs"]
    if total.fetchall() != last.totals.rows():
        found.append("totals of the forecast differ")
    kept = conn.execute(
        "select count(*), count(*) filter (where superseded_at is null),"
        " (select count(*) from store.soak_7d), array_agg(model_version order by forecast_id) from ledger.forecast"
    ).fetchone()
    if kept != (len(serials), 1, len(serials) * len(last.daily), serials):
        found.append(f"forecasts in the ledger: {kept} of {serials}")
    return found
