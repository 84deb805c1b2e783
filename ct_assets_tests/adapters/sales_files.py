"""Small sales deliveries for tests, with the outcome known by construction.

What goes here: CSV text with the sales contract's header. What does not: assertions.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"


def line(day: dt.date, number: int, *, quantity: int = 2, price: str = "2.50", customer: str = "17850.0") -> str:
    """One good line: invoice, product and time differ by ``number``."""
    return f"{536000 + number},{20000 + number % 7},THING {number % 7},{quantity},{day} 09:{number % 60:02d}:00,{price},{customer},United Kingdom"


def bad_line(day: dt.date, number: int) -> str:
    """One line that breaks ``zero_quantity``."""
    return line(day, number, quantity=0)


def write_day(
    folder: Path, day: dt.date, good: int = 30, bad: int = 1, *, suffix: str = "", price: str = "2.50"
) -> Path:
    """A delivery of ``good`` good lines and ``bad`` broken ones (accepted while bad is at most a tenth)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line(day, i, price=price) for i in range(good)] + [bad_line(day, 900 + i) for i in range(bad)]
    path = folder / f"{day}{suffix}.csv"
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path
