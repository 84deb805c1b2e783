"""Which cancellation takes back which sale.

What goes here: the matching rule. What does not: what netted units are used for (``panel``).

Rule: a cancellation matches the LATEST earlier sale line, not yet matched, of the same customer, product and
quantity; a guest's cancellation (no customer) matches nothing. "Latest" is chosen because it is local: a match depends
only on rows between the two lines, so rows before a window never change what matches inside it, and rows after a day
never change what was matched by that day.
"""

from __future__ import annotations

import polars as pl

KEY = ["customer_id", "stock_code", "_size"]
COLUMNS = ["day", "_line", "invoice_no", "stock_code", "quantity", "invoice_date", "customer_id"]
"""What :func:`matched_cancellations` needs of the sales lines (products only)."""


def matched_cancellations(lines: pl.DataFrame) -> pl.DataFrame:
    """Pairs of sale and cancellation: ``stock_code, sale_day, cancel_day, units`` (units > 0), one row a pair.

    ``lines`` has :data:`COLUMNS`; a cancellation's ``invoice_no`` begins with C. Lines are ordered by time, a sale
    before a cancellation of the same moment. Algorithm: parentheses. Per key the open sales form a stack; the depth
    is the running sum of +1 and -1 less its running minimum, and a pair shares a depth.
    """
    lines = lines.drop_nulls("customer_id").with_columns(_size=pl.col("quantity").abs())
    is_cancellation = pl.col("invoice_no").str.starts_with("C")
    # only keys that have a cancellation can have a pair: a few per cent of the lines
    keys = lines.filter(is_cancellation).select(KEY).unique()
    events = (
        lines.join(keys, on=KEY, how="semi")
        .with_columns(_cancels=is_cancellation)
        .sort(*KEY, "invoice_date", "_cancels", "day", "_line", maintain_order=True)
        .with_columns(_sum=pl.when("_cancels").then(-1).otherwise(1).cum_sum().over(KEY))
    )
    lowest = pl.min_horizontal(pl.col("_sum").cum_min().over(KEY), pl.lit(0))
    events = events.with_columns(_after=pl.col("_sum") - lowest)
    before = pl.col("_after").shift(1, fill_value=0).over(KEY)
    events = events.with_columns(_depth=pl.when("_cancels").then(before).otherwise(pl.col("_after")))
    paired = events.filter(pl.col("_depth") > 0).with_columns(sale_day=pl.col("day").shift(1).over([*KEY, "_depth"]))
    return paired.filter("_cancels").select("stock_code", "sale_day", cancel_day="day", units=pl.col("_size"))
