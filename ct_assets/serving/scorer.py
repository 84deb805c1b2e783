"""Scoring: features now, the champion's probability, what to say when the features are stale. HTTP and files use it alike.

What goes here: one function from entities to scores. What does not: HTTP (``app``), reading features (``features``).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ct_assets.errors import UsageError
from ct_assets.json_values import finite

if TYPE_CHECKING:
    from ct_assets.serving.champion import Follower, Loaded
    from ct_assets.serving.features import FeatureRows
    from ct_assets.serving.request_log import RequestLog

MAX_ENTITIES = 1_000  # of one read: bounded memory and time
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Scored:
    """Scores of one call. ``scores``: a probability an entity, None where the view's policy says null for stale values."""

    request_id: str
    model: Loaded
    model_is_stale: bool
    entities: Sequence[Any]
    features: FeatureRows
    scores: Sequence[float | None]

    def about(self) -> dict[str, Any]:
        """What all scores share: request, moment, versions, freshness. JSON values."""
        fresh = self.features.freshness
        return {
            "request_id": self.request_id,
            "at": _text(fresh.at_us),
            "model": self.model.model,
            "model_version": self.model.version,
            "generation": self.model.generation,
            "model_is_stale": self.model_is_stale,
            "definition": self.model.features.definition,
            "definition_hash": self.model.features.hash,
            "watermark": _text(fresh.watermark_us),
            "staleness_seconds": None if fresh.staleness_us is None else fresh.staleness_us / 1e6,
            "is_stale": fresh.is_stale,
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """One a score: the entity, its score, the features that gave it. JSON values."""
        key = self.model.features.entity
        for entity, score, values in zip(self.entities, self.scores, self.features.frame.to_dicts(), strict=True):
            yield {key: entity, "score": score, "features": finite(values)}


class Scorer:
    """The champion asked; every answer is logged."""

    def __init__(self, follower: Follower, log: RequestLog | None = None) -> None:
        """``log`` None: nothing is kept."""
        self.follower, self.log = follower, log
        self.scored = 0

    def score(self, entities: Sequence[Any]) -> Scored:
        """Scores in the order asked. Raises ``NoModel``, ``FeaturesAway``, UsageError for entities of a wrong type."""
        model = self.follower.current  # once: a promotion in between changes the next call, not this one
        known = model.features.checked(entities)
        if len(known) > MAX_ENTITIES:
            raise UsageError(
                f"{len(known)} entities in one call", hint=f"at most {MAX_ENTITIES}; `ct score` takes files"
            )
        found = model.features.read(known, model.fitted.seen.columns)
        scores: list[float | None] = model.fitted.predict(found.frame).tolist()
        if found.freshness.is_stale and model.features.nulls_when_stale:
            scores = [None] * len(known)
        answer = Scored(uuid.uuid4().hex, model, self.follower.is_stale, known, found, scores)
        if self.log is not None:
            self.log.write(answer)
        self.scored += len(known)
        return answer

    def score_many(self, entities: Sequence[Any]) -> Iterator[Scored]:
        """The same for any number, some at a time."""
        for start in range(0, len(entities), MAX_ENTITIES):
            yield self.score(entities[start : start + MAX_ENTITIES])


def _text(moment: int | None) -> str | None:
    return None if moment is None else (_EPOCH + timedelta(microseconds=moment)).isoformat()
