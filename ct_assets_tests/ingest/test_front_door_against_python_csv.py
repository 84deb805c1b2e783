"""Whatever the bytes, what the front door accepts is what Python's strict csv reader reads from them.

Why: every fast CSV reader is lenient somewhere; the proof of structure in ``structure.py`` is only worth something if it
agrees with an independent strict reader on hostile input, in blocks of any size.
"""

from __future__ import annotations

import csv
import io

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ct_assets_tests.ingest.judging import Judged, judge, texts

HOSTILE = st.text(alphabet=st.sampled_from([*list('ab,"\n\r \té€\x00'), ",", '"', "\n", "\n"]), max_size=120)
CELL = st.lists(
    st.sampled_from(["x", "y", ",", '"', "\n", "\r\n", " ", "é", "€", "long enough to leave the view"]), max_size=6
).map("".join)


def strictly(text: str) -> list[list[str]] | None:
    """Python's rows without blank lines; None where it refuses the text."""
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error:
        return None


def table(judged: Judged) -> list[list[str]]:
    return [[value or "" for value in row] for row in judged.rows]


def is_part_of(part: list[list[str]], whole: list[list[str]]) -> bool:
    """In order, with gaps."""
    rest = iter(whole)
    return all(any(row == other for other in rest) for row in part)


@settings(max_examples=600, deadline=None)
@given(body=HOSTILE, chunk=st.sampled_from([1, 2, 3, 7, 64, 1 << 20]))
@example(body='1,"a""b"\n', chunk=1)
@example(body='1,"a\nb"\r\n2,c', chunk=4)
@example(body='x"y,"1\n2,3\n"\n4,5\n', chunk=1 << 20)
@example(body='"a"b,"c\n1,2\n"\n4,5\n', chunk=3)
@example(body='1,2\n"', chunk=1)
def test_accepted_rows_are_those_of_the_strict_reader(body: str, chunk: int) -> None:
    text = "p,q\n" + body
    judged = judge(text, texts("p", "q"), chunk_bytes=chunk)
    want = strictly(text)
    if judged.verdict.decision == "accepted":
        assert want is not None, "accepted what the strict reader refuses"
        assert table(judged) == want[1:]
    elif judged.verdict.decision == "accepted_with_quarantine" and want is not None and "\r" not in text:
        kept = table(judged)
        assert is_part_of(kept, want[1:])
        assert len(want) - 1 - len(kept) <= judged.verdict.quarantined


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=12),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    chunk=st.sampled_from([5, 50, 1 << 20]),
)
def test_what_python_writes_is_accepted_as_it_is(
    rows: list[tuple[str, ...]], end: str, quoting: int, chunk: int
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end, quoting=quoting)
    writer.writerows([("p", "q", "r"), *rows])
    judged = judge(out.getvalue(), texts("p", "q", "r"), chunk_bytes=chunk)
    assert judged.verdict.decision == "accepted", judged.verdict
    assert table(judged) == [list(row) for row in rows]


@settings(max_examples=200, deadline=None)
@given(body=HOSTILE, chunk=st.integers(1, 40))
def test_the_block_size_changes_nothing(body: str, chunk: int) -> None:
    text = "p,q\n" + body
    whole, parts = judge(text, texts("p", "q")), judge(text, texts("p", "q"), chunk_bytes=chunk)
    assert whole.verdict.decision == parts.verdict.decision
    assert whole.rule == parts.rule
    if whole.verdict.rejected is None:
        assert whole.verdict == parts.verdict
        assert whole.good.equals(parts.good)
        assert whole.quarantined.equals(parts.quarantined)


@settings(max_examples=200, deadline=None)
@given(body=HOSTILE)
def test_counts_add_up_and_lines_are_physical(body: str) -> None:
    text = "p,q\n" + body
    judged = judge(text, texts("p", "q"))
    rows = judged.verdict.rows
    if judged.verdict.rejected is None:
        assert rows["read"] == rows["good"] + rows["quarantined"] + rows["duplicates"]
        assert rows["quarantined"] == judged.quarantined.height
        physical = text.encode().split(b"\n")
        for line, raw in judged.quarantined.select("_line", "_raw").iter_rows():
            shown = physical[line - 1].decode().removesuffix("\r").replace("\x00", "␀")
            assert raw.startswith(shown)
    else:
        assert rows["good"] == 0
