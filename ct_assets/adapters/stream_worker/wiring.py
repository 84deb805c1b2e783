"""A worker made of real parts: database, source, decoder, metrics port.

What goes here: opening and closing them in order. What does not: any decision while the worker runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.postgres.connect import connect, url_for
from ct_assets.adapters.stream_worker.alarm import ledger_alarm
from ct_assets.adapters.stream_worker.metrics import Liveness, Metrics, MetricsServer
from ct_assets.adapters.stream_worker.options import Options, Wiring, own_name
from ct_assets.adapters.stream_worker.worker import Worker

if TYPE_CHECKING:
    from ct_assets.adapters.stream.records import Stream
    from ct_assets.settings import Settings
    from ct_assets.streaming.definition import Definition


def open_worker(
    settings: Settings,
    definitions: Sequence[Definition],
    source_url: str,
    options: dict[str, Any],
    say: Callable[[str], None],
) -> tuple[Worker, int, Callable[[], None]]:
    """A worker ready to run, the port of its metrics, and what closes the port and ends the housekeeping.

    Registers the stream and each definition's version on first use, built from the stored events when there are any
    (``ct stream deploy`` is for changing one that runs).
    """
    from ct_assets.adapters.crash import crash_at
    from ct_assets.adapters.events.formats import open_decoder
    from ct_assets.adapters.events.port import open_source
    from ct_assets.adapters.postgres.migrate import migrate
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream.housekeeping import Housekeeper, Rules
    from ct_assets.adapters.stream.registration import Watcher, open_versions

    settings = replace(settings, kafka=replace(settings.kafka, member=options.get("member")))
    acceptance = definitions[0].acceptance
    decoder = open_decoder(settings, definitions[0], options["message_format"], options["unknown_schema"])
    url = url_for(settings, "stream")
    migrate(url)
    crash, storage, beat = crash_at(settings.crash_at), open_storage(settings), _beat(options.get("heartbeat_fd"))
    with connect(url, autocommit=True) as conn:
        source = open_source(source_url, settings)
        try:
            identity = source.identity()
        finally:
            source.close()
        stream, tables = open_versions(conn, definitions, identity, storage, Watcher(say, beat))
    liveness = Liveness(options["stall_seconds"])
    metrics = Metrics(stream.name, liveness)
    server = MetricsServer(metrics, options["metrics_port"])
    rules = Rules(retention_days=settings.stream_retention_days)
    back = rules.run_reads_back if options["until_idle"] else timedelta(0)
    twin = None
    if settings.online_url is not None:
        from ct_assets.adapters.stream.redis_sync import Twin

        back_us = back // timedelta(microseconds=1)
        twin = Twin.opened(settings.online_url, stream, storage, say=say, crash=crash, reads_back_us=back_us)
    wiring = Wiring(
        url=url,
        open_source=lambda: open_source(source_url, settings),
        stream=stream,
        acceptance=acceptance,
        tables=tables,
        decoder=decoder,
        metrics=metrics,
        say=say,
        beat=beat,
        alarm=ledger_alarm(settings, definitions[0], stream, say, options["message_format"]),
        crash=crash,
        twin=twin,
    )
    chosen = Options(
        group=options.get("group") or default_group(stream),
        owner=own_name(),
        max_messages=options["max_messages"],
        until_idle=options["until_idle"],
        keep_refused=options.get("keep_refused", False),
    )
    worker, far = Worker(wiring, chosen), 10 * chosen.max_messages
    housekeeper = Housekeeper(url, stream, storage, say, rules, reads_back=back, catching_up=lambda: worker.lag > far)

    def close() -> None:
        server.close()
        housekeeper.close(last_turn=options["until_idle"] and not worker.was_stopped)

    return worker, server.port, close


def default_group(stream: Stream) -> str:
    """The consumer group of a stream, whatever definitions a worker names: all workers of a stream write all of them."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", stream.name)  # of a log it is a folder
    return f"ct-{name}-{stream.acceptance.digest[:8]}"


def _beat(pipe: int | None) -> Callable[[], None]:
    """A function that tells the supervisor that there is progress; does nothing without one."""
    if pipe is None:
        return lambda: None

    def beat() -> None:
        try:
            os.write(pipe, b".")
        except OSError:  # the supervisor died: go on, someone may still want the work done
            return

    return beat
