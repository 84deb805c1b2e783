"""The commands of README.md, executed in the order in which a reader types them.

`make` verbs are resolved with `make -n` to the `ct` command they run: `ct demo` and `ct ui` have end-to-end tests of
their own, and `make test` is what runs this file.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
BEHIND_MAKE = {"make demo": "ct demo", "CT_HOME=.ct/demo make ui": "ct ui"}
REJECTS = {".venv/bin/ct doctor"}  # may end with 1 where the machine itself has something to mend


def commands(document: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [
        line.strip() for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")
    ]


def behind_make(command: str) -> str:
    plan = subprocess.run(command.replace("make ", "make -n "), shell=True, cwd=ROOT, capture_output=True, text=True)
    assert plan.returncode == 0, plan.stderr
    return plan.stdout


@pytest.mark.slow
def test_every_command_of_the_readme_works_in_order(tmp_path: Path) -> None:
    home = tmp_path / "home"
    workdir = tmp_path / "project"
    workdir.mkdir()
    for name in ("workspace.yaml", "pyproject.toml", "ct_assets"):
        (workdir / name).symlink_to(ROOT / name)
    (workdir / ".venv").symlink_to(BIN.parent)
    env = {k: v for k, v in os.environ.items() if not k.startswith("CT_")} | {"CT_HOME": str(home)}
    subprocess.run(
        [BIN / "ct", "sample", "sales", "--days", "1", "--seed", "3", "--out", "own"], cwd=workdir, env=env, check=True
    )
    shutil.copy(next((workdir / "own").glob("*.csv")), workdir / "sales.csv")
    found = commands(ROOT / "README.md")
    assert len(found) >= 12, found
    try:
        for command in found:
            if command in BEHIND_MAKE:
                assert BEHIND_MAKE[command] in behind_make(command)
                continue
            run = subprocess.run(command, shell=True, cwd=workdir, env=env, capture_output=True, text=True, timeout=300)
            allowed = (0, 1) if command in REJECTS else (0,)
            assert run.returncode in allowed, f"{command}\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}"
            assert "Traceback" not in run.stderr, f"{command}\n{run.stderr[-2000:]}"
    finally:
        subprocess.run([BIN / "ct", "stop"], cwd=workdir, env=env, capture_output=True, timeout=120)


def test_every_file_the_readme_points_at_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r"`(ct_assets[\w/.]*)`", text)
    missing = [t for t in targets if "://" not in t and not (ROOT / t).exists()]
    assert not missing, f"README points at what is not there: {missing}"
