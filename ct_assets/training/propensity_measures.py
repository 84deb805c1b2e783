"""What is measured of probabilities, with confidence: log loss, Brier score, AUC, calibration error.

What goes here: weighted measures over arrays and their bootstrap by user. What does not: which model may lead.

A user's clicks are not independent (one session is dozens of them), so users are drawn, each with all its clicks. The
seed is fixed: the same evidence gives the same interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 500
BINS = 10
EDGE = 1e-6  # a probability of 0 or 1 would make one surprise infinitely expensive
MEASURES = ("log_loss", "brier", "auc", "calibration_error")
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval of 95 % (percentile bootstrap over users); NaN where there is nothing to say."""

    figure: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.figure:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Judged:
    """Clicks with their truth. ``user``: any integers; ``weight``: 1 / the chance of being in the sample."""

    user: npt.NDArray[np.int64]
    label: F64
    weight: F64

    def __len__(self) -> int:
        """How many clicks."""
        return len(self.label)


def log_losses(label: F64, probability: F64) -> F64:
    """``-ln`` of the probability given to what happened, a value a click."""
    p = np.clip(probability, EDGE, 1 - EDGE)
    return -(label * np.log(p) + (1 - label) * np.log1p(-p))


def auc(label: F64, probability: F64, weight: F64) -> float:
    """Chance that a click with purchase ranks above one without (ties half); NaN without both."""
    return float(_Ranks(label, probability)(weight))


def calibration_error(label: F64, probability: F64, weight: F64) -> float:
    """Mean of |mean probability - share of purchases| over ten bins of equal weight, weighted (Naeini et al. 2015)."""
    return float(_Bins(label, probability, weight)(weight))


def measured(judged: Judged, probability: F64, resamples: int = RESAMPLES) -> dict[str, Estimate]:
    """Every measure with its interval."""
    draws = Draws(judged.user, resamples)
    w = judged.weight
    losses = {"log_loss": log_losses(judged.label, probability), "brier": (judged.label - probability) ** 2}
    found = {name: draws.mean(values, w) for name, values in losses.items()}
    found["auc"] = draws.estimate(_Ranks(judged.label, probability), w)
    found["calibration_error"] = draws.estimate(_Bins(judged.label, probability, w), w)
    return found


class Draws:
    """Users drawn with replacement: how often each, ``resamples`` times."""

    def __init__(self, user: npt.NDArray[np.int64], resamples: int = RESAMPLES) -> None:
        """``user``: of each click."""
        users, self._place = np.unique(user, return_inverse=True)
        self.users = len(users)
        rng = np.random.default_rng(0)
        size = max(self.users, 1)
        self._counts = rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(np.float64)

    def sums(self, values: F64) -> F64:
        """The sum of ``values`` in each resample."""
        return self._counts @ np.bincount(self._place, values, minlength=max(self.users, 1))

    def mean(self, values: F64, weight: F64) -> Estimate:
        """The weighted mean with its interval."""
        if not len(values):
            return Estimate(*[float("nan")] * 3)
        draws = self.sums(values * weight) / np.maximum(self.sums(weight), 1e-12)
        return _estimate(float(np.average(values, weights=weight)), draws)

    def estimate(self, statistic: Callable[[F64], float], weight: F64) -> Estimate:
        """Any statistic of the weights with its interval; a fifth of the resamples, because each costs a pass."""
        if not len(weight):
            return Estimate(*[float("nan")] * 3)
        some = self._counts[:: max(1, len(self._counts) // 100)]
        return _estimate(statistic(weight), np.array([statistic(weight * counts[self._place]) for counts in some]))


def _estimate(figure: float, draws: F64) -> Estimate:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(figure, float(low), float(high))


class _Ranks:
    """AUC as a function of the weights; sorting is done once."""

    def __init__(self, label: F64, probability: F64) -> None:
        self._order = np.argsort(probability, kind="stable")
        ordered = probability[self._order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.array([], np.int64)
        self._starts, self._label = starts, label[self._order]

    def __call__(self, weight: F64) -> float:
        w = weight[self._order]
        ones = np.add.reduceat(w * self._label, self._starts) if len(w) else np.zeros(0)
        zeros = np.add.reduceat(w * (1 - self._label), self._starts) if len(w) else np.zeros(0)
        if not ones.sum() or not zeros.sum():
            return float("nan")
        below = np.cumsum(zeros) - zeros
        return float((ones * (below + zeros / 2)).sum() / ones.sum() / zeros.sum())


class _Bins:
    """Calibration error as a function of the weights; the bins are those of the whole sample."""

    def __init__(self, label: F64, probability: F64, weight: F64) -> None:
        order = np.argsort(probability, kind="stable")
        share = np.cumsum(weight[order]) / max(weight.sum(), 1e-12)
        # clicks of one probability stay in one bin: a constant forecast is one bin
        ordered = probability[order]
        first = np.searchsorted(ordered, ordered, side="left")
        bins = np.empty(len(order), np.int64)
        before = np.r_[0.0, share[:-1]] if len(share) else share
        bins[order] = np.minimum(before[first] * BINS, BINS - 1).astype(np.int64)
        self._bins, self._off = bins, probability - label

    def __call__(self, weight: F64) -> float:
        if not weight.sum():
            return float("nan")
        return float(np.abs(np.bincount(self._bins, weight * self._off, minlength=BINS)).sum() / weight.sum())
