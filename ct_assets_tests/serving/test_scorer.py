"""What a score says when its features are stale, by the view's policy; the log's bounds. No process, no Feast."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from ct_assets.errors import UsageError
from ct_assets.serving.champion import Follower, Loaded, NoModel, Places
from ct_assets.serving.features import FeatureRows, Freshness, PinnedFeatures
from ct_assets.serving.request_log import RequestLog
from ct_assets.serving.scorer import MAX_ENTITIES, Scorer
from ct_assets.training.propensity import FittedPropensity, Seen

SEEN = Seen("user_activity", "abc", ("n",))


class Tenth:
    """An estimator that says a tenth of the count."""

    def predict_proba(self, values: np.ndarray) -> np.ndarray:
        p = np.nan_to_num(values[:, 0]) / 10
        return np.stack([1 - p, p], axis=1)


class Counted:
    """Features of a view: the count is the user's own number."""

    definition, hash, entity = "user_activity", "abc", "user_id"

    def __init__(self, is_stale: bool | None, nulls: bool) -> None:
        self.nulls_when_stale, self._is_stale = nulls, is_stale

    def checked(self, entities: list[int]) -> list[int]:
        return list(entities)

    def read(self, entities: list[int], columns: tuple[str, ...]) -> FeatureRows:
        frame = pl.DataFrame({name: pl.Series(entities, dtype=pl.Float64) for name in columns})
        return FeatureRows(frame, Freshness(2_000_000, 500_000, 1_500_000, self._is_stale))


class Followed:
    """A champion that is loaded."""

    is_stale = False

    def __init__(self, features: Counted) -> None:
        fitted = FittedPropensity(SEEN, Tenth(), 1.0, 0.0)
        now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        self.current = Loaded("m", 3, 2, fitted, cast("PinnedFeatures", features), now)


def scorer(is_stale: bool | None, nulls: bool, log: RequestLog | None = None) -> Scorer:
    return Scorer(cast("Follower", Followed(Counted(is_stale, nulls))), log)


@pytest.mark.parametrize(
    ("is_stale", "nulls", "scores"),
    [(False, True, [0.1, 0.5]), (True, False, [0.1, 0.5]), (None, True, [0.1, 0.5]), (True, True, [None, None])],
)
def test_stale_features_are_flagged_or_give_null_by_policy(is_stale: bool | None, nulls: bool, scores: list) -> None:
    found = scorer(is_stale, nulls).score([1, 5])
    assert [None if s is None else round(s, 9) for s in found.scores] == scores
    about = found.about()
    assert (about["is_stale"], about["model_version"], about["staleness_seconds"]) == (is_stale, 3, 1.5)
    assert about["watermark"] == "1970-01-01T00:00:00.500000+00:00"


def test_many_are_scored_some_at_a_time_and_too_many_at_once_refused() -> None:
    users = [1] * (MAX_ENTITIES + 1)
    assert [len(part.entities) for part in scorer(False, False).score_many(users)] == [MAX_ENTITIES, 1]
    with pytest.raises(UsageError, match="1001 entities"):
        scorer(False, False).score(users)


def test_the_log_is_bounded_and_its_newest_lines_are_whole(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "a/scores.jsonl", max_bytes=20_000, older_files=2)
    asked = scorer(False, False, log)
    for user in range(500):
        asked.score([user % 10])
    log.close()
    files = sorted((tmp_path / "a").iterdir())
    assert [path.name for path in files] == ["scores.jsonl", "scores.jsonl.1", "scores.jsonl.2"]
    assert sum(path.stat().st_size for path in files) <= 60_000
    lines: list[dict[str, Any]] = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert (lines[-1]["user_id"], lines[-1]["score"], lines[-1]["features"]) == (9, pytest.approx(0.9), {"n": 9.0})
    assert (log.lines, log.lost) == (500, 0)


def test_a_log_that_cannot_be_written_costs_no_answer(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "a/scores.jsonl")
    log.path.mkdir()  # a folder where the file should be
    found = scorer(False, False, log).score([1, 2])
    log.close()
    assert len(found.scores) == 2
    assert (log.lines, log.lost) == (2, 2)


def test_before_the_first_champion_it_says_why(pg_url: str) -> None:
    follower = Follower(Places(pg_url, pg_url, cast("Any", None)), "shop/none", lambda _: None)
    follower.poll()
    with pytest.raises(NoModel, match="no version has passed its gates yet"):
        _ = follower.current
    assert follower.is_stale
    assert follower.status()["version"] is None
    follower.stop()


def test_a_ledger_that_is_away_is_a_problem_and_no_crash() -> None:
    away = "postgresql://nobody@127.0.0.1:1/none"
    follower = Follower(Places(away, away, cast("Any", None)), "shop/none", lambda _: None)
    follower.poll()
    assert follower.status()["problem"] == "the ledger's database is away"


def test_a_feature_beyond_a_double_is_a_text_in_the_answer() -> None:
    """FastAPI refuses to write an infinity, and the answer would be 500 for all who were asked with that user."""

    class Infinite(Counted):
        def read(self, entities: list[int], columns: tuple[str, ...]) -> FeatureRows:
            found = super().read(entities, columns)
            return FeatureRows(found.frame.with_columns(pl.lit(np.inf).alias("n")), found.freshness)

    found = Scorer(cast("Follower", Followed(Infinite(False, False)))).score([1])
    assert [row["features"] for row in found.rows()] == [{"n": "Infinity"}]
