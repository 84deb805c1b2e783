"""`feast serve` as an application uses it: a value asked over HTTP is the one in the published table."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from ct_assets.adapters.feature_tables import FeatureSource, ensure_tables
from ct_assets.features.spec import PRODUCT_DAILY
from ct_assets_tests.features.test_feast_repo import (
    APPLY,
    CODES,
    DAYS,
    REPO,
    ZONE,
    environment,
    in_feast,
    write_version,
)

pytestmark = pytest.mark.slow
START_SECONDS = 90


@contextmanager
def served(env: dict[str, str], log: Path) -> Iterator[str]:
    """A feature server on a free port; its whole process group is ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    feast = Path(sys.executable).with_name("feast")
    command = [str(feast), "serve", "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=REPO, env=env, stdout=out, stderr=out, start_new_session=True) as process,
    ):
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def asked(url: str, body: dict, log: Path) -> dict:
    """The answer to a POST, as soon as the server takes it."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refusal:
            pytest.fail(refusal.read().decode())
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                pytest.fail(log.read_text()[-3000:])
            time.sleep(0.2)


def test_a_value_over_http_is_the_published_one(pg_url: str, tmp_path: Path) -> None:
    name = PRODUCT_DAILY.names[0]
    with psycopg.connect(pg_url) as conn:
        ensure_tables(conn, FeatureSource(zone=ZONE))
        for at, day in enumerate(DAYS[:2]):
            values = {
                code: [float(100 * at + 10 * place)] * len(PRODUCT_DAILY.names) for place, code in enumerate(CODES)
            }
            write_version(conn, day, 1, values, current=True)
        newest = f'select {PRODUCT_DAILY.entity}, "{name}" from feature.{PRODUCT_DAILY.name} where day = %s'
        published = dict(conn.execute(newest.encode(), (DAYS[1],)).fetchall())
    assert set(published) == set(CODES)
    program = f"{APPLY}store.materialize(dt.datetime(2011, 1, 1, tzinfo=dt.UTC), dt.datetime(2011, 6, 1, tzinfo=dt.UTC))\nanswer = 1"
    in_feast(pg_url, tmp_path, program)
    body = {"features": [f"{PRODUCT_DAILY.name}:{name}"], "entities": {PRODUCT_DAILY.entity: list(CODES)}}
    log = tmp_path / "serve.log"
    with served(environment(pg_url, tmp_path), log) as url:
        found = asked(f"{url}/get-online-features", body, log)
    columns = dict(zip(found["metadata"]["feature_names"], found["results"], strict=True))
    assert dict(zip(columns[PRODUCT_DAILY.entity]["values"], columns[name]["values"], strict=True)) == published
