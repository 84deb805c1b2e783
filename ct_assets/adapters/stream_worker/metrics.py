"""What a worker says about itself: Prometheus metrics, liveness and a progress line.

What goes here: counters, the local HTTP port (``/metrics``, ``/healthz``), the rule of liveness. What does not: the loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from ct_assets.adapters.stream.dead_letters import REASONS
from ct_assets.errors import UsageError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from ct_assets.adapters.stream_worker.committer import Committed

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


@dataclass
class Liveness:
    """Alive = no message waits, or something moved within ``stall_seconds`` (fault F50). Monotonic seconds."""

    stall_seconds: float = 60.0
    clock: Callable[[], float] = time.monotonic
    lag: int = 0
    moved_at: float = field(default=0.0)

    def __post_init__(self) -> None:
        self.moved_at = self.clock()

    def moved(self) -> None:
        """Something was committed."""
        self.moved_at = self.clock()

    def saw_lag(self, lag: int) -> None:
        """``lag`` messages wait; a worker with none waiting has nothing to move."""
        self.lag = lag
        if lag == 0:
            self.moved_at = self.clock()

    @property
    def stalled_seconds(self) -> float:
        """How long messages have been waiting with nothing moving; 0 when none waits."""
        return 0.0 if self.lag == 0 else self.clock() - self.moved_at

    @property
    def alive(self) -> bool:
        """Whether a supervisor should leave this worker alone."""
        return self.stalled_seconds <= self.stall_seconds


class Metrics:
    """The worker's Prometheus registry. Partition is a label; entity never is (its values have no bound)."""

    def __init__(self, stream: str, liveness: Liveness) -> None:
        """``stream`` labels every metric."""
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry: CollectorRegistry = CollectorRegistry()
        self.liveness = liveness
        self._stream = stream

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"ct_stream_{name}", text, ["stream", *labels], registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"ct_stream_{name}", text, ["stream", *labels], registry=self.registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"ct_stream_{name}", text, ["stream"], registry=self.registry, buckets=SECONDS)

        self._messages = counter("messages", "Messages read and committed")
        self._accepted = counter("events_accepted", "Events accepted and committed")
        self._late = counter("events_late_accepted", "Events behind the watermark that corrected a value")
        self._duplicates = counter("events_duplicate", "Repeats that were dropped")
        self._tombstones = counter("tombstones", "Messages without a value")
        self._dead = counter("dead_letters", "Messages set aside", "reason")
        self._restarts = counter("session_restarts", "Times the session began again from the database")
        self._lag = gauge("lag_messages", "Messages waiting in the topic", "partition")
        self._watermark = gauge("watermark_seconds", "Watermark, Unix seconds", "partition")
        self._delay = gauge("watermark_delay_seconds", "Database time minus watermark", "partition")
        self._state_bytes = gauge("state_bytes", "Memory of the remembered event ids")
        self._stalled = gauge("stalled_seconds", "Seconds with messages waiting and nothing moving")
        self._commit = histogram("commit_seconds", "Time of one commit")
        self._latency = histogram("poll_to_commit_seconds", "From reading a batch to its commit")
        for count in (
            self._messages, self._accepted, self._late, self._duplicates, self._tombstones, self._restarts
        ):  # fmt: skip
            count.labels(
                stream
            )  # 0 from the beginning: a rate() over a series that begins with its first event misses it
        for reason in REASONS:
            self._dead.labels(stream, reason)

    def committed(self, done: Committed) -> None:
        """Count one commit."""
        self.liveness.moved()
        self._messages.labels(self._stream).inc(done.messages)
        self._accepted.labels(self._stream).inc(done.events)
        self._commit.labels(self._stream).observe(done.commit_seconds)
        self._latency.labels(self._stream).observe(done.since_poll_seconds)

    def judged(self, late: int, duplicates: int, dead: Mapping[str, int], tombstones: int = 0) -> None:
        """Count what the acceptance decided about one batch."""
        self._late.labels(self._stream).inc(late)
        self._duplicates.labels(self._stream).inc(duplicates)
        self._tombstones.labels(self._stream).inc(tombstones)
        for reason, count in dead.items():
            self._dead.labels(self._stream, reason).inc(count)

    def restarted(self) -> None:
        """Count one new beginning of the session."""
        self._restarts.labels(self._stream).inc()

    def lag(self, lags: Mapping[int, int]) -> None:
        """Messages waiting, by partition."""
        self.liveness.saw_lag(sum(lags.values()))
        self._stalled.labels(self._stream).set(self.liveness.stalled_seconds)
        for partition, waiting in lags.items():
            self._lag.labels(self._stream, str(partition)).set(waiting)

    def watermarks(self, watermarks: Mapping[int, int], now_us: int) -> None:
        """Watermarks in microseconds, by partition."""
        for partition, watermark in watermarks.items():
            self._watermark.labels(self._stream, str(partition)).set(watermark / 1e6)
            self._delay.labels(self._stream, str(partition)).set((now_us - watermark) / 1e6)

    def state(self, size: int) -> None:
        """Bytes of the remembered ids."""
        self._state_bytes.labels(self._stream).set(size)

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


class MetricsServer:
    """``/metrics`` and ``/healthz`` on a local port, on a thread of its own."""

    def __init__(self, metrics: Metrics, port: int, host: str = "127.0.0.1") -> None:
        """``port`` 0 takes a free one; :attr:`port` says which. Raises :class:`UsageError` when it is taken."""
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(metrics))
        except OSError as error:
            raise UsageError(
                f"port {port} for metrics cannot be opened: {error.strerror}",
                hint="name another --metrics-port; without one a free port is taken",
            ) from None
        self.port: int = self._server.server_address[1]
        serve = {
            "poll_interval": 0.05
        }  # closing waits for one: the library's half second is the longest part of a short run
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs=serve, name="stream-metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(metrics: Metrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Two read-only paths."""

        def do_GET(self) -> None:
            """Answer one request."""
            if self.path == "/metrics":
                self._answer(200, metrics.exposition(), "text/plain; version=0.0.4; charset=utf-8")
            elif self.path == "/healthz":
                alive = metrics.liveness.alive
                stalled = metrics.liveness.stalled_seconds
                text = "alive" if alive else f"{metrics.liveness.lag} messages wait, nothing moved for {stalled:.0f} s"
                self._answer(200 if alive else 503, f"{text}\n".encode(), "text/plain; charset=utf-8")
            else:
                self._answer(404, b"/metrics or /healthz\n", "text/plain; charset=utf-8")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: a scrape every few seconds is no news."""

    return Handler
