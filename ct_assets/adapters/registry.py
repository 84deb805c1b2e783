"""The champion mirrored as an alias in MLflow's registry, for people and tools that look there. No server is needed.

What goes here: the mirror. What does not: the decision or the pointer; the ledger leads, and a registry that is down
or half-registered (F44) changes nothing: the mirror is repaired at the next opportunity.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ct_assets.adapters import champion as pointer
from ct_assets.adapters.postgres.connect import connect, url_for
from ct_assets.settings import Settings

if TYPE_CHECKING:
    import psycopg

ALIAS = "champion"
RUN_TAG = "ct_assets.run_id"
log = logging.getLogger(__name__)


def mirror(conn: psycopg.Connection, settings: Settings, model: str) -> str | None:
    """Make MLflow's alias agree with the ledger; the reason as text when it could not be done, None when it agrees.

    Idempotent: a version is found by its run id before it is created, and the alias moves last.
    """
    leads = pointer.champion(conn, model)
    if leads is None or leads.mirrored_at is not None:
        return None
    version = pointer.versions(conn, model, leads.version)[0]
    model = registered_name(model)
    try:
        client = _client(settings)
        _ensure_model(client, model)
        number = _ensure_version(client, settings, version)
        client.set_registered_model_alias(model, ALIAS, number)
    except Exception as error:  # noqa: BLE001 - whatever the registry throws, the ledger leads
        log.warning("the model registry could not be mirrored: %s", error)
        return f"{type(error).__name__}: {error}"
    conn.execute(
        "update ledger.champion set mirrored_at = clock_timestamp() where model = %s and generation = %s",
        (leads.model, leads.generation),
    )
    return None


def registered_name(model: str) -> str:
    """The model's name in MLflow, which takes no slash: ``shop/purchase_propensity`` is ``shop.purchase_propensity``."""
    return model.replace("/", ".")


def _client(settings: Settings) -> Any:
    import os

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("alembic").setLevel(logging.ERROR)  # the first contact migrates MLflow's own tables, loudly
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)  # after the import, which sets it to INFO

    url = url_for(settings, "registry")
    with connect(
        url, autocommit=True
    ) as conn:  # also: a registry that is down says so at once (MLflow retries for long)
        conn.execute("create schema if not exists mlflow")
    url = url.replace("postgresql://", "postgresql+psycopg2://", 1)
    separator = "&" if "?" in url else "?"
    store = f"{url}{separator}options=-csearch_path%3Dmlflow"
    return MlflowClient(tracking_uri=store, registry_uri=store)


def _ensure_model(client: Any, model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _ensure_version(client: Any, settings: Settings, version: pointer.ModelVersion) -> str:
    name = registered_name(version.model)
    for found in client.search_model_versions(f"name = '{name}'"):
        if found.tags.get(RUN_TAG) == version.run_id:
            return found.version
    created = client.create_model_version(
        name,
        source=f"{settings.storage_url.rstrip('/')}/{version.artefact.key}",
        tags={
            RUN_TAG: version.run_id,
            "ct_assets.version": str(version.version),
            "ct_assets.artefact_sha256": version.artefact.sha256,
            "ct_assets.data_digest": version.provenance.data_digest,
            "ct_assets.cutoff": str(version.provenance.cutoff),
        },
        description="Registered by ct_assets; the ledger in PostgreSQL decides which version leads.",
    )
    return created.version
