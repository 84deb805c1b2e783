"""`ct serve` as a process: values as the oracle says, a promotion under load, a database that is stopped and started again.

The worker, the server of the database, the scorer and Feast are real; only the promotion of the second version is a move of
the pointer by hand, because an honest challenger would have to be better.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ct_assets.adapters import champion as pointer
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.postgres.migrate import migrate
from ct_assets.adapters.postgres.server import Server
from ct_assets.adapters.propensity import MODEL, PropensityJob, load_version, retrain_propensity
from ct_assets.adapters.storage import LocalStorage
from ct_assets.adapters.stream import versions
from ct_assets.sampling.arrivals import ArrivalOptions, arrive
from ct_assets.sampling.shoppers import ShopOptions
from ct_assets_tests.adapters.stream_worker.world import DEFINITION, Truth, World, fill, truth_of

pytestmark = pytest.mark.slow
HOURS = 12
WAIT_SECONDS = 60


@dataclass
class Shop:
    """A database server of its own (so that it can be stopped), a stream, a promoted model."""

    server: Server
    world: World
    truth: Truth
    storage: LocalStorage
    users: list[int] = field(default_factory=list)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("serve")
    server = Server(folder / "pg")
    url = server.ensure("ct")
    migrate(url)
    world = World(url, folder / "log", folder / "home")
    start = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(hours=HOURS)
    arrivals = arrive(ArrivalOptions(ShopOptions(2_000, HOURS, 7), start, hot_user=False))
    fill(world.folder, arrivals)
    done = world.run("--until-idle")
    assert done.returncode == 0, done.stderr
    storage = LocalStorage(world.home / "storage")
    trained = retrain_propensity(url, url, storage, PropensityJob("first"))
    assert trained.promoted, trained.reason
    now = time.time() * 1e6
    truth = truth_of(arrivals)
    recent = {e.values["user_id"] for e in truth.accepted if e.time > now - 1.8e9}
    yield Shop(server, world, truth, storage, [*sorted(recent)[:30], 99_999])
    world.close()
    server.stop()


@dataclass
class Served:
    """A running `ct serve`."""

    process: subprocess.Popen[str]
    url: str

    def get(self, path: str) -> tuple[int, Any]:
        return self._asked(urllib.request.Request(self.url + path))

    def score(self, users: Any) -> tuple[int, Any]:
        body = json.dumps({"user_ids": users}).encode()
        return self._asked(
            urllib.request.Request(f"{self.url}/score", body, {"content-type": "application/json"}, method="POST")
        )

    def metrics(self) -> dict[str, float]:
        """Name (and code) -> value of `/metrics`, by Prometheus' own parser."""
        from prometheus_client.parser import text_string_to_metric_families

        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            return {
                " ".join([sample.name, *sample.labels.values()]): sample.value
                for family in families
                for sample in family.samples
            }

    def _asked(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.load(refusal)

    def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + WAIT_SECONDS
        while not (found := condition()):
            assert self.process.poll() is None, "ct serve ended"
            assert time.monotonic() < deadline, self.get("/status")
            time.sleep(0.1)
        return found


@pytest.fixture(scope="module")
def served(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One scorer for all tests (importing Feast takes seconds); a test leaves it answering with a good model."""
    tmp_path = tmp_path_factory.mktemp("served")
    words = ["serve", "--port", "0", "--poll-seconds", "0.1"]
    environ = {**os.environ, "CT_HOME": str(shop.world.home), "CT_DATABASE_URL": shop.world.url}
    with (tmp_path / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ct_assets.cli", *words], env=environ, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url, (tmp_path / "serve.log").read_text()
            yield Served(process, url)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
            assert process.returncode == 0, (tmp_path / "serve.log").read_text()


def moment(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).timestamp() * 1e6)


def as_numbers(values: dict[str, Any]) -> dict[str, float | None]:
    return {name: None if value is None else float(value) for name, value in values.items()}


def test_scores_are_the_champions_over_the_oracles_features(shop: Shop, served: Served) -> None:
    code, answer = served.score(shop.users)
    assert code == 200, answer
    at = moment(answer["at"])
    with connect(shop.world.url) as conn:
        version = pointer.versions(conn, MODEL, answer["model_version"])[0]
        fitted = load_version(shop.storage, version)
    assert answer["definition_hash"] == fitted.seen.hash == shop.truth.definition.hash
    assert [row["user_id"] for row in answer["scores"]] == shop.users
    alive = 0
    for row in answer["scores"]:
        # read within some milliseconds after `at`: an event may leave a window in between
        possible = [as_numbers(shop.truth.values(row["user_id"], at + later)) for later in (0, 20_000)]
        assert row["features"] in possible
        alive += any(row["features"].values())
        frame = pl.DataFrame({name: pl.Series([v], dtype=pl.Float64) for name, v in row["features"].items()})
        assert row["score"] == float(fitted.predict(frame)[0])
    assert alive >= 20
    assert answer["is_stale"] is not None
    assert answer["staleness_seconds"] > 0


def test_every_answer_is_in_the_log(shop: Shop, served: Served) -> None:
    _, answer = served.score(shop.users[:3])
    _, status = served.get("/status")
    lines = [json.loads(line) for line in Path(status["log"]["file"]).read_text().splitlines()]
    mine = [line for line in lines if line["request_id"] == answer["request_id"]]
    shared = {name: value for name, value in answer.items() if name != "scores"}
    assert mine == [{**shared, **row} for row in answer["scores"]]
    assert (status["log"]["lines"], status["log"]["lost"]) == (len(lines), 0)


@pytest.mark.parametrize(
    ("users", "says"),
    [
        (["42"], "the contract says int"),
        ([True], ""),
        ([1.5], ""),
        (42, ""),
        (list(range(1_001)), "at most 1000"),
        ([2**63], "does not fit 64 bits"),
        ([float("nan")], "body.user_ids.0"),
        ([float("inf")], "body.user_ids.0"),
    ],
)
def test_a_question_that_makes_no_sense_is_422(served: Served, users: Any, says: str) -> None:
    code, answer = served.score(users)
    assert code == 422
    assert says in json.dumps(answer)


def test_metrics_count_answers_and_say_which_model_and_how_fresh(shop: Shop, served: Served) -> None:
    before = served.metrics()
    assert served.score(shop.users[:3])[0] == 200
    assert served.score(["42"])[0] == 422
    _, answer = served.score(shop.users[:2])
    after = served.metrics()

    def grown(name: str) -> float:
        return after[name] - before[name]

    assert [grown(f"ct_serve_requests_total {code}") for code in (200, 422, 503)] == [2, 1, 0]
    assert grown("ct_serve_scores_total") == 5
    assert grown("ct_serve_request_seconds_count") == 3
    assert 0 < grown("ct_serve_request_seconds_sum") < 3 * WAIT_SECONDS
    assert after["ct_serve_model_version"] == answer["model_version"]
    assert (after["ct_serve_model_is_stale"], after["ct_serve_features_away"]) == (0, 0)
    assert after["ct_serve_features_staleness_seconds"] >= answer["staleness_seconds"]
    assert after["ct_serve_features_is_stale"] == answer["is_stale"]


def test_nobody_asked_is_an_empty_answer(served: Served) -> None:
    code, answer = served.score([])
    assert (code, answer["scores"]) == (200, [])


def test_a_question_that_json_cannot_repeat_is_422_in_the_form_of_the_others(served: Served) -> None:
    body = b'{"user_ids": [1], "\\ud800": 1}'
    request = urllib.request.Request(f"{served.url}/score", body, {"content-type": "application/json"}, method="POST")
    code, answer = served._asked(request)
    assert (code, set(answer)) == (422, {"error", "hint"})
    assert answer["error"].startswith("body: Input should be a valid string")


def test_a_file_gets_the_same_scores(shop: Shop, served: Served, tmp_path: Path) -> None:
    """Of users without events, because the values of others decay between two calls."""
    users = [900_001, 900_002]
    _, answer = served.score(users)
    (tmp_path / "users.csv").write_text("user_id\n900001\n900002\n")
    (tmp_path / "nobody.csv").write_text("user_id\n")

    def scored(name: str) -> tuple[dict[str, Any], pl.DataFrame]:
        environ = {**os.environ, "CT_HOME": str(shop.world.home), "CT_DATABASE_URL": shop.world.url}
        out = tmp_path / f"{name}.parquet"
        words = ["score", str(tmp_path / f"{name}.csv"), "--out", str(out), "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "ct_assets.cli", *words], env=environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), pl.read_parquet(out)

    said, found = scored("users")
    assert found["user_id"].to_list() == users
    assert found["score"].to_list() == [row["score"] for row in answer["scores"]]
    assert found["model_version"].to_list() == [answer["model_version"]] * 2
    assert (said["rows"], said["model_is_stale"]) == (2, False)
    assert said["is_stale"] == found["is_stale"].any()
    none, nobody = scored("nobody")
    assert (none["rows"], nobody.schema["user_id"]) == (0, pl.Int64)
    assert nobody.columns == found.columns


def test_a_taken_port_and_parquet_called_csv_are_wrong_usage(tmp_path: Path) -> None:
    environ = {**os.environ, "CT_HOME": str(tmp_path / "home")}
    (tmp_path / "users.csv").write_text("user_id\n900001\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for words, says in (
            (["serve", "--port", port], f"cannot listen on 127.0.0.1:{port}"),
            (["score", str(tmp_path / "users.csv"), "--out", str(tmp_path / "s.csv")], "would be Parquet"),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "ct_assets.cli", *words], env=environ, capture_output=True, text=True
            )
            assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_a_file_is_not_written_over_by_its_scores(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id\n900001\n")
    words = ["score", str(tmp_path / "users.csv"), "--out", str(tmp_path / "users.csv")]
    environ = {**os.environ, "CT_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-m", "ct_assets.cli", *words], env=environ, capture_output=True, text=True)
    assert (done.returncode, "is FILE as well" in done.stderr) == (2, True), done.stderr
    assert (tmp_path / "users.csv").read_text() == "user_id\n900001\n"


def test_a_new_version_of_the_definition_does_not_reach_the_model(shop: Shop, served: Served, tmp_path: Path) -> None:
    """Deployed and answering everywhere else: the scorer stays with the version that its model was trained on."""
    shutil.copytree(DEFINITION.parents[1], tmp_path / "shop")
    changed = tmp_path / "shop/streams" / DEFINITION.name
    text = changed.read_text()
    assert "clicks_5m, function: count, window: 5m" in text
    changed.write_text(text.replace("clicks_5m, function: count, window: 5m", "clicks_5m, function: count, window: 1h"))
    environ = {**os.environ, "CT_HOME": str(shop.world.home), "CT_DATABASE_URL": shop.world.url}
    deploy = [sys.executable, "-m", "ct_assets.cli", "stream", "deploy", "--definition", str(changed)]
    done = subprocess.run([*deploy, "--json"], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["switched"]
    try:
        _, answer = served.score(shop.users)
        at = moment(answer["at"])
        assert answer["definition_hash"] == shop.truth.definition.hash
        differ = 0
        for row in answer["scores"]:
            moments = (at, at + 20_000)
            assert row["features"] in [as_numbers(shop.truth.values(row["user_id"], m)) for m in moments]
            differ += row["features"]["clicks_5m"] != row["features"]["clicks_1h"]
        assert differ > 10  # the new version would have answered with the hour's clicks
    finally:
        subprocess.run([*deploy, "--back"], env=environ, check=True, capture_output=True)


def test_a_version_that_the_model_reads_is_not_retired_and_one_that_went_is_named_with_what_brings_it_back(
    shop: Shop, served: Served, tmp_path: Path
) -> None:
    shutil.copytree(DEFINITION.parents[1], tmp_path / "shop")
    changed = tmp_path / "shop/streams" / DEFINITION.name
    changed.write_text(
        changed.read_text().replace("clicks_5m, function: count, window: 5m", "clicks_5m, function: count, window: 2h")
    )
    environ = {**os.environ, "CT_HOME": str(shop.world.home), "CT_DATABASE_URL": shop.world.url}

    def ct(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ct_assets.cli", "stream", *words], env=environ, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    hash_ = shop.truth.definition.hash
    ct("deploy", "--definition", str(changed))
    try:
        said = ct("retire", "--view", "user_activity", "--version", hash_, "--yes", code=1)
        assert f"of {MODEL} leads and reads version {hash_[:12]} of user_activity" in said
        assert served.score(shop.users[:1])[0] == 200
        with connect(shop.world.url, autocommit=True) as conn:  # as somebody may do all the same
            versions.retire(conn, "user_activity", hash_)
        gone = (
            "the table of this version of user_activity is gone"  # for two seconds the driver's error is all there is
        )
        code, answer = served.until(lambda: (found := served.score([1]))[1].get("error") == gone and found)
        assert code == 503
        assert f"`ct stream deploy --no-switch` with the definition file of version {hash_[:12]}" in answer["hint"]
        ct("deploy", "--no-switch", "--definition", str(DEFINITION))
        served.until(lambda: served.score(shop.users[:1])[0] == 200)
    finally:
        ct("deploy", "--definition", str(DEFINITION))


def test_survives_a_promotion_and_a_stop_of_the_database_in_between(shop: Shop, served: Served) -> None:
    second = retrain_propensity(shop.world.url, shop.world.url, shop.storage, PropensityJob("second", seed=8))
    assert not second.promoted  # a seed alone makes no better model
    first = served.score(shop.users)[1]["model_version"]
    seen: list[tuple[int, Any]] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            code, answer = served.score(shop.users[:5])
            seen.append((code, answer.get("model_version")))

    asking = threading.Thread(target=ask)
    asking.start()
    with connect(shop.world.url) as conn:
        leads = pointer.champion(conn, MODEL)
        assert leads is not None
        pointer.move(conn, pointer.Move(MODEL, second.version, leads.generation, "test", "promoted by hand"))
    served.until(lambda: seen and seen[-1][1] == second.version)
    ended.set()
    asking.join()
    assert {code for code, _ in seen} == {200}  # no request failed over the promotion
    assert np.all(np.diff([version for _, version in seen]) >= 0)
    assert {first, second.version} >= {version for _, version in seen}

    shop.server.stop()
    code, answer = served.score(shop.users[:5])
    assert code == 503
    assert answer["error"] == "the stream database is away"
    assert "ct doctor" in answer["hint"]
    assert served.get("/healthz") == (200, {"status": "alive"})
    assert served.get("/readyz")[0] == 503
    state = served.until(lambda: (s := served.get("/status")[1])["model"]["is_stale"] and s)
    assert state["model"]["version"] == second.version  # the last good model stays loaded
    assert state["model"]["problem"] == "the ledger's database is away"  # no address: that is in the log
    assert state["features"]["problem"] == "the stream database is away"

    shop.server.ensure("ct")
    served.until(lambda: served.get("/readyz")[0] == 200)
    served.until(lambda: not served.get("/status")[1]["model"]["is_stale"])
    code, answer = served.score(shop.users)
    assert (code, answer["model_version"], answer["model_is_stale"]) == (200, second.version, False)


@pytest.mark.fault("F45")
def test_f45_a_champion_that_cannot_be_loaded_leaves_the_last_good_one(shop: Shop, served: Served) -> None:
    good = served.score([1])[1]["model_version"]
    with connect(shop.world.url) as conn:
        leads = pointer.champion(conn, MODEL)
        assert leads is not None
        broken = conn.execute(
            """insert into ledger.model_version (model, version, run_id, cutoff, known_as_of, recipe_digest, data_digest,
                   contract_digest, code_version, seed, recipe, metrics, gates, decision, artefact_key, artefact_sha256)
               select model, (select max(version) + 1 from ledger.model_version where model = %s), 'broken', cutoff,
                   known_as_of, recipe_digest, data_digest, contract_digest, code_version, seed, recipe, metrics, gates,
                   decision, artefact_key, repeat('0', 64) from ledger.model_version where model = %s and version = %s
               returning version""",
            (MODEL, MODEL, good),
        ).fetchone()
        assert broken is not None
        moved = pointer.move(conn, pointer.Move(MODEL, broken[0], leads.generation, "test", "a damaged artefact"))
    state = served.until(lambda: (s := served.get("/status")[1])["model"]["problem"] and s)
    assert "sha256" in state["model"]["problem"]
    code, answer = served.score([1])
    assert (code, answer["model_version"], answer["model_is_stale"]) == (200, good, True)
    with connect(shop.world.url) as conn:
        pointer.move(conn, pointer.Move(MODEL, good, moved.generation, "test", "back"))
    served.until(lambda: not served.get("/status")[1]["model"]["is_stale"])
