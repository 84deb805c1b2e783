"""The guide for contracts keeps its word: every contract in it loads, every command prints what the page quotes.

What goes here: docs/guides/contracts.md as a test. What does not: the meaning of each clause (the other modules here).
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ct_assets.cli.main import main
from ct_assets.contracts.odcs import DIALECT_KEYS, SCHEMA_CUSTOM, load_contract
from ct_assets.contracts.predicate import parse
from ct_assets.contracts.properties import COLUMN_CUSTOM

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "contracts.md"
TEXT = GUIDE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)[ ]*([^\n]*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
CONTRACTS = [(name, text) for kind, name, text in BLOCKS if kind == "yaml"]
COMMANDS = [
    (command, BLOCKS[i + 1])
    for i, (kind, _, text) in enumerate(BLOCKS)
    if kind == "sh"
    for command in text.splitlines()
    if command.startswith("ct ")
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All named blocks of the guide as files, in the working folder."""
    for _, name, text in BLOCKS:
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_guide_has_contracts_and_commands() -> None:
    assert len(CONTRACTS) >= 2
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize(("name", "text"), CONTRACTS, ids=[name for name, _ in CONTRACTS])
def test_every_contract_loads(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / (name or "unnamed.odcs.yaml")
    path.write_text(text, encoding="utf-8")
    assert load_contract(path).schema().columns


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("command", "quoted"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_every_command_prints_what_is_quoted(
    command: str, quoted: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    kind, _, expected = quoted
    assert kind == "text", f"the output of {command!r} must follow it"
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(command)[1:])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    if expected.startswith("...\n"):
        wanted = [line for line in expected.splitlines() if line != "..."]
        assert wanted
        assert set(wanted) <= set(printed.splitlines())
    else:
        assert printed == expected


def test_the_three_expressions_are_read() -> None:
    section = TEXT.split("By three examples:\n\n")[1].split("\n\n")[0]
    kinds = {"Quantity": "number", "InvoiceNo": "text", "sold_at": "timestamp", "the code": "text"}
    kinds |= {"total": "number", "units": "number", "price": "number"}
    examples = re.findall(r"^- `([^`]+)`", section, re.MULTILINE)
    assert len(examples) == 3
    assert [parse(text, kinds).kind for text in examples] == ["boolean"] * 3


@pytest.mark.parametrize("key", sorted({*SCHEMA_CUSTOM, *COLUMN_CUSTOM, *DIALECT_KEYS}))
def test_every_key_of_ours_is_in_a_table(key: str) -> None:
    assert re.search(rf"^\|[^|]*`{key}`[^|]*\|", TEXT, re.MULTILINE)


def test_every_structural_reason_and_rejection_is_listed() -> None:
    ingest = GUIDE.parents[2] / "ct_assets" / "ingest"
    source = "".join(p.read_text(encoding="utf-8") for p in sorted(ingest.glob("*.py")))
    raised = set(re.findall(r'FileRejected\(\s*"(\w+)"', source))
    raised |= {"field_count", "broken_quoting", "control_byte", "field_too_long", "row_too_long"}
    listed = set(re.findall(r"`(\w+)`", "".join(line for line in TEXT.splitlines() if line.startswith("|"))))
    assert raised - listed == set()
