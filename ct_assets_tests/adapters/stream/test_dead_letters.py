"""Dead letters come back once, judged by the present, and are in every value and every version from then on.

Why the worker of the partition is fenced: it does not remember what came back, and would take a producer's retry of it.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from ct_assets.adapters.stream import dead_letters, letter_streams, state, training_frames
from ct_assets.adapters.stream.dead_letters import Chosen, replay
from ct_assets.adapters.stream.stored_form import fitted
from ct_assets.errors import UsageError
from ct_assets.streaming.decode import JsonDecoder
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.stores import Store
from ct_assets_tests.adapters.stream.test_online_values import ready
from ct_assets_tests.adapters.stream.worlds import START, Given, M, S

NOW = START + 20 * M


def raw(event_id: str, who: object, minute: float) -> bytes:
    value = {
        "id": event_id,
        "who": who,
        "at_time": f"2026-01-01T00:{int(minute):02d}:{int(minute % 1 * 60):02d}Z",
        "kind": "a",
    }
    return json.dumps(value).encode()


@pytest.fixture
def world(store: Store, conn, tmp_path: Path):
    """Partition 0 stands at minute 10; letters: one that is good by now, poison, late, a repeat, and a future one."""
    definition = worlds.definition(tmp_path)
    writer, table = ready(conn, definition, store=store)
    writer.take([0])
    bodies = {
        5: ("contract", raw("good", 1, 9.5)),
        6: ("poison", b"\xff{"),
        7: ("late", raw("late", 1, 1)),
        8: ("contract", raw("e0", 1, 10)),  # what e0 was accepted as, but for its amounts: another payload
        9: ("future", raw("future", 1, 15)),
    }
    digest = definition.acceptance.contract_digest
    dead = [
        state.DeadLetterRow(0, o, reason, "was wrong", digest, body, START + 10 * M)
        for o, (reason, body) in bodies.items()
    ]
    writer.commit(worlds.accepted([Given(1, 10 * M, flag=True)]), dead=dead)
    return writer, table, fitted(conn, writer.stream, definition, JsonDecoder(definition.schema, definition.acceptance))


def count(store: Store, conn, table, at: int) -> int:
    store.look(conn)
    return store.read(conn, table, [1], at).values[0]["n"]


def test_listed_and_shown_with_coordinates(conn, world) -> None:
    assert {row["reason"]: row["letters"] for row in dead_letters.summary(conn)} == {
        "contract": 2,
        "poison": 1,
        "late": 1,
        "future": 1,
    }
    found = dead_letters.letters(conn, Chosen(reason="poison"))
    assert [(f.topic, f.partition, f.offset, f.raw) for f in found] == [("visits", 0, 6, b"\xff{")]
    assert dead_letters.as_json(found[0])["raw_base64"] is True
    with pytest.raises(UsageError, match=r"there is no reason 'poisn'\s+did you mean 'poison'"):
        dead_letters.letters(conn, Chosen(reason="poisn"))
    with pytest.raises(UsageError, match=r"no dead letter of reason 'conflict'\s+there are: contract, future"):
        dead_letters.letters(conn, Chosen(reason="conflict"))
    with pytest.raises(UsageError, match="no dead letter 77 as asked for"):
        dead_letters.letters(conn, Chosen(ids=(77,)))


def test_what_is_good_by_now_comes_back_once(store: Store, conn, world) -> None:
    writer, table, decoder = world
    before = store.read(conn, table, [1], START + 16 * M)
    assert [count(store, conn, table, START + m * M) for m in (10, 14, 16)] == [0, 1, 0]
    found = replay(conn, writer.stream, decoder, Chosen(), NOW)
    assert found.outcomes == Counter(accepted=2, poison=1, late=1, conflict=1)
    # good at 9:30, e0 at 10:00, future (no longer ahead of its re-entry) at 15:00
    assert [count(store, conn, table, START + m * M) for m in (10, 14, 16)] == [1, 2, 1]
    assert replay(conn, writer.stream, decoder, Chosen(), NOW).outcomes == Counter(poison=1, late=1, conflict=1)
    assert [count(store, conn, table, START + m * M) for m in (10, 14, 16)] == [1, 2, 1]
    row = conn.execute("select events, replays, top from stream.partition").fetchone()
    assert row == (3, 1, START + 10 * M)  # the watermark did not move
    # offline: corrected has them, and a reader's version says whether it had seen them
    import polars as pl

    labels = pl.DataFrame({"who": [1], "at": [START + 16 * M]})
    after = store.read(conn, table, [1], START + 16 * M)

    def offline(version) -> int:
        return training_frames.training_frame(conn, table, labels, training_frames.Request(version=version))["n"][0]

    assert (before.version, after.version) == ({0: (1, 0)}, {0: (1, 1)})
    assert (offline(before.version), offline(after.version)) == (0, 1)


def test_letters_that_stay_dead_hide_none_behind_them(
    store: Store, conn, world, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two a transaction: the first ones stay poison, those behind them must be tried all the same, once."""
    writer, _, decoder = world
    digest = writer.stream.acceptance.contract_digest
    letters = [state.DeadLetterRow(0, 100 + n, "poison", "x", digest, b"{", None) for n in range(5)]
    good = state.DeadLetterRow(0, 200, "contract", "x", digest, raw("behind", 1, 9.75), None)
    state.insert_dead_letters(conn, writer.stream, [*letters, good])
    monkeypatch.setattr(dead_letters, "_AT_ONCE", 2)
    found = replay(conn, writer.stream, decoder, Chosen(), NOW)
    assert found.outcomes == Counter(accepted=3, poison=6, late=1, conflict=1)
    assert count(store, conn, world[1], START + 10 * M) == 2


def test_a_repeat_of_what_came_back_is_a_duplicate(store: Store, conn, world) -> None:
    """The partition's worker is fenced, claims again and remembers; a retry of the producer is then dropped."""
    from ct_assets.streaming.accept import Acceptor
    from ct_assets.streaming.messages import Messages

    writer, table, decoder = world
    replay(conn, writer.stream, decoder, Chosen(ids=(1,)), NOW)
    with pytest.raises(state.Fenced):
        writer.commit(worlds.accepted([Given(2, 11 * M)], first_offset=10))
    claim = writer.take([0])[0]
    acceptor = Acceptor(writer.stream.acceptance)
    acceptor.restore(
        0, top=claim.top, frontier=claim.frontier, events=state.replay_frames(conn, writer.stream, 0, START)
    )
    retry = Messages.from_values([raw("good", 1, 9.5)], 0, [10], START + 11 * M)
    accepted = acceptor.accept(decoder.decode(retry), retry)
    assert (len(accepted.events), accepted.duplicates) == (0, {0: 1})
    writer.commit(worlds.accepted([Given(2, 11 * M)], first_offset=10))
    assert count(store, conn, table, START + 12 * M) == 2


def test_a_letter_whose_event_came_after_all_is_a_duplicate(store: Store, conn, world) -> None:
    writer, table, decoder = world
    digest = writer.stream.acceptance.contract_digest
    conn.execute(
        'insert into stream.dead_letter (stream_id, partition, "offset", reason, error, contract_digest, raw)'
        " values (1, 0, 20, 'contract', 'x', %s, %s)",
        (digest, raw("good", 1, 9.5)),
    )
    replay(conn, writer.stream, decoder, Chosen(ids=(1,)), NOW)
    assert replay(conn, writer.stream, decoder, Chosen(ids=(6,)), NOW).outcomes == Counter(duplicate=1)
    assert replay(conn, writer.stream, decoder, Chosen(ids=(6,)), NOW).outcomes == Counter()
    assert count(store, conn, table, START + 10 * M + S) == 2


def test_streams_of_the_same_acceptance_but_for_the_contract(conn, world, tmp_path: Path) -> None:
    writer, _, _ = world
    mended = worlds.definition(tmp_path / "mended")
    path = tmp_path / "mended" / "c.odcs.yaml"
    path.write_text(
        path.read_text().replace(
            "{name: kind, logicalType: string}", "{name: kind, logicalType: string, enum: [a, b, c]}"
        )
    )
    from ct_assets.streaming.definition import load_definition

    mended = load_definition(tmp_path / "mended" / "visits.yaml")
    assert mended.acceptance != writer.stream.acceptance
    assert letter_streams.find_streams(conn, mended) == [writer.stream]
    other = worlds.definition(tmp_path / "other", more="dedup_horizon: 2h\n")
    with pytest.raises(UsageError, match="no stream was run with the dataset visits of contract t and what"):
        letter_streams.find_streams(conn, other)
