"""docs/serving.md says what the code does: its numbers are the code's, its commands and routes exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from ct_assets.cli.main import ct
from ct_assets.serving import request_log
from ct_assets.serving.scorer import MAX_ENTITIES
from ct_assets.training.propensity_evaluation import FOLDS, JUDGED
from ct_assets.training.propensity_gates import MAX_CALIBRATION_ERROR, MIN_GAIN
from ct_assets.training.propensity_labels import LabelRules, Sampling

PAGE = (Path(__file__).resolve().parents[2] / "docs/serving.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        f"at most {Sampling().burst} clicks an hour",
        f"Above {Sampling().clicks:,} clicks",
        f"an embargo of {LabelRules().embargo_us // 60_000_000} minutes",
        f"newest {JUDGED:.0%}".replace("%", " %"),
        f"log loss better by {MIN_GAIN * 100:g} %",
        f"calibration error at most {MAX_CALIBRATION_ERROR}",
        f"more than {MAX_ENTITIES:,} users",
        f"{request_log.MAX_BYTES // 1_000_000} MB and three older files",
    ],
)
def test_the_numbers_are_the_codes(text: str) -> None:
    assert text in PAGE
    assert (FOLDS, request_log.OLDER_FILES) == (3, 3)


def test_the_commands_and_their_options_exist() -> None:
    commands = re.findall(r"^ct (model train|model show|serve|score)", PAGE, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        done = CliRunner().invoke(ct, [*command.split(), "--help"])
        assert done.exit_code == 0, done.output
    told = CliRunner().invoke(ct, ["serve", "--help"]).output
    for option in ("--poll-seconds", "--no-log", "--host", "--port"):
        assert option in told
        assert option in PAGE


def test_the_routes_are_those_of_the_application() -> None:
    source = (Path(request_log.__file__).parent / "app.py").read_text(encoding="utf-8")
    routes = re.findall(r'@app\.(?:get|post)\("(/\w+)"\)', source)
    assert sorted(routes) == ["/healthz", "/readyz", "/score", "/status"]
    assert all(route in PAGE for route in routes)
