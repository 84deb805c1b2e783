"""A pytest plugin: only the tests of some faults, and a report of how each of them ended.

What goes here: selection by `@pytest.mark.fault`, kinds of endings. What does not: removals (``guards``).

    pytest -p ct_assets_tests.faults.by_fault --fault F12 ct_assets_tests
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

BROKEN = (ImportError, SyntaxError, NameError)  # the removal broke the program, it proves nothing about the test


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--fault", action="append", default=[], metavar="ID", help="only tests marked with this fault")
    group.addoption("--fault-report", metavar="FILE", help="write how each test ended, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ENDINGS] = {}


ENDINGS = pytest.StashKey[dict[str, dict[str, object]]]()


def faults_of(item: pytest.Item) -> list[str]:
    """The ids of all fault marks of a test."""
    return [str(fault) for mark in item.iter_markers("fault") for fault in mark.args]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = set(config.getoption("--fault"))
    if not wanted:
        return
    away = [item for item in items if not wanted & set(faults_of(item))]
    items[:] = [item for item in items if item not in away]
    config.hook.pytest_deselected(items=away)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    kind = kind_of(report.when or "", report.outcome, call.excinfo.value if call.excinfo else None)
    endings = item.config.stash[ENDINGS]
    if item.nodeid not in endings or endings[item.nodeid]["ended"] == "passed":  # the first failing phase counts
        endings[item.nodeid] = {"faults": faults_of(item), "ended": kind}
    return report


def kind_of(when: str, outcome: str, error: BaseException | None) -> str:
    """`passed`, `skipped`, `assertion`, `raised <type>` or `broken <type>` (which is no answer to the question)."""
    if outcome != "failed" or error is None:
        return outcome
    name = type(error).__qualname__
    if when != "call" or isinstance(error, BROKEN) or str(error).startswith("Timeout"):
        return f"broken {name}"
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
    asserted = any(isinstance(part, (AssertionError, pytest.fail.Exception)) for part in parts)
    return "assertion" if asserted else f"raised {name}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--fault-report")
    if target:
        import ct_assets

        found = {"package": ct_assets.__file__, "tests": session.config.stash[ENDINGS]}
        Path(str(target)).write_text(json.dumps(found), encoding="utf-8")
