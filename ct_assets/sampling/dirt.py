"""What is wrong, or only looks wrong, with real sales lines: the kinds of dirt of the UCI Online Retail files.

What goes here: one function a kind of dirt, each noting on the line what a right verdict must find. What does not: the
clean lines (``lines``), whole deliveries gone wrong (``deliveries``).

Shares follow the real year where a kind is common, and are raised where it would not show up in a few thousand lines.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from dataclasses import replace

import numpy as np

from ct_assets.sampling.lines import Line, SalesDay
from ct_assets.sampling.vocabulary import GIFT_VOUCHERS, NOT_PRODUCT_DESCRIPTIONS, NOT_PRODUCTS

NEGATIVE_WITHOUT_CANCELLATION = "negative_quantity_without_cancellation"
POSITIVE_CANCELLATION = "positive_quantity_on_cancellation"
ZERO_QUANTITY = "zero_quantity"
NEGATIVE_PRICE = "negative_price"
WRONG_DAY = "wrong_day"

CANCELLED_LATER = 0.02
UNTRIMMED = 0.2
LOWER_CASE = 0.01
EXACT_DUPLICATES = 0.012
NOT_A_PRODUCT = 0.008
MAX_BROKEN = 0.04  # far below the contract's budget of 10 %, however small the day
OUTLIER_EVERY_DAYS = 13
ADJUSTMENT_EVERY_DAYS = 23


class Dirt:
    """Puts dirt on one day after the other; remembers sales so that later cancellations match one."""

    def __init__(self, seed: int) -> None:
        """``seed`` is the sample's; each day draws from a generator of its own."""
        self._seed = seed
        self._returnable: deque[Line] = deque(maxlen=2_000)

    def apply(self, clean: SalesDay, number: int) -> SalesDay:
        """The day with dirt on it; ``clean`` is left as it was."""
        rng = np.random.default_rng([self._seed, 6, number])
        day = SalesDay(clean.day, [replace(line) for line in clean.lines])
        sold = list(day.lines)
        day.lines += self._cancellations(rng, clean.day, number)
        if number % OUTLIER_EVERY_DAYS == OUTLIER_EVERY_DAYS - 2:
            day.lines += _outlier(rng, day, number)
        day.lines += _not_products(rng, sold)
        day.lines += _broken(rng, sold, number)
        _warnings(rng, sold)
        _spelling(rng, day.lines)
        self._returnable.extend(line for line in sold if line.customer)  # a guest cannot be matched
        day.lines.sort(key=lambda line: line.when)  # stable: a duplicate comes after its twin only if added afterwards
        _duplicate(rng, day.lines)
        return day

    def _cancellations(self, rng: np.random.Generator, day: dt.date, number: int) -> list[Line]:
        """Returns of earlier sales (same customer, code and quantity), and now and then one that matches nothing."""
        count = min(int(rng.poisson(CANCELLED_LATER * min(len(self._returnable), 250))), len(self._returnable))
        picked = rng.choice(len(self._returnable), size=count, replace=False).tolist() if count else []
        lines: list[Line] = []
        for position, index in enumerate(sorted(picked, reverse=True)):
            sale = self._returnable[index]
            del self._returnable[index]  # a sale is cancelled once
            lines.append(_cancel(sale, f"C{_invoice(number, 900 + position % 60)}", _time(rng, day)))
        if lines and rng.random() < 0.3:
            stranger = replace(
                lines[-1], invoice=f"C{_invoice(number, 965)}", customer="12345", quantity=-7, when=_time(rng, day)
            )
            lines.append(stranger)
        return lines


def _cancel(sale: Line, invoice: str, when: dt.datetime) -> Line:
    """The cancellation of a sale line."""
    return replace(
        sale, invoice=invoice, quantity=-sale.quantity, when=when, written_code=None, written_description=None
    )


def _outlier(rng: np.random.Generator, day: SalesDay, number: int) -> list[Line]:
    """An absurd order and its cancellation some minutes later (one real one: 74,215 units, cancelled after 16 minutes)."""
    model = day.lines[int(rng.integers(len(day.lines)))]
    quantity = int(rng.integers(4_000, 75_000))
    when = dt.datetime.combine(day.day, dt.time(10, int(rng.integers(0, 40))))
    order = replace(
        model, invoice=_invoice(number, 970), quantity=quantity, when=when, customer="12346", country="United Kingdom"
    )
    undo = _cancel(order, f"C{_invoice(number, 971)}", when + dt.timedelta(minutes=int(rng.integers(5, 18))))
    day.notes.append({"kind": "cancelled_outlier", "code": order.code, "quantity": quantity, "invoice": order.invoice})
    return [order, undo]


def _not_products(rng: np.random.Generator, sold: list[Line]) -> list[Line]:
    """Postage, fees, vouchers: good lines that are no products, each once on an existing invoice."""
    codes = (*NOT_PRODUCTS, *GIFT_VOUCHERS)
    invoices = {line.invoice: line for line in sold}
    count = min(int(rng.poisson(NOT_A_PRODUCT * len(sold))), len(invoices))
    heads = [list(invoices.values())[i] for i in rng.choice(len(invoices), size=count, replace=False)]
    lines: list[Line] = []
    for head in heads:
        code = codes[int(rng.integers(len(codes)))]
        lines.append(
            replace(
                head,
                code=code.upper(),
                written_code=code,
                description=NOT_PRODUCT_DESCRIPTIONS[code],
                quantity=1,
                price_cents=int(rng.integers(100, 4_000)),
            )
        )
    return lines


def _broken(rng: np.random.Generator, sold: list[Line], number: int) -> list[Line]:
    """Lines that a right verdict quarantines, each for one rule, on invoices of their own."""
    count = min(int(rng.poisson(0.012 * len(sold))), int(MAX_BROKEN * len(sold)))
    lines = [_break(rng, sold[int(rng.integers(len(sold)))], _invoice(number, 980 + i % 15)) for i in range(count)]
    if number % ADJUSTMENT_EVERY_DAYS == 4 and sold:
        lines += _adjustments(sold[0], number, with_negative=len(sold) > 25)
    return lines


def _break(rng: np.random.Generator, model: Line, invoice: str) -> Line:
    """One broken line: mostly stock write-offs, as in the real year."""
    draw = rng.random()
    if draw < 0.55:
        return replace(
            model, invoice=invoice, quantity=-int(rng.integers(1, 200)), price_cents=0, customer="", description="",
            written_description=("", "damaged", "?", "lost")[int(rng.integers(4))], broken=NEGATIVE_WITHOUT_CANCELLATION,
        )  # fmt: skip
    if draw < 0.7:
        return replace(model, invoice=invoice, quantity=0, broken=ZERO_QUANTITY)
    if draw < 0.85:
        when = model.when - dt.timedelta(days=1 if rng.random() < 0.8 else 31)
        return replace(model, invoice=invoice, when=when, broken=WRONG_DAY)
    return replace(model, invoice=f"C{invoice}", quantity=int(rng.integers(1, 9)), broken=POSITIVE_CANCELLATION)


def _adjustments(model: Line, number: int, *, with_negative: bool) -> list[Line]:
    """Bad debt: invoices `A...`; the real year holds one that is good and two with a negative price."""
    fields = {"code": "B", "description": "Adjust bad debt", "quantity": 1, "price_cents": 1_106_206, "customer": ""}
    good = replace(model, invoice=f"A{_invoice(number, 996)}", **fields)
    bad = replace(good, invoice=f"A{_invoice(number, 997)}", price_cents=-1_106_206, broken=NEGATIVE_PRICE)
    return [good, bad] if with_negative else [good]


def _warnings(rng: np.random.Generator, sold: list[Line]) -> None:
    """Some good lines are free of charge, some have no description: both only warn."""
    draws = rng.random(len(sold))
    for line, draw in zip(sold, draws, strict=True):
        if draw < 0.004:
            line.price_cents = 0
        elif draw < 0.008:
            line.description = ""
            line.written_description = "" if draw < 0.006 else "  "


def _spelling(rng: np.random.Generator, lines: list[Line]) -> None:
    """Untrimmed descriptions and lower-case or untrimmed codes, which the contract mends."""
    draws = rng.random((len(lines), 2))
    for line, (text, code) in zip(lines, draws, strict=True):
        if text < UNTRIMMED and line.description and line.written_description is None:
            line.written_description = f"{line.description} " if text < UNTRIMMED * 0.8 else f"  {line.description}"
        if code < LOWER_CASE and line.written_code is None:
            line.written_code = line.code.lower() if code < LOWER_CASE * 0.7 else f" {line.code}"


def _duplicate(rng: np.random.Generator, lines: list[Line]) -> None:
    """Repeat some good lines further down, every other one spelt differently (equal only after cleaning)."""
    good = [index for index, line in enumerate(lines) if line.broken is None]
    count = int(rng.poisson(EXACT_DUPLICATES * len(good)))
    picked = rng.choice(good, size=min(count, len(good)), replace=False).tolist()
    for index in sorted(picked, reverse=True):  # from the end, so that the positions before it stay right
        twin = replace(lines[index], repeats=True)
        if index % 2 and twin.description:
            twin.written_description = f"{twin.description}   "
        lines.insert(min(len(lines), index + 1 + int(rng.integers(0, 30))), twin)


def _invoice(number: int, slot: int) -> str:
    """An invoice number of day ``number``; the slots from 900 on are kept for dirt."""
    return str(536_000 + number * 1_000 + slot)


def _time(rng: np.random.Generator, day: dt.date) -> dt.datetime:
    """A minute in opening hours."""
    return dt.datetime.combine(day, dt.time(8)) + dt.timedelta(minutes=int(rng.integers(9 * 60)))
