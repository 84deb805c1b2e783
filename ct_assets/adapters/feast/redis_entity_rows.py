"""Online rows of ordinary Feast views in Redis: the twin of ``entity_rows``, with the same rule of what is newer.

What goes here: keys, one conditional bulk write, reads. What does not: Feast's types (``online_store``), live stream views
(``adapters.stream.redis_online``). Imports no Feast.

A row is a hash: ``e`` event time, ``c`` created time (microseconds), ``f:<feature>`` the serialised value. Rows of a view
share the prefix ``ct:view:<table>:``. The script makes the names of keys, so a Redis Cluster is not supported.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ct_assets.adapters.stream.redis_online import asked

if TYPE_CHECKING:
    import redis

    from ct_assets.adapters.feast.entity_rows import EntityRow, EntityTable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = -(1 << 53)  # created time of a row that has none: older than any
_AT_ONCE = 256 * 1024  # bytes in one call
_HEAD = struct.Struct("<IIdd")

# ARGV: prefix, rows back to back: bytes of the key, count of texts, event, created, then the key and, each after its length,
# names and values in turns. All of a row is replaced, so a feature that it lacks is absent.
_WRITE = """
local blob, p, changed = ARGV[2], 1, 0
while p <= #blob do
  local key_size, texts, event, created, q = struct.unpack('<I4I4dd', blob, p)
  local key = ARGV[1] .. string.sub(blob, q, q + key_size - 1)
  local fields = {'e', struct.pack('<d', event), 'c', struct.pack('<d', created)}
  q = q + key_size
  for i = 5, 4 + texts do fields[i], q = struct.unpack('<I4c0', blob, q) end
  local had = redis.call('HMGET', key, 'e', 'c')
  local newer = not had[1]
  if had[1] then
    local e, c = struct.unpack('<d', had[1]), struct.unpack('<d', had[2])
    newer = event > e or (event == e and created >= c)
  end
  if newer then
    if had[1] then redis.call('DEL', key) end
    redis.call('HSET', key, unpack(fields))
    changed = changed + 1
  end
  p = q
end
return changed
"""


def prefix(table: EntityTable) -> bytes:
    """What the keys of a view begin with."""
    return f"ct:view:{table.name}:".encode()


def ensure(client: redis.Redis, table: EntityTable) -> None:
    """Nothing to make: a row has the features that were written."""


def drop(client: redis.Redis, table: EntityTable) -> None:
    """Remove the view's rows."""

    def remove() -> None:
        names: list[bytes] = []
        for name in client.scan_iter(match=_escaped(prefix(table)) + b"*", count=5_000):
            names.append(name)
            if len(names) >= 5_000:
                client.unlink(*names)
                names.clear()
        if names:
            client.unlink(*names)

    asked(remove, "")


def write(client: redis.Redis, table: EntityTable, rows: Iterable[EntityRow]) -> int:
    """Write rows that are not older than what is there, in pipelined calls; rows that changed."""
    script = client.register_script(_WRITE)

    def send() -> int:
        with client.pipeline(transaction=False) as calls:
            for message in _messages(table, rows):
                script(keys=[], args=[prefix(table), message], client=calls)
            return sum(calls.execute())

    return asked(send, "")


def read(
    client: redis.Redis, table: EntityTable, keys: Sequence[bytes], not_before: datetime | None
) -> list[tuple[datetime, dict[str, bytes | None]] | None]:
    """Per key, in order: event time and values; None for an unknown entity or one older than ``not_before`` (its ttl)."""
    fields = ["e", *(f"f:{feature}" for feature in table.features)]

    def fetch() -> list[list[bytes | None]]:
        with client.pipeline(transaction=False) as calls:
            for key in keys:
                calls.execute_command("HMGET", prefix(table) + key, *fields)  # `hmget` is typed for text keys only
            return calls.execute()

    found = []
    for row in asked(fetch, ""):
        event = None if row[0] is None else _EPOCH + timedelta(microseconds=struct.unpack("<d", row[0])[0])
        if event is None or (not_before is not None and event < not_before):
            found.append(None)
        else:
            found.append((event, dict(zip(table.features, row[1:], strict=True))))
    return found


def _messages(table: EntityTable, rows: Iterable[EntityRow]) -> Iterator[bytes]:
    """Rows as the script takes them, so many bytes at a time."""
    waiting = bytearray()
    for row in rows:
        texts = []
        for feature in table.features:
            if feature in row.values:
                texts += [b"f:" + feature.encode(), row.values[feature]]
        created = _NEVER if row.created is None else _micros(row.created)
        waiting += _HEAD.pack(len(row.key), len(texts), _micros(row.event), created)
        waiting += row.key
        for text in texts:
            waiting += struct.pack("<I", len(text))
            waiting += text
        if len(waiting) >= _AT_ONCE:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _escaped(name: bytes) -> bytes:
    """A name as a pattern of SCAN that matches only itself."""
    for sign in (b"\\", b"*", b"?", b"[", b"]"):
        name = name.replace(sign, b"\\" + sign)
    return name
