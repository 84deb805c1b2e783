"""A real Apache Kafka broker on this machine (KRaft, one node, loopback), for tests, the demo and a first try.

What goes here: its class path by Maven, its settings, start, stop, kill. What does not: a production cluster
(deploy/kafka/README.md says which of its settings matter), topics, clients.

    python -m ct_assets.adapters.events.broker start|stop|status [--home DIR] [--port N]
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ct_assets.adapters.events.this_machine import alive, listens, state_and_command
from ct_assets.errors import CtError
from ct_assets.settings import load, project_root

HEAP = "512m"
START_SECONDS = 90.0
STOP_SECONDS = 20.0
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"

# One node, so one copy of everything. The short sessions: after a kill -9 a restarted broker waits for its own old
# session (13-15 s with the defaults, 5 s with these).
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={home}/data
num.partitions=1
auto.create.topics.enable=false
log.message.timestamp.type=LogAppendTime
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=1000
log.segment.delete.delay.ms=1000
"""
LOG4J = """\
Configuration:
  Appenders:
    Console:
      name: STDOUT
      PatternLayout: {pattern: "[%d] %p %m (%c)%n"}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: STDOUT}}
"""


TOPIC = "shop-events"
WELCOME = """\
Topic {url} is there: 4 partitions, LogAppendTime, kept for 7 days. In two terminals:
  .venv/bin/ct stream run --definition ct_assets/defs/growth/shop/streams/user_activity.yaml --source {url}
  .venv/bin/ct sample events --users 200 --hours 1 --end-now --to {url}
then: .venv/bin/ct features get --view user_activity --entity user_id=1004
      CT_KAFKA_URL={url} .venv/bin/ct doctor
Stop it with: make kafka ARGS=stop        Its log: {log}"""


class BrokerError(CtError):
    """The broker could not be started."""


class Broker:
    """The broker whose data, log and process id lie in one folder."""

    def __init__(self, home: Path) -> None:
        """Nothing is started yet."""
        self.home = home

    @property
    def log(self) -> Path:
        """What the broker said."""
        return self.home / "broker.log"

    @property
    def bootstrap(self) -> str:
        """``127.0.0.1:PORT`` as of the last start (the port stays the same over restarts)."""
        return f"127.0.0.1:{(self.home / 'port').read_text()}"

    @property
    def cluster(self) -> str | None:
        """The id of its cluster, given when its storage was made; None before."""
        try:
            lines = (self.home / "data" / "meta.properties").read_text().splitlines()
        except FileNotFoundError:
            return None
        return next((line.partition("=")[2] for line in lines if line.startswith("cluster.id=")), None)

    def running(self) -> int | None:
        """Its process id, None when it does not run."""
        try:
            pid = int((self.home / "pid").read_text())
        except (OSError, ValueError):
            return None
        if not alive(pid):
            return None
        # a process that has just been made has no command line yet
        command = state_and_command(pid)[1]
        return pid if str(self.home) in command or not command else None

    def start(self, port: int | None = None) -> str:
        """Start it unless it runs; returns its address. Raises :class:`BrokerError` with the end of its log."""
        self.home.mkdir(parents=True, exist_ok=True)
        with _alone(self.home / "start.lock"):
            if self.running() is None:
                self._refuse_a_taken_port(port)
                self._format(port)
                self._launch()
            self._wait()
        return self.bootstrap

    def _refuse_a_taken_port(self, wanted: int | None) -> None:
        """Before anything is made: a broker that cannot listen ends, and whoever listens would answer for it."""
        port = int(self.bootstrap.rpartition(":")[2]) if self.cluster else wanted
        if port is not None and listens(port):
            raise self._taken(f"127.0.0.1:{port}", _cluster_at(f"127.0.0.1:{port}"))

    def _taken(self, address: str, cluster: str | None) -> BrokerError:
        who = (
            f"a Kafka broker of the cluster {cluster} answers there"
            if cluster
            else "what listens there is no Kafka broker"
        )
        port = int(address.rpartition(":")[2])
        other = f"start --home DIR --port {port + 1}" if self.cluster else f"start --port {port + 1}"
        return BrokerError(
            f"{address} is taken: {who}; the broker of {self.home} needs the port for itself",
            hint=f"end what listens there (`lsof -i :{port}` names it), or: make kafka ARGS='{other}'",
        )

    def _format(self, port: int | None) -> None:
        if self.cluster:
            return
        first, second = _free_ports()
        ports = {"port": port or first, "controller": second}
        (self.home / "server.properties").write_text(PROPERTIES.format(home=self.home, **ports))
        (self.home / "log4j2.yaml").write_text(LOG4J)
        (self.home / "port").write_text(str(ports["port"]))
        cluster = _java_uuid()
        command = self._java(
            "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self.home / "server.properties")
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BrokerError(f"the broker's storage in {self.home} could not be made", hint=done.stderr[-1500:])

    def _java(self, *arguments: str) -> list[str]:
        """The command line. The quick compiler and the serial collector: it starts in half the time."""
        options = [f"-Xmx{HEAP}", "-Xms128m", "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={self.home}/log4j2.yaml"]
        _need("java", "default-jre-headless")
        return ["java", *options, "-cp", class_path(), *arguments]

    def _launch(self) -> None:
        command = self._java("kafka.Kafka", str(self.home / "server.properties"))
        log = (os.POSIX_SPAWN_OPEN, 1, str(self.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), log, (os.POSIX_SPAWN_DUP2, 1, 2)]
        # not subprocess: nobody holds the process, it outlives this object
        pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsid=True)
        (self.home / "pid").write_text(str(pid))

    def _wait(self) -> None:
        """Until our own process answers: the cluster's id tells it from another broker on the port."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.running():
            found = _cluster_at(self.bootstrap)
            if found is not None and found == self.cluster:
                return
            if found is not None:
                self.kill()
                raise self._taken(self.bootstrap, found)
        what = "did not answer" if self.running() else "ended before it answered"
        self.kill()
        raise BrokerError(
            f"the broker in {self.home} {what} at {self.bootstrap}; its log {self.log} ends with", hint=self._said()
        )

    def _said(self) -> str:
        """The end of its log without the frames of Java's stacks."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n  ".join([line[:300] for line in lines if not line.startswith("\tat ")][-8:])

    def stop(self) -> None:
        """End it in good order; kill it when it takes longer than 20 s. Safe to repeat."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a power cut would (``kill -9``); :meth:`start` brings it back with its data."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        pid = self.running()
        if pid is None:
            return
        os.kill(pid, how)
        deadline = time.monotonic() + STOP_SECONDS
        while self.running():
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        (self.home / "pid").unlink(missing_ok=True)


def _cluster_at(address: str) -> str | None:
    """The id of the cluster whose broker answers at ``address`` within 2 s."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    quiet = {"bootstrap.servers": address, "log_level": 0, "reconnect.backoff.max.ms": 200}
    try:
        found = AdminClient(quiet).list_topics(timeout=2)
    except KafkaException:
        return None
    return found.cluster_id if found.brokers else None


def _need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise BrokerError(
            f"a Kafka broker on this machine needs {program}", hint=f"Debian or Ubuntu: apt-get install {package}"
        )


def class_path() -> str:
    """The jars of deploy/kafka/pom.xml, fetched by Maven on first use (about 100 MB) into its own repository."""
    pom = project_root() / "deploy" / "kafka" / "pom.xml"
    return maven_class_path(pom)


def maven_class_path(pom: Path) -> str:
    """The class path of ``pom``, kept beside it in ``target/`` until the file changes or a jar is gone."""
    target = pom.parent / "target" / f"{pom.stem}.classpath"
    target.parent.mkdir(exist_ok=True)
    with _alone(target.with_suffix(".lock")):
        if target.exists() and target.stat().st_mtime >= pom.stat().st_mtime:
            found = target.read_text().strip()
            if found and all(Path(jar).exists() for jar in found.split(os.pathsep)):
                return found
        _need("java", "default-jre-headless")
        _need("mvn", "maven")
        command = [
            "mvn",
            "-B",
            "-q",
            "-ntp",
            "-f",
            str(pom),
            f"{PLUGIN}:build-classpath",
            f"-Dmdep.outputFile={target}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BrokerError(f"Maven could not fetch the jars of {pom}", hint=done.stdout[-1500:])
        return target.read_text().strip()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _free_ports() -> tuple[int, int]:
    """Two free ports below those that outgoing connections take: a restart must find its own port free again."""
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 200):
        if not listens(port):
            found.append(port)
        if len(found) == 2:
            return found[0], found[1]
    raise BrokerError("no free port between 20000 and 32000 on this machine")


def _java_uuid() -> str:
    """A cluster id as Kafka writes them: 16 random bytes in URL-safe base64 that do not begin with a dash."""
    import base64
    import uuid

    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def make_topic(address: str) -> None:
    """The topic of a first try, with the settings that matter, unless it is there."""
    from ct_assets.adapters.events.kafka_client import KafkaTopic, NoSuchTopic
    from ct_assets.settings import KafkaSettings

    topic = KafkaTopic(address, TOPIC, KafkaSettings())
    try:
        topic.partitions()
    except NoSuchTopic:
        topic.create(4, **{"retention.ms": str(7 * 24 * 3600 * 1000)})


def main(arguments: list[str] | None = None) -> int:
    """``start``, ``stop`` or ``status``; the address is the last line of stdout."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m ct_assets.adapters.events.broker")
    parser.add_argument("verb", choices=["start", "stop", "status"])
    parser.add_argument("--home", type=Path, help="folder of data and log (default CT_HOME/kafka)")
    parser.add_argument("--port", type=int, default=9092, help="default 9092; 0: any free one")
    chosen = parser.parse_args(arguments)
    broker = Broker((chosen.home or load().home / "kafka").absolute())
    try:
        if chosen.verb == "start":
            runs = "Apache Kafka runs already"
            starting = "starting Apache Kafka (the first time Maven fetches its jars, about 100 MB) ..."
            print(runs if broker.running() else starting, file=sys.stderr)
            address = broker.start(chosen.port or None)
            make_topic(address)
            print(WELCOME.format(url=f"kafka://{address}/{TOPIC}", log=broker.log), file=sys.stderr)
            print(address)
        elif chosen.verb == "stop":
            broker.stop()
    except BrokerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if chosen.verb == "status":
        print(broker.bootstrap if broker.running() else "not running")
    return 0


if __name__ == "__main__":
    sys.exit(main())
