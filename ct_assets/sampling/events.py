"""Event samples as files and messages: `ct sample events`.

What goes here: the folder that is written, the truth beside it, the order of sending. What does not: how events come
about (``shoppers``, ``arrivals``), sources and sinks (adapters).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ct_assets.sampling.arrivals import ArrivalOptions, Arrivals
from ct_assets.sampling.shoppers import KINDS

CHUNK = 20_000


def write_events(out: Path, arrivals: Arrivals, options: ArrivalOptions) -> dict[str, Any]:
    """Write ``events.jsonl`` (payloads in order of arrival; tombstones have no line), ``truth.parquet`` (a row a
    message) and ``truth.json`` into ``out``; returns the latter's content."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "events.jsonl").open("wb") as file:
        file.writelines(payload + b"\n" for payload in arrivals.payload if payload is not None)
    truth_frame(arrivals).write_parquet(out / "truth.parquet")
    truth = describe(arrivals, options)
    (out / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return truth


def truth_frame(arrivals: Arrivals) -> Any:
    """A Polars frame with one row a message: where it went, what was planted, and a click's true probability of a
    purchase within 30 minutes (null for other messages)."""
    import polars as pl

    return pl.DataFrame(
        {
            "partition": arrivals.partition,
            "append_time": arrivals.append_time,
            "planted": arrivals.planted,
            "event_id": arrivals.event_id,
            "user_id": arrivals.user,
            "event_time": arrivals.event_time,
            "event_type": [KINDS[k] for k in arrivals.kind.tolist()],
            "amount_cents": arrivals.cents,
            "probability": arrivals.probability,
        }
    ).with_columns(
        pl.col("append_time", "event_time").cast(pl.Datetime("us", "UTC")),
        pl.col("amount_cents").replace(-1, None),
        pl.col("probability").fill_nan(None),
    )


def describe(arrivals: Arrivals, options: ArrivalOptions) -> dict[str, Any]:
    """What was planted, in totals."""
    return {
        "seed": options.shop.seed,
        "users": options.shop.users,
        "hours": options.shop.hours,
        "signal": options.shop.signal,
        "start": options.start.isoformat(),
        "partitions": options.partitions,
        "messages": len(arrivals),
        "planted": dict(sorted(Counter(arrivals.planted).items())),
        "kinds": {name: int((arrivals.kind == number).sum()) for number, name in enumerate(KINDS)},
    }


def batches(arrivals: Arrivals) -> Iterator[tuple[int, list[bytes | None], list[int]]]:
    """(partition, payloads, append times) in order of arrival, some thousands at a time: what a producer sends."""
    for begin in range(0, len(arrivals), CHUNK):
        here = slice(begin, begin + CHUNK)
        partition, append, payload = arrivals.partition[here], arrivals.append_time[here], arrivals.payload[here]
        for p in np.unique(partition).tolist():
            chosen = np.flatnonzero(partition == p)
            yield p, [payload[i] for i in chosen.tolist()], append[chosen].tolist()
