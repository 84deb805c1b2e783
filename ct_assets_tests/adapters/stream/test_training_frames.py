"""Training sets from stored events: as known and corrected, every label row kept, the same numbers as online.

Why the oracle is asked row by row: a join that loses or repeats a label would pass any test of totals.
"""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from ct_assets.adapters.stream import training_frames
from ct_assets.adapters.stream.snapshots import closing_values
from ct_assets.adapters.stream.training_frames import Request, training_frame
from ct_assets.errors import UsageError
from ct_assets.streaming.oracle import Event
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.stores import Store
from ct_assets_tests.adapters.stream.test_online_values import assert_values, random_events, ready
from ct_assets_tests.adapters.stream.worlds import START, SUMMARISED, UNPACKED, Given, H, M, S


def labels(moments: list[tuple[int, int]]) -> pl.DataFrame:
    frame = pl.DataFrame(moments, schema={"who": pl.Int64, "at": pl.Int64}, orient="row")
    return frame.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")), pl.arange(pl.len()).alias("row"))


@pytest.mark.parametrize("aggregates", [SUMMARISED, UNPACKED], ids=["summarised", "unpacked"])
@pytest.mark.parametrize("reading", ["as_known", "corrected"])
def test_equals_the_oracle_row_by_row(conn, tmp_path: Path, monkeypatch, aggregates: str, reading) -> None:
    monkeypatch.setattr(training_frames, "SLICE_LABELS", 30)
    writer, table = ready(conn, worlds.definition(tmp_path, aggregates))
    rng = random.Random(3)
    events = [
        Event(e.values, e.time, e.partition, e.offset, e.known_at + rng.choice([0, 20 * M]))
        for e in worlds.accepted(random_events(11, 200))
    ]
    for start in range(0, 200, 64):
        writer.commit(events[start : start + 64])
    asked = [(rng.randrange(6), START + rng.randrange(3 * H)) for _ in range(80)]
    asked += [(e.values["who"], e.time + rng.choice([0, 1, 5 * M, H, H + 1])) for e in rng.sample(events, 40)]
    given = labels(asked)
    found = training_frame(conn, table, given, Request(reading))
    assert found.select(given.columns).equals(given)
    for (who, at), row in zip(asked, found.iter_rows(named=True), strict=True):
        values = {a.name: row[a.name] for a in table.definition.aggregates}
        known = at if reading == "as_known" else None
        assert worlds.shown(values) == worlds.expected(table.definition, events, who, at, known), (who, at - START)


def test_late_is_unknown_then_and_known_by_a_later_moment(conn, tmp_path: Path) -> None:
    """Case 7: corrected 2, as known then 1."""
    writer, table = ready(conn, worlds.definition(tmp_path))
    first = worlds.accepted([Given(1, M), Given(1, 2 * M)])
    late = worlds.accepted([Given(1, M + S // 2)], first_offset=2)
    late = [Event(e.values, e.time, e.partition, e.offset, START + 121 * S) for e in late]
    writer.commit(first)
    writer.commit(late)
    asked = labels([(1, START + 90 * S), (9, START + 90 * S)])

    def counts(request: Request) -> list[int]:
        return training_frame(conn, table, asked, request)["n"].to_list()

    assert counts(Request()) == [1, 0]
    assert counts(Request("corrected")) == [2, 0]
    assert counts(Request(known_by=START + 121 * S)) == [2, 0]
    assert counts(Request(known_by=START + 121 * S - 1)) == [1, 0]
    assert counts(Request(version={0: (2, 0)})) == [1, 0]


def test_online_and_offline_agree_on_a_version(store: Store, conn, tmp_path: Path) -> None:
    writer, table = ready(conn, worlds.definition(tmp_path), store=store)
    events = worlds.accepted(random_events(2, 150))
    at = START + 2 * H
    reads = []
    for start in range(0, 150, 50):
        writer.commit(events[start : start + 50])
        reads.append(store.read(conn, table, [0, 1, 2, 3], at))
    for read in reads:
        again = training_frame(conn, table, labels([(who, at) for who in range(4)]), Request(version=read.version))
        assert again.drop("who", "at", "row").to_dicts() == read.values


@pytest.mark.parametrize("more", ["", "  - {name: newest, function: last, column: items, window: 1h}\n"])
def test_a_sum_beyond_64_bits_is_null_in_every_reading(store: Store, conn, tmp_path: Path, more: str) -> None:
    """Online, in SQL, corrected, as known, in the hour's snapshot; what came late is left out of the known sum."""
    sums = "  - {name: s_items, function: sum, column: items, window: 1h}\n" + more
    writer, table = ready(conn, worlds.definition(tmp_path, sums), store=store)
    large, least = 2**62 + 2**61, -(2**63)
    events = worlds.accepted(
        [*[Given(1, n * M, items=large) for n in range(3)], Given(2, 0, items=least), Given(3, M, items=-large)]
    )
    late = worlds.accepted([Given(2, M, items=-1), Given(3, M, items=-large)], first_offset=5)
    late = [Event(e.values, e.time, e.partition, e.offset, START + 50 * M) for e in late]
    writer.commit(events)
    writer.commit(late)
    at = START + 30 * M
    assert_values(store, conn, table, [*events, *late], [1, 2, 3, 4], [at, START + M])
    assert [v["s_items"] for v in store.read(conn, table, [1, 2, 3, 4], at).values] == [None, None, None, 0]
    asked = labels([(who, at) for who in (1, 2, 3, 4)])
    found = {r: training_frame(conn, table, asked, Request(r))["s_items"].to_list() for r in ("as_known", "corrected")}
    assert found == {"as_known": [None, least, -large, 0], "corrected": [None, None, None, 0]}
    closed = closing_values(conn, table, START)
    assert closed.select("who", "s_items").rows() == [(1, None), (2, None), (3, None)]


@pytest.mark.parametrize("more", ["", "  - {name: newest, function: last, column: items, window: 1h}\n"])
def test_a_sum_beyond_38_digits_is_null_in_every_reading(store: Store, conn, tmp_path: Path, more: str) -> None:
    """Online, in SQL, corrected, as known, in the hour's snapshot: never an error, and never a sum that has wrapped."""
    sums = "  - {name: s_vast, function: sum, column: vast, window: 1h}\n"
    sums += "  - {name: a_vast, function: avg, column: vast, window: 1h}\n" + more
    writer, table = ready(conn, worlds.definition(tmp_path, sums), store=store)
    most, lowest, half = Decimal("9" * 34), Decimal("-" + "9" * 34), Decimal("5" + "0" * 33)
    given = [*[Given(1, n * M, vast=most) for n in range(9)], *[Given(2, n * M, vast=half) for n in range(2)]]
    given += [Given(3, 0, vast=lowest), Given(3, 1, vast=Decimal("-0.9999")), Given(4, 0, vast=lowest)]
    events = worlds.accepted(given)
    late = worlds.accepted([Given(4, M, vast=lowest)], first_offset=len(events))
    late = [Event(e.values, e.time, e.partition, e.offset, START + 50 * M) for e in late]
    writer.commit(events)
    writer.commit(late)
    at, who = START + 30 * M, [1, 2, 3, 4, 5]
    assert_values(store, conn, table, [*events, *late], who, [at, START + M])
    least = Decimal("-" + "9" * 34 + ".9999")
    assert [v["s_vast"] for v in store.read(conn, table, who, at).values] == [None, None, least, None, 0]
    asked = labels([(w, at) for w in who])
    found = {r: training_frame(conn, table, asked, Request(r))["s_vast"].to_list() for r in ("as_known", "corrected")}
    assert found == {"as_known": [None, None, least, lowest, 0], "corrected": [None, None, least, None, 0]}
    closed = closing_values(conn, table, START)
    assert closed.select("who", "s_vast").rows() == [(1, None), (2, None), (3, least), (4, None)]


def test_no_events_and_no_labels(conn, tmp_path: Path) -> None:
    _, table = ready(conn, worlds.definition(tmp_path))
    found = training_frame(conn, table, labels([(1, START)]))
    assert (found["n"][0], found["s_paid"][0], found["a_paid"][0]) == (0, 0, None)
    assert training_frame(conn, table, labels([])).columns == [
        *labels([]).columns,
        *[a.name for a in table.definition.aggregates],
    ]


def test_a_missing_column_is_named(conn, tmp_path: Path) -> None:
    _, table = ready(conn, worlds.definition(tmp_path))
    with pytest.raises(UsageError, match="the labels have no column 'who'"):
        training_frame(conn, table, labels([(1, START)]).rename({"who": "whom"}))
