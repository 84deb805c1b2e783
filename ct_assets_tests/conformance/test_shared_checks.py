"""The checks that nobody who wrote the product wrote: real days and polluted files through ``ct verdict``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ct_assets_tests.conftest import ROOT, SHARED


@pytest.mark.slow
@pytest.mark.parametrize("check", ["real-days-verdict", "pollock", "stream-compute"])
def test_check_holds(check: str, shared_data: object) -> None:
    if not (ROOT / ".venv" / "bin" / "ct").exists():
        assert os.environ.get("CI") != "true", "in CI `make test` has made .venv/bin/ct"
        pytest.skip("the checks call .venv/bin/ct: run `make install`")
    done = subprocess.run([sys.executable, str(SHARED / "checks" / check)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
