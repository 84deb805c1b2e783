"""What the specification says of the messages in the demo's topic, and what was committed of them.

What goes here: reading the topic back, judging it by the oracle, reading tables. What does not: what is claimed
(``demo_stream``).
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ct_assets.errors import CtError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.settings import Settings
    from ct_assets.streaming.definition import Definition
    from ct_assets.streaming.oracle import Event

# What was planted that no decoder lets through, and the reason it must give.
REFUSED = {"poison": "poison", "null_key": "null_key", "unit_error": "timestamp_out_of_range"}
SOON_US, WAITS_US = 2_000_000, (10_000_000, 60_000_000)  # an event that leaves its window in between is waited for


@dataclass
class Truth:
    """The oracle's verdict on a topic."""

    definition: Definition
    accepted: list[Event]
    dead: Counter[str]
    duplicates: int
    messages: int
    _by_user: dict[int, list[Event]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for event in self.accepted:
            self._by_user[event.values["user_id"]].append(event)

    @property
    def places(self) -> set[tuple[int, int]]:
        """(partition, offset) of each accepted event."""
        return {(event.partition, event.offset) for event in self.accepted}

    def values(self, user: int, at: int) -> dict[str, Any]:
        """Every aggregate of one user at ``at`` (microseconds)."""
        from ct_assets.streaming import oracle

        return oracle.value(self.definition, self._by_user.get(user, []), user, at)

    def questions(self, count: int) -> list[tuple[int, int]]:
        """(user, moment) on the edges of windows: at an event, just after, as it leaves."""
        rng = random.Random(1)  # noqa: S311 - questions, no secret
        edges = [
            0,
            1,
            *(a.window_us for a in self.definition.aggregates),
            *(a.window_us + 1 for a in self.definition.aggregates),
        ]
        chosen = rng.sample(self.accepted, count)
        return [(event.values["user_id"], event.time + rng.choice(edges)) for event in chosen]

    def next_to_leave(self, now: int) -> tuple[str, int, int]:
        """(aggregate, user, moment): which 5-minute count falls next. Purchases before clicks, unless they take long."""
        for latest in WAITS_US:
            for name in ("purchases_5m", "clicks_5m"):
                found = self._leaving(name, now, latest)
                if found is not None:
                    return name, *found
        raise CtError("no event leaves a 5-minute window within a minute: the sample did not end now")

    def _leaving(self, name: str, now: int, latest: int) -> tuple[int, int] | None:
        window = next(a.window_us for a in self.definition.aggregates if a.name == name)
        leaving = sorted(
            (event.time + window + 1, event.values["user_id"])
            for event in self.accepted
            if SOON_US < event.time + window - now < latest
        )
        for moment, user in leaving:
            if self.values(user, moment)[name] < self.values(user, now)[name]:
                return user, moment
        return None


def judge(home: Path, url: str, definition_path: Path) -> Truth:
    """Read the topic as it lies there, parse it with the standard library, judge it by the specification."""
    import polars as pl

    from ct_assets.streaming import oracle
    from ct_assets.streaming.definition import load_definition

    definition = load_definition(definition_path)
    planted = pl.read_parquet(home / "events" / "truth.parquet", columns=["partition", "planted"])
    kinds = {p: part["planted"].to_list() for (p,), part in planted.partition_by("partition", as_dict=True).items()}
    messages = []
    for partition, offset, append, payload in _messages(home, url):
        event: dict[str, Any] | str | None = None
        if payload is not None:
            event = REFUSED.get(kinds[partition][offset]) or _parsed(payload)
        messages.append(oracle.Message(event, partition, offset, append))
    accepted, dead, duplicates = oracle.accept(messages, definition.acceptance)
    return Truth(definition, accepted, Counter(reason for _, reason in dead), duplicates, len(messages))


def _parsed(payload: bytes) -> dict[str, Any]:
    from datetime import UTC, datetime, timedelta

    event = {"amount": None, **json.loads(payload, parse_float=Decimal)}
    since = datetime.fromisoformat(event["event_time"]) - datetime(1970, 1, 1, tzinfo=UTC)
    return event | {"event_time": since // timedelta(microseconds=1)}


def _messages(home: Path, url: str) -> Iterator[tuple[int, int, int, bytes | None]]:
    """(partition, offset, append time, payload) of all that is in the topic."""
    from ct_assets.adapters.events.port import BEGINNING, open_source

    source = open_source(url, _settings(home))
    try:
        ends = source.end_offsets()
        source.assign(dict.fromkeys(ends, BEGINNING))
        while source.positions() != ends:
            batch = source.poll(50_000, 5.0)
            for i in range(len(batch)):
                payload = batch.payload(i)
                yield (
                    int(batch.partition[i]),
                    int(batch.offset[i]),
                    int(batch.append_time[i]),
                    None if payload is None else bytes(payload),
                )
    finally:
        source.close()


def committed(home: Path, name: str) -> dict[str, Any]:
    """Offsets, places of events, dead letters by reason and repeats, as the tables hold them."""
    from ct_assets.adapters.stream import state

    with _connected(home) as conn:
        table = _table(conn, name)
        frame = state.events(conn, state.find_stream(conn, table.stream_id))
        totals = conn.execute(
            "select sum(next_offset)::bigint, sum(duplicates)::bigint from stream.partition where stream_id = %s",
            (table.stream_id,),
        ).fetchall()[0]
        dead = conn.execute(
            "select reason, count(*) from stream.dead_letter where stream_id = %s group by reason", (table.stream_id,)
        ).fetchall()
    places = set(frame.select("_partition", "_offset").rows())
    return {"offsets": totals[0], "duplicates": totals[1], "dead": dict(dead), "places": places}


def online_values(home: Path, name: str, asked: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Values as a server would read them, one question at a time."""
    from ct_assets.adapters.stream import online

    with _connected(home) as conn:
        table = _table(conn, name)
        return [online.read(conn, table, [user], at).values[0] for user, at in asked]


def offline_values(home: Path, name: str, asked: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """The same questions as labels of a training set, late events included."""
    import polars as pl

    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream.training_frames import Request, training_frame

    with _connected(home) as conn:
        table = _table(conn, name)
        labels = pl.DataFrame({"user_id": [user for user, _ in asked], "at": [at for _, at in asked]})
        frame = training_frame(conn, table, labels, Request("corrected", storage=open_storage(_settings(home))))
    return frame.select([a.name for a in table.definition.aggregates]).to_dicts()


def _settings(home: Path) -> Settings:
    from ct_assets.settings import load

    return load({"CT_HOME": str(home)})


def _connected(home: Path) -> psycopg.Connection:
    from ct_assets.adapters.postgres.connect import connect, url_for

    return connect(url_for(_settings(home), "stream"), autocommit=True)


def _table(conn: psycopg.Connection, name: str) -> OnlineTable:
    from ct_assets.adapters.stream.versions import find_table

    return find_table(conn, name)
