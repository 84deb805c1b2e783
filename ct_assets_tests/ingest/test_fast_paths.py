"""Each fast path against a plain one: the same answer on hostile input, whichever way was taken.

Why: these paths were added for speed alone. Each has a threshold below which it is never reached by small examples, so
the thresholds are moved here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ct_assets.contracts.model import Column, DatasetSchema, Rule
from ct_assets.ingest import zones
from ct_assets.ingest.records import scan
from ct_assets.ingest.structure import PAD, Shape
from ct_assets.ingest.text import is_utf8
from ct_assets_tests.ingest.judging import judge, texts
from ct_assets_tests.ingest.test_front_door_against_python_csv import HOSTILE, strictly, table

PIECES = st.lists(
    st.sampled_from(
        [b"a", b",", b"\n", b'"', b"\r\n", b"\r", b"\t", b"\x00", b'""', b'"x,y"', b',"a\nb",', b"1,2\n", b'"q""q",5\n']
    ),
    max_size=60,
)


def found(raw: bytes, columns: int, delimiter: int, final: bool, ways: dict[str, Any]) -> Any:
    with mock.patch.multiple("ct_assets.ingest.structure", **ways):
        records = scan(raw + bytes(PAD), Shape(columns, delimiter), final)
    broken = [(b.begin.tolist(), b.finish.tolist(), b.reason) for b in records.broken]
    fields = [a.tolist() for a in (records.starts, records.ends, records.begin, records.finish, records.line)]
    return fields, broken, records.escaped, records.consumed, records.lines, records.unterminated


@settings(max_examples=300, deadline=None)
@given(raw=PIECES.map(b"".join), columns=st.integers(1, 3), delimiter=st.sampled_from([44, 9]), final=st.booleans())
@example(raw=b'"a\nb",1\n"",""\r\n', columns=2, delimiter=44, final=True)
def test_quotes_are_told_apart_the_same_by_range_and_by_spot(
    raw: bytes, columns: int, delimiter: int, final: bool
) -> None:
    by_range = found(raw, columns, delimiter, final, {"DENSE": 0.0})
    assert found(raw, columns, delimiter, final, {"DENSE": 1e9}) == by_range
    assert found(raw, columns, delimiter, final, {"DENSE": 0.0, "PIECE": 3}) == by_range
    assert found(raw, columns, delimiter, final, {"DENSE": 1e9, "PIECE": 3}) == by_range


@pytest.mark.parametrize("ways", [{"DENSE": 0.0, "PIECE": 5}, {"DENSE": 1e9, "PIECE": 5}])
@settings(max_examples=200, deadline=None)
@given(body=HOSTILE, chunk=st.sampled_from([3, 40, 1 << 20]))
def test_either_way_agrees_with_the_strict_reader(ways: dict[str, Any], body: str, chunk: int) -> None:
    text = "p,q\n" + body
    with mock.patch.multiple("ct_assets.ingest.structure", **ways):
        judged = judge(text, texts("p", "q"), chunk_bytes=chunk)
    if judged.verdict.decision == "accepted":
        want = strictly(text)
        assert want is not None
        assert table(judged) == want[1:]


CODES = st.text(alphabet="azAZ`{@[09_ \x7féßĳ", max_size=16)


@settings(max_examples=200, deadline=None)
@given(codes=st.lists(CODES, min_size=1, max_size=30), mostly=st.booleans())
@example(codes=["abcdefgh", "abcdefghi", "abcdefghijkl", "abcdefghijklm", "éa", ""], mostly=True)
def test_upper_is_that_of_python(codes: list[str], mostly: bool) -> None:
    """``mostly``: enough plain codes that the others are few, which is when the views are changed in place."""
    codes = codes + ["plain1"] * (len(codes) * 5 * mostly)
    schema = DatasetSchema("t", (Column("n"), Column("code", transforms=("upper",))))
    judged = judge("n,code\n" + "".join(f'1,"{code}"\n' for code in codes), schema)
    kept = dict(zip(judged.good["_line"], judged.good["code"], strict=True))
    for line, code in enumerate(codes, 2):
        assert kept[line] == (code.upper() or None)


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=40) | st.text(max_size=20).map(str.encode), begin=st.integers(0, 5))
@example(raw=b"abcdefgh\xed\xa0\x80", begin=0)
@example(raw=b"abcdefgh\xc0\xaf", begin=3)
@example(raw=b"\xf4\x90\x80\x80", begin=0)
def test_proof_of_utf8_is_that_of_python(raw: bytes, begin: int) -> None:
    begin = min(begin, len(raw))
    try:
        raw[begin:].decode("utf-8")
    except UnicodeDecodeError:
        assert not is_utf8(raw + bytes(PAD), begin, len(raw))
    else:
        assert is_utf8(raw + bytes(PAD), begin, len(raw))


@settings(max_examples=100, deadline=None)
@given(
    hours=st.lists(st.integers(-2_000, 2_000), min_size=1, max_size=40),
    middle=st.sampled_from([1_301_187_600, 1_319_936_400]),
)
def test_days_by_table_and_by_sorting_give_the_same_utc(hours: list[int], middle: int) -> None:
    """Around both turns of the clock in London in 2011; the oracle is zoneinfo, one row at a time."""
    local = np.array([(middle + 1_800 * h) * 1_000_000 for h in hours], np.int64)
    table_way = zones.to_utc(local.copy(), "Europe/London")
    with mock.patch.object(zones, "MAX_TABLE_DAYS", 0):
        sorted_way = zones.to_utc(local.copy(), "Europe/London")
    for i, micros in enumerate(local.tolist()):
        naive = datetime(1970, 1, 1) + timedelta(microseconds=micros)
        folds = {naive.replace(tzinfo=ZoneInfo("Europe/London"), fold=f).utcoffset() for f in (0, 1)}
        for way in (table_way, sorted_way):
            unsure = (way.skipped is not None and way.skipped[i]) or (way.repeated is not None and way.repeated[i])
            assert bool(unsure) == (len(folds) == 2)
            if not unsure:
                want = naive.replace(tzinfo=ZoneInfo("Europe/London")).astimezone(UTC).replace(tzinfo=None)
                assert way.utc[i] == (want - datetime(1970, 1, 1)) // timedelta(microseconds=1)


@settings(max_examples=50, deadline=None)
@given(kinds=st.lists(st.integers(0, 5), min_size=1, max_size=25))
def test_reasons_of_many_rules_are_those_of_few(kinds: list[int]) -> None:
    """A word holds 64 rules; beyond that rows are told apart by several words. Both name the same rules."""
    body = "a,b\n" + "".join(("ok,1\n", "XX,1\n", "ok,x\n", "XX,x\n", "ok,\n", ",1\n")[k] for k in kinds)
    columns = (Column("a"), Column("b", type="integer"))
    real = (
        Rule("b.type", "type", ("b",)),
        Rule("a.enum", "enum", ("a",), limit=("ok",)),
        Rule("b.required", "required", ("b",)),
    )
    silent = tuple(Rule(f"a.short{i}", "maxLength", ("a",), limit=100) for i in range(70))
    few = judge(body, DatasetSchema("t", columns, rules=real))
    many = judge(body, DatasetSchema("t", columns, rules=(*silent, *real)))
    assert few.reasons == many.reasons
    assert len(few.reasons) == sum(k in (1, 2, 3, 4) for k in kinds)
    assert judge(body, DatasetSchema("t", columns, rules=real), chunk_bytes=8).reasons == few.reasons, "block by block"


def test_quarantined_rows_do_not_keep_their_block_in_memory() -> None:
    """Callers collect quarantine for the whole file: views into the blocks made 10 M rows take 1,146 MB instead of 331."""
    body = "p,q\n" + "a good row of some length,1\n" * 5_000 + "a bad row that is longer than a view,1,2\n"
    judged = judge(body, texts("p", "q"))
    raw = judged.quarantined["_raw"]
    assert raw.to_list() == ["a bad row that is longer than a view,1,2"]
    held = sum(buffer.size for buffer in raw.to_arrow(compat_level=pl.CompatLevel.newest()).buffers() if buffer)
    assert held < 1_000
