"""Training the propensity on a stream that a real worker wrote: features and labels by the oracle, promotion, repeats.

Why the oracle is asked for single rows: a feature that sees its own click, or a purchase that came later, would make every
measure better and every total look right.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pytest

from ct_assets.adapters import champion as pointer
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.propensity import (
    MODEL,
    PropensityJob,
    PropensitySet,
    load_version,
    read_propensity_set,
    retrain_propensity,
)
from ct_assets.adapters.storage import LocalStorage
from ct_assets.errors import UsageError
from ct_assets.training.learning import TrainingFailed
from ct_assets_tests.adapters.stream_worker.world import Truth, World, fill, sample, truth_of

pytestmark = pytest.mark.slow
HORIZON, LATENESS, OUT_OF_ORDER = 1_800_000_000, 60_000_000, 10_000_000


@dataclass
class Trained:
    world: World
    truth: Truth
    storage: LocalStorage
    data: PropensitySet

    @property
    def url(self) -> str:
        return self.world.url


@pytest.fixture(scope="module")
def shop(pg_url_module: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """Twelve hours of two thousand users with all the dirt, through a worker."""
    folder = tmp_path_factory.mktemp("propensity")
    world = World(pg_url_module, folder / "log", folder / "home")
    arrivals = sample(seed=7, users=2_000, hours=12, hot_user=True)
    fill(world.folder, arrivals)
    done = world.run("--until-idle")
    assert done.returncode == 0, done.stderr
    data = read_propensity_set(pg_url_module, PropensityJob("read"))
    yield Trained(world, truth_of(arrivals), LocalStorage(folder / "storage"), data)
    world.close()


def test_features_are_what_was_known_at_the_click_and_labels_what_came_after(shop: Trained) -> None:
    frame, truth = shop.data.frame, shop.truth
    names = [aggregate.name for aggregate in truth.definition.aggregates]
    rows = frame.sample(150, seed=1).to_dicts() + frame.filter(pl.col("label") == 1).sample(50, seed=2).to_dicts()
    seen_late = 0
    for row in rows:
        events = truth._of(row["user"])
        then = truth.values_known(row["user"], row["at"], row["at"])
        assert {name: row[name] for name in names} == then
        seen_late += then != truth.values(row["user"], row["at"])
        bought = [e.time for e in events if e.values["event_type"] == "purchase"]
        assert row["label"] == any(row["at"] <= time < row["at"] + HORIZON for time in bought)
    assert seen_late > 0  # late events made a difference somewhere, so that the reading was put to the test


def test_every_mature_click_is_a_row(shop: Trained) -> None:
    """But for a robot's beyond 400 in an hour."""
    complete = shop.data.complete_until
    clicks = [
        e for e in shop.truth.accepted if e.values["event_type"] == "click" and e.time + HORIZON + LATENESS <= complete
    ]
    assert shop.data.clicks == len(clicks)
    robot = 1_000
    assert len(shop.data.frame.filter(pl.col("user") != robot)) == sum(e.values["user_id"] != robot for e in clicks)
    assert sum(e.values["user_id"] == robot for e in clicks) > 10_000
    assert 0 < len(shop.data.frame.filter(pl.col("user") == robot)) < 1_500


def test_nothing_later_than_as_of_is_looked_at(shop: Trained) -> None:
    at = int(shop.data.frame["at"].quantile(0.5) or 0)
    found = read_propensity_set(shop.url, PropensityJob("early", as_of=at))
    assert found.frame["at"].max() + HORIZON + LATENESS <= at - OUT_OF_ORDER
    known = [e for e in shop.truth.accepted if e.known_at <= at and e.values["event_type"] == "purchase"]
    bought: dict[int, list[int]] = {}
    for event in known:
        bought.setdefault(event.values["user_id"], []).append(event.time)
    expected = [
        any(at <= time < at + HORIZON for time in bought.get(user, ()))
        for user, at in found.frame.select("user", "at").rows()
    ]
    assert found.frame["label"].cast(pl.Boolean).to_list() == expected
    assert found.digest != shop.data.digest
    assert found.digest == read_propensity_set(shop.url, PropensityJob("again", as_of=at)).digest


def test_it_is_promoted_once_and_a_repeat_finds_its_version(shop: Trained) -> None:
    job = PropensityJob("first", model="shop/a", code_version="test")
    done = retrain_propensity(shop.url, shop.url, shop.storage, job, shop.data)
    assert done.promoted, done.reason
    again = retrain_propensity(shop.url, shop.url, shop.storage, job, shop.data)
    refresh = retrain_propensity(shop.url, shop.url, shop.storage, replace(job, run_id="second"), shop.data)
    assert (done.version, again.version, refresh.version) == (1, 1, 2)
    assert (refresh.candidate.decision.kind, refresh.promoted) == ("refresh", True)
    with connect(shop.url) as conn:
        leads = pointer.champion(conn, "shop/a")
        version = pointer.versions(conn, "shop/a", 1)[0]
        fitted = load_version(shop.storage, version)
    assert leads is not None
    assert (leads.version, leads.generation) == (2, 2)
    assert version.recipe["definition"]["hash"] == shop.truth.definition.hash == fitted.seen.hash
    assert version.provenance.data_digest == shop.data.digest
    assert fitted.predict(shop.data.frame).tolist() == done.candidate.fitted.predict(shop.data.frame).tolist()


def command(shop: Trained, *words: str) -> subprocess.CompletedProcess[str]:
    """`ct model train` on this stream."""
    train = [sys.executable, "-m", "ct_assets.cli", "model", "train", *words]
    environ = shop.world.environ(CT_STORAGE_URL=f"file://{shop.world.folder.parent / 'storage'}")
    return subprocess.run(train, env=environ, capture_output=True, text=True, timeout=120)


def test_the_command_says_what_is_wrong(shop: Trained) -> None:
    early = command(shop, "shop/d", "--as-of", "2026-01-01T00:00:00Z")
    assert early.returncode == 1
    assert "no labelled clicks" in early.stderr
    wrong = command(shop, "shop/d", "--as-of", "yesterday")
    assert wrong.returncode == 2
    assert "--as-of" in wrong.stderr


def test_a_champion_of_a_retired_definition_version_is_no_evidence(shop: Trained) -> None:
    """Its features cannot be read any more, so nothing shows that the new model is better: a person decides."""
    job = PropensityJob("new", model="shop/b", code_version="test")
    told = command(shop, "shop/b", "--run-id", "old", "--json")
    assert (told.returncode, json.loads(told.stdout)["version"]) == (0, 1), told.stderr
    with connect(shop.url, autocommit=True) as conn:
        conn.execute(
            """update ledger.model_version set recipe = jsonb_set(recipe::jsonb, '{settings,hash}', '"feed"')
               where model = 'shop/b'"""
        )
    done = retrain_propensity(shop.url, shop.url, shop.storage, job, shop.data)
    assert not done.promoted
    assert done.candidate.decision.kind == "challenger"
    assert "no online table 'user_activity' of version feed" in done.reason


def test_before_a_worker_ran_and_before_a_label_matured(shop: Trained, pg_url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no online table 'user_activity'"):
        read_propensity_set(pg_url, PropensityJob("none"))
    early = PropensityJob("early", model="shop/c", as_of=int(shop.data.frame["at"].min() or 0))
    assert read_propensity_set(shop.url, early).summary()["purchase_share"] is None
    with pytest.raises(TrainingFailed, match="no labelled clicks"):
        retrain_propensity(shop.url, shop.url, shop.storage, early)
    with connect(shop.url) as conn:
        assert pointer.versions(conn, "shop/c") == []
    assert MODEL == "shop/purchase_propensity"
