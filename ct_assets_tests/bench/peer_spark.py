"""Spark Structured Streaming over a Kafka topic, run inside the peer's own venv: ``python peer_spark.py JSON``.

What goes here: the query and how far its micro-batches came. What does not: anything of this project (it is not
importable there). Prints one JSON line: messages committed, seconds from the first micro-batch's begin to the last one's
commit.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from typing import Any

STORE = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"


def main(told: dict[str, Any]) -> None:
    """Run the query for a while after its first batch began, and say what was committed."""
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.memory", "4g")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", 2)
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.local.dir", told["scratch"])
        .config("spark.jars", ",".join(told["jars"]))
        .config("spark.sql.streaming.stateStore.providerClass", STORE)
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    schema = "event_id string, user_id bigint, event_time timestamp, event_type string, amount decimal(12, 2)"
    source = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", told["brokers"])
        .option("subscribe", told["topic"])
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", told["batch"])
        .load()
    )
    events = source.select(F.from_json(F.col("value").cast("string"), schema).alias("e")).select("e.*")
    bought = events.filter("event_type = 'purchase'").withWatermark("event_time", "2 minutes")
    counted = bought.groupBy(F.window("event_time", "5 minutes", "10 seconds"), "user_id").count()
    query = (
        counted.writeStream.outputMode("append")
        .format("noop")
        .option("checkpointLocation", f"{told['scratch']}/checkpoint")
        .start()
    )
    begun: float | None = None
    committed, ended, batches = 0, 0.0, -1
    while begun is None or time.time() < begun + told["seconds"]:
        if not query.isActive:
            raise SystemExit(str(query.exception()))
        for progress in query.recentProgress:
            at = datetime.fromisoformat(progress["timestamp"].replace("Z", "+00:00")).timestamp()
            if progress["batchId"] > batches and progress["numInputRows"]:
                batches = progress["batchId"]
                begun = begun or at
                committed += progress["numInputRows"]
                ended = at + progress["durationMs"]["triggerExecution"] / 1000
        time.sleep(0.2)
    note = f"{batches + 1} micro-batches"
    said = {"messages": committed, "first_message_at": begun, "seconds": ended - begun, "note": note}
    print(json.dumps(said))
    sys.stdout.flush()
    query.stop()
    spark.stop()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
