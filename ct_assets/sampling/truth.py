"""What was planted, as numbers that a right pipeline must reproduce: the oracle beside a sample.

What goes here: totals of planted lines, from the marks the generator left on them. What does not: any reading back of the
files. A test recomputes the same numbers from the bytes with other means, and both must agree.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from decimal import Decimal
from typing import Any

from ct_assets.sampling.demand import Product, SampleOptions
from ct_assets.sampling.lines import Line, SalesDay
from ct_assets.sampling.vocabulary import NOT_PRODUCTS


def file_truth(day: SalesDay, data: bytes) -> dict[str, Any]:
    """What the verdict of one file must say, and what its day must add up to per product.

    ``reasons`` counts lines per broken rule of severity error, ``warnings`` those that only warn (quarantined lines and
    duplicates included: a line counts under every rule it breaks).
    """
    broken = [line for line in day.lines if line.broken]
    duplicates = sum(line.repeats for line in day.lines)
    return {
        "day": day.day.isoformat(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "read": len(day.lines),
        "good": len(day.lines) - len(broken) - duplicates,
        "quarantined": len(broken),
        "duplicates": duplicates,
        "reasons": dict(sorted(Counter(line.broken for line in broken if line.broken).items())),
        "warnings": dict(sorted(Counter(rule for line in day.lines for rule in line.warnings()).items())),
        "daily": daily_truth(day),
        "notes": day.notes,
    }


def daily_truth(day: SalesDay) -> dict[str, dict[str, Any]]:
    """Per product code: ``units``, ``revenue`` (decimal text), ``orders`` and ``units_returned`` of the good lines."""
    totals: dict[str, dict[str, Any]] = {}
    for line in day.lines:
        if line.broken or line.repeats or not _is_product(line):
            continue
        row = totals.setdefault(line.code, {"units": 0, "revenue": Decimal(0), "orders": set(), "units_returned": 0})
        if line.invoice.startswith("C"):
            row["units_returned"] -= line.quantity
        else:
            row["units"] += line.quantity
            row["revenue"] += line.quantity * Decimal(line.price_cents) / 100
            row["orders"].add(line.invoice)
    return {
        code: {**row, "revenue": f"{row['revenue']:.2f}", "orders": len(row["orders"])}
        for code, row in sorted(totals.items())
    }


def sample_truth(
    options: SampleOptions,
    products: list[Product],
    files: dict[str, dict[str, Any]],
    expected: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """The whole of ``truth.json``: options, totals, products and their promotions, expected demand, every file."""
    counted = ("read", "good", "quarantined", "duplicates")
    return {
        "format": 1,
        "options": {
            **{k: getattr(options, k) for k in ("days", "seed", "products", "dirt")},
            "start": options.start.isoformat(),
        },
        "totals": {
            **{name: sum(file[name] for file in files.values()) for name in counted},
            "reasons": dict(sum((Counter(file["reasons"]) for file in files.values()), Counter())),
            "warnings": dict(sum((Counter(file["warnings"]) for file in files.values()), Counter())),
        },
        "products": {product.code: _product_truth(product, options) for product in products},
        "expected": {day: {code: round(mean, 4) for code, mean in means.items()} for day, means in expected.items()},
        "files": files,
    }


def _product_truth(product: Product, options: SampleOptions) -> dict[str, Any]:
    """What makes a product sell as it does, with day numbers turned into dates."""
    import datetime as dt

    def date(number: int) -> str:
        return (options.start + dt.timedelta(days=number)).isoformat()

    return {
        "description": product.description,
        "kind": product.kind,
        "level": round(product.level, 4),
        "price": f"{product.price_cents / 100:.2f}",
        "first_day": date(product.first_day),
        "last_day": None if product.last_day is None else date(product.last_day),
        "price_changes": {date(number): round(factor, 4) for number, factor in product.price_changes},
        "promotions": [date(number) for number in product.promotions],
    }


def _is_product(line: Line) -> bool:
    return not (line.code in NOT_PRODUCTS or line.code.startswith("GIFT_"))
