"""What `ct doctor` asks of the topic in CT_KAFKA_URL and of the schema registry.

What goes here: the questions and their verdicts. What does not: other checks (``adapters.doctor``), mending.
"""

from __future__ import annotations

from ct_assets.adapters.events.port import parse_url
from ct_assets.settings import Settings, redact

HOUR_MS = 3_600_000
Answer = tuple[str, str, str | None]  # state (ok, warn, fail), message, remedy


def topic(settings: Settings, horizon_us: int) -> Answer:
    """Whether the topic can be reached and keeps what a stream needs. ``horizon_us``: the longest dedup horizon used.

    Raises :class:`SourceError` when nobody answers or there is no such topic.
    """
    from ct_assets.adapters.events.kafka_client import KafkaTopic

    url = settings.kafka.url
    if url is None:
        return "ok", "CT_KAFKA_URL is not set: no topic to look at", None
    where = parse_url(url)
    if where.kind != "kafka" or where.topic is None:
        return "fail", f"CT_KAFKA_URL is {redact(url)}", "expected kafka://HOST:PORT/TOPIC"
    asked = KafkaTopic(where.place, where.topic, settings.kafka)
    partitions, config = len(asked.partitions()), asked.config()
    state, said, remedies = "ok", [f"{where.topic} has {partitions} partitions"], []
    stamped = config["message.timestamp.type"]
    said.append(stamped)
    if stamped != "LogAppendTime":
        state = "warn"
        remedies.append(_alter(where.topic, "message.timestamp.type=LogAppendTime"))
    kept = int(config["retention.ms"])
    said.append("kept for ever" if kept < 0 else f"kept for {kept / HOUR_MS:g} h")
    if 0 <= kept < horizon_us // 1000:
        state = "fail"
        said.append(f"the dedup horizon is {horizon_us / 3.6e9:g} h: after a crash repeats would count twice")
        remedies.append(_alter(where.topic, f"retention.ms={max(horizon_us // 1000 * 2, 24 * HOUR_MS)}"))
    if "compact" in config["cleanup.policy"]:
        state = "fail"
        said.append("compacted: older events of a key vanish")
        remedies.append(_alter(where.topic, "cleanup.policy=delete"))
    return state, ", ".join(said), "; ".join(remedies) or None


def _alter(name: str, change: str) -> str:
    return f"kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config {change}"


def registry(settings: Settings) -> Answer:
    """Whether the schema registry answers with these credentials. Raises :class:`RegistryDown`."""
    from ct_assets.adapters.events.registry import Schemas

    if settings.kafka.registry_url is None:
        return "ok", "CT_SCHEMA_REGISTRY_URL is not set: messages are JSON", None
    subjects = Schemas(settings.kafka, settings.home / "schemas").answers()
    return "ok", f"{redact(settings.kafka.registry_url)} answers, {len(subjects)} subjects", None
