"""Labelled clicks: will this user purchase soon? Which labels have matured, which clicks are kept, recency.

What goes here: labels, maturity, sampling with its weights, the recency that a baseline needs; pure. What does not:
reading events or features (``adapters.propensity``), models (``propensity``). Times are microseconds UTC.

Rules, in full:

- A row is a click at ``at``. The label is 1 when the user purchases in ``[at, at + horizon)``; features are of
  ``[at - window, at)``, so that each purchase lies on exactly one side and a click does not see itself.
- A label is mature once the events of its horizon can no longer change: horizon + allowed lateness after the click,
  measured on the stream's own completeness. Younger clicks are censored: they are no row, neither 0 nor 1.
- Of one user at most ``burst`` clicks an hour are rows, chosen at random: a robot counts as one busy shopper. (Weighed by
  its clicks, one robot of ten minutes was a third of the clicks that a fold was calibrated on.)
- Too many clicks are sampled, those without purchase first, each kept click weighing the inverse of its chance. Learning
  sees the sample as it is, which shifts the odds; calibration and every measure use the weights, which shifts them back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

HOUR_US = 3_600_000_000
NEVER_SECONDS = 30 * 86_400.0  # recency of what never happened


@dataclass(frozen=True)
class LabelRules:
    """What is predicted. ``lateness_us``: how late an accepted event may be; ``column``: what tells clicks from purchases."""

    horizon_us: int = 1_800_000_000
    lateness_us: int = 60_000_000
    column: str = "event_type"
    click: str = "click"
    purchase: str = "purchase"

    @property
    def embargo_us(self) -> int:
        """Between the last click learnt from and the first one judged: no label reaches over a border."""
        return self.horizon_us + self.lateness_us


@dataclass(frozen=True)
class Sampling:
    """How many clicks are kept. ``burst``: of one user in one hour; ``clicks``: in all, about."""

    clicks: int = 400_000
    burst: int = 400
    seed: int = 7


def labelled_clicks(events: pl.DataFrame, rules: LabelRules, complete_until: int) -> pl.DataFrame:
    """``user, at, label, since_click_s, since_purchase_s`` of every click with a mature label, by (at, user).

    ``events``: ``user, at, kind`` of accepted events (``kind`` as in ``rules``), in any order. ``complete_until``: no
    accepted event before it is still missing.
    """
    events = events.select("user", pl.col("at").cast(pl.Int64), "kind").sort("at", "user")
    purchases = events.filter(pl.col("kind") == rules.purchase).select("user", "at", bought="at")
    clicks = events.filter(pl.col("kind") == rules.click).select("user", "at")
    rows = clicks.filter(pl.col("at") + rules.embargo_us <= complete_until)
    rows = rows.join_asof(purchases, on="at", by="user", strategy="forward", check_sortedness=False)
    rows = rows.with_columns(label=(pl.col("bought") - pl.col("at") < rules.horizon_us).fill_null(False).cast(pl.Int8))
    for name, earlier in (("since_click_s", clicks.with_columns(then="at")), ("since_purchase_s", purchases)):
        earlier = earlier.rename({"bought": "then"}, strict=False)
        # strictly before: what lies at the moment itself is not known yet
        rows = rows.drop("then", strict=False).join_asof(
            earlier, on="at", by="user", strategy="backward", allow_exact_matches=False, check_sortedness=False
        )
        since = ((pl.col("at") - pl.col("then")) / 1e6).fill_null(NEVER_SECONDS).clip(0, NEVER_SECONDS)
        rows = rows.with_columns(since.alias(name))
    return rows.select("user", "at", "label", "since_click_s", "since_purchase_s").sort("at", "user")


def sampled(clicks: pl.DataFrame, sampling: Sampling) -> pl.DataFrame:
    """Some of the clicks, with ``weight`` = 1 / the chance of being kept; in order, the same for the same clicks.

    The weights add up to about the number of clicks that are left when bursts are cut, with and without purchase.
    """
    rng = np.random.default_rng([sampling.seed, 3])
    clicks = clicks.with_columns(draw=pl.Series(rng.random(len(clicks))))
    in_hour = pl.col("draw").rank("ordinal").over("user", pl.col("at") // HOUR_US)
    clicks = clicks.filter(in_hour <= sampling.burst)
    with_purchase = int(clicks["label"].sum())
    rates = _rates(with_purchase, len(clicks) - with_purchase, sampling.clicks)
    clicks = clicks.with_columns(chance=pl.when(pl.col("label") == 1).then(rates[1]).otherwise(rates[0]))
    clicks = clicks.filter(pl.Series(rng.random(len(clicks)), dtype=pl.Float64) < pl.col("chance"))
    return clicks.with_columns(weight=1 / pl.col("chance")).drop("chance", "draw")


def _rates(positives: int, negatives: int, clicks: int) -> tuple[float, float]:
    """Chances (of a click without, with purchase): purchases are rare, so they go first, up to half of the room."""
    if positives + negatives <= clicks:
        return 1.0, 1.0
    kept = min(positives, max(clicks // 2, clicks - negatives))
    return min(1.0, (clicks - kept) / max(negatives, 1)), kept / max(positives, 1)
