"""Binary COPY: what is encoded column-wise must come back from PostgreSQL as the very same values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ct_assets.adapters.postgres.copy import SIGNATURE, TRAILER, CopyColumn, copy_order, encode

DECLARED = {
    "big": ("bigint", pl.Int64),
    "mid": ("integer", pl.Int64),
    "small": ("smallint", pl.Int16),
    "text": ("text", pl.String),
    "money": ("numeric(18,4)", pl.Decimal(18, 4)),
    "wide": ("numeric(38,9)", pl.Decimal(38, 9)),
    "whole": ("numeric(38,0)", pl.Decimal(38, 0)),
    "flag": ("boolean", pl.Boolean),
    "day": ("date", pl.Date),
    "at": ("timestamptz", pl.Datetime("us", "UTC")),
    "local": ("timestamp", pl.Datetime("us")),
    "real": ("double precision", pl.Float64),
    "words": ("text[]", pl.List(pl.String)),
}
_TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=40)
_WORDS = st.lists(st.sampled_from(["zero_quantity", "wrong_day", "a.b", "é"]), max_size=3)


def _decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    top = 10**precision - 1
    return st.integers(-top, top).map(lambda i: Decimal(f"{i}E-{scale}"))  # exact: scaleb rounds to 28 digits


VALUES = {
    "big": st.integers(-(2**63), 2**63 - 1),
    "mid": st.integers(-(2**31), 2**31 - 1),
    "small": st.integers(-(2**15), 2**15 - 1),
    "text": _TEXT,
    "money": _decimals(18, 4) | _decimals(6, 2),
    "wide": _decimals(38, 9) | _decimals(9, 9),
    "whole": _decimals(38, 0) | _decimals(5, 0),
    "flag": st.booleans(),
    "day": st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31)),
    "at": st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30), timezones=st.just(dt.UTC)),
    "local": st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30)),
    "real": st.floats(allow_nan=False),
    "words": _WORDS,
}


@pytest.fixture(scope="module")
def conn(pg_url_module: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(pg_url_module, autocommit=True, prepare_threshold=None) as conn:
        conn.execute("set timezone = 'UTC'")
        yield conn


def _round_trip(conn: psycopg.Connection, frame: pl.DataFrame, columns: list[CopyColumn]) -> list[tuple]:
    ordered = copy_order(columns)
    conn.execute("drop table if exists t")
    conn.execute(("create table t (" + ", ".join(f'"{c.name}" {c.postgres_type}' for c in columns) + ")").encode())
    names = ", ".join(f'"{c.name}"' for c in ordered)
    with conn.cursor().copy(f"copy t ({names}) from stdin (format binary)".encode()) as out:
        out.write(SIGNATURE)
        out.write(encode(frame, ordered))
        out.write(TRAILER)
    return conn.execute("select * from t").fetchall()


@pytest.mark.parametrize("required", [True, False])
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_type_comes_back(conn: psycopg.Connection, required: bool, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(DECLARED)), min_size=1, max_size=6, unique=True))
    size = data.draw(st.integers(1, 8))
    rows = {}
    for name in names:
        values = VALUES[name] if required else st.none() | VALUES[name]
        rows[name] = data.draw(st.lists(values, min_size=size, max_size=size))
    frame = pl.DataFrame([pl.Series(n, rows[n], DECLARED[n][1], strict=True) for n in names])
    columns = [CopyColumn(n, DECLARED[n][0], required) for n in names]
    assert _round_trip(conn, frame, columns) == list(zip(*(rows[n] for n in names), strict=True))


def test_floats_that_are_no_numbers(conn: psycopg.Connection) -> None:
    frame = pl.DataFrame({"real": [float("nan"), float("inf"), float("-inf"), -0.0]})
    found = [row[0] for row in _round_trip(conn, frame, [CopyColumn("real", "double precision", True)])]
    assert [str(value) for value in found] == ["nan", "inf", "-inf", "-0.0"]


def test_slices_of_a_larger_frame(conn: psycopg.Connection) -> None:
    """Arrow buffers of a slice begin in the middle: offsets must be honoured in every column."""
    count = 1000
    frame = pl.DataFrame(
        {
            "big": list(range(count)),
            "text": [None if i % 3 == 0 else "x" * (i % 5) for i in range(count)],
            "money": pl.Series([Decimal(i).scaleb(-2) for i in range(count)], dtype=pl.Decimal(18, 2)),
            "mid": [None if i % 7 == 0 else i for i in range(count)],
        }
    )
    part = frame.slice(501, 333)
    columns = [
        CopyColumn("big", "bigint", True),
        CopyColumn("text", "text"),
        CopyColumn("money", "numeric", True),
        CopyColumn("mid", "integer"),
    ]
    assert _round_trip(conn, part, columns) == part.rows()


def test_a_list_that_is_absent_is_null(conn: psycopg.Connection) -> None:
    frame = pl.DataFrame({"words": [["a", "b"], None, [], ["a", "b"]]})
    assert _round_trip(conn, frame, [CopyColumn("words", "text[]")]) == [(["a", "b"],), (None,), ([],), (["a", "b"],)]


def test_chunks_of_one_copy_with_and_without_absent_values(conn: psycopg.Connection) -> None:
    """Values that may be absent stand in another piece of the row in a chunk where none is: the order must be the same."""
    columns = copy_order(
        [
            CopyColumn("text", "text"),
            CopyColumn("flag", "boolean"),
            CopyColumn("big", "bigint", True),
            CopyColumn("at", "date"),
        ]
    )
    assert [c.name for c in columns] == ["big", "flag", "at", "text"]
    schema = {"text": pl.String, "flag": pl.Boolean, "big": pl.Int64, "at": pl.Date}
    day = dt.date(2011, 3, 1)
    chunks = [[("a", True, 1, day)], [("b", None, 2, day), (None, True, 3, day)], [("c", False, 4, None)]]
    conn.execute("drop table if exists t")
    conn.execute("create table t (text text, flag boolean, big bigint, at date)")
    with conn.cursor().copy("copy t (big, flag, at, text) from stdin (format binary)") as out:
        out.write(SIGNATURE)
        for rows in chunks:
            out.write(encode(pl.DataFrame(rows, schema=schema, orient="row"), columns))
        out.write(TRAILER)
    assert conn.execute("select * from t order by big").fetchall() == [row for rows in chunks for row in rows]


def test_no_rows_are_no_bytes() -> None:
    frame = pl.DataFrame({"big": []}, schema={"big": pl.Int64})
    assert bytes(encode(frame, [CopyColumn("big", "bigint", True)])) == b""


def test_a_null_in_a_required_column_is_refused() -> None:
    with pytest.raises(ValueError, match="'big' is required but 1 values are absent"):
        encode(pl.DataFrame({"big": [1, None]}), [CopyColumn("big", "bigint", True)])


def test_a_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit integer"):
        encode(pl.DataFrame({"mid": [2**31]}), [CopyColumn("mid", "integer", True)])
    with pytest.raises(ValueError, match="is bigint but holds float64"):
        encode(pl.DataFrame({"mid": [1.5]}), [CopyColumn("mid", "bigint", True)])


_LENGTHS = (0, 1, 4, 7, 8, 9, 11, 12, 13, 40)  # around what a view holds in place, with and without a field's length


@pytest.mark.parametrize("longest", [8, 12, 40])
@pytest.mark.parametrize("cut", ["whole", "filtered", "sliced", "in chunks"])
def test_texts_of_any_length_from_any_frame(conn: psycopg.Connection, longest: int, cut: str) -> None:
    texts = [("é" + "abcdefghij" * 4)[:n] for n in _LENGTHS if n <= longest]
    rows = [(i, a, b) for i, (a, b) in enumerate((a, b) for a in [*texts, None] for b in [None, *texts])]
    frame = pl.DataFrame(rows, schema={"small": pl.Int16, "one": pl.String, "two": pl.String}, orient="row")
    if cut == "filtered":
        frame, rows = frame.filter(pl.col("small") % 3 == 1), [row for row in rows if row[0] % 3 == 1]
    elif cut == "sliced":
        frame, rows = frame[5:-3], rows[5:-3]
    elif cut == "in chunks":
        frame = pl.concat([frame[:7], frame[7:]], rechunk=False)
    columns = [CopyColumn("small", "smallint", True), CopyColumn("one", "text"), CopyColumn("two", "varchar")]
    assert _round_trip(conn, frame, columns) == rows


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", ["a", None]),
        ("smallint", [1, 2]),
        ("boolean", [True, False]),
        ("numeric(18,4)", [Decimal("1.5"), None]),
    ],
)
def test_a_table_of_one_column(conn: psycopg.Connection, kind: str, values: list) -> None:
    frame = pl.DataFrame({"only": values}, schema_overrides={"only": pl.Decimal(18, 4)} if "numeric" in kind else None)
    columns = [CopyColumn("only", kind, None not in values)]
    assert _round_trip(conn, frame, columns) == [(value,) for value in values]
