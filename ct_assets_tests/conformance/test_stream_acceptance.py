"""Cases 7-10, 13-17, 19, 24-27: which events count, whatever the batches and the order within the allowed disorder."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from ct_assets.streaming.accept import Acceptor
from ct_assets.streaming.decode import JsonDecoder
from ct_assets.streaming.messages import Messages
from ct_assets.streaming.watermark import PartitionState, completeness
from ct_assets_tests.conformance.all_engines import engines, with_append_times, without_files
from ct_assets_tests.conformance.stream_engines import (
    BASE,
    CONTRACT,
    EVERYWHERE,
    SECOND,
    Case,
    Sent,
    broken,
    event,
    judged,
    us,
    with_partition,
)


@engines
@pytest.mark.case(7)
def test_case_07_late_within_the_allowance_corrects(engine: Any, tmp_path: Path) -> None:
    sent = [event("01:00"), event("02:00"), event("01:00.5")]
    assert engine(Case(tmp_path), sent, [(1, "01:30")]) == ([{"n": 2}], [])
    assert engine(Case(tmp_path), sent, [(1, "01:30")], as_known=True) == ([{"n": 1}], [])
    exactly = [event("02:00"), event("00:50")]
    assert engine(Case(tmp_path), exactly, [(1, "02:00")]) == ([{"n": 1}], [])
    beyond = [event("02:00"), event(us("00:50") - 1)]
    assert engine(Case(tmp_path), beyond, [(1, "02:00")]) == ([{"n": 0}], [(1, "late")])


@pytest.mark.case(7)
def test_case_07_a_correction_is_counted(tmp_path: Path) -> None:
    case = Case(tmp_path)
    messages = Messages.from_values([m.payload for m in (event("01:00"), event("02:00"), event("01:00.5"))])
    found = Acceptor(case.definition.acceptance).accept(
        JsonDecoder(case.definition.schema, case.definition.acceptance).decode(messages), messages
    )
    assert (found.late_accepted, found.late_dead, found.tops) == ({0: 1}, {}, {0: us("02:00")})


@engines
@pytest.mark.case(8)
def test_case_08_late_beyond_the_allowance_is_a_dead_letter(engine: Any, tmp_path: Path) -> None:
    sent = [event("03:10"), event("01:50")]
    assert engine(Case(tmp_path), sent, [(1, "03:20")]) == ([{"n": 1}], [(1, "late")])


@engines
@pytest.mark.case(9)
def test_case_09_repeats_and_conflicts(engine: Any, tmp_path: Path) -> None:
    first = event("01:00", event_id="same", amount=10)
    other = event("01:00", event_id="same", amount=11)
    lines = "  - {name: n, function: count, window: 5m}\n  - {name: s, function: sum, column: amount, window: 5m}\n"
    rows, dead = engine(Case(tmp_path, lines), [first, first, event("01:01"), other, first], [(1, "02:00")])
    assert (rows, dead) == ([{"n": 2, "s": 10}], [(3, "conflict")])


@engines
@pytest.mark.case(9)
def test_case_09_a_late_repeat_is_a_repeat(engine: Any, tmp_path: Path) -> None:
    first = event("01:00", event_id="same")
    rows, dead = engine(Case(tmp_path), [first, event("20:00"), first], [(1, "02:00")])
    assert (rows, dead) == ([{"n": 1}], [])


@pytest.mark.case(10)
def test_case_10_idle_partitions() -> None:
    rules = {"out_of_orderness_us": 10 * SECOND, "idle_timeout_us": 30 * SECOND}
    p0 = PartitionState(0, us("10:00"), True, us("10:00"))
    silent = PartitionState(1, us("00:30"), True, us("00:30"))
    found = completeness([p0, silent], us("10:01"), **rules)
    assert (found.at, found.held_by, found.idle) == (us("09:50"), 0, (1,))
    lagging = PartitionState(1, us("00:30"), False, us("00:30"))
    found = completeness([p0, lagging], us("10:01"), **rules)
    assert (found.at, found.held_by, found.idle) == (us("00:20"), 1, ())
    never_used = PartitionState(2, None, True)
    assert completeness([p0, never_used], us("10:01"), **rules).at == us("09:50")
    unread = PartitionState(2, None, False)
    assert completeness([p0, unread], us("10:01"), **rules).at is None
    assert completeness([p0, silent], us("20:00"), **rules).at == us("09:50")  # all idle: the furthest, never backwards
    assert completeness([never_used], us("20:00"), **rules).at is None


@without_files
@pytest.mark.case(10)
def test_case_10_a_partition_that_resumes_is_judged_by_itself(engine: Any, tmp_path: Path) -> None:
    sent = [event("00:30", partition=1), event("10:00", partition=0), event("00:40", partition=1)]
    assert engine(Case(tmp_path), sent, [(1, "01:00")]) == ([{"n": 2}], [])


@engines
@pytest.mark.case(13)
def test_case_13_any_permutation_within_the_disorder(engine: Any, tmp_path: Path) -> None:
    case = Case(
        tmp_path,
        "  - {name: n, function: count, window: 1m}\n  - {name: s, function: sum, column: amount, window: 5m}\n",
    )
    rng = Random(13)
    sent = [
        event(BASE + rng.randrange(600 * SECOND), user=rng.randint(1, 3), amount=rng.randint(1, 9)) for _ in range(120)
    ]
    asked = [(rng.randint(1, 3), BASE + rng.randrange(660 * SECOND)) for _ in range(40)]
    answers = []
    for _ in range(3):
        sent.sort(key=lambda m: (m.fields or {})["event_time"] + rng.randrange(10 * SECOND))
        answers.append(engine(case, sent, asked))
    assert answers[0][1] == []
    assert answers[0] == answers[1] == answers[2]
    assert sum(row["n"] for row in answers[0][0]) > 0


@with_append_times
@pytest.mark.case(14)
def test_case_14_the_future_is_quarantined_and_moves_nothing(engine: Any, tmp_path: Path) -> None:
    sent = [
        event("01:00", append=us("01:00")),
        event("61:01", append=us("01:01")),
        event("01:02", append=us("01:02")),
        event("06:03", append=us("01:03")),  # exactly max_future_skew ahead
        event(us("06:04") + 1, append=us("01:04")),
    ]
    assert engine(Case(tmp_path), sent, [(1, "02:00"), (1, "07:00")]) == (
        [{"n": 2}, {"n": 1}],
        [(1, "future"), (4, "future")],
    )


@engines
@pytest.mark.case(15)
def test_case_15_a_wrong_unit_is_out_of_range_and_not_late(engine: Any, tmp_path: Path) -> None:
    def at(text: str) -> bytes:
        return f'{{"event_id":"u","user_id":1,"event_time":"{text}"}}'.encode()

    sent = [event("01:00"), broken(at("1970-01-21T10:53:45.600Z"), "timestamp_out_of_range")]
    sent += [
        broken(at("1999-12-31T23:59:59.999999Z"), "timestamp_out_of_range"),
        broken(at("2100-01-01T00:00:00Z"), "timestamp_out_of_range"),
    ]
    assert engine(Case(tmp_path), sent, [(1, "02:00")]) == (
        [{"n": 1}],
        [(n, "timestamp_out_of_range") for n in (1, 2, 3)],
    )


@pytest.mark.case(15)
@pytest.mark.parametrize(
    ("unit", "number", "reason"),
    [
        ("ms", 1_767_225_600, "timestamp_out_of_range"),
        ("s", 1_767_225_600, None),
        ("us", 1_767_225_600_000_000, None),
        ("s", 10**30, "timestamp_out_of_range"),
    ],
)
def test_case_15_integer_times_have_a_unit(unit: str, number: int, reason: str | None, tmp_path: Path) -> None:
    column = f"{{name: event_time, logicalType: integer, required: true, customProperties: [{{property: unit, value: {unit}}}]}}"
    contract = CONTRACT.replace(
        "{name: event_time, logicalType: timestamp, required: true, logicalTypeOptions: {timezone: true}}", column
    )
    case = Case(tmp_path, contract=contract)
    events, dead = judged(
        case.definition, [broken(f'{{"event_id":"u","user_id":1,"event_time":{number}}}'.encode(), None)], None
    )
    assert dead == ([] if reason is None else [(0, reason)])
    assert events["event_time"].to_physical().to_list() == ([] if reason else [BASE])


@engines
@pytest.mark.case(16)
def test_case_16_offsets_tell_the_repeated_hour_apart(engine: Any, tmp_path: Path) -> None:
    first, second = (us("00:00") + (297 * 24 * 3600 + h * 3600 + 1800) * SECOND for h in (0, 1))
    texts = ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]
    bodies = [f'{{"event_id":"o{n}","user_id":1,"event_time":"{text}"}}'.encode() for n, text in enumerate(texts)]
    case = Case(tmp_path, "  - {name: n, function: count, window: 59m}\n")
    naive = broken(b'{"event_id":"n","user_id":1,"event_time":"2026-10-25T02:30:00"}', "contract")
    if engine is EVERYWHERE["oracle"]:  # it is told the moments; the texts are the decoder's business
        sent = [event(first), event(second), naive]
    else:
        sent = [broken(bodies[0], None), broken(bodies[1], None), naive]
    rows, dead = engine(case, sent, [(1, first + 1), (1, second + 1)])
    assert (rows, dead) == ([{"n": 1}, {"n": 1}], [(2, "contract")])


@engines
@pytest.mark.case(17)
def test_case_17_large_ids_survive_and_texts_are_no_numbers(engine: Any, tmp_path: Path) -> None:
    large = 9_007_199_254_740_993
    text = broken(b'{"event_id":"t","user_id":"42","event_time":"2026-01-01T00:01:00Z"}', "contract")
    rows, dead = engine(
        Case(tmp_path),
        [event("01:00", user=large), text, event("01:01", user=42)],
        [(large, "02:00"), (large - 1, "02:00"), (42, "02:00")],
    )
    assert ([row["n"] for row in rows], dead) == ([1, 0, 1], [(1, "contract")])


@engines
@pytest.mark.case(19)
def test_case_19_poison_is_set_aside_and_the_rest_goes_on(engine: Any, tmp_path: Path) -> None:
    poison = [
        b"\xff\xfe",
        b'{"event_id": "cut o',
        b"[1, 2]",
        b'"text"',
        b'{"event_id":"x","user_id":1,"event_time":"\xff"}',
    ]
    sent = [event("01:00"), *(broken(raw, "poison") for raw in poison), event("01:01")]
    assert engine(Case(tmp_path), sent, [(1, "02:00")]) == ([{"n": 2}], [(n, "poison") for n in range(1, 6)])


@without_files
@pytest.mark.case(19)
def test_case_19_an_empty_message_of_a_topic_is_poison(engine: Any, tmp_path: Path) -> None:
    """In a file it is a blank line, which is no message."""
    sent = [event("01:00"), broken(b"", "poison"), event("01:01")]
    assert engine(Case(tmp_path), sent, [(1, "02:00")]) == ([{"n": 2}], [(1, "poison")])


@pytest.mark.case(19)
@pytest.mark.parametrize("batch", [1, None])
def test_case_19_a_tombstone_is_counted_and_no_poison(batch: int | None, tmp_path: Path) -> None:
    case = Case(tmp_path)
    events, dead = judged(case.definition, [event("01:00"), Sent(None, None), event("01:01")], batch)
    assert (events["_offset"].to_list(), dead) == ([0, 2], [])
    messages = Messages.from_values([None, b"{}", None])
    assert JsonDecoder(case.definition.schema, case.definition.acceptance).decode(messages).tombstones.tolist() == [
        0,
        2,
    ]


@engines
@pytest.mark.case(24)
def test_case_24_a_new_nullable_field_changes_no_value(engine: Any, tmp_path: Path) -> None:
    sent = [event("01:00", amount=5), event("01:01")]
    lines = "  - {name: s, function: sum, column: amount, window: 5m}\n"
    second = tmp_path / "second"
    second.mkdir()
    wider = Case(second, lines, contract=CONTRACT + "      - {name: extra, logicalType: string}\n")
    asked = [(1, "02:00")]
    assert engine(Case(tmp_path, lines), sent, asked) == engine(wider, sent, asked) == ([{"s": 5}], [])


@pytest.mark.case(24)
def test_case_24_a_removed_or_retyped_field_is_a_dead_letter(tmp_path: Path) -> None:
    removed = broken(b'{"event_id":"r","event_time":"2026-01-01T00:01:00Z"}', None)
    retyped = broken(b'{"event_id":"s","user_id":1,"event_time":"2026-01-01T00:01:00Z","amount":true}', None)
    _, dead = judged(Case(tmp_path).definition, [removed, retyped], None)
    assert dead == [(0, "null_key"), (1, "contract")]


@without_files
@pytest.mark.case(25)
def test_case_25_events_of_a_user_in_several_partitions(engine: Any, tmp_path: Path) -> None:
    rng = Random(25)
    lines = "".join(
        f"  - {{name: x_{f}, function: {f}, column: amount, window: 5m}}\n"
        for f in ("sum", "max", "avg", "count_distinct")
    )
    case = Case(tmp_path, lines)
    sent = [event(BASE + n * SECOND, amount=rng.randint(1, 99)) for n in range(60)]
    asked = [(1, BASE + n * SECOND) for n in (1, 30, 60, 301, 330)]
    spread = [with_partition(m, rng.randrange(3)) for m in sent]
    assert engine(case, sent, asked) == engine(case, spread, asked)


@pytest.mark.case(25)
@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_case_25_a_worker_that_restarts_remembers(cut: int, tmp_path: Path) -> None:
    """Another worker takes the partition over from what was committed: same events, same repeats."""
    case = Case(tmp_path)
    rng, rules = Random(cut), case.definition.acceptance
    sent = [event(BASE + n * SECOND + rng.randrange(9 * SECOND), event_id=f"r{rng.randint(0, 50)}") for n in range(60)]
    messages = Messages.from_values([m.payload for m in sent])
    decoder = JsonDecoder(case.definition.schema, rules)
    whole = Acceptor(rules).accept(decoder.decode(messages), messages)
    head, tail = messages.slice(0, cut), messages.slice(cut, 60)
    first, second = Acceptor(rules), Acceptor(rules)
    before = first.accept(decoder.decode(head), head)
    second.restore(0, top=before.tops.get(0), frontier=before.frontiers.get(0), events=[before.events])
    after = second.accept(decoder.decode(tail), tail)
    assert [*before.events.iter_rows(), *after.events.iter_rows()] == list(whole.events.iter_rows())
    assert [*(d.index for d in before.dead), *(d.index + cut for d in after.dead)] == [d.index for d in whole.dead]
    assert len(whole.dead) > 0


@without_files
@pytest.mark.case(26)
def test_case_26_partitions_added_while_running(engine: Any, tmp_path: Path) -> None:
    sent = [
        event("01:00", partition=0),
        event("01:10", partition=0),
        event("01:20", partition=2),
        event("01:30", partition=3),
    ]
    assert engine(Case(tmp_path), sent, [(1, "02:00")]) == ([{"n": 4}], [])


@with_append_times
@pytest.mark.case(27)
def test_case_27_a_clock_that_runs_ahead_makes_nobody_late(engine: Any, tmp_path: Path) -> None:
    sent = [
        event("01:00", user=1, append=us("01:00")),
        event("05:01", user=2, append=us("01:01")),
        event("01:02", user=3, append=us("01:02")),
    ]
    rows, dead = engine(Case(tmp_path), sent, [(1, "02:00"), (2, "06:00"), (3, "02:00")])
    assert ([row["n"] for row in rows], dead) == ([1, 1, 1], [])
