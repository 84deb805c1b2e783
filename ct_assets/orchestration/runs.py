"""The run loop behind `ct run`: everything delivered goes through the pipeline's assets, in few real Dagster runs.

What goes here: which runs are due, in which order, and what they came to. What does not: asset bodies, printing.

Three runs at most, each in this process and recorded in the instance so that the UI shows it: data over the range of
days that have news, features over the range of days whose inputs changed, one retraining at the end. What is due is
asked of the ledger every time, never remembered: a run killed anywhere is resumed by the next one (F02, F40, F41).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ct_assets.errors import CtError
from ct_assets.orchestration.resources import Installation

if TYPE_CHECKING:
    import dagster as dg

    from ct_assets.adapters.ledger import Delivery
    from ct_assets.orchestration.pipeline import Pipeline
    from ct_assets.orchestration.stages import Progress


class RunFailed(CtError):
    """A Dagster run failed for a technical reason; the next `ct run` resumes."""


@dataclass
class RunReport:
    """What `ct run` came to. ``days``: state of the newest decided delivery -> ISO days.

    ``standing``: open incidents that earlier runs left (day, rule, message, delivery_id); those of this run are in
    ``rejected``.
    """

    pipeline: str
    decided: dict[str, list[str]] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    held: list[dict[str, Any]] = field(default_factory=list)
    standing: list[dict[str, Any]] = field(default_factory=list)
    features_rebuilt: dict[str, int] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    runs: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def nothing_new(self) -> bool:
        """Whether there was nothing to do at all."""
        return not self.runs and not self.rejected

    @property
    def ok(self) -> bool:
        """Whether nothing was rejected and nothing failed."""
        return not self.rejected and not self.failures

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "pipeline": self.pipeline,
            "nothing_new": self.nothing_new,
            "days": self.decided,
            "rejected": self.rejected,
            "held": self.held,
            "standing": self.standing,
            "features_rebuilt": self.features_rebuilt,
            "training": self.training,
            "runs": self.runs,
            "failures": self.failures,
            "seconds": round(self.seconds, 2),
        }


@dataclass
class RunLoop:
    """One pass over one pipeline. ``stopping`` is asked after each run: Dagster drops a Ctrl-C that comes while it starts."""

    installation: Installation
    pipeline: Pipeline
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    say: Progress
    report: RunReport
    stopping: Callable[[], bool] = lambda: False

    def through(self) -> None:
        """Data, features, training: each only when there is something to do; a later stage waits for a failed one."""
        self.refuse_missing_columns()
        if self.bring_data() and self.build_features() and self.pipeline.spec.model is not None:
            self.retrain()
        self.report.standing = self.standing_incidents()

    def refuse_missing_columns(self) -> None:
        """Features and training read fixed columns: say what is missing before anything runs."""
        from ct_assets.adapters.datasets import published_dataset
        from ct_assets.adapters.needed_columns import check_rollup

        spec = self.pipeline.spec
        with self.installation.ledger() as conn:
            check_rollup(conn, spec, published_dataset(spec, self.installation.settings))

    def standing_incidents(self) -> list[dict[str, Any]]:
        """Incidents that are open although this run rejected nothing of them: nobody has delivered a mended file yet."""
        from ct_assets.adapters.incidents import open_incidents

        mine = {rejected["delivery_id"] for rejected in self.report.rejected}
        said = " ".join(self.report.failures)
        with self.installation.ledger() as conn:
            found = open_incidents(conn, self.pipeline.names.pipeline)
        kept = ("day", "rule", "message", "delivery_id")
        new = [row for row in found if row["delivery_id"] not in mine and row["message"] not in said]
        return [{name: row[name] for name in kept} for row in new]

    def bring_data(self) -> bool:
        """Publish what is pending and tell Dagster what it does not know; False when some day failed."""
        from ct_assets.adapters.landing import pending
        from ct_assets.orchestration import stages

        names = self.pipeline.names
        with self.installation.ledger() as conn:
            waiting = pending(conn, names.pipeline)
            possible = stages.reject_days_outside(conn, self.pipeline, waiting)
        behind = stages.rollups_behind(self.installation, self.pipeline.spec)
        days = {stages.business_day(d) for d in possible} | behind | self.untold_days()
        if not days:
            self.settle(waiting)
            return True
        what = f"{len(possible)} deliveries" if possible else f"{len(days)} published days that Dagster was not told of"
        if behind and not possible:
            what = f"{len(behind)} days whose rollups have other SQL now"
        self.say(f"{what}, {min(days)} to {max(days)}")
        passed = self.execute(names.data_job, days)
        self.settle(waiting)
        return passed

    def untold_days(self) -> set[dt.date]:
        """Days whose ledger version Dagster has not been told (killed between commit and event)."""
        from ct_assets.orchestration import stages
        from ct_assets.orchestration.events import untold

        facts = stages.data_facts(self.installation, self.pipeline, None)
        return {
            dt.date.fromisoformat(fact.day)
            for key, found in facts.items()
            for fact in untold(self.instance, key, found)
            if self.pipeline.days.has_partition_key(fact.day)  # what was rejected for its day has none
        }

    def settle(self, waiting: Iterable[Delivery]) -> None:
        """Read from the ledger what became of each delivery."""
        from ct_assets.adapters import ledger
        from ct_assets.orchestration.stages import business_day

        with self.installation.ledger() as conn:
            for before in waiting:
                now = ledger.delivery(conn, before.delivery_id)
                assert now is not None
                day = business_day(now).isoformat()
                self.report.decided.setdefault(now.state, []).append(day)
                if now.state == "rejected":
                    wrong = (now.verdict or {}).get("rejected") or {}
                    self.report.rejected.append({"file": now.name, "day": day, "delivery_id": now.delivery_id, **wrong})
                elif now.state == "held":
                    self.report.held.append({"file": now.name, "day": day})
                elif now.state == "pending":
                    self.report.failures.append(f"{now.name}: not decided; see the run's log")

    def build_features(self) -> bool:
        """Rebuild exactly the feature days whose inputs changed; False when the run failed."""
        from ct_assets.orchestration import stages

        passed = True
        for view in self.pipeline.names.features:
            days = stages.stale_feature_days(self.installation, self.pipeline, view)
            untold = stages.untold_feature_days(self.installation, self.instance, self.pipeline, view)
            if days or untold:
                self.say(f"{view}: {len(days)} days to build")
                passed = self.execute(self.pipeline.names.feature_job, set(days) | set(untold)) and passed
                left = set(stages.stale_feature_days(self.installation, self.pipeline, view))
                if built := len(set(days) - left):  # of a failed run, what it did build
                    self.report.features_rebuilt[view] = built
        return passed

    def retrain(self) -> None:
        """Train once when the inputs differ from those of the last training."""
        from ct_assets.orchestration import training

        keys = training.due(self.installation, self.instance, self.pipeline)
        if not keys and self.installation.kept.get(training.RELEASED):
            keys = [self.pipeline.names.prediction]
        if not keys:
            return
        self.say("training" if len(keys) > 1 else "forecasting")
        if self.execute(self.pipeline.names.training_job, only=keys):
            self.report.training = training.summary(self.installation, self.instance, self.pipeline)
            if reason := training.held(self.installation, self.instance, self.pipeline):
                release = f"ct run --pipeline {self.pipeline.spec.name} --release-forecast YOUR_NAME"
                self.report.failures.append(
                    f"forecast not published: {reason}\n  readers keep the last good one; if it is right: {release}"
                )

    def execute(self, job: str, days: Iterable[dt.date] = (), only: list[dg.AssetKey] | None = None) -> bool:
        """One Dagster run over ``days`` in this process; whether it succeeded."""
        from ct_assets.orchestration.partitions import coordinated, range_tags

        chosen = list(days)
        tags = coordinated(chosen) if chosen else {}
        if job == self.pipeline.names.feature_job:
            tags |= range_tags(chosen)
        return self.start(job, tags, only)

    def start(self, job: str, tags: Mapping[str, str], only: list[dg.AssetKey] | None = None) -> bool:
        """One Dagster run in this process; whether it succeeded. Raises KeyboardInterrupt when it was interrupted."""
        tags = {"ct/started_by": "ct run", **tags}
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        result = self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance, tags=tags, run_config=quiet, raise_on_error=False, asset_selection=only
        )
        self.report.runs.append(result.run_id)
        if not result.success:
            self.report.failures += failures_of(result)
            if any("DagsterExecutionInterruptedError" in line for line in self.report.failures):
                raise KeyboardInterrupt  # Dagster makes a failed step of it; the person at the terminal meant everything
        if self.stopping():
            raise KeyboardInterrupt
        return result.success


def failures_of(result: dg.ExecuteInProcessResult) -> list[str]:
    """One line per failed step: the innermost message, which is the one that teaches."""
    lines = []
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            lines.append(f"{event.step_key}: {error.message.strip() if error else event.message}")
    return lines or [f"run {result.run_id} failed"]
