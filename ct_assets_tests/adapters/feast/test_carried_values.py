"""What Feast cannot carry is the same on both sides: times in whole seconds, also before 1970; a key that is null.

What goes here: single values, in a process that may import Feast. What does not: reads through Feast (the other modules here).
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

ASKED = """
import json
from datetime import UTC, datetime
import polars as pl
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from ct_assets.adapters.feast.offline_store import _carried
from ct_assets.adapters.feast.online_store import _entity, value_proto
from ct_assets.errors import UsageError

moments = [datetime(2026, 1, 1, 0, 0, 0, 999_999, UTC), datetime(1969, 12, 31, 23, 59, 59, 1, UTC), datetime(1970, 1, 1, tzinfo=UTC)]
history = _carried(pl.Series("t", moments, pl.Datetime("us", "UTC"))).dt.epoch("us").to_list()
online = [value_proto(moment).unix_timestamp_val for moment in moments]
known = _entity(EntityKey(join_keys=["who"], entity_values=[Value(int64_val=7)]))
try:
    refused = _entity(EntityKey(join_keys=["who"], entity_values=[Value()]))
except UsageError as error:
    refused = str(error)
print(json.dumps([history, online, known, refused]))
"""


@pytest.mark.slow
def test_times_are_the_same_whole_seconds_on_both_sides_and_a_null_key_is_refused_by_its_name() -> None:
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    history, online, known, refused = json.loads(done.stdout.splitlines()[-1])
    assert online == [1_767_225_600, -1, 0]
    assert history == [seconds * 1_000_000 for seconds in online]
    assert known == 7
    assert refused.startswith("the key 'who' is null")
