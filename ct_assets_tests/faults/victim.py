"""A process that can be killed: one step of the pipeline, ending with SIGKILL at a named point.

What goes here: the process that the fault tests and the kill soak start. What does not: assertions.

    python -m ct_assets_tests.faults.victim delivery|features|model|forecast WHICH POINT    (POINT `-`: none)

Settings come from the environment; WHICH is the number of a delivery or a forecast, the id of a training run, or `-`.
"""

from __future__ import annotations

import os
import signal
import sys

from ct_assets.adapters import ledger
from ct_assets.adapters.crash import Crash
from ct_assets.adapters.postgres.connect import connect, url_for
from ct_assets.settings import Settings, load


def main(what: str, which: str, wanted: str) -> None:
    """Do the step; print the point and die there, or print what became of it."""

    def crash(point: str) -> None:
        if point == wanted:
            print(f"killed at {point}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    settings = load()
    if what == "delivery":
        print(publish(settings, int(which), crash))
        return
    from ct_assets_tests.faults import soak_models

    url = url_for(settings)
    with connect(url, autocommit=True) as conn:
        if what == "features":
            print(soak_models.build_features(conn, url, crash))
        elif what == "model":
            print(soak_models.promote(conn, which, crash))
        else:
            print(soak_models.publish_forecast(url, int(which), crash))


def publish(settings: Settings, delivery_id: int, crash: Crash) -> str:
    """Publish a delivery."""
    from ct_assets.adapters.datasets import pipeline_dataset
    from ct_assets.adapters.publish import publish_delivery

    with connect(url_for(settings)) as conn:
        delivery = ledger.delivery(conn, delivery_id)
    assert delivery is not None
    decision = publish_delivery(settings, pipeline_dataset("sales", settings), delivery, crash=crash)
    return f"{decision.state} {'fresh' if decision.fresh else 'known'}"


if __name__ == "__main__":
    main(*sys.argv[1:])
