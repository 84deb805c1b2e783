"""A second reading of sample files, with csv and Decimal only: what a right verdict and rollup must be.

What goes here: the sales rules of design/interfaces recomputed from bytes. What does not: any code of the project.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections import Counter
from decimal import Decimal
from typing import Any

NOT_PRODUCTS = {"POST", "DOT", "M", "D", "C2", "S", "B", "PADS", "CRUK", "BANK CHARGES", "AMAZONFEE"}


def read(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))


def broken_rules(row: dict[str, str], day: dt.date) -> list[str]:
    quantity, cancelled = int(row["Quantity"]), row["InvoiceNo"].strip().startswith("C")
    rules = {
        "zero_quantity": quantity == 0,
        "negative_quantity_without_cancellation": quantity < 0 and not cancelled,
        "positive_quantity_on_cancellation": quantity > 0 and cancelled,
        "negative_price": Decimal(row["UnitPrice"]) < 0,
        "wrong_day": row["InvoiceDate"][:10] != day.isoformat(),
    }
    return [rule for rule, broken in rules.items() if broken]


def judge(data: bytes, day: dt.date) -> dict[str, Any]:
    """Counts, reasons, warnings and daily totals of one file."""
    rows = read(data)
    bad = [broken_rules(row, day) for row in rows]
    good = list(dict.fromkeys(_cleaned(row) for row, rules in zip(rows, bad, strict=True) if not rules))
    quarantined = sum(map(bool, bad))
    return {
        "read": len(rows),
        "good": len(good),
        "quarantined": quarantined,
        "duplicates": len(rows) - quarantined - len(good),
        "reasons": dict(Counter(rule for rules in bad for rule in rules)),
        "warnings": {
            name: count
            for name, count in (
                ("zero_price", sum(Decimal(row["UnitPrice"]) == 0 for row in rows)),
                ("description_absent", sum(not row["Description"].strip() for row in rows)),
            )
            if count
        },
        "daily": _daily(good),
    }


def _cleaned(row: dict[str, str]) -> tuple[Any, ...]:
    return (
        row["InvoiceNo"].strip(),
        row["StockCode"].strip().upper(),
        row["Description"].strip(),
        int(row["Quantity"]),
        row["InvoiceDate"],
        Decimal(row["UnitPrice"]),
        row["CustomerID"].removesuffix(".0"),
        row["Country"].strip(),
    )


def _daily(good: list[tuple[Any, ...]]) -> dict[str, dict[str, Any]]:
    totals: dict[str, dict[str, Any]] = {}
    for invoice, code, _, quantity, _, price, *_ in good:
        if code in NOT_PRODUCTS or code.startswith("GIFT_"):
            continue
        row = totals.setdefault(code, {"units": 0, "revenue": Decimal(0), "orders": set(), "units_returned": 0})
        if invoice.startswith("C"):
            row["units_returned"] -= quantity
            continue
        row["units"] += quantity
        row["revenue"] += quantity * price
        row["orders"].add(invoice)
    return {c: {**row, "revenue": f"{row['revenue']:.2f}", "orders": len(row["orders"])} for c, row in totals.items()}
