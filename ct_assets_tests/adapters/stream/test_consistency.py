"""Sampled online reads against the same reads recomputed from stored events: equal, and a damaged row is noticed.

Why a row is damaged on purpose: a figure that is always 0 could as well compare a value with itself.
"""

from __future__ import annotations

import json
import random
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ct_assets.adapters.stream import consistency, dead_letters, online, state
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.stores import Store
from ct_assets_tests.adapters.stream.test_online_values import random_events, ready
from ct_assets_tests.adapters.stream.worlds import START, SUMMARISED, UNPACKED, Given, M, S


def sampled(
    conn: psycopg.Connection, table: online.OnlineTable, moments: list[int], online_url: str | None = None
) -> int:
    return sum(consistency.sample_reads(conn, table, [0, 1, 2, 3, 77], START + at, online_url) for at in moments)


@pytest.mark.parametrize("aggregates", [SUMMARISED, UNPACKED], ids=["summarised", "unpacked"])
def test_reads_between_commits_are_recomputed_to_the_same_values(
    store: Store, conn, tmp_path: Path, aggregates: str
) -> None:
    """Every read saw another version: what came after it, also for moments before it, must not count."""
    writer, table = ready(conn, worlds.definition(tmp_path, aggregates), store=store)
    reads = 0
    for number in range(4):
        given_ = sorted(random_events(number, 60), key=lambda g: g.t)
        offset = 1000 * number
        writer.commit(worlds.accepted(given_, first_offset=offset))
        newest = given_[-1].t
        reads += sampled(conn, table, [newest - M, newest + 1, newest + 4 * M], store.online_url)
    report = consistency.recompute(conn, None, table, START - 10**12)
    assert (report.reads, report.values) == (reads, reads * len(table.definition.aggregates))
    assert report.first == ()
    assert report.mismatches == 0
    stored = conn.execute("select values from stream.read_sample").fetchall()
    assert sum(row[0]["n"] > 0 for row in stored) > reads / 4
    assert conn.execute("select count(*) from stream.read_sample where checked_at is null").fetchone() == (0,)


def test_a_damaged_online_row_is_a_mismatch(conn, tmp_path: Path) -> None:
    writer, table = ready(conn, worlds.definition(tmp_path))
    writer.commit(worlds.accepted([Given(1, M, paid=Decimal("2.50")), Given(1, 2 * M, paid=Decimal(1))]))
    sampled(conn, table, [2 * M + 1])
    conn.execute(f"update {table.quoted} set n0 = n0 + 1 where entity = 1".encode())
    sampled(conn, table, [2 * M + 2])
    report = consistency.recompute(conn, None, table, START)
    assert report.mismatches > 0
    first = report.first[0]
    assert (first.entity, first.at_us, first.aggregate, first.served, first.recomputed) == (
        1,
        START + 2 * M + 2,
        "n",
        3,
        2,
    )
    row = conn.execute("select mismatch ->> 'n' from stream.read_sample where mismatch is not null").fetchone()
    assert row == ("[3, 2]",)
    assert consistency.recompute(conn, None, table, START + 2 * M + 3).reads == 0


def test_a_late_event_changes_what_was_served_but_not_determinism(conn, tmp_path: Path) -> None:
    writer, table = ready(conn, worlds.definition(tmp_path))
    writer.commit(worlds.accepted([Given(1, 2 * M, paid=Decimal(4))]))
    sampled(conn, table, [2 * M + 1])
    writer.commit(worlds.accepted([Given(1, 2 * M - 30 * S, paid=Decimal(8))], first_offset=1))
    sampled(conn, table, [2 * M + 2])
    assert consistency.recompute(conn, None, table, START).mismatches == 0
    skew = consistency.as_served(conn, None, table, START)
    assert (skew.reads, skew.changed["n"], skew.changed["hi_paid"], skew.changed["n_ab"]) == (10, 1, 1, 0)
    rows = skew.frame.filter((skew.frame["entity"] == "1") & (skew.frame["aggregate"] == "hi_paid")).rows()
    assert rows == [(START + 2 * M + 1, "1", "hi_paid", 4.0, 8.0), (START + 2 * M + 2, "1", "hi_paid", 8.0, 8.0)]
    assert consistency.as_served(conn, None, table, START, START + 2 * M + 1).reads == 5
    assert consistency.as_served(conn, None, table, START + 10 * M).frame.is_empty()


def test_a_replayed_dead_letter_counts_only_for_reads_after_it(conn, tmp_path: Path) -> None:
    from ct_assets.adapters.stream.stored_form import fitted
    from ct_assets.streaming.decode import JsonDecoder

    definition = worlds.definition(tmp_path)
    writer, table = ready(conn, definition)
    dead_event = {"id": "x", "who": 1, "at_time": "2026-01-01T00:01:59Z", "kind": "a"}
    dead = state.DeadLetterRow(
        0, 5, "poison", "torn", definition.acceptance.contract_digest, json.dumps(dead_event).encode(), None
    )
    writer.commit(worlds.accepted([Given(1, 2 * M)]), dead=[dead])
    sampled(conn, table, [2 * M + 1])
    decoder = fitted(conn, writer.stream, definition, JsonDecoder(definition.schema, definition.acceptance))
    found = dead_letters.replay(conn, writer.stream, decoder, dead_letters.Chosen(), START + 2 * M + 2)
    assert found.outcomes == {"accepted": 1}
    sampled(conn, table, [2 * M + 3])
    served = conn.execute(
        "select (values ->> 'n')::int from stream.read_sample where entity = '1' order by at"
    ).fetchall()
    assert served == [(1,), (2,)]
    assert consistency.recompute(conn, None, table, START).mismatches == 0


def test_a_value_that_policy_made_null_must_be_null(conn, tmp_path: Path) -> None:
    definition = worlds.definition(tmp_path, more='freshness: 60s\non_stale: "null"\n')
    writer, table = ready(conn, definition)
    writer.commit(worlds.accepted([Given(1, M)]))
    sampled(conn, table, [M + 1, 20 * M])
    values = conn.execute(
        "select is_stale, values -> 'n' from stream.read_sample where entity = '1' order by at"
    ).fetchall()
    assert values == [(False, 1), (True, None)]
    assert consistency.recompute(conn, None, table, START).mismatches == 0
    conn.execute("update stream.read_sample set values = jsonb_set(values, '{n}', '0') where is_stale and entity = '1'")
    assert consistency.recompute(conn, None, table, START).mismatches == 1


def test_sampled_entities_are_some_of_those_that_there_are(conn, tmp_path: Path) -> None:
    writer, table = ready(conn, worlds.definition(tmp_path))
    assert consistency.some_entities(conn, table, 5) == []
    writer.commit(worlds.accepted([Given(who, M + who * S) for who in range(30)]))
    found = consistency.some_entities(conn, table, 8)
    assert found[:4] == [29, 28, 27, 26]
    assert len(set(found)) == len(found) <= 8
    assert set(found) <= set(range(30))


def test_old_samples_are_forgotten_unless_they_disagree(conn, tmp_path: Path) -> None:
    import datetime as dt

    writer, table = ready(conn, worlds.definition(tmp_path))
    writer.commit(worlds.accepted([Given(1, M)]))
    sampled(conn, table, [M + 1])
    conn.execute("update stream.read_sample set mismatch = '{}' where entity = '2'")
    assert consistency.forget(conn, dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)) == 0
    assert consistency.forget(conn, dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)) == 4
    assert conn.execute("select entity from stream.read_sample").fetchall() == [("2",)]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Decimal("0.00"), "0"),
        (Decimal("-0.0"), "0"),
        (Decimal("1200"), "1200"),
        (Decimal("12.3400"), "12.34"),
        (Decimal("12345678901234567890123456789012345.6789"), "12345678901234567890123456789012345.6789"),
        (float("nan"), "nan"),
        (0.1, 0.1),
        (date(2026, 1, 2), "2026-01-02"),
        (True, True),
        (None, None),
    ],
)
def test_values_are_kept_without_loss(value: Any, kept: Any) -> None:
    assert consistency.stored(value) == kept


def test_any_double_survives_jsonb(conn) -> None:
    rng = random.Random(1)
    doubles = [rng.uniform(-1, 1) * 10.0 ** rng.randrange(-300, 300) for _ in range(500)] + [1e22, 5.0, -0.0, 5e-324]
    row = conn.execute("select %s::jsonb", (json.dumps([consistency.stored(d) for d in doubles]),)).fetchone()
    assert row is not None
    assert all(map(consistency.equal, row[0], doubles))
    assert not consistency.equal(5, 6.0)
    assert not consistency.equal(5.0, 5)
    assert not consistency.equal(True, 1)
