"""The compose file against the settings, the profile and Dagster's configuration: no engine is needed to find a typing error."""

from __future__ import annotations

import re
from typing import Any

import yaml

from ct_assets.settings import PROFILES, VARIABLES, load
from ct_assets_tests.conftest import ROOT

FOLDER = ROOT / "deploy/compose"


def compose() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "docker-compose.yaml").read_text())


def test_every_variable_is_read_and_the_profile_is_complete() -> None:
    services = compose()["services"]
    assert set(services) == {"postgres", "migrate", "code", "webserver", "daemon"}
    for name in ("migrate", "code", "webserver", "daemon"):
        given = {key: value for key, value in services[name]["environment"].items() if key.startswith("CT_")}
        assert set(given) <= set(VARIABLES), name
        settings = load({key: re.sub(r"\$\{[^}]*\}", "x", value) for key, value in given.items()})
        assert settings.profile == "compose"
        assert settings.executor == PROFILES["compose"]["executor"]
        assert not settings.embedded
        assert settings.dagster_url != settings.ledger_url


def test_no_password_is_written_and_nothing_listens_to_the_world() -> None:
    text = (FOLDER / "docker-compose.yaml").read_text()
    assert re.findall(r"://ct:([^@]*)@", text) == ["${POSTGRES_PASSWORD:?set it in .env}"] * 2
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:3000:3000"]


def test_its_parts_agree() -> None:
    found = compose()["services"]
    workspace = yaml.safe_load((FOLDER / "workspace.yaml").read_text())["load_from"]
    (server,) = (entry["grpc_server"] for entry in workspace)
    assert found["code"]["command"][-1] == str(server["port"])
    assert server["host"] in found
    assert (
        f"create database {found['code']['environment']['CT_DAGSTER_URL'].rsplit('/', 1)[1]};"
        in (FOLDER / "databases.sql").read_text()
    )
    docker = (FOLDER / "Dockerfile").read_text()
    for path in re.findall(r"requirements/\w+\.txt|deploy/\w+\.yaml", docker):
        assert (ROOT / path).is_file(), path
    home = found["code"]["environment"]["DAGSTER_HOME"]
    assert f"WORKDIR {home.rsplit('/', 1)[0]}" in docker
    assert f"cp deploy/dagster.yaml {home.rsplit('/', 1)[1]}/" in docker
