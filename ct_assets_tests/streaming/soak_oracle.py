"""Many random streams against the oracle: ``python -m ct_assets_tests.streaming.soak_oracle --streams N --seed S``.

What goes here: the loop, the printed seeds. What does not: the comparison (``random_streams.py``). A failure prints the
seed that repeats it: ``--streams 1 --seed THAT``.
"""

from __future__ import annotations

import argparse
import sys
import time
from random import Random

from ct_assets_tests.streaming.random_streams import check_stream, random_stream


def main(argv: list[str] | None = None) -> int:
    """0 when every stream equals the oracle."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--streams", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--events", type=int, default=80, help="at most this many messages a stream")
    args = options.parse_args(argv)
    began, messages = time.monotonic(), 0
    for seed in range(args.seed, args.seed + args.streams):
        rng = Random(seed)
        stream = random_stream(rng, args.events)
        messages += len(stream.payloads)
        try:
            check_stream(stream, rng)
        except Exception:
            print(f"seed {seed} differs; repeat with --streams 1 --seed {seed} --events {args.events}", flush=True)
            raise
    print(
        f"{args.streams} random streams from seed {args.seed} ({messages:,} messages): 0 differences from the oracle, {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
