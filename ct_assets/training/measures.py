"""What is measured of a forecast: deviance, bias, WAPE, coverage, and by which slices.

What goes here: measures over arrays. What does not: which forecast may lead (``gates``).
"""

from __future__ import annotations

import numpy as np

FLOOR = 0.01  # units a week: a forecast of 0 would make the deviance infinite as soon as one unit is sold
NEW_PRODUCT_DAYS = 28


def deviances(truth: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Unit Poisson deviances ``2 (y ln(y/m) - y + m)`` with ``m`` at least :data:`FLOOR`; ``truth`` >= 0."""
    m = np.maximum(forecast, FLOOR)
    ratio = np.divide(truth, m, out=np.ones_like(m), where=truth > 0)
    with np.errstate(divide="ignore", invalid="ignore"):  # an infinite forecast gives NaN, which the gates refuse
        return 2 * (truth * np.log(ratio) - truth + m)


def poisson_deviance(truth: np.ndarray, forecast: np.ndarray) -> float:
    """Mean unit deviance; NaN for no rows."""
    return float(deviances(truth, forecast).mean()) if len(truth) else float("nan")


def wape(truth: np.ndarray, forecast: np.ndarray) -> float:
    """Sum of absolute errors over the sum of the truth; NaN when that is 0."""
    return _over(np.abs(truth - forecast).sum(), truth.sum())


def bias(truth: np.ndarray, forecast: np.ndarray) -> float:
    """Sum of errors (forecast less truth) over the sum of the truth; NaN when that is 0."""
    return _over((forecast - truth).sum(), truth.sum())


def coverage(truth: np.ndarray, upper: np.ndarray) -> float:
    """Share of rows with ``truth <= upper``; NaN for no rows or an upper bound that is not a number."""
    return float((truth <= upper).mean()) if len(truth) and np.isfinite(upper).all() else float("nan")


def slices(volume: np.ndarray, age_days: np.ndarray) -> np.ndarray:
    """The slice of each product: ``new`` (first sale under 28 days ago), else ``high`` (the products that make half of
    the volume), ``middle`` (up to 90 %), ``low``. ``volume`` is known at the origin."""
    order = np.argsort(-volume, kind="stable")
    before = np.empty(len(volume))
    before[order] = np.concatenate([[0.0], np.cumsum(volume[order])[:-1]]) if len(volume) else []
    share = before / max(volume.sum(), 1e-9)
    names = np.where(share < 0.5, "high", np.where(share < 0.9, "middle", "low"))
    return np.where(age_days < NEW_PRODUCT_DAYS, "new", names)


def _over(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
