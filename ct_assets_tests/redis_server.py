"""A real Redis for the tests: one a session, on a socket in a folder of its own; a fresh database number a test.

What goes here: the fixtures and how the server ends. What does not: tests. The service that Debian's package may start on
port 6379 is never used.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

DATABASES = 64
_serial = itertools.count()


@dataclass
class RedisServer:
    """A server on a unix socket, without persistence unless ``options`` say so."""

    folder: Path
    options: tuple[str, ...] = ("--save", "", "--appendonly", "no")
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "redis.sock"

    def url(self, database: int = 0) -> str:
        return f"unix://{self.socket}?db={database}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        import redis

        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)]
        command += ["--databases", str(DATABASES), "--maxmemory-policy", "noeviction", *self.options]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            deadline = time.monotonic() + 30
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    assert time.monotonic() < deadline, (self.folder / "redis.log").read_text()[-2000:]
                    time.sleep(0.02)

    def stop(self, with_signal: int = signal.SIGTERM) -> None:
        """End it; without persistence its data is gone."""
        if self.process is not None:
            self.process.send_signal(with_signal)
            self.process.wait(30)
            self.process = None


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The server of this process, running. Skips without redis-server, except in CI."""
    if shutil.which("redis-server") is None:
        assert os.environ.get("CI") != "true", "CI must have redis-server: see .ci/run"
        pytest.skip("no redis-server (Debian: redis-server)")
    folder = Path(tempfile.mkdtemp(prefix="ct-redis-"))  # short: the path of a socket has at most 107 bytes
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop(signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """URL of an empty database that this test has for itself."""
    import redis

    url = redis_server.url(next(_serial) % DATABASES)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url
