"""Values finished in the store, PostgreSQL or Redis, equal the oracle's: at the edges, decayed, merged, corrected, for every function.

Why the reads come after several commits: a row that was appended to, closed, or summarised is where a wrong value would hide.
"""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ct_assets.adapters.stream import online, state
from ct_assets.errors import UsageError
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.stores import Store
from ct_assets_tests.adapters.stream.worlds import START, SUMMARISED, UNPACKED, Given, H, M, S, Writer


def ready(
    conn: psycopg.Connection, definition, topic: str = "visits", store: Store | None = None
) -> tuple[Writer, online.OnlineTable]:
    stream = state.open_stream(conn, "visits", definition.acceptance, worlds.identity(topic))
    table = online.ensure(conn, stream, definition)
    writer = Writer(conn, stream, [table])
    if store is not None:
        store.serve(writer)
    return writer, table


def assert_values(store: Store, conn, table, events, entities, moments) -> None:
    """Three ways to the same: a read of many, a read of one, the function that people call."""
    names = [a.name for a in table.definition.aggregates]
    for at in moments:
        many = store.read(conn, table, [*entities, *entities], at).values[: len(entities)]
        function = conn.execute(
            f"select {', '.join(names)} from {table.function}(%s, %s) order by _place".encode(), (entities, at)
        ).fetchall()
        for entity, values, row in zip(entities, many, function, strict=True):
            expected = worlds.expected(table.definition, events, entity, at)
            assert worlds.shown(values) == expected, (entity, at - START)
            assert worlds.shown(dict(zip(names, row, strict=True))) == expected, (entity, at - START)
            assert worlds.shown(store.read(conn, table, [entity], at).values[0]) == expected, (entity, at - START)


@pytest.mark.parametrize("aggregates", [SUMMARISED, UNPACKED], ids=["summarised", "unpacked"])
def test_edges_of_every_window_to_the_microsecond(store: Store, conn, tmp_path: Path, aggregates: str) -> None:
    definition = worlds.definition(tmp_path, aggregates)
    writer, table = ready(conn, definition, store=store)
    events = worlds.accepted(
        [Given(42, 10 * M, paid=Decimal("19.90"), huge=Decimal("1.5"), ratio=0.1, items=3, flag=True)]
    )
    writer.commit(events)
    t = START + 10 * M
    windows = {a.window_us for a in definition.aggregates}
    assert_values(store, conn, table, events, [42, 7], [t, t + 1, *(t + w + d for w in windows for d in (-1, 0, 1))])
    assert store.read(conn, table, [42], t).values[0]["n"] == 0
    assert store.read(conn, table, [42], t + 1).values[0]["n"] == 1
    assert store.read(conn, table, [42], t + 5 * M).values[0]["n"] == 1
    assert store.read(conn, table, [42], t + 5 * M + 1).values[0]["n"] == 0


def test_decay_without_new_input_and_in_sql(store: Store, conn, tmp_path: Path) -> None:
    """Case 4: 00:10, 00:20, silence."""
    writer, table = ready(conn, worlds.definition(tmp_path), store=store)
    writer.commit(worlds.accepted([Given(1, 10 * S), Given(1, 20 * S)]))
    seen = [
        store.read(conn, table, [1], START + at).values[0]["n"] for at in (305 * S, 310 * S, 310 * S + 1, 320 * S + 1)
    ]
    assert seen == [2, 2, 1, 0]
    rows = conn.execute("select who, n from online.visits(array[1, 99], '2026-01-01T00:05:10.000001Z')").fetchall()
    assert rows == [(1, 1), (99, 0)]


def test_partitions_merge_and_a_late_event_corrects(store: Store, conn, tmp_path: Path) -> None:
    writer, table = ready(conn, worlds.definition(tmp_path), store=store)
    first = worlds.accepted([Given(1, M, paid=Decimal(5)), Given(1, 2 * M, paid=Decimal(-7), partition=1)])
    writer.commit(first)
    assert_values(store, conn, table, first, [1], [START + 2 * M + 1])
    late = worlds.accepted([Given(1, M + S // 2, paid=Decimal("0.01"), partition=0)], first_offset=1)
    writer.commit(late)
    assert_values(store, conn, table, [*first, *late], [1], [START + 90 * S, START + 2 * M + 1, START + 6 * M + 1])
    assert store.read(conn, table, [1], START + 90 * S).values[0]["n"] == 2


def random_events(seed: int, size: int, users: int = 4, partitions: int = 3) -> list[Given]:
    rng = random.Random(seed)
    maybe = lambda make: make() if rng.random() < 0.8 else None  # noqa: E731
    return [
        Given(
            who=rng.randrange(users),
            t=rng.choice([rng.randrange(3 * H), rng.randrange(3 * H) // M * M, rng.randrange(5 * M)]),
            kind=maybe(lambda: rng.choice("abc")),
            paid=maybe(lambda: Decimal(rng.randrange(-(10**6), 10**6)) / 100),
            huge=maybe(lambda: Decimal(rng.randrange(-(10**24), 10**24)).scaleb(-4)),
            ratio=maybe(lambda: rng.choice([rng.uniform(-1, 1), 1e16, -1e16, 1.0])),
            items=maybe(lambda: rng.choice([rng.randrange(10), 9007199254740993, -(2**62) // 1000])),
            flag=maybe(lambda: rng.random() < 0.5),
            partition=rng.randrange(partitions),
        )
        for _ in range(size)
    ]


@pytest.mark.parametrize("aggregates", [SUMMARISED, UNPACKED], ids=["summarised", "unpacked"])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), size=st.integers(1, 120), batch=st.sampled_from([9, 50, 1000]))
def test_every_function_equals_the_oracle(
    store: Store, conn, tmp_path_factory, aggregates: str, seed: int, size: int, batch: int
) -> None:
    definition = worlds.definition(tmp_path_factory.mktemp("d"), aggregates, name=f"v{seed}_{size}_{batch}")
    writer, table = ready(conn, definition, f"topic{seed}-{size}-{batch}-{len(aggregates)}", store)
    events = worlds.accepted(random_events(seed, size))
    for start in range(0, size, batch):
        writer.commit(events[start : start + batch])
    rng = random.Random(seed)
    picked = rng.sample(events, min(4, size))
    moments = [e.time + rng.choice([0, 1, 5 * M, 5 * M + 1, H, H + 1, rng.randrange(H)]) for e in picked]
    assert_values(store, conn, table, events, [0, 1, 2, 3, 99], moments)


@pytest.mark.parametrize("aggregates", [SUMMARISED, UNPACKED], ids=["summarised", "unpacked"])
@pytest.mark.parametrize("batch", [60, 300, 5_000])
def test_a_hot_user_whose_rows_close(store: Store, conn, tmp_path: Path, aggregates: str, batch: int) -> None:
    writer, table = ready(conn, worlds.definition(tmp_path, aggregates), store=store)
    events = worlds.accepted([*random_events(5, 1_500, users=1, partitions=1), Given(3, M)])
    for start in range(0, len(events), batch):
        writer.commit(events[start : start + batch])
    rows = conn.execute(
        f"select max(n), sum(n), count(*) filter (where seq = 0) from {table.quoted} where entity = 0"
    ).fetchone()
    assert rows is not None
    assert rows[0] <= 511
    assert rows[1] == 1_500
    assert rows[2] <= 2
    assert_values(store, conn, table, events, [0, 3], [START + 30 * M, START + 61 * M + 17, START + 2 * H])


def test_text_entities_and_one_asked_twice(store: Store, conn, tmp_path: Path) -> None:
    definition = worlds.definition(tmp_path, who="string")
    writer, table = ready(conn, definition, store=store)
    events = worlds.accepted([Given("42", M), Given("ü", M, paid=Decimal(1))])
    writer.commit(events)
    assert_values(store, conn, table, events, ["ü", "42", "ü", "nobody"], [START + 2 * M])


def test_watermark_staleness_version_and_policy(store: Store, conn, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    null = worlds.definition(tmp_path, name="strict", more="freshness: 60s\non_stale: 'null'\n")
    writer, table = ready(conn, null, store=store)
    before = store.read(conn, table, [1], START)
    assert (before.watermark_us, before.version, before.is_stale) == (None, {}, True)
    writer.commit(worlds.accepted([Given(1, M), Given(1, 2 * M, partition=1)]))
    read = store.read(conn, table, [1], START + 2 * M + 1)
    assert (read.watermark_us, read.staleness_us, read.is_stale) == (START + 50 * S, M + 1, True)
    assert read.values[0]["n"] is None
    assert read.version == {0: (1, 0), 1: (1, 0)}
    read = store.read(conn, table, [1], START + 2 * M)
    assert (read.is_stale, read.values[0]["n"]) == (False, 1)
    # silent and caught up: partition 0 no longer holds the watermark, and the state is as fresh as the heartbeat
    state.heartbeat(conn, writer.stream, "w1", {0: 0, 1: 0})
    store.look(conn)
    now = round(datetime.now(UTC).timestamp() * 1e6)
    read = store.read(conn, table, [1], now)
    assert read.watermark_us == START + 110 * S
    assert read.staleness_us is not None
    assert read.staleness_us < 60 * S
    assert (read.is_stale, read.values[0]["n"]) == (False, 0)


@pytest.mark.parametrize("more", ["", "freshness: 60s\n", "freshness: 60s\non_stale: 'null'\n"])
def test_progress_of_a_read_is_that_of_the_function(conn, tmp_path: Path, more: str) -> None:
    """Partitions in every state: the rule stands in Python for reads, in SQL for the function."""
    writer, table = ready(conn, worlds.definition(tmp_path, more=more))
    writer.commit(worlds.accepted([Given(1, M)]))
    rng = random.Random(4)
    seen = set()
    for _ in range(60):
        conn.execute("delete from stream.partition where stream_id = %s", (table.stream_id,))
        for partition in range(rng.randrange(4)):
            top, append = (rng.choice([None, START + rng.randrange(3) * 20 * S]) for _ in range(2))
            updated = START + rng.randrange(3) * 30 * S + 7
            conn.execute(
                """insert into stream.partition (stream_id, partition, next_offset, replays, top, last_append, caught_up, updated_at)
                   values (%s, %s, %s, %s, %s, %s, %s, timestamptz 'epoch' + %s * interval '1 microsecond')""",
                (
                    table.stream_id,
                    partition,
                    rng.randrange(9),
                    rng.randrange(3),
                    top,
                    append,
                    rng.random() < 0.5,
                    updated,
                ),
            )
        at = START + rng.choice([0, 20 * S, 40 * S, 70 * S, 90 * S + 7, 2 * M])
        row = conn.execute(
            f"select _watermark_us, _staleness_us, _is_stale, _version, n from {table.function}(array[1], %s)".encode(),
            (at,),
        ).fetchone()
        assert row is not None
        for asked in ([1], [1, 2]):
            read = online.read(conn, table, asked, at)
            version = {str(p): list(v) for p, v in read.version.items()}
            assert (read.watermark_us, read.staleness_us, read.is_stale, version, read.values[0]["n"]) == row
        seen.add((row[0] is None, row[1] is None, row[2], row[4]))
    assert len(seen) > 3


def test_garbage_goes_and_values_stay(store: Store, conn, tmp_path: Path) -> None:
    writer, table = ready(conn, worlds.definition(tmp_path), store=store)
    events = worlds.accepted([Given(u, u * 10 * M) for u in range(60)])
    writer.commit(events)
    watermark = START + 590 * M - 10 * S
    limit = online.garbage_limit(table, watermark)
    deleted, following = online.collect_garbage(conn, table, {0: limit, 1: limit + 10**12})
    assert (deleted, following) == (sum(e.time < limit for e in events), 0)
    assert deleted > 40
    assert_values(store, conn, table, events, list(range(60)), [watermark, watermark + 10 * S + 1])


def test_another_version_of_the_name_must_be_deployed(conn, tmp_path: Path) -> None:
    writer, table = ready(conn, worlds.definition(tmp_path))
    assert online.ensure(conn, writer.stream, table.definition) == table
    other = worlds.definition(tmp_path / "other", "  - {name: n, function: count, window: 6m}\n")
    with pytest.raises(UsageError, match="another version of visits answers already"):
        online.ensure(conn, writer.stream, other)


@pytest.mark.parametrize("scale", [4, 30, 38])
def test_the_smallest_decimals_have_the_nearest_double(
    store: Store, conn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: int
) -> None:
    """A variance of 1e-76 has its first digit behind the 60 that were divided with."""
    monkeypatch.setattr(worlds, "CONTRACT", worlds.CONTRACT.replace("numeric(38,4)", f"numeric(38,{scale})"))
    monkeypatch.setitem(worlds.COLUMNS, "vast", pl.Decimal(38, scale))
    functions = ("avg", "var", "std", "min", "max")
    lines = [f"  - {{name: {f}_vast, function: {f}, column: vast, window: 5m}}\n" for f in functions]
    writer, table = ready(conn, worlds.definition(tmp_path, "".join(lines)), store=store)
    unit = Decimal(1).scaleb(-scale)
    small = [unit, 3 * unit, 7 * unit]
    events = worlds.accepted(
        [Given(1, S + i, vast=x) for i, x in enumerate(small)]
        + [Given(2, S + i, vast=x) for i, x in enumerate([*small, *[unit * (10**30 + 1)] * 4])]
        + [Given(3, S + i, vast=x) for i, x in enumerate([unit * (10**37 + 1), -3 * unit])]
    )
    writer.commit(events)
    assert_values(store, conn, table, events, [1, 2, 3], [START + M])
