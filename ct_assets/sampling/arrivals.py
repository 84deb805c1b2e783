"""How a shop's events reach a topic: payloads, partitions, delays, and the planted dirt.

What goes here: from clean events to messages in order of arrival, each with what was planted in it. What does not: the
behaviour of shoppers (``shoppers``), writing files or producing (``events``), any judgement.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ct_assets.sampling.shoppers import CLICK, KINDS, US, ShopEvents, ShopOptions, draw

# What is planted, and how often: a share of all events.
SHARES = {
    "late": 0.02,  # 15 to 60 s on the way: behind the watermark, yet in time
    "too_late": 0.003,  # 5 to 10 minutes on the way
    "repeat": 0.01,  # the producer tried again within 30 s
    "conflict": 0.001,  # the same id with another amount
    "stray": 0.03,  # landed in another partition than the user's own
    "future": 0.0005,  # a clock one hour ahead
    "poison": 0.0005,
    "null_key": 0.0005,
    "unit_error": 0.0005,  # a time of 1970: seconds read as milliseconds
    "tombstone": 0.0005,
}
AHEAD_USERS = 0.02  # of the users have a clock 4 minutes ahead, which is allowed
AHEAD_US = 240 * US
HOT_CLICKS_A_SECOND, HOT_SECONDS = 20.0, 600.0

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ArrivalOptions:
    """Where and when: ``start`` is the first moment; ``dirt`` False leaves only the network's delay.

    ``sent_us``: the moment at which everything is sent at once to a broker that stamps arrivals itself. Then no clock is
    four minutes ahead (the stamp would not expose it: it would only make everybody else late), and ``future`` is ahead of
    that moment.
    """

    shop: ShopOptions = field(default_factory=ShopOptions)
    start: dt.datetime = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    partitions: int = 4
    dirt: bool = True
    hot_user: bool = True
    sent_us: int | None = None

    @property
    def start_us(self) -> int:
        """The start in microseconds UTC."""
        return int(self.start.timestamp()) * US


@dataclass(frozen=True)
class Arrivals:
    """Messages in order of arrival. ``planted`` is ``clean`` or a key of :data:`SHARES`; ``probability`` is NaN where
    no click is; ``payload`` None is a tombstone. Times are microseconds UTC; ``user`` is -1 where there is none."""

    payload: list[bytes | None]
    partition: I64
    append_time: I64
    planted: list[str]
    event_id: list[str]
    user: I64
    event_time: I64
    kind: I64
    cents: I64
    probability: npt.NDArray[np.float64]

    def __len__(self) -> int:
        """How many messages."""
        return len(self.payload)


@dataclass(frozen=True)
class _Rows:
    """Messages before they are written out; one element each."""

    number: I64  # of the event, which gives its id
    user: I64
    time: I64
    kind: I64
    cents: I64
    probability: npt.NDArray[np.float64]
    append: I64
    partition: I64
    planted: npt.NDArray[np.str_]

    def take(self, where: npt.NDArray) -> _Rows:
        return _Rows(*(getattr(self, name)[where] for name in self.__dataclass_fields__))


def arrive(options: ArrivalOptions) -> Arrivals:
    """Everything that reaches the topic, by append time; the same options give the same bytes."""
    rng = np.random.default_rng([options.shop.seed, 1])
    rows = _rows(rng, _with_hot_user(rng, draw(options.shop), options), options)
    if options.dirt:
        rows = _soiled(rng, rows, options)
    rows = rows.take(np.argsort(rows.append, kind="stable"))
    ids = [f"e-{n:08d}" for n in rows.number.tolist()]
    return Arrivals(
        payload=_payloads(rows, ids),
        partition=rows.partition,
        append_time=rows.append,
        planted=rows.planted.tolist(),
        event_id=ids,
        user=rows.user,
        event_time=rows.time,
        kind=rows.kind,
        cents=rows.cents,
        probability=rows.probability,
    )


def _with_hot_user(rng: np.random.Generator, events: ShopEvents, options: ArrivalOptions) -> ShopEvents:
    """A robot, user 0, that clicks twenty times a second for ten minutes in the middle. It buys like anybody else."""
    if not (options.dirt and options.hot_user):
        return events
    middle, seconds = options.shop.hours * 1800, min(HOT_SECONDS, options.shop.hours * 900)
    n = int(HOT_CLICKS_A_SECOND * seconds)
    at = middle + np.sort(rng.random(n)) * seconds
    joined = ShopEvents(
        np.concatenate([events.seconds, at]),
        np.concatenate([events.user, np.zeros(n, np.int64)]),
        np.concatenate([events.kind, np.full(n, CLICK)]),
        np.concatenate([events.cents, np.full(n, -1)]),
        np.concatenate([events.probability, np.full(n, np.nan)]),  # no shopper: its clicks have no truth
    )
    order = np.argsort(joined.seconds, kind="stable")
    return ShopEvents(*(getattr(joined, name)[order] for name in joined.__dataclass_fields__))


def _rows(rng: np.random.Generator, events: ShopEvents, options: ArrivalOptions) -> _Rows:
    n = len(events.user)
    true_time = options.start_us + (events.seconds * US).astype(np.int64)
    delay = (rng.exponential(0.3, n) * US).astype(np.int64) + 5_000
    user = events.user + 1_000  # numbers as a shop would give
    return _Rows(
        number=np.arange(n),
        user=user,
        time=true_time,
        kind=events.kind,
        cents=events.cents,
        probability=events.probability,
        append=true_time + delay,
        partition=(user * 2_654_435_761 >> 8) % options.partitions,
        planted=np.full(n, "clean", dtype="<U10"),
    )


def _soiled(rng: np.random.Generator, rows: _Rows, options: ArrivalOptions) -> _Rows:
    n = len(rows.user)
    planted, append, partition, time = rows.planted.copy(), rows.append.copy(), rows.partition.copy(), rows.time.copy()
    ahead = np.random.default_rng([options.shop.seed, 2]).random(options.shop.users) < AHEAD_USERS
    if options.sent_us is None:
        time[ahead[rows.user - 1_000]] += AHEAD_US
    left = rng.permutation(n)
    chosen = {}
    for name, share in SHARES.items():
        count = round(share * n)
        chosen[name], left = left[:count], left[count:]
    for name in ("late", "too_late", "stray", "future", "poison", "null_key", "unit_error", "tombstone"):
        planted[chosen[name]] = name
    append[chosen["late"]] += rng.integers(15 * US, 60 * US, len(chosen["late"]))
    append[chosen["too_late"]] += rng.integers(300 * US, 600 * US, len(chosen["too_late"]))
    partition[chosen["stray"]] = (partition[chosen["stray"]] + 1) % options.partitions
    time[chosen["future"]] = (append[chosen["future"]] if options.sent_us is None else options.sent_us) + 3_600 * US
    time[chosen["unit_error"]] //= 1_000
    soiled = replace(rows, planted=planted, append=append, partition=partition, time=time)
    again = soiled.take(chosen["repeat"])
    again = replace(
        again,
        append=again.append + rng.integers(1, 30 * US, len(again.user)),
        planted=np.full(len(again.user), "repeat", "<U10"),
    )
    other = soiled.take(chosen["conflict"])
    other = replace(
        other,
        append=other.append + rng.integers(1, 30 * US, len(other.user)),
        cents=np.where(other.cents < 0, 100, other.cents + 1),
        planted=np.full(len(other.user), "conflict", "<U10"),
    )
    parts = (soiled, again, other)
    return _Rows(*(np.concatenate([getattr(p, name) for p in parts]) for name in _Rows.__dataclass_fields__))


def _payloads(rows: _Rows, ids: list[str]) -> list[bytes | None]:
    """One JSON object a message, as a web shop writes it."""
    stamps = np.datetime_as_string(rows.time.astype("datetime64[us]"), unit="us", timezone="UTC").tolist()
    out: list[bytes | None] = []
    columns = zip(
        ids, rows.user.tolist(), stamps, rows.kind.tolist(), rows.cents.tolist(), rows.planted.tolist(), strict=True
    )
    for event_id, user, stamp, kind, cents, planted in columns:
        if planted == "tombstone":
            out.append(None)
            continue
        who = "null" if planted == "null_key" else user
        money = f',"amount":{cents // 100}.{cents % 100:02d}' if cents >= 0 else ""
        text = f'{{"event_id":"{event_id}","user_id":{who},"event_time":"{stamp}","event_type":"{KINDS[kind]}"{money}}}'
        out.append(text[: len(text) // 2].encode() if planted == "poison" else text.encode())
    return out
