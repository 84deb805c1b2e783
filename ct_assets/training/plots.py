"""Pictures of a model: forecast against truth, measures over time, calibration. PNG bytes.

What goes here: drawing. What does not: where pictures are shown or kept.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ct_assets.training.evaluation import Evaluation


def forecast_against_truth(evaluation: Evaluation) -> bytes:
    """Units of all products per fold: truth, mean, P50, mean of 28 days; and every product of the newest fold."""
    figure, (left, right) = _figure(2)
    folds = evaluation.folds
    labels = [fold.origin.isoformat() for fold in folds]
    for name, style in (("truth", "k-o"), ("mean", "C0-o"), ("p50", "C2--"), ("mean_28", "C7:")):
        left.plot(labels, [fold.rows[name].sum() for fold in folds], style, label=name)
    left.set(title="units of the following week, all products", ylim=(0, None))
    left.tick_params(axis="x", rotation=30)
    left.legend()
    if folds:
        truth, mean = folds[-1].rows["truth"].to_numpy(), folds[-1].rows["mean"].to_numpy()
        right.loglog(np.maximum(mean, 0.1), np.maximum(truth, 0.1), ".", markersize=2, alpha=0.5)
        limits = (0.1, max(float(truth.max(initial=1)), float(mean.max(initial=1))))
        right.plot(limits, limits, "k-", linewidth=0.7)
        right.set(
            title=f"each product, week after {labels[-1]}", xlabel="forecast mean", ylabel="truth (0 shown as 0.1)"
        )
    return _png(figure)


def metric_history(versions: Sequence[Mapping[str, Any]], measure: str = "deviance_over_mean_28") -> bytes:
    """A measure over the versions: ``version``, ``metrics``, ``decision``; refused ones are hollow."""
    figure, (axes,) = _figure(1)
    points = [(v["version"], v["metrics"].get(measure), v["decision"]) for v in versions]
    points = [point for point in points if isinstance(point[1], (int, float))]
    axes.plot([p[0] for p in points], [p[1] for p in points], "C0-", linewidth=0.8)
    for number, value, decision in points:
        axes.plot(number, value, "o", color="C0", fillstyle="full" if decision == "promoted" else "none")
    axes.axhline(1, color="k", linewidth=0.7)
    axes.set(title=f"{measure} (filled: promoted)", xlabel="version", ylim=(0, None))
    return _png(figure)


def calibration(evaluation: Evaluation) -> bytes:
    """Share of weeks at or below P50 and P90 per slice, with the shares that were meant."""
    figure, (axes,) = _figure(1)
    names = sorted({name for fold in evaluation.folds for name in fold.rows["slice"].unique()})
    for offset, output, meant in ((-0.2, "p50", 0.5), (0.2, "p90", 0.9)):
        shares = []
        for name in names:
            parts = [f.rows.filter(f.rows["slice"] == name) for f in evaluation.folds]
            covered = sum(int((part["truth"] <= part[output]).sum()) for part in parts)
            shares.append(covered / max(1, sum(len(part) for part in parts)))
        axes.bar(np.arange(len(names)) + offset, shares, 0.4, label=f"{output}, meant {meant}")
        axes.axhline(meant, color="k", linewidth=0.7)
    axes.set_xticks(np.arange(len(names)), names)
    axes.set(title="share of weeks at or below the quantile", ylim=(0, 1))
    axes.legend(loc="lower right")
    return _png(figure)


def _figure(panels: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * panels, 4), dpi=90, layout="constrained")  # no pyplot: no global state, no window
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, panels, at + 1) for at in range(panels)]


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
