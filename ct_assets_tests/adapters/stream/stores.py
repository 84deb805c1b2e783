"""The two online stores behind one face, so that one suite runs on both.

What goes here: reads and what a worker does after a commit. What does not: assertions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from ct_assets.adapters.stream.online import OnlineTable
from ct_assets.adapters.stream.online_read import OnlineValues
from ct_assets.adapters.stream.online_reads import OnlineReads
from ct_assets.adapters.stream.redis_sync import Twin
from ct_assets_tests.adapters.stream.worlds import DAY, Writer


@dataclass
class Store:
    """PostgreSQL (``online_url`` None) or Redis. Rows stay for reads of a year, as no test waits for the present."""

    online_url: str | None = None
    twins: list[Twin] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reads = OnlineReads(self.online_url)

    def serve(self, writer: Writer) -> None:
        """From now on the writer's commits reach this store."""
        if self.online_url is not None:
            writer.twin = Twin.opened(self.online_url, writer.stream, reads_back_us=366 * DAY)
            writer.twin.level(writer.conn)
            self.twins.append(writer.twin)

    def look(self, conn: psycopg.Connection) -> None:
        """What a worker does once a second."""
        for twin in self.twins:
            twin.level(conn)

    def read(
        self, conn: psycopg.Connection, table: OnlineTable, entities: Sequence[Any], at_us: int, *, version: bool = True
    ) -> OnlineValues:
        """Online values."""
        return self._reads.read(conn, table, entities, at_us, version=version)
