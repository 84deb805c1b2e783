"""Cases 1-6, 18, 20, 21 and 23: what a window holds and what an aggregate of it is worth.

Every case runs on the oracle, on the kernel and on ``ct stream compute``, in batches of 1, 7, 1000 and all.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ct_assets.streaming.windows import evaluate, hops
from ct_assets_tests.conformance.all_engines import engines
from ct_assets_tests.conformance.stream_engines import (
    BASE,
    CONTRACT,
    HEAD,
    SECOND,
    Case,
    Sent,
    event,
    iso,
    judged,
    us,
)


def counts(engine: Any, case: Case, sent: list[Sent], asked: list[str]) -> list[int]:
    rows, dead = engine(case, sent, [(1, at) for at in asked])
    assert dead == []
    return [row["n"] for row in rows]


@engines
@pytest.mark.case(1)
def test_case_01_the_upper_edge_is_open(engine: Any, tmp_path: Path) -> None:
    assert counts(engine, Case(tmp_path), [event("05:00.000")], ["05:00.000", "05:00.001"]) == [0, 1]


@engines
@pytest.mark.case(2)
def test_case_02_the_lower_edge_is_closed(engine: Any, tmp_path: Path) -> None:
    assert counts(engine, Case(tmp_path), [event("00:00.000")], ["05:00.000", "05:00.001"]) == [1, 0]


@engines
@pytest.mark.case(3)
def test_case_03_equal_times_in_any_order(engine: Any, tmp_path: Path) -> None:
    three = [event("01:00", event_id=name) for name in "abc"]
    for order in permutations(three):
        assert counts(engine, Case(tmp_path), list(order), ["01:00.001"]) == [3]


@engines
@pytest.mark.case(4)
def test_case_04_decay_without_any_new_event(engine: Any, tmp_path: Path) -> None:
    asked = ["05:05", "05:10", "05:10.001", "05:20.001"]
    assert counts(engine, Case(tmp_path), [event("00:10"), event("00:20")], asked) == [2, 2, 1, 0]


@engines
@pytest.mark.case(5)
def test_case_05_a_window_of_five_seconds(engine: Any, tmp_path: Path) -> None:
    case = Case(tmp_path, "  - {name: n, function: count, window: 5000ms}\n")
    sent = [event(BASE + ms * 1_000) for ms in (8_000, 9_200, 12_400)]
    rows, _ = engine(case, sent, [(1, BASE + ms * 1_000) for ms in (8_001, 9_201, 12_401, 13_000, 13_001, 14_201)])
    assert [row["n"] for row in rows] == [1, 2, 3, 3, 2, 1]


@pytest.mark.case(6)
@pytest.mark.parametrize("batch", [1, 7, None])
def test_case_06_hops_are_those_of_flink_and_spark(batch: int | None, tmp_path: Path) -> None:
    """HOP(size 5 min, slide 1 min) and window(): an event is in every [s, s + size) with s a multiple of the slide."""
    case = Case(tmp_path, head=HEAD + "emit: {hop: 1m}\n")
    sent = [event(at, user) for at, user in [("00:00", 1), ("00:30", 1), ("01:00", 2), ("04:59.999", 1), ("09:00", 2)]]
    events, _ = judged(case.definition, sent, batch)
    minute = 60 * SECOND
    watermark = us("09:00") - 10 * SECOND
    expected: Counter[tuple[int, int]] = Counter()
    for message in sent:
        assert message.fields is not None
        first = message.fields["event_time"] // minute * minute - 4 * minute
        for start in range(first, first + 5 * minute, minute):
            if start + 5 * minute <= watermark:
                expected[message.fields["user_id"], start + 5 * minute] += 1
    for cuts in ([BASE - 1, watermark], [BASE - 1, us("03:00"), us("03:00.5"), watermark]):
        parts = [hops(case.definition, events, low, high) for low, high in pairwise(cuts)]
        rows = pl.concat(parts)
        ends = rows["window_end"].to_physical().to_list()
        assert dict(zip(zip(rows["user_id"], ends, strict=True), rows["n"], strict=True)) == dict(expected)


@engines
@pytest.mark.case(6)
def test_case_06_a_sawtooth_tail_is_rounded_down(engine: Any, tmp_path: Path) -> None:
    """1 h in hops of 10 min asked at 02:27 covers 01:20 to 02:27 (Chronon's own example); on a hop both modes agree."""
    lines = "  - {name: saw, function: count, window: 60m, mode: sawtooth, hop: 10m}\n"
    case = Case(tmp_path, lines + "  - {name: exact, function: count, window: 60m}\n")
    sent = [
        event(f"{minute}:{second}")
        for minute, second in [(79, "59.999999"), (80, "00"), (87, "00"), (146, "59.999999")]
    ]
    rows, _ = engine(case, sent, [(1, "147:00"), (1, "140:00")])
    assert rows == [{"saw": 3, "exact": 2}, {"saw": 2, "exact": 2}]


@engines
@pytest.mark.case(18)
def test_case_18_an_absent_amount(engine: Any, tmp_path: Path) -> None:
    lines = "  - {name: n, function: count, window: 5m}\n  - {name: c, function: count, column: amount, window: 5m}\n"
    lines += "".join(
        f"  - {{name: x_{f}, function: {f}, column: amount, window: 5m}}\n"
        for f in ("sum", "avg", "min", "max", "last")
    )
    rows, dead = engine(Case(tmp_path, lines), [event("01:00")], [(1, "02:00"), (999, "02:00")])
    nothing = {"c": 0, "x_sum": 0, "x_avg": None, "x_min": None, "x_max": None, "x_last": None}
    assert rows == [{"n": 1, **nothing}, {"n": 0, **nothing}]
    assert dead == []


@engines
@pytest.mark.case(18)
def test_case_18_null_key_and_null_time_are_dead_letters(engine: Any, tmp_path: Path) -> None:
    sent = [
        Sent(None, b'{"event_id":"a","user_id":null,"event_time":"2026-01-01T00:00:01Z"}', "null_key"),
        Sent(None, b'{"event_id":"b","event_time":"2026-01-01T00:00:01Z"}', "null_key"),
        Sent(None, b'{"event_id":"c","user_id":1,"event_time":null}', "contract"),
        event("00:02"),
    ]
    rows, dead = engine(Case(tmp_path), sent, [(1, "01:00")])
    assert (rows, dead) == ([{"n": 1}], [(0, "null_key"), (1, "null_key"), (2, "contract")])


@engines
@pytest.mark.case(20)
def test_case_20_returns(engine: Any, tmp_path: Path) -> None:
    lines = "  - {name: purchases, function: count, window: 5m, where: {event_type: purchase}}\n"
    lines += "  - {name: net, function: sum, column: amount, window: 5m}\n"
    lines += "  - {name: largest, function: max, column: amount, window: 5m}\n"
    case = Case(tmp_path, lines)
    rows, _ = engine(
        case, [event("00:00", amount=100), event("00:01", amount=-100, event_type="refund")], [(1, "02:00")]
    )
    assert (rows[0]["purchases"], rows[0]["net"]) == (1, Decimal(0))
    rows, _ = engine(case, [event("00:00", amount=100), event("02:00", amount=40)], [(1, "05:00"), (1, "05:00.001")])
    assert [row["largest"] for row in rows] == [Decimal(100), Decimal(40)]
    rows, _ = engine(case, [event("00:00", amount=-5), event("02:00", amount=-3)], [(1, "03:00")])
    assert rows[0]["largest"] == Decimal(-3)


@engines
@pytest.mark.case(21)
def test_case_21_floats_are_never_subtracted(engine: Any, tmp_path: Path) -> None:
    lines = "".join(f"  - {{name: x_{f}, function: {f}, column: real, window: 5m}}\n" for f in ("sum", "avg", "std"))
    case = Case(tmp_path, lines)
    rows, _ = engine(case, [event("00:00", real=1e16), event("00:01", real=1.0)], [(1, "05:00.001")])
    assert rows[0]["x_sum"] == 1.0
    four = [event(f"00:{n:02}", real=float(v)) for n, v in enumerate([10, 20, 30, 100])]
    assert engine(case, four, [(1, "01:00")])[0][0]["x_avg"] == 40.0
    three = [event(f"00:{n:02}", real=float(v)) for n, v in enumerate([10, 30, 20])]
    assert engine(case, three, [(1, "01:00")])[0][0]["x_std"] == 10.0


@engines
@pytest.mark.parametrize("unpacked", [False, True], ids=["summarised", "unpacked"])
def test_a_sum_of_integers_beyond_64_bits_is_null(engine: Any, unpacked: bool, tmp_path: Path) -> None:
    """The largest and smallest sums that fit, and one more; the expected values are Python's own integers."""
    aggregates = "  - {name: s, function: sum, column: pulses, window: 5m}\n"
    aggregates += "  - {name: a, function: avg, column: pulses, window: 5m}\n"
    aggregates += "  - {name: newest, function: last, column: pulses, window: 5m}\n" if unpacked else ""
    contract = CONTRACT + "      - {name: pulses, logicalType: integer, physicalType: bigint}\n"
    least, largest = -(2**63), 2**63 - 1
    given = {
        1: [2**62, 2**62 - 1],
        2: [2**62, 2**62 - 1, 1],
        3: [-(2**62), -(2**62)],
        4: [-(2**62), -(2**62), -1],
        5: [2**62 + 2**61] * 3,
        6: [largest],
        7: [least],
        8: [largest, largest, -largest],  # only the whole sum counts
    }
    sent = [
        event(BASE + n * SECOND, user, pulses=value) for user, values in given.items() for n, value in enumerate(values)
    ]
    sent.sort(key=lambda s: s.fields["event_time"] if s.fields else 0)
    case = Case(tmp_path, aggregates, contract=contract)
    rows, dead = engine(case, sent, [(user, "01:00") for user in given])
    assert dead == []
    assert [row["s"] for row in rows] == [largest, None, least, None, None, largest, least, largest]
    assert [row["a"] for row in rows] == [sum(values) / len(values) for values in given.values()]


@engines
@pytest.mark.case(23)
def test_case_23_the_newest_as_events_leave(engine: Any, tmp_path: Path) -> None:
    """Values 7, 8, 9 pushed, then leaving one by one; the newest stays until it leaves, then null, then 10."""
    case = Case(
        tmp_path,
        "  - {name: newest, function: last, column: real, window: 10s}\n  - {name: oldest, function: first, column: real, window: 10s}\n",
    )
    sent = [event("00:01", real=7.0), event("00:02", real=8.0), event("00:03", real=9.0), event("01:00", real=10.0)]
    asked = ["00:04", "00:11.5", "00:12.5", "00:13.5", "01:01"]
    rows, _ = engine(case, sent, [(1, at) for at in asked])
    assert [row["newest"] for row in rows] == [9.0, 9.0, 9.0, None, 10.0]
    assert [row["oldest"] for row in rows] == [7.0, 8.0, 9.0, None, 10.0]


@pytest.mark.case(23)
def test_case_23_reads_never_mutate(tmp_path: Path) -> None:
    case = Case(
        tmp_path,
        "  - {name: n, function: count, window: 5m}\n  - {name: d, function: count_distinct, column: real, window: 5m}\n",
    )
    events, _ = judged(case.definition, [event("00:01", real=1.0), event("00:02", real=1.0)], None)
    before = events.clone()
    at = np.array([us("01:00")] * 10)
    rows = [evaluate(case.definition, events, pl.Series([1] * 10), at) for _ in range(10)]
    assert all(r.to_dicts() == [{"n": 2, "d": 1}] * 10 for r in rows)
    assert events.equals(before)
    assert iso(int(at[0])).startswith("2026-01-01T00:01:00")
