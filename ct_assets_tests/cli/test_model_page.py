"""`ct model show` as a page: figures of each fold beside the baselines, gates in words, what refused first."""

from __future__ import annotations

import datetime as dt
from typing import Any

from ct_assets.cli.model_page import figure, page

FOLD = {"origin": "2011-09-02", "forecast": "model", "deviance": 12.3456, "bias": -0.02, "wape": 0.61, "coverage": 0.9}


def row(**changed: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": "demand_7d",
        "version": 3,
        "decision": "refused",
        "champion": False,
        "metrics": {
            "deviance": 12.3456,
            "rows": 54321,
            "folds": ["2011-09-02"],
            "baselines": {"zero": {"deviance": None, "wape": 1.0}},
            "per_fold": [FOLD, {"origin": "2011-09-02", "forecast": "mean_28", "deviance": 15.0, "wape": 0.7}],
        },
        "gates": {
            "baselines_wape": {
                "name": "baselines_wape",
                "figure": 0.9,
                "threshold": "< 1",
                "verdict": "pass",
                "reason": "good",
            },
            "history": {
                "name": "history",
                "figure": None,
                "threshold": "7 weeks",
                "verdict": "insufficient_evidence",
                "reason": "history too short: needs 7 weeks, has 3.0",
            },
        },
        "provenance": {"cutoff": dt.date(2011, 9, 30), "seed": 7},
        "recipe": {"trainer": "a:b", "settings": {"rate": 0.05}},
        "artefact": {"key": "k", "sha256": "s"},
        "history": [],
    }
    return found | changed


def test_a_refused_version_says_why_first_and_shows_no_raw_mapping() -> None:
    text = page(row())
    lines = text.splitlines()
    assert lines[0] == "demand_7d version 3: refused"
    assert lines[2:4] == ["refused because", "  history: history too short: needs 7 weeks, has 3.0"]
    assert "{" not in text
    assert "None" not in text
    cells = [line.split() for line in lines]
    assert ["2011-09-02", "model", "12.35", "-0.02", "0.61", "0.9"] in cells
    assert ["2011-09-02", "mean_28", "15", "0.7"] in cells
    assert ["zero", "-", "1"] in cells
    assert ["history", "NOT", "ENOUGH", "EVIDENCE", "-", "7", "weeks"] in [line[:7] for line in cells]
    assert ["settings.rate", "0.05"] in cells
    assert "it has never been moved" in text


def test_a_promoted_version_shows_its_moves() -> None:
    move = {"generation": 1, "version": 3, "decided_at": dt.datetime(2011, 10, 1, 5, 0), "reason": "first: all passed"}
    text = page(row(decision="promoted", champion=True, history=[move]))
    assert text.startswith("demand_7d version 3: promoted (champion)")
    assert "refused because" not in text
    assert "  1. version 3 at 2011-10-01 05:00: first: all passed" in text


def test_figures_read_well() -> None:
    assert [figure(v) for v in (None, True, 0.123456, 123456.7, 12, [1, None])] == [
        "-",
        "yes",
        "0.1235",
        "123,457",
        "12",
        "1, -",
    ]
