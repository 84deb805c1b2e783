"""`ct serve` and `ct score`: the champion's scores over HTTP, or once for a file of entities.

What goes here: options, wiring, files. What does not: scoring (``ct_assets.serving``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ct_assets.cli.output import emit, keep_inputs, parquet, say, writing
from ct_assets.errors import UsageError, did_you_mean, first_line
from ct_assets.json_values import shown

if TYPE_CHECKING:
    import socket

    from ct_assets.serving.champion import Follower
    from ct_assets.settings import Settings

MODEL = "shop/purchase_propensity"
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,40}\s*")  # Python takes 1_000 and other scripts' digits too


@click.command()
@click.option("--model", default=MODEL, show_default=True, help="The model whose champion answers.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option(
    "--poll-seconds",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.05, 3600),
    help="How often the champion pointer is looked at.",
)
@click.option("--log/--no-log", "logs", default=True, show_default=True, help="Keep what was asked, seen and answered.")
def serve(model: str, host: str, port: int, poll_seconds: float, logs: bool) -> None:
    """Answer POST /score {"user_ids": [42]} with the champion, until SIGTERM or Ctrl-C.

    A promotion is followed within seconds. When the ledger is away the last good model goes on and says that it may be
    stale. GET /healthz, /readyz, /status. The address is printed on stdout once it answers.
    """
    import signal

    import uvicorn

    from ct_assets.serving.app import application
    from ct_assets.serving.request_log import RequestLog
    from ct_assets.serving.scorer import Scorer
    from ct_assets.settings import load

    settings = load()
    _check_model(settings, model)
    listening = _listen(host, port)
    bound = listening.getsockname()[1]
    follower = _follower(settings, model, poll_seconds)
    follower.start()
    log = RequestLog(settings.home / "serving" / f"scores-{bound}.jsonl") if logs else None
    if log is not None:
        say(f"log: {log.path}")
    signal.signal(signal.SIGTERM, _asked_to_end)
    emit(f"http://{host}:{bound}", False)
    try:
        config = uvicorn.Config(application(Scorer(follower, log)), log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        follower.stop()
        if log is not None:
            log.close()


def _asked_to_end(*_: object) -> None:
    """SIGTERM is how a supervisor ends it: exit code 0. uvicorn answers what was asked, then raises the signal again."""
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    import socket

    try:
        return socket.create_server((host, port), backlog=128)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="--port 0 takes a free one"
        ) from error


def _check_model(settings: Settings, model: str) -> None:
    """Raises UsageError for a model that was never trained and is no pipeline's; asks nothing while the ledger is away.

    A pipeline's model without a version is waited for: it may be trained while this runs.
    """
    import psycopg

    from ct_assets.adapters import champion as pointer
    from ct_assets.adapters.datasets import load_specs
    from ct_assets.adapters.postgres.connect import DatabaseUnreachable, connect
    from ct_assets.adapters.postgres.migrate import prepared_url

    streams = [spec for spec in load_specs([]).values() if spec.source.stream is not None]
    declared = {f"{spec.domain}/{spec.model.name}" for spec in streams if spec.model is not None}
    if model in declared:
        return
    try:
        with connect(prepared_url(settings, "ledger"), autocommit=True) as conn:
            known = sorted(declared | set(pointer.models(conn)))
    except (DatabaseUnreachable, psycopg.OperationalError):
        return
    if model not in known:
        raise UsageError(f"no model {model!r}", hint=did_you_mean(model, known) or f"there are: {', '.join(known)}")


def _follower(settings: Settings, model: str, poll_seconds: float) -> Follower:
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.adapters.storage import open_storage
    from ct_assets.serving.champion import Follower, Places

    places = Places(prepared_url(settings, "ledger"), prepared_url(settings, "stream"), open_storage(settings))
    return Follower(places, model, say, poll_seconds)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", default=MODEL, show_default=True, help="The model whose champion answers.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Parquet; overwritten.")
@click.option("--json", "as_json", is_flag=True, help="The totals as one JSON line.")
def score(file: Path, model: str, out: Path, as_json: bool) -> None:
    """Score the entities of FILE (CSV with the key's column, e.g. user_id) now, with the champion and as `ct serve` does.

    One row an entity in the file's order: key, score, the features that gave it, model version, freshness.
    """
    import polars as pl

    from ct_assets.serving.scorer import Scorer
    from ct_assets.settings import load

    keep_inputs({"--out": out}, {"FILE": file})
    parquet("--out", out)
    settings = load()
    _check_model(settings, model)
    follower = _follower(settings, model, 1.0)
    follower.poll()
    key = follower.current.features.entity
    entities = entities_of(file, key, follower)
    frames, scorer = [], Scorer(follower)
    stale = {"is_stale": False, "model_is_stale": False}
    for part in scorer.score_many(entities) if entities else [scorer.score([])]:
        said = part.about()
        stale = {name: stale[name] or bool(said[name]) for name in stale}
        about = {name: pl.lit(value) for name, value in said.items() if name != "request_id"}
        users = pl.Series(key, part.entities, pl.Int64 if part.model.features.is_integer else pl.String)
        head = pl.DataFrame([users, pl.Series("score", part.scores, pl.Float64)])
        frames.append(head.hstack(part.features.frame).with_columns(**about))
    found = pl.concat(frames, how="vertical_relaxed")
    with writing("--out", out):
        found.write_parquet(out)
    total: dict[str, Any] = {"file": str(file), "out": str(out), "rows": len(found), "model": model}
    total |= {"model_version": follower.current.version, **stale}
    old = "; the features are stale" * stale["is_stale"] + "; another version may lead by now" * stale["model_is_stale"]
    emit(total, as_json, f"{len(found)} scores of {model} version {total['model_version']} are in {out}{old}")


def entities_of(file: Path, key: str, follower: Follower) -> list[Any]:
    """The key's column, in the key's type. Raises UsageError naming what is there instead."""
    import polars as pl

    try:
        frame = pl.read_csv(file, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UsageError(
            f"{file} cannot be read as CSV: {first_line(error)}", hint=f"a header with the column {key}, a user a line"
        ) from None
    if key not in frame.columns:
        near = did_you_mean(key, frame.columns) or f"columns: {', '.join(frame.columns)}"
        raise UsageError(f"{file} has no column {key!r}", hint=near)
    values = frame[key].to_list()
    if follower.current.features.is_integer:
        for row, value in enumerate(values):
            if value is None or not _WHOLE.fullmatch(value):
                raise UsageError(
                    f"{file}: {key} is {shown(value)} in data row {row + 1}, no whole number", hint="for example 42"
                )
        return [int(value) for value in values]
    return values
