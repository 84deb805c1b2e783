"""What `ct doctor` asks of the Redis that answers online reads: reachable, new enough, never evicting, how durable.

What goes here: the questions and their remedies. What does not: printing them (``cli.doctor``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ct_assets.adapters.stream.redis_online import asked, connect
from ct_assets.settings import redact

if TYPE_CHECKING:
    from ct_assets.settings import Settings

Answer = tuple[str, str, str | None]  # state, message, remedy
OLDEST = (6, 0)
_EVICTS = "redis-cli config set maxmemory-policy noeviction (and in redis.conf): an evicted entity would read as empty windows"


def redis_store(settings: Settings) -> Answer:
    """State (ok, warn, fail), message and remedy about CT_ONLINE_URL."""
    url = settings.online_url
    if url is None:
        return "ok", "online reads are answered by PostgreSQL (CT_ONLINE_URL is not set)", None
    client, place = connect(url), redact(url)
    try:
        info: dict[str, Any] = asked(client.info, place)
    finally:
        client.close()
    return judged(info, place)


def judged(info: dict[str, Any], place: str) -> Answer:
    """What the answer to INFO means."""
    version = str(info["redis_version"])
    where = f"Redis {version} at {place}"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        return "fail", f"{where}; at least {OLDEST[0]}.{OLDEST[1]} is needed", "use a newer Redis"
    if info.get("cluster_enabled"):
        return "fail", f"{where} is a cluster: one call reads many entities", "use one Redis, with replicas if need be"
    if info.get("role") == "slave":
        return "warn", f"{where} is a replica: workers cannot write there", "name the primary in workers' CT_ONLINE_URL"
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return "fail", f"{where} evicts keys when memory is short (maxmemory-policy {policy})", _EVICTS
    durable = "AOF" if info.get("aof_enabled") else "snapshots at most"
    return "ok", f"{where}, noeviction, persistence: {durable} (what it loses is loaded again from PostgreSQL)", None
