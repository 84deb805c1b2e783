"""The kill soak: publishers die by SIGKILL at named points, others come after them, and the tables equal an oracle.

What goes here: the soak (`python -m ct_assets_tests.faults.soak_kill --kills 100 --seed N`) and its oracle in plain
Python. What does not: the publisher that dies (``victim``).

Every kill falls at a point between the first staged row and the commit, in a process of its own. After each one readers
must see exactly what they saw before, and no row of the dead attempt may be left. At the end the clean tables, the
rollup and the quarantine are compared, value by value, with what csv and decimal make of the files.
"""

from __future__ import annotations

import argparse
import csv
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
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from ct_assets.adapters import landing
from ct_assets.adapters.crash import STAGED_POINTS
from ct_assets.settings import load

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
LONDON = ZoneInfo("Europe/London")
FIRST = dt.date(2011, 3, 1)
LARGE_ROWS = 90_000  # about 6 MB: more than one block, so that there is a second batch of rows to die in


@dataclass
class Outcome:
    """What a soak did and found."""

    seed: int
    kills: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    publications: int = 0
    days: int = 0

    def __str__(self) -> str:
        """The lines a person reads."""
        hits = ", ".join(f"{point} {self.hits[point]}" for point in STAGED_POINTS)
        found = f"{len(self.differences)} differences"
        return (
            f"seed {self.seed}: {self.kills} kills ({hits}); {self.days} days, {self.publications} publications; {found}"
            + "".join(f"\n  {difference}" for difference in self.differences[:10])
        )


def write_file(path: Path, day: dt.date, rows: int, rng: random.Random) -> None:
    """A delivery with cancellations, services, guests, duplicates and at most a tenth of broken lines."""
    with path.open("w", encoding="utf-8", newline="") as out:
        out.write(HEADER + "\n")
        for i in range(rows):
            cancelled, broken = rng.random() < 0.05, rng.random() < 0.03
            quantity = 0 if broken else rng.randint(1, 40) * (-1 if cancelled else 1)
            code = "POST" if rng.random() < 0.02 else str(20_000 + rng.randrange(60))
            line = (
                f"{'C' if cancelled else ''}{536_000 + i // 4},{code},THING {rng.randrange(5)},{quantity},"
                f"{day} {8 + i % 10:02d}:{i % 60:02d}:00,{rng.randrange(1, 2000) / 100},"
                f"{rng.choice(['', '17850.0', '12583.0'])},{rng.choice(['France', 'EIRE'])}\n"
            )
            out.write(line * (2 if rng.random() < 0.01 else 1))


def oracle(path: Path) -> tuple[Counter[tuple], dict[str, tuple], set[int]]:
    """Good rows as a multiset, the day's rollup per product, and the lines in quarantine: csv and decimal only."""
    good: Counter[tuple] = Counter()
    rollup: dict[str, list[Any]] = {}
    bad: set[int] = set()
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        for row in reader:
            quantity, price, invoice = int(row["Quantity"]), Decimal(row["UnitPrice"]), row["InvoiceNo"]
            if quantity == 0:
                bad.add(reader.line_num)
                continue
            when = dt.datetime.fromisoformat(row["InvoiceDate"]).replace(tzinfo=LONDON).astimezone(dt.UTC)
            customer = row["CustomerID"].removesuffix(".0") or None
            key = (invoice, row["StockCode"], row["Description"], quantity, when, price, customer, row["Country"])
            if key in good:
                continue
            good[key] = 1
            if row["StockCode"] != "POST":
                total = rollup.setdefault(row["StockCode"], [0, Decimal(0), set(), 0])
                if invoice.startswith("C"):
                    total[3] -= quantity
                else:
                    total[0] += quantity
                    total[1] += quantity * price
                    total[2].add(invoice)
    return good, {code: (u, r, len(o), back) for code, (u, r, o, back) in rollup.items()}, bad


def compare(conn: psycopg.Connection, current: dict[dt.date, Path]) -> list[str]:
    """Every difference between what readers see and what the oracle makes of the newest file of each day."""
    found = []
    for day, path in sorted(current.items()):
        good, rollup, bad = oracle(path)
        rows = conn.execute(
            "select invoice_no, stock_code, description, quantity, invoice_date, unit_price, customer_id, country"
            " from clean.sales_lines where _day = %s",
            (day,),
        )
        if Counter(rows) != good:
            found.append(f"{day}: lines differ")
        daily = conn.execute(
            "select stock_code, units, revenue, orders, units_returned from clean.daily_product_sales where day = %s",
            (day,),
        )
        if {code: tuple(rest) for code, *rest in daily} != rollup:
            found.append(f"{day}: rollup differs")
        lines = conn.execute("select _line from quarantine.sales_lines where day = %s", (day,))
        if sorted(line for (line,) in lines) != sorted(bad):
            found.append(f"{day}: quarantine differs")
    days = {row[0] for row in conn.execute("select distinct _day from clean.sales_lines")}
    return found + [f"{day}: visible but never delivered" for day in sorted(days - current.keys())]


def visible(conn: psycopg.Connection) -> tuple[Any, ...]:
    """What readers see and what exists at all: a killed publisher may change neither."""
    row = conn.execute(
        "select (select count(*) from store.sales_lines), (select count(*) from ledger.quarantined),"
        " (select count(*) from store.daily_product_sales),"
        " (select array_agg((revision_id, state, superseded_at)::text order by revision_id) from ledger.publication),"
        " (select array_agg((delivery_id, state)::text order by delivery_id) from ledger.delivery)"
    ).fetchone()
    assert row is not None
    return row


def run_victim(
    environ: dict[str, str], delivery_id: int, point: str = "-", nth: int = 1
) -> subprocess.CompletedProcess[str]:
    """Publish in a process of its own, which dies at ``point``."""
    command = [sys.executable, "-m", "ct_assets_tests.faults.victim", str(delivery_id), point, str(nth)]
    root = Path(__file__).resolve().parents[2]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CT_")}
    return subprocess.run(
        command, capture_output=True, text=True, env=clean | environ, cwd=root, check=False, timeout=300
    )


def soak(environ: dict[str, str], folder: Path, kills: int, seed: int) -> Outcome:
    """Kill publishers until ``kills`` have died; ``environ`` names a migrated database that is used for nothing else."""
    rng, outcome = random.Random(seed), Outcome(seed)
    settings = load(environ)
    assert settings.ledger_url is not None
    points = list(STAGED_POINTS) * (kills // len(STAGED_POINTS) + 1)
    points = points[:kills]  # each point as often as any other
    rng.shuffle(points)
    current: dict[dt.date, Path] = {}
    with psycopg.connect(settings.ledger_url, autocommit=True) as conn:
        serial = 0
        while points:
            batch = points[: rng.randint(1, 4)]
            del points[: len(batch)]
            serial += 1
            day = FIRST + dt.timedelta(days=rng.randrange(8))
            path = folder / f"{day}_{serial}.csv"
            write_file(path, day, LARGE_ROWS if "more_rows" in batch else rng.randint(50, 400), rng)
            delivery_id = landing.deliver(settings, "sales", [path])[0].delivery_id
            if serial == 1:  # tables must exist before they can be looked at
                assert run_victim(environ, delivery_id).stdout.split() == ["published", "fresh"]
                current[day] = path
                points += batch
                continue
            _kill_all(environ, conn, delivery_id, batch, outcome)
            done = run_victim(environ, delivery_id)
            if done.stdout.split() != ["published", "fresh"]:
                outcome.differences.append(f"{path.name}: {done.stdout} {done.stderr[-300:]}")
            current[day] = path
        outcome.differences += compare(conn, current)
        row = conn.execute("select count(*) from ledger.publication").fetchone()
        assert row is not None
        outcome.days, outcome.publications = len(current), row[0]
        if row[0] != serial:
            outcome.differences.append(f"{row[0]} publications of {serial} deliveries")
    return outcome


def _kill_all(
    environ: dict[str, str], conn: psycopg.Connection, delivery_id: int, batch: list[str], outcome: Outcome
) -> None:
    for point in batch:
        before = visible(conn)
        died = run_victim(environ, delivery_id, point)
        if died.returncode != -signal.SIGKILL or died.stdout.strip() != f"killed at {point}":
            outcome.differences.append(f"{point}: not killed: {died.returncode} {died.stdout} {died.stderr[-300:]}")
        outcome.kills += 1
        outcome.hits[point] += 1
        if visible(conn) != before:
            outcome.differences.append(f"{point}: a dead publisher changed what is there")


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
    few = [point for point in STAGED_POINTS if outcome.hits[point] < 5]
    if few and args.kills >= 5 * len(STAGED_POINTS):
        print(f"hit fewer than 5 times: {', '.join(few)}")
    sys.exit(1 if outcome.differences or (few and args.kills >= 5 * len(STAGED_POINTS)) else 0)


if __name__ == "__main__":
    main()
