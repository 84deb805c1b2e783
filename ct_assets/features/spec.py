"""The one specification of the daily product features: names, types, windows, and which function computes each.

What goes here: data about features, light enough to import while a code location loads. What does not: the functions
(``functions``), tables, Feast objects (``feature_repo`` projects them from here).

Point in time: the value of day ``D`` is known at the end of ``D`` and uses rows of the days ``D - LOOKBACK_DAYS`` to
``D`` only. A correction of day ``D`` therefore changes the partitions ``D`` to ``D + LOOKBACK_DAYS`` and no others.
All windows are counted in calendar days and end with ``D`` itself; means are per OPEN day (a day with any delivery),
so that a holiday does not look like falling demand.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

WINDOW_DAYS = 112
LOOKBACK_DAYS = WINDOW_DAYS - 1
ACTIVE_OPEN_DAYS = 56
"""A product is active on a day when it sold on one of the last 56 open days (within the look-back)."""


@dataclass(frozen=True)
class Feature:
    """One feature: ``function`` names a function of ``features.functions``, called with ``window`` in calendar days."""

    name: str
    function: str
    window: int
    description: str
    dtype: str = "float32"


@dataclass(frozen=True)
class FeatureView:
    """Features of one entity, one row a day for every active entity."""

    name: str
    entity: str
    lookback_days: int
    features: tuple[Feature, ...]
    description: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in table order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def digest(self) -> str:
        """Changes whenever a definition does; a stored version pins it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def _means() -> tuple[Feature, ...]:
    return tuple(
        Feature(f"units_mean_{days}", "units_mean", days, f"net units per open day over the last {days} days")
        for days in (7, 14, 28, 56, 112)
    )


PRODUCT_DAILY = FeatureView(
    name="product_daily",
    entity="stock_code",
    lookback_days=LOOKBACK_DAYS,
    description="What is known of a product at the end of a day: its sales, orders, returns, price, and the calendar.",
    features=(
        Feature("units_lag_1", "units_lag", 1, "net units on the day itself, the newest that is known"),
        Feature("units_lag_7", "units_lag", 7, "net units six days before: the weekday of tomorrow, last week"),
        *_means(),
        Feature(
            "units_seen_28", "units_mean_since_first", 28, "as units_mean_28, days before the first sale not counted"
        ),
        Feature(
            "units_seen_56", "units_mean_since_first", 56, "as units_mean_56, days before the first sale not counted"
        ),
        Feature("sold_share_28", "sold_share", 28, "share of open days with a sale, last 28 days"),
        Feature("sold_share_112", "sold_share", 112, "share of open days with a sale, last 112 days"),
        Feature("units_median_28", "units_median", 28, "median of net units over open days, last 28 days"),
        Feature("units_max_28", "units_max", 28, "largest net units of a day, last 28 days"),
        Feature("units_std_28", "units_std", 28, "standard deviation of net units over open days, last 28 days"),
        Feature(
            "units_capped_mean_56", "units_capped_mean", 56, "as units_mean_56, days above the third largest capped"
        ),
        Feature("orders_mean_7", "orders_mean", 7, "orders per open day, last 7 days"),
        Feature("orders_mean_28", "orders_mean", 28, "orders per open day, last 28 days"),
        Feature(
            "returned_mean_28", "returned_mean", 28, "units returned per open day, last 28 days, all cancellations"
        ),
        Feature("price_last", "price_last", WINDOW_DAYS, "mean price on the last day with a sale, pounds"),
        Feature("price_ratio_56", "price_ratio", 56, "price_last over the mean price of the last 56 days"),
        Feature(
            "days_since_sale", "days_since_sale", WINDOW_DAYS, "days since the last net sale, 0 = today, at most 112"
        ),
        Feature("age_days", "age_days", WINDOW_DAYS, "days since the first net sale in the look-back, at most 111"),
        Feature("weekday", "weekday", 1, "0 Monday to 6 Sunday"),
        Feature("month", "month", 1, "1 to 12"),
        Feature("shop_trend_28", "shop_trend", 28, "shop's units per open day, last 28 days over last 112"),
    ),
)

VIEWS = {PRODUCT_DAILY.name: PRODUCT_DAILY}
