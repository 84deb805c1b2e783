"""What was known at the end of a day: against a plain reading of the rule, revision by revision."""

from __future__ import annotations

import datetime as dt

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.features.revisions import REVISION, Revisions, Tables

START = dt.date(2011, 1, 3)
DAYS = [START + dt.timedelta(days=n) for n in range(12)]
# per day: after how many days (counted from its own) each further revision was published; the first counts at once
histories = st.lists(st.lists(st.integers(0, 20), max_size=3), min_size=len(DAYS), max_size=len(DAYS))


def end_of(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC)


def made(history: list[list[int]]) -> tuple[Tables, dict[dt.date, list[tuple[dt.datetime, int]]]]:
    """Tables whose units name the revision, and per day its revisions with the time they became known, in order."""
    known = {
        day: [(end_of(day), n * 10)]
        + [(end_of(day) + dt.timedelta(days=wait, seconds=1), n * 10 + at + 1) for at, wait in enumerate(sorted(waits))]
        for n, (day, waits) in enumerate(zip(DAYS, history, strict=True))
    }
    rows = [(day, "", at + 1, when, number) for day, found in known.items() for at, (when, number) in enumerate(found)]
    schema = {
        "day": pl.Date,
        "part": pl.String,
        "revision": pl.Int64,
        "known_at": pl.Datetime("us", "UTC"),
        REVISION: pl.Int64,
    }
    every = pl.DataFrame(rows, schema=schema, orient="row")
    several = every.filter(pl.len().over("day") > 1)
    daily = every.select("day", REVISION, stock_code=pl.lit("A"), units=pl.col(REVISION))
    lines = every.select("day", REVISION, _line=pl.lit(2), quantity=pl.col(REVISION))
    newest = pl.col(REVISION) == pl.col(REVISION).max().over("day")
    revisions = Revisions(
        several,
        daily.filter(pl.col("day").is_in(several["day"].implode())),
        lines.filter(pl.col("day").is_in(several["day"].implode())),
        {day: end_of(day) for day in DAYS},
    )
    return Tables(daily.filter(newest).drop(REVISION), lines.filter(newest).drop(REVISION), revisions), known


@given(histories, st.integers(0, len(DAYS) - 1), st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_each_day_shows_the_newest_revision_known_by_then(history: list[list[int]], at: int, ahead: int) -> None:
    tables, known = made(history)
    origin = DAYS[at]
    found = tables.as_known(origin, ahead)
    units, quantities = (dict(frame.select("day", column).iter_rows()) for frame, column in (
        (found.daily, "units"), (found.lines, "quantity")))  # fmt: skip
    for day in DAYS:
        if day > origin + dt.timedelta(days=ahead):
            continue
        seen = end_of(origin) + dt.timedelta(days=ahead if day > origin else 0)
        want = [number for when, number in known[day] if when <= seen or number % 10 == 0][-1]
        assert (units[day], quantities[day]) == (want, want), (day, origin)
    assert found.daily.columns == tables.daily.columns


def test_nothing_is_copied_when_nothing_differs() -> None:
    tables, _ = made([[] for _ in DAYS])
    assert tables.as_known(DAYS[5], 7) is tables
    late, _ = made([[1]] + [[] for _ in DAYS[1:]])
    assert late.as_known(DAYS[5], 7) is late  # the correction was known by then
    assert late.as_known(DAYS[0], 7) is not late
    assert Tables(late.daily, late.lines).as_known(DAYS[0]).daily.equals(late.daily)  # the corrected reading
