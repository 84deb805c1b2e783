"""docs/guides/streaming-own-events.md, command by command as a reader types them, in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from ct_assets_tests.e2e.test_own_csv_guide import project as made_project  # noqa: F401 - the fixture of a copy

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs/guides/streaming-own-events.md"


def commands() -> list[str]:
    """The guide's shell blocks, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(made_project: Path) -> Path:  # noqa: F811
    """The copy with the feature repository and with `feast` and `python` on the guide's path."""
    shutil.copytree(ROOT / "feature_repo", made_project / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    for name, program in (("python", [sys.executable]), ("feast", [str(Path(sys.executable).with_name("feast"))])):
        path = made_project / ".venv/bin" / name
        path.write_text(f'#!/bin/sh\nPYTHONPATH={made_project} exec {" ".join(program)} "$@"\n')
        path.chmod(0o755)
    return made_project


@pytest.mark.slow
def test_the_guide_serves_a_value_of_own_events(project: Path, tmp_path: Path, pg_url: str) -> None:
    blocks = commands()
    assert len(blocks) == 12
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", "\n".join(blocks)],
        cwd=project,
        env={**os.environ, "CT_HOME": str(tmp_path / "home"), "CT_DATABASE_URL": pg_url},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-4000:]
    out = done.stdout
    assert re.search(r"rides_10m +2\nkm_2h +15\.70\nlast_kind +returned", out), out
    assert re.search(r"rider +nobody\nrides_10m +0\nkm_2h +0\.00", out)
    assert re.search(r"ada +\| +2 \| +15\.70 \| returned +\| f", out)
    assert "rider_activity: 2 reads with 6 values recomputed, 0 differ" in out
    online = re.search(r"^online (.*)$", out, re.MULTILINE)
    assert online is not None
    assert "'rides_10m': [2, 0]" in online[1]
    assert "'km_2h': [15.7, 0.0]" in online[1]
    training = re.search(r"^training (.*)$", out, re.MULTILINE)
    assert training is not None
    assert "'rider': ['ada', 'bob', 'nobody']" in training[1]
    assert "'km_2h': [15.7, 7.05, 0.0]" in training[1]
    assert "~ rides_10m: window 10m -> 15m" in out
    assert re.search(r"rider +bob\nrides_10m +2\n", out.rsplit("rider_activity:", 1)[1])
    with psycopg.connect(pg_url) as conn:
        dead = conn.execute("select reason from stream.dead_letter order by 1").fetchall()
    assert dead == [("contract",), ("poison",)]
