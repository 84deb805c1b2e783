"""`ct doctor` on a real broker's topics: what matters is named with the command that mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ct_assets.adapters.events.broker import TOPIC, make_topic
from ct_assets.adapters.events.examination import topic as examine
from ct_assets.adapters.events.kafka_client import KafkaTopic, NoSuchTopic
from ct_assets.adapters.events.port import SourceError, parse_url
from ct_assets.settings import KafkaSettings, Settings, load

HOUR_US = 3_600_000_000
pytestmark = pytest.mark.xdist_group("kafka")


def settings(url: str, home: Path) -> Settings:
    return load({"CT_HOME": str(home), "CT_KAFKA_URL": url})


def make(url: str, **config: str) -> None:
    where = parse_url(url)
    assert where.topic is not None
    KafkaTopic(where.place, where.topic, KafkaSettings()).create(3, **config)


def test_a_good_topic(kafka_url: str, tmp_path: Path):
    make(kafka_url, **{"retention.ms": "86400000"})
    state, message, remedy = examine(settings(kafka_url, tmp_path), HOUR_US)
    assert (state, remedy) == ("ok", None)
    assert message.endswith("has 3 partitions, LogAppendTime, kept for 24 h")


def test_a_topic_that_forgets_too_early_and_is_compacted(kafka_url: str, tmp_path: Path):
    wrong = {"retention.ms": "1800000", "cleanup.policy": "compact", "message.timestamp.type": "CreateTime"}
    make(kafka_url, **wrong)
    state, message, remedy = examine(settings(kafka_url, tmp_path), HOUR_US)
    assert state == "fail"
    assert "kept for 0.5 h, the dedup horizon is 1 h" in message
    assert "compacted" in message
    for change in ("message.timestamp.type=LogAppendTime", "retention.ms=86400000", "cleanup.policy=delete"):
        assert change in (remedy or "")


def test_no_topic_and_nobody_there(kafka_url: str, tmp_path: Path):
    with pytest.raises(NoSuchTopic):
        examine(settings(kafka_url, tmp_path), HOUR_US)
    with pytest.raises(SourceError, match="Kafka at 127"):
        examine(settings("kafka://127.0.0.1:9/absent", tmp_path), HOUR_US)
    assert examine(load({"CT_HOME": str(tmp_path)}), HOUR_US)[0] == "ok"


def test_the_topic_of_a_first_try_is_sound(kafka_url: str, tmp_path: Path):
    address = parse_url(kafka_url).place
    make_topic(address)
    make_topic(address)
    state, message, _ = examine(settings(f"kafka://{address}/{TOPIC}", tmp_path), HOUR_US)
    assert (state, message) == ("ok", "shop-events has 4 partitions, LogAppendTime, kept for 168 h")
