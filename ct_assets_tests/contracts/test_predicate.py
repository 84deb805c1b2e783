"""The expression language: what it reads, what it refuses, and that its logic is SQL's (SQLite as the oracle)."""

from __future__ import annotations

import sqlite3

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.contracts.model import Column, DatasetSchema
from ct_assets.contracts.predicate import PredicateError, parse, rows_counted_by
from ct_assets.ingest.expressions import Compiler

KINDS = {"a": "number", "b": "number", "s": "text", "f": "boolean", "t": "timestamp"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = 's'", "compares a number with a text"),
        ("aa = 1", "did you mean 'a'?"),
        ("a = NULL", "IS NULL"),
        ("a", None),
        ("a +", "expected a value"),
        ("(a = 1", "expected )"),
        ("a = 1; DROP TABLE x", "cannot read"),
        ("a = 1 OR __import__('os')", "no function"),
        ("LENGHT(s) = 1", "did you mean 'LENGTH'?"),
        ("s LIKE a", "quoted pattern"),
        ("a IN ()", "expected a value"),
        ("f < TRUE", "does not order"),
        ("CAST(s AS DATE) = DATE '2011-01-01'", "timestamp column"),
        ("t = DATE '2011-13-01'", "is no date"),
        ("NOT " * 3 + "(" * 70 + "a = 1" + ")" * 70, "nested deeper"),
        ("a = 1 AND " * 900 + "a = 1", "longer than"),
    ],
)
def test_what_is_refused(text: str, reason: str | None) -> None:
    if reason is None:
        assert parse(text, KINDS).kind == "number"
        return
    with pytest.raises(PredicateError, match=reason.replace("?", r"\?").replace(")", r"\)")):
        parse(text, KINDS)


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("SELECT COUNT(*) FROM ${table} WHERE a = 1", "a = 1"),
        ("select count(1) from Air_Quality where DataValue <= 0;", "DataValue <= 0"),
        ("SELECT COUNT(*) FROM t WHERE a = 1 GROUP BY b", "a = 1 GROUP BY b"),
        ("SELECT a FROM t", None),
        ("DELETE FROM t", None),
    ],
)
def test_counting_queries(query: str, where: str | None) -> None:
    assert rows_counted_by(query) == where


NUMBERS = st.sampled_from(
    ["a", "b", "0", "1", "2.5", "-1", "a + b", "a * 2", "b - 1", "ABS(a)", "COALESCE(a, 7)", "LENGTH(s)"]
)
TEXTS = st.sampled_from(["s", "'C1'", "'x'", "UPPER(s)", "LOWER(s)", "TRIM(s)"])
SIMPLE = (
    st.tuples(NUMBERS, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), NUMBERS).map(lambda t: " ".join(t))
    | st.tuples(TEXTS, st.sampled_from(["=", "<>", "<", ">="]), TEXTS).map(lambda t: " ".join(t))
    | st.sampled_from(
        [
            "s LIKE 'C%'",
            "s LIKE '_1'",
            "s NOT LIKE '%x'",
            "a IN (1, 2)",
            "s NOT IN ('x', 'C1')",
            "a BETWEEN 0 AND 2",
            "a NOT BETWEEN b AND 2",
        ]
    )
    | st.sampled_from(["a IS NULL", "s IS NOT NULL", "b IS NULL"])
)
TREES = st.recursive(
    SIMPLE,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | inner.map(lambda t: f"NOT ({t})")
    ),
    max_leaves=6,
)
ROW = st.tuples(
    st.none() | st.integers(-3, 3),
    st.none() | st.integers(-3, 3),
    st.none() | st.sampled_from(["C1", "x", "c1", " x", "1"]),
)


@settings(max_examples=300, deadline=None)
@given(text=TREES, rows=st.lists(ROW, min_size=1, max_size=8))
def test_three_valued_logic_is_that_of_sql(text: str, rows: list[tuple[int | None, int | None, str | None]]) -> None:
    schema = DatasetSchema("t", (Column("a", "integer"), Column("b", "integer"), Column("s")))
    frame = pl.DataFrame(rows, schema={"a": pl.Int64, "b": pl.Int64, "s": pl.String}, orient="row")
    ours = frame.with_columns(Compiler(schema, None).expression(parse(text, KINDS)).alias("x"))["x"].to_list()
    with sqlite3.connect(":memory:") as db:
        db.execute("PRAGMA case_sensitive_like = ON")
        db.execute("CREATE TABLE t (a INTEGER, b INTEGER, s TEXT)")
        db.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        theirs = [None if v is None else bool(v) for (v,) in db.execute(f"SELECT {text} FROM t ORDER BY rowid")]
    db.close()
    assert ours == theirs
