"""Demand on the real days: the model beside the baselines, per fold, and what the probe of the design asked for.

What goes here: the days judged by the contract, four weekly origins, measures, times, the acceptance line. What does
not: a database (``ct run`` is timed elsewhere). Run: ``.venv/bin/python ct_assets_tests/bench/bench_train.py [FOLDER|TAR]``
(or ``make bench``). Origins and measures are the probe's: products that sold in the last 56 open days, the week that
follows, matched cancellations netted (here as far as anybody knows today, as the probe did).
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from ct_assets.cli.output import table
from ct_assets.contracts.odcs import load_contract
from ct_assets.features.training_set import HORIZON_DAYS
from ct_assets.ingest.judge import Judgement
from ct_assets.training.candidate import Contest, Dataset, dataset, forecast, train
from ct_assets.training.demand import recipe
from ct_assets.training.evaluation import Evaluation, evaluate_fold
from ct_assets.training.recipe import FittedQuantiles

ROOT = Path(__file__).resolve().parents[2]
REAL_DAYS = ROOT.parent / "shared/data/online_retail/by_day_2010-12-01_2011-09-30.tar.xz"
CONTRACT = ROOT / "ct_assets/defs/merchandising/sales/contracts/sales_lines.odcs.yaml"
TARGETS = {"deviance": 0.85, "wape": 0.92}
COVERAGE = (0.85, 0.95)
TRAIN_SECONDS, AGAIN_SECONDS = 25, 8


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """The folder of CSV files, whether ``source`` is one or an archive of one."""
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="ct-bench-train-") as folder, tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
        yield Path(folder)


def sales_tables(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Daily product sales and product lines of all files, under the contract's rules."""
    schema = load_contract(CONTRACT).schema(None)
    names = {column.name: column.physical_name or column.name for column in schema.columns}
    frames = []
    for path in sorted(folder.rglob("*.csv")):
        with path.open("rb") as stream:
            judgement = Judgement(stream, schema, name=path.name)
            good = [chunk.good for chunk in judgement]
        frames += [frame.with_columns(day=pl.lit(judgement.verdict.day)) for frame in good]
    lines = pl.concat(frames).rename(names, strict=False).filter("is_product")
    sale = ~pl.col("invoice_no").str.starts_with("C")
    daily = lines.group_by("day", "stock_code").agg(
        units=pl.col("quantity").filter(sale).sum(),
        revenue=(pl.col("quantity") * pl.col("unit_price").cast(pl.Float64)).filter(sale).sum(),
        orders=pl.col("invoice_no").filter(sale).n_unique(),
        units_returned=-pl.col("quantity").filter(~sale).sum(),
    )
    return daily, lines


def acceptance(found: Evaluation) -> tuple[str, bool]:
    """One line: what the probe asked for, what it is, whether it holds."""
    ratios = {measure: found.mean(measure) / found.mean(measure, "mean_28") for measure in TARGETS}
    low, high = COVERAGE
    coverage = found.mean("coverage")
    holds = all(ratios[m] <= TARGETS[m] for m in TARGETS) and low <= coverage <= high
    text = ", ".join(f"{m} {ratios[m]:.3f}x of the mean of 28 days (target <= {TARGETS[m]}x)" for m in TARGETS)
    return (
        f"{text}, P90 coverage {coverage:.3f} (target {low} to {high}): {'holds' if holds else 'DOES NOT HOLD'}",
        holds,
    )


def daily_coverage(data: Dataset) -> dict[str, float]:
    """Share of days at or below the day's share of the week's P50 and P90, over all folds."""
    hits, count = {"p50": 0, "p90": 0}, 0
    for fold in data.folds:
        _, fitted = evaluate_fold(recipe(), fold.panel, fold.at)
        days = forecast(fitted, fold.panel, fold.at).daily
        at = fold.panel.net(slice(0, fold.panel.days), fold.at + HORIZON_DAYS)
        codes = {code: row for row, code in enumerate(fold.panel.codes)}
        truth = [at[codes[code], fold.panel.index(day)] for code, day in days.select("stock_code", "day").iter_rows()]
        count += len(truth)
        for name in hits:
            hits[name] += int((pl.Series(truth) <= days[name]).sum())
    return {name: hit / count for name, hit in hits.items()}


def _kept_as_it_is(fitted: FittedQuantiles) -> tuple[FittedQuantiles, int]:
    return fitted, 1


def main() -> int:
    """Print the tables; 1 when the acceptance line does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, default=REAL_DAYS)
    source = parser.parse_args().source
    if not source.exists():
        print(f"skipped: no sales days at {source}")
        return 0
    with unpacked(source) as folder:
        daily, lines = sales_tables(folder)
    data = dataset(daily, lines)
    everything = data.panel.days + 10**6
    folds = tuple(evaluate_fold(recipe(), data.panel, at, everything)[0] for at in data.origins)
    found = Evaluation(recipe().digest, folds)
    print(table(found.table()))
    for name, values in found.summary()["slices"].items():
        print(f"slice {name:7} " + ", ".join(f"{key} {value:.4g}" for key, value in values.items()))
    shares = daily_coverage(data)
    print(
        f"single days at or below their share of the week's P50: {shares['p50']:.3f}, of its P90: {shares['p90']:.3f}"
    )
    seconds = []
    kept: dict = {}
    for _ in range(2):
        started = time.perf_counter(), time.process_time()
        made = train(data, recipe(), Contest(kept=kept), _kept_as_it_is)
        seconds.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    print(f"gates: {made.decision.reason}")
    (wall, cpu), (wall_again, cpu_again) = seconds
    print(
        f"{made.rows} rows; train with 4 folds and gates: {wall:.1f} s wall, {cpu:.1f} s CPU (target {TRAIN_SECONDS} s wall)"
    )
    print(f"again with the folds kept: {wall_again:.1f} s wall, {cpu_again:.1f} s CPU (target {AGAIN_SECONDS} s wall)")
    line, holds = acceptance(found)
    print(line)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
