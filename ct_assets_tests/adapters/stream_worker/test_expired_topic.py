"""A changed contract is judged from a topic whose beginning has expired: what is lost is counted, and nothing switches by itself.

Why the values compared at the end are equal all the same: the oldest segments are far behind every window, so only the
count of the stored events tells that history would go.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ct_assets.adapters.events import log_segments
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import state, versions
from ct_assets.sampling.arrivals import Arrivals
from ct_assets.streaming.definition import load_definition
from ct_assets_tests.adapters.stream_worker.test_moved_topic import answering, ct
from ct_assets_tests.adapters.stream_worker.world import DEFINITION, World, fill

CONTRACT = DEFINITION.parent.parent / "contracts/shop_events.odcs.yaml"


def changed(folder: Path) -> Path:
    """The same aggregates over a contract that knows one more kind of event."""
    contract = (
        CONTRACT.read_text().replace("version: 1.0.0", "version: 1.1.0").replace("[click, cart", "[click, view, cart")
    )
    (folder / "events.odcs.yaml").write_text(contract)
    path = folder / "user_activity.yaml"
    path.write_text(DEFINITION.read_text().replace("../contracts/shop_events.odcs.yaml", "events.odcs.yaml"))
    assert load_definition(path).acceptance != load_definition(DEFINITION).acceptance
    return path


def test_a_topic_that_lost_its_beginning_is_switched_to_only_with_yes(
    world: World, arrivals: Arrivals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_segments, "SEGMENT_BYTES", 2_000)
    for begin in range(0, len(arrivals), 200):
        fill(world.folder, arrivals, begin, begin + 200)
    assert world.run("--until-idle").returncode == 0
    middle = int(pl.Series(arrivals.append_time).quantile(0.3) or 0)
    begins = {}
    for number in range(4):
        folder = world.folder / f"p{number:05d}"
        assert log_segments.delete_segments_before(folder, middle) > 0
        begins[number] = log_segments.segments(folder)[0]
    with connect(world.url, autocommit=True) as conn:
        stored = state.events(conn, state.find_stream(conn, 1))
    gone = sum(len(stored.filter(pl.col("_partition") == p, pl.col("_offset") < first)) for p, first in begins.items())
    assert 0 < gone < len(stored) / 2
    said = f"{gone:,} stored events are no longer in the topic"

    new = ("--definition", str(changed(tmp_path)))
    seen = ct(world, "plan", *new, "--source", world.source)
    assert (seen["action"], seen["events_gone"]) == ("new_stream", gone)
    assert seen["topic_begins"] == {str(p): first for p, first in begins.items()}
    unseen = ct(world, "plan", *new)
    assert (unseen["action"], unseen["events_gone"]) == ("new_stream", None)
    assert ct(world, "deploy", *new, "--source", world.source)["events_gone"] == gone
    assert "not read yet" in ct(world, "deploy", *new, code=1)["said"], (
        "nothing of the topic is read: nothing to switch to"
    )

    world.definition = Path(new[1])
    assert world.run("--until-idle").returncode == 0
    assert ct(world, "plan", *new)["events_gone"] == gone, "what was read says it, without asking the topic"
    refused = ct(world, "deploy", *new, code=1)["said"]
    assert said in refused
    assert "nothing was switched" in refused
    assert answering(world) == (1, 2)
    beside = ct(world, "deploy", *new, "--no-switch")
    assert (beside["switched"], beside["different"], beside["events_gone"]) == (False, 0, gone)
    done = ct(world, "deploy", *new, "--yes")
    assert (done["switched"], done["events_gone"], answering(world)) == (True, gone, (2, 2))
    assert ct(world, "deploy", "--definition", str(DEFINITION), "--back")["stream_id"] == 1


def test_a_whole_topic_switches_without_yes(world: World, arrivals: Arrivals, tmp_path: Path) -> None:
    fill(world.folder, arrivals)
    assert world.run("--until-idle").returncode == 0
    world.definition = changed(tmp_path)
    new = ("--definition", str(world.definition))
    assert ct(world, "deploy", *new)["action"] == "new_stream"
    assert world.run("--until-idle").returncode == 0
    done = ct(world, "deploy", *new)
    assert (done["switched"], done["different"], done["events_gone"], answering(world)) == (True, 0, 0, (2, 2))
    with connect(world.url, autocommit=True) as conn:
        assert versions.find_table(conn, "user_activity").stream_id == 2
