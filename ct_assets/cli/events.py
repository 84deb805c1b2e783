"""`ct events`: bring events to a topic or an embedded log.

What goes here: options, pacing and printing. What does not: how a sink writes (``adapters.events``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ct_assets.cli.output import emit, say
from ct_assets.errors import UsageError

if TYPE_CHECKING:
    from ct_assets.adapters.events.port import EventSink
    from ct_assets.streaming.lines import Skipped

CHUNK = 10_000
TICK_SECONDS = 0.05  # with --rate: how finely the events of a second are spread


@click.group()
def events() -> None:
    """Bring events to a Kafka topic or an embedded log."""


@events.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--to", "to", required=True, metavar="URL", help="kafka://HOST:PORT/TOPIC or log://DIR.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second (default: as fast as it goes)."
)
@click.option("--key", metavar="COLUMN", help="Events of one value of COLUMN go to one partition, in order.")
@click.option("--partitions", type=click.IntRange(min=1), help="Make the topic with so many when there is none.")
@click.option(
    "--append-time-column",
    "append",
    metavar="COLUMN",
    help="log:// only: COLUMN (ISO 8601 with offset) is when it arrived.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the totals as one line of JSON.")
def produce(  # noqa: PLR0913 (one parameter an option)
    file: Path, to: str, rate: float | None, key: str | None, partitions: int | None, append: str | None, as_json: bool
) -> None:
    """Send FILE, one event a line, in order and byte for byte: a line that is no JSON is sent too; blank lines are not."""
    from ct_assets.adapters.events.port import open_sink, parse_url
    from ct_assets.streaming.lines import Skipped

    if append is not None and parse_url(to).kind == "kafka":
        raise UsageError("--append-time-column is for log:// alone", hint="a Kafka broker stamps arrivals itself")
    sink = open_sink(to, partitions=partitions)
    started, sent, skipped = time.monotonic(), 0, Skipped()
    try:
        for lines in _chunks(file, rate, skipped):
            _send(sink, lines, key, append, is_first=not sent)
            sent += len(lines)
            if rate is not None:
                time.sleep(max(0.0, started + sent / rate - time.monotonic()))
        sink.flush()
    finally:
        sink.close()
    seconds = time.monotonic() - started
    total: dict[str, Any] = {"file": str(file), "to": to, "events": sent, "partitions": len(sink.partitions())}
    for what in skipped.said():
        say(f"{file}: {what}")
    emit(total, as_json, f"{sent} events of {file} are in {to} ({total['partitions']} partitions)")
    say(f"{seconds:.1f} s, {sent / max(seconds, 1e-9):,.0f} events/s")


def _chunks(file: Path, rate: float | None, skipped: Skipped) -> Iterator[list[tuple[int, bytes]]]:
    """The lines of ``file`` that are messages, with their numbers and without their ends, some at a time."""
    size = CHUNK if rate is None else max(1, min(CHUNK, int(rate * TICK_SECONDS)))
    with file.open("rb") as handle:
        lines: list[tuple[int, bytes]] = []
        for number, line in skipped.numbered(handle):
            lines.append((number, line.rstrip(b"\r\n")))
            if len(lines) == size:
                yield lines
                lines = []
        if lines:
            yield lines


def _send(
    sink: EventSink, lines: list[tuple[int, bytes]], key: str | None, append: str | None, *, is_first: bool
) -> None:
    values = [line for _, line in lines]
    if key is None and append is None:
        sink.send(values)
        return
    documents = [_document(line) for line in values]
    keys = None if key is None else [_key(document.get(key)) for document in documents]
    if keys is not None and is_first and not any(keys):
        names = sorted({name for document in documents for name in document})
        raise UsageError(f"--key {key}: none of the first {len(lines)} events has it", hint=f"they have: {names}")
    times = None
    if append is not None:
        times = [
            _time(document.get(append), append, number) for (number, _), document in zip(lines, documents, strict=True)
        ]
    sink.send(values, keys, append_time=times)


def _document(line: bytes) -> dict[str, Any]:
    """The object on the line; an empty one for a line that is none (it is sent all the same)."""
    import orjson

    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _key(value: Any) -> bytes | None:
    import orjson

    if value is None:
        return None
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def _time(value: Any, column: str, line: int) -> int:
    """Microseconds UTC."""
    import datetime as dt

    try:
        found = dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        found = None
    if found is None or found.tzinfo is None:
        raise UsageError(
            f"line {line}: {column} is {value!r}; expected a time like 2026-01-01T00:00:00.000001+00:00",
            hint="without --append-time-column the time of writing is taken",
        )
    return (found - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
