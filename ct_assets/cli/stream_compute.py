"""``ct stream compute``: the aggregates of a definition for a file of events and a file of questions, without a server.

What goes here: the command, its files and what it prints. What does not: what an event or a window means
(``ct_assets.streaming``).
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ct_assets.cli.output import emit, keep_inputs, parquet, say, writing
from ct_assets.errors import CtError, UsageError, did_you_mean

if TYPE_CHECKING:
    import polars as pl

    from ct_assets.streaming.accept import Accepted
    from ct_assets.streaming.definition import Definition
    from ct_assets.streaming.lines import Skipped
    from ct_assets.streaming.messages import Messages

CHUNK_BYTES = 32 << 20
_PATH = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--definition", "definition_path", required=True, type=_PATH, help="YAML of kind StreamAggregates.")
@click.option("--events", "events_path", required=True, type=_PATH, help="JSON lines; their order is arrival order.")
@click.option("--queries", "queries_path", required=True, type=_PATH, help="CSV with the entity and `at` (ISO 8601).")
@click.option("--out", required=True, type=_PATH, help="Parquet: the queries' rows plus one column an aggregate.")
@click.option("--dead-letters", "dead_path", type=_PATH, help="JSON lines; default: beside --out, .dead-letters.jsonl.")
@click.option("--batch-size", type=click.IntRange(1), help="Events judged at a time; the answer does not depend on it.")
@click.option("--as-known", is_flag=True, help="Only what was known at `at`, instead of corrected values.")
@click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout.")
def compute(  # noqa: PLR0913 (one parameter an option)
    definition_path: Path,
    events_path: Path,
    queries_path: Path,
    out: Path,
    dead_path: Path | None,
    batch_size: int | None,
    as_known: bool,
    as_json: bool,
) -> None:
    """Rolling aggregates of EVENTS at the moments of QUERIES: late, repeated and conflicting events included.

    Exit 1 when no event was accepted; the files are written all the same.
    """
    from ct_assets.streaming.definition import load_definition
    from ct_assets.streaming.windows import evaluate

    definition = load_definition(definition_path)
    if not events_path.is_file():
        raise UsageError(f"no file at {events_path}", hint="give a file of JSON lines")
    dead_path = dead_path or out.with_name(out.stem + ".dead-letters.jsonl")
    given = {"--definition": definition_path, "--events": events_path, "--queries": queries_path}
    keep_inputs({"--out": out, "--dead-letters": dead_path}, {**given, "the contract": definition.contract_path})
    parquet("--out", out)
    queries = read_queries(queries_path, definition)
    with writing("--out", out):  # before the work
        out.parent.mkdir(parents=True, exist_ok=True)
    events, counts = _judge_file(definition, events_path, dead_path, batch_size)
    at = queries["at"].to_physical().to_numpy()
    values = evaluate(definition, events, queries[definition.entity], at, as_known_at=at if as_known else None)
    _replace("--out", out, lambda part: queries.hstack(values).write_parquet(part))
    total = {**counts, "queries": queries.height, "out": str(out), "dead_letters_file": str(dead_path)}
    dead = ", ".join(f"{n:,} {reason}" for reason, n in counts["dead_letters"].items()) or "none"
    emit(
        total,
        as_json,
        f"{counts['read']:,} events read, {counts['accepted']:,} accepted, {counts['duplicates']:,} repeats dropped, dead letters: {dead}\n"
        f"{queries.height:,} x {len(definition.aggregates)} values in {out}; dead letters in {dead_path}",
    )
    if counts["read"] and not counts["accepted"]:
        say(
            f"no event of {counts['read']:,} was accepted: is {definition.contract_path} the contract of {events_path}?"
        )
        raise click.exceptions.Exit(1)


def _judge_file(
    definition: Definition, path: Path, dead_path: Path, batch_size: int | None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The accepted events (only the columns that windows read), and counts; writes the dead letters."""
    import polars as pl

    from ct_assets.streaming.accept import Acceptor
    from ct_assets.streaming.decode import JsonDecoder
    from ct_assets.streaming.lines import Skipped
    from ct_assets.streaming.windows import columns_needed

    decoder, acceptor = JsonDecoder(definition.schema, definition.acceptance), Acceptor(definition.acceptance)
    kept: list[pl.DataFrame] = []
    counts: dict[str, Any] = {"read": 0, "accepted": 0, "duplicates": 0}
    reasons, skipped = Counter[str](), Skipped()

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8") as dead:
            for messages in _batches(path, batch_size, skipped):
                found = acceptor.accept(decoder.decode(messages), messages)
                kept.append(found.events.select(columns_needed([definition])))
                counts["read"] += len(messages)
                counts["accepted"] += found.events.height
                counts["duplicates"] += sum(found.duplicates.values())
                reasons.update(letter.reason for letter in found.dead)
                dead.writelines(_letters(found, messages))

    _replace("--dead-letters", dead_path, write)
    for what in skipped.said():
        say(f"{path}: {what}")
    counts["dead_letters"] = dict(sorted(reasons.items()))
    if kept:
        return pl.concat(kept), counts
    nothing = JsonDecoder(definition.schema, definition.acceptance).decode(_no_messages())
    return acceptor.accept(nothing, _no_messages()).events, counts


def _no_messages() -> Messages:
    from ct_assets.streaming.messages import Messages

    return Messages.empty()


def _letters(found: Accepted, messages: Messages) -> Iterator[str]:
    for letter in found.dead:
        raw = messages.payload(letter.index) or b""
        line: dict[str, Any] = {"line": int(messages.offset[letter.index]) + 1, "reason": letter.reason}
        try:
            line["raw"] = raw.decode("utf-8")
        except UnicodeDecodeError:
            line |= {"raw": base64.b64encode(raw).decode("ascii"), "raw_base64": True}
        yield json.dumps({**line, "error": letter.error}, ensure_ascii=False) + "\n"


def _batches(path: Path, batch_size: int | None, skipped: Skipped) -> Iterator[Messages]:
    """Messages whose offsets are the numbers of their lines from 0."""
    from ct_assets.streaming.messages import Messages

    line = 0
    for chunk in _chunks(path):
        lines = Messages.from_lines(skipped.first(chunk) if line == 0 else chunk, first_offset=line)
        line += len(lines)
        messages = skipped.without_blank(lines)
        size = batch_size or max(len(messages), 1)
        for begin in range(0, len(messages), size):
            yield messages.slice(begin, min(begin + size, len(messages)))


def _chunks(path: Path) -> Iterator[bytes]:
    """Whole lines, some megabytes at a time; the last line gets its newline."""
    rest = b""
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            block = rest + block
            cut = block.rfind(b"\n") + 1
            rest = block[cut:]
            if cut:
                yield block[:cut]
    if rest:
        yield rest + b"\n"


def read_queries(path: Path, definition: Definition) -> pl.DataFrame:
    """The questions: the entity in its contract's type and `at` in microseconds UTC. Raises CtError with the line."""
    import polars as pl

    if not path.is_file():
        raise UsageError(f"no file at {path}", hint=f"give a CSV with the columns {definition.entity} and at")
    try:
        frame = pl.read_csv(path, infer_schema=False).with_columns(pl.all().fill_null(""))
    except pl.exceptions.PolarsError as wrong:
        raise CtError(f"{path}: cannot be read as CSV: {wrong}", hint="a header, then one question a line") from None
    for name in (definition.entity, "at"):
        if name not in frame.columns:
            hint = did_you_mean(name, frame.columns) or f"its columns: {', '.join(frame.columns)}"
            raise UsageError(f"{path}:1: no column {name!r}", hint=hint)
    for aggregate in definition.aggregates:
        if aggregate.name in frame.columns:
            hint = "the output has a column of that name for the value: rename the one of the questions"
            raise UsageError(f"{path}:1: the column {aggregate.name!r} is named as an aggregate is", hint=hint)
    return frame.with_columns(_entities(frame[definition.entity], path, definition), _moments(frame["at"], path))


def _entities(texts: pl.Series, path: Path, definition: Definition) -> pl.Series:
    import polars as pl

    if definition.schema.column(definition.entity).type == "string":
        return texts
    numbers = texts.cast(pl.Int64, strict=False)
    if numbers.null_count():
        line = int(numbers.is_null().arg_true()[0])
        raise CtError(f"{path}:{line + 2}: {definition.entity} is {texts[line]!r}", hint="an integer is expected")
    return numbers


def _moments(texts: pl.Series, path: Path) -> pl.Series:
    import polars as pl

    from ct_assets.streaming.times import NotATime, microseconds

    found = []
    for line, text in enumerate(texts.to_list(), start=2):
        try:
            found.append(microseconds(text))
        except NotATime as wrong:
            raise CtError(f"{path}:{line}: at: {wrong}", hint="for example 2026-01-01T00:05:00.000001+00:00") from None
    return pl.Series("at", found, pl.Int64).cast(pl.Datetime("us", "UTC"))


def _replace(option: str, path: Path, write: Any) -> None:
    """Write beside, then rename: an interrupted run leaves the old file. Raises UsageError where nothing can be written."""
    part = path.with_name(path.name + ".part")
    with writing(option, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
