"""Small ways to read a source in tests."""

from __future__ import annotations

import time
from collections.abc import Mapping

from ct_assets.adapters.events.port import EventSource, Start
from ct_assets.streaming.messages import Messages

PATIENCE = 60.0  # seconds until a test gives up; never asserted


def payloads(messages: Messages) -> list[bytes | None]:
    """Every message's bytes; None for a tombstone."""
    return [messages.payload(index) for index in range(len(messages))]


def rows(messages: Messages) -> list[tuple[int, int, bytes | None]]:
    """(partition, offset, payload) of every message."""
    return list(zip(messages.partition.tolist(), messages.offset.tolist(), payloads(messages), strict=True))


def read_all(source: EventSource, start: Mapping[int, Start], step: int = 1000) -> list[bytes | None]:
    """Assign, and read to the end offsets of now."""
    source.assign(start)
    return [value for _, _, value in read_to(source, source.end_offsets(list(start)), step)]


def read_to(source: EventSource, ends: Mapping[int, int], step: int = 1000) -> list[tuple[int, int, bytes | None]]:
    """Read on until every partition of ``ends`` has reached its offset there."""
    found: list[tuple[int, int, bytes | None]] = []
    deadline = time.monotonic() + PATIENCE
    while any(source.positions().get(p, -1) < end for p, end in ends.items()):
        assert time.monotonic() < deadline, f"no end after {PATIENCE} s: {source.positions()} of {ends}"
        found += rows(source.poll(step, 0.2))
    return found
