"""Flink SQL and Spark Structured Streaming over the bench's topic: installed beside the project, never among its dependencies.

What goes here: their installation (a venv each, the connector by Maven), one run of each, reading off its rate. What does
not: their queries (``peer_flink``, ``peer_spark``, which run inside those venvs).

Both are timed from their first message to their last commit and stopped after a stated time: the offsets that their last
checkpoint (Flink) or micro-batch (Spark) committed count, start-up does not. Both read a JSON message, keep purchases and
count them by user over five minutes; neither checks a contract, keeps the events or writes rows: their results go nowhere.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ct_assets.adapters.events.broker import maven_class_path
from ct_assets_tests.bench.processes import Watch
from ct_assets_tests.bench.stream_ours import Bench, Run
from ct_assets_tests.bench.stream_topic import Topic

HERE = Path(__file__).parent
# The newest that work together: the connectors are not published for every version.
PACKAGES = {"flink": "apache-flink==2.3.0", "spark": "pyspark==4.2.0"}
CONNECTORS = {
    "flink": ("org.apache.flink", "flink-sql-connector-kafka", "5.0.0-2.2"),
    "spark": ("org.apache.spark", "spark-sql-kafka-0-10_2.13", "4.2.0"),
}
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>ct-assets</groupId><artifactId>peer-{name}</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>{0}</groupId><artifactId>{1}</artifactId><version>{2}</version></dependency></dependencies>
</project>"""


def missing() -> str | None:
    """Why no peer can run here; None when they can."""
    absent = [program for program in ("java", "mvn") if shutil.which(program) is None]
    return f"{' and '.join(absent)} not found" if absent else None


def install(name: str, folder: Path) -> tuple[Path, str]:
    """The Python of the peer's venv and the class path of its connector; made on first use (0.5 to 1 GB of downloads)."""
    home = folder / name
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        print(f"  installing {PACKAGES[name]} into {home} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", PACKAGES[name]], check=True)
        (home / "installed").touch()
    pom = home / "pom.xml"
    wanted = POM.format(*CONNECTORS[name], name=name)
    if not pom.exists() or pom.read_text() != wanted:
        pom.write_text(wanted)
    return python, maven_class_path(pom)


def run(name: str, bench: Bench, topic: Topic, folder: Path, query: dict[str, Any]) -> Run:
    """One peer over the topic for ``query['seconds']`` after its first message. ``query`` goes to its script as JSON."""
    python, class_path = install(name, folder)
    with tempfile.TemporaryDirectory(dir=bench.home, prefix=f"{name}-") as scratch:
        told = query | {
            "brokers": topic.brokers,
            "topic": topic.name,
            "jars": class_path.split(os.pathsep),
            "scratch": scratch,
            "group": f"{name}-{time.time_ns()}",
        }
        _, broker = bench.watch_servers()
        log = Path(scratch) / "log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [str(python), str(HERE / f"peer_{name}.py"), json.dumps(told)],
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=scratch,
            )
            watch = Watch([process.pid])
            said = process.communicate()[0].decode()
            watch.stop()
            broker.stop()
        if process.returncode:
            raise RuntimeError(f"{name} ended with {process.returncode}: {log.read_text(errors='replace')[-1500:]}")
        found = json.loads(said.strip().splitlines()[-1])
    begun = found["first_message_at"]
    return Run(
        f"{PACKAGES[name].replace('==', ' ')}: {query['label']}",
        found["messages"] if "messages" in found else _committed(topic, told["group"]),
        found["seconds"],
        watch.cpu(begun, begun + found["seconds"]),
        0.0,
        broker.cpu(begun, begun + found["seconds"]),
        watch.peak_mb,
        os.getloadavg()[0],
        found.get("note", ""),
    )


def _committed(topic: Topic, group: str) -> int:
    """Messages up to the offsets that a group has committed in Kafka."""
    from confluent_kafka import ConsumerGroupTopicPartitions
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": topic.brokers, "log_level": 2})
    asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    return sum(max(0, place.offset) for place in asked[group].result(30).topic_partitions)
