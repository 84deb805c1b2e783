"""The sample stream against independent counts: the truth is a probability, the dirt is where it says it is.

What goes here: `sampling.shoppers`, `arrivals`, `events`. What does not: how a worker judges the messages.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ct_assets.sampling.arrivals import AHEAD_US, SHARES, ArrivalOptions, Arrivals, arrive
from ct_assets.sampling.events import batches, write_events
from ct_assets.sampling.shoppers import CLICK, PURCHASE, ShopEvents, ShopOptions, draw

US = 1_000_000


def bought_within(events: ShopEvents, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """(index of each click whose horizon lies in the stream, whether its user purchased in it): user by user."""
    end = events.seconds.max() - seconds
    bought: dict[int, list[float]] = {}
    for user, at in zip(events.user[events.kind == PURCHASE], events.seconds[events.kind == PURCHASE], strict=True):
        bought.setdefault(int(user), []).append(float(at))
    clicks = np.flatnonzero((events.kind == CLICK) & (events.seconds < end))
    labels = [
        any(events.seconds[i] < at <= events.seconds[i] + seconds for at in bought.get(int(events.user[i]), ()))
        for i in clicks
    ]
    return clicks, np.array(labels)


def log_loss(labels: np.ndarray, p: np.ndarray) -> float:
    return float(-np.where(labels, np.log(p), np.log1p(-p)).mean())


@pytest.mark.parametrize("seed", [1, 2])
def test_the_written_probability_is_the_share_of_clicks_that_end_in_a_purchase(seed: int) -> None:
    events = draw(ShopOptions(users=1_500, hours=36, seed=seed))
    clicks, labels = bought_within(events, 1_800)
    p = events.probability[clicks]
    assert 0.05 < labels.mean() < 0.6
    for low, high in pairwise([0, 0.02, 0.1, 0.5, 0.79, 1]):
        here = (p >= low) & (p < high)
        if here.sum() > 2_000:  # clicks of one session stand together: the bounds are wide for so many
            assert labels[here].mean() == pytest.approx(p[here].mean(), abs=0.06)
    assert log_loss(labels, p) < 0.7 * log_loss(labels, np.full(len(p), labels.mean()))


def test_without_signal_nothing_announces_a_purchase() -> None:
    events = draw(ShopOptions(users=2_000, hours=36, seed=3, signal=False))
    clicks, labels = bought_within(events, 1_800)
    p = events.probability[clicks]
    assert len(np.unique(p)) == 1
    assert labels.mean() == pytest.approx(p[0], rel=0.25)


@pytest.fixture(scope="module")
def arrivals() -> Arrivals:
    return arrive(ArrivalOptions(ShopOptions(users=800, hours=8, seed=5)))


def test_the_same_seed_gives_the_same_bytes(arrivals: Arrivals) -> None:
    again = arrive(ArrivalOptions(ShopOptions(users=800, hours=8, seed=5)))
    assert again.payload == arrivals.payload
    other = arrive(ArrivalOptions(ShopOptions(users=800, hours=8, seed=6)))
    assert other.payload != arrivals.payload


def messages_of(arrivals: Arrivals, *planted: str) -> list[tuple[int, dict, int]]:
    """(index, JSON object, append time minus event time in microseconds) of the messages that were planted so."""
    found = []
    for i, kind in enumerate(arrivals.planted):
        if kind in planted:
            event = json.loads(arrivals.payload[i] or b"")
            time = int(dt.datetime.fromisoformat(event["event_time"]).timestamp() * US)
            found.append((i, event, int(arrivals.append_time[i]) - time))
    return found


def test_every_kind_of_dirt_is_there_and_most_is_clean(arrivals: Arrivals) -> None:
    counted = Counter(arrivals.planted)
    assert set(counted) == {"clean", *SHARES}
    assert counted["clean"] > 0.9 * len(arrivals)


def test_broken_messages_are_broken(arrivals: Arrivals) -> None:
    for payload, planted in zip(arrivals.payload, arrivals.planted, strict=True):
        assert (payload is None) == (planted == "tombstone")
        if planted == "poison":
            with pytest.raises(json.JSONDecodeError):
                json.loads(payload or b"")
    assert all(event["user_id"] is None for _, event, _ in messages_of(arrivals, "null_key"))
    start = int(arrivals.append_time.min())
    assert all(delay > 0.9 * start for _, _, delay in messages_of(arrivals, "unit_error")), "a time of 1970"


def test_clocks_and_delays_are_those_planted(arrivals: Arrivals) -> None:
    assert all(delay == pytest.approx(-3_600 * US, abs=2) for _, _, delay in messages_of(arrivals, "future"))
    assert all(-AHEAD_US < delay < 10 * US for _, _, delay in messages_of(arrivals, "clean", "stray"))
    assert all(delay + AHEAD_US >= 15 * US for _, _, delay in messages_of(arrivals, "late"))
    assert all(delay + AHEAD_US >= 300 * US for _, _, delay in messages_of(arrivals, "too_late"))


def test_repeats_and_conflicts_follow_what_they_repeat(arrivals: Arrivals) -> None:
    first = {event["event_id"]: i for i, event, _ in messages_of(arrivals, "clean")}
    for planted in ("repeat", "conflict"):
        for i, event, _ in messages_of(arrivals, planted):
            origin = first.get(event["event_id"])
            assert origin is None or origin < i  # of a message that was late itself, the first is not among the clean
            if origin is not None:
                assert (arrivals.payload[origin] == arrivals.payload[i]) == (planted == "repeat")
    assert any(event["event_id"] in first for _, event, _ in messages_of(arrivals, "conflict"))


def test_there_is_a_hot_user_and_partitions_do_not_follow_users_alone(arrivals: Arrivals) -> None:
    busiest = Counter(arrivals.user.tolist()).most_common(2)
    assert busiest[0][0] == 1_000
    assert busiest[0][1] > 10 * busiest[1][1]
    homes: dict[int, set[int]] = {}
    for user, partition in zip(arrivals.user.tolist(), arrivals.partition.tolist(), strict=True):
        homes.setdefault(user, set()).add(partition)
    assert max(len(where) for where in homes.values()) > 1


def test_messages_go_out_in_order_of_arrival(arrivals: Arrivals) -> None:
    sent: dict[int, list[tuple[int, bytes | None]]] = {}
    for partition, payloads, append in batches(arrivals):
        sent.setdefault(partition, []).extend(zip(append, payloads, strict=True))
    assert sum(map(len, sent.values())) == len(arrivals)
    for messages in sent.values():
        assert [at for at, _ in messages] == sorted(at for at, _ in messages)


def test_files_hold_the_messages_and_their_truth(arrivals: Arrivals, tmp_path: Path) -> None:
    import polars as pl

    options = ArrivalOptions(ShopOptions(users=800, hours=8, seed=5))
    truth = write_events(tmp_path, arrivals, options)
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    assert lines == [p for p in arrivals.payload if p is not None]
    frame = pl.read_parquet(tmp_path / "truth.parquet")
    assert frame.height == truth["messages"] == len(arrivals)
    assert dict(frame["planted"].value_counts().iter_rows()) == truth["planted"]
    clicks = frame.filter(pl.col("event_type") == "click", pl.col("user_id") != 1_000)
    assert clicks["probability"].null_count() == 0
    assert json.loads((tmp_path / "truth.json").read_text()) == truth
