"""Shoppers with an intent: sessions, clicks and purchases, and the true probability behind every click.

What goes here: the process that makes events, and its closed-form probability. What does not: dirt (``event_dirt``),
writing (``events``).

A shopper's sessions begin as a Poisson process whose rate follows the hour of the day. A session has an intent (it buys
or it browses), drawn with the shopper's own propensity, which drifts over the period, and ends after an exponential
time. Clicks and purchases in it are Poisson processes; a buying session clicks faster, and only it purchases. So the
probability of a purchase in the next 30 minutes, given the intent of the sessions that are open, is known:
the end of a session (rate 1/T) races with the next purchase (rate b), hence P = b/(b + 1/T) (1 - exp(-(b + 1/T) x)),
and sessions yet to begin add a thinned Poisson process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

US = 1_000_000
HORIZON_SECONDS = 1_800.0
CLICK, CART, PURCHASE, REFUND = 0, 1, 2, 3
KINDS = ("click", "cart", "purchase", "refund")

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShopOptions:
    """The size and the laws of a sample. Rates are per second, times in seconds."""

    users: int = 2_000
    hours: float = 24.0
    seed: int = 7
    signal: bool = True
    session_seconds: float = 480.0
    sessions_a_day: float = 4.0
    browse_clicks: float = 1 / 25
    buying_clicks: float = 1 / 10
    purchases: float = 1 / 150  # in a buying session

    def __post_init__(self) -> None:
        """Refuse what makes no stream."""
        if self.users < 1 or not 0 < self.hours <= 24 * 400:
            raise ValueError(
                f"{self.users} users over {self.hours} hours: at least one user and an hour, at most 400 days"
            )

    @property
    def end(self) -> float:
        """Seconds from start to end."""
        return self.hours * 3600


@dataclass(frozen=True)
class _Shoppers:
    """One element a user: sessions a second on average, and the logit of a session's meaning to buy."""

    rate: F64
    leaning: F64


@dataclass(frozen=True)
class ShopEvents:
    """Clean events ordered by time: seconds since the start, user number, kind, cents (-1: none), true probability
    that the user purchases within 30 minutes after a click (NaN for other kinds)."""

    seconds: F64
    user: I64
    kind: I64
    cents: I64
    probability: F64


def draw(options: ShopOptions) -> ShopEvents:
    """The clean events of a sample; the same options give the same events."""
    rng = np.random.default_rng([options.seed, 0])
    end = options.end
    appetite = np.exp(rng.normal(-0.3, 0.8, options.users))  # how often a user comes
    leaning = rng.normal(-2.0, 1.0, options.users)  # how often a visit is meant to buy
    shoppers = _Shoppers(appetite * options.sessions_a_day / 86_400, leaning)
    user, begin = _sessions(rng, shoppers.rate, end)
    buying = rng.random(len(user)) < _propensity(leaning[user], begin, end)
    length = rng.exponential(options.session_seconds, len(user))
    browse = np.full(len(user), options.browse_clicks)
    clicks = np.where(buying & options.signal, options.buying_clicks, browse)
    buys = np.where(buying, options.purchases, 0.0) if options.signal else np.zeros(len(user))
    session, seconds, kind = _points(rng, begin, length, clicks, buys)
    who = user[session]
    if not options.signal:
        who, seconds, kind = _without_signal(rng, options, (who, seconds, kind))
    inside = seconds < end
    who, seconds, kind = who[inside], seconds[inside], kind[inside]
    order = np.lexsort((who, seconds))
    who, seconds, kind = who[order], seconds[order], kind[order]
    probability = np.full(len(who), np.nan)
    if options.signal:
        sessions = _Sessions(user, begin, length, buying)
        at = kind == CLICK
        probability[at] = _probability(options, shoppers, sessions, (who[at], seconds[at]))
    else:
        probability[kind == CLICK] = -np.expm1(-_flat_rate(options) * HORIZON_SECONDS)
    cents = np.where(kind == PURCHASE, np.round(np.exp(rng.normal(3.4, 0.7, len(who))) * 100), -1).astype(np.int64)
    return ShopEvents(seconds, who, kind, cents, probability)


@dataclass(frozen=True)
class _Sessions:
    user: I64
    begin: F64
    length: F64
    buying: npt.NDArray[np.bool_]


def _hour_factor(seconds: F64) -> F64:
    """How busy the shop is: mean 1 over a day, least at 04:00, most at 16:00 UTC."""
    return 1 + 0.6 * np.sin(2 * np.pi * (seconds / 86_400 - 10 / 24))


def _propensity(leaning: F64, seconds: F64, end: float) -> F64:
    """Probability that a session beginning then is meant to buy: own leaning, evening, and a drift of one logit unit."""
    logit = leaning + 0.5 * (_hour_factor(seconds) - 1) + seconds / end - 0.5
    return 1 / (1 + np.exp(-logit))


def _sessions(rng: np.random.Generator, rate: F64, end: float) -> tuple[I64, F64]:
    """Users and begins of all sessions: Poisson with the day's rhythm, by thinning its maximum (1.6)."""
    count = rng.poisson(rate * end * 1.6)
    user = np.repeat(np.arange(len(rate)), count)
    begin = rng.random(len(user)) * end
    kept = rng.random(len(user)) * 1.6 < _hour_factor(begin)
    return user[kept], begin[kept]


def _points(rng: np.random.Generator, begin: F64, length: F64, clicks: F64, buys: F64) -> tuple[I64, F64, I64]:
    """Clicks, carts and purchases of each session: (session, seconds, kind)."""
    parts = []
    for kind, rate in ((CLICK, clicks), (CART, buys * 1.5), (PURCHASE, buys)):
        count = rng.poisson(rate * length)
        session = np.repeat(np.arange(len(begin)), count)
        parts.append(
            (session, begin[session] + rng.random(len(session)) * length[session], np.full(len(session), kind))
        )
    session, seconds, kind = (np.concatenate(column) for column in zip(*parts, strict=True))
    return session, seconds, kind


def _flat_rate(options: ShopOptions) -> float:
    """Purchases a second of every user in the stream without signal: about as many as in the other one."""
    return options.sessions_a_day / 86_400 * 0.3 * options.session_seconds * options.purchases


def _without_signal(
    rng: np.random.Generator, options: ShopOptions, events: tuple[I64, F64, I64]
) -> tuple[I64, F64, I64]:
    """Purchases that nothing announces: one constant rate for everybody, whatever they click."""
    who, seconds, kind = events
    count = rng.poisson(_flat_rate(options) * options.end, options.users)
    buyer = np.repeat(np.arange(options.users), count)
    at = rng.random(len(buyer)) * options.end
    return (
        np.concatenate([who, buyer]),
        np.concatenate([seconds, at]),
        np.concatenate([kind, np.full(len(buyer), PURCHASE)]),
    )


def _probability(options: ShopOptions, shoppers: _Shoppers, sessions: _Sessions, clicks: tuple[I64, F64]) -> F64:
    """P(purchase within 30 minutes after ``at``), knowing which sessions are open and which of them buy."""
    user, at = clicks
    b, leave = options.purchases, 1 / options.session_seconds
    one = b / (b + leave) * -np.expm1(-(b + leave) * HORIZON_SECONDS)
    open_buying = _count_open(sessions, user, at)
    # sessions that begin within the horizon: rate of buying ones x the mean of P over the time that is left to them
    left = (np.arange(60) + 0.5) / 60 * HORIZON_SECONDS
    mean = float(np.mean(b / (b + leave) * -np.expm1(-(b + leave) * left)))
    leaning = _propensity(shoppers.leaning[user], at, options.end)
    coming = shoppers.rate[user] * _hour_factor(at) * leaning * HORIZON_SECONDS * mean
    return 1 - (1 - one) ** open_buying * np.exp(-coming)


def _count_open(sessions: _Sessions, user: I64, at: F64) -> I64:
    """How many buying sessions of ``user`` are open at ``at``: begun by then minus ended by then, per user."""
    own = sessions.buying
    span = 1e9  # larger than any time: packs (user, time) into one sorted number
    begins = np.sort(sessions.user[own] * span + sessions.begin[own])
    ends = np.sort(sessions.user[own] * span + sessions.begin[own] + sessions.length[own])
    key = user * span + at
    return np.searchsorted(begins, key, "right") - np.searchsorted(ends, key, "right")
