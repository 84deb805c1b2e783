"""When an asset runs by itself: named conditions that read as sentences. Dagster's `eager()` is not used.

What goes here: the conditions, each with its trigger, its reset, what it can lose, and why it cannot stampede.
What does not: which asset has which condition (components), what a partition is (`partitions.py`).

Why not `eager()`: it contains `in_latest_time_window()`, so a correction of an older day never rebuilds anything; and
it requests downstream of a failed blocking check. Tick tables with request budgets: `ct_assets_tests/orchestration`.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster_shared.record import copy

from ct_assets.orchestration.partitions import range_tags

PublishedDays = Callable[[], Collection[str]]


class PublishedInLedger(dg.AutomationCondition):
    """True for the partitions whose day the ledger holds as published; asked at every evaluation.

    Asset checks are unpartitioned: a newer pass would unblock an older bad day. This condition gates per partition.
    It needs the ledger, hence a sensor with ``use_user_code_server=True``. ``published`` gives ISO days; when the
    ledger cannot be reached it raises, the tick fails and the next tick evaluates the same triggers (nothing is lost).
    """

    def __init__(self, published: PublishedDays) -> None:
        """``published`` is called once per evaluation that has candidates."""
        self.published = published

    @property
    def name(self) -> str:
        """What the automation tab shows."""
        return "published_in_ledger"

    @property
    def requires_cursor(self) -> bool:
        """Stateless: the ledger is the state."""
        return False

    def kept(self, candidates: Collection[str], published: Collection[str]) -> set[str]:
        """The candidates (ISO days) that this condition is true for."""
        return set(candidates) & set(published)

    def evaluate(self, context: Any) -> dg.AutomationResult:
        """Keep the candidates whose day is published."""
        candidates = context.candidate_subset
        if candidates.is_empty:
            return dg.AutomationResult(context, context.get_empty_subset())
        keys = self.kept(candidates.expensively_compute_partition_keys(), self.published())
        subset = context.asset_graph_view.get_subset_from_partition_keys(context.key, context.partitions_def, keys)
        return dg.AutomationResult(context, subset)


class PublishedStretch(PublishedInLedger):
    """As :class:`PublishedInLedger`, and the closed days between two published ones of the same stretch of candidates.

    Runs are made per unbroken range of partitions: without the closed days one correction of a shop that rests on
    Saturdays was ten runs (seen live), each loading the code again. Asking for a closed day costs nothing:
    the body asks the ledger once more, builds published days only, and no closed day turns green.
    """

    @property
    def name(self) -> str:
        """What the automation tab shows."""
        return "published_in_ledger_or_closed_between"

    def kept(self, candidates: Collection[str], published: Collection[str]) -> set[str]:
        """Every unbroken stretch of candidates, from its first published day to its last."""
        held, kept = set(published), set()
        for stretch in unbroken(candidates):
            there = [at for at, day in enumerate(stretch) if day in held]
            kept.update(stretch[there[0] : there[-1] + 1] if there else ())
        return kept


def unbroken(days: Iterable[str]) -> list[list[str]]:
    """ISO days in order, split where a calendar day is missing."""
    stretches: list[list[str]] = []
    for day in sorted(days):
        if stretches and _ordinal(day) == _ordinal(stretches[-1][-1]) + 1:
            stretches[-1].append(day)
        else:
            stretches.append([day])
    return stretches


def _ordinal(day: str) -> int:
    return dt.date.fromisoformat(day).toordinal()


def changed_since_handled() -> dg.AutomationCondition:
    """An input was materialized after this asset was last requested and after it was last materialized.

    Not Dagster's `since_last_handled()`: its reset is an "or" that drops the times of its parts, so an input that changed
    between a request and the next tick was lost. Each part alone keeps its times, and the later event wins.
    """
    changed = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated())
    requested, updated = dg.AutomationCondition.newly_requested(), dg.AutomationCondition.newly_updated()
    return (changed.since(requested) & changed.since(updated)).with_label("an input changed since it was handled")


def blocking_checks_passed() -> dg.AutomationCondition:
    """No blocking check of an input, or of what an input is made from, fails.

    Two steps up because a rollup is written in the transaction of its lines and the contract's check is on the lines:
    `all_deps_blocking_checks_passed()` alone looks at the rollup, which has no check of its own.
    """
    passed = dg.AutomationCondition.all_deps_blocking_checks_passed()
    return (passed & dg.AutomationCondition.all_deps_match(passed)).with_label("blocking checks passed")


def when_inputs_change_and_the_ledger_holds(published: PublishedDays) -> dg.AutomationCondition:
    """A partitioned asset follows every change of its inputs, however old the day, once per change.

    Trigger: an input partition it is mapped to (look-back included) was materialized since it was last handled.
    Reset: it was requested or materialized itself. Held while it or an input is in progress, while a blocking check of
    an input fails, and for days the ledger does not hold as published (a closed day between two published ones is asked
    for with them, so that one correction is one run; it is not built and never turns green).
    Can lose: nothing while the sensor's cursor lives; a new cursor starts at "now" and sees later changes only
    (`ct run` asks the ledger instead and finds the rest).
    No stampede: edge-triggered (`newly_updated`), a request resets it, so a failing asset is asked once per change; one
    run per unbroken stretch of changed days, whatever their number.
    """
    return (
        changed_since_handled()
        & blocking_checks_passed()
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
        & PublishedStretch(published)
    ).with_label("when inputs change and the ledger holds")


def settled_inputs(published: PublishedDays) -> dg.AutomationCondition:
    """Every input is done: none runs, none of theirs runs, and none is behind its own inputs (failed ones stay behind).

    The last part is what makes a burst one build: `will_be_requested()` would not see it, because it is true only for
    assets that can share a run, and a daily input cannot share one with an unpartitioned asset.
    """
    running = dg.AutomationCondition.in_progress()
    updated = dg.AutomationCondition.newly_updated()
    behind = dg.AutomationCondition.any_deps_match(updated).since(updated) & PublishedInLedger(published)
    open_work = running | dg.AutomationCondition.any_deps_match(running) | behind
    return (~dg.AutomationCondition.any_deps_match(open_work)).with_label("inputs are settled")


@dataclass(frozen=True)
class Cadence:
    """When a training set is due: on new data, or at ticks of ``cron`` in ``time_zone`` when data changed since."""

    new_data: bool = True
    cron: str | None = None
    time_zone: str = "UTC"


def when_inputs_settle(cadence: Cadence, published: PublishedDays) -> dg.AutomationCondition:
    """An unpartitioned asset (training set) is rebuilt once after its inputs changed and came to rest, or on a schedule.

    Trigger: ``new_data``: any input partition was materialized; ``cron``: a tick passed and an input changed since the
    last build (a schedule alone never retrains on unchanged data).
    Reset: requested or materialized. Held while inputs, or their inputs, are running or behind: a burst of corrections
    coalesces into one build, and a partly failed rebuild is waited for (F41).
    Can lose: nothing; a change that arrives while it runs sets the trigger again. A permanently failing input holds
    it for good: the failed run is what needs a person.
    Stampede: at most one request per quiet period, whatever the number of changed partitions.
    """
    due = changed_since_handled()
    if cadence.cron and not cadence.new_data:
        due &= dg.AutomationCondition.cron_tick_passed(cadence.cron, cadence.time_zone).since_last_handled()
    return (
        due & settled_inputs(published) & blocking_checks_passed() & ~dg.AutomationCondition.in_progress()
    ).with_label("when inputs settle")


def on_schedule_after_changes(cron: str | None, time_zone: str = "UTC") -> dg.AutomationCondition:
    """An unpartitioned asset that follows its input at ticks of ``cron`` (None: at once).

    Trigger: the input was materialized since this was handled, and a tick passed. Reset: requested or materialized. Held
    while a blocking check of the input fails: a stream whose online reads cannot be recomputed retrains nothing.
    Can lose: nothing. Stampede: one request a tick.
    """
    due = changed_since_handled()
    if cron:
        due &= dg.AutomationCondition.cron_tick_passed(cron, time_zone).since_last_handled()
    running = dg.AutomationCondition.any_deps_in_progress() | dg.AutomationCondition.in_progress()
    passed = dg.AutomationCondition.all_deps_blocking_checks_passed()
    return (due & passed & ~running).with_label("on schedule after changes")


def after_its_input() -> dg.AutomationCondition:
    """An unpartitioned asset that always follows its one input, in the same run (model after training set, forecast after model).

    Trigger: the input was materialized, or is requested in this very tick. Reset: requested or materialized.
    Can lose: nothing. Stampede: one request per request of the input; a failed run is not asked again by itself.
    """
    follows = dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.newly_updated() | dg.AutomationCondition.will_be_requested()
    ).since_last_handled()
    return (
        follows & ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress()
    ).with_label("after its input")


def in_ranges(requests: Iterable[dg.RunRequest]) -> list[dg.RunRequest]:
    """Requests for single days of the same assets, joined into one request per unbroken stretch of days."""
    joined, daily = [], defaultdict(dict)
    for request in requests:
        if request.partition_key is None or not request.asset_selection:
            joined.append(request)
        else:
            daily[tuple(request.asset_selection)][request.partition_key] = request
    for assets, by_day in daily.items():
        for days in unbroken(by_day):
            first = by_day[days[0]]
            if len(days) == 1:
                joined.append(first)
                continue
            tags = {
                name: value
                for name, value in first.tags.items()
                if name not in ("dagster/partition", "dagster/partition_set")
            }
            span = range_tags([dt.date.fromisoformat(days[0]), dt.date.fromisoformat(days[-1])])
            joined.append(dg.RunRequest(asset_selection=list(assets), tags={**tags, **span}))
    return joined


class TeamSensor(dg.AutomationConditionSensorDefinition):
    """Dagster's automation sensor, with a run per stretch of days.

    Dagster itself has two ways, both seen live: a run per day (49 for one correction), or a backfill, which is shown as
    failed when it ends with days that nobody delivered.
    """

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> Any:
        """One evaluation; its requests joined."""
        data = super().evaluate_tick(context)
        return copy(data, run_requests=in_ranges(data.run_requests or []))


def team_sensors(specs: Iterable[dg.AssetSpec]) -> list[dg.AutomationConditionSensorDefinition]:
    """One automation sensor per team: a sensor over several teams would put their assets into one run.

    Evaluated in user code, because :class:`PublishedInLedger` asks the ledger.
    """
    teams: dict[str, list[dg.AssetKey]] = defaultdict(list)
    for spec in specs:
        for owner in spec.owners:
            teams[owner.removeprefix("team:")].append(spec.key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return [
            TeamSensor(
                name=f"automation_{team.replace('-', '_')}",
                target=dg.AssetSelection.assets(*keys),
                use_user_code_server=True,
                default_status=dg.DefaultSensorStatus.RUNNING,
                minimum_interval_seconds=15,
                run_tags={"team": team},
                emit_backfills=False,
                description=f"Asks for what is due among the assets of team {team}: rebuilds after corrections, retraining.",
            )
            for team, keys in sorted(teams.items())
        ]
