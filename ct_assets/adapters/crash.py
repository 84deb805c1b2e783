"""Named points at which a test may kill this process, to prove that a restart gives the same final state.

What goes here: the points of a publication and the switch that acts on them. What does not: recovery (there is none to
run: what was not committed never was).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

Crash = Callable[[str], None]

# Between the first staged row and the commit, in order; the kill soak hits every one of them.
STAGED_POINTS = ("first_rows", "more_rows", "copied", "quarantined", "rolled_up", "compared", "recorded")
# Around them.
POINTS = ("locked", *STAGED_POINTS, "committed", "rejected")


def no_crash(point: str) -> None:
    """Go on (always, outside of tests)."""


def crash_at(wanted: str | None) -> Crash:
    """A function that ends this process with SIGKILL at the point named ``wanted``; None: never."""
    if wanted is None:
        return no_crash
    if wanted not in POINTS:
        from ct_assets.errors import UsageError, did_you_mean

        raise UsageError(
            f"CT_CRASH_AT names no point: {wanted!r}", hint=did_you_mean(wanted, POINTS) or ", ".join(POINTS)
        )

    def crash(point: str) -> None:
        if point == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    return crash
