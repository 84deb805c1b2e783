"""What the demo claims, looked up where it is recorded: the ledger's tables and Dagster's event log.

What goes here: one question a method, answered with plain values. What does not: what the answer should be (``demo``).
"""

from __future__ import annotations

import datetime as dt
import time
from functools import cached_property
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

DATASET = "sales_lines"
VIEW = "product_daily"
MODEL = "demand_7d"
WARNINGS = ("zero_price", "description_absent")  # a quarantined line counts under these too; they quarantine nothing


class Claims:
    """Questions to one installation. Use as a context manager: it holds a connection from the first question on."""

    def __init__(self, home: Path) -> None:
        """``home`` is the installation's CT_HOME."""
        from ct_assets.settings import load

        self._settings = load({"CT_HOME": str(home)})

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *_: object) -> None:
        if "_conn" in self.__dict__:
            self._conn.close()

    @cached_property
    def _conn(self) -> psycopg.Connection:
        from ct_assets.adapters.postgres.connect import connect, url_for

        return connect(url_for(self._settings), autocommit=True)

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self._conn.execute(query.encode(), values).fetchall()

    def counts(self) -> dict[str, list[int]]:
        """Day -> lines read, good, quarantined, duplicates of its current revision."""
        rows = self._rows(
            "select day, rows from ledger.publication where dataset = %s and state = 'published' and superseded_at is null",
            DATASET,
        )
        return {str(day): [rows[name] for name in ("read", "good", "quarantined", "duplicates")] for day, rows in rows}

    def daily_sales(self, day: dt.date | None = None) -> dict[str, dict[str, dict[str, Any]]]:
        """Day -> product -> units, revenue (text, two decimals), orders, units_returned, as readers see them."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        rows = self._rows(
            "select day, stock_code, units, revenue, orders, units_returned from clean.daily_product_sales"
            " where %s::date is null or day = %s order by day, stock_code collate \"C\"", day, day,
        )  # fmt: skip
        for when, code, units, revenue, orders, returned in rows:
            totals = {
                "units": int(units),
                "revenue": f"{revenue:.2f}",
                "orders": orders,
                "units_returned": int(returned),
            }
            found.setdefault(str(when), {})[code] = totals
        return found

    def published_rows(self, day: dt.date) -> int:
        """Good lines of a day that readers see."""
        return self._rows("select count(*) from clean.sales_lines where _day = %s", day)[0][0]

    def quarantined(self, day: dt.date) -> dict[str, int]:
        """Rule -> lines of the day in quarantine that broke it."""
        rows = self._rows(
            "select reason, count(*) from quarantine.sales_lines, unnest(_reasons) reason where day = %s group by reason",
            day,
        )
        return dict(sorted((rule, count) for rule, count in rows if rule not in WARNINGS))

    def revision(self, day: dt.date) -> int:
        """Number of the day's current revision."""
        return self._rows("select max(_revision) from clean.sales_lines where _day = %s", day)[0][0]

    def diff(self, day: dt.date) -> dict[str, int]:
        """What the day's current revision changed: rows removed and added."""
        rows = self._rows(
            "select diff from ledger.publication where dataset = %s and day = %s and superseded_at is null and state = 'published'",
            DATASET, day,
        )  # fmt: skip
        return {name: rows[0][0][name] for name in ("removed", "added")}

    def incident(self, day: dt.date) -> dict[str, Any]:
        """The open incident of a day; empty texts when there is none."""
        rows = self._rows(
            "select rule, message from ledger.incident where dataset = %s and day = %s and state = 'open'", DATASET, day
        )
        return dict(zip(("rule", "message"), rows[0] if rows else ("", ""), strict=True))

    def everything_written(self) -> dict[str, int]:
        """Rows of every table that a pipeline writes to."""
        stored = [
            name for (name,) in self._rows("select tablename from pg_tables where schemaname = 'store' order by 1")
        ]
        ledgers = ("publication", "quarantined", "feature_version", "model_version", "champion_history", "forecast")
        tables = [f'store."{name}"' for name in stored] + [f"ledger.{name}" for name in ledgers]
        return {name: self._rows(f"select count(*) from {name}")[0][0] for name in tables}

    def feature_days(self) -> list[str]:
        """Days whose features are published."""
        rows = self._rows(
            "select day from ledger.feature_version where view = %s and superseded_at is null order by day", VIEW
        )
        return [str(day) for (day,) in rows]

    def champion(self) -> dict[str, Any]:
        """Version and metrics of the champion; version 0 when there is none."""
        rows = self._rows(
            "select c.version, m.metrics from ledger.champion c join ledger.model_version m using (model, version) where model = %s",
            MODEL,
        )
        return dict(zip(("version", "metrics"), rows[0] if rows else (0, {}), strict=True))

    def unbeaten_baselines(self) -> list[str]:
        """Baselines that the champion does not beat in both deviance and WAPE; without evidence: one that says so."""
        metrics = self.champion()["metrics"]
        found = metrics.get("baselines") or {"no evidence": {"deviance": 0.0, "wape": 0.0}}
        return [
            name
            for name, of in found.items()
            if not (metrics.get("deviance", inf) < of["deviance"] and metrics.get("wape", inf) < of["wape"])
        ]

    def forecasts(self) -> dict[str, float]:
        """Product -> mean forecast of the week, as readers see it."""
        return dict(self._rows("select stock_code, mean from prediction.demand_7d_total"))

    def forecast_model_version(self) -> int:
        """Version of the model behind the published forecasts; 0 when there are none."""
        rows = self._rows("select model_version from ledger.forecast where model = %s and superseded_at is null", MODEL)
        return rows[0][0] if rows else 0

    def dependent_days(self, day: dt.date) -> list[str]:
        """Delivered days whose features look back on ``day``, itself included."""
        from ct_assets.features.spec import PRODUCT_DAILY

        last = day + dt.timedelta(days=PRODUCT_DAILY.lookback_days)
        return [known for known in self.feature_days() if day.isoformat() <= known <= last.isoformat()]

    def mark(self) -> float:
        """A point in time to count Dagster's events from (its event log has second resolution at worst)."""
        time.sleep(1)
        return time.time()

    def rebuilt(self, asset: str, since: float) -> list[str]:
        """Partitions of an asset that Dagster materialized after ``since``."""
        return sorted({record.partition_key for record in self._events(asset, since) if record.partition_key})

    def materializations(self, asset: str, since: float) -> int:
        """How often Dagster materialized an asset after ``since``."""
        return len(self._events(asset, since))

    def _events(self, asset: str, since: float) -> list[Any]:
        import dagster as dg

        from ct_assets.orchestration.instance import open_instance

        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset.split("/")), after_timestamp=since)
        with open_instance(self._settings) as instance:
            return list(instance.fetch_materializations(wanted, limit=5_000).records)
