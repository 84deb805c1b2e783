"""A share of the random streams of `make soak` through the live worker, with fixed seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from ct_assets_tests.conformance.live_engine import Live
from ct_assets_tests.conformance.live_streams import check_live


@pytest.mark.parametrize("begin", range(0, 120, 20))
def test_random_streams_through_the_worker_equal_the_oracle(begin: int, pg_url: str, tmp_path: Path) -> None:
    values = 0
    for seed in range(begin, begin + 20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        values += check_live(Live("log", None, url=pg_url), seed, folder)
    assert values > 300


@pytest.mark.parametrize("begin", range(0, 60, 20))
def test_random_streams_read_from_redis_equal_the_oracle(
    begin: int, pg_url: str, redis_url: str, tmp_path: Path
) -> None:
    values = 0
    for seed in range(begin, begin + 20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        values += check_live(Live("log", None, "redis", pg_url, online_url=redis_url), seed, folder)
    assert values > 300
