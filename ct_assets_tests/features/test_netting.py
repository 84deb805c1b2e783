"""Which cancellation takes back which sale: against a stack in plain Python, and the two properties windows rely on."""

from __future__ import annotations

import datetime as dt

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.features.netting import COLUMNS, matched_cancellations
from ct_assets_tests.features.shop import LINES

START = dt.date(2011, 1, 1)
Row = tuple[int, int, bool, str, int, str | None]  # day, minute, cancels, code, size, customer

rows = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.integers(0, 3),
        st.booleans(),
        st.sampled_from(["A", "B"]),
        st.integers(1, 2),
        st.sampled_from(["c1", "c2", None]),
    ),
    max_size=40,
)


def frame(events: list[Row]) -> pl.DataFrame:
    made = []
    for line, (day, minute, cancels, code, size, customer) in enumerate(events):
        when = dt.datetime.combine(START, dt.time(9, minute), dt.UTC) + dt.timedelta(days=day)
        number = f"{'C' if cancels else ''}{500000 + line}"
        made.append((when.date(), line, number, code, -size if cancels else size, when, customer))
    return pl.DataFrame(made, schema=LINES, orient="row").select(COLUMNS)


def oracle(events: list[Row]) -> list[tuple[str, int, int, int]]:
    """(code, sale day, cancel day, units): every cancellation takes the newest open sale of its key."""
    stacks: dict[tuple[str, str, int], list[int]] = {}
    found = []
    order = sorted(range(len(events)), key=lambda i: (events[i][0], events[i][1], events[i][2], i))
    for i in order:
        day, _, cancels, code, size, customer = events[i]
        if customer is None:
            continue
        stack = stacks.setdefault((customer, code, size), [])
        if not cancels:
            stack.append(day)
        elif stack:
            found.append((code, stack.pop(), day, size))
    return sorted(found)


def matched(lines: pl.DataFrame) -> list[tuple[str, int, int, int]]:
    return sorted(
        (code, (sale - START).days, (cancel - START).days, units)
        for code, sale, cancel, units in matched_cancellations(lines).iter_rows()
    )


@given(rows)
@settings(max_examples=200, deadline=None)
def test_pairs_are_those_of_a_stack_in_plain_python(events: list[Row]) -> None:
    assert matched(frame(events)) == oracle(events)


@given(rows, st.integers(0, 12))
@settings(max_examples=100, deadline=None)
def test_rows_after_a_day_do_not_change_what_was_matched_by_it(events: list[Row], day: int) -> None:
    early = [event for event in events if event[0] <= day]
    assert matched(frame(early)) == [pair for pair in matched(frame(events)) if pair[2] <= day]


@given(rows, st.integers(0, 12))
@settings(max_examples=100, deadline=None)
def test_rows_before_a_window_do_not_change_what_matches_inside_it(events: list[Row], day: int) -> None:
    late = [event for event in events if event[0] >= day]
    assert matched(frame(late)) == [pair for pair in matched(frame(events)) if pair[1] >= day]


def test_a_huge_order_cancelled_sixteen_minutes_later_is_one_pair() -> None:
    events: list[Row] = [(0, 0, False, "A", 74_215, "12346"), (0, 16, True, "A", 74_215, "12346")]
    assert matched(frame(events)) == [("A", 0, 0, 74_215)]


def test_guests_other_quantities_and_earlier_cancellations_match_nothing() -> None:
    events: list[Row] = [
        (1, 0, False, "A", 5, None),
        (2, 0, True, "A", 5, None),  # a guest: whose sale was it?
        (1, 0, False, "B", 5, "c1"),
        (2, 0, True, "B", 4, "c1"),  # part of it
        (1, 0, True, "A", 1, "c2"),  # before the sale
        (2, 0, False, "A", 1, "c2"),
    ]
    assert matched(frame(events)) == []
