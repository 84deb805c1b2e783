"""`ct stream run`: the worker as a process, its supervisor, its metrics port and its progress line.

What goes here: options, wiring, what people read. What does not: the loop (``adapters.stream_worker``).
"""

from __future__ import annotations

import re
import shlex
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ct_assets.adapters.events.formats import FORMATS, UNKNOWN_SCHEMA
from ct_assets.adapters.stream_worker.first_messages import REFUSED_AT_LEAST
from ct_assets.cli.output import emit, say
from ct_assets.settings import redact

if TYPE_CHECKING:
    from ct_assets.adapters.events.port import LostData
    from ct_assets.adapters.stream.records import Stream
    from ct_assets.adapters.stream_worker.options import Summary
    from ct_assets.adapters.stream_worker.worker import Worker
    from ct_assets.settings import Settings
    from ct_assets.streaming.definition import Definition

_NOTHING_ACCEPTED = (
    "this stream has not accepted any message yet; is this the right topic for the definition, and the right --format?"
    " `ct dead-letter show` has the messages and what was wrong"
)


@click.command()
@click.option(
    "--definition",
    "paths",
    multiple=True,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="StreamAggregates file; may come several times: they share the consumer.",
)
@click.option("--source", "source_url", required=True, help="kafka://HOST:PORT/TOPIC or log://DIR.")
@click.option(
    "--format",
    "message_format",
    type=click.Choice(FORMATS),
    default="json",
    show_default=True,
    help="What a message is; avro: Confluent framing, schemas from CT_SCHEMA_REGISTRY_URL.",
)
@click.option(
    "--unknown-schema",
    type=click.Choice(UNKNOWN_SCHEMA),
    default="dead-letter",
    show_default=True,
    help="What becomes of a message whose schema id the registry does not know after three tries.",
)
@click.option(
    "--keep-refused",
    is_flag=True,
    help=f"Go on when all of the first {REFUSED_AT_LEAST:,} messages of a new stream are refused: as dead letters.",
)
@click.option("--until-idle", is_flag=True, help="End when everything in the topic is committed.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes that share it.")
@click.option("--group", help="Consumer group; default one a stream, so that its workers share.")
@click.option("--max-messages", default=100_000, show_default=True, type=click.IntRange(1), help="Largest batch.")
@click.option("--metrics-port", default=0, show_default="a free one", type=click.IntRange(0, 65535))
@click.option(
    "--stall-seconds",
    default=60.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Waiting messages and no progress for so long: restart.",
)
@click.option("--supervise/--no-supervise", default=None, help="Restart after a crash; default unless --until-idle.")
@click.option("--heartbeat-fd", type=int, hidden=True)
@click.option("--member", hidden=True)  # its name in the consumer group, the same after a crash
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON line.")
@click.pass_context
def run(ctx: click.Context, /, paths: tuple[Path, ...], source_url: str, **options: Any) -> None:
    """Turn a topic into rolling aggregates, online rows and an offline log, effectively once.

    Runs until SIGTERM or Ctrl-C (it commits what is in hand first), or with --until-idle until the topic is read to
    its end. Kill it at any moment: the next start goes on from the last commit and gives the same values. Exit 1 when
    none of a new stream's messages is accepted.
    """
    supervised = options["supervise"]
    if supervised is None:
        supervised = not options["until_idle"]
    if (supervised or options["workers"] > 1) and options["heartbeat_fd"] is None:
        raise click.exceptions.Exit(_supervise(options))
    from ct_assets.settings import load

    summary = as_child(lambda: run_worker(load(), paths, source_url, options), options["heartbeat_fd"] is not None)
    emit(summary.as_json(), options["as_json"], describe(summary))
    if summary.nothing_accepted:
        say(_NOTHING_ACCEPTED)
        if options["until_idle"] and not options["keep_refused"]:
            raise click.exceptions.Exit(1)


def _supervise(options: dict[str, Any]) -> int:
    from ct_assets.adapters.stream_worker.supervise import Supervisor

    arguments, skip = [], False
    for argument in sys.argv[1:]:  # the child's own command line is this one, for one worker
        if skip or argument in ("--supervise", "--no-supervise") or argument.startswith("--workers="):
            skip = False
        elif argument == "--workers":
            skip = True
        else:
            arguments.append(argument)
    command = [sys.executable, "-m", "ct_assets.cli", *arguments, "--no-supervise"]
    port, family = options["metrics_port"], uuid.uuid4().hex[:12]

    def own(number: int) -> tuple[str, ...]:
        listens = ("--metrics-port", str(port + number)) if port else ()  # one port a worker
        return (*listens, "--member", f"ct-{family}-{number}")

    return Supervisor(command, options["workers"], say, own, stall_seconds=options["stall_seconds"]).run()


def as_child(work: Callable[[], Summary], supervised: bool) -> Summary:
    """Do ``work``; under a supervisor only lost data, a topic of which nothing is accepted and wrong usage end it for
    good, anything else is a crash that is tried again, a database that stayed away for longer than a worker's patience too."""
    from ct_assets.adapters.events.port import LostData
    from ct_assets.adapters.stream_worker.first_messages import NothingAccepted
    from ct_assets.adapters.stream_worker.supervise import CRASHED
    from ct_assets.errors import CtError, UsageError

    try:
        return work()
    except (LostData, NothingAccepted, UsageError):
        raise
    except Exception as error:
        if not supervised:
            raise
        if isinstance(error, CtError):
            say(f"error: {error.message}")
        else:
            traceback.print_exc()
        raise click.exceptions.Exit(CRASHED) from None


class Terminator:
    """What SIGTERM does to this process: before a worker is there it ends at once with 0, then it ends the worker.

    Without a handler the signal's own action ends the process with 143 instead of 0, as a failure to whoever started
    it: while the database is opened and a new version is built (nothing is in hand, an open transaction is undone), and
    for the tenth of a second or more in which Python, its own handlers gone, frees what the worker remembered.
    """

    def __init__(self) -> None:
        """From now on."""
        self.worker: Worker | None = None
        signal.signal(signal.SIGTERM, self)

    def __call__(self, *_: object) -> None:
        """The signal came."""
        if self.worker is None:
            raise SystemExit(0)  # no Exception: nothing on the way takes it for a failure
        self.worker.stop()

    def over(self) -> None:
        """Everything is done: the signal comes too late to mean anything, and Python leaves an ignored one ignored."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def run_worker(settings: Settings, paths: tuple[Path, ...], source_url: str, options: dict[str, Any]) -> Summary:
    """Wire one worker and run it to its end; SIGTERM and SIGINT stop it after the batch in hand."""
    from ct_assets.adapters.events.port import LostData
    from ct_assets.streaming.definition import load_definition, shared_acceptance

    terminator = Terminator()
    definitions = [load_definition(path) for path in paths]
    shared_acceptance(definitions)
    from ct_assets.adapters.stream_worker.wiring import open_worker

    worker, metrics_port, close = open_worker(settings, definitions, source_url, options, say)
    terminator.worker = worker
    signal.signal(signal.SIGINT, worker.stop)
    say(f"metrics: http://127.0.0.1:{metrics_port}/metrics   liveness: /healthz")
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(worker, ended), daemon=True)
    if sys.stderr.isatty():
        watcher.start()
    try:
        return worker.run()
    except LostData as lost:
        _record(settings, definitions[0], worker.stream, (source_url, lost))
        lost.hint = _with_names(lost, paths[0], source_url)
        raise
    finally:
        ended.set()
        close()
        terminator.over()


def _with_names(lost: LostData, path: Path, source_url: str) -> str | None:
    """Its hint with commands that can be used as they stand; a log that lost its end moves to a topic of another URL."""
    from ct_assets.adapters.events.port import LogTruncated

    hint = (lost.hint or "").replace("--definition FILE", f"--definition {shlex.quote(str(path))}")
    if not isinstance(lost, LogTruncated):
        hint = hint.replace("--source URL", f"--source {shlex.quote(redact(source_url))}")
    return hint or None


def _record(settings: Settings, definition: Definition, stream: Stream, what: tuple[str, LostData]) -> None:
    """An incident: what the state needs next of a source is gone, and a person decides."""
    from ct_assets.adapters import incidents
    from ct_assets.adapters.postgres.connect import connect, url_for

    source_url, lost = what
    with connect(url_for(settings, "ledger")) as conn:
        number = incidents.report(
            conn,
            incidents.Incident(
                pipeline=definition.name,
                dataset=definition.schema.name,
                day=None,
                rule=re.sub(r"(?<!^)(?=[A-Z])", "_", type(lost).__name__).lower(),
                message=lost.message,
                contract=definition.schema.digest,
                detail={
                    "source": redact(source_url),
                    **{k: v for k, v in vars(lost).items() if isinstance(v, int | str)},
                },
                stream=stream.reading,
            ),
        )
    say(f"incident {number} is open: `ct status` shows it")


def _watch(worker: Worker, ended: threading.Event) -> None:
    """One line on a terminal, written over every second."""
    before, at = 0, time.monotonic()
    while not ended.wait(1.0):
        done, now = worker.summary.messages, time.monotonic()
        rate = (done - before) / (now - at)
        before, at = done, now
        sys.stderr.write(f"\r\x1b[K{progress_line(worker, rate)}")
        sys.stderr.flush()
    sys.stderr.write("\n")


def progress_line(worker: Worker, rate: float) -> str:
    """``messages · rate · lag · watermark delay · late · repeats · dead letters``."""
    s = worker.summary
    return (
        f"{s.messages:,} messages · {rate:,.0f}/s · {worker.lag:,} waiting · {s.late:,} late · "
        f"{s.duplicates:,} repeats · {sum(s.dead.values()):,} dead letters"
    )


def describe(summary: Summary) -> str:
    """The summary as two lines."""
    dead = ", ".join(f"{n} {reason}" for reason, n in sorted(summary.dead.items())) or "none"
    rate = summary.messages / summary.seconds if summary.seconds else 0
    return (
        f"{summary.messages:,} messages, {summary.events:,} accepted, {summary.late:,} late but in time, "
        f"{summary.duplicates:,} repeats, {summary.tombstones:,} without a value; dead letters: {dead}\n"
        f"{summary.commits} commits in {summary.seconds:.1f} s ({rate:,.0f} messages/s)"
        + (f", began again {summary.restarts} times" if summary.restarts else "")
    )
