"""The end of the streaming part of `ct demo`: a model trained on the stream, promoted, asked in a batch and over HTTP.

What goes here: the chapters and what is claimed. What does not: what the specification says of a user (``demo_oracle``).
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ct_assets.cli.demo_story import ClaimFailed, environment
from ct_assets.cli.output import say

if TYPE_CHECKING:
    from ct_assets.cli.demo_oracle import Truth
    from ct_assets.cli.demo_story import Story

MODEL = "shop/purchase_propensity"
READ_WITHIN_US = 5_000_000  # between the moment an answer names and the read itself no event may leave a window
ASKED = 20
HOURS = 24  # of events; the last one is not over


def tell(story: Story, truth: Truth) -> None:
    """The chapters in order."""
    _train(story, truth)
    _score(story, truth)
    _serve(story, truth)


def _train(story: Story, truth: Truth) -> None:
    story.chapter("a model learns from the stream: will the user buy in the 30 minutes after this click?")
    ran = _last(story.ct("run", "--pipeline", "shop", "--json"))
    hours = ran["days"]["hours complete"]
    story.claim(f"{len(hours)} complete hours became snapshots", len(hours) >= HOURS - 1)
    shown = _last(story.ct("model", "show", MODEL, "--json"))
    model = shown["metrics"]
    own = model["log_loss"]
    for baseline in ("base_rate", "recency", "logistic", "without_5m"):
        other = model[f"log_loss_{baseline}"]
        story.claim(f"log loss {own:.4f} beats {baseline.replace('_', ' ')}: {other:.4f}", own < other)
    story.claim("every gate passed: the model is champion", (shown["champion"], shown["decision"]), (True, "promoted"))
    story.claim(
        f"it pins the version of the features it learnt from ({truth.definition.hash[:12]})",
        shown["recipe"]["definition"]["hash"],
        truth.definition.hash,
    )
    story.result(f"log loss {own:.4f}, AUC {model['auc']:.3f}, {model['judged_clicks']:,} clicks judged; promoted")


def _score(story: Story, truth: Truth) -> None:
    import polars as pl

    story.chapter("the champion scores every user in one go")
    users = sorted({event.values["user_id"] for event in truth.accepted})
    asked, answer = story.home / "users.csv", story.home / "scores.parquet"
    asked.write_text("\n".join(["user_id", *map(str, users)]) + "\n", encoding="utf-8")
    story.ct("score", asked, "--out", answer, "--json")
    frame = pl.read_parquet(answer)
    story.claim(f"one score for each of {len(users):,} users, in the order asked", frame["user_id"].to_list(), users)
    story.claim("every score is a probability", frame["score"].is_between(0, 1).all())
    rows = [(row["user_id"], row["at"], row) for row in frame.iter_rows(named=True)]
    same, busy = _as_specified(truth, rows)
    story.claim(
        f"the features they were scored on are the oracle's ({same:,} users, {busy} with something in them)", True
    )
    story.result(f"{len(users):,} scores, from {frame['score'].min():.3f} to {frame['score'].max():.3f}")


def _serve(story: Story, truth: Truth) -> None:
    """`ct serve` on a free port, asked once, and stopped as a supervisor would stop it."""
    story.chapter("the champion answers over HTTP")
    users = list(dict.fromkeys(event.values["user_id"] for event in reversed(truth.accepted)))[:ASKED]
    say("   $ ct serve --port 0")
    with (story.home / "serve.log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "ct_assets.cli", "serve", "--port", "0"],
            env=environment(story.home),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            answer = _asked(server, story.home / "serve.log", users)
        finally:
            server.terminate()
            code = server.wait(30)
    story.claim(f"version {answer['model_version']} answered", answer["model_version"], 1)
    same, busy = _as_specified(truth, [(row["user_id"], answer["at"], row["features"]) for row in answer["scores"]])
    story.claim(f"on the oracle's features ({same} of the latest users, {busy} with something in them)", True)
    story.claim("SIGTERM ended it with exit code 0", code, 0)
    best = max(answer["scores"], key=lambda row: row["score"])
    story.result(f"user {best['user_id']} buys with probability {best['score']:.3f}")


def _asked(server: subprocess.Popen[str], log: Path, users: list[int]) -> dict[str, Any]:
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    if not address:
        raise ClaimFailed(f"`ct serve` did not start:\n{log.read_text(encoding='utf-8')[-2000:]}")
    body = json.dumps({"user_ids": users})
    say(f"   $ curl -s {address}/score --json '{body[:40]}...'")
    request = urllib.request.Request(  # noqa: S310 - the address is our own server's
        f"{address}/score", body.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return json.loads(response.read())


def _as_specified(truth: Truth, rows: Iterable[tuple[int, str, Mapping[str, Any]]]) -> tuple[int, int]:
    """(users whose features equal the oracle's, of them not all zero); one that differs ends the demo.

    Features are read a moment after the one that the answer names: users whose values change in between are left out.
    """
    from ct_assets.streaming.times import microseconds

    same = busy = 0
    for user, moment, found in rows:
        at = microseconds(moment)
        expected = truth.values(user, at)
        if expected != truth.values(user, at + READ_WITHIN_US):
            continue
        for name, value in expected.items():
            if found[name] != (None if value is None else float(value)):
                raise ClaimFailed(
                    f"{name} of user {user} at {moment}: scored on {found[name]}, the oracle says {value}"
                )
        same += 1
        busy += any(expected.values())
    if not busy:
        raise ClaimFailed("no user did anything lately: nothing was compared")
    return same, busy


def _last(told: str) -> dict[str, Any]:
    return json.loads(told.strip().splitlines()[-1])
