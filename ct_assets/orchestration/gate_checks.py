"""A candidate's gates as asset checks of its model, and the registry's alias after the decision: the same for every trainer.

What goes here: turning a decision into check results. What does not: the gates (``training``), which check a gate
belongs to (each pipeline's own words).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from ct_assets.orchestration import pages
from ct_assets.orchestration.resources import Installation

if TYPE_CHECKING:
    from ct_assets.training.gates import GateResult

PROMOTION = "promotion"  # this check shows every gate


@dataclass(frozen=True)
class GateChecks:
    """The checks of a model. ``descriptions``: check -> what it promises; ``group``: name of a gate -> its check."""

    model_key: dg.AssetKey
    descriptions: Mapping[str, str]
    group: Callable[[str], str]

    def results(self, gates: Sequence[GateResult], promoted: bool, reason: str) -> Iterator[dg.AssetCheckResult]:
        """One result a check; a check without any gate has no evidence and fails."""
        for name in self.descriptions:
            chosen = [gate for gate in gates if name in (PROMOTION, self.group(gate.name))]
            passed = promoted if name == PROMOTION else bool(chosen) and not any(gate.refuses for gate in chosen)
            stopped = next((gate.reason for gate in chosen if gate.refuses), None)
            rows = [
                {"gate": g.name, "verdict": g.verdict, "figure": g.figure, "threshold": g.threshold, "reason": g.reason}
                for g in chosen
            ]
            yield dg.AssetCheckResult(
                passed=passed,
                check_name=name,
                asset_key=self.model_key,
                severity=dg.AssetCheckSeverity.ERROR,
                metadata={"gates": pages.table(rows)} if rows else {},
                description=stopped or reason,
            )

    def no_evidence(self, reason: str) -> Iterator[dg.AssetCheckResult]:
        """What the checks say when nothing could be trained."""
        for name in self.descriptions:
            yield dg.AssetCheckResult(
                passed=False,
                check_name=name,
                asset_key=self.model_key,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"no evidence: {reason}",
            )


def mirror(installation: Installation, model: str) -> None:
    """MLflow's alias follows the ledger; when it cannot, the ledger still leads and the next run tries again."""
    from ct_assets.adapters import registry

    with installation.ledger() as conn:
        problem = registry.mirror(conn, installation.settings, model)
    if problem:
        dg.get_dagster_logger().warning(f"the model registry does not follow yet: {problem}")
