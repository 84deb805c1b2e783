"""`ct demo` from end to end, that its claims can fail, and that it touches nothing but a home of its own."""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from ct_assets.adapters.postgres.server import Server
from ct_assets.cli.demo import demo
from ct_assets.cli.demo_claims import Claims
from ct_assets.cli.demo_story import MARKER, ClaimFailed, Story
from ct_assets.errors import UsageError


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The demo, run once as a person runs it, in a home that an earlier demo left; its home and everything it printed."""
    home = tmp_path_factory.mktemp("demo") / "home"
    home.mkdir()
    (home / MARKER).touch()
    (home / "left-over").touch()
    done = subprocess.run(
        [sys.executable, "-c", "from ct_assets.cli.main import main; main()", "demo", "--home", str(home)],
        env={**os.environ, "CT_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/not-for-the-demo"},
        capture_output=True, text=True, timeout=540,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    yield home, done.stdout + done.stderr
    server = Server(home)
    base = server.base
    server.stop()
    shutil.rmtree(base, ignore_errors=True)


@pytest.mark.slow
def test_the_demo_holds_its_claims_and_says_what_to_look_at_next(told: tuple[Path, str]) -> None:
    home, text = told
    claims = re.findall(r"^   ok  (.+)$", text, re.MULTILINE)
    assert len(claims) == 42
    assert "42 claims checked" in text
    for words in ("are the planted ones", "beats every baseline", "are in quarantine", "no row, revision, feature, model or forecast was written",
                  "revision 2", "exactly the", "one retrain", "died of SIGKILL", "none twice", "online values on the edges of windows equal",
                  "as a training set: equal", "fell with no new event", "every gate passed", "one score for each", "ended it with exit code 0"):  # fmt: skip
        assert any(words in claim for claim in claims), words
    assert "the nearest in the file is 'Qty'" in text
    assert "make ui" in text
    assert not (home / "left-over").exists()


@pytest.mark.slow
def test_the_claims_fail_when_what_they_look_at_is_not_there(told: tuple[Path, str]) -> None:
    home, _ = told
    with Claims(home) as claims:
        counts, sales, written = claims.counts(), claims.daily_sales(), claims.everything_written()
        assert claims.unbeaten_baselines() == []
        with claims._conn.transaction(force_rollback=True):
            day = min(counts)
            claims._conn.execute("update ledger.model_version set metrics = '{}'")
            claims._conn.execute(
                "update ledger.publication set rows = jsonb_set(rows, '{good}', '0') where day = %s", (day,)
            )
            claims._conn.execute("update store.daily_product_sales set units = units + 1 where day = %s", (day,))
            claims._conn.execute("delete from ledger.quarantined")
            claims._conn.execute("update ledger.forecast set superseded_at = now()")
            claims._conn.execute("update ledger.incident set state = 'closed'")
            assert claims.unbeaten_baselines() == ["no evidence"]
            assert claims.counts() != counts
            assert claims.daily_sales() != sales
            assert claims.everything_written() != written
            assert claims.forecast_model_version() == 0
            assert claims.incident(dt.date(2011, 5, 31)) == {"rule": "", "message": ""}
        assert claims.counts() == counts


def test_a_claim_that_does_not_hold_ends_the_demo(tmp_path: Path) -> None:
    story = Story(tmp_path, seed=1, days=90)
    story.claim("two and two", 2 + 2, 4)
    with pytest.raises(ClaimFailed, match=r"two and two\n  found    4\n  expected 5") as failed:
        story.claim("two and two", 2 + 2, 5)
    assert failed.value.exit_code == 1
    assert story.holds == 1


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = CliRunner().invoke(demo, ["--home", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert result.exception.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_home_in_which_a_demo_runs_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("in progress")
    with (tmp_path / MARKER).open("a") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        result = CliRunner().invoke(demo, ["--home", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert "is running" in result.exception.message
    assert (tmp_path / "work").read_text() == "in progress"
