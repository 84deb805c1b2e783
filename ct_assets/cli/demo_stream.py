"""The streaming part of `ct demo`: a shop's events, a worker killed in the middle, values equal to the oracle, decay.

What goes here: the chapters, their order and what is claimed. What does not: what the specification says of the same
messages (``demo_oracle``), the model and its scores (``demo_scores``), the sample (``ct_assets.sampling``).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ct_assets
from ct_assets.cli import demo_scores
from ct_assets.cli.demo_scores import HOURS
from ct_assets.cli.demo_story import ClaimFailed, environment
from ct_assets.cli.output import say

if TYPE_CHECKING:
    from ct_assets.cli.demo_oracle import Truth
    from ct_assets.cli.demo_story import Story

DEFINITION = Path(ct_assets.__file__).parent / "defs/growth/shop/streams/user_activity.yaml"
USERS = 2_000
QUESTIONS = 400
CRASH = "online_midway*12"  # in the middle of the twelfth commit: offsets and events written, online rows not


def tell(story: Story, kafka: bool) -> None:
    """The chapters in order."""
    from ct_assets.adapters.events.broker import Broker

    broker = Broker(story.home / "kafka") if kafka else None
    try:
        url = f"log://{story.home / 'shop-events'}"
        if broker is not None:
            story.chapter("a Kafka broker")
            url = f"kafka://{broker.start()}/shop-events"
            story.result(url)
        _stream(story, url)
    finally:
        if broker is not None:
            broker.stop()


def _stream(story: Story, url: str) -> None:
    _sample(story, url)
    _killed(story, url)
    truth = _equal(story, url)
    _decay(story, truth)
    demo_scores.tell(story, truth)


def _sample(story: Story, url: str) -> None:
    story.chapter(f"{HOURS} hours of a shop's events, ending now, with planted dirt")
    folder = story.home / "events"
    shape = ("--users", USERS, "--hours", HOURS, "--seed", story.seed, "--end-now")
    story.ct("sample", "events", *shape, "--out", folder, "--to", url)
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    planted = sum(count for name, count in truth["planted"].items() if name != "clean")
    story.result(f"{truth['messages']:,} messages of {USERS:,} users, {planted:,} of them with something planted")


def _killed(story: Story, url: str) -> None:
    """A worker dies of SIGKILL between two writes of one commit; the next one goes on."""
    story.chapter("a worker is killed in the middle of a commit; the next one goes on")
    words = ["stream", "run", "--definition", str(DEFINITION), "--source", url, "--until-idle"]
    say(f"   $ CT_CRASH_AT={CRASH} ct {' '.join(words[:2])} ... --max-messages 5000")
    died = subprocess.run(
        [sys.executable, "-m", "ct_assets.cli", *words, "--max-messages", "5000"],
        env=environment(story.home) | {"CT_CRASH_AT": CRASH},
        stderr=subprocess.PIPE,
        text=True,
    )
    if died.returncode != -signal.SIGKILL:
        raise ClaimFailed(f"the worker was to be killed, but ended with {died.returncode}:\n{died.stderr[-2000:]}")
    story.claim("the worker died of SIGKILL (kill -9)", died.returncode, -signal.SIGKILL)
    told = story.ct(*words, "--json")
    summary = json.loads(told.strip().splitlines()[-1])
    story.result(f"{summary['messages']:,} messages were left to do: {summary['seconds']:.1f} s")


def _equal(story: Story, url: str) -> Truth:
    """All that was committed equals what the specification says of the same messages."""
    from ct_assets.cli.demo_oracle import committed, judge, offline_values, online_values

    story.chapter("equal to the specification, a brute-force oracle in plain Python")
    truth = judge(story.home, url, DEFINITION)
    found = committed(story.home, truth.definition.name)
    story.claim(f"all {truth.messages:,} messages were read, none twice", found["offsets"], truth.messages)
    story.claim(f"{len(truth.accepted):,} events were accepted, the same ones", found["places"], truth.places)
    dead = ", ".join(f"{count} {reason}" for reason, count in sorted(truth.dead.items()))
    story.claim(f"dead letters by reason: {dead}", found["dead"], dict(truth.dead))
    story.claim(f"{truth.duplicates:,} repeats were dropped", found["duplicates"], truth.duplicates)
    asked = truth.questions(QUESTIONS)
    expected = [truth.values(user, at) for user, at in asked]
    alive = sum(any(values.values()) for values in expected)
    names = len(truth.definition.aggregates)
    story.claim(
        f"{len(asked)} x {names} online values on the edges of windows equal the oracle's ({alive} with something in them)",
        online_values(story.home, truth.definition.name, asked),
        expected,
    )
    story.claim(
        "the same questions answered offline, as a training set: equal",
        offline_values(story.home, truth.definition.name, asked),
        expected,
    )
    story.result(f"{len(asked) * names:,} values online and offline, 0 differ")
    return truth


def _decay(story: Story, truth: Truth) -> None:
    """A count falls by itself: read before and after an event leaves the window, with no new event in between."""
    from ct_assets.streaming.times import microseconds

    story.chapter("a feature decays while nobody writes")
    name, user, leaves = truth.next_to_leave(time.time_ns() // 1000)
    reads = []
    for moment in (None, leaves):
        if moment is not None:
            time.sleep(max(0.0, moment / 1e6 - time.time()) + 0.05)
        read = _feature(story, user)
        at = microseconds(read["at"])
        expected = truth.values(user, at)
        story.claim(f"user {user} at {read['at'][11:23]}: {name} = {read[name]}", read[name], expected[name])
        reads.append(read[name])
    story.claim(f"{name} fell with no new event: {reads[0]} -> {reads[1]}", reads[1] < reads[0])
    story.result(f"{name} of user {user}: {reads[0]} -> {reads[1]}")


def _feature(story: Story, user: int) -> dict[str, Any]:
    told = story.ct("features", "get", "--view", "user_activity", "--entity", f"user_id={user}", "--json")
    return json.loads(told.strip().splitlines()[-1])
