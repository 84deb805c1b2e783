"""A small shop for tests: lines of sales and the daily table made from them in plain Python.

What goes here: made-up input. What does not: expectations about features.
"""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass

import polars as pl

START = dt.date(2011, 1, 3)  # a Monday
CLOSED_WEEKDAY = 5
DAILY = {
    "day": pl.Date,
    "stock_code": pl.String,
    "units": pl.Int64,
    "revenue": pl.Float64,
    "orders": pl.Int64,
    "units_returned": pl.Int64,
}
LINES = {
    "day": pl.Date,
    "_line": pl.Int64,
    "invoice_no": pl.String,
    "stock_code": pl.String,
    "quantity": pl.Int64,
    "invoice_date": pl.Datetime("us", "UTC"),
    "customer_id": pl.String,
}
"""Columns of the two published tables that features and labels are made from."""


@dataclass(frozen=True)
class Line:
    """One line of a product; a negative quantity is a cancellation."""

    day: dt.date
    code: str
    quantity: int
    price: float
    customer: str | None


def made(seed: int, days: int, products: int = 6) -> list[Line]:
    """Random lines: some products seldom, some from a later day on, some cancellations of real sales, Saturdays closed."""
    rng = random.Random(seed)
    lines: list[Line] = []
    for number in range(days):
        day = START + dt.timedelta(days=number)
        if day.weekday() == CLOSED_WEEKDAY:
            continue
        lines.append(Line(day, "P0", rng.randint(1, 9), 1.5, "c0"))  # so that every open day has a row
        for product in range(1, products):
            if number < product * 9 or rng.random() > 1 / product:
                continue
            line = Line(
                day, f"P{product}", rng.randint(1, 30), rng.choice([1.25, 2.0, 2.5]), rng.choice(["c1", "c2", None])
            )
            lines.append(line)
        if lines and rng.random() < 0.5:
            old = rng.choice(lines[-40:])
            if old.quantity > 0:
                lines.append(Line(day, old.code, -old.quantity, old.price, old.customer))
    return lines


def tables(lines: list[Line]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(daily product sales, sales lines) as the published tables hold them."""
    daily: dict[tuple[dt.date, str], list[float]] = {}
    rows = []
    for number, line in enumerate(lines):
        cancels = line.quantity < 0
        totals = daily.setdefault((line.day, line.code), [0, 0.0, 0, 0])
        if cancels:
            totals[3] -= line.quantity
        else:
            totals[0] += line.quantity
            totals[1] += line.quantity * line.price
            totals[2] += 1
        when = dt.datetime.combine(line.day, dt.time(9), dt.UTC) + dt.timedelta(seconds=number % 30_000)
        invoice = f"{'C' if cancels else ''}{500_000 + number}"
        rows.append((line.day, number, invoice, line.code, line.quantity, when, line.customer))
    totals = [(*key, *values) for key, values in sorted(daily.items())]
    return pl.DataFrame(totals, schema=DAILY, orient="row"), pl.DataFrame(rows, schema=LINES, orient="row")


def net_units(lines: list[Line], known_on: dt.date) -> dict[tuple[dt.date, str], int]:
    """Units per day and product less the cancellations known by the end of ``known_on``, in plain Python."""
    stacks: dict[tuple[str, str, int], list[dt.date]] = {}
    net: dict[tuple[dt.date, str], int] = {}
    for line in lines:  # in order of time by construction
        if line.quantity > 0:
            net[line.day, line.code] = net.get((line.day, line.code), 0) + line.quantity
        if line.customer is None or line.day > known_on:
            continue
        stack = stacks.setdefault((line.customer, line.code, abs(line.quantity)), [])
        if line.quantity > 0:
            stack.append(line.day)
        elif stack:
            net[stack.pop(), line.code] += line.quantity
    return net
