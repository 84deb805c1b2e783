"""The kill soak: processes die by SIGKILL at named points, others come after them, and the tables equal an oracle.

What goes here: the soak (`python -m ct_assets_tests.faults.soak_kill --kills 100 --seed N`). What does not: the process
that dies (``victim``), what the tables must hold (``soak_sales``, ``soak_models``).

Every kill falls at a point between the first row and the commit of a delivery, a feature build, a promotion or a
forecast, in a process of its own. After each one readers must see exactly what they saw before, and no row of the dead
attempt may be left. At the end clean tables, rollup and quarantine are compared, value by value, with what csv and
decimal make of the files; features with a twin that nobody killed; champion and forecast with the last step that was
not killed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from ct_assets.adapters import landing
from ct_assets.adapters.crash import FEATURE_POINTS, FORECAST_POINTS, MODEL_POINTS, STAGED_POINTS, UNCOMMITTED_POINTS
from ct_assets.settings import Settings, load
from ct_assets_tests.faults.soak_models import compare_features, compare_forecasts, compare_models
from ct_assets_tests.faults.soak_sales import LARGE_ROWS, compare, write_file

FIRST = dt.date(2011, 3, 1)
ROOT = Path(__file__).resolve().parents[2]
LEAST_HITS = 5
# Of these every row is compared after a kill; of the tables in `store` and of the quarantine how many there are.
LEDGER = ("publication", "delivery", "feature_version", "model_version", "champion", "champion_history", "forecast")


@dataclass
class Outcome:
    """What a soak did and found."""

    seed: int
    kills: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    publications: int = 0
    days: int = 0
    runs: list[str] = field(default_factory=list)
    forecasts: list[int] = field(default_factory=list)

    @property
    def few(self) -> list[str]:
        """Points that were hit too seldom to say anything (none when there were too few kills for all of them)."""
        if self.kills < LEAST_HITS * len(UNCOMMITTED_POINTS):
            return []
        return [point for point in UNCOMMITTED_POINTS if self.hits[point] < LEAST_HITS]

    def __str__(self) -> str:
        """The lines a person reads."""
        lines = [f"{point:<20} {self.hits[point]:>4} kills" for point in UNCOMMITTED_POINTS]
        lines.append(
            f"seed {self.seed}: {self.kills} kills; {self.days} days, {self.publications} publications,"
            f" {len(self.runs)} model versions, {len(self.forecasts)} forecasts; {len(self.differences)} differences"
        )
        lines += [f"  {difference}" for difference in self.differences[:10]]
        lines += [f"hit fewer than {LEAST_HITS} times: {', '.join(self.few)}"] * bool(self.few)
        return "\n".join(lines)


def visible(conn: psycopg.Connection) -> dict[str, object]:
    """What readers see and what exists at all: a killed process may change neither."""
    tables = conn.execute("select table_name from information_schema.tables where table_schema = 'store' order by 1")
    counted = [f"store.{name}" for (name,) in tables.fetchall()] + ["ledger.quarantined"]
    queries = {name: f"select count(*) from {name}" for name in counted}
    for name in LEDGER:
        queries[name] = f"select md5(string_agg(t::text, '|' order by t::text)) from ledger.{name} t"
    return {name: conn.execute(query.encode()).fetchone() for name, query in queries.items()}


def run_victim(
    environ: dict[str, str], which: object, point: str = "-", *, what: str = "delivery"
) -> subprocess.CompletedProcess[str]:
    """One step in a process of its own, which dies at ``point``."""
    command = [sys.executable, "-m", "ct_assets_tests.faults.victim", what, str(which), point]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CT_")}
    return subprocess.run(
        command, capture_output=True, text=True, env=clean | environ, cwd=ROOT, check=False, timeout=300
    )


@dataclass
class Soak:
    """One soak on a migrated database that is used for nothing else."""

    environ: dict[str, str]
    folder: Path
    conn: psycopg.Connection
    settings: Settings
    rng: random.Random
    outcome: Outcome
    current: dict[dt.date, Path] = field(default_factory=dict)
    serial: int = 0

    def round(self, batch: list[str]) -> None:
        """One delivery and what follows from it, each step killed at its points of ``batch`` before it is let through."""
        self.serial += 1
        day = FIRST + dt.timedelta(days=self.rng.randrange(8))
        path = self.folder / f"{day}_{self.serial}.csv"
        write_file(path, day, LARGE_ROWS if "more_rows" in batch else self.rng.randint(50, 400), self.rng)
        delivery_id = landing.deliver(self.settings, "sales", [path])[0].delivery_id
        self.step("delivery", delivery_id, [p for p in batch if p in STAGED_POINTS], "published fresh")
        self.current[day] = path
        first = self.serial == 1  # tables must exist before they can be looked at
        features = [p for p in batch if p in FEATURE_POINTS]
        if features or first:
            self.step("features", "-", features, "built")
        model = [p for p in batch if p in MODEL_POINTS]
        if model or first:
            run = f"run-{self.serial}"
            self.outcome.runs.append(run)
            self.step("model", run, model, f"leads {len(self.outcome.runs)}")
        forecast = [p for p in batch if p in FORECAST_POINTS]
        if forecast or first:
            self.outcome.forecasts.append(self.serial)
            self.step("forecast", self.serial, forecast, "published")

    def step(self, what: str, which: object, points: list[str], says: str) -> None:
        """Kill it at each point, then let it through."""
        for point in points:
            before = visible(self.conn)
            died = run_victim(self.environ, which, point, what=what)
            if died.returncode != -signal.SIGKILL or died.stdout.strip() != f"killed at {point}":
                self.differs(f"{point}: not killed: {died.returncode} {died.stdout} {died.stderr[-300:]}")
            self.outcome.kills += 1
            self.outcome.hits[point] += 1
            after = visible(self.conn)
            if after != before:
                changed = [name for name in after if after[name] != before.get(name)]
                self.differs(f"{point}: a dead process changed {', '.join(changed) or 'which tables exist'}")
        done = run_victim(self.environ, which, what=what)
        if not done.stdout.startswith(says):
            self.differs(f"{what} {which}: {done.stdout} {done.stderr[-300:]}")

    def differs(self, what: str) -> None:
        """Keep a difference."""
        self.outcome.differences.append(what)

    def compare(self) -> None:
        """Everything that is there in the end."""
        self.step("features", "-", [], "built")  # the rounds that killed no build left days stale
        outcome = self.outcome
        outcome.differences += compare(self.conn, self.current)
        outcome.differences += compare_features(self.conn, self.settings, self.current)
        outcome.differences += compare_models(self.conn, outcome.runs)
        outcome.differences += compare_forecasts(self.conn, outcome.forecasts)
        row = self.conn.execute("select count(*) from ledger.publication").fetchone()
        assert row is not None
        outcome.days, outcome.publications = len(self.current), row[0]
        if row[0] != self.serial:
            self.differs(f"{row[0]} publications of {self.serial} deliveries")


def soak(environ: dict[str, str], folder: Path, kills: int, seed: int) -> Outcome:
    """Kill until ``kills`` processes have died; ``environ`` names a migrated database that is used for nothing else."""
    rng, settings = random.Random(seed), load(environ)
    assert settings.ledger_url is not None
    points = list(UNCOMMITTED_POINTS) * (kills // len(UNCOMMITTED_POINTS) + 1)
    points = points[:kills]  # each point as often as any other
    rng.shuffle(points)
    with psycopg.connect(settings.ledger_url, autocommit=True) as conn:
        work = Soak(environ, folder, conn, settings, rng, Outcome(seed))
        work.round([])
        while points:
            batch = points[: rng.randint(1, 6)]
            del points[: len(batch)]
            work.round(batch)
        work.compare()
    return work.outcome


def main() -> None:
    """Run on an embedded server of its own; exit 1 for a difference or a point hit fewer than five times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    args = parser.parse_args()
    from ct_assets.adapters.postgres.migrate import migrate
    from ct_assets.adapters.postgres.server import Server

    print(f"kill soak: {args.kills} kills, seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ct-soak-") as name:
        server = Server(Path(name) / "pg")
        url = server.ensure()
        try:
            migrate(url)
            environ = {"CT_HOME": str(Path(name) / "home"), "CT_DATABASE_URL": url, "CT_CODE_VERSION": "soak"}
            outcome = soak(environ, Path(name), args.kills, args.seed)
        finally:
            base = server.base
            server.stop()
            shutil.rmtree(base, ignore_errors=True)
    print(outcome)
    sys.exit(1 if outcome.differences or outcome.few else 0)


if __name__ == "__main__":
    main()
