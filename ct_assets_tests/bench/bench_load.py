"""CSV -> sales contract -> PostgreSQL, against bare typed COPY and what people use instead. `python ct_assets_tests/bench/bench_load.py`

What goes here: the measurement, each contender in a process of its own so that memory and CPU are its own. What does
not: the code that is measured.

Every contender reads the same file on the same server into fresh tables; the bare COPY has the eight columns of the file
with the contract's types and no index. Ours judges every row, collapses duplicates, keeps line numbers, quarantine and
ledger (three columns more, and a BRIN index); its second line also aggregates the day (the rollup: a sort of all rows, and
a count of distinct invoices), which nobody else does. The target is on the first. Bare COPY keeps one core busy, ours
both: on a loaded machine the ratio says more about the load, so it is printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ct_assets.adapters.postgres.server import Server

ROOT = Path(__file__).resolve().parents[2]
DAY = dt.date(2011, 3, 1)
TYPES = "InvoiceNo text, StockCode text, Description text, Quantity bigint, InvoiceDate timestamp, UnitPrice numeric(18,4), CustomerID text, Country text"


def ours_with_rollup(path: Path, url: str, home: Path) -> int:
    """The whole publication of a day, daily_product_sales included."""
    return ours(path, url, home, rollups=True)


def ours(path: Path, url: str, home: Path, rollups: bool = False) -> int:
    """The product's own path: deliver once (not timed: a copy), then judge and publish."""
    from ct_assets.adapters import landing
    from ct_assets.adapters.datasets import pipeline_dataset
    from ct_assets.adapters.publish import publish_delivery
    from ct_assets.settings import load

    settings = load({"CT_HOME": str(home), "CT_DATABASE_URL": url, "CT_CODE_VERSION": "bench"})
    delivered = landing.deliver(settings, "sales", [path])[0]
    from ct_assets.adapters import ledger
    from ct_assets.adapters.postgres.connect import connect

    importlib.import_module(
        "ct_assets.ingest.judge"
    )  # libraries are loaded before the clock starts, as every peer's are
    importlib.import_module("ct_assets.adapters.postgres.pieces")

    with connect(url) as conn:
        delivery = ledger.delivery(conn, delivered.delivery_id)
    assert delivery is not None
    dataset = pipeline_dataset("sales", settings)
    dataset = dataset if rollups else dataclasses.replace(dataset, rollups=())
    _start()
    decision = publish_delivery(settings, dataset, delivery)
    assert decision.state == "published", decision.verdict
    return decision.verdict["rows"]["good"]


def bare(path: Path, url: str, home: Path) -> int:
    """COPY of the same bytes into typed columns: no rule, no duplicate, no line number."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(f"create table bare ({TYPES})".encode())
        _start()
        with conn.cursor() as cursor:
            with cursor.copy("copy bare from stdin (format csv, header)") as out, path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    out.write(block)
            return cursor.rowcount


def duckdb_adbc(path: Path, url: str, home: Path) -> int:
    """DuckDB casts, applies the row rules and collapses duplicates; ADBC ingests the Arrow stream."""
    import adbc_driver_postgresql.dbapi as adbc
    import duckdb

    _start()
    db = duckdb.connect()
    columns = "{'InvoiceNo': 'VARCHAR', 'StockCode': 'VARCHAR', 'Description': 'VARCHAR', 'Quantity': 'BIGINT', 'InvoiceDate': 'TIMESTAMP', 'UnitPrice': 'DECIMAL(18,4)', 'CustomerID': 'VARCHAR', 'Country': 'VARCHAR'}"
    result = db.execute(
        f"select distinct trim(InvoiceNo) as invoice_no, upper(trim(StockCode)) as stock_code, trim(Description) as description,"
        f" Quantity as quantity, timezone('Europe/London', InvoiceDate) as invoice_date, UnitPrice as unit_price,"
        f" regexp_replace(CustomerID, '\\.0$', '') as customer_id, trim(Country) as country"
        f" from read_csv('{path}', header=true, columns={columns})"
        f" where Quantity <> 0 and (Quantity > 0) = (not starts_with(InvoiceNo, 'C')) and UnitPrice >= 0"
        f" and InvoiceDate::date = date '{DAY}'"
    )
    reader = result.to_arrow_reader(100_000)
    with adbc.connect(url) as conn, conn.cursor() as cursor:
        rows = cursor.adbc_ingest("duckdb_lines", reader, mode="create")
        conn.commit()
    return rows


def pandas_to_sql(path: Path, url: str, home: Path) -> int:
    """pandas reads, cleans and writes with to_sql in chunks, as most tutorials do."""
    import pandas as pd
    import sqlalchemy

    _start()
    engine = sqlalchemy.create_engine("postgresql+psycopg://" + url.split("://", 1)[1])
    rows = 0
    for frame in pd.read_csv(path, dtype=str, chunksize=100_000):
        frame["Quantity"] = frame["Quantity"].astype("int64")
        frame["UnitPrice"] = frame["UnitPrice"].astype(float)
        frame["InvoiceDate"] = pd.to_datetime(frame["InvoiceDate"])
        cancelled = frame["InvoiceNo"].str.startswith("C")
        good = frame[(frame["Quantity"] != 0) & ((frame["Quantity"] > 0) == ~cancelled) & (frame["UnitPrice"] >= 0)]
        good = good.drop_duplicates()
        good.to_sql("pandas_lines", engine, if_exists="append", index=False)
        rows += len(good)
    return rows


CONTENDERS: dict[str, Callable[[Path, str, Path], int]] = {
    "ours": ours,
    "ours_with_rollup": ours_with_rollup,
    "bare": bare,
    "duckdb_adbc": duckdb_adbc,
    "pandas_to_sql": pandas_to_sql,
}
_clock: list[float] = []


def _start() -> None:
    _clock[:] = [time.perf_counter(), time.process_time()]


def child(name: str, path: Path, url: str, home: Path) -> None:
    """Run one contender and print its figures as JSON."""
    rows = CONTENDERS[name](path, url, home)
    wall, cpu = time.perf_counter() - _clock[0], time.process_time() - _clock[1]
    print(json.dumps({"rows": rows, "wall": wall, "cpu": cpu, "rss_mb": _peak_mb()}))


def _peak_mb() -> float:
    """Peak resident memory. Linux keeps a parent's peak in ru_maxrss across exec, so it is read from /proc there."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: bytes


def _server_cpu(data: Path) -> float:
    """CPU seconds of the server so far: the postmaster, its living children, and those that have ended. 0 where unknown."""
    processes = {stat.parent.name: stat for stat in Path("/proc").glob("[0-9]*/stat")}
    postmaster = (data / "postmaster.pid").read_text().split()[0]
    ticks = 0
    for pid, stat in processes.items():
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()  # from the third on: state, parent, ...
        except OSError:
            continue
        if pid == postmaster:
            ticks += sum(map(int, fields[11:15]))
        elif fields[1] == postmaster:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(name: str, path: Path, server: Server, home: Path) -> dict[str, float]:
    """One run of a contender in a fresh database."""
    import psycopg

    from ct_assets.adapters.postgres.migrate import migrate

    server_url = server.url("postgres")
    url = server_url.replace("/postgres?", "/bench?")
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute("drop database if exists bench with (force)")
        conn.execute("create database bench")
    migrate(url)
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute("checkpoint")
    before = _server_cpu(server.data)
    command = [sys.executable, __file__, "--child", name, str(path), url, str(home / name)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr.strip()[-800:]}")
    shutil.rmtree(home / name, ignore_errors=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {"server": _server_cpu(server.data) - before, "load": os.getloadavg()[0]}


def main() -> None:
    """Measure and print the table; exit 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pandas-rows", type=int, default=250_000, help="to_sql is slow: measured on fewer rows")
    parser.add_argument("--child", nargs=4)
    args = parser.parse_args()
    if args.child:
        name, path, url, home = args.child
        child(name, Path(path), url, Path(home))
        return
    from ct_assets.adapters.postgres.server import Server
    from ct_assets.sampling.bulk import write_sales_csv

    with tempfile.TemporaryDirectory(prefix="ct-bench-") as folder:
        home = Path(folder)
        server = Server(home / "pg")
        server.ensure("postgres")
        try:
            large, small = home / f"{DAY}.csv", home / "small" / f"{DAY}.csv"
            small.parent.mkdir()
            write_sales_csv(large, args.rows, 1, DAY)
            write_sales_csv(small, args.pandas_rows, 1, DAY)
            missed = report(args, server, large, small, home)
        finally:
            server.stop()
            shutil.rmtree(server.base, ignore_errors=True)
    sys.exit(1 if missed else 0)


def report(args: argparse.Namespace, server: Server, large: Path, small: Path, home: Path) -> bool:
    """Runs alternate, so that a noisy minute hits all contenders; the median of each counts."""
    runs: dict[str, list[dict[str, float]]] = {"bare": [], "ours": [], "ours_with_rollup": [], "duckdb_adbc": []}
    for _ in range(args.repeats):
        for name, found in runs.items():
            found.append(measure(name, large, server, home))
    best = {name: sorted(found, key=lambda r: r["wall"])[len(found) // 2] for name, found in runs.items()}
    pandas, bare_small = measure("pandas_to_sql", small, server, home), measure("bare", small, server, home)
    print(
        f"{args.rows:,} rows, {large.stat().st_size / 1e6:.0f} MB; median of {args.repeats}; wall s, CPU s of client and server, peak MB of the"
        f" client, load average of {os.cpu_count()} cores; contenders alternate"
    )
    print(f"{'contender':<34}{'wall':>8}{'client':>8}{'server':>8}{'MB':>7}{'load':>7}{'x bare':>9}")
    bare_wall = best["bare"]["wall"]
    for name, label in (
        ("bare", "bare typed COPY"),
        ("ours", "ours: contract, ledger"),
        ("ours_with_rollup", "ours, and the day's rollup"),
        ("duckdb_adbc", "DuckDB + ADBC"),
    ):
        r = best[name]
        print(_line(label, r, bare_wall))
    print(_line(f"pandas + to_sql ({args.pandas_rows:,} rows)", pandas, bare_small["wall"]))
    ratio, rss = best["ours"]["wall"] / bare_wall, best["ours"]["rss_mb"]
    print(
        f"target: ours <= 1.00x bare: {ratio:.2f} {'ok' if ratio <= 1 else 'MISSED'}; RSS < 400 MB: {rss:.0f} {'ok' if rss < 400 else 'MISSED'}"
    )
    return ratio > 1 or rss >= 400


def _line(label: str, r: dict[str, float], bare_wall: float) -> str:
    figures = f"{r['wall']:>8.2f}{r['cpu']:>8.2f}{r['server']:>8.2f}{r['rss_mb']:>7.0f}{r['load']:>7.1f}"
    return f"{label:<34}{figures}{r['wall'] / bare_wall:>9.2f}"


if __name__ == "__main__":
    main()
