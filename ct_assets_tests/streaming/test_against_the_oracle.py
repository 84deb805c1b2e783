"""Decoding, acceptance and windows equal the oracle on random streams, whatever the batches.

Why random: the dangerous cases are meetings (a repeat of a late event at a batch's edge), which nobody lists.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ct_assets_tests.streaming.random_streams import check_stream, random_stream

RELAXED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


@settings(max_examples=60, deadline=None, suppress_health_check=RELAXED)
@given(st.randoms(use_true_random=False))
def test_a_small_stream_equals_the_oracle(rng: Random) -> None:
    check_stream(random_stream(rng, 12), rng)


@pytest.mark.parametrize("seed", range(8))
def test_longer_streams_equal_the_oracle(seed: int) -> None:
    for number in range(25):
        rng = Random(seed * 1_000 + number)
        check_stream(random_stream(rng, 120), rng)
