"""What a scorer says about itself to Prometheus: requests, scores, time, which model answers and how fresh its features are.

What goes here: names and counting. What does not: routes (``app``), what stale means (``champion``, ``features``).

Users are never a label: their values have no bound.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Message, Receive, Send], Awaitable[None]]

PATH = "/score"
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class ServingMetrics:
    """A registry of its own; the state of model, features and log is asked for by each scrape."""

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        """``status``: what `/status` says."""
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self._status = status
        self.registry = CollectorRegistry()
        self._requests = Counter("ct_serve_requests", "Answers to /score", ["code"], registry=self.registry)
        self._seconds = Histogram(
            "ct_serve_request_seconds", "Time of an answer to /score", registry=self.registry, buckets=SECONDS
        )
        for code in ("200", "422", "503"):  # 0 from the beginning, as the worker's counters
            self._requests.labels(code)
        self.registry.register(self)  # pyright: ignore[reportArgumentType] - a collector by its method

    def answered(self, code: int, seconds: float) -> None:
        """Count one answer."""
        self._requests.labels(str(code)).inc()
        self._seconds.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """The gauges, as of now; what is not known has no sample."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        about = self._status()
        model, features, log = about["model"], about["features"], about.get("log", {})
        yield CounterMetricFamily("ct_serve_scores", "Users scored", value=about["scored"])
        yield CounterMetricFamily("ct_serve_log_lost", "Answers that the request log lost", value=log.get("lost", 0))
        for name, text, value in (
            ("model_version", "Version of the champion that answers", model["version"]),
            ("model_is_stale", "1: another version may lead", int(model["is_stale"])),
            ("features_away", "1: features cannot be read", int(features["problem"] is not None)),
            ("features_staleness_seconds", "Age of the features", features.get("staleness_seconds")),
            ("features_is_stale", "1: older than the freshness objective", features.get("is_stale")),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"ct_serve_{name}", text, value=float(value))

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


class Counted:
    """ASGI middleware: times every answer to ``/score``, refusals of the framework's own included."""

    def __init__(self, app: Asgi, metrics: ServingMetrics) -> None:
        """``app`` is what is behind it."""
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        began, code = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            self._metrics.answered(code, time.perf_counter() - began)
