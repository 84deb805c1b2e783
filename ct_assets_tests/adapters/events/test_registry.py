"""Writer schemas: fetched once, kept on disk, and "it is down" told apart from "it does not know"."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ct_assets.adapters.clock import SystemClock
from ct_assets.adapters.events.examination import registry as examine
from ct_assets.adapters.events.registry import RegistryDown, SchemaNotKnown, Schemas, UnusableSchema
from ct_assets.errors import UsageError
from ct_assets.settings import KafkaSettings, Secret, load
from ct_assets_tests.adapters.events.fake_registry import Registry

LONG = {"type": "record", "name": "event", "fields": [{"name": "n", "type": "long"}]}


class NoWait(SystemClock):
    """Waits nothing, and remembers how long it should have."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry({1: LONG})
    yield made
    made.stop()


def schemas(registry: Registry, folder: Path, *, wait: bool = False, **kafka: object) -> Schemas:
    settings = KafkaSettings(registry_url=registry.url, **kafka)  # pyright: ignore[reportArgumentType]
    return Schemas(settings, folder, wait_for_unknown=wait, clock=NoWait())


def test_a_schema_is_fetched_once_and_outlives_registry_and_process(registry: Registry, tmp_path: Path):
    first = schemas(registry, tmp_path)
    assert json.loads(first.text(1)) == LONG
    assert json.loads(first.text(1)) == LONG
    assert registry.asked == {1: 1}
    registry.stop()
    assert json.loads(first.text(1)) == LONG
    assert json.loads(schemas(registry, tmp_path).text(1)) == LONG, "another process reads it from disk"
    with pytest.raises(RegistryDown, match=r"schema registry http://127\.0\.0\.1"):
        schemas(registry, tmp_path).text(2)


def test_an_unknown_id_is_asked_for_three_times(registry: Registry, tmp_path: Path):
    with pytest.raises(LookupError):
        schemas(registry, tmp_path).text(9)
    assert registry.asked[9] == 3
    with pytest.raises(SchemaNotKnown, match="has no schema 9"):
        schemas(registry, tmp_path, wait=True).text(9)
    registry.schemas[9] = LONG
    assert json.loads(schemas(registry, tmp_path).text(9)) == LONG, "what was unknown is not remembered as unknown"


def test_two_registries_do_not_share_ids(registry: Registry, tmp_path: Path):
    other = Registry({1: {**LONG, "name": "other"}})
    try:
        assert json.loads(schemas(registry, tmp_path).text(1))["name"] == "event"
        assert json.loads(schemas(other, tmp_path).text(1))["name"] == "other"
    finally:
        other.stop()


def test_the_password_is_sent_and_never_said(registry: Registry, tmp_path: Path):
    found = schemas(registry, tmp_path, registry_username="reader", registry_password=Secret("hush"))
    found.text(1)
    assert registry.authorization == "Basic cmVhZGVyOmh1c2g="  # reader:hush in base64
    registry.stop()
    with pytest.raises(RegistryDown) as down:
        found.text(2)
    assert "hush" not in f"{down.value} {down.value.hint}"


def test_what_cannot_be_read_is_refused(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    answer = {"schema": "{}", "schemaType": "JSON"}
    monkeypatch.setattr(registry, "answer", lambda path: (200, answer))
    with pytest.raises(UnusableSchema, match=r"schema 1 of .* is JSON, not Avro"):
        schemas(registry, tmp_path).text(1)
    with pytest.raises(UsageError) as unset:
        Schemas(KafkaSettings(), tmp_path)
    assert "CT_SCHEMA_REGISTRY_URL" in (unset.value.hint or "")


def test_doctor_asks_the_registry(registry: Registry, tmp_path: Path):
    settings = load({"CT_HOME": str(tmp_path), "CT_SCHEMA_REGISTRY_URL": registry.url})
    assert examine(settings) == ("ok", f"{registry.url} answers, 1 subjects", None)
    registry.stop()
    with pytest.raises(RegistryDown):
        examine(settings)
    assert examine(load({"CT_HOME": str(tmp_path)}))[0] == "ok"
