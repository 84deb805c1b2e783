"""A day of sales as order lines: demand is drawn around its mean and carried by invoices.

What goes here: the line, the day, the draw, how lines become CSV bytes. What does not: what is expected (``demand``), what
is wrong with lines (``dirt``), totals (``truth``).
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from dataclasses import dataclass, field

import numpy as np

from ct_assets.sampling.demand import INTERMITTENT_SIZE, Product
from ct_assets.sampling.vocabulary import COUNTRIES, COUNTRY_SHARES, SALES_COLUMNS

DISPERSION = 6.0  # gamma-Poisson: variance = mean + mean^2 / 6, so that one week alone is a poor guide
PACKS = (1, 2, 3, 4, 6, 12, 24)
GUEST_SHARE = 0.25
CUSTOMERS = 800

ZERO_PRICE = "zero_price"
DESCRIPTION_ABSENT = "description_absent"


@dataclass(slots=True)
class Line:
    """One order line as planted; ``broken`` names the rule that quarantines it, ``repeats`` marks an exact duplicate."""

    invoice: str
    code: str
    description: str
    quantity: int
    when: dt.datetime
    price_cents: int
    customer: str
    country: str
    broken: str | None = None
    repeats: bool = False
    written_code: str | None = None  # as the file spells it, when that differs from what the contract stores
    written_description: str | None = None

    def warnings(self) -> list[str]:
        """The rules of severity `warn` that the line breaks; it stays good for all that."""
        text = self.description if self.written_description is None else self.written_description
        found = {ZERO_PRICE: self.price_cents == 0, DESCRIPTION_ABSENT: not text.strip()}
        return [rule for rule, broken in found.items() if broken]

    def cells(self) -> tuple[str, ...]:
        """The line's texts in the order of the sales columns."""
        price = (
            f"{self.price_cents / 100:.2f}".removesuffix("0")
            if self.price_cents % 100
            else f"{self.price_cents // 100}.0"
        )
        return (
            self.invoice,
            self.code if self.written_code is None else self.written_code,
            self.description if self.written_description is None else self.written_description,
            str(self.quantity),
            self.when.strftime("%Y-%m-%d %H:%M:%S"),
            price,
            f"{self.customer}.0" if self.customer else "",
            self.country,
        )


@dataclass
class SalesDay:
    """The lines of one delivery, with what was done to them."""

    day: dt.date
    lines: list[Line]
    notes: list[dict[str, object]] = field(default_factory=list)

    def csv_bytes(self) -> bytes:
        """The delivery as a file: UTF-8, comma, RFC 4180 quoting where needed, LF."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(SALES_COLUMNS)
        writer.writerows(line.cells() for line in self.lines)
        return text.getvalue().encode("utf-8")


def draw_day(products: list[Product], means: dict[str, float], number: int, day: dt.date, seed: int) -> SalesDay:
    """Draw the clean lines of an open day: every unit sold belongs to one line, a code comes once in an invoice."""
    rng = np.random.default_rng([seed, 5, number])
    sold = [(product, _units(rng, product, means[product.code])) for product in products if product.code in means]
    packs = [(product, pack) for product, units in sold for pack in _split(rng, units)]
    invoices = _invoices(rng, max(12, len(packs) // 8, _most_packs(packs)), number, day)
    lines: list[Line] = []
    order = rng.permutation(len(invoices))
    for at, (product, pack) in enumerate(packs):
        # Packs of a product are neighbours here, so walking a permutation gives each another invoice.
        invoice, when, customer, country = invoices[order[at % len(invoices)]]
        lines.append(
            Line(invoice, product.code, product.description, pack, when, product.price(number), customer, country)
        )
    lines.sort(key=lambda line: (line.when, line.invoice))
    return SalesDay(day, lines)


def _units(rng: np.random.Generator, product: Product, mean: float) -> int:
    """Units sold: gamma-Poisson, or for intermittent products nothing on most days and a pack or more on some."""
    if product.kind != "intermittent":
        return int(rng.poisson(rng.gamma(DISPERSION, mean / DISPERSION)))
    happens = rng.random() < min(1.0, mean / INTERMITTENT_SIZE)
    size = int(rng.integers(INTERMITTENT_SIZE // 2, INTERMITTENT_SIZE * 3 // 2 + 1))
    return size if happens else 0


def _split(rng: np.random.Generator, units: int) -> list[int]:
    """Units as the packs that customers buy."""
    packs: list[int] = []
    while units > 0:
        pack = min(units, PACKS[int(rng.integers(2 if units < 12 else 3, 5 if units < 40 else len(PACKS)))])
        packs.append(pack)
        units -= pack
    return packs


def _most_packs(packs: list[tuple[Product, int]]) -> int:
    """The most packs of one product: with fewer invoices a code would come twice in one."""
    counts: dict[str, int] = {}
    for product, _ in packs:
        counts[product.code] = counts.get(product.code, 0) + 1
    return max(counts.values(), default=1)


def _invoices(
    rng: np.random.Generator, count: int, number: int, day: dt.date
) -> list[tuple[str, dt.datetime, str, str]]:
    """Invoices of a day: number, minute, customer (empty = guest) and country."""
    minutes = np.sort(rng.integers(8 * 60, 17 * 60, size=count))
    guests = rng.random(count) < GUEST_SHARE
    customers = rng.integers(CUSTOMERS, size=count)
    countries = rng.choice(len(COUNTRIES), size=count, p=COUNTRY_SHARES)
    midnight = dt.datetime.combine(day, dt.time())
    return [
        (
            str(536_000 + number * 1_000 + i),
            midnight + dt.timedelta(minutes=int(minutes[i])),
            "" if guests[i] else str(12_346 + int(customers[i])),
            COUNTRIES[int(countries[i])],
        )
        for i in range(count)
    ]
