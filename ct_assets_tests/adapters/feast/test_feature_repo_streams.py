"""The project's own `feature_repo` over a live stream: `feast apply`, materialize, `feast serve`, `feast ui`, as a user types them."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ct_assets_tests.features.test_feast_repo import environment
from ct_assets_tests.features.test_feast_serve import REPO, asked, served

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
DEFINITION = ROOT / "ct_assets/defs/growth/shop/streams/user_activity.yaml"
FEATURES = ["user_activity:purchases_5m", "user_activity:spend_5m", "user_activity:clicks_1h"]


def run(env: dict[str, str], cwd: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


def event(number: int, user: int, ago: float, kind: str, amount: str | None = None) -> str:
    at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ago)
    return json.dumps(
        {"event_id": f"e{number}", "user_id": user, "event_time": at.isoformat(), "event_type": kind, "amount": amount}
    )


@pytest.fixture
def env(pg_url: str, tmp_path: Path) -> dict[str, str]:
    """A shop whose worker has read four events; the repository is applied."""
    env = environment(pg_url, tmp_path / "home") | {"PYTHONPATH": str(ROOT), "FEAST_USAGE": "False"}
    lines = [
        event(1, 42, 280, "purchase", "19.90"),
        event(2, 42, 60, "purchase", "5.05"),
        event(3, 42, 30, "click"),
        event(4, 7, 2_000, "click"),
    ]
    lines.sort(key=lambda line: json.loads(line)["event_time"])
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    ct = [sys.executable, "-m", "ct_assets.cli"]
    log = f"log://{tmp_path}/topic"
    run(env, ROOT, *ct, "events", "produce", str(tmp_path / "events.jsonl"), "--to", log, "--partitions", "1")
    run(env, ROOT, *ct, "stream", "run", "--definition", str(DEFINITION), "--source", log, "--until-idle")
    with psycopg.connect(pg_url) as conn:  # the batch view's table, which `feast apply` looks at
        from ct_assets.adapters.feature_tables import FeatureSource, ensure_tables

        ensure_tables(conn, FeatureSource(zone="Europe/London"))
    run(env, REPO, feast(), "apply")
    return env


def feast() -> str:
    return str(Path(sys.executable).with_name("feast"))


def rows(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as conn:
        name = conn.execute("select table_name from stream.definition").fetchone()
        assert name is not None
        return conn.execute(f'select * from online."{name[0]}" order by 1, 2, 3, 4'.encode()).fetchall()


def test_materialize_changes_nothing_and_serve_answers_what_decays(
    env: dict[str, str], pg_url: str, tmp_path: Path
) -> None:
    before = rows(pg_url)
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    run(env, REPO, feast(), "materialize", "-v", "user_activity", (now - day).isoformat(), (now + day).isoformat())
    run(env, REPO, feast(), "materialize-incremental", "-v", "user_activity", (now + 2 * day).isoformat())
    assert rows(pg_url) == before
    log = tmp_path / "serve.log"
    body = {"features": FEATURES, "entities": {"user_id": [42, 7, 99]}}
    with served(env, log) as url:
        found = values(asked(f"{url}/get-online-features", body, log))
        first = found["purchases_5m"][0]  # 2 until the older purchase is 5 minutes old, then 1: nothing is written
        assert first in (1, 2)
        assert found["spend_5m"][0] == {1: 5.05, 2: 24.95}[first]
        assert found["purchases_5m"][1:] == [0, 0]
        assert found["clicks_1h"] == [1, 1, 0]
        service = {"feature_service": "purchase_propensity", "entities": {"user_id": [7, 42]}}
        assert values(asked(f"{url}/get-online-features", service, log))["clicks_1h"] == [1, 1]
        deadline = time.monotonic() + 60
        while first != 1 and time.monotonic() < deadline:
            time.sleep(0.5)
            first = values(asked(f"{url}/get-online-features", body, log))["purchases_5m"][0]
        assert first == 1
    assert rows(pg_url) == before


def test_materialize_of_all_views_passes_those_that_nobody_has_fed(pg_url: str, tmp_path: Path) -> None:
    """A live view without a worker, and a batch view on an installation where no day was published."""
    env = environment(pg_url, tmp_path / "home") | {"PYTHONPATH": str(ROOT), "FEAST_USAGE": "False"}
    run(env, REPO, feast(), "apply")
    now = dt.datetime.now(dt.UTC)
    for command in (("materialize-incremental",), ("materialize", (now - dt.timedelta(days=3)).isoformat())):
        said = run(env, REPO, feast(), *command, now.isoformat())
        assert all(view in said for view in ("user_activity", "product_daily"))
    said = run(env, REPO, sys.executable, "-c", ASKS_FOR_DAYS)
    assert said.startswith("product_daily has no values: no day was published to its table yet")


ASKS_FOR_DAYS = """
import pandas as pd
from feast import FeatureStore
from ct_assets.errors import UsageError
store = FeatureStore(".")
view = store.get_feature_view("product_daily")
keys = {name: [1] for name in store.get_feature_view("product_daily").join_keys}
labels = pd.DataFrame({**keys, "event_timestamp": [pd.Timestamp("2026-01-05", tz="UTC")]})
try:
    store.get_historical_features(labels, [f"product_daily:{view.features[0].name}"]).to_df()
except UsageError as error:
    print(error)
"""


def values(found: dict[str, Any]) -> dict[str, list[Any]]:
    names = [name.split("__")[-1] for name in found["metadata"]["feature_names"]]
    return {name: result["values"] for name, result in zip(names, found["results"], strict=True)}


def test_the_ui_shows_the_live_view(env: dict[str, str], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "ui.log"
    command = [feast(), "ui", "--host", "127.0.0.1", "--port", str(port)]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=REPO, env=env, stdout=out, stderr=out, start_new_session=True) as process,
    ):
        try:
            assert b"<html" in page(f"http://127.0.0.1:{port}/", log)
            listed = page(f"http://127.0.0.1:{port}/api/v1/feature_views?project=ct_assets", log)
            services = page(f"http://127.0.0.1:{port}/api/v1/feature_services?project=ct_assets", log)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert b"user_activity" in listed
    assert all(name in services for name in (b"purchase_propensity", b"demand_7d", b"ct_definition_hash"))


def page(url: str, log: Path) -> bytes:
    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.read()
        except OSError as error:
            if time.monotonic() > deadline:
                pytest.fail(f"{url}: {error}\n{log.read_text()[-3000:]}")
            time.sleep(0.2)


def test_teardown_and_apply_can_follow_each_other_for_ever(pg_url: str, tmp_path: Path) -> None:
    env = environment(pg_url, tmp_path / "home") | {"PYTHONPATH": str(ROOT), "FEAST_USAGE": "False"}
    run(env, REPO, feast(), "apply")
    for _ in range(2):
        run(env, REPO, feast(), "teardown")
        run(env, REPO, feast(), "apply")
        listed = run(env, REPO, feast(), "feature-views", "list")
        assert all(view in listed for view in ("user_activity", "product_daily"))
