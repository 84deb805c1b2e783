"""The files of the kill soak, and what readers must see of them: csv and decimal only.

What goes here: writing deliveries, the oracle, the comparison. What does not: killing (``soak_kill``), features, models
and forecasts (``soak_models``).
"""

from __future__ import annotations

import csv
import datetime as dt
import random
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
LONDON = ZoneInfo("Europe/London")
LARGE_ROWS = 90_000  # about 6 MB: more than one block, so that there is a second batch of rows to die in


def write_file(path: Path, day: dt.date, rows: int, rng: random.Random) -> None:
    """A delivery with cancellations, services, guests, duplicates and at most a tenth of broken lines."""
    with path.open("w", encoding="utf-8", newline="") as out:
        out.write(HEADER + "\n")
        for i in range(rows):
            cancelled, broken = rng.random() < 0.05, rng.random() < 0.03
            quantity = 0 if broken else rng.randint(1, 40) * (-1 if cancelled else 1)
            code = "POST" if rng.random() < 0.02 else str(20_000 + rng.randrange(60))
            line = (
                f"{'C' if cancelled else ''}{536_000 + i // 4},{code},THING {rng.randrange(5)},{quantity},"
                f"{day} {8 + i % 10:02d}:{i % 60:02d}:00,{rng.randrange(1, 2000) / 100},"
                f"{rng.choice(['', '17850.0', '12583.0'])},{rng.choice(['France', 'EIRE'])}\n"
            )
            out.write(line * (2 if rng.random() < 0.01 else 1))


def oracle(path: Path) -> tuple[Counter[tuple], dict[str, tuple], set[int]]:
    """Good rows as a multiset, the day's rollup per product, and the lines in quarantine: csv and decimal only."""
    good: Counter[tuple] = Counter()
    rollup: dict[str, list[Any]] = {}
    bad: set[int] = set()
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        for row in reader:
            quantity, price, invoice = int(row["Quantity"]), Decimal(row["UnitPrice"]), row["InvoiceNo"]
            if quantity == 0:
                bad.add(reader.line_num)
                continue
            when = dt.datetime.fromisoformat(row["InvoiceDate"]).replace(tzinfo=LONDON).astimezone(dt.UTC)
            customer = row["CustomerID"].removesuffix(".0") or None
            key = (invoice, row["StockCode"], row["Description"], quantity, when, price, customer, row["Country"])
            if key in good:
                continue
            good[key] = 1
            if row["StockCode"] != "POST":
                total = rollup.setdefault(row["StockCode"], [0, Decimal(0), set(), 0])
                if invoice.startswith("C"):
                    total[3] -= quantity
                else:
                    total[0] += quantity
                    total[1] += quantity * price
                    total[2].add(invoice)
    return good, {code: (u, r, len(o), back) for code, (u, r, o, back) in rollup.items()}, bad


def compare(conn: psycopg.Connection, current: dict[dt.date, Path]) -> list[str]:
    """Every difference between what readers see and what the oracle makes of the newest file of each day."""
    found = []
    for day, path in sorted(current.items()):
        good, rollup, bad = oracle(path)
        rows = conn.execute(
            "select invoice_no, stock_code, description, quantity, invoice_date, unit_price, customer_id, country"
            " from clean.sales_lines where _day = %s",
            (day,),
        )
        if Counter(rows) != good:
            found.append(f"{day}: lines differ")
        daily = conn.execute(
            "select stock_code, units, revenue, orders, units_returned from clean.daily_product_sales where day = %s",
            (day,),
        )
        if {code: tuple(rest) for code, *rest in daily} != rollup:
            found.append(f"{day}: rollup differs")
        lines = conn.execute("select _line from quarantine.sales_lines where day = %s", (day,))
        if sorted(line for (line,) in lines) != sorted(bad):
            found.append(f"{day}: quarantine differs")
    days = {row[0] for row in conn.execute("select distinct _day from clean.sales_lines")}
    return found + [f"{day}: visible but never delivered" for day in sorted(days - current.keys())]
