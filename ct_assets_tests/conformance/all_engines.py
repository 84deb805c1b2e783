"""Which engines run a streaming case, as pytest parameters.

What goes here: the three sets. What does not: engines themselves, cases. ``CT`` variables are not read by tests, so the
whole of Kafka and Redis is asked for with STREAM_CASES=all (`make soak` does); `make test` runs Kafka in batches of 7, Redis
in batches of 1 and 7.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ct_assets_tests.conformance.live_engine import Live
from ct_assets_tests.conformance.stream_engines import BATCHES, EVERYWHERE, WITHOUT_FILES

ALL = os.environ.get("STREAM_CASES") == "all"
ON_KAFKA = BATCHES if ALL else (7,)
IN_REDIS = BATCHES if ALL else (1, 7)
LIVE_LOG = {f"worker-log-{size or 'all'}": Live("log", size) for size in BATCHES}
LIVE_LOG |= {f"worker-log-{size or 'all'}-redis": Live("log", size, "redis") for size in IN_REDIS}
LIVE_KAFKA = {f"worker-kafka-{size or 'all'}": Live("kafka", size) for size in ON_KAFKA}


def _parametrized(found: Mapping[str, Callable[..., Any]]) -> pytest.MarkDecorator:
    kafka = pytest.mark.xdist_group("kafka")
    values = [pytest.param(e, id=name, marks=kafka if "kafka" in name else ()) for name, e in found.items()]
    return pytest.mark.parametrize("engine", values)


engines = _parametrized({**EVERYWHERE, **LIVE_LOG, **LIVE_KAFKA})
without_files = _parametrized({**WITHOUT_FILES, **LIVE_LOG, **LIVE_KAFKA})
with_append_times = _parametrized({**WITHOUT_FILES, **LIVE_LOG})  # a broker stamps the arrival itself
