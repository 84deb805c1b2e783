"""What the asset bodies call: the days of a run, brought from the landing area to published tables and features.

What goes here: the order of adapter calls per stage, and what happens when one day fails. What does not: Dagster
assets (components), the work itself (adapters and the pure packages), facts for the UI (`facts.py`).

F41: what is to be done is written to `ledger.run_plan` before the first step, and settled step by step. A day that
fails does not stop the others; the next run resumes what is open.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ct_assets.errors import CtError
from ct_assets.orchestration.resources import Installation

if TYPE_CHECKING:
    import dagster as dg
    import psycopg

    from ct_assets.adapters.feature_tables import FeatureSource
    from ct_assets.adapters.ledger import Delivery
    from ct_assets.adapters.publish import Decision
    from ct_assets.adapters.training_data import SalesTables
    from ct_assets.orchestration.events import DayFact
    from ct_assets.orchestration.names import Names
    from ct_assets.orchestration.pipeline import Pipeline
    from ct_assets.platform.spec import PipelineSpec

Progress = Callable[[str], None]


class SomeDaysFailed(CtError):
    """Some days could not be brought through for technical reasons; the others are done."""


@dataclass
class Outcome:
    """What became of the deliveries of a run."""

    decisions: list[Decision] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # file -> message

    def raise_if_failed(self) -> None:
        """Make a partial failure visible after everything that worked has been told. Rejections are no failures."""
        if self.failed:
            lines = "; ".join(f"{name}: {message}" for name, message in sorted(self.failed.items())[:5])
            raise SomeDaysFailed(
                f"{len(self.failed)} deliveries failed, {len(self.decisions)} went through: {lines}",
                hint="mend the cause; the next run resumes these and only these",
            )


def business_day(delivery: Delivery) -> dt.date:
    """The day a delivery counts for: the one its name says, else the day on which it arrived."""
    return delivery.day or delivery.received_at.astimezone(dt.UTC).date()


def reject_days_outside(conn: psycopg.Connection, pipeline: Pipeline, waiting: Iterable[Delivery]) -> list[Delivery]:
    """Reject what is for a day that has no partition (before `source.start`, or in the future): it alone, with an
    incident; nothing could ever bring it through. Returns the others."""
    from ct_assets.adapters.publish import reject_unread

    left = []
    for delivery in waiting:
        day = business_day(delivery)
        if pipeline.days.has_partition_key(day.isoformat()):
            left.append(delivery)
            continue
        spec = pipeline.spec
        reject_unread(
            conn,
            pipeline.names.lines,
            pipeline.schema,
            delivery,
            f"{day} is no day of pipeline {spec.name}, which has {spec.source.start} to today: rename the file if its day"
            f" is wrong; if it is right, mend `source.start` in {spec.file.name} (or wait for the day) and"
            f" `ct deliver --pipeline {spec.name} --rejected --yes` takes it again",
        )
    return left


def bring_in(installation: Installation, spec: PipelineSpec, days: Iterable[dt.date], say: Progress) -> Outcome:
    """Judge and publish every pending delivery of ``days``, one transaction each, in order of arrival; first the rollups
    whose SQL changed, for every day."""
    from ct_assets.adapters import ledger
    from ct_assets.adapters.datasets import published_dataset
    from ct_assets.adapters.landing import pending
    from ct_assets.adapters.publish import publish_delivery

    wanted, outcome = set(days), Outcome()
    build_rollups_again(installation, spec, say)
    plan_id = f"{spec.name}/publish"
    with installation.ledger() as conn:
        todo = [d for d in pending(conn, spec.name) if business_day(d) in wanted]
        ledger.plan(conn, plan_id, spec.name, [("publish", _step(d)) for d in todo])
    dataset = published_dataset(spec, installation.settings) if todo else None
    for delivery in todo:
        assert dataset is not None
        failure = None
        try:
            outcome.decisions.append(publish_delivery(installation.settings, dataset, delivery))
        except Exception as error:  # noqa: BLE001 - one day must not stop the others; the step fails at its end
            failure = outcome.failed[delivery.name] = f"{type(error).__name__}: {error}"
        with installation.ledger() as conn:
            ledger.settle(conn, plan_id, "publish", _step(delivery), failure)
        say(f"{delivery.name}: {failure or in_words(outcome.decisions[-1])}")
    return outcome


def in_words(decision: Decision) -> str:
    """A decision as one line of a run's log: what was counted, which rules were broken, or what stopped the delivery."""
    verdict = decision.verdict or {}
    rows, wrong = verdict.get("rows") or {}, verdict.get("rejected")
    if wrong:
        where = f"line {wrong['line']}: " if wrong.get("line") else ""
        return f"{decision.state}, nothing was written ({wrong.get('rule')}): {where}{wrong.get('message')}"
    counted = ", ".join(f"{number} {name}" for name, number in rows.items())
    reasons = ", ".join(f"{rule} {number}" for rule, number in (verdict.get("reasons") or {}).items())
    return f"{decision.state}: {counted}" + (f"; rules broken: {reasons}" if reasons else "")


def _step(delivery: Delivery) -> str:
    return f"{business_day(delivery)} #{delivery.delivery_id}"


def data_facts(
    installation: Installation, pipeline: Pipeline, days: Iterable[dt.date] | None
) -> dict[dg.AssetKey, list[DayFact]]:
    """What the ledger holds for ``days`` (None: all), per data asset of the pipeline."""
    from ct_assets.orchestration import facts

    names, wanted = pipeline.names, None if days is None else list(days)
    with installation.ledger() as conn:
        landed = facts.landed(conn, names.pipeline, wanted, dated=pipeline.dated)
        rows = facts.published(conn, names.lines)
    found = {
        names.raw: landed,
        names.clean: facts.clean_facts(rows, wanted),
        names.quarantine: facts.quarantine_facts(rows, wanted),
    }
    return found | {key: facts.rollup_facts(rows, key.path[-1], wanted) for key in names.rollup_keys}


def rollups_behind(installation: Installation, spec: PipelineSpec) -> set[dt.date]:
    """Published days whose rollups were made by other SQL than now: what an edited or added rollup leaves behind."""
    from ct_assets.adapters import rollups
    from ct_assets.adapters.datasets import published_dataset

    with installation.ledger() as conn:
        behind = rollups.days_behind(conn, published_dataset(spec, installation.settings))
    return {day for days in behind.values() for day in days}


def build_rollups_again(installation: Installation, spec: PipelineSpec, say: Progress) -> None:
    """Build the rollups whose SQL changed, of every revision at once; a second run finds nothing to do."""
    from ct_assets.adapters import rollups
    from ct_assets.adapters.datasets import published_dataset

    with installation.ledger() as conn:
        rollups.build_again(conn, published_dataset(spec, installation.settings), say)


def quarantine_plot(installation: Installation, names: Names) -> dict[str, Any]:
    """Rules broken per day over the last delivered days, as metadata."""
    from ct_assets.orchestration import facts, plots

    with installation.ledger() as conn:
        found = facts.quarantine_facts(facts.published(conn, names.lines))
    return {"by reason": plots.quarantine_by_reason([(fact.day, fact.metadata["rules broken"]) for fact in found])}


# -- features ----------------------------------------------------------------------------------------------------------


def feature_source(installation: Installation, pipeline: Pipeline, view: str) -> FeatureSource:
    """A view, the published tables it is built from, and the zone its days end in."""
    from ct_assets.adapters.datasets import code_version
    from ct_assets.adapters.feature_tables import FeatureSource
    from ct_assets.features.spec import VIEWS

    version = installation.settings.code_version or code_version()
    stored = replace(VIEWS[view], name=pipeline.stored(view))
    return FeatureSource(stored, sales_tables(pipeline), pipeline.zone, version)


def sales_tables(pipeline: Pipeline) -> SalesTables:
    """The published tables that this pipeline's features and labels are read from."""
    from ct_assets.adapters.training_data import SalesTables

    names = pipeline.names
    if not names.rollups:
        raise CtError(
            f"pipeline {names.pipeline} has features but no rollup to read",
            hint=f"add `rollups: [sql/<table>.sql]` to {pipeline.spec.file}",
        )
    return SalesTables(names.lines, names.rollups[0])


def stale_feature_days(installation: Installation, pipeline: Pipeline, view: str) -> list[dt.date]:
    """Published days whose features are missing or were made from other revisions: what a correction leaves behind."""
    from ct_assets.adapters.feature_tables import stale_days

    with installation.ledger() as conn:
        return stale_days(conn, feature_source(installation, pipeline, view))


def build_features(installation: Installation, pipeline: Pipeline, view: str, days: Iterable[dt.date]) -> int:
    """Build the days among ``days`` that are stale, in one transaction; how many."""
    from ct_assets.adapters.crash import crash_at
    from ct_assets.adapters.feature_tables import build

    source, crash = feature_source(installation, pipeline, view), crash_at(installation.settings.crash_at)
    with installation.ledger() as conn:
        return len(build(conn, installation.ledger_url, source, days, crash))


def feature_facts(
    installation: Installation, pipeline: Pipeline, view: str, days: Iterable[dt.date] | None
) -> list[DayFact]:
    """What the ledger holds of a feature view of the pipeline for ``days`` (None: all)."""
    from ct_assets.orchestration import facts

    with installation.ledger() as conn:
        return facts.feature_facts(conn, pipeline.stored(view), days)


def untold_feature_days(
    installation: Installation, instance: dg.DagsterInstance, pipeline: Pipeline, view: str
) -> list[dt.date]:
    """Feature days that were built but not told to Dagster (F02)."""
    from ct_assets.orchestration.events import untold

    found = untold(instance, pipeline.names.key("feature", view), feature_facts(installation, pipeline, view, None))
    return [dt.date.fromisoformat(fact.day) for fact in found]
