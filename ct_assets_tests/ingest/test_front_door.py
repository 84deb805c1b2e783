"""The front door's promises, one by one: header by name, blank lines, physical lines, broken records, what rejects."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ct_assets.contracts.model import Column, DatasetSchema, Dialect
from ct_assets_tests.ingest.judging import judge, texts

AB = texts("a", "b")


def test_header_is_matched_by_name_not_by_position() -> None:
    assert judge("b,a\n2,1\n", AB).rows == [("1", "2")]


def test_a_column_that_may_be_absent_is_null_where_it_is_not_there() -> None:
    """Every type, duplicates included; the warning names what it may be called now."""
    formats = {"date": ("yyyy-MM-dd",), "timestamp": ("yyyy-MM-dd HH:mm:ss",)}
    kinds = ("string", "integer", "number", "decimal", "boolean", "date", "timestamp")
    optional = tuple(Column(f"x_{k}", k, scale=2, formats=formats.get(k, ()), may_be_absent=True) for k in kinds)
    schema = DatasetSchema("t", (Column("a"), *optional), on_exact_duplicate="collapse")
    judged = judge("a,x_number,x_decimals\n1,2.5,7\n1,2.5,8\n2,,\n", schema)
    assert judged.rows == [("1", None, None, 2.5, None, None, None, None), ("2", *[None] * 7)]
    assert judged.verdict.duplicates == 1
    assert (
        "no column 'x_decimal' in the header; the nearest in the file is 'x_decimals'; if it was renamed, declare"
        " renamedFrom: [x_decimals]; it may be absent: NULL in every row"
    ) in judged.verdict.warnings
    assert judge("a,x_integer\n1,7\n", schema).rows[0][2] == 7
    assert judge("b,x_integer\n1,7\n", schema).rule == "missing_column", "a may not"
    all_optional = DatasetSchema("t", optional)
    assert judge("b\n1\n", all_optional).rule == "missing_column", "a file of another table"


def test_blank_physical_lines_are_skipped_and_not_read_but_counted_as_lines() -> None:
    judged = judge("\n\r\na,b\n\n1,2\n\r\n\n3,4\n", AB)
    assert judged.good["_line"].to_list() == [5, 8]
    assert judged.verdict.read == 2


def test_line_is_the_physical_line_on_which_a_record_begins() -> None:
    judged = judge('a,b\n"x\ny",2\n3,4\r\n"p\n\n\nq",5\n6,7\n', AB)
    assert judged.good["_line"].to_list() == [2, 4, 5, 9]
    assert judged.rows[2] == ("p\n\n\nq", "5")


def test_a_record_of_wrong_width_counts_once_for_each_physical_line_it_spans() -> None:
    judged = judge('a,b\n1,"x\ny\nz",3\n4,5\n', AB)
    assert judged.verdict.rows == {"read": 4, "good": 1, "quarantined": 3, "duplicates": 0}
    assert judged.quarantined["_line"].to_list() == [2, 3, 4]
    assert judged.quarantined["_raw"].to_list() == ['1,"x', "y", 'z",3']
    assert judged.verdict.reasons == {"field_count": 3}


def test_a_record_that_breaks_quoting_takes_the_lines_it_swallowed_with_it() -> None:
    """Lines that stand inside a quoted field of a broken record must never pass for rows."""
    judged = judge('a,b\nx"y,"1\n2,3\n"\n4,5\n', AB)
    assert judged.rows == [("4", "5")]
    assert judged.reasons == {n: ["broken_quoting"] for n in (2, 3, 4)}


def test_an_unterminated_quote_rejects_the_file_and_names_the_line() -> None:
    judged = judge('a,b\n1,2\n3,"4\n5,6\n', AB)
    assert judged.rule == "unterminated_quote"
    assert judged.verdict.rejected is not None
    assert judged.verdict.rejected.line == 3
    assert judged.verdict.good == 0


def test_a_record_without_end_is_given_up_before_memory_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ct_assets.ingest.frontdoor.MAX_RECORD_BYTES", 1_000)
    judged = judge('a,b\n1,"' + "x" * 5_000 + "\n", AB, chunk_bytes=500)
    assert judged.rule == "record_too_long"


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        ("", "empty_file"),
        ("\n\n", "empty_file"),
        ("a,b\n", "header_only"),
        ("a,b", "header_only"),
        ("a,c\n1,2\n", "missing_column"),
        ("a,b,a\n1,2,3\n", "duplicate_column"),
        ("a,b\n1,2\na,b\n3,4\n", "repeated_header"),
        ('a,b\n1,2\n"a",b\n', "repeated_header"),
        ('a,"b\n', "unterminated_quote"),
        ('a,b"\n1,2\n', "broken_header"),
        ("a,b\r1,2\r", "line_ends"),
    ],
)
def test_what_rejects_a_file(data: str, rule: str) -> None:
    judged = judge(data, AB)
    assert judged.rule == rule
    assert judged.verdict.decision == "rejected"


def test_a_missing_optional_column_rejects_with_the_nearest_name() -> None:
    judged = judge("InvoiceNumber,Qty\n1,2\n", texts("InvoiceNo", "Qty"))
    assert judged.verdict.rejected is not None
    assert "InvoiceNumber" in judged.verdict.rejected.message
    assert "renamedFrom" in judged.verdict.rejected.message


def test_a_declared_old_name_is_taken_with_a_warning() -> None:
    schema = DatasetSchema("t", (Column("a", renamed_from=("old_a",)), Column("b")))
    judged = judge("old_a,b\n1,2\n", schema)
    assert judged.rows == [("1", "2")]
    assert any("old_a" in warning for warning in judged.verdict.warnings)


def test_header_case_is_exact_unless_declared() -> None:
    assert judge("A,b\n1,2\n", AB).rule == "missing_column"
    loose = replace(AB, dialect=Dialect(header_case="insensitive"))
    assert judge("A,b\n1,2\n", loose).rows == [("1", "2")]
    assert judge("a,A,b\n1,2,3\n", loose).rule == "duplicate_column"


def test_an_unknown_column_is_ignored_with_a_warning_unless_the_contract_is_closed() -> None:
    judged = judge("a,new,b\n1,x,2\n", AB)
    assert judged.rows == [("1", "2")]
    assert any("'new'" in warning for warning in judged.verdict.warnings)
    assert judge("a,new,b\n1,x,2\n", replace(AB, closed=True)).rule == "unknown_column"


def test_a_repeated_header_may_be_quarantined_instead() -> None:
    judged = judge("a,b\n1,2\na,b\n3,4\n", replace(AB, on_repeated_header="quarantine"))
    assert judged.rows == [("1", "2"), ("3", "4")]
    assert judged.reasons == {3: ["repeated_header"]}
    assert judged.verdict.read == 3


def test_another_dialect_is_obeyed() -> None:
    schema = replace(AB, dialect=Dialect(delimiter=";", quote="'", encoding="latin-1"))
    assert judge("a;b\n'x;y';caf\u00e9\n".encode("latin-1"), schema).rows == [("x;y", "caf\u00e9")]


def test_utf16_is_read_where_it_is_declared() -> None:
    schema = replace(AB, dialect=Dialect(encoding="utf-16"))
    assert judge("a,b\n1,€\n".encode("utf-16"), schema, chunk_bytes=3).rows == [("1", "€")]


def test_a_tab_may_be_the_delimiter() -> None:
    assert judge("a\tb\n1,\t2\n", replace(AB, dialect=Dialect(delimiter="\t"))).rows == [("1,", "2")]


def test_empty_fields_are_null_quoted_or_not() -> None:
    assert judge('a,b\n,""\n', AB).rows == [(None, None)]


def test_strings_are_kept_as_they_are() -> None:
    assert judge("a,b\n  x ,NA\n", AB).rows == [("  x ", "NA")]


def test_a_digest_of_the_delivered_bytes_is_given_even_when_rejected() -> None:
    import hashlib

    data = b"a,c\n" + b"1,2\n" * 1_000
    assert judge(data, AB, chunk_bytes=64).verdict.sha256 == hashlib.sha256(data).hexdigest()


def test_many_broken_records_stay_affordable() -> None:
    """A fault on every line must not make the scan quadratic: ten times the lines, about ten times the time."""
    import time

    def seconds(n: int) -> float:
        data = "a,b\n" + '1,x"y\n' * n
        best = 9.0
        for _ in range(2):
            started = time.process_time()
            judged = judge(data, AB)
            best = min(best, time.process_time() - started)
        assert judged.verdict.quarantined == n
        return best

    small, large = seconds(400), seconds(4_000)
    assert large < 30 * max(small, 0.01), f"{small:.3f} s, then {large:.3f} s"
