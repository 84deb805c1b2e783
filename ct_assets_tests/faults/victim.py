"""A publisher that can be killed: publish one delivery, ending this process with SIGKILL at a named point.

What goes here: the process that the fault tests and the kill soak start. What does not: assertions.

    python -m ct_assets_tests.faults.victim DELIVERY_ID POINT NTH      (settings from the environment; POINT `-`: none)
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter

from ct_assets.adapters import ledger
from ct_assets.adapters.datasets import pipeline_dataset
from ct_assets.adapters.postgres.connect import connect, url_for
from ct_assets.adapters.publish import publish_delivery
from ct_assets.settings import load


def main(delivery_id: int, wanted: str, nth: int) -> None:
    """Publish; print the point and die there at its ``nth`` passing, or print what became of the delivery."""
    settings = load()
    passed: Counter[str] = Counter()

    def crash(point: str) -> None:
        passed[point] += 1
        if point == wanted and passed[point] == nth:
            print(f"killed at {point}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    with connect(url_for(settings)) as conn:
        delivery = ledger.delivery(conn, delivery_id)
    assert delivery is not None
    decision = publish_delivery(settings, pipeline_dataset("sales", settings), delivery, crash=crash)
    print(f"{decision.state} {'fresh' if decision.fresh else 'known'}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
