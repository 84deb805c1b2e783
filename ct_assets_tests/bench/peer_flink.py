"""Flink SQL over a Kafka topic, run inside the peer's own venv: ``python peer_flink.py JSON``.

What goes here: the query and how far its checkpoints came. What does not: anything of this project (it is not importable
there). Prints one JSON line: seconds from the first message to the last completed checkpoint, whose offsets
the group has in Kafka.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

REST_PORT = 18_081


def main(told: dict[str, Any]) -> None:
    """Run the query, watch it over Flink's REST interface, stop it."""
    from pyflink.common import Configuration
    from pyflink.table import EnvironmentSettings, TableEnvironment

    chosen = Configuration()
    options = {
        "parallelism.default": "2",
        "taskmanager.numberOfTaskSlots": "2",
        "taskmanager.memory.managed.size": "1g",
        "taskmanager.memory.network.max": "256m",
        "rest.port": str(told.get("port", REST_PORT)),
        "pipeline.jars": ";".join(f"file://{jar}" for jar in told["jars"]),
        "execution.checkpointing.interval": f"{told['checkpoint_seconds']} s",
        "execution.checkpointing.dir": f"file://{told['scratch']}/checkpoints",
        "state.backend.type": told["state"],
        "table.exec.state.ttl": "1 h",
        "pipeline.object-reuse": "true",
        "metrics.fetcher.update-interval": "200",  # the default of 10 s would hide when the first message was read
    }
    for name, value in options.items():
        chosen.set_string(name, value)
    tables = TableEnvironment.create(
        EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(chosen).build()
    )
    tables.execute_sql(f"""create temporary table events (
        event_id string, user_id bigint, event_time timestamp_ltz(3), event_type string, amount decimal(12, 2),
        watermark for event_time as event_time - interval '2' minute) with (
        'connector' = 'kafka', 'topic' = '{told["topic"]}', 'properties.bootstrap.servers' = '{told["brokers"]}',
        'properties.group.id' = '{told["group"]}', 'scan.startup.mode' = 'earliest-offset', 'format' = 'json',
        'json.timestamp-format.standard' = 'ISO-8601', 'json.ignore-parse-errors' = 'true')""")
    tables.execute_sql("""create temporary table sink (event_id string, user_id bigint, event_time timestamp_ltz(3),
        purchases_5m bigint) with ('connector' = 'blackhole')""")
    # `purchases`: only what is counted is deduplicated, the least that gives the answer; `all`: every event, as ours does
    wanted = "where event_type = 'purchase'"
    before, after = (wanted, "") if told["dedup"] == "purchases" else ("", wanted)
    source = f"""select event_id, user_id, event_time from (select *, row_number() over (
        partition by event_id order by event_time asc) as n from (select * from events {before})) {after or "where true"} and n = 1"""
    result = tables.execute_sql(f"""insert into sink select event_id, user_id, event_time, count(*) over (
        partition by user_id order by event_time range between interval '5' minute preceding and current row)
        from ({source})""")
    job = result.get_job_client()
    print(json.dumps(_watch(Watcher(told, job.get_job_id()))))
    sys.stdout.flush()
    job.cancel().result()


class Watcher:
    """Questions to the job's REST interface."""

    def __init__(self, told: dict[str, Any], job: Any) -> None:
        """``job``: its id."""
        self.told, self.job = told, str(job)

    def ask(self, path: str) -> Any:
        """The answer to one question, None while there is none."""
        address = f"http://127.0.0.1:{self.told.get('port', REST_PORT)}/jobs/{self.job}{path}"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def read(self) -> int:
        """Messages that the sources have read so far."""
        job = self.ask("") or {}
        total = 0
        for vertex in job.get("vertices", ()):
            if vertex["name"].startswith("Source"):
                names = self.ask(f"/vertices/{vertex['id']}/subtasks/metrics") or []
                wanted = [n["id"] for n in names if n["id"].startswith("Source") and n["id"].endswith(".numRecordsIn")]
                if wanted:
                    path = f"/vertices/{vertex['id']}/subtasks/metrics?get={wanted[0]}&agg=sum"
                    answer = self.ask(path) or []
                    total += int(sum(float(value["sum"]) for value in answer))
        return total

    def checkpoint(self) -> dict[str, Any]:
        """The last completed checkpoint, empty while there is none."""
        return ((self.ask("/checkpoints") or {}).get("latest") or {}).get("completed") or {}


def _watch(watcher: Watcher) -> dict[str, Any]:
    """When the first message was read and the last checkpoint completed; its offsets are the group's in Kafka."""
    while not watcher.read():
        time.sleep(0.1)
    begun = time.time()
    time.sleep(watcher.told["seconds"])
    while True:
        found = watcher.checkpoint()
        time.sleep(1.0)  # its offsets reach the broker
        if found and watcher.checkpoint().get("id") == found["id"]:
            break
    took = (found["latest_ack_timestamp"] - found["trigger_timestamp"]) / 1000
    note = f"{found['id']} checkpoints, the last took {took:.1f} s"
    return {"first_message_at": begun, "seconds": found["latest_ack_timestamp"] / 1000 - begun, "note": note}


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text() if sys.argv[1].startswith("/") else sys.argv[1]))
