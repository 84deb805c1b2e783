"""Daily sales files with planted demand and planted dirt: `ct sample sales`.

What goes here: the order in which days are made, and the folder that is written. What does not: how demand, lines and dirt
come about (``demand``, ``lines``, ``dirt``).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ct_assets.sampling.demand import SampleOptions, expected, plan_products
from ct_assets.sampling.dirt import Dirt
from ct_assets.sampling.lines import SalesDay, draw_day
from ct_assets.sampling.truth import file_truth, sample_truth

BEYOND_DAYS = 28  # expected demand is told for four weeks after the last file: the oracle of forecasts


def sales_days(options: SampleOptions) -> Iterator[SalesDay]:
    """Every open day from the start on, for ever: a sample is its first ``options.days`` calendar days.

    A day without file (Saturday, holiday) is skipped. The first days do not depend on how many follow.
    """
    dirt = Dirt(options.seed)
    horizon = 0
    products = []
    number = -1
    while True:
        number += 1
        if number >= horizon:
            horizon += 400
            products = plan_products(options, horizon)
        means = expected(products, options, number)
        if not means:
            continue
        clean = draw_day(products, means, number, options.start + dt.timedelta(days=number), options.seed)
        yield dirt.apply(clean, number) if options.dirt else clean


def file_name(day: dt.date) -> str:
    """The name that tells the sales contract the delivery day."""
    return f"{day.isoformat()}.csv"


def open_days_within(options: SampleOptions, days: int | None = None) -> list[SalesDay]:
    """The deliveries of the first ``days`` calendar days (the options' own number when absent)."""
    end = options.start + dt.timedelta(days=options.days if days is None else days)
    found: list[SalesDay] = []
    for day in islice(sales_days(options), options.days if days is None else days):
        if day.day >= end:
            break
        found.append(day)
    return found


def write_sales(out: Path, options: SampleOptions) -> dict[str, Any]:
    """Write `YYYY-MM-DD.csv` for every open day and `truth.json` into ``out`` (made when absent); return the truth."""
    out.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, Any]] = {}
    for day in open_days_within(options):
        data = day.csv_bytes()
        (out / file_name(day.day)).write_bytes(data)
        files[file_name(day.day)] = file_truth(day, data)
    truth = sample_truth(options, plan_products(options, options.days + BEYOND_DAYS), files, _expected(options))
    (out / "truth.json").write_text(json.dumps(truth, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return truth


def _expected(options: SampleOptions) -> dict[str, dict[str, float]]:
    """Expected units per open day and product, for the sample and the four weeks after it."""
    horizon = options.days + BEYOND_DAYS
    products = plan_products(options, horizon)
    days = {(options.start + dt.timedelta(days=n)).isoformat(): expected(products, options, n) for n in range(horizon)}
    return {day: means for day, means in days.items() if means}
