"""The kernel equals the oracle for every function, in each order that events may be told and each kind of entity.

Why these kinds: entities near one another, far apart, beyond one pass of the radix sort, and text take different ways to
a code; events known within the usual delay take a shorter way to what was known than later ones.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ct_assets.streaming import windows
from ct_assets.streaming.oracle import Event
from ct_assets.streaming.order import Events, rows_by
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
    """When each event became known: a constant lag, at once, some of them late, or so few that they are not usual."""
    lag = {
        "in_order": lambda _: S,
        "at_once": lambda _: 0,
        "late": lambda _: rng.choice([0, S, S, S, 40 * S, H]),
        "seldom_late": lambda i: H if i % 50 == 0 else S,
    }[how]
    return [Event(e.values, e.time, e.partition, e.offset, e.time + lag(i)) for i, e in enumerate(events)]


@pytest.mark.parametrize("aggregates", [SUMMARISED, UNPACKED], ids=["summarised", "unpacked"])
@pytest.mark.parametrize("entities", list(ENTITIES))
@pytest.mark.parametrize("how", ["in_order", "at_once", "late", "seldom_late"])
def test_every_way_through_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aggregates: str, entities: str, how: str
) -> None:
    names = ENTITIES[entities]
    if how != "in_order":
        monkeypatch.setattr(windows, "_LARGE", 0)  # filters next to one another, in threads
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
        assert (rows_by(code, largest) == np.argsort(code, kind="stable")).all()
        places = pl.DataFrame({name: rng.integers(0, 3, 3_000) for name in ("_partition", "_offset")})
        for moments in (time, np.sort(time)):
            alone = Events(pl.DataFrame({"x": code}), code, moments, largest)
            assert (alone.in_order(None) == np.lexsort((moments, code))).all(), "equal ones stay as they are"
            by_place = np.lexsort((*(places[n].to_numpy() for n in ("_offset", "_partition")), moments, code))
            assert (Events(places, code, moments, largest).in_order(None) == by_place).all()
