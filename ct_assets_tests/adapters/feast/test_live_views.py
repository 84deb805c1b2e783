"""Live stream views through the real Feast: online values decay, historical ones are as known, other verbs refuse or do nothing.

Feast runs in processes of its own, as a user runs it: its imports take seconds and its warnings are not ours. One process
answers many questions, because each start costs them again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import online, state
from ct_assets.adapters.stream.redis_sync import Twin
from ct_assets.streaming.definition import Definition
from ct_assets.streaming.oracle import Event
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.worlds import START, Given, M, S, Writer

ROOT = Path(__file__).resolve().parents[3]
ONLINE_URL = "online-url.txt"  # of Redis, in a repository whose online side is there
pytestmark = pytest.mark.slow

AGGREGATES = """\
  - {name: n, function: count, window: 5m}
  - {name: spent, function: sum, column: paid, window: 1h, where: {kind: a}}
  - {name: last_kind, function: last, column: kind, window: 1h}
  - {name: flagged, function: last, column: flag, window: 1h}
  - {name: items, function: sum, column: items, window: 1h}
"""
STORE = """\
project: shop
provider: local
registry: registry.db
offline_store: {type: ct_assets.adapters.feast.offline_store.CtOfflineStore}
online_store: {type: ct_assets.adapters.feast.online_store.CtOnlineStore}
entity_key_serialization_version: 3
"""
FEATURES = """\
from datetime import timedelta
from pathlib import Path
import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, PushSource, RequestSource
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64
from ct_assets.adapters.feast.projection import projected

found = projected([Path(__file__).parent / "defs/visits.yaml"])
globals().update(found)
who, visits = found["who"], found["visits"]
source = PostgreSQLSource(name="profile_rows", query="select * from public.profile", timestamp_field="event_timestamp", created_timestamp_column="created")
pushed = PushSource(name="profile_push", batch_source=source)
profile = FeatureView(name="profile", entities=[who], ttl=timedelta(days=2), schema=[Field(name="who", dtype=Int64), Field(name="age", dtype=Int64)], source=pushed)


@on_demand_feature_view(sources=[visits], schema=[Field(name="twice", dtype=Int64)])
def doubled(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"twice": inputs["n"] * 2})


model_v1 = FeatureService(name="model_v1", features=[visits[["n", "spent"]], doubled])
"""


@pytest.fixture(scope="module")
def repo(pg_url_module: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature repository over a stream with events of the last minutes; user 3's event is 6 s short of 5 minutes old."""
    folder = tmp_path_factory.mktemp("feast-repo")
    definition = worlds.definition(folder / "defs", AGGREGATES)
    (folder / "feature_store.yaml").write_text(STORE)
    (folder / "features.py").write_text(FEATURES)
    with connect(pg_url_module, autocommit=True) as conn:
        conn.execute(
            "create table public.profile (who bigint, age bigint, event_timestamp timestamptz, created timestamptz)"
        )
        conn.execute("insert into public.profile values (1, 30, now() - interval '1 day', now() - interval '1 day')")
        stream = state.open_stream(conn, "visits", definition.acceptance, worlds.identity())
        Writer(conn, stream, [online.ensure(conn, stream, definition)]).commit(given_events())
    done = feast(pg_url_module, folder, "apply")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(params=["postgresql", "redis"])
def served(request: pytest.FixtureRequest, pg_url_module: str, repo: Path, tmp_path: Path) -> Path:
    """The repository, its online side in each store: in Redis, the setting is all that differs."""
    if request.param == "postgresql":
        return repo
    url = request.getfixturevalue("redis_url")
    folder = tmp_path / "on-redis"
    shutil.copytree(repo, folder)
    (folder / ONLINE_URL).write_text(url)
    with connect(pg_url_module, autocommit=True) as conn:
        Twin.opened(url, state.find_stream(conn, 1)).sync(conn)
    return folder


def given_events() -> list[Event]:
    now = round(time.time() * 1e6) - START
    return worlds.accepted(
        [
            Given(1, now - 50 * M, paid=Decimal("10.50"), flag=True),
            Given(1, now - 2 * M, kind="b", paid=Decimal("99.00"), flag=False),
            Given(1, now - M, paid=Decimal("0.25"), partition=1),
            Given(2, now - 30 * M),
            *[Given(5, now - 50 * M, items=2**62, partition=2) for _ in range(2)],
        ]
    )


def environment(url: str, folder: Path) -> dict[str, str]:
    there = folder / ONLINE_URL
    return {
        **({"CT_ONLINE_URL": there.read_text()} if there.exists() else {}),
        **os.environ,
        "CT_HOME": str(folder / "home"),
        "CT_DATABASE_URL": url,
        "PYTHONPATH": str(ROOT),
        "FEAST_USAGE": "False",
    }


def feast(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).parent / "feast")
    return subprocess.run(
        [program, *arguments], cwd=folder, env=environment(url, folder), capture_output=True, text=True, timeout=300
    )


def answer(url: str, folder: Path, program: str) -> Any:
    """Run ``program`` (it sets `answer`) with a FeatureStore `store`; the answer comes back as JSON."""
    prelude = (
        "import datetime as dt, json, pandas as pd\nfrom feast import FeatureStore\nstore = FeatureStore('.')\n"
        "def refused(work):\n    try:\n        work()\n    except Exception as error:\n        return f'{type(error).__name__}: {error}'\n    return 'done'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{prelude}{program}\nprint('ANSWER' + json.dumps(answer, default=str))"],
        cwd=folder, env=environment(url, folder), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.rsplit("ANSWER", 1)[1])


def test_a_sum_beyond_64_bits_is_null_online_and_in_training(pg_url_module: str, served: Path) -> None:
    online_values, training = answer(
        pg_url_module,
        served,
        "rows = pd.DataFrame({'who': [5, 77], 'event_timestamp': [pd.Timestamp.now(tz='UTC')] * 2})\n"
        "online = store.get_online_features(['visits:items'], [{'who': 5}, {'who': 77}]).to_dict()['items']\n"
        "known = store.get_historical_features(rows, ['visits:items']).to_df()['items']\n"
        "answer = [online, [None if pd.isna(v) else v for v in known]]",
    )
    assert online_values == training == [None, 0]


def test_online_values_finish_now(pg_url_module: str, served: Path) -> None:
    found = answer(
        pg_url_module,
        served,
        "rows = [{'who': 1}, {'who': 2}, {'who': 77}]\n"
        "response = store.get_online_features(['visits:n', 'visits:spent', 'visits:last_kind', 'visits:flagged', 'profile:age'], rows)\n"
        "service = store.get_online_features(store.get_feature_service('model_v1'), rows).to_dict()\n"
        "stamps = [t.seconds for t in response.proto.results[1].event_timestamps]\n"
        "answer = [response.to_dict(), service, stamps]",
    )
    values, service, stamps = found
    assert values["n"] == [2, 0, 0]
    assert values["spent"] == [10.75, 0.0, 0.0]
    assert values["last_kind"] == ["a", "a", None]
    assert values["flagged"] == [False, None, None]
    assert service["twice"] == [4, 0, 0]
    assert service["spent"] == [10.75, 0.0, 0.0]
    assert (
        time.time() - 3_600 < stamps[0] <= time.time()
    )  # the watermark: partition 0 stands at its newest event - 10 s


def historical(url: str, folder: Path, moments: list[tuple[int, int]], more: str = "") -> dict[str, list[Any]]:
    whos, at = [m[0] for m in moments], [m[1] for m in moments]
    return answer(
        url,
        folder,
        f"frame = pd.DataFrame({{'who': {whos}, 'event_timestamp': pd.to_datetime({at}, unit='us', utc=True), 'label': range({len(at)})}})\n"
        f"job = store.get_historical_features(frame, ['visits:n', 'visits:spent', 'visits:last_kind', 'doubled:twice'{more}])\n"
        "answer = job.to_df().to_dict('list')",
    )


def test_historical_keeps_every_row_and_equals_the_oracle(pg_url_module: str, repo: Path) -> None:
    definition = worlds.definition(repo / "again", AGGREGATES)
    with connect(pg_url_module, autocommit=True) as conn:
        stream = state.find_stream(conn, 1)
        events = [_event(row) for row in state.events(conn, stream).iter_rows(named=True)]
    newest = max(e.time for e in events)
    moments = [(w, newest - d) for w in (1, 2, 77) for d in (-5 * S, -S, 0, M, 40 * M, 100 * M)] * 2
    found = historical(pg_url_module, repo, moments, ", 'profile:age'")
    assert found["label"] == list(range(36))
    assert found["who"] == [m[0] for m in moments]
    assert found["age"][0] == 30.0
    for row, (who, at) in enumerate(moments):
        expected = worlds.expected(definition, events, who, at, known=at)
        assert (found["n"][row], found["twice"][row]) == (expected["n"], 2 * expected["n"])
        assert (found["spent"][row], found["last_kind"][row]) == (float(expected["spent"]), expected["last_kind"])
    assert sum(found["n"]) > 6


def _event(row: dict[str, Any]) -> Event:
    values = {name: row[name] for name in worlds.COLUMNS}
    at = round(row["at_time"].timestamp() * 1e6)
    return Event({**values, "at_time": at}, at, row["_partition"], row["_offset"], row["_known_at"])


def test_reading_is_a_choice_of_the_file(pg_url_module: str, repo: Path, tmp_path: Path) -> None:
    """An event is known a second after it happened: half a second after, as known is one less than corrected."""
    with connect(pg_url_module, autocommit=True) as conn:
        row = conn.execute("select max(max_event_time) from stream.chunk").fetchone()
    assert row is not None
    moments = [(1, row[0] + S // 2)]
    corrected = tmp_path / "corrected"
    shutil.copytree(repo, corrected)
    text = STORE.replace("CtOfflineStore}", "CtOfflineStore, reading: corrected}")
    (corrected / "feature_store.yaml").write_text(text)
    assert historical(pg_url_module, repo, moments)["n"] == [1]
    assert historical(pg_url_module, corrected, moments)["n"] == [2]
    forced = answer(
        pg_url_module,
        corrected,
        f"frame = pd.DataFrame({{'who': [1], 'event_timestamp': pd.to_datetime([{moments[0][1]}], unit='us', utc=True)}})\n"
        "answer = store.get_historical_features(frame, ['visits:n'], filter_by_created_timestamp=True).to_df()['n'].tolist()",
    )
    assert forced == [1]


def test_other_verbs_on_a_live_view_refuse_or_change_nothing(pg_url_module: str, served: Path) -> None:
    before = online_rows(pg_url_module), redis_rows(served)
    found = answer(
        pg_url_module,
        served,
        "now = pd.Timestamp.now(tz='UTC')\n"
        "row = pd.DataFrame({'who': [1], 'n': [999], 'spent': [1.0], 'last_kind': ['z'], 'flagged': [True], 'items': [1], 'event_timestamp': [now], 'created_timestamp': [now]})\n"
        "answer = [refused(lambda: store.write_to_online_store('visits', row)),\n"
        "  refused(lambda: store.write_to_offline_store('visits', row)),\n"
        "  refused(lambda: store.materialize(now - pd.Timedelta(days=3), now + pd.Timedelta(days=1), ['visits'])),\n"
        "  refused(lambda: store.materialize_incremental(now + pd.Timedelta(days=2), ['visits'])),\n"
        "  store.get_online_features(['visits:n'], [{'who': 1}]).to_dict()['n'],\n"
        "  refused(lambda: store.push('visits_events', row)),\n"
        "  refused(lambda: store.write_to_online_store('visits', row.drop(columns='created_timestamp')))]",
    )
    assert found[5].startswith("PushSourceNotFoundException"), "as docs/streaming.md says: Feast does not ask us"
    assert found[6].startswith("KeyError: ")
    assert "created_timestamp" in found[6]
    assert found[0].startswith(
        "LiveView: the view visits is live: its worker writes it from events, 1 rows were refused"
    )
    assert "LiveView: the history of visits is its events" in found[1]
    assert found[2:4] == ["done", "done"]
    assert found[4] != [999]
    assert (online_rows(pg_url_module), redis_rows(served)) == before


def redis_rows(folder: Path) -> dict[bytes, bytes | None]:
    """Everything that the repository's Redis holds; nothing when it has none."""
    if not (folder / ONLINE_URL).exists():
        return {}
    import redis

    with redis.Redis.from_url((folder / ONLINE_URL).read_text()) as client:
        return {name: client.dump(name) for name in client.scan_iter()}  # pyright: ignore[reportReturnType]


def online_rows(url: str) -> list[tuple[Any, ...]]:
    with connect(url) as conn:
        name = conn.execute("select table_name from stream.definition").fetchone()
        assert name is not None
        return conn.execute(f'select * from online."{name[0]}" order by 1, 2, 3, 4'.encode()).fetchall()


def test_ordinary_views_never_go_back_and_obey_their_ttl(pg_url_module: str, served: Path) -> None:
    """Case 22 and after: 100@T then 1@T-1h reads 100; a correction at T created later wins, one created earlier does not."""
    found = answer(
        pg_url_module,
        served,
        "t = pd.Timestamp.now(tz='UTC').floor('s') - pd.Timedelta(hours=1)\n"
        "def put(age, event, created, who=5):\n"
        "    store.push('profile_push', pd.DataFrame({'who': [who], 'age': [age], 'event_timestamp': [event], 'created': [created]}))\n"
        "    return store.get_online_features(['profile:age'], [{'who': who}]).to_dict()['age'][0]\n"
        "hour = pd.Timedelta(hours=1)\n"
        "answer = [put(100, t, t), put(1, t - hour, t + hour), put(2, t, t - hour), put(3, t, t + hour), put(4, t + hour, t),\n"
        "  put(50, t - 49 * hour, t, who=6)]\n"
        "store.materialize(t - 72 * hour, t + 2 * hour, ['profile'])\n"
        "answer.append(store.get_online_features(['profile:age'], [{'who': 5}, {'who': 1}]).to_dict()['age'])",
    )
    assert found == [100, 100, 100, 3, 4, None, [4, 30]]


def test_sampled_reads_are_those_that_were_served(pg_url_module: str, served: Path, tmp_path: Path) -> None:
    from ct_assets.adapters.stream import consistency, versions

    with connect(pg_url_module, autocommit=True) as conn:
        conn.execute("truncate stream.read_sample")
    sampling = tmp_path / "sampling"
    shutil.copytree(served, sampling)
    (sampling / "feature_store.yaml").write_text(STORE.replace("CtOnlineStore}", "CtOnlineStore, sample: 1.0}"))
    answered = answer(
        pg_url_module,
        sampling,
        "answer = store.get_online_features(['visits:n', 'visits:spent'], [{'who': 1}, {'who': 9}]).to_dict()",
    )
    with connect(pg_url_module, autocommit=True) as conn:
        kept = conn.execute("select entity, values from stream.read_sample order by read_sample_id").fetchall()
        report = consistency.recompute(conn, None, versions.find_table(conn, "visits"), 0)
    assert [(row[0], row[1]["n"], float(row[1]["spent"])) for row in kept] == [
        ("1", answered["n"][0], answered["spent"][0]),
        ("9", 0, 0.0),
    ]
    assert (report.reads, report.values, report.mismatches) == (2, 10, 0)


def test_a_view_of_a_version_that_is_not_there_says_so(pg_url_module: str, repo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(repo, other)
    changed = AGGREGATES.replace("window: 5m", "window: 6m")
    definition: Definition = worlds.definition(other / "defs", changed)
    assert feast(pg_url_module, other, "apply").returncode == 0
    found = answer(
        pg_url_module, other, "answer = refused(lambda: store.get_online_features(['visits:n'], [{'who': 1}]))"
    )
    assert f"no online table 'visits' of version {definition.hash[:12]}" in found
