"""The run loop of a streaming pipeline behind `ct run`: snapshots of complete hours, then verification and one retraining.

What goes here: which runs are due, in which order. What does not: asset bodies, printing; the worker (`ct stream run`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ct_assets.orchestration.runs import RunLoop

if TYPE_CHECKING:
    import dagster as dg

    from ct_assets.orchestration.stream_pipeline import StreamPipeline


@dataclass
class StreamLoop(RunLoop):
    """One pass over one streaming pipeline. What is due is asked of the stream and of Dagster every time."""

    pipeline: StreamPipeline  # pyright: ignore[reportIncompatibleVariableOverride]

    def through(self) -> None:
        """Hours, then the live view, the training set and the model, when an hour is newer than them."""
        self.tell_version()
        if self.bring_hours() and self.behind():
            self.say("training" if self.pipeline.spec.model else "verifying the live view")
            passed = self.start(self.pipeline.names.training_job, {})
            if passed and self.pipeline.spec.model:
                self.report.training = self.summary()

    def tell_version(self) -> None:
        """Everything here is of the version that answers, which need not be that of the file. Raises ``NoStream``."""
        from ct_assets.orchestration.stream_hours import live_table

        with self.installation.stream() as conn:
            answers = live_table(conn, self.pipeline).definition.hash
        mine = self.pipeline.definition
        if answers != mine.hash:
            file = self.pipeline.spec.source.stream
            self.say(
                f"version {answers[:12]} of {mine.name} answers and is used, the file is {mine.hash[:12]}:"
                f" `ct stream deploy --definition {file}` builds and switches"
            )

    def bring_hours(self) -> bool:
        """Build the hours that are due; False when the run failed. Raises ``NoStream``."""
        from ct_assets.orchestration.stream_hours import due_hours
        from ct_assets.orchestration.stream_pipeline import hour_key, hour_tags

        due, _ = due_hours(self.installation, self.instance, self.pipeline)
        if not due:
            return True
        self.say(f"{len(due)} hours, {hour_key(min(due))} to {hour_key(max(due))}")
        passed = self.start(self.pipeline.names.data_job, hour_tags(due))
        if passed:
            self.report.decided["hours complete"] = [hour_key(hour) for hour in sorted(due)]
        return passed

    def behind(self) -> bool:
        """Whether the newest hour is newer than the last thing that is made from it."""
        newest = self._newest(self.pipeline.snapshot)
        return newest > min(self._newest(key) for key in self.pipeline.learnt_keys)

    def _newest(self, key: dg.AssetKey) -> int:
        """Place in the event log of an asset's newest event (made, or seen not to be makeable); -1: none."""
        made = self.instance.fetch_materializations(key, limit=1).records
        seen = self.instance.fetch_observations(key, limit=1).records
        return max((record.storage_id for record in (*made, *seen)), default=-1)

    def summary(self) -> dict[str, Any]:
        """What the last training came to."""
        from ct_assets.adapters import champion

        with self.installation.ledger() as conn:
            versions, leads = champion.versions(conn, self.pipeline.model), champion.champion(conn, self.pipeline.model)
        found: dict[str, Any] = {"model": self.pipeline.model, "champion": leads.version if leads else None}
        trained = self._trained()
        for version in versions:
            if version.version == trained:
                found |= {"version": trained, "decision": version.decision}
        return found

    def _trained(self) -> object:
        """The number of the version that the last training gave; a training that is repeated finds an earlier one."""
        records = self.instance.fetch_materializations(self.pipeline.names.model_key, limit=1).records
        of_this = records and records[0].run_id == self.report.runs[-1]
        made = records[0].asset_materialization if of_this else None
        return made.metadata["version"].value if made is not None and "version" in made.metadata else None
