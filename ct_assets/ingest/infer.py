"""A contract proposed from a file, each clause with its evidence.

What goes here: from a profile to ODCS YAML. What does not: gathering the evidence (``profile.py``).

The proposal is careful, not clever: what the file cannot prove (an enumeration, an upper bound) is written as a comment
for a person to decide; what is enforced is what tomorrow's file will very likely keep.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from ct_assets.contracts.formats import date_format
from ct_assets.contracts.model import Dialect, NumberFormat
from ct_assets.contracts.names import table_name
from ct_assets.ingest.printed import yaml_of
from ct_assets.ingest.profile import DATE_FORMS, IDENTIFIER, TIME_FORMS, ColumnProfile
from ct_assets.ingest.verdict import FileVerdict

FEW_VALUES, ENOUGH_ROWS = 12, 100
PERSONAL_NAMES = re.compile(
    r"name$|^name|surname|email|e-?mail|phone|mobile|address|street|birth|^dob$|customer|client|patient|employee|user|passport|iban|ssn|tax|geburt|stra(?:ß|ss)e|anschrift|kunde|telefon|handy|steuer",
    re.IGNORECASE,
)
NOT_PERSONAL = re.compile(
    r"product|item|file|country|store|shop|company|brand|category|event|table|column|agent", re.IGNORECASE
)


@dataclass
class Proposal:
    """One column's proposal: YAML keys in order, and what speaks for them."""

    name: str
    keys: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    custom: dict[str, str] = field(default_factory=dict)
    evidence: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)


def propose(found: ColumnProfile) -> Proposal:
    """The proposal for one column."""
    column = Proposal(found.name)
    if not found.present:
        column.keys["logicalType"] = "string"
        column.evidence.append(f"empty in all {found.rows:,} rows: nothing is known of its type")
        return column
    _type(found, column)
    if found.reading.question and not _is_identifier(found):
        column.questions.append(found.reading.question)
    if "short year" in found.forms:
        column.questions.append(
            "looks like dates with a two-digit year, which cannot be read without a guess: kept as text"
        )
    _presence(found, column)
    _bounds(found, column)
    mark_personal(found, column)
    return column


def _type(found: ColumnProfile, column: Proposal) -> None:
    if found.untrimmed:
        column.custom["transforms"] = "[trim]"
        column.evidence.append(f"{found.untrimmed:,} values begin or end with white space: trimmed")
    times = [form for form in (*DATE_FORMS, *TIME_FORMS) if form in found.forms]
    if times:
        _time(times, found, column)
    elif "boolean" in found.forms:
        column.keys["logicalType"] = "boolean"
        column.evidence.append("every value is true or false")
    elif _fits_a_number(found) and not _is_identifier(found):
        _number(found, column)
    else:
        _text(found, column)


MAX_DIGITS = 38


def _fits_a_number(found: ColumnProfile) -> bool:
    printed = found.reading.printed
    return found.is_number and printed.whole_digits + max(printed.decimals, 2) <= MAX_DIGITS


def _is_identifier(found: ColumnProfile) -> bool:
    return bool(IDENTIFIER.search(found.name)) or (
        found.point_zero == found.present and bool(re.search(r"id$", found.name, re.IGNORECASE))
    )


def _time(forms: Sequence[str], found: ColumnProfile, column: Proposal) -> None:
    form = forms[0]
    column.keys["logicalType"] = "date" if form in DATE_FORMS else "timestamp"
    column.options["format"] = quote(form)
    column.evidence.append(
        f"all {found.present:,} values have the form {form}, from {' to '.join(str(end) for end in found.spans[form])}"
    )
    others = [other for other in forms[1:] if _laxest(other) != _laxest(form)]
    if others:
        column.questions.append(f"these values also fit {', '.join(others)}: the file cannot tell, you can")
    if column.keys["logicalType"] == "timestamp" and "XXX" not in form:
        column.questions.append(
            "local times of which zone? add timezone: true and defaultTimezone: Europe/London to store UTC"
        )


def _laxest(form: str) -> str:
    """dd.MM.yyyy and d.M.yyyy say the same of a text that fits both."""
    return form.replace("[.SSSSSS]", "").replace("dd", "d").replace("MM", "M").replace("HH", "H")


def _number(found: ColumnProfile, column: Proposal) -> None:
    printed = found.reading.printed
    _number_form(found, column)
    if not printed.marked and printed.whole_digits <= 18:
        column.keys["logicalType"] = "integer"
        column.evidence.append(f"all {found.present:,} values are whole numbers")
        return
    scale = max(printed.decimals, 2)
    precision = max(18, printed.whole_digits + scale)
    column.keys["logicalType"] = "number"
    column.keys["physicalType"] = quote(f"decimal({precision},{scale})")
    column.evidence.append(
        f"all {found.present:,} values are decimal numbers with at most {printed.decimals} decimals; kept exact"
    )


def _number_form(found: ColumnProfile, column: Proposal) -> None:
    form, printed = found.reading.form, found.reading.printed
    assert form is not None
    if form != NumberFormat():
        column.custom["numberFormat"] = yaml_of(form)
        marks = [f"{printed.marked:,} values with the decimal mark {form.decimal!r}"] if printed.marked else []
        marks += [f"{printed.grouped:,} values with the thousands mark {form.group!r}"] if form.group else []
        marks += [f"in {form.currency}"] if form.currency else []
        column.evidence.append(f"printed {', '.join(marks)}")
    if found.reading.evidence:
        column.evidence.append(found.reading.evidence)


def _text(found: ColumnProfile, column: Proposal) -> None:
    column.keys["logicalType"] = "string"
    if found.point_zero == found.present and _is_identifier(found):
        column.custom["transforms"] = "[trim, stripTrailingPointZero]"
        column.evidence.append("an identifier printed as a decimal number (17850.0): kept as text without the .0")
    elif found.is_number and _is_identifier(found):
        column.evidence.append("digits, but the name says identifier: kept as text (leading zeros stay)")
    form = next((f for f in ("uuid", "email", "ipv4") if f in found.forms), None)
    if form:
        column.options["format"] = form
        column.evidence.append(f"all {found.present:,} values are of the form {form}")
    column.evidence.append(f"text of {found.shortest} to {found.longest} characters")


def _presence(found: ColumnProfile, column: Proposal) -> None:
    if not found.absent:
        column.keys["required"] = "true"
        column.evidence.append(f"present in all {found.rows:,} rows")
    else:
        column.evidence.append(f"absent in {found.absent:,} of {found.rows:,} rows ({found.absent / found.rows:.1%})")
    if not found.repeats and found.present >= ENOUGH_ROWS and IDENTIFIER.search(found.name):
        column.questions.append(f"no value repeats in {found.present:,} rows; add unique: true if none may")
    if (
        not found.many
        and len(found.values) <= FEW_VALUES
        and found.present >= ENOUGH_ROWS
        and column.keys["logicalType"] == "string"
    ):
        values = ", ".join(quote(v) for v in sorted(found.values))
        column.questions.append(
            f"only {len(found.values)} unlike values; add enum: [{values}] if there can be no others"
        )


def _bounds(found: ColumnProfile, column: Proposal) -> None:
    if not found.is_number or column.keys["logicalType"] not in ("integer", "number"):
        return
    printed = found.reading.printed
    column.evidence.append(f"from {printed.low:g} to {printed.high:g}")
    if printed.low >= 0:
        column.options["minimum"] = "0"
        column.evidence.append("never negative")


def mark_personal(found: ColumnProfile, column: Proposal) -> None:
    """Classify the column as personal data when its values or its name look like it."""
    form = next(
        (
            f
            for f in ("email", "phone")
            if f in found.forms and (f != "phone" or column.keys["logicalType"] == "string")
        ),
        None,
    )
    named = PERSONAL_NAMES.search(found.name) and not NOT_PERSONAL.search(found.name)
    if form == "phone" and not re.search(r"phone|tel|mobile|fax", found.name, re.IGNORECASE):
        form = None
    if form or named:
        # the contract goes to git: no value of a person in it
        column.questions = [q for q in column.questions if "enum: [" not in q]
        column.evidence = [re.sub(r", from .* to .*", "", e) for e in column.evidence]
        column.keys["classification"] = "personal data"
        column.custom["personalData"] = "true"
        column.evidence.append(
            "likely personal data: "
            + (
                f"every value looks like {'an email address' if form == 'email' else 'a phone number'}"
                if form
                else "by its name"
            )
        )


def quote(text: str) -> str:
    """A YAML double-quoted scalar; what YAML forbids or folds (control characters, U+2028) is escaped."""
    said = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in said)


def dataset_name(file: str) -> str:
    """How a dataset may be called whose file has this name: without a day at its beginning."""
    stem = re.sub(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[-_ ]*", "", PurePath(file).name.split(".")[0])
    return table_name(stem) or "my_dataset"


def contract_text(found: Sequence[ColumnProfile], verdict: FileVerdict, dialect: Dialect) -> str:
    """The proposed contract as YAML."""
    name = dataset_name(verdict.file)
    head = [
        f"# Proposed from {comment(PurePath(verdict.file).name)}: {verdict.read:,} rows read, {verdict.quarantined:,} of them broken and not counted.",
        "# Comments say what speaks for each clause; questions marked with ? are yours to answer.",
        "apiVersion: v3.1.0",
        "kind: DataContract",
        f"id: {quote(name)}",
        f"name: {quote(name)}",
        "version: 0.1.0",
        "status: proposed",
        "schema:",
        f"  - name: {quote(name)}",
        f"    physicalName: {quote(name)}",
        "    physicalType: table",
        "    customProperties:",
        "      - {property: maxBadFraction, value: 0.05}  # ? more bad rows than this reject the file",
    ]
    if re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", PurePath(verdict.file).name):
        head.append(f"      - {{property: exampleFile, value: {quote(PurePath(verdict.file).name[:10] + '.csv')}}}")
        head.append(
            "      # ? the file's name begins with a day; if each file is one day: - {property: deliveryDay, value: fileName}"
        )
    changed = [
        f"{key}: {quote(getattr(dialect, key))}"
        for key in ("delimiter", "quote", "encoding")
        if getattr(dialect, key) != getattr(Dialect(), key)
    ]
    if dialect.compression != "none":
        changed.append(f"compression: {dialect.compression}")
    if changed:
        head.append(f"      - {{property: dialect, value: {{{', '.join(changed)}}}}}")
    head.append("    properties:")
    taken = {column.name for column in found}  # physical names, which become columns of a table, must differ too
    for column in found:
        head += column_lines(column, propose(column), taken)
    head += ["    quality:", "      - {name: at_least_one_row, metric: rowCount, mustBeGreaterThan: 0}", ""]
    return "\n".join(head)


def column_lines(found: ColumnProfile, column: Proposal, taken: set[str]) -> list[str]:
    """The lines of one property; ``taken``: physical names that others have."""
    lines = [f"      - name: {quote(column.name)}"]
    plain = table_name(column.name)
    if plain and plain != column.name and plain not in taken:
        taken.add(plain)
        lines.append(f"        physicalName: {quote(plain)}")
    lines += [f"        # {comment(text)}" for text in column.evidence]
    lines += [f"        # ? {comment(text)}" for text in column.questions]
    lines += [f"        {key}: {value}" for key, value in column.keys.items()]
    if column.options:
        lines.append(f"        logicalTypeOptions: {{{', '.join(f'{k}: {v}' for k, v in column.options.items())}}}")
    if found.example and "personalData" not in column.custom:
        lines.append(f"        examples: [{quote(found.example[:200])}]")
    elif found.example:
        lines.append(f"        examples: [{quote(_made_up(found, column))}]  # made up: no value of a person here")
    if column.custom:
        lines.append("        customProperties:")
        lines += [f"          - {{property: {key}, value: {value}}}" for key, value in column.custom.items()]
    return lines


_MADE_UP = {
    "integer": "1",
    "number": "1",
    "boolean": "true",
    "email": "name@example.org",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",  # RFC 5737: for documentation
}


def _made_up(found: ColumnProfile, column: Proposal) -> str:
    """An example that keeps the proposed clauses and is nobody's."""
    if column.keys["logicalType"] in ("date", "timestamp"):
        form = date_format(json.loads(column.options["format"]))
        assert form is not None
        return dt.datetime(2001, 12, 31, tzinfo=dt.UTC).strftime(
            form.strptime.replace("%.6f", ".%f")
            .replace("%.3f", ".000")
            .replace("%.f", "")
            .replace("%#z", "Z")
            .replace("%:z", "+00:00")
        )
    return _MADE_UP.get(column.options.get("format", ""), "") or _MADE_UP.get(column.keys["logicalType"], "example")


def comment(text: str) -> str:
    """One line: what a file holds must not end the comment."""
    return "".join(c if c.isprintable() else " " for c in text)
