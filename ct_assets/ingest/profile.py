"""What a file's columns look like: counts, candidate types, bounds, forms. One pass, bounded memory.

What goes here: gathering evidence. What does not: the contract proposed from it (``infer.py``).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import polars as pl

from ct_assets.contracts.formats import STRING_FORMATS, date_format
from ct_assets.contracts.model import Column, DatasetSchema, Dialect
from ct_assets.errors import UsageError
from ct_assets.ingest.broken import record_end, split_strictly
from ct_assets.ingest.duplicates import Seen, fingerprints
from ct_assets.ingest.judge import Judgement
from ct_assets.ingest.printed import NumberForms, Reading, choose
from ct_assets.ingest.source import Source
from ct_assets.ingest.verdict import FileRejected, FileVerdict

MAX_VALUES = 50  # unlike values remembered a column
DATE_FORMS = (
    "yyyy-MM-dd",
    "dd/MM/yyyy",
    "MM/dd/yyyy",
    "dd.MM.yyyy",
    "yyyyMMdd",
    "yyyy/MM/dd",
    "dd-MM-yyyy",
    "yyyy.MM.dd",
    "d/M/yyyy",
    "M/d/yyyy",
    "d.M.yyyy",
)
TIME_FORMS = (
    "yyyy-MM-dd HH:mm:ss",
    "yyyy-MM-dd'T'HH:mm:ss",
    "yyyy-MM-dd HH:mm:ss[.SSSSSS]",
    "yyyy-MM-dd'T'HH:mm:ss[.SSSSSS]",
    "yyyy-MM-dd'T'HH:mm:ss[.SSSSSS]XXX",
    "yyyy-MM-dd HH:mm:ss[.SSSSSS]XXX",
    "dd/MM/yyyy HH:mm:ss",
    "dd/MM/yyyy HH:mm",
    "dd.MM.yyyy HH:mm:ss",
    "dd.MM.yyyy HH:mm",
    "yyyy-MM-dd HH:mm",
    "yyyy/MM/dd HH:mm:ss",
    "yyyy/MM/dd HH:mm",
    "yyyy.MM.dd HH:mm:ss",
    "dd-MM-yyyy HH:mm:ss",
    "M/d/yyyy H:mm",
    "d/M/yyyy H:mm",
    "d.M.yyyy H:mm",
)
SHORT_YEAR = r"^[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{2}(?: [0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?)?$"
BINARY = {
    b"PK\x03\x04": "a zip archive or an Excel file (.xlsx): save the sheet as CSV, or unpack it",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls): save the sheet as CSV",
    b"\x1f\x8b": "a gzip file: unpack it first (gunzip)",
    b"PAR1": "a Parquet file: this reads CSV",
    b"%PDF": "a PDF: this reads CSV",
    b"\x89PNG": "a picture: this reads CSV",
    b"SQLite format 3": "a SQLite database: export the table as CSV",
}
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
    numbers: NumberForms = field(default_factory=NumberForms)
    reading: Reading = field(default_factory=Reading)  # how its numbers are read, chosen when the whole file is known
    spans: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # earliest and latest under a date form
    forms: set[str] = field(default_factory=set)
    values: Counter[str] = field(default_factory=Counter)
    many: bool = False  # more unlike values than MAX_VALUES
    repeats: int = 0
    example: str = ""

    @property
    def is_number(self) -> bool:
        """Whether every value is a number in the form that was chosen."""
        return self.reading.form is not None

    @property
    def present(self) -> int:
        """Rows with a text."""
        return self.rows - self.absent


FORMS = {"boolean": r"^(?i:true|false)$", "phone": PHONE, "short year": SHORT_YEAR}
FORMS |= {name: STRING_FORMATS[name] for name in ("email", "uuid", "ipv4")}
_TIMES = {form: parsed for form in DATE_FORMS + TIME_FORMS if (parsed := date_format(form))}


def profile(stream: BinaryIO, name: str, dialect: Dialect) -> tuple[list[ColumnProfile], FileVerdict]:
    """Profile every column of a CSV stream that can seek. Raises UsageError where it cannot be read as CSV."""
    names = _header(stream, dialect)
    if "" in names:
        raise UsageError(
            f"column {names.index('') + 1} of {name} has no name",
            hint="name it in the header; a contract matches by name",
        )
    columns = {n: ColumnProfile(n, forms={*FORMS, *_TIMES}) for n in names}
    seen = {n: Seen() for n in names}
    schema = DatasetSchema("profile", tuple(Column(n) for n in names), dialect=dialect)
    judgement = Judgement(stream, schema, name=name)
    for chunk in judgement:
        for n, found in columns.items():
            add_texts(found, chunk.good[n], seen[n])
    if judgement.verdict.rejected:
        rejected = judgement.verdict.rejected
        hint = _OTHER_ENCODING if "utf-8" in rejected.message.lower() and dialect.encoding == "utf-8" else None
        raise UsageError(f"{name}: {rejected.rule} (line {rejected.line}): {rejected.message}", hint=hint)
    for n, reading in choose({n: found.numbers for n, found in columns.items()}).items():
        columns[n].reading = reading
    return list(columns.values()), judgement.verdict


_OTHER_ENCODING = "nothing is sniffed; if Excel on Windows wrote it, say --encoding cp1252"


def _refuse_binary(stream: BinaryIO, dialect: Dialect) -> None:
    """A file that is no text is named as what it is; its bytes are not printed."""
    begin = stream.tell()
    first = stream.read(4096)
    stream.seek(begin)
    if dialect.compression != "none":
        return
    kind = next((said for magic, said in BINARY.items() if first.startswith(magic)), None)
    if kind is not None:
        raise UsageError("the file is no CSV", hint=f"it is {kind}")
    wide = first[:2] in (b"\xff\xfe", b"\xfe\xff") or "16" in dialect.encoding or "32" in dialect.encoding
    odd = re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", first)
    if odd is not None and not wide:
        raise UsageError(
            f"the file is no text: byte {odd.start() + 1} is 0x{odd.group()[0]:02x}, a control character",
            hint="give a CSV file; if this is UTF-16, say --encoding utf-16",
        )


def _header(stream: BinaryIO, dialect: Dialect) -> list[str]:
    _refuse_binary(stream, dialect)
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


def add_texts(found: ColumnProfile, series: pl.Series, seen: Seen) -> None:
    """Take in the next rows of a column; null: absent."""
    found.rows += len(series)
    texts = series.drop_nulls()
    found.absent += len(series) - len(texts)
    if not len(texts):
        return
    trimmed = texts.str.strip_chars()
    found.untrimmed += int((trimmed != texts).sum())
    blank = trimmed.str.len_bytes() == 0  # trimmed, nothing is left of them
    if blank.any():
        found.absent += int(blank.sum())
        texts, trimmed = texts.filter(~blank), trimmed.filter(~blank)
        if not len(texts):
            return
    found.example = found.example or str(texts[0])
    lengths = texts.str.len_chars()
    found.shortest = min(int(lengths.min() or 0), found.shortest if found.shortest is not None else 1 << 30)  # pyright: ignore[reportArgumentType]
    found.longest = max(int(lengths.max() or 0), found.longest)  # pyright: ignore[reportArgumentType]
    found.point_zero += int(texts.str.contains(r"^[0-9]+\.0$").sum())
    _add_forms(found, trimmed)
    found.numbers.add(trimmed)
    found.repeats += len(texts) - int(seen.first(fingerprints(texts.to_frame(found.name), [found.name])).sum())
    if not found.many:
        for row in trimmed.rename("value").value_counts(name="rows").iter_rows():
            found.values[row[0]] += row[1]
        found.many = len(found.values) > MAX_VALUES


def _add_forms(found: ColumnProfile, texts: pl.Series) -> None:
    for form in sorted(found.forms):
        regex = _TIMES[form].regex if form in _TIMES else FORMS[form]
        holds = bool(texts.str.contains(regex).all())
        if holds and form in _TIMES:
            holds = _add_times(found, texts, form)
        if not holds:
            found.forms.discard(form)


def _add_times(found: ColumnProfile, texts: pl.Series, form: str) -> bool:
    """Whether each text is a moment that exists; remembers the earliest and the latest."""
    read = texts.str.to_datetime if form in TIME_FORMS else texts.str.to_date
    values = read(_TIMES[form].strptime, strict=False)
    if values.null_count():
        return False
    ends = (values.min(), values.max())
    found.spans[form] = tuple(end(found.spans.get(form, ends)[i], ends[i]) for i, end in enumerate((min, max)))  # pyright: ignore[reportArgumentType, reportCallIssue]
    return True


IDENTIFIER = re.compile(
    r"(?:^|[_\s]|(?<=[a-z]))(?:id|ids|no|nr|number|code|zip|postcode|plz|ean|gtin|sku|iban|phone|tel|nummer|telefon)$",
    re.IGNORECASE,
)
