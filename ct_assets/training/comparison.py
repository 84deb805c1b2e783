"""How much worse could the candidate be? Paired bootstrap of its excess loss, whole and by slice.

What goes here: losses of two evaluations side by side, resampling, Holm's correction. What does not: thresholds and
verdicts (``gates``).

What is drawn, in full:

- With :data:`MIN_WEEKS` folds or more, weeks: circular blocks of consecutive weeks (Politis and Romano 1992) of length
  n^(1/3). All products of a week stay together, because one promotion or holiday moves them all.
- With fewer, products: a product's weeks stay together, because its errors in adjacent weeks are not independent. Four
  weeks say nothing about how weeks differ; what this bound leaves out is luck that all products of a week share.
- With fewer than :data:`MIN_PRODUCTS` products: nothing is said.

The seed is fixed: the same evidence gives the same decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ct_assets.training.evaluation import Evaluation, Fold
from ct_assets.training.measures import deviances

RESAMPLES = 1000
MIN_PRODUCTS = 20
MIN_WEEKS = 8
SLICES = ("new", "low", "middle", "high")


@dataclass(frozen=True)
class Excess:
    """The candidate's loss over the champion's, less 1: the ``figure`` and its ``draws``; ``unit``: weeks or products."""

    figure: float
    draws: np.ndarray
    unit: str

    def upper(self, confidence: float) -> float:
        """Upper bound with so much confidence (percentile bootstrap, Efron and Tibshirani 1993, chapter 13)."""
        return float(np.quantile(self.draws, confidence))

    def p_value(self, limit: float) -> float:
        """Of the hypothesis that the excess is ``limit`` or more."""
        return float((1 + (self.draws >= limit).sum()) / (1 + len(self.draws)))


def paired(candidate: Sequence[Fold], champion: Sequence[Fold], measure: str) -> pl.DataFrame | None:
    """``origin, stock_code, slice, loss, loss_champion``; None unless both judged the same products at the same origins."""
    if not candidate or [fold.origin for fold in candidate] != [fold.origin for fold in champion]:
        return None
    own, other = (pl.concat([_losses(fold, measure) for fold in folds]) for folds in (candidate, champion))
    both = own.join(other.drop("slice"), on=["origin", "stock_code"], how="inner", suffix="_champion")
    if len(both) != len(own) or len(both) != len(other):
        return None
    return both.sort("stock_code", "origin")  # the draw must not depend on the order of rows


def _losses(fold: Fold, measure: str) -> pl.DataFrame:
    truth = fold.rows["truth"].to_numpy()
    if measure == "deviance":
        loss = deviances(truth, fold.rows["mean"].to_numpy())
    else:
        loss = np.abs(truth - fold.rows["p50"].to_numpy())
    return fold.rows.select("stock_code", "slice", origin=pl.lit(fold.origin), loss=pl.Series(loss))


def excess(losses: pl.DataFrame) -> Excess | None:
    """The excess of paired losses; None when there is not enough to say, or a loss is not finite."""
    weeks = losses["origin"].n_unique()
    if losses["stock_code"].n_unique() < MIN_PRODUCTS:
        return None
    unit = "weeks" if weeks >= MIN_WEEKS else "products"
    key = "origin" if unit == "weeks" else "stock_code"
    blocks = losses.group_by(key).agg(pl.col("loss", "loss_champion").sum()).sort(key)
    own, other = blocks["loss"].to_numpy(), blocks["loss_champion"].to_numpy()
    if not np.isfinite(own).all() or not np.isfinite(other).all() or other.sum() <= 0:
        return None
    if np.array_equal(own, other):  # a refresh of a fold that both share: every draw is 0
        return Excess(0.0, np.zeros(RESAMPLES), unit)
    counts = _weeks_drawn(len(own)) if unit == "weeks" else _products_drawn(len(own))
    draws = (counts @ own) / np.maximum(counts @ other, 1e-12) - 1
    return Excess(float(own.sum() / other.sum() - 1), draws, unit)


def _products_drawn(count: int) -> np.ndarray:
    """How often each is drawn, shape (resamples, count)."""
    return np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)


def _weeks_drawn(count: int) -> np.ndarray:
    """The same of weeks in circular blocks; the last block is cut so that each resample has ``count`` weeks."""
    length = max(1, round(count ** (1 / 3)))
    starts = np.random.default_rng(0).integers(0, count, size=(RESAMPLES, -(-count // length)))
    drawn = ((starts[:, :, None] + np.arange(length)) % count).reshape(RESAMPLES, -1)[:, :count]
    return (drawn[:, :, None] == np.arange(count)).sum(axis=1)


def guarded(losses: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """The losses by slice. A slice of fewer than :data:`MIN_PRODUCTS` products joins the next one, so that every product
    is guarded and none is judged by a handful."""
    names: list[str] = []
    ready: list[list[str]] = []
    for name in [name for name in SLICES if name in losses["slice"].to_list()]:
        names.append(name)
        if losses.filter(pl.col("slice").is_in(names))["stock_code"].n_unique() >= MIN_PRODUCTS:
            ready.append(names)
            names = []
    if names:
        ready = [*ready[:-1], [*ready[-1], *names]] if ready else [names]
    for group in ready:
        yield "+".join(group), losses.filter(pl.col("slice").is_in(group))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979), in the order given: reject where one is at most the level."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def upper_bound(candidate: Evaluation, champion: Evaluation, measure: str, confidence: float) -> float | None:
    """Upper confidence bound of the candidate's relative excess loss; None when there is not enough to say."""
    losses = paired(candidate.folds, champion.folds, measure)
    found = None if losses is None else excess(losses)
    return None if found is None else found.upper(confidence)
