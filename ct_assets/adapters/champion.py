"""Model versions and the champion pointer: rows in the ledger, the pointer moved by compare-and-set.

What goes here: registering a version, moving the pointer, their history. What does not: the decision (``training``),
the bytes (``artefacts``), the mirror in the model registry (``registry``).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.artefacts import Artefact
from ct_assets.errors import CtError

if TYPE_CHECKING:
    import psycopg


class PointerMoved(CtError):
    """Somebody else moved the champion pointer since it was read; nothing was changed."""


@dataclass(frozen=True)
class Provenance:
    """From what and how a version was made; enough to make it again."""

    cutoff: dt.date
    known_as_of: dt.datetime | None
    recipe_digest: str
    data_digest: str
    contract_digest: str
    code_version: str
    seed: int


@dataclass(frozen=True)
class Candidate:
    """A trained version about to be registered. ``run_id`` makes registering idempotent (F44)."""

    model: str
    run_id: str
    provenance: Provenance
    artefact: Artefact
    recipe: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    gates: Mapping[str, Any] = field(default_factory=dict)
    decision: str = "refused"


@dataclass(frozen=True)
class ModelVersion:
    """A registered version as the ledger holds it."""

    model: str
    version: int
    run_id: str
    provenance: Provenance
    artefact: Artefact
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]
    gates: Mapping[str, Any]
    decision: str
    created_at: dt.datetime


@dataclass(frozen=True)
class Champion:
    """Where the pointer stands. ``generation`` is what a compare-and-set compares."""

    model: str
    version: int
    generation: int
    decided_at: dt.datetime
    decided_by: str
    reason: str
    mirrored_at: dt.datetime | None


_VERSION = """
    select model, version, run_id, cutoff, known_as_of, recipe_digest, data_digest, contract_digest, code_version, seed,
           artefact_key, artefact_sha256, recipe, metrics, gates, decision, created_at
    from ledger.model_version where model = %s"""


def register(conn: psycopg.Connection, candidate: Candidate) -> int:
    """Add the version and return its number; the same ``run_id`` again returns the number it got before.

    Runs in the caller's transaction; versions of one model are numbered 1, 2, ... without gaps under a lock.
    """
    conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"model:{candidate.model}",))
    there = conn.execute(
        "select version from ledger.model_version where model = %s and run_id = %s", (candidate.model, candidate.run_id)
    ).fetchone()
    if there:
        return there[0]
    p = candidate.provenance
    row = conn.execute(
        """insert into ledger.model_version (model, version, run_id, cutoff, known_as_of, recipe_digest, data_digest,
               contract_digest, code_version, seed, recipe, metrics, gates, decision, artefact_key, artefact_sha256)
           select %(model)s, coalesce(max(version), 0) + 1, %(run_id)s, %(cutoff)s, %(known)s, %(recipe_digest)s,
               %(data_digest)s, %(contract_digest)s, %(code)s, %(seed)s, %(recipe)s, %(metrics)s, %(gates)s,
               %(decision)s, %(key)s, %(sha256)s
           from ledger.model_version where model = %(model)s returning version""",
        {
            "model": candidate.model,
            "run_id": candidate.run_id,
            "cutoff": p.cutoff,
            "known": p.known_as_of,
            "recipe_digest": p.recipe_digest,
            "data_digest": p.data_digest,
            "contract_digest": p.contract_digest,
            "code": p.code_version,
            "seed": p.seed,
            "recipe": _json(candidate.recipe),
            "metrics": _json(candidate.metrics),
            "gates": _json(candidate.gates),
            "decision": candidate.decision,
            "key": candidate.artefact.key,
            "sha256": candidate.artefact.sha256,
        },
    ).fetchone()
    assert row is not None
    return row[0]


def versions(conn: psycopg.Connection, model: str, version: int | None = None) -> list[ModelVersion]:
    """Registered versions of ``model``, oldest first; only ``version`` when given."""
    query, values = _VERSION, [model]
    if version is not None:
        query, values = f"{_VERSION} and version = %s", [model, version]
    return [
        ModelVersion(r[0], r[1], r[2], Provenance(*r[3:10]), Artefact(r[10], r[11]), *r[12:])
        for r in conn.execute(f"{query} order by version".encode(), values).fetchall()
    ]


def models(conn: psycopg.Connection) -> list[str]:
    """Names of all models that have a version."""
    return [row[0] for row in conn.execute("select distinct model from ledger.model_version order by 1").fetchall()]


def champion(conn: psycopg.Connection, model: str) -> Champion | None:
    """The pointer of ``model``, None while no version ever passed its gates."""
    row = conn.execute(
        """select model, version, generation, decided_at, decided_by, reason, mirrored_at
           from ledger.champion where model = %s""",
        (model,),
    ).fetchone()
    return Champion(*row) if row else None


def reading(conn: psycopg.Connection, definition: str, hash_: str) -> list[tuple[str, int]]:
    """(model, version) of the champions that were trained with this version of a definition and read no other."""
    if conn.execute("select to_regclass('ledger.champion')").fetchone() == (None,):
        return []
    rows = conn.execute(
        """select model, version from ledger.champion join ledger.model_version using (model, version)
           where (recipe #>> '{definition,name}', recipe #>> '{definition,hash}') = (%s, %s) order by model""",
        (definition, hash_),
    )
    return rows.fetchall()


@dataclass(frozen=True)
class Leader:
    """A version that leads or has led: what is needed to ask its model."""

    version: int
    cutoff: dt.date
    artefact: Artefact
    trainer: str


def leaders(conn: psycopg.Connection, model: str) -> list[Leader]:
    """Every version that ever led, oldest first; without those that somebody took back for an older one."""
    rows = conn.execute(
        """select version, cutoff, artefact_key, artefact_sha256, recipe ->> 'trainer' from ledger.model_version v
           where model = %s and (
               exists (select from ledger.champion c where (c.model, c.version) = (v.model, v.version))
               or exists (select from ledger.champion_history h where (h.model, h.version) = (v.model, v.version))
               and not exists (select from ledger.champion_history h
                               where (h.model, h.previous) = (v.model, v.version) and h.version < v.version))
           order by version""",
        (model,),
    ).fetchall()
    return [Leader(version, cutoff, Artefact(key, sha256), trainer) for version, cutoff, key, sha256, trainer in rows]


@dataclass(frozen=True)
class Move:
    """A wish to move the pointer: to which version, from which generation (None: there was no champion), by whom, why."""

    model: str
    version: int
    expected: int | None
    by: str
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


def move(conn: psycopg.Connection, wish: Move) -> Champion:
    """Move the pointer when it still stands where ``wish.expected`` says; else :class:`PointerMoved`. Audited.

    Moving to the version that already leads changes nothing (a run that is repeated after a crash).
    """
    before = champion(conn, wish.model)
    if before is not None and before.version == wish.version:
        return before
    if wish.expected is None:
        moved = conn.execute(
            """insert into ledger.champion (model, version, generation, decided_by, reason) values (%s, %s, 1, %s, %s)
               on conflict (model) do nothing returning generation""",
            (wish.model, wish.version, wish.by, wish.reason),
        ).fetchone()
    else:
        moved = conn.execute(
            """update ledger.champion set version = %s, generation = generation + 1, decided_by = %s, reason = %s,
                   decided_at = clock_timestamp(), mirrored_at = null
               where model = %s and generation = %s returning generation""",
            (wish.version, wish.by, wish.reason, wish.model, wish.expected),
        ).fetchone()
    if moved is None:
        raise PointerMoved(
            f"the champion of {wish.model} moved meanwhile (expected generation {wish.expected})",
            hint="compare the candidate with the champion of now: run the pipeline again",
        )
    conn.execute(
        """insert into ledger.champion_history (model, generation, version, previous, decided_by, reason, evidence)
           values (%s, %s, %s, %s, %s, %s, %s)""",
        (
            wish.model,
            moved[0],
            wish.version,
            before.version if before else None,
            wish.by,
            wish.reason,
            _json(wish.evidence),
        ),
    )
    after = champion(conn, wish.model)
    assert after is not None
    return after


def history(conn: psycopg.Connection, model: str) -> list[dict[str, Any]]:
    """Every move of the pointer, oldest first."""
    rows = conn.execute(
        """select generation, version, previous, decided_at, decided_by, reason from ledger.champion_history
           where model = %s order by generation""",
        (model,),
    ).fetchall()
    return [
        dict(zip(("generation", "version", "previous", "decided_at", "decided_by", "reason"), r, strict=True))
        for r in rows
    ]


def _json(value: Mapping[str, Any]) -> str:
    """JSON that PostgreSQL takes: NaN and infinities become null (a gate has already refused them)."""
    return json.dumps(_finite(value), default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
