"""Named points at which a test may kill this process, to prove that a restart gives the same final state.

What goes here: the points of each transaction and the switch that acts on them. What does not: recovery (there is none
to run: what was not committed never was).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

Crash = Callable[[str], None]

# Of a delivery: between the first staged row and the commit, in order; then with those around them.
STAGED_POINTS = ("first_rows", "more_rows", "copied", "quarantined", "rolled_up", "compared", "recorded")
DELIVERY_POINTS = ("locked", *STAGED_POINTS, "committed", "rejected")
# Of a feature build, of a training's end, of a forecast: each between its first row and its commit.
FEATURE_POINTS = ("features_written", "features_complete")
MODEL_POINTS = ("registered", "promoted")
FORECAST_POINTS = ("forecast_superseded", "forecast_written")
# The kill soak hits every one of these.
UNCOMMITTED_POINTS = (*STAGED_POINTS, *FEATURE_POINTS, *MODEL_POINTS, *FORECAST_POINTS)
# Of a stream worker: taking partitions, then each batch up to its acknowledgement.
STREAM_POINTS = (
    "assigned", "polled", "folded",
    "fenced", "chunks_written", "dead_letters_written", "online_midway", "online_written", "acknowledged",
)  # fmt: skip
# Of a worker with a copy in Redis: a batch is there, and Redis does not say so yet.
TWIN_POINTS = ("twin_sent",)
POINTS = (*DELIVERY_POINTS, *FEATURE_POINTS, *MODEL_POINTS, *FORECAST_POINTS, *STREAM_POINTS, *TWIN_POINTS)


def no_crash(point: str) -> None:
    """Go on (always, outside of tests)."""


def crash_at(wanted: str | None) -> Crash:
    """A function that ends this process with SIGKILL at the point named ``wanted``; None: never.

    ``point*3``: the third time that it comes by.
    """
    if wanted is None:
        return no_crash
    if wanted.partition("*")[0] not in POINTS:
        from ct_assets.errors import UsageError, did_you_mean

        raise UsageError(
            f"CT_CRASH_AT names no point: {wanted!r}", hint=did_you_mean(wanted, POINTS) or ", ".join(POINTS)
        )

    wanted, _, times = wanted.partition("*")
    left = int(times or 1)

    def crash(point: str) -> None:
        nonlocal left
        left -= point == wanted
        if point == wanted and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return crash
