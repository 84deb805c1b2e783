"""`ct verdict`'s work against DuckDB's own pass over the same bytes: 23 rules, duplicates, good and bad rows as Parquet.

What goes here: seeded data, both sides, CPU and memory of fresh processes, one line of result. What does not: claims
that are not printed. Run: ``.venv/bin/python ct_assets_tests/bench/bench_verdict.py [--rows N]`` (or ``make bench``).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COUNTRIES = ["DE", "FR", "GB", "IE", "NL", "PT", "SE", "US"]
CATEGORIES = ["garden", "home", "kitchen", "music", "paper", "toys"]
CHANNELS = ["app", "phone", "shop", "web"]
COLUMNS = ["id", "sku", "email", "category", "country", "channel", "quantity", "price", "discount", "ordered_at"]
CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: bench
name: bench
version: 1.0.0
status: active
schema:
  - name: orders
    properties:
      - {name: id, logicalType: integer, required: true, unique: true}
      - {name: sku, logicalType: string, required: true, logicalTypeOptions: {pattern: "^[A-Z]{2}-[0-9]{4}$"}}
      - {name: email, logicalType: string, required: true, logicalTypeOptions: {pattern: "^[a-z0-9]+@[a-z]+[.]com$"}}
      - {name: category, logicalType: string, required: true, enum: CATEGORIES}
      - {name: country, logicalType: string, required: true, enum: COUNTRIES}
      - {name: channel, logicalType: string, required: true, enum: CHANNELS}
      - {name: quantity, logicalType: integer, required: true, logicalTypeOptions: {minimum: 1}}
      - {name: price, logicalType: number, physicalType: "decimal(12,2)", required: true, logicalTypeOptions: {minimum: 0}}
      - {name: discount, logicalType: number, logicalTypeOptions: {maximum: 1}}
      - {name: ordered_at, logicalType: timestamp, required: true, logicalTypeOptions: {format: "yyyy-MM-dd HH:mm:ss"}}
"""
for _name, _values in (("CATEGORIES", CATEGORIES), ("COUNTRIES", COUNTRIES), ("CHANNELS", CHANNELS)):
    CONTRACT = CONTRACT.replace(_name, json.dumps(_values))


def generate(path: Path, rows: int, seed: int = 7) -> None:
    """Write ``rows`` orders; six faults, each in 0.1 % of the rows."""
    rng = np.random.default_rng(seed)
    with path.open("w") as out:
        out.write(",".join(COLUMNS) + "\n")
        for begin in range(0, rows, 100_000):
            out.write("\n".join(_lines(rng, begin, min(100_000, rows - begin))) + "\n")


def _lines(rng: np.random.Generator, begin: int, n: int) -> list[str]:
    ids = (np.arange(begin, begin + n) * 7 + 1_000_003).astype(str)
    letters = rng.integers(65, 91, (n, 2))
    digits = rng.integers(0, 10_000, n)
    sku = [f"{chr(a)}{chr(b)}-{d:04d}" for (a, b), d in zip(letters, digits, strict=True)]
    email = [f"user{u}@example.com" for u in rng.integers(0, 2_000_000, n)]
    picks = [[names[i] for i in rng.integers(0, len(names), n)] for names in (CATEGORIES, COUNTRIES, CHANNELS)]
    quantity = rng.integers(1, 40, n).astype(str)
    price = [f"{p / 100:.2f}" for p in rng.integers(50, 100_000, n)]
    discount = [f"{d / 100}" for d in rng.integers(0, 60, n)]
    seconds = np.datetime64("2026-01-01T00:00:00") + rng.integers(0, 86_400 * 90, n)
    ordered = [s.replace("T", " ") for s in np.datetime_as_string(seconds)]
    columns = [ids, sku, email, *picks, quantity, price, discount, ordered]
    columns = [list(c) for c in columns]
    faults = [(0, None), (1, "bad sku"), (4, "XX"), (6, "0"), (7, "n/a"), (9, "2026-02-30 10:00:00")]
    for column, value in faults:
        for i in np.flatnonzero(rng.random(n) < 0.001):
            columns[column][i] = columns[column][max(i - 1, 0)] if value is None else value
    return [",".join(fields) for fields in zip(*columns, strict=True)]


def ours(csv: Path, out: Path) -> dict[str, int]:
    """The real path of ``ct verdict --out``."""
    from ct_assets.cli.verdict_files import judge_file
    from ct_assets.contracts.odcs import load_contract

    contract = out / "bench.odcs.yaml"
    contract.write_text(CONTRACT)
    schema = load_contract(contract).schema()
    if len(schema.rules) != 23:
        raise SystemExit(f"{len(schema.rules)} rules, 23 expected")
    return judge_file(csv, schema, out).rows


def duckdb_pass(csv: Path, out: Path) -> dict[str, int]:
    """The same job in DuckDB: text, TRY_CAST, 23 rules as a bitmask, later repeats of an id, two Parquet files."""
    import duckdb

    names = {"category": CATEGORIES, "country": COUNTRIES, "channel": CHANNELS}
    tests = [f"{c} IS NULL" for c in COLUMNS if c != "discount"]
    tests += [f"{c} IS NOT NULL AND {c}_t IS NULL" for c in ("id", "quantity", "price", "discount", "ordered_at")]
    tests += ["NOT regexp_matches(sku, '^[A-Z]{2}-[0-9]{4}$')", "NOT regexp_matches(email, '^[a-z0-9]+@[a-z]+[.]com$')"]
    tests += [f"{c} NOT IN ({', '.join(repr(v) for v in values)})" for c, values in names.items()]
    tests += ["quantity_t < 1", "price_t < 0", "discount_t > 1"]
    mask = " | ".join(f"(CASE WHEN {test} THEN {1 << bit}::BIGINT ELSE 0 END)" for bit, test in enumerate(tests))
    good = ", ".join(
        f"{c}_t AS {c}" if c in ("id", "quantity", "price", "discount", "ordered_at") else c for c in COLUMNS
    )
    db = duckdb.connect()
    db.execute("SET memory_limit='1GB'; SET preserve_insertion_order=true")
    db.execute(f"""CREATE TEMP TABLE staged AS
        WITH typed AS (SELECT *, row_number() OVER () + 1 AS line, TRY_CAST(id AS BIGINT) id_t, TRY_CAST(quantity AS BIGINT) quantity_t,
               TRY_CAST(price AS DECIMAL(12,2)) price_t, TRY_CAST(discount AS DOUBLE) discount_t, TRY_CAST(ordered_at AS TIMESTAMP) ordered_at_t
               FROM read_csv('{csv}', all_varchar=true, header=true, delim=',', quote='"'))
        SELECT *, {mask} AS bits FROM typed""")
    db.execute("""CREATE TEMP TABLE repeats AS WITH many AS (SELECT id_t, min(line) AS first FROM staged WHERE bits = 0 GROUP BY id_t HAVING count(*) > 1)
        SELECT line FROM staged SEMI JOIN many ON staged.id_t = many.id_t AND staged.line > many.first WHERE bits = 0""")
    db.execute("UPDATE staged SET bits = bits | (1::BIGINT << 22) WHERE line IN (SELECT line FROM repeats)")
    db.execute(f"COPY (SELECT {good}, line FROM staged WHERE bits = 0) TO '{out}/good.parquet'")
    db.execute(f"COPY (SELECT line, {', '.join(COLUMNS)}, bits FROM staged WHERE bits <> 0) TO '{out}/bad.parquet'")
    read, bad = db.execute("SELECT count(*), count(*) FILTER (bits <> 0) FROM staged").fetchone() or (0, 0)
    return {"read": read, "good": read - bad, "quarantined": bad, "duplicates": 0}


def child(side: str, csv: Path, out: Path) -> None:
    """One side in this process; prints rows, seconds of CPU and of wall clock, peak memory in MB."""
    started = time.perf_counter()
    rows = {"ours": ours, "duckdb": duckdb_pass}[side](csv, out)
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = used.ru_maxrss / (1024 if sys.platform != "darwin" else 1024 * 1024)
    print(
        json.dumps(
            {"rows": rows, "cpu": used.ru_utime + used.ru_stime, "wall": time.perf_counter() - started, "mb": peak}
        )
    )


def measure(side: str, csv: Path, times: int) -> dict[str, float]:
    """The best of some fresh processes (CPU), the worst peak memory."""
    results = []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as out:
            line = subprocess.run(
                [sys.executable, __file__, "--child", side, str(csv), out], capture_output=True, text=True, check=True
            )
            results.append(json.loads(line.stdout.splitlines()[-1]))
    best = min(results, key=lambda r: r["cpu"])
    return {**best, "mb": max(r["mb"] for r in results)}


def main() -> int:
    """Print ours, peer, ratio, target; 1 when a target is missed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--times", type=int, default=3)
    options.add_argument("--ten", action="store_true", help="also ten times the rows, for memory")
    options.add_argument("--child", nargs=3)
    args = options.parse_args()
    if args.child:
        child(args.child[0], Path(args.child[1]), Path(args.child[2]))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / "orders.csv"
        generate(csv, args.rows)
        mine, peer = measure("ours", csv, args.times), measure("duckdb", csv, args.times)
        if mine["rows"] != peer["rows"]:
            raise SystemExit(f"the two sides differ: {mine['rows']} {peer['rows']}")
        ratio = mine["cpu"] / peer["cpu"]
        print(
            f"verdict {args.rows:,} x 10, 23 rules: ours {mine['cpu']:.2f} CPU-s {mine['mb']:.0f} MB, DuckDB {peer['cpu']:.2f} CPU-s {peer['mb']:.0f} MB, ratio {ratio:.2f}, target <= 1.30"
        )
        worst = mine["mb"]
        if args.ten:
            generate(csv, args.rows * 10)
            big = measure("ours", csv, 1)
            worst = max(worst, big["mb"])
            print(
                f"verdict {args.rows * 10:,} x 10: ours {big['cpu']:.2f} CPU-s {big['wall']:.1f} s, peak {big['mb']:.0f} MB, target <= 400 MB"
            )
    return int(ratio > 1.3 or worst > 400)


if __name__ == "__main__":
    sys.exit(main())
