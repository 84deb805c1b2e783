"""Online reads from wherever this installation keeps its online rows: PostgreSQL, or Redis by setting.

What goes here: that one choice. What does not: the reads (``online_read``, ``redis_online``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.stream import online_read
from ct_assets.adapters.stream.online_read import OnlineValues
from ct_assets.adapters.stream.redis_online import RedisTable, connect

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.stream.online import OnlineTable


class OnlineReads:
    """Reads of live views. The database connection finds a version; with Redis the values do not come from it."""

    def __init__(self, online_url: str | None = None) -> None:
        """``online_url``: of Redis (``CT_ONLINE_URL``), or None for PostgreSQL. Nothing is opened before a read."""
        self._url = online_url
        self._client = connect(online_url) if online_url else None
        self._places: dict[OnlineTable, RedisTable] = {}

    def read(
        self, conn: psycopg.Connection, table: OnlineTable, entities: Sequence[Any], at_us: int, *, version: bool = True
    ) -> OnlineValues:
        """As :func:`ct_assets.adapters.stream.online_read.read`; may raise what ``redis_online`` raises."""
        if self._client is None:
            return online_read.read(conn, table, entities, at_us, version=version)
        if table not in self._places:
            self._places[table] = RedisTable.of(self._client, conn, table, self._url or "")
        return self._places[table].read(entities, at_us, version=version)
