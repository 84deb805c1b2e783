"""Repeats of rows and keys, exact across blocks, beyond memory, and for fingerprints that share a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.ingest.duplicates import Fingerprints, Seen, fingerprints
from ct_assets_tests.ingest.judging import contract, judge


def collapse(tmp_path: Path, policy: str = "collapse") -> object:
    custom = f"    customProperties: [{{property: onExactDuplicate, value: {policy}}}]\n"
    return contract(tmp_path, "{name: a}\n{name: b, logicalType: number, physicalType: 'decimal(9,2)'}", custom)


@pytest.mark.parametrize("chunk", [4, 12, 1 << 20])
@pytest.mark.parametrize(
    ("policy", "rows", "reasons"),
    [
        ("keep", {"read": 5, "good": 5, "quarantined": 0, "duplicates": 0}, {}),
        ("collapse", {"read": 5, "good": 3, "quarantined": 0, "duplicates": 2}, {}),
        ("quarantine", {"read": 5, "good": 3, "quarantined": 2, "duplicates": 0}, {"duplicate_row": 2}),
    ],
)
def test_policies(policy: str, rows: dict[str, int], reasons: dict[str, int], chunk: int, tmp_path: Path) -> None:
    judged = judge("a,b\nx,1.5\ny,1.5\nx,1.50\n,\nx,1.5\n", collapse(tmp_path, policy), chunk_bytes=chunk)  # type: ignore[arg-type]
    assert judged.verdict.rows == rows
    assert judged.verdict.reasons == reasons
    if policy == "collapse":
        assert judged.good["_line"].to_list() == [2, 3, 5]


def test_a_composite_key_and_a_quarantined_row_that_claims_nothing(tmp_path: Path) -> None:
    schema = contract(
        tmp_path,
        "{name: a, primaryKey: true, primaryKeyPosition: 1}\n{name: b, primaryKey: true}\n{name: c, enum: [ok]}",
    )
    judged = judge("a,b,c\n1,1,bad\n1,1,ok\n1,2,ok\n1,1,ok\n", schema, chunk_bytes=8)
    assert judged.reasons == {2: ["c.enum"], 5: ["primary_key"]}


@settings(max_examples=200, deadline=None)
@given(
    blocks=st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=12), min_size=1, max_size=8),
    spill=st.sampled_from([1, 3, 10_000]),
    fan=st.sampled_from([2, 8]),
)
def test_first_is_that_of_a_python_set(blocks: list[list[tuple[int, int]]], spill: int, fan: int) -> None:
    """Few unlike words, so that many fingerprints share ``low`` and differ in ``high``; spilled to disk early."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ct_assets.ingest.duplicates.SPILL_ROWS", spill)
        patch.setattr("ct_assets.ingest.duplicates.SPARSE", 2)
        patch.setattr("ct_assets.ingest.duplicates.FAN", fan)
        patch.setattr("ct_assets.ingest.duplicates.BLOOM_BITS", 10)
        patch.setattr("ct_assets.ingest.duplicates._SHIFT", np.uint64(54))
        ours, theirs = Seen(), set()
        for block in blocks:
            low = np.array([a * 0x2000000000000001 for a, _ in block], np.uint64)
            high = np.array([b for _, b in block], np.uint64)
            want = []
            for pair in block:
                want.append(pair not in theirs)
                theirs.add(pair)
            assert ours.first(Fingerprints(low, high)).tolist() == want


def test_many_keys_stay_exact_and_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ct_assets.ingest.duplicates.SPILL_ROWS", 20_000)
    rng = np.random.default_rng(3)
    ours, theirs = Seen(), set()
    for _ in range(12):
        keys = rng.integers(0, 200_000, 10_000)
        want = np.ones(len(keys), bool)
        for i, key in enumerate(keys.tolist()):
            want[i] = key not in theirs
            theirs.add(key)
        assert (ours.first(Fingerprints(keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), None)) == want).all()
    assert len(ours._spilled) >= 3, "the test must reach the disk"


def test_runs_of_blocks_become_few_and_nothing_is_forgotten() -> None:
    rng = np.random.default_rng(5)
    ours, theirs = Seen(), set()
    for _ in range(21):
        keys = rng.integers(0, 3_000, 200)
        want = np.ones(len(keys), bool)
        for i, key in enumerate(keys.tolist()):
            want[i] = key not in theirs
            theirs.add(key)
        assert (ours.first(Fingerprints(keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), None)) == want).all()
    assert len(ours._runs) == 2 + 5, "two runs of eight blocks, and the last five blocks"


def test_rows_that_differ_anywhere_have_other_fingerprints() -> None:
    """Neighbouring values, swapped columns, NULL against empty and zero: both words differ for each pair of rows."""
    rows = [
        (a, b, c) for a in (None, 0, 1, 2) for b in (None, 0, 1, 2) for c in (None, "", "a", "b", "a" * 13, "a" * 14)
    ]
    frame = pl.DataFrame(rows, schema={"a": pl.Int64, "b": pl.Int64, "c": pl.String}, orient="row")
    prints = fingerprints(frame, ["a", "b", "c"])
    assert prints.high is not None
    assert len(set(prints.low.tolist())) == len(set(prints.high.tolist())) == len(rows)
    assert set(prints.low.tolist()).isdisjoint(prints.high.tolist())
    again = fingerprints(frame.reverse().rechunk(), ["a", "b", "c"])
    assert again.high is not None
    assert again.low[::-1].tolist() == prints.low.tolist()
    assert again.high[::-1].tolist() == prints.high.tolist()
