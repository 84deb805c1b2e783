"""Starting the broker of a first try: without Java, on a taken port, beside a broker that is not ours."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ct_assets.adapters.events import broker as module
from ct_assets.adapters.events import this_machine
from ct_assets.adapters.events.broker import Broker, BrokerError, class_path, main

BOOTS_FOR_EVER = """#!/bin/sh
case "$*" in *StorageTool*) mkdir -p {home}/data; echo cluster.id=ours > {home}/data/meta.properties; exit;; esac
sleep 60
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Broker]:
    """A broker that was never started."""
    broker = Broker(tmp_path / "own")
    yield broker
    broker.kill()


def test_without_java_the_package_is_named(
    own: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kafka: Broker, capsys: pytest.CaptureFixture[str]
):
    class_path()  # the jars are there: only Java is not
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerError, match=r"needs java\n.*apt-get install default-jre-headless"):
        own.start()
    assert main(["start", "--home", str(own.home), "--port", "0"]) == 1
    assert "apt-get install default-jre-headless" in capsys.readouterr().err


def test_a_port_of_another_kafka_is_refused_before_anything_is_made(own: Broker, kafka: Broker):
    port = int(kafka.bootstrap.rpartition(":")[2])
    with pytest.raises(BrokerError) as refused:
        own.start(port)
    assert f"127.0.0.1:{port} is taken: a Kafka broker of the cluster {kafka.cluster} answers there" in str(
        refused.value
    )
    assert f"--port {port + 1}" in (refused.value.hint or "")
    assert not (own.home / "data").exists()


def test_a_port_of_something_else_is_refused_in_a_line(own: Broker):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            BrokerError, match=f"127.0.0.1:{port} is taken: what listens there is no Kafka broker"
        ) as no:
            own.start(port)
    assert len(str(no.value)) < 400


def test_an_answer_of_another_cluster_is_not_ours(
    own: Broker, kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another broker takes the port while our own process still boots."""
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(BOOTS_FOR_EVER.format(home=own.home))
    java.chmod(0o755)
    class_path()
    monkeypatch.setenv("PATH", f"{java.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "START_SECONDS", 2.0)
    with pytest.raises(BrokerError, match="did not answer"):
        own.start()
    (own.home / "port").write_text(kafka.bootstrap.rpartition(":")[2])
    own._launch()
    with pytest.raises(BrokerError, match=f"taken: a Kafka broker of the cluster {kafka.cluster}"):
        own.start()
    assert own.running() is None


def test_a_broker_that_ended_says_why_without_its_stack(own: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    frames = "".join(f"echo '\tat kafka.Frame{n}(A.java)'\n" for n in range(100))
    java.write_text(f"#!/bin/sh\necho 'java.net.BindException: Address already in use'\n{frames}exit 1\n")
    java.chmod(0o755)
    monkeypatch.setattr(module, "class_path", lambda: "")
    monkeypatch.setenv("PATH", f"{java.parent}:{os.environ['PATH']}")
    (own.home / "data").mkdir(parents=True)
    (own.home / "data" / "meta.properties").write_text("cluster.id=ours\n")
    (own.home / "port").write_text("1")
    with pytest.raises(BrokerError, match=r"ended .*\n.*Address already in use") as ended:
        own.start()
    assert "Frame" not in str(ended.value)


@pytest.mark.parametrize("proc", ["/proc", "/nowhere"])
def test_running_with_and_without_the_process_file_system(
    own: Broker, proc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(this_machine, "PROC", Path(proc))
    own.home.mkdir()
    ours = subprocess.Popen([sys.executable, "-c", "input()", str(own.home)], stdin=subprocess.PIPE)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (own.home / "pid").write_text(str(other.pid))
        assert own.running() is None
        (own.home / "pid").write_text(str(ours.pid))
        assert own.running() == ours.pid
        own.kill()
        assert own.running() is None
    finally:
        for process in (ours, other):
            process.kill()
            process.communicate()


@pytest.mark.skipif(not this_machine.PROC.exists(), reason="macOS shows no process by its threads")
def test_a_process_whose_first_thread_ended_still_holds_its_port():
    """A broker of somebody else that was killed: its last thread closes the port up to a second after the first."""
    threads = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=[60]).start()"
    ended = f"{threads}; ctypes.CDLL(None).pthread_exit(None)"
    started = (
        f"import subprocess as s, sys; print(s.Popen([sys.executable, '-c', {ended!r}], stdout=-3, stderr=-3).pid)"
    )
    pid = int(subprocess.run([sys.executable, "-c", started], capture_output=True, text=True, check=True).stdout)
    try:
        while this_machine.state_and_command(pid)[0] != "Z":
            time.sleep(0.01)
        assert this_machine.alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    while this_machine.alive(pid):
        time.sleep(0.01)


def test_a_broker_that_runs_is_not_said_to_be_starting(kafka: Broker, capsys: pytest.CaptureFixture[str]):
    assert main(["start", "--home", str(kafka.home)]) == 0
    said = capsys.readouterr()
    assert "starting" not in said.err
    assert "runs already" in said.err
    assert said.out.strip() == kafka.bootstrap
