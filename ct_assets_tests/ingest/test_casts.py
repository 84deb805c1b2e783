"""Every type's truth table, against oracles written with re, decimal and datetime; fast and slow readers agree with them.

Why: the fast readers work on eight bytes at a time; a wrong bit there would be a silently wrong number.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.contracts.model import Column, DatasetSchema, NumberFormat, Rule
from ct_assets_tests.ingest.judging import Judged, judge

NUMBERLIKE = (
    st.text(alphabet="0123456789.-+ e", max_size=12)
    | st.integers(-(10**20), 10**20).map(str)
    | st.decimals(places=3, min_value=-(10**9), max_value=10**9).map(str)
)
TIMELIKE = st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)).map(
    lambda d: d.isoformat(" ")[:19].rjust(19, "0")
)
BROKEN_TIME = st.tuples(TIMELIKE, st.integers(0, 18), st.sampled_from("0123456789 :-T/")).map(
    lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + 1 :]
)


def read(column: Column, values: list[str]) -> list[Any]:
    """Judge one column beside a key; the value, None where absent, or "bad" where it is quarantined as of the wrong type."""
    schema = DatasetSchema("t", (Column("k"), column), (Rule("bad", "type", (column.name,)),))
    lines = "".join(f'{i},"{value}"\n' for i, value in enumerate(values))
    judged: Judged = judge(f"k,{column.name}\n{lines}", schema)
    found: dict[int, Any] = {int(k): v for k, v in judged.rows}
    assert all(reasons == ["bad"] for reasons in judged.reasons.values())
    return [found.get(i, "bad") for i in range(len(values))]


def want_integer(text: str) -> Any:
    if not text:
        return None
    if not re.fullmatch(r"-?(0|[1-9][0-9]*)", text, re.ASCII) or not -(2**63) <= int(text) < 2**63:
        return "bad"
    return int(text)


def want_decimal(text: str, precision: int, scale: int) -> Any:
    if not text:
        return None
    if not re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", text, re.ASCII):
        return "bad"
    value = Decimal(text)
    fraction = text.partition(".")[2].rstrip("0")
    if len(fraction) > scale or abs(value) >= Decimal(10) ** (precision - scale):
        return "bad"
    return value


def want_timestamp(text: str) -> Any:
    if not text:
        return None
    try:
        return (
            datetime.strptime(text, "%Y-%m-%d %H:%M:%S")
            if re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", text, re.ASCII)
            else "bad"
        )
    except ValueError:
        return "bad"


@settings(max_examples=150, deadline=None)
@given(values=st.lists(NUMBERLIKE, min_size=1, max_size=30))
def test_integers(values: list[str]) -> None:
    assert read(Column("v", "integer"), values) == [want_integer(v) for v in values]


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(NUMBERLIKE, min_size=1, max_size=30),
    size=st.sampled_from([(18, 4), (5, 2), (3, 0), (38, 9), (4, 4), (38, 30)]),
)
def test_decimals_are_exact(values: list[str], size: tuple[int, int]) -> None:
    precision, scale = size
    assert read(Column("v", "decimal", precision, scale), values) == [want_decimal(v, precision, scale) for v in values]


@settings(max_examples=150, deadline=None)
@given(values=st.lists(TIMELIKE | BROKEN_TIME | st.just(""), min_size=1, max_size=30))
def test_timestamps(values: list[str]) -> None:
    assert read(Column("v", "timestamp", formats=("yyyy-MM-dd HH:mm:ss",)), values) == [
        want_timestamp(v) for v in values
    ]


@settings(max_examples=100, deadline=None)
@given(values=st.lists((TIMELIKE | BROKEN_TIME).map(lambda t: t[:10]), min_size=1, max_size=30))
def test_dates(values: list[str]) -> None:
    want = [w if w == "bad" else w.date() for w in (want_timestamp(v + " 00:00:00") for v in values)]
    assert read(Column("v", "date", formats=("yyyy-MM-dd",)), values) == want


LONDON = ZoneInfo("Europe/London")


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(
        st.datetimes(min_value=datetime(1972, 1, 1), max_value=datetime(2037, 12, 31))
        | st.datetimes(min_value=datetime(2011, 3, 26), max_value=datetime(2011, 3, 28))
        | st.datetimes(min_value=datetime(2011, 10, 29), max_value=datetime(2011, 10, 31)),
        min_size=1,
        max_size=20,
    )
)
def test_local_times_become_utc_unless_the_clock_skipped_or_repeated_them(values: list[datetime]) -> None:
    values = [v.replace(microsecond=0) for v in values]
    column = Column("v", "timestamp", formats=("yyyy-MM-dd HH:mm:ss",), time_zone="Europe/London")
    rules = (Rule("gap", "nonexistent_local_time", ("v",)), Rule("twice", "ambiguous_local_time", ("v",)))
    lines = "".join(f"{i},{v:%Y-%m-%d %H:%M:%S}\n" for i, v in enumerate(values))
    judged = judge("k,v\n" + lines, DatasetSchema("t", (Column("k"), column), rules))
    good = {int(k): v for k, v in judged.rows}
    for i, value in enumerate(values):
        early, late = value.replace(tzinfo=LONDON, fold=0), value.replace(tzinfo=LONDON, fold=1)
        exists = early.astimezone(UTC).astimezone(LONDON).replace(tzinfo=None) == value
        if not exists:
            assert judged.reasons[i + 2] == ["gap"]
        elif early.utcoffset() != late.utcoffset():
            assert judged.reasons[i + 2] == ["twice"]
        else:
            assert good[i] == early.astimezone(UTC)


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        (Column("v", "integer"), "-0", 0),
        (Column("v", "integer"), "9223372036854775807", 2**63 - 1),
        (Column("v", "integer"), "9223372036854775808", "bad"),
        (Column("v", "integer"), "007", "bad"),
        (Column("v", "integer", leading_zeros=True), "007", 7),
        (Column("v", "integer"), "+7", "bad"),
        (Column("v", "integer"), " 7", "bad"),
        (Column("v", "integer", transforms=("trim",)), "\u00a07 ", 7),
        (Column("v", "integer"), "７", "bad"),
        (Column("v", "integer", null_tokens=("NA",)), "NA", None),
        (Column("v", "decimal", 10, 2), "1.230", Decimal("1.23")),
        (Column("v", "decimal", 10, 2), "1.234", "bad"),
        (Column("v", "decimal", 10, 2), "1e2", "bad"),
        (Column("v", "decimal", 10, 2), "1,5", "bad"),
        (Column("v", "decimal", 10, 2, number_format=NumberFormat(",", ".", "€")), "1.234,50 €", Decimal("1234.50")),
        (Column("v", "decimal", 10, 2, number_format=NumberFormat(",", ".")), "1.234", Decimal("1234")),
        (Column("v", "decimal", 10, 2, number_format=NumberFormat(",", ".")), "1.23,50", "bad"),
        (Column("v", "decimal", 10, 2, number_format=NumberFormat(",")), "1.5", "bad"),
        (Column("v", "number"), "1e3", 1000.0),
        (Column("v", "number"), "NaN", "bad"),
        (Column("v", "number"), "inf", "bad"),
        (Column("v", "number"), "1e999", "bad"),
        (Column("v", "boolean"), "TRUE", True),
        (Column("v", "boolean"), "1", "bad"),
        (Column("v", "date", formats=("dd/MM/yyyy",)), "03/04/2011", date(2011, 4, 3)),
        (Column("v", "date", formats=("dd/MM/yyyy",)), "2011-04-03", "bad"),
        (Column("v", "date", formats=("yyyy-MM-dd",)), "2011-02-29", "bad"),
        (
            Column("v", "timestamp", formats=("yyyy-MM-dd'T'HH:mm:ssXXX",), time_zone="UTC", offsets=True),
            "2011-01-01T00:00:00+02:00",
            datetime(2010, 12, 31, 22, tzinfo=UTC),
        ),
        (Column("v", "timestamp", formats=("yyyy-MM-dd HH:mm:ss",)), "2011-01-01 24:00:00", "bad"),
        (Column("v", "timestamp", formats=("yyyy-MM-dd HH:mm:ss",)), "2011- 1-04 08:44:00", "bad"),
    ],
)
def test_truth_table(column: Column, text: str, value: Any) -> None:
    assert read(column, [text]) == [value]


@pytest.mark.parametrize(
    ("transforms", "text", "value"),
    [
        (("trim",), "  x ", "x"),
        (("trim",), "\u00a0x\u2003", "x"),
        (("trim",), "   ", None),
        (("trim",), "caf\u00e9 ", "caf\u00e9"),
        (("upper",), "ab\u00e9", "AB\u00c9"),
        (("lower",), "AB", "ab"),
        (("collapseSpaces",), "a  b\tc", "a b c"),
        (("stripTrailingPointZero",), "17850.0", "17850"),
        (("stripTrailingPointZero",), "17850.00", "17850.00"),
        (("stripTrailingPointZero",), ".0", None),
        (("trim", "stripTrailingPointZero"), " 17850.0 ", "17850"),
        (("upper", "trim"), " a ", "A"),
        ((), " x", " x"),
    ],
)
def test_transforms(transforms: tuple[str, ...], text: str, value: str | None) -> None:
    assert read(Column("v", transforms=transforms), [text]) == [value]


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.text(alphabet=" \t\u00a0ab\u00e9.0", max_size=20), min_size=1, max_size=20))
def test_trim_is_that_of_python(values: list[str]) -> None:
    assert read(Column("v", transforms=("trim",)), values) == [v.strip() or None for v in values]
