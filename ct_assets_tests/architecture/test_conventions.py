"""The written conventions, held by a machine. Each failure says what to do.

What goes here: rules about the source text and the import graph. What does not: behaviour.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "ct_assets").rglob("*.py"))
TESTS = sorted((ROOT / "ct_assets_tests").rglob("*.py"))


def test_every_module_says_what_it_is() -> None:
    silent = [str(p.relative_to(ROOT)) for p in SOURCES if not ast.get_docstring(ast.parse(p.read_text()))]
    assert not silent, f"give these a docstring (what this is, what goes here, what does not): {silent}"


# hands variables to Dagster's own loader of an instance and puts back what was there
HANDS_OVER = {"settings.py", "instance.py"}


def test_the_environment_is_read_in_one_module() -> None:
    readers = [
        str(p.relative_to(ROOT))
        for p in SOURCES
        if p.name not in HANDS_OVER and re.search(r"os\.getenv|os\.environ\[|os\.environ\.get", p.read_text())
    ]
    assert not readers, f"read the environment through ct_assets.settings instead: {readers}"


def test_import_directions_hold() -> None:
    run = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]


def test_names_say_something() -> None:
    vague = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    found = [str(p.relative_to(ROOT)) for p in SOURCES + TESTS if p.stem in vague]
    assert not found, f"name these after what they do: {found}"


def test_no_machine_path_or_index_address_in_tracked_files() -> None:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    pattern = re.compile(r"(?<![\w./])/(?:work|farm|root)/|--index-url|files\.pythonhosted|\bpypi\.org")
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path == Path(__file__) or not path.is_file() or path.stat().st_size > 2_000_000:
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {line.strip()[:100]}" for line in text.splitlines() if pattern.search(line)]
    assert not found, f"remove machine paths and index addresses: {found[:5]}"


def test_partitions_are_defined_once() -> None:
    owner = ROOT / "ct_assets/orchestration/partitions.py"
    makers = [
        str(p.relative_to(ROOT))
        for p in SOURCES
        if p != owner and re.search(r"(Daily|Hourly|Static|Dynamic|TimeWindow)PartitionsDefinition\(", p.read_text())
    ]
    assert not makers, f"define partitions in {owner.relative_to(ROOT)}: {makers}"


def _tests_without_assertion(path: Path) -> list[str]:
    def asserts(node: ast.AST) -> bool:
        text = ast.dump(node)
        return any(word in text for word in ("Assert(", "raises", "assert_", "warns", "check_", "expect_"))

    tree = ast.parse(path.read_text())
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("test"))
    return [f"{path.relative_to(ROOT)}:{n.lineno} {n.name}" for n in functions if not asserts(n)]


def test_every_test_asserts_something() -> None:
    empty = [line for path in TESTS for line in _tests_without_assertion(path)]
    assert not empty, f"assert a value against an oracle: {empty}"


FAULTS_OF_THE_BATCH_PIPELINE = [*range(1, 4), *range(5, 31), *range(36, 43)]


@pytest.mark.parametrize("number", FAULTS_OF_THE_BATCH_PIPELINE)
def test_every_fault_has_a_test_with_its_id(number: int) -> None:
    fault = f"F{number:02d}"
    marked = [p for p in TESTS if re.search(rf"mark\.fault\([^)]*\"{fault}\"", p.read_text())]
    assert marked, f"no test carries @pytest.mark.fault({fault!r}); see the fault matrix in docs/fault-matrix.md"
