"""The bulk day's counts against a second reading, its determinism, and that PostgreSQL could take its types as they are."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest

from ct_assets.sampling.bulk import CHUNK_ROWS, write_sales_csv
from ct_assets_tests.sampling import oracle

DAY = dt.date(2011, 1, 4)


@pytest.mark.parametrize("rows", [1_000, 20_011, CHUNK_ROWS + 1])
def test_counts_equal_a_second_reading(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "2011-01-04.csv"
    truth = write_sales_csv(path, rows, 5, DAY)
    found = oracle.judge(path.read_bytes(), DAY)
    assert {"rows": found["read"], **{k: found[k] for k in ("good", "quarantined", "duplicates", "reasons")}} == {
        "rows": rows, "good": truth.good, "quarantined": truth.quarantined, "duplicates": truth.duplicates, "reasons": truth.reasons,
    }  # fmt: skip
    assert truth.bytes == path.stat().st_size
    assert 0.005 * rows < truth.quarantined < 0.05 * rows


def test_a_duplicate_has_its_twin_in_another_chunk(tmp_path: Path) -> None:
    path = tmp_path / "2011-01-04.csv"
    truth = write_sales_csv(path, CHUNK_ROWS + 5_000, 5, DAY)
    rows = oracle.read(path.read_bytes())
    first = {tuple(row.values()) for row in rows[:CHUNK_ROWS]}
    across = sum(tuple(row.values()) in first for row in rows[CHUNK_ROWS:])
    assert across == 5  # 0.1 % of the last chunk
    assert truth.duplicates == across + 240


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_sales_csv(tmp_path / name, 3_000, seed, DAY)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_every_value_casts_to_its_type(tmp_path: Path) -> None:
    """A bare typed COPY of the same bytes is the bench's yardstick, so rules are broken but types are not."""
    path = tmp_path / "2011-01-04.csv"
    write_sales_csv(path, 20_000, 9, DAY)
    rows = oracle.read(path.read_bytes())
    assert all(isinstance(Decimal(row["UnitPrice"]), Decimal) and int(row["Quantity"]) is not None for row in rows)
    assert {dt.datetime.fromisoformat(row["InvoiceDate"]).date() for row in rows} == {DAY, DAY - dt.timedelta(days=1)}
    assert any("\n" in row["Description"] for row in rows)
    assert any(row["StockCode"] != row["StockCode"].upper() for row in rows)


def test_too_small_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows=999"):
        write_sales_csv(tmp_path / "x.csv", 999, 1, DAY)
