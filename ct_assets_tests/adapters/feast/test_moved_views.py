"""A process that has read a live view goes on with the right table after the definition moved to another topic.

What goes here: `feast` and the features of `ct serve`, opened before the move. What does not: the move itself
(``stream_worker/test_moved_topic``).
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import deployment, online, state
from ct_assets.adapters.stream.redis_sync import Twin
from ct_assets_tests.adapters.feast.test_live_views import (
    AGGREGATES,
    FEATURES,
    ONLINE_URL,
    STORE,
    answer,
    feast,
)
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.worlds import START, Given, S, Writer

pytestmark = pytest.mark.slow

PROGRAM = """
import os, time
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import versions
from ct_assets.serving.features import PinnedFeatures

url, hash_, moved = os.environ["CT_DATABASE_URL"], HASH, MOVED
pinned = PinnedFeatures(url, "visits", hash_)

def seen():
    feast = store.get_online_features(["visits:n"], [{"who": 1}]).to_dict()["n"][0]
    return [feast, pinned.read([1], ["n"]).frame["n"][0], pinned.freshness().watermark_us]

answer = [seen()]
with connect(url, autocommit=True) as conn:
    versions.switch(conn, "visits", hash_, hash_, 2)
    patience = time.monotonic() + 30
    while seen() != moved and time.monotonic() < patience:
        time.sleep(0.1)
    answer.append(seen())
    versions.retire(conn, "visits", hash_)
answer.append(seen())
"""


@pytest.mark.parametrize("kept_in", ["postgresql", "redis"])
def test_readers_follow_a_definition_to_another_topic(
    pg_url: str, tmp_path: Path, request: pytest.FixtureRequest, kept_in: str
) -> None:
    definition = worlds.definition(tmp_path / "defs", AGGREGATES)
    now = round(time.time() * 1e6) - START
    old = worlds.accepted([Given(1, now - t * S) for t in (40, 30, 20)])
    new = worlds.accepted([Given(1, now - 10 * S)])
    if kept_in == "redis":
        (tmp_path / ONLINE_URL).write_text(request.getfixturevalue("redis_url"))
    with connect(pg_url, autocommit=True) as conn:
        first = state.open_stream(conn, "visits", definition.acceptance, worlds.identity())
        Writer(conn, first, [online.ensure(conn, first, definition)]).commit(old)
        second = state.open_stream(conn, "visits", definition.acceptance, worlds.identity("other"))
        Writer(conn, second, [deployment.register_elsewhere(conn, second, definition)]).commit(new)
        if kept_in == "redis":
            for stream in (first, second):
                Twin.opened((tmp_path / ONLINE_URL).read_text(), stream).sync(conn)
        conn.execute(
            "create table public.profile (who bigint, age bigint, event_timestamp timestamptz, created timestamptz)"
        )
    (tmp_path / "feature_store.yaml").write_text(STORE)
    (tmp_path / "features.py").write_text(FEATURES)
    applied = feast(pg_url, tmp_path, "apply")
    assert applied.returncode == 0, applied.stderr[-3000:]
    assert second.stream_id == 2
    watermarks = [max(e.time for e in events) - 10 * S for events in (old, new)]
    moved = [1, 1.0, watermarks[1]]
    program = PROGRAM.replace("HASH", repr(definition.hash)).replace("MOVED", json.dumps(moved))
    assert answer(pg_url, tmp_path, program) == [[3, 3.0, watermarks[0]], moved, moved]
