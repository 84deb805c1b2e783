"""Doubles at the ends of their range: a value online is the oracle's, an infinity where it is, in PostgreSQL as in Redis.

What goes here: overflow and underflow. What does not: ordinary values (``test_online_values``).
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ct_assets.adapters.stream import consistency, online
from ct_assets.streaming.windows import evaluate
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.stores import Store
from ct_assets_tests.adapters.stream.test_online_values import assert_values, ready
from ct_assets_tests.adapters.stream.worlds import START, Given, M, S

LARGEST, LEAST = 1.7976931348623157e308, 5e-324
AGGREGATES = """\
  - {name: n, function: count, column: ratio, window: 5m}
  - {name: total, function: sum, column: ratio, window: 5m}
  - {name: mean, function: avg, column: ratio, window: 5m}
  - {name: spread, function: var, column: ratio, window: 5m}
  - {name: deviation, function: std, column: ratio, window: 5m}
  - {name: least, function: min, column: ratio, window: 5m}
  - {name: most, function: max, column: ratio, window: 5m}
  - {name: first_one, function: first, column: ratio, window: 5m}
  - {name: last_one, function: last, column: ratio, window: 5m}
  - {name: unlike, function: count_distinct, column: ratio, window: 5m}
  - {name: total_saw, function: sum, column: ratio, window: 10m, mode: sawtooth, hop: 1m}
  - {name: spread_a, function: var, column: ratio, window: 5m, where: {kind: a}}
"""
EXTREMES = """\
  - {name: least, function: min, column: ratio, window: 5m}
  - {name: most, function: max, column: ratio, window: 10m}
"""
ENDS = [
    LARGEST,
    LARGEST / 2,
    2.0**970,  # half of what the largest double lies apart from its neighbour: the least that takes it to infinity
    2.0**969,
    1e300,
    1e200,
    2.0**512,  # the least whose square is beyond a double
    1e154,
    1e145,
    1e16,
    1.0,
    0.1,
    1e-154,
    1.5717277847026288e-162,  # about here a square becomes 0
    1.5717277847026285e-162,
    1e-200,
    1e-308,
    1e-320,
    LEAST * 3,
    LEAST,
    0.0,
]
DOUBLES = st.sampled_from(ENDS).flatmap(lambda x: st.sampled_from([x, -x])) | st.floats(
    allow_nan=False, allow_infinity=False
)
_serial = itertools.count()


@pytest.mark.parametrize("aggregates", [EXTREMES, AGGREGATES], ids=["summarised", "unpacked"])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.lists(DOUBLES, max_size=7), min_size=1, max_size=8), batch=st.sampled_from([3, 1000]))
@example(values=[[LARGEST, LARGEST]], batch=1000)
@example(values=[[-LARGEST, -(2.0**970), LARGEST]], batch=1000)
@example(values=[[LARGEST, 2.0**969, -LARGEST, LEAST]], batch=1000)
@example(values=[[LARGEST, -LARGEST, LEAST, LEAST]], batch=1000)
@example(values=[[1e-200, -1e-200], [1e-320, LEAST], [LEAST, 0.0], [LEAST, LEAST, 0.0], [-LEAST, 0.0]], batch=1000)
@example(values=[[2.0**512, 0.0], [1e154, -1e154], [1.5, 2.5], [1e200, LEAST], [1e155] * 5, [1e160] * 2], batch=3)
def test_every_function_of_extreme_doubles_is_the_oracles(
    store: Store, conn, tmp_path_factory, aggregates: str, values: list[list[float]], batch: int
) -> None:
    number = next(_serial)
    definition = worlds.definition(tmp_path_factory.mktemp("d"), aggregates, name=f"x{number}")
    writer, table = ready(conn, definition, f"topic{number}", store)
    rng = random.Random(number)
    events = worlds.accepted(
        [
            Given(who, i * S + rng.randrange(S), rng.choice("ab"), ratio=x, partition=rng.randrange(2))
            for i, (who, x) in enumerate((who, x) for who, xs in enumerate(values) for x in xs)
        ]
    )
    for start in range(0, len(events), batch):
        writer.commit(events[start : start + batch])
    moments = [START + 4 * M, START + 5 * M + S]
    assert_values(store, conn, table, events, [*range(len(values)), 99], moments)
    assert_offline(definition, events, range(len(values)), moments)
    for at in moments:
        consistency.sample_reads(conn, table, range(len(values)), at, store.online_url)
    report = consistency.recompute(conn, None, table, START)
    assert (report.reads, report.first) == (2 * len(values), ())
    assert sum(consistency.as_served(conn, None, table, START).changed.values()) == 0


def assert_offline(definition, events, users, moments) -> None:
    """The window kernel, without a warning: an infinity is a value."""
    asked = [(user, at) for user in users for at in moments]
    found = evaluate(
        definition,
        worlds.frame(events),
        pl.Series([user for user, _ in asked], dtype=pl.Int64),
        [at for _, at in asked],
    )
    assert found.to_dicts() == [worlds.expected(definition, events, *row) for row in asked]


def test_one_user_at_the_ends_takes_nothing_from_the_others(store: Store, conn, tmp_path: Path) -> None:
    writer, table = ready(conn, worlds.definition(tmp_path, AGGREGATES), store=store)
    writer.commit(
        worlds.accepted([Given(who, who * S, ratio=x) for who, x in [(1, 1.5), (2, LARGEST), (1, 2.5), (2, LARGEST)]])
    )
    fine, large = store.read(conn, table, [1, 2], START + M).values
    assert [fine[name] for name in ("total", "mean", "spread", "most")] == [4.0, 2.0, 0.5, 2.5]
    assert [large[name] for name in ("total", "mean", "spread", "most")] == [float("inf")] * 3 + [LARGEST]


def test_a_function_from_before_is_renewed_when_a_worker_begins(conn, tmp_path: Path) -> None:
    """Whoever reads in SQL after an upgrade reads by the new text, without a new version."""
    definition = worlds.definition(tmp_path, AGGREGATES)
    writer, table = ready(conn, definition)
    writer.commit(worlds.accepted([Given(1, S, ratio=LARGEST), Given(1, S, ratio=LARGEST)]))
    signature = f"{table.function}(bigint[], bigint)"
    (made,) = conn.execute("select pg_get_functiondef(%s::regprocedure)", (signature,)).fetchone()
    conn.execute("set check_function_bodies = off")
    conn.execute(made.replace("stream.float_", "stream.no_float_").encode())
    with pytest.raises(psycopg.errors.UndefinedFunction):
        conn.execute("select total from online.visits(array[1], '2026-01-01T00:01:00Z')")
    online.ensure(conn, writer.stream, definition)
    values = conn.execute("select total from online.visits(array[1], '2026-01-01T00:01:00Z')").fetchone()
    assert values == (float("inf"),)
