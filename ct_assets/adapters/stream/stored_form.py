"""The columns in which a stream keeps its events, and how events of another version of its contract are brought into them.

What goes here: which columns those are, what fits them exactly, the refusal of what does not. What does not: bytes of a
chunk (``chunk_form``), judging dead letters (``dead_letters``).

The contract is part of what a stream is: a changed one is another stream, read from the topic again. So all that workers
store of one stream has the same columns and types, and everything that reads it (online tables, a build, Redis, a
training set, the memory of ids) counts on that. Only a replayed dead letter is decoded by a contract that may be another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from ct_assets.adapters.stream.chunk_form import APPEND, KNOWN, OFFSET, PARTITION, chunk_types
from ct_assets.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.stream.records import Stream
    from ct_assets.streaming.decode import Decoded
    from ct_assets.streaming.definition import Definition
    from ct_assets.streaming.messages import Messages

PLACES = (PARTITION, OFFSET, APPEND, KNOWN)
_DIGITS_OF_64_BITS = 19


class Decoder(Protocol):
    """Bytes of messages to typed rows."""

    def decode(self, messages: Messages) -> Decoded:
        """One batch."""
        ...


@dataclass(frozen=True)
class StoredForm:
    """The columns of a stream's events and their types, in order; places (offset, partition, ...) are not among them."""

    types: Mapping[str, pl.DataType]

    def retyped(self, given: Mapping[str, pl.DataType]) -> list[str]:
        """A sentence for each column that is in ``given`` with a type whose values do not all fit exactly."""
        return [
            f"column {name!r} is stored as {said(kind)} and would come as {said(given[name])}"
            for name, kind in self.types.items()
            if name in given and not _is_exact(given[name], kind)
        ]

    def missing(self, given: Mapping[str, pl.DataType]) -> list[str]:
        """A sentence for each column that ``given`` lacks."""
        return [
            f"column {name!r} is stored as {said(kind)} and would not come at all"
            for name, kind in self.types.items()
            if name not in given
        ]

    def fit(self, frame: pl.DataFrame, index: str | None = None) -> pl.DataFrame:
        """The events in this form: columns it does not have are left out, those the frame lacks are null.

        Places stay, and the column ``index``. Only for frames of which :meth:`retyped` has nothing to say.
        """
        import polars as pl

        if list(frame.schema.items())[: len(self.types)] == list(self.types.items()) and set(
            frame.columns[len(self.types) :]
        ) <= {*PLACES, index}:
            return frame
        there = frame.columns
        fitted = [
            pl.col(name).cast(kind) if name in there else pl.lit(None, kind).alias(name)
            for name, kind in self.types.items()
        ]
        return frame.select(*fitted, *[name for name in there if name in (*PLACES, index)])


@dataclass(frozen=True)
class FittedDecoder:
    """A decoder by the contract as it is now, whose events have the columns of one stream. Made by :func:`fitted`."""

    decoder: Decoder
    form: StoredForm

    def decode(self, messages: Messages) -> Decoded:
        """One batch, in the stream's columns."""
        from ct_assets.streaming.decode import INDEX

        found = self.decoder.decode(messages)
        return replace(found, frame=self.form.fit(found.frame, INDEX))


def fitted(conn: psycopg.Connection, stream: Stream, definition: Definition, decoder: Decoder) -> FittedDecoder:
    """The decoder of a definition for one stream's letters. Raises UsageError where its columns do not fit the stream's.

    A column that the contract has and the stream has not is left out, as a worker of that stream leaves it out. One that
    it lacks, or whose values might not all fit exactly, is a refusal.
    """
    from ct_assets.streaming.decode import INDEX, frame_schema

    given = {n: k for n, k in frame_schema(definition.schema, definition.acceptance).items() if n != INDEX}
    stored = worker_types(conn, stream)
    if stored is None and stream.acceptance.contract_digest != definition.acceptance.contract_digest:
        raise UsageError(
            f"the dead letters of {stream.label} cannot come back by {definition.contract_path}: the stream never"
            " accepted an event, and the contract is another than the one it was run with",
            hint="`ct stream run` with this definition reads the topic from its beginning by the new contract",
        )
    form = StoredForm(given if stored is None else stored)
    wrong = [*form.retyped(given), *form.missing(given)]
    if wrong:
        raise UsageError(
            f"the dead letters of {stream.label} cannot come back by {definition.contract_path}, nothing was stored: "
            + "; ".join(wrong),
            hint="a stream keeps the columns it began with: `ct stream deploy` with this definition makes a stream of the"
            " changed contract, `ct stream run` reads the topic by it, a second `ct stream deploy` switches",
        )
    return FittedDecoder(decoder, form)


def worker_types(conn: psycopg.Connection, stream: Stream) -> dict[str, pl.DataType] | None:
    """The columns that workers store, out of a chunk of theirs; None when they never accepted an event.

    The chunk with a partition's newest event is neither compacted nor removed, so this needs no storage.
    """
    row = conn.execute(
        """select payload from stream.chunk where stream_id = %s and replay is null and payload is not null
           order by partition desc, next_offset desc limit 1""",
        (stream.stream_id,),
        binary=True,
    ).fetchone()
    return None if row is None else _types(row[0])


def stored_form(conn: psycopg.Connection, stream: Stream) -> StoredForm | None:
    """The form in which the stream is read: the workers', else that of the letters that came back first; None: no event."""
    found = worker_types(conn, stream)
    if found is not None:
        return StoredForm(found)
    row = conn.execute(
        "select payload from stream.chunk where stream_id = %s and replay is not null order by chunk_id limit 1",
        (stream.stream_id,),
        binary=True,
    ).fetchone()
    return None if row is None else StoredForm(_types(row[0]))


def _types(payload: bytes) -> dict[str, pl.DataType]:
    return {name: kind for name, kind in chunk_types(payload).items() if name not in PLACES}


def said(kind: pl.DataType) -> str:
    """A type in the contract's words."""
    import polars as pl

    if isinstance(kind, pl.Decimal):
        return f"decimal({kind.precision},{kind.scale})"
    words = {"Int64": "integer", "Float64": "number", "String": "string", "Datetime": "timestamp"}
    name = type(kind).__name__
    return words.get(name, name.lower())


def _is_exact(given: pl.DataType, stored: pl.DataType) -> bool:
    """Whether every value of one type is one of the other."""
    import polars as pl

    if given == stored:
        return True
    if not isinstance(stored, pl.Decimal):
        return False
    whole = stored.precision - stored.scale
    if isinstance(given, pl.Decimal):
        return stored.scale >= given.scale and whole >= given.precision - given.scale
    return isinstance(given, pl.Int64) and whole >= _DIGITS_OF_64_BITS
