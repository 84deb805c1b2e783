"""Names that a table, its columns or its assets cannot have are refused at their line, with what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_assets.contracts.errors import ContractError
from ct_assets.contracts.names import TABLE, check_publishable, table_name
from ct_assets.contracts.odcs import load_contract

HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: x\nversion: 1.0.0\nschema:\n"
COLUMN = "    properties:\n      - {name: id, logicalType: integer}\n"


def check(tmp_path: Path, body: str) -> str:
    path = tmp_path / "c.odcs.yaml"
    path.write_text(HEAD + body, encoding="utf-8")
    contract = load_contract(path)
    check_publishable(contract, contract.schema())
    return contract.schema().physical_name


@pytest.mark.parametrize(
    ("body", "line", "said", "proposal"),
    [
        ("  - name: My Orders\n" + COLUMN, 6, "name 'My Orders'", "my_orders"),
        ("  - name: orders\n    physicalName: Umsätze-2024\n" + COLUMN, 7, "physicalName 'Umsätze-2024'", "umsaetze_2024"),
        ("  - name: 2024_orders\n" + COLUMN, 6, "'2024_orders'", "t_2024_orders"),
        ("  - name: orders\n" + COLUMN + "      - {name: day, physicalName: _day}\n", 9, "'_day'", "day"),
        ("  - name: orders\n" + COLUMN + "      - {name: a, physicalName: id}\n", 9, "both be 'id'", "another"),
        ("  - name: orders\n" + COLUMN + f"      - {{name: {'x' * 70}}}\n", 9, "63 bytes", "x" * 48),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_published_is_refused_at_its_line(
    body: str, line: int, said: str, proposal: str, tmp_path: Path
) -> None:
    with pytest.raises(ContractError) as caught:
        check(tmp_path, body)
    assert caught.value.line == line
    assert f"c.odcs.yaml:{line}: " in caught.value.message
    assert said in caught.value.message
    assert proposal in (caught.value.hint or "")


def test_ordinary_names_pass(tmp_path: Path) -> None:
    assert (
        check(tmp_path, "  - name: Any Name\n    physicalName: orders\n" + COLUMN + "      - {name: Straße und Ort}\n")
        == "orders"
    )


@given(st.text(max_size=80))
def test_a_proposed_name_is_a_name(text: str) -> None:
    name = table_name(text)
    assert name == "" or TABLE.fullmatch(name)
