"""Plots of a streaming pipeline's assets.

What goes here: drawing from plain numbers. What does not: computing them (``stream_hours``, ``stream_training``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ct_assets.orchestration.plots import picture

if TYPE_CHECKING:
    import dagster as dg
    from matplotlib.axes import Axes

HOUR_US = 3_600_000_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def rate_and_lateness(minutes: Sequence[int], events: Sequence[int], late: Sequence[int]) -> dg.MarkdownMetadataValue:
    """Events accepted a minute of event time, and the share of them that came behind the watermark."""
    places = range(len(minutes))
    total, behind = sum(events), sum(late)

    def rate(axes: Axes) -> None:
        axes.fill_between(places, events, step="post", alpha=0.4)
        axes.set_ylabel("events a minute")
        axes.set_ylim(bottom=0)
        _clock(axes, minutes)

    def lateness(axes: Axes) -> None:
        shares = [100 * part / whole if whole else 0.0 for part, whole in zip(late, events, strict=True)]
        axes.plot(places, shares, linewidth=0.8, color="tab:red")
        axes.set_ylabel("accepted late, %")
        axes.set_ylim(bottom=0)
        _clock(axes, minutes)

    share = f"{behind / total:.2%}" if total else "none"
    return picture(f"{total:,} events accepted, {share} of them late", rate, lateness, width=9.5)


def served_against_corrected(values: int, changed: Mapping[str, int]) -> dg.MarkdownMetadataValue:
    """How many values that were served differ from what all events say by now, by aggregate."""
    names, counts = list(changed), list(changed.values())

    def bars(axes: Axes) -> None:
        axes.barh(range(len(names)), counts)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(left=0, right=max([*counts, 1]) * 1.1)
        axes.set_xlabel("values that differ by now")

    total = sum(counts)
    share = f"{total / values:.2%}" if values else "nothing sampled yet"
    return picture(f"As served against corrected: {total:,} of {values:,} values differ ({share})", bars)


def _clock(axes: Axes, minutes: Sequence[int]) -> None:
    """At most six labels, on full hours: minutes are whole, so the positions are theirs."""
    hours = [at for at, minute in enumerate(minutes) if minute % HOUR_US == 0] or [0]
    chosen = hours[:: max(1, -(-len(hours) // 6))]
    moments = [_EPOCH + dt.timedelta(microseconds=minutes[at]) for at in chosen]
    axes.set_xticks(chosen, [f"{m:%d %b %H:%M}" if at == 0 else f"{m:%H:%M}" for at, m in enumerate(moments)])
    axes.set_xlabel("event time, UTC")
