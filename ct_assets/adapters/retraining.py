"""Training against the ledger: read, evaluate, refit, store, decide, move the pointer; then publish forecasts.

What goes here: the order of the steps and what is one transaction. What does not: what a gate says (``training.gates``),
the tables' own rules (``champion``, ``forecasts``, ``artefacts``), assets.

The artefact is stored first, under its digest; then ONE transaction registers the version and moves the pointer, so a
crash leaves either the old champion or the new one, and a run that is repeated finds its version by its run id (F44).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ct_assets.adapters import artefacts, forecasts
from ct_assets.adapters import champion as pointer
from ct_assets.adapters.crash import Crash, no_crash
from ct_assets.adapters.datasets import code_version
from ct_assets.adapters.folds import LedgerFolds
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.training_data import SALES, SalesTables, Window, read_sales
from ct_assets.errors import CtError

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.training.candidate import Candidate, Dataset, Incumbent
    from ct_assets.training.gates import GateRules
    from ct_assets.training.plausibility import Bounds
    from ct_assets.training.recipe import Fitted, Recipe


class NoChampion(CtError):
    """No version has passed its gates yet, so there is nothing to forecast with."""


@dataclass(frozen=True)
class TrainingJob:
    """What one training run is about. ``rules``: the pipeline's gates; ``code_version`` None: of this process;
    ``bounds`` None: a forecast is published whatever its size (somebody released it)."""

    model: str
    trainer: str
    run_id: str
    seed: int = 7
    rules: GateRules | None = None
    code_version: str | None = None
    tables: SalesTables = SALES
    crash: Crash = no_crash
    bounds: Bounds | None = None


@dataclass(frozen=True)
class Trained:
    """What came of it. ``promoted``: the pointer now stands on ``version``."""

    version: int
    promoted: bool
    reason: str
    candidate: Candidate


@dataclass(frozen=True)
class TrainingInputs:
    """The data of a run, read once: what the training-set asset shows and the model asset learns from."""

    data: Dataset
    contract_digest: str
    known_as_of: dt.datetime


def read_inputs(url: str, window: Window | None = None, tables: SalesTables | None = None) -> TrainingInputs:
    """Read the published sales and make the panel, the fold origins and the digests."""
    from ct_assets.training.candidate import dataset

    sales = read_sales(url, window, tables)
    with connect(url) as conn:
        row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    known = window.known_as_of if window is not None and window.known_as_of is not None else row[0]
    return TrainingInputs(dataset(sales.daily, sales.lines, revisions=sales.revisions), sales.contract_digest, known)


def train_candidate(url: str, storage: Storage, job: TrainingJob, inputs: TrainingInputs | None = None) -> Trained:
    """Train, judge, register; move the champion pointer when every gate passed.

    Raises ``TrainingFailed`` when no model came of it, :class:`champion.PointerMoved` when somebody promoted another
    version meanwhile; the champion stands in both cases.
    """
    from ct_assets.training.candidate import Contest, load_recipe, train
    from ct_assets.training.gates import GateRules

    inputs = inputs or read_inputs(url, tables=job.tables)
    recipe = load_recipe(job.trainer, job.seed)
    stored: dict[str, artefacts.Artefact] = {}

    def keep(fitted: Fitted) -> tuple[Fitted, int]:
        stored["artefact"] = artefacts.save(storage, job.model, fitted.payload())
        return load_fitted(storage, stored["artefact"], job.trainer), len(storage.get(stored["artefact"].key))

    with connect(url) as conn:
        leads = pointer.champion(conn, job.model)
        champion = champion_recipe(conn, job.model, recipe)
        kept = LedgerFolds(conn, job.model)
        contest = Contest(champion, _incumbents(conn, storage, job.model), job.rules or GateRules(), kept)
        candidate = train(inputs.data, recipe, contest, keep)
        conn.commit()  # the folds are worth keeping whatever happens next
        decision = candidate.decision
        made = _registered(job, inputs, recipe, candidate, stored["artefact"])
        expected = leads.generation if leads else None
        version = enter(conn, made, decision.reason, Promotion(expected) if decision.promote else None, job.crash)
    return Trained(version, decision.promote, decision.reason, candidate)


def _incumbents(conn: psycopg.Connection, storage: Storage, model: str) -> list[Incumbent]:
    """The stored models of all that ever led; one is loaded, when there are weeks to judge it by."""
    from ct_assets.training.candidate import Incumbent

    return [
        Incumbent(led.version, led.cutoff, partial(load_fitted, storage, led.artefact, led.trainer))
        for led in pointer.leaders(conn, model)
    ]


@dataclass(frozen=True)
class Promotion:
    """A wish to lead, from the generation that was read before the training (None: there was no champion)."""

    expected: int | None


def enter(
    conn: psycopg.Connection,
    made: pointer.Candidate,
    reason: str,
    promotion: Promotion | None,
    crash: Crash = no_crash,
) -> int:
    """Register a version and, when it is to lead, move the pointer to it: one transaction. Returns its number."""
    with conn.transaction():
        version = pointer.register(conn, made)
        crash("registered")
        if promotion is not None:
            wish = pointer.Move(made.model, version, promotion.expected, f"run {made.run_id}", reason)
            pointer.move(conn, wish)
            crash("promoted")
    return version


def _registered(
    job: TrainingJob, inputs: TrainingInputs, recipe: Recipe, candidate: Candidate, artefact: artefacts.Artefact
) -> pointer.Candidate:
    decision = candidate.decision
    return pointer.Candidate(
        model=job.model,
        run_id=job.run_id,
        provenance=pointer.Provenance(
            cutoff=inputs.data.cutoff,
            known_as_of=inputs.known_as_of,
            recipe_digest=recipe.digest,
            data_digest=inputs.data.digest,
            contract_digest=inputs.contract_digest,
            code_version=job.code_version or code_version(),
            seed=job.seed,
        ),
        artefact=artefact,
        recipe={"trainer": job.trainer, "settings": dict(recipe.settings), "packages": packages()},
        metrics={**candidate.evaluation.summary(), "rows": candidate.rows, "seconds": round(candidate.seconds, 2)},
        gates={gate.name: gate.as_json() for gate in decision.gates},
        decision="promoted" if decision.promote else "refused",
    )


def packages() -> dict[str, str]:
    """Versions of what a model depends on, and a digest of every installed package (the lock as it really is)."""
    import hashlib
    from importlib.metadata import distributions

    found = {d.metadata["Name"].lower(): d.version for d in distributions() if d.metadata["Name"]}
    listing = "\n".join(f"{name}=={version}" for name, version in sorted(found.items()))
    named = {name: found[name] for name in ("scikit-learn", "numpy", "polars", "skops") if name in found}
    return {**named, "installed_sha256": hashlib.sha256(listing.encode()).hexdigest()}


def champion_recipe(conn: psycopg.Connection, model: str, candidate: Recipe) -> Recipe | None:
    """The champion's recipe, ready to be refitted; None while there is no champion.

    The candidate's own when the digests agree (a refresh). A champion of another recipe is rebuilt from its stored
    settings; where that is impossible (an own Recipe class), one that cannot be fitted stands in, so that the gates
    say "insufficient evidence" instead of passing over it.
    """
    from ct_assets.training.recipe import rebuild

    leads = pointer.champion(conn, model)
    if leads is None:
        return None
    version = pointer.versions(conn, model, leads.version)[0]
    if version.provenance.recipe_digest == candidate.digest:
        return candidate
    try:
        return rebuild(version.recipe["settings"])
    except (KeyError, ValueError):
        return _Unfittable(version.provenance.recipe_digest)


@dataclass(frozen=True)
class _Unfittable:
    digest: str
    name: str = "a recipe that this code cannot make"

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    def fit(self, frame: Any) -> Fitted:
        from ct_assets.training.recipe import TrainingFailed

        raise TrainingFailed(f"{self.name} cannot be refitted")


def load_fitted(storage: Storage, artefact: artefacts.Artefact, trainer: str) -> Fitted:
    """A stored model, checked and restored. ``trainer``'s module may declare ``trusted_types`` and its own ``restore``."""
    import importlib

    from ct_assets.training.recipe import restore

    module = importlib.import_module(trainer.partition(":")[0])
    payload = artefacts.load(storage, artefact, frozenset(getattr(module, "trusted_types", ())))
    return getattr(module, "restore", restore)(payload)


def publish_forecasts(
    url: str, storage: Storage, job: TrainingJob, inputs: TrainingInputs | None = None
) -> dict[str, Any]:
    """Forecast with the champion and publish in one transaction; what was published before stays until then.

    Raises :class:`NoChampion`, ``ArtefactRefused``, ``ForecastRefused`` or ``ImplausibleForecast``: readers keep the last
    good forecast.
    """
    from ct_assets.training.candidate import forecast
    from ct_assets.training.plausibility import refuse_implausible

    inputs = inputs or read_inputs(url, tables=job.tables)
    with connect(url) as conn:
        leads = pointer.champion(conn, job.model)
        if leads is None:
            raise NoChampion(
                f"model {job.model} has no champion yet: no version passed its gates",
                hint=f"`ct model show {job.model}`",
            )
        version = pointer.versions(conn, job.model, leads.version)[0]
        fitted = load_fitted(storage, version.artefact, version.recipe["trainer"])
        week = forecast(fitted, inputs.data.panel)
        if job.bounds is not None:
            refuse_implausible(week, inputs.data.panel, job.bounds)
        forecasts.publish(
            conn,
            forecasts.Forecast(
                prediction=job.model,
                entity="stock_code",
                model=job.model,
                model_version=version.version,
                as_of=week.as_of,
                daily=week.daily,
                totals=week.totals,
            ),
            job.crash,
        )
    return {
        "model_version": version.version,
        "as_of": week.as_of,
        "products": len(week.totals),
        "rows": len(week.daily),
    }
