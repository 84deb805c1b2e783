"""The propensity model against the stream and the ledger: read labelled clicks, train, judge, register, promote.

What goes here: which events and features a training run reads, and the order of the steps. What does not: labels, models
and gates (``training.propensity*``), the pointer (``champion``), artefacts, assets.

Features are read as they were known at the moment of each click (``stream.training_frames``), from the version of the
definition that the job pins. Labels are read as known at ``as_of``, and only mature ones.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ct_assets.adapters import artefacts
from ct_assets.adapters import champion as pointer
from ct_assets.adapters.crash import Crash, no_crash
from ct_assets.adapters.datasets import code_version
from ct_assets.adapters.postgres.connect import connect

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.training.propensity import FittedPropensity, PropensityRecipe
    from ct_assets.training.propensity_candidate import PropensityCandidate
    from ct_assets.training.propensity_labels import LabelRules, Sampling
    from ct_assets.training.rules import GateRules

MODEL = "shop/purchase_propensity"
VIEW = "user_activity"
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class PropensityJob:
    """What one run is about. Times are microseconds UTC.

    ``hash``: the definition's version (None: the one that answers). ``as_of``: nothing known later is looked at (None:
    the database's now). ``history_days``: how far back from the newest complete moment clicks are read, or to what retention has left whole. ``code_version`` None: of this process.
    """

    run_id: str
    model: str = MODEL
    view: str = VIEW
    hash: str | None = None
    as_of: int | None = None
    history_days: float = 28.0
    seed: int = 7
    rules: GateRules | None = None
    sampling: Sampling | None = None
    code_version: str | None = None
    crash: Crash = no_crash


@dataclass(frozen=True)
class PropensitySet:
    """Labelled clicks with features. ``frame``: ``user, at, label, since_click_s, since_purchase_s, weight`` and a column
    an aggregate; ``clicks``: mature clicks before sampling; ``complete_until``: events before it are all in; ``lacking``:
    rows whose windows reach messages that were given up unread."""

    frame: pl.DataFrame
    table: OnlineTable = field(repr=False)
    rules: LabelRules
    as_of: int
    complete_until: int
    clicks: int
    digest: str
    lacking: int = 0

    @property
    def cutoff(self) -> dt.datetime | None:
        """The newest labelled click."""
        if self.frame.is_empty():
            return None
        return dt.datetime.fromtimestamp(int(self.frame["at"].max()) / 1e6, dt.UTC)  # pyright: ignore[reportArgumentType]

    def summary(self) -> dict[str, Any]:
        """Plain values for metadata."""
        return {
            "clicks": self.clicks,
            "rows": len(self.frame),
            "lacking": self.lacking,
            "users": self.frame["user"].n_unique(),
            "purchase_share": _share(self.frame),
            "cutoff": self.cutoff,
            "as_of": dt.datetime.fromtimestamp(self.as_of / 1e6, dt.UTC),
            "definition": self.table.definition.name,
            "definition_hash": self.table.definition.hash,
            "digest": self.digest,
        }


@dataclass(frozen=True)
class PropensityTrained:
    """What came of it. ``promoted``: the pointer now stands on ``version``; ``candidate`` holds evaluation and gates."""

    version: int
    promoted: bool
    reason: str
    candidate: PropensityCandidate

    def summary(self) -> dict[str, Any]:
        """Plain values for metadata."""
        return {
            "version": self.version,
            "promoted": self.promoted,
            "reason": self.reason,
            **self.candidate.evaluation.summary(),
        }


def read_propensity_set(stream_url: str, job: PropensityJob, storage: Storage | None = None) -> PropensitySet:
    """Mature labelled clicks, sampled, with their features as known at each click. Changes nothing.

    Memory holds users, times and kinds of the history's events, and the features of the sampled clicks. An empty frame
    when no label has matured; UsageError when no worker has run the definition yet.
    """
    from ct_assets.adapters.stream.coverage import in_reach_of_losses
    from ct_assets.adapters.stream.training_frames import computable_from
    from ct_assets.adapters.stream.versions import find_table
    from ct_assets.training.propensity_labels import LabelRules, Sampling, labelled_clicks, sampled

    with connect(stream_url, autocommit=True) as conn:
        table = find_table(conn, job.view, job.hash)
        as_of = job.as_of if job.as_of is not None else _now(conn)
        rules = LabelRules(lateness_us=table.definition.acceptance.allowed_lateness_us)
        complete = _complete_until(conn, table, as_of)
        begin = max(complete - round(job.history_days * DAY_US), computable_from(conn, table) or 0)
        found = _events(conn, table, rules, (begin, as_of), storage)
        clicks = labelled_clicks(found, rules, complete)
        kept = sampled(clicks, job.sampling or Sampling(seed=job.seed))
        frame = with_features(conn, table, kept, storage)
        lacking = in_reach_of_losses(conn, table, frame["at"].to_numpy())
    return PropensitySet(frame, table, rules, as_of, complete, len(clicks), _digest(frame, table), lacking)


def with_features(
    conn: psycopg.Connection, table: OnlineTable, clicks: pl.DataFrame, storage: Storage | None = None
) -> pl.DataFrame:
    """``clicks`` (``user, at``) with a column an aggregate of that version, as known at the moment of each click."""
    from ct_assets.adapters.stream.training_frames import Request, training_frame

    entity = table.definition.entity
    found = training_frame(conn, table, clicks.rename({"user": entity}), Request(storage=storage, tells_losses=False))
    return found.rename({entity: "user"})


def retrain_propensity(
    ledger_url: str, stream_url: str, storage: Storage, job: PropensityJob, data: PropensitySet | None = None
) -> PropensityTrained:
    """Train on the labelled clicks, judge, register the version; move the champion pointer when every gate passed.

    ``data``: what :func:`read_propensity_set` gave (read now when absent). Safe to repeat with the same ``run_id``: a
    version that is registered is found. Raises ``TrainingFailed`` when no model came of it (too few clicks),
    :class:`champion.PointerMoved` when somebody promoted another version meanwhile; the champion stands in both cases.
    """
    from ct_assets.adapters.retraining import Promotion, enter, load_fitted
    from ct_assets.training.propensity import TRAINER, Seen, recipe, short_window_columns
    from ct_assets.training.propensity_candidate import Contest, train
    from ct_assets.training.rules import GateRules

    data = data or read_propensity_set(stream_url, job, storage)
    definition = data.table.definition
    made = recipe(job.seed, Seen.of(definition), data.rules.embargo_us)
    stored: dict[str, artefacts.Artefact] = {}

    def keep(fitted: FittedPropensity) -> tuple[FittedPropensity, int]:
        stored["artefact"] = artefacts.save(storage, job.model, fitted.payload())
        size = len(storage.get(stored["artefact"].key))
        return load_fitted(storage, stored["artefact"], TRAINER), size  # pyright: ignore[reportReturnType]

    with connect(ledger_url) as conn:
        leads = pointer.champion(conn, job.model)
        against = _champion(conn, stream_url, storage, leads, data)
        conn.commit()  # no transaction stays open while the model is trained
        contest = Contest(job.rules or GateRules(), short_window_columns(definition), against)
        candidate = train(data.frame, made, contest, keep)
        decision = candidate.decision
        version = _version(job, data, made, candidate, stored["artefact"])
        promotion = Promotion(leads.generation if leads else None) if decision.promote else None
        number = enter(conn, version, decision.reason, promotion, job.crash)
    return PropensityTrained(number, decision.promote, decision.reason, candidate)


def load_version(storage: Storage, version: pointer.ModelVersion) -> FittedPropensity:
    """A registered version's model, its bytes and types checked. Raises ``ArtefactRefused``, ``StorageError``."""
    from ct_assets.adapters.retraining import load_fitted

    return load_fitted(storage, version.artefact, version.recipe["trainer"])  # pyright: ignore[reportReturnType]


def _champion(
    conn: psycopg.Connection, stream_url: str, storage: Storage, leads: pointer.Champion | None, data: PropensitySet
) -> Any:
    """The champion's recipe and model with a frame of the version that it was trained on; what is missing is no evidence."""
    from ct_assets.training.propensity import rebuild
    from ct_assets.training.propensity_candidate import Champion

    if leads is None:
        return None
    version = pointer.versions(conn, leads.model, leads.version)[0]
    about = version.recipe
    try:
        made = rebuild(about["settings"])
        frame = data.frame
        if made.seen.hash != data.table.definition.hash:
            frame = _as_seen_by(stream_url, storage, made, data)
        return Champion(made, frame, about["cutoff_us"], lambda: load_version(storage, version))
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it: the gates say "insufficient evidence"
        return Champion(None, data.frame, about.get("cutoff_us", 0), None, f"{type(error).__name__}: {error}")


def _as_seen_by(stream_url: str, storage: Storage, made: PropensityRecipe, data: PropensitySet) -> pl.DataFrame:
    from ct_assets.adapters.stream.versions import find_table

    with connect(stream_url, autocommit=True) as conn:
        table = find_table(conn, made.seen.definition, made.seen.hash)
        given = data.frame.select("user", "at", "label", "since_click_s", "since_purchase_s", "weight")
        return with_features(conn, table, given, storage)


def _version(
    job: PropensityJob,
    data: PropensitySet,
    made: PropensityRecipe,
    candidate: PropensityCandidate,
    artefact: artefacts.Artefact,
) -> pointer.Candidate:
    from ct_assets.adapters.retraining import packages
    from ct_assets.training.propensity import TRAINER

    definition, decision, cutoff = data.table.definition, candidate.decision, data.cutoff
    assert cutoff is not None
    return pointer.Candidate(
        model=job.model,
        run_id=job.run_id,
        provenance=pointer.Provenance(
            cutoff=cutoff.date(),
            known_as_of=dt.datetime.fromtimestamp(data.as_of / 1e6, dt.UTC),
            recipe_digest=made.digest,
            data_digest=data.digest,
            contract_digest=definition.acceptance.contract_digest,
            code_version=job.code_version or code_version(),
            seed=job.seed,
        ),
        artefact=artefact,
        recipe={
            "trainer": TRAINER,
            "settings": dict(made.settings),
            "definition": {"name": definition.name, "hash": definition.hash},
            "cutoff_us": int(data.frame["at"].max()),  # pyright: ignore[reportArgumentType]
            "horizon_us": data.rules.horizon_us,
            "packages": packages(),
        },
        metrics={**candidate.evaluation.summary(), "rows": len(data.frame), "seconds": round(candidate.seconds, 2)},
        gates={gate.name: gate.as_json() for gate in decision.gates},
        decision="promoted" if decision.promote else "refused",
    )


def _events(
    conn: psycopg.Connection, table: OnlineTable, rules: LabelRules, span: tuple[int, int], storage: Storage | None
) -> pl.DataFrame:
    """``user, at, kind`` of the clicks and purchases not older than ``span[0]`` and known by ``span[1]``."""
    import polars as pl

    from ct_assets.adapters.stream.chunks import EventQuery, event_frames
    from ct_assets.adapters.stream.state import find_stream

    definition = table.definition
    time = definition.acceptance.event_time
    query = EventQuery(since=span[0], known_by=span[1], columns=(definition.entity, time, rules.column))
    wanted = pl.col(rules.column).is_in([rules.click, rules.purchase])
    frames = [
        frame.filter(wanted).select(
            user=pl.col(definition.entity), at=pl.col(time).dt.epoch("us"), kind=pl.col(rules.column).cast(pl.String)
        )
        for frame in event_frames(conn, find_stream(conn, table.stream_id), query, storage)
    ]
    kind = pl.Int64 if definition.schema.column(definition.entity).type == "integer" else pl.String
    return pl.concat(frames) if frames else pl.DataFrame(schema={"user": kind, "at": pl.Int64, "kind": pl.String})


def _complete_until(conn: psycopg.Connection, table: OnlineTable, as_of: int) -> int:
    """Up to when all events are in: the stream's completeness, not later than a watermark at ``as_of`` could be."""
    acceptance = table.definition.acceptance
    row = conn.execute(
        "select watermark from stream.progress(%s, %s, %s, %s)",
        (table.stream_id, as_of, acceptance.out_of_orderness_us, acceptance.idle_timeout_us),
    ).fetchone()
    watermark = row[0] if row and row[0] is not None else 0
    return min(watermark, as_of - acceptance.out_of_orderness_us)


def _now(conn: psycopg.Connection) -> int:
    row = conn.execute("select (extract(epoch from clock_timestamp()) * 1000000)::bigint").fetchone()
    assert row is not None
    return row[0]


def _digest(frame: pl.DataFrame, table: OnlineTable) -> str:
    """SHA-256 of the rows, their columns and the definition's version."""
    import io

    import polars as pl

    out = io.BytesIO()
    frame.select(sorted(frame.columns)).rechunk().write_ipc_stream(out, compat_level=pl.CompatLevel.oldest())
    return hashlib.sha256(table.definition.hash.encode() + out.getvalue()).hexdigest()


def _share(frame: pl.DataFrame) -> float | None:
    weight = float(frame["weight"].sum())
    return float((frame["weight"] * frame["label"]).sum()) / weight if weight else None
