"""What `ct doctor` says of the Redis in CT_ONLINE_URL: a real one, and answers that a test cannot bring about."""

from __future__ import annotations

from pathlib import Path

import pytest

from ct_assets.adapters.doctor import examine
from ct_assets.adapters.stream.redis_examination import judged
from ct_assets.settings import Settings, load


def online(settings: Settings):
    return next(finding for finding in examine(settings) if finding.check == "online")


def test_a_real_one(ct_home: Path, pg_url: str, redis_url: str) -> None:
    import redis

    settings = load({"CT_HOME": str(ct_home), "CT_DATABASE_URL": pg_url, "CT_ONLINE_URL": redis_url})
    found = online(settings)
    assert found.state == "ok"
    assert "noeviction, persistence: snapshots at most" in found.message
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            found = online(settings)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert (found.state, "evicts keys when memory is short (maxmemory-policy allkeys-lru)" in found.message) == (
        "fail",
        True,
    )
    assert found.remedy is not None
    assert "noeviction" in found.remedy


def test_nobody_answers_and_no_password_is_shown(ct_home: Path, pg_url: str) -> None:
    url = "redis://:canary@127.0.0.1:1/0"  # no server listens on port 1
    found = online(load({"CT_HOME": str(ct_home), "CT_DATABASE_URL": pg_url, "CT_ONLINE_URL": url}))
    assert found.state == "fail"
    assert "Redis at redis://:***@127.0.0.1:1/0 does not answer" in found.message
    assert "canary" not in str(found)


@pytest.mark.parametrize(
    ("info", "state", "words"),
    [
        ({"redis_version": "5.0.7"}, "fail", "at least 6.0 is needed"),
        ({"redis_version": "7.0.15", "cluster_enabled": 1}, "fail", "is a cluster"),
        ({"redis_version": "7.0.15", "role": "slave"}, "warn", "is a replica"),
        ({"redis_version": "7.2.4", "maxmemory_policy": "volatile-ttl"}, "fail", "evicts keys"),
        ({"redis_version": "8.0.1", "aof_enabled": 1}, "ok", "persistence: AOF"),
    ],
)
def test_answers_of_others(info: dict, state: str, words: str) -> None:
    found = judged(info, "redis://cache:6379/0")
    assert (found[0], words in found[1]) == (state, True)
