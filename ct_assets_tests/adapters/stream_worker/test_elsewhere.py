"""A run until idle waits for partitions that it does not hold: a killed worker's belong to nobody until its session ends.

What goes here: the question by itself, on a real database. What does not: workers (``test_worker``).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ct_assets.adapters.events.port import SourceError
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import state
from ct_assets.adapters.stream_worker import elsewhere
from ct_assets.adapters.stream_worker.elsewhere import Elsewhere
from ct_assets_tests.adapters.stream import worlds


class Topic:
    """Three partitions: the third begins at 40 and is empty since."""

    def partitions(self) -> list[int]:
        return [0, 1, 2]

    def begin_offsets(self, partitions: list[int]) -> dict[int, int]:
        return {p: {0: 0, 1: 0, 2: 40}[p] for p in partitions}

    def end_offsets(self, partitions: list[int]) -> dict[int, int]:
        return {p: {0: 10, 1: 10, 2: 40}[p] for p in partitions}


def test_the_topic_is_read_when_every_partition_is(
    pg_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "EVERY_SECONDS", 0.0)
    with connect(pg_url, autocommit=True) as conn:
        stream = state.open_stream(conn, "visits", worlds.definition(tmp_path).acceptance, worlds.identity())
        found, topic = Elsewhere(stream), Topic()

        def look(*held: int) -> bool:
            found.look(topic, held, conn)  # type: ignore[arg-type]
            return found.is_read

        assert not found.is_read  # nobody has looked
        assert not look(0)  # partition 1 has ten messages and no reader
        assert look(0, 1)
        state.claim(conn, stream, [1], "the one that was killed")
        assert not look(0)
        conn.execute("update stream.partition set next_offset = 9 where partition = 1")
        assert not look(0)
        monkeypatch.setattr(elsewhere, "STILL_SECONDS", 0.0)
        with pytest.raises(SourceError, match=r"nobody reads the partitions \[1\]"):
            look(0)
        conn.execute("update stream.partition set next_offset = 10 where partition = 1")
        assert look(0)
