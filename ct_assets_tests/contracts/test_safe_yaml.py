"""YAML 1.2 scalars, lines in errors, and limits that hold against hostile files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ct_assets.contracts import safe_yaml
from ct_assets.contracts.errors import ContractError
from ct_assets.contracts.safe_yaml import loads


def test_scalars_follow_the_core_schema() -> None:
    text = "a: no\nb: 2020-01-01\nc: 12:30\nd: 1_000\ne: true\nf: ~\ng: 0.10\nh: -3\ni: '5'\nj: 0x10\nk: 1e3\n"
    assert loads(text) == {
        "a": "no", "b": "2020-01-01", "c": "12:30", "d": "1_000", "e": True, "f": None, "g": 0.1, "h": -3, "i": "5", "j": "0x10", "k": 1000.0,
    }  # fmt: skip


def test_lines_are_remembered() -> None:
    block = loads("a: 1\nb:\n  - x\n  - y: 2\n")
    assert (block.line_of("b"), block["b"].lines, block["b"][1].line_of("y")) == (2, [3, 4], 4)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: !!python/object/apply:os.system ['true']\n", 1, "tag"),
        ("a: 1\nb: !include x\n", 2, "tag"),
        ("a: 1\na: 2\n", 2, "already given on line 1"),
        ("- 1\n", 1, "mapping"),
        ("a: [1\n", 2, "not valid YAML"),
        ("a: &x [*x]\n", 1, "nested deeper|contains itself"),
        ("a: " + "[" * 60 + "]" * 60 + "\n", 1, "nested deeper"),
        ("? [1]\n: 2\n", 1, "plain word"),
        ("a: 1\n--- \nb: 2\n", 2, "not valid YAML"),
    ],
)
def test_what_is_refused(text: str, line: int, message: str) -> None:
    with pytest.raises(ContractError, match=message) as caught:
        loads(text)
    assert caught.value.line == line


def test_an_alias_bomb_ends_at_the_limit() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(ContractError, match="aliases are expanded"):
        loads("\n".join(rows))


def test_a_very_deep_file_is_an_error_not_a_crash() -> None:
    with pytest.raises(ContractError, match="nested"):
        loads("a: " + "[" * 20_000)


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_yaml, "MAX_BYTES", 10)
    path = tmp_path / "x.yaml"
    path.write_text("a: 1234567890\n")
    with pytest.raises(ContractError, match="at most 10"):
        safe_yaml.load(path)


def test_a_number_too_long_for_a_number_is_text() -> None:
    assert loads("a: " + "9" * 5_000 + "\n")["a"] == "9" * 5_000
