"""What a soaked world and an undisturbed one hold, against each other: PostgreSQL, training sets, Redis, the oracle.

What goes here: the comparison at the end of the stream soak. What does not: rounds and points (``soak_stream``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import online, state
from ct_assets.adapters.stream.online_reads import OnlineReads
from ct_assets.adapters.stream.training_frames import Request, training_frame
from ct_assets.adapters.stream.versions import find_table
from ct_assets_tests.adapters.stream_worker.world import Truth, World
from ct_assets_tests.faults.soak_redis import EDGES, OnlineWorld, newest


def differences(soaked: World, calm: World) -> tuple[list[str], int]:
    """What two workers' worlds hold that differs, and how many values were compared."""
    ours, theirs = _everything(soaked), _everything(calm)
    found = [f"{n}: {_first_difference(ours[n], theirs[n])}" for n in theirs if ours[n] != theirs[n]]
    return found, sum(len(theirs[name]) for name in ("online", "offline"))


def _everything(world: World) -> dict[str, Any]:
    found = world.content()
    with connect(world.url, autocommit=True) as conn:
        table = find_table(conn, "user_activity")
        events = state.events(conn, state.find_stream(conn, table.stream_id))
        users = events["user_id"].unique().sort().to_list()
        times = events["event_time"].dt.epoch("us")
        moments = [int(times.quantile(share) or 0) for share in (0.25, 0.5, 0.75, 0.999, 1.0)]
        found["online"] = [v for at in moments for v in online.read(conn, table, users, at + 1).values]
        labels = events.select("user_id", at=times).gather_every(20)
        found["offline"] = training_frame(conn, table, labels, Request("as_known")).rows()
    return found


def _first_difference(ours: Any, theirs: Any) -> str:
    if len(ours) != len(theirs):
        return f"{len(ours)} instead of {len(theirs)}"
    return next(f"{a} instead of {b}" for a, b in zip(ours, theirs, strict=True) if a != b)


def redis_differences(soaked: OnlineWorld, calm: OnlineWorld, truth: Truth | None, counts: Counter[str]) -> list[str]:
    """The last content of the soaked Redis against PostgreSQL's of the undisturbed world, its Redis and the oracle."""
    found: list[str] = []
    with connect(soaked.url, autocommit=True) as one, connect(calm.url, autocommit=True) as other:
        ours, theirs = find_table(one, "user_activity"), find_table(other, "user_activity")
        users = state.events(one, state.find_stream(one, ours.stream_id))["user_id"].unique().sort().to_list()
        asked = [newest(other, theirs) + edge for edge in EDGES]
        stores = {"PostgreSQL": OnlineReads(), "calm Redis": OnlineReads(calm.online_url)}
        for at in asked:
            read = OnlineReads(soaked.online_url).read(one, ours, users, at)
            counts["redis_values"] += len(users)
            counts["redis_non_zero"] += sum(any(v.values()) for v in read.values)
            for name, store in stores.items():
                again = store.read(other, theirs, users, at)
                found += _unequal(name, users, at, read.values, again.values)
                if read.version != again.version:
                    found.append(f"{name}: version {read.version} instead of {again.version}")
            if truth is None:
                continue
            some = range(0, len(users), max(1, len(users) // 400))
            known = [truth.values(users[i], at) for i in some]
            found += _unequal("the oracle", [users[i] for i in some], at, [read.values[i] for i in some], known)
            counts["oracle_values"] += len(some)
    return found


def _unequal(name: str, users: Sequence[int], at: int, ours: Sequence[Any], theirs: Sequence[Any]) -> list[str]:
    return [
        f"Redis against {name}, user {user} at {at}: {one} instead of {other}"
        for user, one, other in zip(users, ours, theirs, strict=True)
        if one != other
    ]
