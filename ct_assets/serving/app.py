"""The HTTP application: score, health, readiness, status, metrics.

What goes here: routes, status codes. What does not: scoring (``scorer``), following the champion (``champion``).

200 an answer · 422 a question that makes no sense · 503 no model yet, or the features' database is away (try again). An
answer from stale features or a model that may have been replaced is 200 and says so.
"""

import logging
from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from ct_assets.errors import CtError, UsageError, first_line
from ct_assets.serving.features import FeaturesAway
from ct_assets.serving.metrics import Counted, ServingMetrics
from ct_assets.serving.scorer import Scorer

THREADS = 8  # requests at a time; each holds one connection of the online store


class Question(BaseModel):
    """Who is to be scored."""

    model_config = ConfigDict(extra="forbid", strict=True)
    user_ids: list[int | str]


def application(scorer: Scorer) -> Any:
    """The FastAPI application over ``scorer``. Its routes run in threads, ``THREADS`` at a time."""
    from contextlib import asynccontextmanager

    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    @asynccontextmanager
    async def bounded(_: Any) -> AsyncIterator[None]:
        from anyio.to_thread import current_default_thread_limiter

        current_default_thread_limiter().total_tokens = THREADS
        yield

    app = FastAPI(title="ct serve", description="Scores of the champion model.", lifespan=bounded)

    @app.exception_handler(CtError)
    async def explained(_: Any, error: CtError) -> JSONResponse:
        code = 422 if isinstance(error, UsageError) else 503
        if error.__cause__ is not None:  # where and why, for who runs the server; the answer holds no address
            logging.getLogger("uvicorn.error").warning("%s: %s", error.message, first_line(error.__cause__))
        headers = {"retry-after": "2"} if code == 503 else None
        return JSONResponse({"error": error.message, "hint": error.hint}, code, headers)

    @app.exception_handler(RequestValidationError)
    async def refused(_: Any, error: RequestValidationError) -> JSONResponse:
        """The framework's own answer repeats the question, which may hold what JSON cannot."""
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])).encode(errors="backslashreplace").decode()
        hint = 'the body is {"user_ids": [42, 43]}'
        return JSONResponse({"error": f"{where}: {first['msg']}", "hint": hint}, 422)

    @app.post("/score")
    def score(question: Question) -> dict[str, Any]:
        """Probability that each user purchases within the horizon, in the order asked."""
        found = scorer.score(question.user_ids)
        return {**found.about(), "scores": list(found.rows())}

    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        """The process answers, whatever its threads wait for."""
        return {"status": "alive"}

    @app.get("/readyz")
    def ready() -> dict[str, Any]:
        """A score could be given now: a model is loaded and its features can be read. 503 otherwise."""
        model = scorer.follower.current
        model.features.freshness()
        return {"status": "ready", "model_version": model.version}

    _watched(app, scorer)
    return app


def _watched(app: Any, scorer: Scorer) -> None:
    """What people and Prometheus ask about it."""
    from fastapi.responses import PlainTextResponse

    metrics = ServingMetrics(lambda: status(scorer))
    app.add_middleware(Counted, metrics=metrics)

    @app.get("/status")
    def state() -> dict[str, Any]:
        """Model, features and log: versions, how stale, what is wrong."""
        return status(scorer)

    @app.get("/metrics", response_class=PlainTextResponse)
    def prometheus() -> PlainTextResponse:
        """Requests, scores, time, model and freshness, as Prometheus reads them."""
        return PlainTextResponse(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def status(scorer: Scorer) -> dict[str, Any]:
    """What `/status` says; never raises."""
    log = scorer.log
    about: dict[str, Any] = {"model": scorer.follower.status(), "features": _features(scorer), "scored": scorer.scored}
    if log is not None:
        about["log"] = {"file": str(log.path), "lines": log.lines, "lost": log.lost}
    return about


def _features(scorer: Scorer) -> dict[str, Any]:
    try:
        fresh = scorer.follower.current.features.freshness()
    except (CtError, FeaturesAway) as error:
        return {"problem": error.message}
    seconds = None if fresh.staleness_us is None else fresh.staleness_us / 1e6
    return {
        "watermark_us": fresh.watermark_us,
        "staleness_seconds": seconds,
        "is_stale": fresh.is_stale,
        "problem": None,
    }
