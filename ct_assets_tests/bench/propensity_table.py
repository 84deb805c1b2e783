"""The table of the propensity model: baselines, ours, the ceiling, the ablation, on sampled shops through a real worker.

    python -m ct_assets_tests.bench.propensity_table [--users 2000] [--hours 24] [--seeds 7 8 9]

What goes here: the run and the table. What does not: assertions (``training/test_propensity_model.py`` has them, smaller).
Each shop goes `ct sample events` -> embedded log -> worker -> PostgreSQL -> ``retrain_propensity``; the true probability comes
from the sample's own truth and is joined by event, for the ceiling alone. A stream without signal comes last.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.postgres.migrate import migrate
from ct_assets.adapters.postgres.server import Server
from ct_assets.adapters.propensity import PropensityJob, read_propensity_set, retrain_propensity
from ct_assets.adapters.storage import LocalStorage
from ct_assets.sampling.arrivals import ArrivalOptions, arrive
from ct_assets.sampling.events import truth_frame
from ct_assets.sampling.shoppers import ShopOptions
from ct_assets.training.propensity_evaluation import Evaluation
from ct_assets_tests.adapters.stream_worker.world import World, fill

if TYPE_CHECKING:
    from ct_assets.adapters.propensity import PropensityTrained

CONTESTANTS = ("base_rate", "recency", "logistic", "without_5m", "candidate", "ceiling")


@dataclass(frozen=True)
class Line:
    """One shop."""

    name: str
    clicks: int
    trained: PropensityTrained
    evaluation: Evaluation

    @property
    def share(self) -> float:
        """Of the way from the base rate to the ceiling, in log loss."""
        base, own, best = (self.loss(name) for name in ("base_rate", "candidate", "ceiling"))
        return (base - own) / (base - best)

    def loss(self, name: str) -> float:
        """Log loss of a contestant."""
        return self.evaluation.measures[name]["log_loss"].figure


def run(server: Server, folder: Path, options: ShopOptions) -> Line:
    """One shop from its events to its model."""
    name = f"seed {options.seed}" + ("" if options.signal else ", no signal")
    database = f"table_{options.seed}_{int(options.signal)}"
    with connect(server.ensure("ct"), autocommit=True) as conn:
        conn.execute(f"create database {database}".encode())
    url = server.url(database)
    migrate(url)
    world = World(url, folder / database / "log", folder / database / "home")
    arrivals = arrive(ArrivalOptions(options))
    fill(world.folder, arrivals)
    done = world.run("--until-idle")
    if done.returncode:
        sys.exit(done.stderr)
    job = PropensityJob(database, code_version="bench")
    data = read_propensity_set(url, job)
    trained = retrain_propensity(url, url, LocalStorage(folder / database / "storage"), job, data)
    truth = truth_frame(arrivals).filter(pl.col("probability").is_not_null())
    truth = truth.select(user="user_id", at=pl.col("event_time").dt.epoch("us"), ceiling="probability").unique(
        ["user", "at"]
    )
    rows = trained.candidate.evaluation.rows.join(truth, on=["user", "at"], how="left", maintain_order="left")
    known = rows.filter(pl.col("ceiling").is_not_null())  # a robot's clicks have no truth
    return Line(name, data.clicks, trained, Evaluation(known))


def show(line: Line) -> None:
    """The figures of one shop."""
    decision = "promoted" if line.trained.promoted else f"refused: {line.trained.reason.split(';')[0]}"
    print(f"\n{line.name}: {line.clicks:,} clicks, {len(line.evaluation.rows):,} judged; {decision}")
    print(f"{'':12s} {'log loss':27s} {'Brier':27s} {'AUC':27s} calibration error")
    for name in CONTESTANTS:
        found = line.evaluation.measures[name]
        cells = (str(found[measure]) for measure in ("log_loss", "brier", "auc", "calibration_error"))
        print(f"{name:12s} " + " ".join(f"{cell:27s}" for cell in cells))
    if "no signal" not in line.name:
        lost = line.loss("without_5m") / line.loss("candidate") - 1
        print(f"share of the ceiling {line.share:.1%}; without the 5-minute features log loss {lost:+.1%}")


def main() -> None:
    """Run all shops."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        server = Server(folder / "pg")
        try:
            shops = [ShopOptions(given.users, given.hours, seed) for seed in given.seeds]
            for options in [
                *shops,
                *(ShopOptions(given.users, given.hours, seed, signal=False) for seed in given.seeds),
            ]:
                show(run(server, folder, options))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
