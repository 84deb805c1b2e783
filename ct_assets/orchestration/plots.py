"""Plots for asset pages: PNG in markdown, small, readable in light and dark.

What goes here: drawing from plain numbers. What does not: computing them. matplotlib is imported inside, without
pyplot (no global state, no display).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg
    from matplotlib.axes import Axes

MAX_BARS = 60


def picture(title: str, draw: Any, *, width: float = 8.0, height: float = 3.0) -> dg.MarkdownMetadataValue:
    """One plot as markdown; ``draw`` gets the axes."""
    import dagster as dg
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=80, layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_png(data)
    text = base64.b64encode(data.getvalue()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{text})")


def quarantine_by_reason(days: Sequence[tuple[str, Mapping[str, int]]]) -> dg.MarkdownMetadataValue:
    """Rows that broke each rule, per day, stacked: ``days`` are (ISO day, rule -> rows), in order."""
    shown = list(days)[-MAX_BARS:]
    totals: dict[str, int] = {}
    for _, reasons in shown:
        for rule, rows in reasons.items():
            totals[rule] = totals.get(rule, 0) + rows
    rules = sorted(totals, key=lambda rule: -totals[rule])

    def draw(axes: Axes) -> None:
        bottom = [0] * len(shown)
        for rule in rules:
            heights = [reasons.get(rule, 0) for _, reasons in shown]
            axes.bar(range(len(shown)), heights, bottom=bottom, label=f"{rule} ({totals[rule]:,})")
            bottom = [low + high for low, high in zip(bottom, heights, strict=True)]
        _days(axes, [day for day, _ in shown])
        axes.set_ylabel("rows")
        if rules:
            axes.legend(fontsize=7, frameon=False)

    return picture(f"rules broken, last {len(shown)} delivered days", draw)


def forecast_against_truth(weeks: Sequence[tuple[str, float, float, float]]) -> dg.MarkdownMetadataValue:
    """Units of the week after each origin, all products: ``weeks`` are (origin, truth, mean forecast, 28-day mean)."""

    def draw(axes: Axes) -> None:
        for index, (label, marker) in enumerate(
            (("truth", "o-"), ("forecast (mean)", "s--"), ("mean of 28 days", "^:"))
        ):
            axes.plot([week[index + 1] for week in weeks], marker, label=label)
        _days(axes, [week[0] for week in weeks])
        axes.set_ylabel("units in the week after")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7, frameon=False)

    return picture("forecast against truth, rolling origin", draw)


def metric_history(versions: Sequence[tuple[int, Mapping[str, float | None], bool]]) -> dg.MarkdownMetadataValue:
    """Ratios to the 28-day mean by version (below 1 is better); filled marks were promoted."""

    def draw(axes: Axes) -> None:
        numbers = [number for number, _, _ in versions]
        for name, marker in (("deviance_over_mean_28", "o"), ("wape_over_mean_28", "s")):
            values = [measures.get(name) for _, measures, _ in versions]
            points = [(n, v) for n, v in zip(numbers, values, strict=True) if v is not None]
            (line,) = (
                axes.plot(*zip(*points, strict=True), "-", label=name.replace("_", " ")) if points else axes.plot([])
            )
            for (number, _, promoted), value in zip(versions, values, strict=True):
                if value is not None:
                    axes.plot(
                        number, value, marker, color=line.get_color(), mfc=line.get_color() if promoted else "white"
                    )
        axes.axhline(1.0, linewidth=0.8, color="grey")
        axes.set_xticks(numbers)
        axes.set_xlabel("version (filled: promoted)")
        axes.legend(fontsize=7, frameon=False)

    return picture("quality by version, against the 28-day mean", draw)


def _days(axes: Axes, days: Sequence[str]) -> None:
    """A few readable day labels, whatever their number."""
    step = max(1, len(days) // 8)
    axes.set_xticks(range(0, len(days), step), [days[i] for i in range(0, len(days), step)], fontsize=7)
