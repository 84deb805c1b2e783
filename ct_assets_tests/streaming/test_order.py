"""The kernel equals the oracle for every function, in each order that events may be told and each kind of entity.

Why these kinds: entities near one another, far apart, beyond one pass of the radix sort, and text take different ways to
a code; events told in order take a shorter way to what was known than late ones.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ct_assets.streaming.oracle import Event
from ct_assets.streaming.order import Ordered, rows_by
from ct_assets.streaming.windows import evaluate
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.test_online_values import random_events
from ct_assets_tests.adapters.stream.worlds import SUMMARISED, UNPACKED, H, M, S

ENTITIES: dict[str, list[Any]] = {
    "near": [7, 8, 9, 10],
    "far": [-(2**62), 3, 5 * 10**12, 2**62],
    "two_passes": [0, 70_000, 65_536 + 3, 9_000_000],
    "text": ["42", "ü", "", "zz"],
}


def told(how: str, events: list[Event], rng: random.Random) -> list[Event]:
    """When each event became known: a constant lag, at once, or some of them late."""
    lag = {"in_order": lambda: S, "at_once": lambda: 0, "late": lambda: rng.choice([0, S, S, S, 40 * S, H])}[how]
    return [Event(e.values, e.time, e.partition, e.offset, e.time + lag()) for e in events]


@pytest.mark.parametrize("aggregates", [SUMMARISED, UNPACKED], ids=["summarised", "unpacked"])
@pytest.mark.parametrize("entities", list(ENTITIES))
@pytest.mark.parametrize("how", ["in_order", "at_once", "late"])
def test_every_way_through_the_kernel(tmp_path: Path, aggregates: str, entities: str, how: str) -> None:
    names = ENTITIES[entities]
    definition = worlds.definition(
        tmp_path, aggregates, who="string" if entities == "text" else "integer", name=f"v_{how}"
    )
    rng = random.Random(f"{entities} {how}")
    events = worlds.accepted(random_events(rng.randrange(10**6), 160))
    events = [
        Event({**e.values, "who": names[e.values["who"]]}, e.time, e.partition, e.offset, e.known_at) for e in events
    ]
    events = told(how, events, rng)
    shuffled = rng.sample(events, len(events))
    frame = worlds.frame(shuffled).with_columns(pl.Series("_known_at", [e.known_at for e in shuffled]))
    asked = [
        (e.values["who"] if rng.random() < 0.8 else rng.choice(names), e.time + edge)
        for e in rng.sample(events, 25)
        for edge in (0, 1, 5 * M, 5 * M + 1, H, H + 1)
    ]
    who, at = pl.Series([w for w, _ in asked]), np.array([t for _, t in asked])
    for known in (None, at, at + rng.choice([-S, 30 * S])):
        found = evaluate(definition, frame, who, at, as_known_at=known)
        for place, row in enumerate(found.iter_rows(named=True)):
            limit = None if known is None else int(known[place])
            expected = worlds.expected(definition, events, *asked[place], limit)
            assert worlds.shown(row) == expected, (asked[place], limit)


def test_rows_by_is_a_stable_sort() -> None:
    rng = np.random.default_rng(1)
    for largest in (0, 1, 255, 65_535, 65_536, 10**6):
        code, time = rng.integers(0, largest + 1, 3_000), rng.integers(0, 50, 3_000)
        assert (rows_by(code, largest, time) == np.lexsort((time, code))).all()
        assert (rows_by(code, largest) == np.argsort(code, kind="stable")).all()
        still = np.sort(time)
        assert (rows_by(code, largest, still) == np.lexsort((still, code))).all()


def test_what_is_told_in_order() -> None:
    """Of each entity on its own: another entity's events may be known earlier."""

    def is_told_in_order(code: list[int], time: list[int], known: list[int]) -> bool:
        frame = pl.DataFrame({"_known_at": known})
        return Ordered(frame, np.array(code), np.array(time), 3).is_told_in_order

    assert is_told_in_order([0, 0, 1], [1, 2, 1], [5, 6, 1])
    assert is_told_in_order([0, 0, 1], [2, 1, 1], [6, 5, 1])
    assert is_told_in_order([0, 0], [1, 2], [5, 5])
    assert not is_told_in_order([0, 1, 0], [1, 1, 2], [5, 9, 4])
