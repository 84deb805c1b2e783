"""The same definition moves to another topic, or to one that was made again: every command that a message names is run.

Why the old topic holds half of the events: its values are others, so a read of the wrong stream shows.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import versions
from ct_assets.sampling.arrivals import Arrivals
from ct_assets.streaming.definition import load_definition
from ct_assets_tests.adapters.stream_worker.test_second_definition import assert_late_values
from ct_assets_tests.adapters.stream_worker.world import DEFINITION, Truth, World, fill, truth_of


def ct(world: World, *arguments: str, code: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", "ct_assets.cli", "stream", *arguments, "--json"]
    done = subprocess.run(command, env=world.environ(), capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout) if code == 0 else {"said": done.stderr}


def answering(world: World) -> tuple[int, int]:
    """(stream that answers, versions there are)."""
    with connect(world.url, autocommit=True) as conn:
        return versions.find_table(conn, "user_activity").stream_id, len(versions.listed(conn))


@pytest.mark.parametrize("made_again", [False, True])
def test_an_unchanged_definition_moves_to_another_topic_and_back(
    world: World,
    arrivals: Arrivals,
    truth: Truth,
    tmp_path: Path,
    online_url: str | None,
    made_again: bool,
) -> None:
    half = len(arrivals) // 2
    fill(world.folder, arrivals, 0, half)
    assert world.run("--until-idle").returncode == 0
    old_half = truth_of(Arrivals(*(getattr(arrivals, name)[:half] for name in Arrivals.__dataclass_fields__)))
    if made_again:
        shutil.rmtree(world.folder)
    else:
        world.folder = tmp_path / "other"
    fill(world.folder, arrivals)

    refused = world.run("--until-idle")
    assert refused.returncode == 2
    assert "user_activity answers on log://" in refused.stderr
    assert ("as that topic was before it was made again" in refused.stderr) == made_again
    assert f"ct stream deploy --definition {DEFINITION} --source URL" in refused.stderr
    assert len(ct(world, "status")["streams"]) == 1

    assert ct(world, "plan", "--definition", str(DEFINITION))["action"] == "nothing"
    move = ("--definition", str(DEFINITION), "--source", world.source)
    assert ct(world, "plan", *move)["action"] == "new_topic"
    assert len(ct(world, "status")["streams"]) == 1, "a plan changes nothing"
    assert ct(world, "deploy", *move)["action"] == "new_topic"
    assert (ct(world, "plan", *move)["action"], answering(world)) == ("switch", (1, 2))
    unread = ct(world, "deploy", *move)
    assert (unread["switched"], unread["unread"]) == (False, len(arrivals))
    done = world.run("--until-idle")
    assert done.returncode == 0, done.stderr
    unread = ct(world, "deploy", *move)
    assert (unread["switched"], unread["unread"], answering(world)) == (False, 0, (1, 2))
    definition = load_definition(DEFINITION)
    assert_late_values(world, old_half, definition, online_url)

    assert ct(world, "deploy", *move, "--yes")["switched"] is True
    assert ct(world, "plan", *move)["action"] == "nothing"
    stream, _ = answering(world)
    assert stream != 1
    assert_late_values(world, truth, definition, online_url)
    assert ct(world, "deploy", "--definition", str(DEFINITION), "--back")["stream_id"] == 1
    assert_late_values(world, old_half, definition, online_url)
    assert ct(world, "deploy", *move, "--yes")["switched"] is True
    ct(world, "retire", "--view", "user_activity", "--version", definition.hash[:12], "--yes")
    assert answering(world) == (stream, 1)
    assert_late_values(world, truth, definition, online_url)
