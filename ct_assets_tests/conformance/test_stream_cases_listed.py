"""The guide lists exactly the cases that run on `ct stream compute`, and all 27 run on the live worker."""

from __future__ import annotations

import re

from ct_assets_tests.conftest import ROOT

FILES = ("test_stream_windows.py", "test_stream_acceptance.py")


def test_the_guide_lists_the_cases_that_a_file_can_express() -> None:
    source = "".join((ROOT / "ct_assets_tests/conformance" / name).read_text() for name in FILES)
    tests = re.findall(
        r"((?:@[^\n]*\n(?:    [^\n]*\n|\)\n)*)+)def test_case_\d\d_\w+\([^)]*\)[^\n]*\n((?:    [^\n]*\n|\n)*)", source
    )
    ran = {
        int(number)
        for marks, body in tests
        if "@engines" in marks or "EVERYWHERE.values()" in body
        for number in re.findall(r"mark\.case\((\d+)\)", marks)
    }
    guide = (ROOT / "docs/streaming.md").read_text()
    listed = re.search(r"On `ct stream compute`: cases ([^\n]*)\.", guide)
    assert listed is not None
    assert {int(n) for n in re.findall(r"\d+", listed.group(1))} == ran
    print("cases on ct stream compute:", sorted(ran))


LIVE = ("@engines", "@without_files", "@with_append_times", "@sizes")
WORKER_TESTS = (
    "conformance/test_stream_windows.py",
    "conformance/test_stream_acceptance.py",
    "conformance/test_stream_cases_live.py",
    "adapters/stream_worker/test_worker.py",
)


def test_every_case_runs_on_the_live_worker() -> None:
    ran: set[int] = set()
    for name in WORKER_TESTS:
        source = (ROOT / "ct_assets_tests" / name).read_text()
        for marks in re.findall(r"((?:@[^\n]*\n(?:    [^\n]*\n|\)\n)*)+)def test_", source):
            if "stream_worker" in name or "cases_live" in name or any(mark in marks for mark in LIVE):
                ran |= {int(number) for number in re.findall(r"mark\.case\((\d+)\)", marks)}
    assert ran == set(range(1, 28))
