"""One large day of sales lines, written fast: the input of load benches and of tests of bounded memory.

What goes here: volume in the exact column layout of the sales contract, with a few per cent of dirt whose counts are
exact. What does not: demand worth learning (``sales``).

Every value casts to its PostgreSQL type (rules are broken, types are not), so that a bare typed ``COPY`` takes the same
bytes: that is the yardstick of the load bench. About 64 bytes a row.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ct_assets.sampling.vocabulary import NOT_PRODUCTS, SALES_COLUMNS, THINGS

PRODUCTS = 4_000
LINES_PER_INVOICE = 12
CHUNK_ROWS = 240_000  # a multiple of LINES_PER_INVOICE: an invoice never spans two chunks
DUPLICATES_PER_CHUNK = 240  # 0.1 %

# The broken lines, as shares of all lines: the few per cent that must not cost the fast path its speed.
SHARE_NEGATIVE = 0.010
SHARE_WRONG_DAY = 0.004
SHARE_NEGATIVE_PRICE = 0.004
SHARE_ZERO_QUANTITY = 0.002


@dataclass(frozen=True)
class BulkTruth:
    """What was written: counts that a verdict of the file must reproduce exactly."""

    rows: int
    good: int
    quarantined: int
    duplicates: int
    reasons: dict[str, int]
    bytes: int


def write_sales_csv(path: Path, rows: int, seed: int, day: dt.date) -> BulkTruth:
    """Write ``rows`` sales lines of ``day`` to ``path`` (which ``day`` should name, for the contract's delivery day).

    The same arguments give the same bytes. Memory stays at one chunk of 240,000 rows. 5 M rows are about 320 MB.
    Raises ValueError when ``rows`` is below 1,000 (the shares would round to nothing).
    """
    if rows < 1_000:
        raise ValueError(f"rows={rows}: a bulk file has at least 1,000 rows; `ct sample sales` writes small days")
    path = Path(path)
    pools = _pools(np.random.default_rng(seed), day)
    counts: Counter[str] = Counter()
    duplicates = written = 0
    with path.open("wb") as out:
        out.write((",".join(SALES_COLUMNS) + "\n").encode())
        for chunk, broken, repeated in _chunks(rows, seed, pools):
            chunk.write_csv(out, include_header=False, quote_style="necessary", null_value="")
            counts.update(broken)
            duplicates += repeated
            written += chunk.height
    quarantined = counts.total()  # each broken line breaks one rule
    return BulkTruth(
        written, written - quarantined - duplicates, quarantined, duplicates, dict(counts), path.stat().st_size
    )


def _pools(rng: np.random.Generator, day: dt.date) -> dict[str, pl.Series]:
    """The distinct texts of each column; lines pick from them by index, which is what makes writing fast."""
    number = np.arange(PRODUCTS)
    codes = [f"{10000 + n * 17}{'ABC'[n % 3] if n % 9 == 0 else ''}" for n in number]
    codes[: len(NOT_PRODUCTS)] = NOT_PRODUCTS
    things = [f"{THINGS[n % len(THINGS)][:9]} {n % 100}" for n in number]
    for n in range(0, PRODUCTS, 50):  # 2 % need quoting, some of them span two physical lines, some are not ASCII
        things[n] = (f"{things[n]}, SET", f'5" {things[n]}', f"{things[n]}\nGIFT", f"CAFÉ {things[n]}", "")[n // 50 % 5]
    things = [f"{text} " if n % 7 == 3 else text for n, text in enumerate(things)]
    cents = np.maximum(rng.lognormal(5.2, 0.9, PRODUCTS).astype(int), 5)
    cents[3::400] = 0  # a zero price warns
    prices = [f"{c / 100:.2f}" for c in cents]
    midnight = dt.datetime.combine(day, dt.time())
    seconds = [midnight + dt.timedelta(hours=8, seconds=s) for s in range(12 * 3600)]
    yesterday = [midnight - dt.timedelta(hours=h) for h in range(1, 13)]
    countries = ["EIRE", "France", "Germany", "Spain", "UK", "UK", "UK", "Italy"]
    return {
        "StockCode": pl.Series(codes + [code.lower() for code in codes]),
        "Description": pl.Series([text or None for text in things]),
        "UnitPrice": pl.Series(
            prices + [f"-{price}" if c else "-1.00" for price, c in zip(prices, cents, strict=True)]
        ),
        "InvoiceDate": pl.Series([t.strftime("%Y-%m-%d %H:%M:%S") for t in seconds + yesterday]),
        "CustomerID": pl.Series([None, *(f"{12000 + n}.0" for n in range(6_000))]),
        "Country": pl.Series(countries),
    }


def _chunks(rows: int, seed: int, pools: dict[str, pl.Series]) -> Iterator[tuple[pl.DataFrame, dict[str, int], int]]:
    """Chunks of lines with what was broken and repeated in each; the last one also repeats lines of the first."""
    first: pl.DataFrame | None = None
    for number, start in enumerate(range(0, rows, CHUNK_ROWS)):
        height = min(CHUNK_ROWS, rows - start)
        repeats = height * DUPLICATES_PER_CHUNK // CHUNK_ROWS
        rng = np.random.default_rng([seed, number])
        fresh, good, broken = _lines(rng, height - repeats, start // LINES_PER_INVOICE, pools)
        kept = fresh.filter(pl.Series(good))
        first = kept.head(5_000) if first is None else first
        # The last chunk repeats lines of the first: a twin 300 MB away is what a chunk-wise deduplication misses.
        source = first if start and start + height >= rows else kept
        yield pl.concat([fresh, source[rng.choice(source.height, size=repeats, replace=False)]]), broken, repeats


def _lines(
    rng: np.random.Generator, height: int, first_invoice: int, pools: dict[str, pl.Series]
) -> tuple[pl.DataFrame, np.ndarray, dict[str, int]]:
    """``height`` distinct lines, which of them are good, and how many break which rule.

    Distinct by construction: within an invoice the product index moves on with every line, so that the only
    duplicates of a file are those added on purpose.
    """
    line = np.arange(height)
    invoice = first_invoice + line // LINES_PER_INVOICE
    per_invoice = invoice - first_invoice
    invoices = int(per_invoice[-1]) + 1
    cancelled = (rng.random(invoices) < 0.02)[per_invoice]
    start = rng.integers(PRODUCTS, size=invoices)[per_invoice]
    product = (start + (line % LINES_PER_INVOICE) * 331) % PRODUCTS
    quantity = rng.integers(1, 25, size=height)
    second = rng.integers(12 * 3600, size=invoices)[per_invoice]
    customer = np.where(rng.random(invoices) < 0.25, 0, rng.integers(1, 6_001, size=invoices))[per_invoice]
    country = rng.integers(len(pools["Country"]), size=invoices)[per_invoice]
    lower = (rng.random(height) < 0.005) * PRODUCTS

    which = rng.choice(5, size=height, p=_shares())
    quantity = np.where(cancelled, -quantity, quantity)
    # On a cancellation a negative quantity is right, so that line breaks no rule.
    quantity = np.where(which == 1, -np.abs(quantity), np.where(which == 4, 0, quantity))
    broken = {
        "negative_quantity_without_cancellation": int(((which == 1) & ~cancelled).sum()),
        "wrong_day": int((which == 2).sum()),
        "negative_price": int((which == 3).sum()),
        "zero_quantity": int((which == 4).sum()),
    }
    good = (which == 0) | ((which == 1) & cancelled)
    second = np.where(which == 2, 12 * 3600 + second % 12, second)
    frame = pl.DataFrame({"number": 500_000 + invoice, "cancelled": cancelled}).select(
        InvoiceNo=pl.when("cancelled")
        .then(pl.lit("C") + pl.col("number").cast(pl.String))
        .otherwise(pl.col("number").cast(pl.String)),
        StockCode=pools["StockCode"].gather(product + lower),
        Description=pools["Description"].gather(product),
        Quantity=pl.Series(quantity),
        InvoiceDate=pools["InvoiceDate"].gather(second),
        UnitPrice=pools["UnitPrice"].gather(product + (which == 3) * PRODUCTS),
        CustomerID=pools["CustomerID"].gather(customer),
        Country=pools["Country"].gather(country),
    )
    return frame, good, broken


def _shares() -> list[float]:
    """Shares of good lines, then of each kind of broken line, in the order that ``_lines`` uses."""
    bad = [SHARE_NEGATIVE, SHARE_WRONG_DAY, SHARE_NEGATIVE_PRICE, SHARE_ZERO_QUANTITY]
    return [1 - sum(bad), *bad]
