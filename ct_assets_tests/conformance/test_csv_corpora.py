"""Odd CSV files of others: what is accepted equals Python's strict csv reader, most of what it takes is accepted, none crashes."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import pytest

from ct_assets_tests.ingest.judging import Judged, judge, texts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpora(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("corpora")
    for archive in sorted((shared_data / "csv_corpora").glob("*.tar.xz")):
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    return sorted(p for p in folder.rglob("*") if p.is_file() and ".csv" in p.name)


def strictly(data: bytes) -> list[list[str]] | None:
    limit = csv.field_size_limit(1 << 30)
    try:
        return [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True) if row]
    except (csv.Error, UnicodeDecodeError):
        return None
    finally:
        csv.field_size_limit(limit)


def table(judged: Judged) -> list[list[str]]:
    return [[value or "" for value in row] for row in judged.rows]


def test_accepted_tables_equal_the_strict_reader_and_most_are_accepted(corpora: list[Path]) -> None:
    taken = accepted = whole = 0
    wrong = []
    for path in corpora:
        data = path.read_bytes()
        rows = strictly(data) or []
        names = list(dict.fromkeys(rows[0])) if rows else ["a"]
        judged = judge(data, texts(*names), name=path.name)
        usable = len(rows) > 1 and len(names) == len(rows[0])
        taken += usable
        if judged.verdict.decision == "rejected":
            continue
        accepted += usable
        if judged.verdict.decision == "accepted":
            whole += 1
            if not rows or table(judged) != rows[1:]:
                wrong.append(path.name)
        elif rows:
            rest = iter(rows[1:])
            if not all(any(mine == theirs for theirs in rest) for mine in table(judged)):
                wrong.append(path.name)
    print(
        f"{len(corpora)} files, {taken} taken by the strict reader, {accepted} of them accepted, {whole} without quarantine"
    )
    assert len(corpora) > 350
    assert wrong == []
    assert accepted >= 0.6 * taken


def test_csv_spectrum_gives_its_own_expected_json(corpora: list[Path]) -> None:
    checked = 0
    for path in (p for p in corpora if "csv_spectrum" in p.parts):
        expected = json.loads((path.parent.parent / "json" / f"{path.stem}.json").read_text(encoding="utf-8"))
        if path.name == "newlines_crlf.csv":  # this copy of the corpus lost its carriage returns
            assert b"\r" not in path.read_bytes()
            expected = [{k: v.replace("\r\n", "\n") for k, v in row.items()} for row in expected]
        with path.open(encoding="utf-8", newline="") as stream:
            names = next(csv.reader(stream))
        judged = judge(path.read_bytes(), texts(*names), name=path.name)
        rows = judged.good.drop("_line").fill_null("").to_dicts()
        assert rows == expected, path.name
        checked += 1
    assert checked == 11
