"""How the demo tells its story: chapters, `ct` commands as a person types them, claims that must hold.

What goes here: one run of the demo and its home. What does not: what the chapters are (``demo_batch``, ``demo_stream``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ct_assets.cli.output import say, table
from ct_assets.errors import CtError, UsageError

MARKER = ".made-by-ct-demo"


class ClaimFailed(CtError):
    """Something that the demo says did not hold."""


@dataclass
class Story:
    """One run of the demo: where it happens, what was claimed, how long each step took."""

    home: Path
    seed: int
    days: int
    started: float = field(default_factory=time.perf_counter)
    steps: list[dict[str, Any]] = field(default_factory=list)
    holds: int = 0

    @property
    def inbox(self) -> Path:
        """Where the supplier's files lie before they are delivered."""
        return self.home / "supplier"

    def chapter(self, title: str) -> None:
        """Begin a step."""
        self._close_step()
        self.steps.append({"step": title, "seconds": time.perf_counter(), "result": ""})
        say(f"\n== {title}")

    def result(self, text: str) -> None:
        """What the final table says about the step under way."""
        self.steps[-1]["result"] = text

    def claim(self, text: str, found: object, expected: object = True) -> None:
        """Say that something holds, or end the demo with exit code 1 because it does not."""
        if found != expected:
            raise ClaimFailed(
                f"this did not hold: {text}\n  found    {found}\n  expected {expected}",
                hint=f"everything is kept for a look: CT_HOME={self.home}",
            )
        self.holds += 1
        say(f"   ok  {text}")

    def ct(self, *arguments: object, expect: int = 0) -> str:
        """Run `ct` as a person would, in the demo's home; its progress goes to stderr, its answer is returned."""
        words = [str(word) for word in arguments]
        say(f"   $ ct {' '.join(words[:6])}{' ...' if len(words) > 6 else ''}")
        with tempfile.TemporaryFile("w+", encoding="utf-8") as answer:
            process = subprocess.Popen(
                [sys.executable, "-c", "from ct_assets.cli.main import main; main()", *words],
                env=environment(self.home),
                stdout=answer,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stderr is not None
            told = []
            try:
                for line in process.stderr:
                    told.append(line)
                    say(f"     {line.rstrip()}")
                code = process.wait()
            except BaseException:  # Ctrl-C: the command under way ends with the demo
                process.terminate()
                process.wait()
                raise
            answer.seek(0)
            told.append(answer.read())
        if code != expect:
            raise ClaimFailed(f"`ct {words[0]}` ended with {code}, expected {expect}:\n{''.join(told)[-3000:]}")
        return "".join(told)

    def _close_step(self) -> None:
        if self.steps:
            self.steps[-1]["seconds"] = round(time.perf_counter() - self.steps[-1]["seconds"], 1)

    def summary(self) -> str:
        """The closing table."""
        self._close_step()
        return table(self.steps, ("step", "result", "seconds"))


def fresh_home(home: Path) -> IO[str]:
    """Make an empty home for the demo; one left by an earlier demo is replaced, anything else is refused.

    Returns the locked marker: while it is open, no other demo replaces this home.
    """
    if home.exists() and any(home.iterdir()):
        if not (home / MARKER).is_file():
            raise UsageError(
                f"{home} holds something that no demo made (no {MARKER} in it)",
                hint="name an empty or new folder with --home",
            )
        with _locked(home):
            _remove(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / MARKER).write_text("`ct demo` may remove this folder.\n", encoding="utf-8")
    say(f"the demo lives in {home}; it uses a database of its own there")
    return _locked(home)


def _locked(home: Path) -> IO[str]:
    """The marker, locked for this process; refused while another demo runs in ``home``."""
    import fcntl

    marker = (home / MARKER).open("a", encoding="utf-8")
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        marker.close()
        raise UsageError(
            f"a demo is running in {home}", hint="wait for it, or name another folder with --home"
        ) from None
    return marker


def _remove(home: Path) -> None:
    """Remove what an earlier demo left, its database included."""
    say(f"plan: stop the database of the demo before this one and remove {home}; nothing outside it is touched")
    database = server(home)
    base = database.base
    database.stop()
    shutil.rmtree(home)
    if base.name.startswith("ct-assets-postgres-"):  # root's server keeps its data outside root's home folder
        shutil.rmtree(base, ignore_errors=True)


def server(home: Path) -> Any:
    """The demo's own PostgreSQL."""
    from ct_assets.adapters.postgres.server import Server

    return Server(home)


def environment(home: Path) -> dict[str, str]:
    """The demo's own home and nobody else's database, whatever the shell has set."""
    return {
        **{name: value for name, value in dict(os.environ).items() if not name.startswith("CT_")},
        "CT_HOME": str(home),
    }
