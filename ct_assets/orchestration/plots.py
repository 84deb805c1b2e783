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


def picture(title: str, *draw: Any, width: float = 8.0, height: float = 3.0) -> dg.MarkdownMetadataValue:
    """One picture as markdown: each ``draw`` gets axes of its own, side by side. The title says what is to be seen."""
    import dagster as dg
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=80, layout="constrained")
    figure.suptitle(title, fontsize=10)
    for number, part in enumerate(draw):
        axes = figure.add_subplot(1, len(draw), number + 1)
        part(axes)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
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
        axes.set_xlabel("day of the delivery")
        axes.set_ylabel("rows")
        if rules:
            _legend(axes)

    broken = sum(totals.values())
    most = f", most often {rules[0]}" if rules else ""
    return picture(f"{broken:,} times a row broke a rule, last {len(shown)} delivered days{most}", draw)


def forecast_against_truth(weeks: Sequence[tuple[str, float, float, float]]) -> dg.MarkdownMetadataValue:
    """Units of the week after each origin, all products: ``weeks`` are (origin, truth, mean forecast, 28-day mean)."""
    truth, forecast = sum(week[1] for week in weeks), sum(week[2] for week in weeks)
    change = forecast / truth - 1 if truth > 0 else 0.0
    off = f"{abs(change):.0%} {'less' if change < 0 else 'more'} than was sold" if truth > 0 else "nothing was sold"

    def draw(axes: Axes) -> None:
        for index, (label, marker) in enumerate((("sold", "o-"), ("forecast", "s--"), ("mean of 28 days", "^:"))):
            axes.plot([week[index + 1] for week in weeks], marker, label=label)
        axes.set_xticks(range(len(weeks)), [week[0] for week in weeks])
        axes.set_xlabel("forecast made at the end of")
        axes.set_ylabel("units in the next 7 days")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.margins(y=0.1)
        axes.set_ylim(bottom=0)
        _legend(axes)

    return picture(f"Forecast of all products: {off} in {len(weeks)} weeks", draw)


def calibration(groups: Sequence[Mapping[str, float]]) -> dg.MarkdownMetadataValue:
    """``groups``: as of ``Evaluation.calibration``. Coverage of P50 and P90, and mean sold against mean forecast."""
    tenths = range(1, len(groups) + 1)
    rows = sum(group["rows"] for group in groups)
    overall = {name: sum(group[name] * group["rows"] for group in groups) / rows for name in ("p50", "p90")}

    def coverage(axes: Axes) -> None:
        for name, wanted, marker in (("p90", 0.9, "s-"), ("p50", 0.5, "o-")):
            (line,) = axes.plot(
                tenths, [100 * group[name] for group in groups], marker, label=f"at or below {name.upper()}"
            )
            axes.axhline(100 * wanted, linewidth=1, linestyle="--", color=line.get_color())
        axes.set_ylim(0, 104)
        axes.set_xticks(tenths)
        axes.set_xlabel("tenth of products and weeks by forecast, lowest first")
        axes.set_ylabel("weeks, % (dashed: aim)")
        _legend(axes, "lower right")

    def means(axes: Axes) -> None:
        axes.plot([g["forecast"] for g in groups], [g["truth"] for g in groups], "o", label="a tenth")
        shown = [value for g in groups for value in (g["forecast"], g["truth"]) if value > 0] or [1.0]
        ends = [min(shown) / 1.3, max(shown) * 1.3]
        axes.plot(ends, ends, "--", linewidth=1, color="grey", label="sold as forecast")
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.set_xlabel("mean forecast, units a week")
        axes.set_ylabel("mean sold, units a week")
        _legend(axes, "upper left")

    title = (
        f"{overall['p90']:.0%} of weeks lie at or below P90 (aim 90%), {overall['p50']:.0%} at or below P50 (aim 50%)"
    )
    return picture(title, coverage, means, width=9.5, height=3.6)


def metric_history(versions: Sequence[tuple[int, Mapping[str, float | None], bool]]) -> dg.MarkdownMetadataValue:
    """Ratios to the 28-day mean by version (below 1 is better); filled marks were promoted."""
    newest = versions[-1][1].get("deviance_over_mean_28") if versions else None
    finding = "no figure yet" if newest is None else f"deviance {newest:.2f} times that of the 28-day mean"
    state = "promoted" if versions and versions[-1][2] else "not promoted"

    def draw(axes: Axes) -> None:
        numbers = [number for number, _, _ in versions]
        for name, label, marker in (
            ("deviance_over_mean_28", "deviance", "o"),
            ("wape_over_mean_28", "WAPE of P50", "s"),
        ):
            points = [(n, v, won) for n, found, won in versions if (v := found.get(name)) is not None]
            (line,) = axes.plot([n for n, _, _ in points], [v for _, v, _ in points], "-" + marker, label=label)
            line.set_markerfacecolor("white")
            filled = [(n, v) for n, v, won in points if won]
            axes.plot([n for n, _ in filled], [v for _, v in filled], marker, color=line.get_color())
        axes.axhline(1.0, linewidth=1, linestyle="--", color="grey", label="mean of 28 days")
        axes.set_xticks(numbers[:: max(1, len(numbers) // 12)])
        axes.set_xlabel("version (filled: promoted)")
        axes.set_ylabel("ratio, below 1 is better")
        axes.margins(y=0.3)
        axes.legend(fontsize=8, frameon=False, loc="upper right", ncols=3)

    newest_number = versions[-1][0] if versions else 0
    return picture(f"Version {newest_number}, {state}: {finding}", draw)


def _legend(axes: Axes, place: Any = "best") -> None:
    axes.legend(fontsize=8, frameon=False, loc=place)


def _days(axes: Axes, days: Sequence[str]) -> None:
    """A few readable day labels, whatever their number."""
    step = max(1, -(-len(days) // 6))
    axes.set_xticks(range(0, len(days), step), [days[i] for i in range(0, len(days), step)])
