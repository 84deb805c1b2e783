"""What a gate says, and the thresholds it says it by.

What goes here: the types that all gates share. What does not: any gate (``gates``, ``champion_gates``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["pass", "fail", "insufficient_evidence", "not_applicable"]
Kind = Literal["first", "refresh", "challenger"]


@dataclass(frozen=True)
class GateResult:
    """One gate: ``figure`` against ``threshold``; ``reason`` is a sentence for people."""

    name: str
    figure: float | None
    threshold: str
    verdict: Verdict
    reason: str

    @property
    def passed(self) -> bool:
        """Only a pass is a pass."""
        return self.verdict == "pass"

    @property
    def refuses(self) -> bool:
        """Whether the candidate may not lead because of it."""
        return self.verdict not in ("pass", "not_applicable")

    def as_json(self) -> dict[str, Any]:
        """JSON values; a figure that is not a number becomes null."""
        return {**vars(self), "figure": _finite(self.figure)}


@dataclass(frozen=True)
class GateRules:
    """Thresholds. Margins are shares of the champion's value."""

    deviance_margin: float = 0.02
    wape_margin: float = 0.02
    slice_margin: float = 0.05
    artefact_margin: float = 0.10  # of two models of different data: wider than between recipes on the same
    bias_margin: float = 0.10  # a share of the units sold, not of the champion's value
    confidence: float = 0.95
    coverage: tuple[float, float] = (0.85, 0.95)
    refit_ratio: tuple[float, float] = (0.67, 1.5)
    max_artefact_bytes: int = 50_000_000
    max_predict_seconds: float = 5.0

    def margin(self, measure: str) -> float:
        """How much worse than the champion a measure may be."""
        return {"deviance": self.deviance_margin, "wape": self.wape_margin}[measure]

    @staticmethod
    def of(gates: Mapping[str, Any]) -> GateRules:
        """From a pipeline's ``gates``: objects with ``not_worse_than_champion_by, confidence, between``."""
        given: dict[str, Any] = {}
        for measure, name in (("deviance", "deviance_margin"), ("wape", "wape_margin")):
            if measure in gates and gates[measure].not_worse_than_champion_by is not None:
                given[name] = gates[measure].not_worse_than_champion_by
        if gates:
            given["confidence"] = max(gate.confidence for gate in gates.values())
        if "coverage" in gates and gates["coverage"].between is not None:
            given["coverage"] = gates["coverage"].between
        return GateRules(**given)


def unknown(name: str, threshold: str, reason: str) -> GateResult:
    """A gate for which there is not enough to say."""
    return GateResult(name, None, threshold, "insufficient_evidence", reason)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
