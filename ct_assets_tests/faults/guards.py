"""Does every fault test bite? Removes one guard at a time from a copy of the checkout and runs that fault's tests.

What goes here: the copy, the runs, the verdicts (`make guards`, `make guards ARGS="--only F12"`). What does not: which
texts are guards (``removals_files``, ``removals_ledger``).

A removal is noticed when at least one test of its fault fails by assertion (or, where the table says so, by the named
exception of the code under test). A removal that breaks imports or collection proves nothing and counts as unnoticed.
At the end: tests that carry a fault's mark and failed under no removal.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ct_assets_tests.faults.removal import FAULTS, Removal
from ct_assets_tests.faults.removals_files import REMOVALS as OF_FILES
from ct_assets_tests.faults.removals_ledger import REMOVALS as OF_THE_LEDGER

ROOT = Path(__file__).resolve().parents[2]
REMOVALS: tuple[Removal, ...] = tuple(sorted((*OF_FILES, *OF_THE_LEDGER), key=lambda r: r.fault))
LIMIT_SECONDS = 600


@dataclass
class Run:
    """The tests of one fault under one removal: node id -> how it ended."""

    ended: dict[str, str]
    problem: str = ""

    @property
    def failed(self) -> list[str]:
        """Node ids of the tests that failed in their own body."""
        return [test for test, kind in self.ended.items() if kind.startswith(("assertion", "raised"))]


def verdict_of(removal: Removal, run: Run) -> str:
    """`noticed`, or why it is not."""
    kinds = set(run.ended.values())
    if "assertion" in kinds or (removal.raises and f"raised {removal.raises}" in kinds):
        return "noticed"
    if run.problem or not run.ended:
        return f"BROKEN: {run.problem or 'no test ran'}"
    others = sorted(kinds - {"passed", "skipped"})
    return f"UNNOTICED ({', '.join(others)})" if others else "UNNOTICED"


def files_of_the_checkout(root: Path = ROOT) -> list[str]:
    """Tracked and new files, as git sees them; without git all that is not hidden."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:
        return [name for name in listed.stdout.split("\0") if name and (root / name).is_file()]
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return [str(path) for path in found if not any(part.startswith((".", "__pycache__")) for part in path.parts)]


def copy_checkout(target: Path) -> Path:
    """The checkout as it is now, without what git ignores."""
    for name in files_of_the_checkout():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target


def files_with_tests_of(faults: set[str], root: Path) -> list[str]:
    """Test files that mark a test with one of these faults."""
    pattern = re.compile(r'mark\.fault\("(F\d\d)"\)')
    found = sorted((root / "ct_assets_tests").rglob("test_*.py"))
    return [str(p.relative_to(root)) for p in found if faults & set(pattern.findall(p.read_text(encoding="utf-8")))]


@contextmanager
def removed(copy: Path, removal: Removal) -> Iterator[None]:
    """The guard is gone inside the block. Python compares a source's whole second and size, so times are set apart."""
    before = {edit.file: (copy / edit.file).read_text(encoding="utf-8") for edit in removal.edits}
    try:
        for edit in removal.edits:
            text = (copy / edit.file).read_text(encoding="utf-8")
            assert text.count(edit.old) == 1, f"{edit.file}: {text.count(edit.old)} times {edit.old!r}"
            _write(copy / edit.file, text.replace(edit.old, edit.new))
        yield
    finally:
        for name, text in before.items():
            _write(copy / name, text)


def _write(path: Path, text: str) -> None:
    stamp = path.stat().st_mtime_ns + 2_000_000_000
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(stamp, stamp))


def run_tests(copy: Path, faults: set[str], server_url: str | None) -> Run:
    """The marked tests of some faults, imported from the copy, in a process of their own."""
    report = copy / "fault-report.json"
    report.unlink(missing_ok=True)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("CT_") and k != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"PYTHONPATH": str(copy), "CI": ""} | ({"TEST_POSTGRES_URL": server_url} if server_url else {})
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "ct_assets_tests.faults.by_fault"]
    command += [f"--fault={fault}" for fault in sorted(faults)] + [f"--fault-report={report}", "--timeout=240"]
    with subprocess.Popen(
        [*command, *files_with_tests_of(faults, copy)], cwd=copy, env=environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as pytest:  # fmt: skip
        try:
            said, _ = pytest.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(pytest.pid, signal.SIGKILL)
            return Run({}, f"did not end within {LIMIT_SECONDS} s")
    (copy / "last-output.txt").write_text(said, encoding="utf-8")
    if not report.exists():
        return Run({}, said.strip().splitlines()[-1] if said.strip() else f"pytest ended with {pytest.returncode}")
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    if not Path(found["package"]).is_relative_to(copy):
        return Run({}, f"the tests imported {found['package']}, not the copy")
    return Run({test: ending["ended"] for test, ending in found["tests"].items()})


@contextmanager
def warm_server(folder: Path) -> Iterator[str]:
    """An embedded server that stays up from removal to removal."""
    from ct_assets.adapters.postgres.server import Server

    server = Server(folder)
    url = server.ensure("postgres")
    try:
        yield url
    finally:
        base = server.base
        server.stop()
        shutil.rmtree(base, ignore_errors=True)


def function_of(test: str) -> str:
    """A node id without its parameters."""
    return test.partition("[")[0]


@dataclass
class Audit:
    """All removals, one after the other, in one copy."""

    copy: Path
    server_url: str | None = None
    unnoticed: int = 0

    def baseline(self, faults: set[str]) -> set[str]:
        """The untouched copy must pass: else a failure would prove nothing. Returns the test functions."""
        run = run_tests(self.copy, faults, self.server_url)
        bad = {test: kind for test, kind in run.ended.items() if kind not in ("passed", "skipped")}
        if bad or run.problem or not run.ended:
            sys.exit(f"without any removal: {run.problem} {bad}\n{(self.copy / 'last-output.txt').read_text()[-3000:]}")
        skipped = sorted(test for test, kind in run.ended.items() if kind == "skipped")
        print(f"baseline: {len(run.ended)} tests pass unchanged, {len(skipped)} skipped {skipped or ''}", flush=True)
        return {function_of(test) for test, kind in run.ended.items() if kind == "passed"}

    def try_one(self, removal: Removal) -> set[str]:
        """Remove, run, restore, print a row. Returns the test functions that failed."""
        started = time.monotonic()
        stale = [edit.old for edit in removal.edits if (self.copy / edit.file).read_text().count(edit.old) != 1]
        if stale:
            run = Run({}, f"not exactly once in the checkout: {stale}")
        else:
            with removed(self.copy, removal):
                run = run_tests(self.copy, {removal.fault}, self.server_url)
        verdict = verdict_of(removal, run)
        self.unnoticed += verdict != "noticed"
        seconds = time.monotonic() - started
        print(
            f"{removal.fault}  {len(run.ended):3d} run  {len(run.failed):3d} failed  {verdict:<10} {seconds:5.1f} s"
            f"  {removal.why}  [{', '.join(edit.file for edit in removal.edits)}]",
            flush=True,
        )
        if verdict != "noticed" and not stale:
            print((self.copy / "last-output.txt").read_text()[-1500:], file=sys.stderr)
        return {function_of(test) for test in run.failed}


def audit(removals: Sequence[Removal], copy: Path, server_url: str | None) -> int:
    """Try every removal; the number of those that went unnoticed and of tests that none of them broke."""
    work = Audit(copy, server_url)
    idle = work.baseline({removal.fault for removal in removals})
    for removal in removals:
        idle -= work.try_one(removal)
    print(f"{len(removals)} removals, {work.unnoticed} unnoticed; {len(idle)} marked tests failed under none of them")
    for test in sorted(idle):
        print(f"  idle: {test}")
    return work.unnoticed + len(idle)


def main() -> None:
    """Exit 1 when a removal goes unnoticed or a marked test fails under no removal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="ID", help="only this fault (may be repeated)")
    args = parser.parse_args()
    unknown = set(args.only) - set(FAULTS)
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; one of {FAULTS[0]} to {FAULTS[-1]}")
    chosen = [removal for removal in REMOVALS if not args.only or removal.fault in args.only]
    os.nice(10)
    with tempfile.TemporaryDirectory(prefix="ct-guards-") as name:
        copy = copy_checkout(Path(name).resolve() / "checkout")
        with warm_server(Path(name) / "pg") as url:
            failures = audit(chosen, copy, url)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
