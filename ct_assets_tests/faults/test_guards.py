"""The table of guards cannot rot, and its runner tells a test that bites from one that does not.

What goes here: the table against the checkout, the runner on small cases. What does not: all removals (`make guards`).
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from ct_assets_tests.faults.by_fault import kind_of
from ct_assets_tests.faults.guards import (
    REMOVALS,
    ROOT,
    Run,
    audit,
    copy_checkout,
    files_with_tests_of,
    removed,
    verdict_of,
)
from ct_assets_tests.faults.removal import FAULTS, Removal, gone

NAMED = [pytest.param(removal, id=f"{removal.fault}-{i}") for i, removal in enumerate(REMOVALS)]
BY_NAME = gone(
    "F12", "ingest/header.py", "at = _position(column, found, fold, warnings)", "at = len(positions)", "by name"
)
NOTHING = gone("F12", "ingest/header.py", "MAX_COLUMNS = 10_000", "MAX_COLUMNS = 9_999", "no guard of F12 at all")
BREAKS = gone("F12", "ingest/header.py", "import difflib", "import no_such_module", "breaks the import")


@pytest.mark.parametrize("removal", NAMED)
def test_each_guard_stands_exactly_once_and_its_removal_is_still_a_program(removal: Removal) -> None:
    for edit in removal.edits:
        text = (ROOT / edit.file).read_text(encoding="utf-8")
        found = text.count(edit.old)
        assert found == 1, f"{edit.file} holds {found} times {edit.old!r}: mend the row {removal.fault} of the table"
        assert edit.new != edit.old
    texts = {edit.file: (ROOT / edit.file).read_text(encoding="utf-8") for edit in removal.edits}
    for edit in removal.edits:
        texts[edit.file] = texts[edit.file].replace(edit.old, edit.new)
    for name, text in texts.items():
        assert not name.endswith(".py") or ast.parse(text)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_a_guard_and_a_marked_test(fault: str) -> None:
    assert [removal for removal in REMOVALS if removal.fault == fault], f"add a removal of a guard of {fault}"
    assert files_with_tests_of({fault}, ROOT), f"no test carries @pytest.mark.fault({fault!r})"


def test_the_faults_are_those_of_the_matrix() -> None:
    matrix = (ROOT / "docs/fault-matrix.md").read_text(encoding="utf-8")
    assert set(FAULTS) <= set(re.findall(r"^\| (F\d\d) \|", matrix, re.MULTILINE))


@pytest.mark.parametrize(
    ("ended", "raises", "verdict"),
    [
        ({"a": "passed", "b": "assertion"}, "", "noticed"),
        ({"a": "raised KeyError"}, "", "UNNOTICED (raised KeyError)"),
        ({"a": "raised KeyError"}, "KeyError", "noticed"),
        ({"a": "raised KeyError"}, "ValueError", "UNNOTICED (raised KeyError)"),
        ({"a": "passed", "b": "skipped"}, "", "UNNOTICED"),
        ({"a": "broken ImportError"}, "ImportError", "UNNOTICED (broken ImportError)"),
        ({}, "", "BROKEN: no test ran"),
    ],
)
def test_what_counts_as_noticed(ended: dict[str, str], raises: str, verdict: str) -> None:
    assert verdict_of(gone("F12", "x.py", "a", "b", "", raises=raises), Run(ended)) == verdict


@pytest.mark.parametrize(
    ("when", "error", "kind"),
    [
        ("call", AssertionError("1 != 2"), "assertion"),
        ("call", pytest.fail.Exception("DID NOT RAISE"), "assertion"),
        ("call", pytest.fail.Exception("Timeout >240.0s"), "broken Failed"),
        ("call", ExceptionGroup("two", [ValueError(), AssertionError()]), "assertion"),
        ("call", KeyError("x"), "raised KeyError"),
        ("call", ModuleNotFoundError("x"), "broken ModuleNotFoundError"),
        ("setup", AssertionError("a fixture"), "broken AssertionError"),
    ],
)
def test_kinds_of_endings(when: str, error: BaseException, kind: str) -> None:
    assert kind_of(when, "failed", error) == kind
    assert kind_of(when, "passed", None) == "passed"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with no more tests than those of F12."""
    folder = copy_checkout(tmp_path_factory.mktemp("guards") / "checkout")
    kept = set(files_with_tests_of({"F12"}, folder))
    for path in (folder / "ct_assets_tests").rglob("test_*.py"):
        if str(path.relative_to(folder)) not in kept:
            path.unlink()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("removal", "failures", "says"),
    [
        (BY_NAME, 0, "noticed"),
        (NOTHING, 2, "UNNOTICED"),  # the removal, and the test that failed under none
        (BREAKS, 2, "BROKEN"),
    ],
    ids=["bites", "does not", "broken"],
)
def test_a_removal_in_a_copy_is_noticed_or_not(
    copy: Path, removal: Removal, failures: int, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    source = copy / removal.edits[0].file
    before = source.read_text(encoding="utf-8")
    assert audit([removal], copy, None) == failures
    rows = [line for line in capfd.readouterr().out.splitlines() if line.startswith("F12")]
    assert len(rows) == 1
    assert says in rows[0]
    assert source.read_text(encoding="utf-8") == before


def test_a_guard_is_put_back_also_after_an_error(copy: Path) -> None:
    source = copy / BY_NAME.edits[0].file
    before, stamp = source.read_text(encoding="utf-8"), source.stat().st_mtime_ns

    def interrupted() -> None:
        with removed(copy, BY_NAME):
            assert "at = len(positions)" in source.read_text(encoding="utf-8")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert source.read_text(encoding="utf-8") == before
    assert source.stat().st_mtime_ns > stamp + 10**9, "a compiled file of the same second and size would be stale"
