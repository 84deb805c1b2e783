"""A worker's commit in a process that can be killed: commit a fixed batch, dying with SIGKILL at a named point.

What goes here: the process that the crash tests start. What does not: assertions.

    python -m ct_assets_tests.adapters.stream.victim URL FOLDER POINT [URL OF REDIS]
"""

from __future__ import annotations

import sys
from pathlib import Path

from ct_assets.adapters.crash import crash_at
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import online, state
from ct_assets.adapters.stream.redis_sync import Twin
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.worlds import DAY, Given, M, Writer

SECOND = [Given(u % 7, u * M // 10, partition=u % 2) for u in range(50)]


def second_batch() -> list[worlds.Event]:
    """What the victim commits: offsets from 5 on."""
    return worlds.accepted(SECOND, first_offset=5)


def main(url: str, folder: str, point: str, online_url: str | None = None) -> None:
    """Claim both partitions and commit."""
    definition = worlds.definition(Path(folder))
    with connect(url, autocommit=True) as conn:
        stream = state.open_stream(conn, "visits", definition.acceptance, worlds.identity())
        writer = Writer(conn, stream, [online.ensure(conn, stream, definition)], owner="victim")
        writer.take([0, 1])
        crash = crash_at(None if point == "-" else point)
        if online_url is not None:
            writer.twin = Twin.opened(online_url, stream, reads_back_us=DAY, crash=crash)
        dead = [state.DeadLetterRow(0, 30, "poison", "no JSON", definition.acceptance.contract_digest, b"\x00{", None)]
        writer.commit(second_batch(), dead=dead, crash=crash)


if __name__ == "__main__":
    main(*sys.argv[1:5])
