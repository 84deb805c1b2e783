"""Labelled clicks of a sampled shop, with features and the true probability, without a database: what propensity tests share.

What goes here: made input. What does not: expectations.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

import ct_assets
from ct_assets.sampling.shoppers import KINDS, US, ShopOptions, draw
from ct_assets.streaming.definition import Definition, load_definition
from ct_assets.streaming.windows import evaluate
from ct_assets.training.propensity_labels import LabelRules, Sampling, labelled_clicks, sampled

DEFINITION = Path(ct_assets.__file__).parent / "defs/growth/shop/streams/user_activity.yaml"
START = 1_767_225_600 * US
LAG_US = 300_000  # from the event to its being known


@cache
def definition() -> Definition:
    return load_definition(DEFINITION)


@cache
def shop(
    seed: int = 7, users: int = 2_000, hours: float = 12, signal: bool = True, clicks: int = 400_000
) -> pl.DataFrame:
    """What ``adapters.propensity`` reads for such a shop, plus ``truth``: the generator's own probability."""
    made = draw(ShopOptions(users, hours, seed, signal=signal))
    at = START + (made.seconds * US).astype(np.int64)
    kind = pl.Series([KINDS[k] for k in made.kind.tolist()])
    events = pl.DataFrame({"user": made.user, "at": at, "kind": kind, "truth": made.probability})
    kept = sampled(labelled_clicks(events, LabelRules(), int(at.max())), Sampling(clicks))
    truth = events.filter(pl.col("kind") == "click").unique(["user", "at"]).select("user", "at", "truth")
    raw = pl.DataFrame(
        {
            "user_id": made.user,
            "event_time": pl.Series(at).cast(pl.Datetime("us", "UTC")),
            "event_type": kind,
            "amount": pl.Series(made.cents / 100).cast(pl.Decimal(12, 2)),
            "_partition": pl.zeros(len(at), dtype=pl.Int32, eager=True),
            "_offset": np.arange(len(at)),
            "_append_time": at,
            "_known_at": at + LAG_US,
        }
    ).with_columns(amount=pl.when(pl.col("amount") >= 0).then("amount"))
    moments = kept["at"].to_numpy()
    found = evaluate(definition(), raw, kept["user"], moments, as_known_at=moments)
    return kept.hstack(found).join(truth, on=["user", "at"], how="left", maintain_order="left")
