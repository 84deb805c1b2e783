"""Events that came too late, kept beside their letters: what a reading of them gives, damage, retention."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from ct_assets.adapters.stream.chunks import ChunkDamaged, EventQuery
from ct_assets.adapters.stream.compaction import remove_before
from ct_assets.adapters.stream.dead_letters import Chosen, replay
from ct_assets.adapters.stream.late import insert_late, late_events
from ct_assets.adapters.stream.records import DeadLetterRow
from ct_assets.adapters.stream.stored_form import fitted
from ct_assets.streaming.decode import JsonDecoder
from ct_assets.streaming.oracle import Event
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.test_online_values import ready
from ct_assets_tests.adapters.stream.worlds import START, Given, H, S, Writer


def offsets(conn: psycopg.Connection, writer: Writer, query: EventQuery) -> list[int]:
    found = late_events(conn, writer.stream, query)
    return [] if found is None else found["_offset"].to_list()


@pytest.fixture
def writer(conn: psycopg.Connection, tmp_path: Path) -> Writer:
    return ready(conn, worlds.definition(tmp_path))[0]


def test_what_is_asked_for_is_found_once_and_nothing_that_was_accepted(
    conn: psycopg.Connection, writer: Writer
) -> None:
    accepted = worlds.accepted([Given(7, 100 * S), Given(7, 200 * S)])
    writer.commit(accepted)
    late = worlds.accepted([Given(7, t * S) for t in (10, 20, 30)], first_offset=50)
    insert_late(conn, writer.stream, worlds.frame([*late, accepted[0]]))
    insert_late(conn, writer.stream, worlds.frame(late[:1]), replay=3)
    assert offsets(conn, writer, EventQuery()) == [50, 51, 52]
    assert offsets(conn, writer, EventQuery(since=START + 20 * S)) == [51, 52]
    assert offsets(conn, writer, EventQuery(until=START + 20 * S)) == [50]
    assert offsets(conn, writer, EventQuery(after={0: (51, 3)})) == [51, 52]
    assert offsets(conn, writer, EventQuery(after={0: (53, 2)})) == [50], "came back with the third replay"
    assert offsets(conn, writer, EventQuery(after={0: (53, 3)})) == []
    found = late_events(conn, writer.stream, EventQuery(columns=("who",), append_times=False))
    assert found is not None
    assert found.columns == ["who", "_partition", "_offset", "_known_at"]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_a_repeat_depends_on_the_events_and_not_on_what_is_asked_for(
    conn: psycopg.Connection, writer: Writer, seed: int
) -> None:
    """Few ids, many times: each late event against all accepted ones and the late ones before it, one by one."""
    rng = random.Random(seed)

    def some(first_offset: int) -> list[Event]:
        given = [Given(rng.randrange(3), rng.randrange(6 * H // S) * S, partition=rng.randrange(2)) for _ in range(40)]
        return [
            replace(event, values={**event.values, "id": f"x{rng.randrange(30)}"})
            for event in worlds.accepted(given, first_offset)
        ]

    there, late, after = some(0), some(100), some(200)
    writer.commit(there)
    for begin in range(0, len(late), 8):
        insert_late(conn, writer.stream, worlds.frame(late[begin : begin + 8]))
    back = [
        replace(e, values={**e.values, "id": f"x{rng.randrange(30)}"})
        for e in worlds.accepted([Given(1, rng.randrange(6 * H // S) * S) for _ in range(10)], 60)
    ]
    arrived = [
        e
        for begin in range(0, len(late), 8)
        for e in sorted(late[begin : begin + 8], key=lambda e: (e.partition, e.offset))
    ]
    writer.commit(after)  # an id that is accepted later takes nothing back
    insert_late(conn, writer.stream, worlds.frame(back), replay=1)  # letters of earlier places, after all the others
    arrived += sorted(back, key=lambda e: e.offset)
    horizon = writer.stream.acceptance.dedup_horizon_us

    def is_repeat(event: Event, before: Sequence[Event]) -> bool:
        return any(
            (o.partition, o.values["id"]) == (event.partition, event.values["id"])
            and abs(o.time - event.time) <= horizon
            for o in before
        )

    def ahead(event: Event) -> list[Event]:
        return [o for o in [*there, *after] if o.offset < event.offset or event in back]

    counted = [e for n, e in enumerate(arrived) if not is_repeat(e, [*ahead(e), *arrived[:n]])]
    assert 0 < len(counted) < len(arrived)
    assert any(is_repeat(e, after) for e in counted)
    for _ in range(30):
        since, until = sorted(START + rng.randrange(-H, 7 * H) for _ in range(2))
        found = late_events(conn, writer.stream, EventQuery(since=since, until=until))
        rows = [] if found is None else sorted(found.select("_partition", "_offset").rows())
        assert rows == sorted((e.partition, e.offset) for e in counted if since <= e.time < until)


def test_damage_is_an_error_and_retention_takes_them_along(conn: psycopg.Connection, writer: Writer) -> None:
    writer.commit(worlds.accepted([Given(7, 60 * S)]))
    writer.commit(worlds.accepted([Given(7, 200 * S), Given(7, 100_000 * S)], first_offset=1))
    for offset, time in ((50, 10), (51, 90), (52, 190)):
        insert_late(conn, writer.stream, worlds.frame(worlds.accepted([Given(7, time * S)], first_offset=offset)))
    remove_before(conn, writer.stream, START + 300 * S)
    assert offsets(conn, writer, EventQuery()) == [51, 52], "what lies behind the last accepted event that went stays"
    conn.execute("update stream.late_chunk set payload = payload || '\\x00'")
    with pytest.raises(ChunkDamaged, match="are not what was committed"):
        late_events(conn, writer.stream, EventQuery())


def test_a_letter_that_comes_back_too_late_is_kept_once(conn: psycopg.Connection, tmp_path: Path) -> None:
    """A contract that was mended hours later: its letters are too late for online values, not for the snapshots."""
    definition = worlds.definition(tmp_path)
    writer, _ = ready(conn, definition)
    raw = json.dumps({"id": "back", "who": 1, "at_time": "2026-01-01T00:09:00Z", "kind": "a"}).encode()
    letter = DeadLetterRow(0, 5, "contract", "was wrong", "digest", raw, None)
    writer.commit(worlds.accepted([Given(7, 100_000 * S)]), dead=[letter])
    decoder = fitted(conn, writer.stream, definition, JsonDecoder(definition.schema, definition.acceptance))
    for _ in range(2):
        found = replay(conn, writer.stream, decoder, Chosen(), START + 100_001 * S)
        assert dict(found.outcomes) == {"late": 1}
        assert offsets(conn, writer, EventQuery()) == [5]
        row = conn.execute("select replays, events from stream.partition").fetchone()
        assert row == (1, 1), "a reader that looks for what is new sees it, and it is not accepted"


def test_a_letter_whose_id_was_sent_again_and_accepted_is_a_repeat_whenever_it_comes_back(
    conn: psycopg.Connection, tmp_path: Path
) -> None:
    """Refused by the contract at offset 5, sent again and accepted at 6; the letters are replayed a day later."""
    definition = worlds.definition(tmp_path)
    writer, _ = ready(conn, definition)
    raw = json.dumps({"id": "back", "who": 1, "at_time": "2026-01-01T00:09:00Z", "kind": "a"}).encode()
    letter = DeadLetterRow(0, 5, "contract", "was wrong", "digest", raw, None)
    (again,) = worlds.accepted([Given(1, 540 * S)], first_offset=6)
    again = replace(again, values={**again.values, "id": "back"})
    writer.commit([again, *worlds.accepted([Given(7, 100_000 * S)], first_offset=7)], dead=[letter])
    decoder = fitted(conn, writer.stream, definition, JsonDecoder(definition.schema, definition.acceptance))
    assert dict(replay(conn, writer.stream, decoder, Chosen(), START + 100_001 * S).outcomes) == {"late": 1}
    assert offsets(conn, writer, EventQuery()) == []
