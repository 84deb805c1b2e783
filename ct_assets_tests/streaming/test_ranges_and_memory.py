"""Folds over ranges, the table of ids and the message buffer against plain Python."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.streaming.definition import Aggregate
from ct_assets.streaming.known import Timeline, Told
from ct_assets.streaming.measures import All, Measured, result
from ct_assets.streaming.messages import Messages
from ct_assets.streaming.oracle import fold
from ct_assets.streaming.ranges import distinct_counts, expanded, float_sums, int_sums
from ct_assets.streaming.seen import Prints, Seen

WHOLE = st.one_of(st.integers(-9, 9), st.integers(-(2**63), 2**63 - 1))
RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=8)


def bounds(pairs: list[tuple[int, int]], n: int) -> tuple[np.ndarray, np.ndarray]:
    low = np.array([min(a, b, n) for a, b in pairs], np.int64)
    return low, np.maximum(np.array([min(max(a, b), n) for a, b in pairs], np.int64), low)


@settings(max_examples=150, deadline=None)
@given(st.lists(WHOLE, min_size=1, max_size=30), RANGES)
def test_integer_sums_are_exact_beyond_64_bits(values: list[int], pairs: list[tuple[int, int]]) -> None:
    lo, hi = bounds(pairs, len(values))
    got = int_sums(np.array(values, np.int64), lo, hi)
    assert [int(v) for v in got] == [sum(values[a:b]) for a, b in zip(lo, hi, strict=True)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=30), RANGES)
def test_averages_and_spreads_are_the_nearest_doubles(values: list[int], pairs: list[tuple[int, int]]) -> None:
    lo, hi = bounds(pairs, len(values))
    for function in ("avg", "var", "std"):
        aggregate = Aggregate("x", function, "v", 1)
        got = result(aggregate, Measured(pl.Series(values, dtype=pl.Int64)), All(lo, hi), pl.Float64())
        assert got.to_list() == [fold(function, values[a:b]) if b > a else None for a, b in zip(lo, hi, strict=True)]
    assert float(Fraction(1, 3)) == 1 / 3


def test_a_sum_that_does_not_fit_64_bits_is_null() -> None:
    values = pl.Series([2**63 - 1, 1, -1, -(2**63), -1, 0])
    lo, hi = np.array([0, 0, 0, 3, 3, 2]), np.array([2, 3, 1, 4, 5, 2])
    got = result(Aggregate("total", "sum", "v", 1), Measured(values), All(lo, hi), pl.Int64())
    assert got.to_list() == [None, 2**63 - 1, 2**63 - 1, -(2**63), None, 0]


def test_a_sum_of_decimals_beyond_38_digits_is_null() -> None:
    most, least = Decimal("9" * 38), Decimal("-" + "9" * 38)
    values = pl.Series([most, Decimal(1), Decimal(-1), least], dtype=pl.Decimal(38, 0))
    lo, hi = np.array([0, 0, 0, 2, 3]), np.array([2, 3, 1, 4, 3])
    got = result(Aggregate("total", "sum", "v", 1), Measured(values), All(lo, hi), values.dtype)
    assert got.to_list() == [None, most, most, None, 0]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([1e16, 1.0, -1e16, 0.1, -0.0, 3e300]), min_size=1, max_size=30), RANGES)
def test_floats_are_folded_from_the_left(values: list[float], pairs: list[tuple[int, int]]) -> None:
    lo, hi = bounds(pairs, len(values))
    want = []
    for a, b in zip(lo, hi, strict=True):
        total = 0.0
        for v in values[a:b]:
            total += v
        want.append(total)
    assert float_sums(np.array(values), lo, hi).tolist() == want


def test_a_long_float_range_is_folded_from_the_left_too() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=20_000) * 10.0 ** rng.integers(-8, 8, 20_000)
    total = 0.0
    for v in values[3:19_000].tolist():
        total += v
    assert float_sums(values, np.array([3]), np.array([19_000]))[0] == total


def test_distinct_counts_and_writing_out_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from ct_assets.streaming import ranges

    monkeypatch.setattr(ranges, "AT_ONCE", 7)
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 5, 50)
    lo = rng.integers(0, 50, 30)
    hi = np.minimum(lo + rng.integers(0, 20, 30), 50)
    assert distinct_counts(codes, lo, hi).tolist() == [len(set(codes[a:b])) for a, b in zip(lo, hi, strict=True)]
    written = [list(position) for _, position, _ in expanded(lo, hi)]
    assert [i for part in written for i in part] == [i for a, b in zip(lo, hi, strict=True) for i in range(a, b)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), min_size=1, max_size=40),
    RANGES,
    st.lists(st.integers(-1, 22), min_size=8, max_size=8),
)
def test_unknown_events_of_a_range(
    events: list[tuple[int, int]], pairs: list[tuple[int, int]], limits: list[int]
) -> None:
    code, since = (np.array(x, np.int64) for x in zip(*sorted(events, key=lambda e: e[0]), strict=True))
    lo, hi = bounds(pairs, len(code))
    end_of = np.searchsorted(code, code, "right")
    hi = np.where(lo < len(code), np.minimum(hi, end_of[np.minimum(lo, len(code) - 1)]), lo)  # within one entity
    hi = np.maximum(hi, lo)
    limit = np.array(limits[: len(lo)], np.int64)
    timeline = Timeline.of(Told(np.arange(len(code)), since, code), 3, len(code))
    cut = timeline.cut((lo, hi), code[np.minimum(lo, len(code) - 1)], limit)
    counts = cut.hi - cut.lo
    counts[cut.mixed] -= cut.unknown
    want = [[i for i in range(a, b) if since[i] <= k] for a, b, k in zip(lo, hi, limit, strict=True)]
    assert counts.tolist() == [len(w) for w in want]
    told = {
        int(label): position[a:b].tolist()
        for labels, position, los, his in cut.written_out()
        for label, a, b in zip(labels, los, his, strict=True)
    }
    assert told == {int(m): want[m] for m in cut.mixed}


@pytest.mark.parametrize("seed", range(4))
def test_the_table_of_ids_is_a_dictionary(seed: int) -> None:
    rng, seen, plain = Random(seed), Seen(), {}
    for _ in range(12):
        keys = np.array(rng.sample(range(1, 9_000), 1_500), np.uint64) * np.uint64(
            4_096
        )  # all meet in one slot at first
        checks, times = keys + np.uint64(rng.randint(0, 3)), np.full(len(keys), rng.randint(0, 100), np.int64)
        seen.put(Prints(keys, checks), times, seen.find(keys), forget_before=-1)
        plain.update(zip(keys.tolist(), zip(checks.tolist(), times.tolist(), strict=True), strict=True))
    asked = np.arange(1, 9_000, dtype=np.uint64) * np.uint64(4_096)
    slots = seen.find(asked)
    got = {int(k): (int(seen.checks(s)), int(seen.times(s))) for k, s in zip(asked, slots, strict=True) if s >= 0}
    assert got == plain


def test_the_table_forgets_when_it_grows() -> None:
    seen = Seen()
    for step in range(200):
        keys = np.arange(step * 1_000 + 1, step * 1_000 + 1_001, dtype=np.uint64)
        seen.put(Prints(keys, keys), np.full(1_000, step, np.int64), seen.find(keys), forget_before=step - 3)
    assert seen.find(np.arange(196_001, 200_001, dtype=np.uint64)).min() >= 0  # the last four steps
    assert seen.nbytes <= 24 * 32_768


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.binary(max_size=12)), max_size=12), st.randoms(use_true_random=False))
def test_messages_keep_their_payloads(values: list[bytes | None], rng: Random) -> None:
    whole = Messages.from_values(values)
    assert [whole.payload(i) for i in range(len(whole))] == values
    rows = [rng.randrange(len(values)) for _ in values] if values else []
    taken = whole.take(rows)
    assert [taken.payload(i) for i in range(len(taken))] == [values[i] for i in rows]
    assert taken.offset.tolist() == rows
    a, b = sorted((rng.randint(0, len(values)), rng.randint(0, len(values))))
    part = whole.slice(a, b)
    assert [part.payload(i) for i in range(len(part))] == values[a:b]
    both = Messages.concat([part, taken, whole])
    assert [both.payload(i) for i in range(len(both))] == values[a:b] + [values[i] for i in rows] + values
