"""Dead letters that come back by a changed contract: in exactly the stream's columns, or not at all.

Why every reading is asked afterwards (online, offline, a new version, Redis loaded anew): one event in other columns gave
wrong numbers online and stopped all that reads the stored events. Values are compared with the oracle.
"""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import polars as pl
import psycopg
import pytest

from ct_assets.adapters.stream import dead_letters, deployment, letter_streams, online, registration, state, versions
from ct_assets.adapters.stream.chunks import ChunkDamaged, ChunkPlace, event_frames, insert_chunk
from ct_assets.adapters.stream.chunks import EventQuery as Query
from ct_assets.adapters.stream.dead_letters import Chosen
from ct_assets.adapters.stream.stored_form import StoredForm, fitted
from ct_assets.adapters.stream.training_frames import Request, training_frame
from ct_assets.errors import UsageError
from ct_assets.streaming.accept import Acceptor
from ct_assets.streaming.decode import JsonDecoder
from ct_assets.streaming.definition import Definition, load_definition
from ct_assets.streaming.messages import Messages
from ct_assets.streaming.oracle import Event
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.stores import Store
from ct_assets_tests.adapters.stream.test_online_values import ready
from ct_assets_tests.adapters.stream.worlds import START, Given, M, Writer

AGGREGATES = """\
  - {name: n, function: count, window: 20m}
  - {name: s_paid, function: sum, column: paid, window: 20m}
  - {name: hi_items, function: max, column: items, window: 20m}
"""
PAID = 'name: paid, logicalType: number, physicalType: "numeric(12,2)"'
WHOLE = "name: items, logicalType: integer, physicalType: bigint"
FLAG = "      - {name: flag, logicalType: boolean}\n"
COUPON = "      - {name: coupon, logicalType: string}\n"
NOW = START + 11 * M


def mended(folder: Path, *changes: tuple[str, str], aggregates: str = AGGREGATES) -> Definition:
    """The definition over a changed contract."""
    worlds.definition(folder, aggregates)
    text = (folder / "c.odcs.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "c.odcs.yaml").write_text(text.replace("version: 1.2.0", "version: 1.3.0"))
    return load_definition(folder / "visits.yaml")


def letter(offset: int, event_id: str, minute: int, **more: object) -> state.DeadLetterRow:
    value = {"id": event_id, "who": 1, "at_time": f"2026-01-01T00:{minute:02d}:00Z", "kind": "a", **more}
    return state.DeadLetterRow(0, offset, "contract", "was wrong", "digest", json.dumps(value).encode(), None)


COMMITTED = worlds.accepted([Given(1, 10 * M, paid=Decimal("2.50"), items=3)])


@pytest.fixture
def world(store: Store, conn: psycopg.Connection, tmp_path: Path) -> Writer:
    """One event of user 1 at minute 10, and one letter of minute 9 with amount 11.25 and a coupon."""
    writer, _ = ready(conn, worlds.definition(tmp_path / "first", AGGREGATES), store=store)
    writer.commit(COMMITTED, dead=[letter(5, "back", 9, paid="11.25", items=7, coupon="X")])
    return writer


def replayed(conn: psycopg.Connection, writer: Writer, definition: Definition) -> dict[str, int]:
    decoder = fitted(conn, writer.stream, definition, JsonDecoder(definition.schema, definition.acceptance))
    return dict(dead_letters.replay(conn, writer.stream, decoder, Chosen(), NOW).outcomes)


def came_back() -> Event:
    """As the stream's own contract has it."""
    (made,) = worlds.accepted([Given(1, 9 * M, paid=Decimal("11.25"), items=7)], first_offset=5)
    return replace(made, values={**made.values, "id": "back", "day": None}, known_at=NOW + 1_000_000)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            (PAID, PAID.replace("12,2", "12,3")),
            r"'paid' is stored as decimal\(12,2\) and would come as decimal\(12,3\)",
        ),
        ((PAID, "name: paid, logicalType: integer"), r"'paid' is stored as decimal\(12,2\) and would come as integer"),
        ((WHOLE, 'name: items, logicalType: number, physicalType: "numeric(12,2)"'), r"'items' is stored as integer"),
        ((WHOLE, "name: items, logicalType: number, physicalType: double"), "come as number"),
        ((FLAG, ""), "'flag' is stored as boolean and would not come at all"),
    ],
)
def test_what_does_not_fit_exactly_is_refused_and_nothing_is_stored(
    conn: psycopg.Connection, world: Writer, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    stored = (
        "select (select count(*) from stream.chunk), (select count(*) from stream.dead_letter where outcome is null)"
    )
    before = conn.execute(stored.encode()).fetchone()
    with pytest.raises(UsageError, match=said) as refused:
        replayed(conn, world, mended(tmp_path / "mended", change))
    assert "`ct stream deploy`" in str(refused.value)
    assert "visits (log://visits, stream 1)" in str(refused.value)
    assert conn.execute(stored.encode()).fetchone() == before == (1, 1)


def test_an_added_column_is_left_out_and_every_reading_goes_on(
    store: Store, conn: psycopg.Connection, world: Writer, tmp_path: Path
) -> None:
    """Case 24: values unchanged. A producer's retry, read by a worker that knows no such column, is a repeat."""
    newer = mended(tmp_path / "mended", (FLAG, COUPON + FLAG))
    assert replayed(conn, world, newer) == {"accepted": 1}
    own, acceptor = load_definition(tmp_path / "first/visits.yaml"), Acceptor(world.stream.acceptance)
    kept = state.replay_frames(conn, world.stream, 0, START)
    acceptor.restore(0, top=START + 10 * M, frontier=START + 10 * M, events=kept)
    retry = Messages.from_values([letter(5, "back", 9, paid="11.25", items=7, coupon="X").raw], 0, [6], NOW)
    judged = acceptor.accept(JsonDecoder(own.schema, own.acceptance).decode(retry), retry)
    assert (len(judged.events), judged.duplicates) == (0, {0: 1})
    assert_read_everywhere(store, conn, world, tmp_path, [*COMMITTED, came_back()])


@pytest.mark.parametrize(
    ("change", "amount"),
    [
        ((PAID, PAID.replace("12,2", "10,1")), "11.2"),
        ((WHOLE, WHOLE + ", required: false"), "11.25"),
        (("{name: kind, logicalType: string}", "{name: kind, logicalType: string, enum: [a]}"), "11.25"),
    ],
)
def test_what_fits_exactly_comes_back_as_the_stream_would_have_stored_it(
    store: Store, conn: psycopg.Connection, world: Writer, tmp_path: Path, change: tuple[str, str], amount: str
) -> None:
    conn.execute("update stream.dead_letter set raw = %s", (letter(5, "back", 9, paid=amount, items=7).raw,))
    assert replayed(conn, world, mended(tmp_path / "mended", change)) == {"accepted": 1}
    event = came_back()
    event = replace(event, values={**event.values, "paid": Decimal(amount)})
    assert_read_everywhere(store, conn, world, tmp_path, [*COMMITTED, event])


def assert_read_everywhere(
    store: Store, conn: psycopg.Connection, writer: Writer, folder: Path, events: list[Event]
) -> None:
    """Online, offline, in a version built from the stored events, of another definition, and after a load of Redis."""
    (table,) = writer.tables
    store.look(conn)
    assert_values(store, conn, table, events)
    changed = worlds.definition(
        folder / "changed", AGGREGATES + "  - {name: k, function: count, column: flag, window: 1h}\n"
    )
    built = deployment.build(conn, changed)
    assert built.events == len(events)
    second = worlds.definition(folder / "second", worlds.UNPACKED, name="others")
    registration.first_version(conn, writer.stream, second, None, registration.Watcher())
    versions.switch(conn, "visits", changed.hash, table.definition.hash)
    for each in (built.table, versions.find_table(conn, "others")):
        assert_values(Store(), conn, each, events)
    for twin in store.twins:
        twin.sync(conn, rebuild=True)
        assert_values(store, conn, built.table, events)
    writer.take([0])
    writer.commit(later := worlds.accepted([Given(1, 12 * M, paid=Decimal("0.75"))], first_offset=6))
    store.look(conn)
    assert_values(store, conn, table, [*events, *later])


def assert_values(store: Store, conn: psycopg.Connection, table: online.OnlineTable, events: list[Event]) -> None:
    for at in (START + 9 * M + 1, START + 13 * M, START + 29 * M + 1):
        (found,) = store.read(conn, table, [1], at).values
        expected = worlds.expected(table.definition, events, 1, at)
        assert worlds.shown(found) == expected, at
        labels = pl.DataFrame({"who": [1], "at": [at]})
        offline = training_frame(conn, table, labels, Request(reading="corrected")).row(0, named=True)
        assert worlds.shown({name: offline[name] for name in expected}) == expected, at


def test_letters_of_a_stream_that_accepted_nothing_come_back_by_its_own_contract_only(
    conn: psycopg.Connection, tmp_path: Path
) -> None:
    definition = worlds.definition(tmp_path / "first", AGGREGATES)
    writer, table = ready(conn, definition)
    writer.take([0])
    state.insert_dead_letters(conn, writer.stream, [letter(5, "back", 9, paid="11.25", items=7)])
    with pytest.raises(UsageError, match=r"never\s+accepted an event.*\s+`ct stream run` with this definition"):
        replayed(conn, writer, mended(tmp_path / "mended", (FLAG, COUPON + FLAG)))
    assert replayed(conn, writer, definition) == {"accepted": 1}
    assert_values(Store(), conn, table, [came_back()])


def test_letters_that_earlier_versions_stored_in_other_columns_are_read_or_named(
    store: Store, conn: psycopg.Connection, world: Writer, tmp_path: Path
) -> None:
    """A chunk with a column more and one less stands for one of an added and a removed column; then one of another type."""
    other = worlds.frame([came_back()]).drop("flag").with_columns(coupon=pl.lit("X"))
    other = other.select("coupon", *[c for c in other.columns if c != "coupon"])
    (table,) = world.tables

    def stored(frame: pl.DataFrame, replay: int) -> None:
        with conn.transaction():
            online.write_rows(conn, table, frame, state.next_commit_id(conn))
            place = ChunkPlace(0, 5, 6, state.next_commit_id(conn), START + 10 * M, replay)
            insert_chunk(conn, world.stream, place, frame)
            conn.execute("update stream.partition set replays = %s", (replay,))

    stored(other, 1)
    assert_read_everywhere(store, conn, world, tmp_path, [*COMMITTED, came_back()])
    stored(worlds.frame([came_back()]).with_columns(pl.col("paid").cast(pl.Decimal(12, 3))), 2)
    with pytest.raises(ChunkDamaged, match=r"'paid' is stored as decimal\(12,2\) and would come as decimal\(12,3\)"):
        list(event_frames(conn, world.stream, Query()))


@pytest.mark.parametrize(
    ("given", "stored", "values"),
    [
        (pl.Int64(), pl.Decimal(38, 19), [2**63 - 1, -(2**63), 0, None]),
        (pl.Int64(), pl.Decimal(38, 20), None),
        (pl.Int64(), pl.Decimal(18, 0), None),
        (pl.Int64(), pl.Float64(), None),
        (pl.Decimal(12, 2), pl.Decimal(38, 4), [Decimal("9999999999.99"), Decimal("-0.01")]),
        (pl.Decimal(34, 0), pl.Decimal(38, 4), [Decimal("9" * 34)]),
        (pl.Decimal(35, 0), pl.Decimal(38, 4), None),
        (pl.Decimal(12, 2), pl.Decimal(13, 3), [Decimal("-9999999999.99")]),
        (pl.Decimal(12, 2), pl.Decimal(12, 3), None),
        (pl.Decimal(12, 3), pl.Decimal(12, 2), None),
        (pl.String(), pl.Int64(), None),
        (pl.Date(), pl.Datetime("us", "UTC"), None),
    ],
)
def test_only_types_of_which_every_value_fits_are_brought_over(
    given: pl.DataType, stored: pl.DataType, values: list[object] | None
) -> None:
    form = StoredForm({"x": stored})
    assert bool(form.retyped({"x": given})) == (values is None)
    if values is not None:
        frame = form.fit(pl.DataFrame({"x": pl.Series(values, dtype=given)}))
        assert frame.schema == {"x": stored}
        assert [None if v is None else Decimal(v) for v in frame["x"]] == [
            None if v is None else Decimal(str(v)) for v in values
        ]


def test_only_letters_of_the_contracts_own_dataset_are_taken(conn: psycopg.Connection, tmp_path: Path) -> None:
    """Two datasets with equal names of key columns, and two contracts with equal names of datasets."""
    visits = worlds.definition(tmp_path / "visits", AGGREGATES)
    ready(conn, visits)
    calls = mended(tmp_path / "calls", ("- name: visits", "- name: calls"))
    calls = replace(calls, name="calls")
    stream, _ = registration.open_versions(conn, [calls], worlds.identity("calls"))
    theirs = mended(tmp_path / "theirs", ("id: t\n", "id: theirs\n"))
    theirs = replace(theirs, name="theirs")
    third, _ = registration.open_versions(conn, [theirs], worlds.identity("third"))
    assert [s.stream_id for s in letter_streams.find_streams(conn, visits)] == [1]
    assert letter_streams.find_streams(conn, calls) == [stream]
    assert letter_streams.find_streams(conn, theirs) == [third]
    nobody = mended(tmp_path / "nobody", ("- name: visits", "- name: nobody"))
    with pytest.raises(
        UsageError, match=r"alike, but of other datasets: visits \(log://visits, stream 1\) of contract t"
    ):
        letter_streams.find_streams(conn, nobody)


def test_of_one_topic_the_stream_of_exactly_this_contract_is_meant(conn: psycopg.Connection, tmp_path: Path) -> None:
    first = worlds.definition(tmp_path / "first", AGGREGATES)
    old = ready(conn, first)[0].stream
    newer = mended(tmp_path / "mended", (FLAG, COUPON + FLAG))
    elsewhere = state.open_stream(conn, "visits", first.acceptance, worlds.identity("elsewhere"))
    assert letter_streams.find_streams(conn, newer) == [old, elsewhere]
    new = state.open_stream_beside(conn, old, newer.acceptance)
    assert letter_streams.find_streams(conn, newer) == [elsewhere, new]
    assert letter_streams.find_streams(conn, newer, Chosen(str(old.stream_id))) == [old]
    assert letter_streams.find_streams(conn, newer, Chosen("visits")) == [old, elsewhere, new]
    assert letter_streams.find_streams(conn, newer, Chosen(ids=(1,))) == [old, elsewhere, new]
    with pytest.raises(UsageError, match="no stream '9' was run"):
        letter_streams.find_streams(conn, newer, Chosen("9"))
