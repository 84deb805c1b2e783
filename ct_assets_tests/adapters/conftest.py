"""Fixtures of the adapters' tests.

What goes here: a published dataset, an S3-compatible store on the loopback. What does not: servers (``conftest.py`` above).
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ct_assets.adapters.datasets import PublishedDataset, pipeline_dataset
from ct_assets.settings import Settings


@pytest.fixture
def sales(settings: Settings) -> PublishedDataset:
    """The sales dataset as a run would pin it."""
    return pipeline_dataset("sales", settings)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3-compatible server (moto) in a process of its own, with the bucket ``ct-test``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port)
        _make_bucket(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("moto did not start")


def _make_bucket(endpoint: str) -> None:
    from pyarrow.fs import S3FileSystem

    host = endpoint.removeprefix("http://")
    store = S3FileSystem(
        endpoint_override=host, scheme="http", access_key="test", secret_key="test", allow_bucket_creation=True
    )
    store.create_dir("ct-test")
