"""Code location load against bare `import dagster`: it recurs at the start of every run. Target: at most 1.5 times.

What goes here: the measurement, each load in a fresh process, the two sides interleaved. What does not: the test that
no heavy module is loaded (`ct_assets_tests/graph`). Run: `.venv/bin/python ct_assets_tests/bench/bench_load_time.py [--rounds N]`
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("pandas", "feast", "mlflow", "sklearn", "kubernetes", "polars", "pyarrow", "matplotlib")
TARGET = 1.5


def cpu_seconds(code: str) -> float:
    """CPU seconds (user and system) of a fresh interpreter that runs ``code``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True, env={})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> int:
    """Print one line of JSON; exit 1 when the target is missed or a heavy module is loaded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    bare, ours = [], []
    for _ in range(rounds):
        bare.append(cpu_seconds("import dagster"))
        ours.append(cpu_seconds("import ct_assets.definitions"))
    probe = f"import sys, json, ct_assets.definitions; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    loaded = json.loads(
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", probe], cwd=ROOT, check=True, env={}, capture_output=True
        ).stdout
    )
    ratio = statistics.median(ours) / statistics.median(bare)
    result = {
        "bench": "code location load, CPU s",
        "ours": round(statistics.median(ours), 3),
        "peer": "import dagster",
        "peer_value": round(statistics.median(bare), 3),
        "ratio": round(ratio, 2),
        "target": TARGET,
        "heavy_modules": loaded,
    }
    print(json.dumps(result))
    return 0 if ratio <= TARGET and not loaded else 1


if __name__ == "__main__":
    sys.exit(main())
