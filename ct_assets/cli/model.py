"""`ct model list|show|train`: which versions there are, why one leads, what each gate said; training by hand.

What goes here: options and printing. What does not: decisions.
"""

from __future__ import annotations

from typing import Any

import click

from ct_assets.cli.model_page import page
from ct_assets.cli.output import emit, table
from ct_assets.errors import UsageError, did_you_mean


@click.group()
def model() -> None:
    """List and show model versions, gates and the champion; train the propensity."""


@model.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(as_json: bool) -> None:
    """Every version of every model, the champion marked."""
    from ct_assets.adapters import champion as pointer

    rows: list[dict[str, Any]] = []
    with _ledger() as conn:
        for name in pointer.models(conn):
            leads = pointer.champion(conn, name)
            for version in pointer.versions(conn, name):
                rows.append(_row(version, leads is not None and leads.version == version.version))
    for row in rows:
        if as_json:
            emit(row, True)
    if not as_json:
        emit(None, False, table(_shown(rows)) if rows else "no model yet: `ct run --pipeline NAME` trains one")


@model.command("show")
@click.argument("name")
@click.option("--version", type=int, help="A version; the champion, or else the newest, when not given.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(name: str, version: int | None, as_json: bool) -> None:
    """One version with its provenance, metrics, gates, and the history of the champion pointer."""
    from ct_assets.adapters import champion as pointer

    with _ledger() as conn:
        names = pointer.models(conn)
        if name not in names:
            known = (
                f"known: {', '.join(names)}" if names else "none is trained yet: `ct run --pipeline NAME` trains one"
            )
            raise UsageError(f"no model {name!r}", hint=did_you_mean(name, names) or known)
        leads = pointer.champion(conn, name)
        found = pointer.versions(conn, name)
        wanted = version if version is not None else (leads.version if leads else found[-1].version)
        one = next((v for v in found if v.version == wanted), None)
        if one is None:
            raise UsageError(f"{name} has no version {wanted}", hint=f"it has 1 to {found[-1].version}")
        moves = pointer.history(conn, name)
    row = _row(one, leads is not None and leads.version == one.version)
    row |= {"provenance": vars(one.provenance), "artefact": vars(one.artefact), "recipe": one.recipe}
    row |= {"metrics": one.metrics, "gates": one.gates, "history": moves}
    emit(row, as_json, None if as_json else page(row))


@model.command("train")
@click.argument("name", default="shop/purchase_propensity")
@click.option("--view", default="user_activity", show_default=True, help="The live view whose features it learns from.")
@click.option(
    "--version", "hash_", help="Hash (or its beginning) of another version of the view than the one that answers."
)
@click.option("--as-of", help="Nothing known later is looked at (default now); ISO 8601 with an offset.")
@click.option("--seed", default=7, show_default=True, type=int)
@click.option(
    "--run-id", help="A run that is repeated under its id finds the version it registered (default: a new one)."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def train(ctx: click.Context, /, name: str, as_json: bool, **given: Any) -> None:
    """Train the purchase propensity NAME on the stream's labelled clicks; promote it when every gate passes.

    Exit code 1 when a gate refused: the champion stays. A demand model is trained by its pipeline (`ct run`).
    """
    import uuid

    from ct_assets import settings
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.adapters.propensity import PropensityJob, retrain_propensity
    from ct_assets.adapters.storage import open_storage
    from ct_assets.cli.output import working

    found = settings.load()
    job = PropensityJob(
        run_id=given["run_id"] or f"cli-{uuid.uuid4().hex[:12]}",
        model=name,
        view=given["view"],
        hash=given["hash_"],
        as_of=_moment(given["as_of"]),
        seed=given["seed"],
        code_version=found.code_version,
    )
    with working(f"training {name}"):
        places = prepared_url(found, "ledger"), prepared_url(found, "stream")
        done = retrain_propensity(*places, open_storage(found), job)
    if done.promoted:
        _mirror(found, name)
    gates = [f"  {gate.name}: {gate.verdict}: {gate.reason}" for gate in done.candidate.decision.gates]
    text = f"{name} version {done.version}: {'promoted' if done.promoted else 'refused'} ({done.reason})"
    emit({"model": name, **done.summary()}, as_json, "\n".join([text, *gates]))
    if not done.promoted:
        ctx.exit(1)


def _mirror(settings: Any, model: str) -> None:
    """MLflow's alias follows; a registry that is away changes nothing."""
    from ct_assets.adapters import registry
    from ct_assets.cli.output import say

    with _ledger() as conn:
        problem = registry.mirror(conn, settings, model)
    if problem is not None:
        say(f"the model registry does not show it yet: {problem}")


def _moment(text: str | None) -> int | None:
    from ct_assets.streaming.times import NotATime, microseconds

    try:
        return None if text is None else microseconds(text)
    except NotATime as wrong:
        raise UsageError(f"--as-of: {wrong}", hint="for example 2026-01-01T00:05:00Z") from None


def _ledger() -> Any:
    from ct_assets import settings
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url

    return connect(prepared_url(settings.load()))


def _row(version: Any, leads: bool) -> dict[str, Any]:
    return {
        "model": version.model,
        "version": version.version,
        "champion": leads,
        "decision": version.decision,
        "cutoff": version.provenance.cutoff,
        "created_at": version.created_at,
        "metrics": version.metrics,
        "run_id": version.run_id,
    }


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    shown = []
    for row in rows:
        numbers = {k: f"{v:.4g}" for k, v in row["metrics"].items() if isinstance(v, (int, float))}
        head = {k: row[k] for k in ("model", "version", "decision", "cutoff")}
        mark = {"champion": "<- champion" if row["champion"] else ""}
        shown.append(
            head | {"trained at": f"{row['created_at']:%Y-%m-%d %H:%M}"} | dict(list(numbers.items())[:5]) | mark
        )
    return shown
