"""The planted demand: what a product sells on average on a day, and why.

What goes here: products, their prices, promotions, seasons and life, and the mean that follows from them. What does not:
the draw around that mean and the order lines that carry it (``lines``), dirt (``dirt``).

mean = level x season(day) x weekday(day) ^ sharpness x (price of the day before / usual price) ^ elasticity x life(day)

Everything is a function of (seed, product, day): a longer sample begins with the shorter one's days.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ct_assets.sampling.vocabulary import COLOURS, MATERIALS, THINGS

Kind = Literal["regular", "intermittent", "new", "discontinued"]

DEFAULT_START = dt.date(2011, 3, 1)
FRIDAY, SATURDAY = 4, 5
# Monday to Sunday: the shop sends no file for Saturdays, Thursday is its best day, Sunday its weakest.
WEEKDAY_FACTOR = (1.0, 1.15, 1.1, 1.45, 0.85, 0.0, 0.45)
PROMOTION_PRICE = 0.75
PROMOTION_DAYS = 14  # from a Friday to the second Thursday after it
PRICE_LEAD_DAYS = 1  # customers answer a day later: Friday's price tells the week that a forecast of Friday is about
ELASTICITY = -2.4
INTERMITTENT_SIZE = 12
RAMP_DAYS = 14  # a new product takes two weeks to reach its level


@dataclass(frozen=True)
class SampleOptions:
    """What a sample is made of; the same options give the same bytes."""

    days: int = 90
    seed: int = 7
    products: int = 120
    start: dt.date = DEFAULT_START
    dirt: bool = True

    def __post_init__(self) -> None:
        """Refuse sizes that no sample can have (ValueError names the value and the bound)."""
        if self.days < 1:
            raise ValueError(f"days={self.days}: at least 1")
        if not 1 <= self.products <= 1_000:  # a day has room for 1,000 invoice numbers
            raise ValueError(f"products={self.products}: 1 to 1000")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: 0 or more")


@dataclass(frozen=True)
class Product:
    """One product and everything that its expected demand follows from."""

    code: str
    description: str
    kind: Kind
    level: float  # mean units of a plain weekday at the usual price
    sharpness: float  # exponent on the weekday factors: 0 = every day alike
    season: tuple[float, float, float]  # amplitude of the log level, period in days, phase in days
    price_cents: int
    price_changes: tuple[tuple[int, float], ...]  # (from day number, factor on the usual price)
    promotions: tuple[int, ...]  # day numbers of the Fridays on which one begins
    first_day: int = 0
    last_day: int | None = None
    chance: float = 1.0  # of selling at all on an open day (intermittent products only)

    def on_promotion(self, number: int) -> bool:
        """Whether day ``number`` (0 = the sample's first day) carries a promotion's price."""
        return any(begin <= number < begin + PROMOTION_DAYS for begin in self.promotions)

    def price(self, number: int) -> int:
        """Price in cents on day ``number``."""
        usual = 1.0
        for begin, factor in self.price_changes:
            if begin <= number:
                usual = factor
        return max(1, round(self.price_cents * usual * (PROMOTION_PRICE if self.on_promotion(number) else 1.0)))

    def mean(self, number: int, weekday: int) -> float:
        """Expected units on an open day ``number``; 0 before its first and after its last day."""
        if number < self.first_day or (self.last_day is not None and number > self.last_day):
            return 0.0
        amplitude, period, phase = self.season
        season = math.exp(amplitude * math.sin(2 * math.pi * (number + phase) / period))
        weekday_factor = WEEKDAY_FACTOR[weekday] ** self.sharpness
        price = (self.price(number - PRICE_LEAD_DAYS) / self.price_cents) ** ELASTICITY
        life = min(1.0, (number - self.first_day + 1) / RAMP_DAYS) if self.kind == "new" else 1.0
        return self.level * season * weekday_factor * price * life


def is_open(day: dt.date) -> bool:
    """Whether the shop trades: never on Saturdays, at Easter (Friday to Monday) or from 24 December to 3 January."""
    if day.weekday() == SATURDAY:
        return False
    if (day.month, day.day) >= (12, 24) or (day.month == 1 and day.day <= 3):
        return False
    return not -2 <= (day - easter(day.year)).days <= 1


def easter(year: int) -> dt.date:
    """Easter Sunday (anonymous Gregorian algorithm, Nature 1876; Meeus, Astronomical Algorithms, chapter 8)."""
    century, rest = divmod(year, 100)
    moon = (19 * (year % 19) + century - century // 4 - (century - (century + 8) // 25 + 1) // 3 + 15) % 30
    week = (32 + 2 * (century % 4) + 2 * (rest // 4) - moon - rest % 4) % 7
    shift = (year % 19 + 11 * moon + 22 * week) // 451
    month, day = divmod(moon + week - 7 * shift + 114, 31)
    return dt.date(year, month, day + 1)


def plan_products(options: SampleOptions, horizon: int) -> list[Product]:
    """The products of a sample with price changes and promotions planned for ``horizon`` days from the start."""
    return [_product(options, number, _kind(number), horizon) for number in range(options.products)]


def expected(products: list[Product], options: SampleOptions, number: int) -> dict[str, float]:
    """Expected units per product code on day ``number``; empty when the shop is closed."""
    day = options.start + dt.timedelta(days=number)
    if not is_open(day):
        return {}
    means = {product.code: product.mean(number, day.weekday()) for product in products}
    return {code: mean for code, mean in means.items() if mean > 0}


def _kind(number: int) -> Kind:
    """Of 20 products 5 are intermittent, 2 new, 2 discontinued; the rest sells most days."""
    place = number % 20
    if place in {3, 7, 10, 14, 18}:
        return "intermittent"
    if place in {5, 12}:
        return "new"
    return "discontinued" if place in {9, 16} else "regular"


def _product(options: SampleOptions, number: int, kind: Kind, horizon: int) -> Product:
    """Draw one product; draws that depend on the horizon come last so that a longer one only adds to them."""
    rng = np.random.default_rng([options.seed, 1, number])
    code = f"{20000 + number * 13}{'ABP'[number % 3] if number % 6 == 1 else ''}"
    level = float(np.clip(rng.lognormal(2.5, 0.55), 3, 60))
    chance = float(rng.uniform(0.12, 0.3)) if kind == "intermittent" else 1.0
    season = (float(rng.uniform(0.1, 0.35)), float(rng.uniform(75, 130)), float(rng.uniform(0, 130)))
    sharpness = float(rng.uniform(0.7, 1.5))
    price_cents = int(np.clip(rng.lognormal(5.3, 0.7), 29, 4995))
    turn = number // 20 * 8 + number % 20  # lives begin and end on days of their own, spread over the sample
    first_day = 24 + turn * 2 % 60 if kind == "new" else 0
    last_day = 34 + turn * 2 % 60 if kind == "discontinued" else None
    changes = _renewals(np.random.default_rng([options.seed, 2, number]), 45, horizon)
    steps = np.random.default_rng([options.seed, 3, number]).uniform(0.85, 1.2, size=max(1, len(changes)))
    return Product(
        code=code,
        description=_description(number),
        kind=kind,
        level=INTERMITTENT_SIZE * chance if kind == "intermittent" else level,
        sharpness=sharpness,
        season=season if kind != "intermittent" else (0.2, *season[1:]),
        price_cents=price_cents,
        price_changes=tuple((day, float(step)) for day, step in zip(changes, steps, strict=False)),
        promotions=() if kind == "intermittent" else _promotion_weeks(options, number, horizon),
        first_day=first_day,
        last_day=last_day,
        chance=chance,
    )


def _renewals(rng: np.random.Generator, mean_gap: float, horizon: int) -> list[int]:
    """Day numbers of events that are at least a week and on average ``mean_gap`` days apart."""
    days: list[int] = []
    at = 0.0
    while True:
        at += 7 + rng.exponential(mean_gap - 7)
        if at >= horizon:
            return days
        days.append(int(at))


def _promotion_weeks(options: SampleOptions, number: int, horizon: int) -> tuple[int, ...]:
    """The Fridays on which a product's promotions begin: about one in eight, at least a week after the one before."""
    rng = np.random.default_rng([options.seed, 4, number])
    first_friday = (FRIDAY - options.start.weekday()) % 7
    weeks: list[int] = []
    for week in range(first_friday, horizon, 7):
        if rng.random() < 0.12 and (not weeks or week - weeks[-1] > PROMOTION_DAYS):
            weeks.append(week)
    return tuple(weeks)


def _description(number: int) -> str:
    """A name in the shop's style; a few hold a comma, a quote, a line end or letters beyond ASCII."""
    words = (COLOURS[number % len(COLOURS)], MATERIALS[number // 3 % len(MATERIALS)], THINGS[number % len(THINGS)])
    plain = " ".join(words)
    return {
        4: f"{plain}, SET OF 6",
        11: f'{words[2]} 7" SINGLE SIZE',
        15: f"CAFÉ {plain}",
        19: f"{plain}\nGIFT WRAPPED",
    }.get(number % 20, plain)
