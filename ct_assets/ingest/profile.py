"""What a file's columns look like: counts, candidate types, bounds, forms. One pass, bounded memory.

What goes here: gathering evidence. What does not: the contract proposed from it (``infer.py``).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import BinaryIO

import polars as pl

from ct_assets.contracts.formats import STRING_FORMATS, date_format
from ct_assets.contracts.model import Column, DatasetSchema, Dialect
from ct_assets.errors import UsageError
from ct_assets.ingest.broken import record_end, split_strictly
from ct_assets.ingest.duplicates import Seen, fingerprints
from ct_assets.ingest.judge import Judgement
from ct_assets.ingest.source import Source
from ct_assets.ingest.verdict import FileRejected, FileVerdict

MAX_VALUES = 50  # unlike values remembered a column
NUMBER = r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?$"
INTEGER = r"^-?(?:0|[1-9][0-9]{0,17})$"
DATE_FORMS = ("yyyy-MM-dd", "dd/MM/yyyy", "MM/dd/yyyy", "dd.MM.yyyy", "yyyyMMdd", "d/M/yyyy", "M/d/yyyy")
TIME_FORMS = (
    "yyyy-MM-dd HH:mm:ss",
    "yyyy-MM-dd'T'HH:mm:ss",
    "yyyy-MM-dd HH:mm:ss[.SSSSSS]",
    "yyyy-MM-dd'T'HH:mm:ss[.SSSSSS]",
    "yyyy-MM-dd'T'HH:mm:ss[.SSSSSS]XXX",
    "yyyy-MM-dd HH:mm:ss[.SSSSSS]XXX",
    "dd/MM/yyyy HH:mm:ss",
    "dd/MM/yyyy HH:mm",
    "M/d/yyyy H:mm",
    "d/M/yyyy H:mm",
)
PHONE = r"^\+?[0-9][0-9 ().\-]{7,18}[0-9]$"


@dataclass
class ColumnProfile:
    """Evidence on one column; ``forms`` are the candidate forms that every value so far has matched."""

    name: str
    rows: int = 0
    absent: int = 0
    untrimmed: int = 0
    point_zero: int = 0
    shortest: int | None = None
    longest: int = 0
    low: float | None = None
    high: float | None = None
    whole_digits: int = 0
    decimals: int = 0
    forms: set[str] = field(default_factory=set)
    values: Counter[str] = field(default_factory=Counter)
    many: bool = False  # more unlike values than MAX_VALUES
    repeats: int = 0
    example: str = ""
    first_text: str = ""
    last_text: str = ""

    @property
    def present(self) -> int:
        """Rows with a text."""
        return self.rows - self.absent


_FORMS = {"integer": INTEGER, "number": NUMBER, "boolean": r"^(?i:true|false)$", "phone": PHONE}
_FORMS |= {name: STRING_FORMATS[name] for name in ("email", "uuid", "ipv4")}
_TIMES = {form: parsed for form in DATE_FORMS + TIME_FORMS if (parsed := date_format(form))}


def profile(stream: BinaryIO, name: str, dialect: Dialect) -> tuple[list[ColumnProfile], FileVerdict]:
    """Profile every column of a CSV stream that can seek. Raises UsageError where it cannot be read as CSV."""
    names = _header(stream, dialect)
    if "" in names:
        raise UsageError(
            f"column {names.index('') + 1} of {name} has no name",
            hint="name it in the header; a contract matches by name",
        )
    columns = {n: ColumnProfile(n, forms={*_FORMS, *_TIMES}) for n in names}
    seen = {n: Seen() for n in names}
    schema = DatasetSchema("profile", tuple(Column(n) for n in names), dialect=dialect)
    judgement = Judgement(stream, schema, name=name)
    for chunk in judgement:
        for n, found in columns.items():
            _add(found, chunk.good[n], seen[n])
    if judgement.verdict.rejected:
        rejected = judgement.verdict.rejected
        raise UsageError(f"{name}: {rejected.rule} (line {rejected.line}): {rejected.message}")
    return list(columns.values()), judgement.verdict


def _header(stream: BinaryIO, dialect: Dialect) -> list[str]:
    begin = stream.tell()
    text = b""
    try:
        for block in Source(stream, dialect).blocks(1 << 20):
            text += block
            if b"\n" in text.lstrip(b"\r\n") or len(text) > 1 << 22:
                break
    except FileRejected as rejected:
        raise UsageError(f"{rejected.rejection.rule}: {rejected.rejection.message}") from None
    stream.seek(begin)
    text = text.lstrip(b"\r\n")
    if not text:
        raise UsageError("the file is empty", hint="give a CSV file with a header line and rows")
    end = record_end(text, 0, len(text), ord(dialect.delimiter), ord(dialect.quote))
    line = text[:end].removesuffix(b"\r").decode("utf-8", errors="replace")
    names = split_strictly(line, dialect.delimiter, dialect.quote) or [line]
    other = next((d for d in ";\t|," if d != dialect.delimiter and len(names) == 1 and d in names[0]), None)
    if other:
        shown = "'\\t'" if other == "\t" else repr(other)
        raise UsageError(
            f"the header is one column, {names[0]!r}",
            hint=f"nothing is sniffed; if the delimiter is {shown}, say --delimiter {shown}",
        )
    return names


def _add(found: ColumnProfile, series: pl.Series, seen: Seen) -> None:
    found.rows += len(series)
    texts = series.drop_nulls()
    found.absent += len(series) - len(texts)
    if not len(texts):
        return
    trimmed = texts.str.strip_chars()
    found.untrimmed += int((trimmed != texts).sum())
    found.example = found.example or str(texts[0])
    lengths = texts.str.len_chars()
    found.shortest = min(int(lengths.min() or 0), found.shortest if found.shortest is not None else 1 << 30)  # pyright: ignore[reportArgumentType]
    found.longest = max(int(lengths.max() or 0), found.longest)  # pyright: ignore[reportArgumentType]
    found.point_zero += int(texts.str.contains(r"^[0-9]+\.0$").sum())
    _add_forms(found, trimmed)
    _add_numbers(found, trimmed)
    low, high = str(trimmed.min()), str(trimmed.max())
    found.first_text = min(found.first_text, low) if found.first_text else low
    found.last_text = max(found.last_text, high)
    found.repeats += len(texts) - int(seen.first(fingerprints(texts.to_frame(found.name), [found.name])).sum())
    if not found.many:
        for row in trimmed.value_counts().iter_rows():
            found.values[row[0]] += row[1]
        found.many = len(found.values) > MAX_VALUES


def _add_forms(found: ColumnProfile, texts: pl.Series) -> None:
    for form in sorted(found.forms):
        regex = _TIMES[form].regex if form in _TIMES else _FORMS[form]
        holds = bool(texts.str.contains(regex).all())
        if holds and form in _TIMES:
            holds = (
                texts.str.to_datetime(_TIMES[form].strptime, strict=False).null_count() == 0
                if form in TIME_FORMS
                else _all_dates(texts, form)
            )
        if not holds:
            found.forms.discard(form)


def _all_dates(texts: pl.Series, form: str) -> bool:
    return texts.str.to_date(_TIMES[form].strptime, strict=False).null_count() == 0


def _add_numbers(found: ColumnProfile, texts: pl.Series) -> None:
    if "number" not in found.forms:
        return
    values = texts.cast(pl.Float64, strict=False)
    low, high = values.min(), values.max()
    if isinstance(low, float) and isinstance(high, float):
        found.low = low if found.low is None else min(found.low, low)
        found.high = high if found.high is None else max(found.high, high)
    parts = texts.str.strip_prefix("-").str.split_exact(".", 1).struct.unnest()
    found.whole_digits = max(found.whole_digits, int(parts["field_0"].str.len_bytes().max() or 0))  # pyright: ignore[reportArgumentType]
    found.decimals = max(found.decimals, int(parts["field_1"].str.len_bytes().max() or 0))  # pyright: ignore[reportArgumentType]


IDENTIFIER = re.compile(
    r"(?:^|[_\s]|(?<=[a-z]))(?:id|ids|no|nr|number|code|zip|postcode|plz|ean|gtin|sku|iban|phone|tel)$", re.IGNORECASE
)
