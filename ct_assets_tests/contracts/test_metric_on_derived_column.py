"""A row metric on a derived column is refused when the contract is loaded (it used to end `ct verdict` in a KeyError)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ct_assets.contracts.errors import ContractError
from ct_assets.contracts.odcs import load_contract

CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: t
name: t
version: 1.0.0
status: active
schema:
  - name: t
    properties:
      - {name: amount, logicalType: integer}
      - name: is_return
        logicalType: boolean
        transformLogic: "amount < 0"
        customProperties: [{property: derived, value: true}]
        quality: [{type: library, metric: nullValues, mustBe: 0}]
"""


def test_a_row_metric_on_a_derived_column_is_refused_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "t.odcs.yaml"
    file.write_text(CONTRACT)
    with pytest.raises(ContractError, match="is_return") as caught:
        load_contract(file)
    assert "15" in str(caught.value)
