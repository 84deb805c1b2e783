"""A contract proposed from a file, each clause with its evidence.

What goes here: from a profile to ODCS YAML. What does not: gathering the evidence (``profile.py``).

The proposal is careful, not clever: what the file cannot prove (an enumeration, an upper bound) is written as a comment
for a person to decide; what is enforced is what tomorrow's file will very likely keep.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from ct_assets.contracts.model import Dialect
from ct_assets.ingest.profile import DATE_FORMS, IDENTIFIER, TIME_FORMS, ColumnProfile
from ct_assets.ingest.verdict import FileVerdict

FEW_VALUES, ENOUGH_ROWS = 12, 100
PERSONAL_NAMES = re.compile(
    r"name$|^name|surname|email|e-?mail|phone|mobile|address|street|birth|^dob$|customer|client|patient|employee|user|passport|iban|ssn|tax",
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
    _presence(found, column)
    _bounds(found, column)
    if _personal(found, column):  # the contract goes to git: no value of a person in it
        column.questions = [q for q in column.questions if "enum: [" not in q]
        column.evidence = [re.sub(r", from .* to .*", "", e) for e in column.evidence]
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
    elif "number" in found.forms and not _is_identifier(found):
        _number(found, column)
    else:
        _text(found, column)


def _is_identifier(found: ColumnProfile) -> bool:
    return bool(IDENTIFIER.search(found.name)) or (
        found.point_zero == found.present and bool(re.search(r"id$", found.name, re.IGNORECASE))
    )


def _time(forms: Sequence[str], found: ColumnProfile, column: Proposal) -> None:
    form = forms[0]
    column.keys["logicalType"] = "date" if form in DATE_FORMS else "timestamp"
    column.options["format"] = _quote(form)
    column.evidence.append(
        f"all {found.present:,} values have the form {form}, from {found.first_text} to {found.last_text}"
    )
    others = [other for other in forms[1:] if other.replace("[.SSSSSS]", "") != form]
    if others:
        column.questions.append(f"these values also fit {', '.join(others)}: the file cannot tell, you can")
    if column.keys["logicalType"] == "timestamp" and "XXX" not in form:
        column.questions.append(
            "local times of which zone? add timezone: true and defaultTimezone: Europe/London to store UTC"
        )


def _number(found: ColumnProfile, column: Proposal) -> None:
    if "integer" in found.forms:
        column.keys["logicalType"] = "integer"
        column.evidence.append(f"all {found.present:,} values are whole numbers")
        return
    scale = max(found.decimals, 2)
    precision = min(max(18, found.whole_digits + scale), 38)
    column.keys["logicalType"] = "number"
    if scale < precision:
        column.keys["physicalType"] = _quote(f"decimal({precision},{scale})")
    column.evidence.append(
        f"all {found.present:,} values are decimal numbers with at most {found.decimals} decimals; kept exact"
    )


def _text(found: ColumnProfile, column: Proposal) -> None:
    column.keys["logicalType"] = "string"
    if found.point_zero == found.present and _is_identifier(found):
        column.custom["transforms"] = "[trim, stripTrailingPointZero]"
        column.evidence.append("an identifier printed as a decimal number (17850.0): kept as text without the .0")
    elif "number" in found.forms:
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
        values = ", ".join(_quote(v) for v in sorted(found.values))
        column.questions.append(
            f"only {len(found.values)} unlike values; add enum: [{values}] if there can be no others"
        )


def _bounds(found: ColumnProfile, column: Proposal) -> None:
    if found.low is None or "number" not in found.forms or column.keys["logicalType"] not in ("integer", "number"):
        return
    column.evidence.append(f"from {found.low:g} to {found.high:g}")
    if found.low >= 0:
        column.options["minimum"] = "0"
        column.evidence.append("never negative")


def _personal(found: ColumnProfile, column: Proposal) -> bool:
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
    likely = bool(form or named)
    if likely:
        column.keys["classification"] = "personal data"
        column.custom["personalData"] = "true"
        column.evidence.append(
            "likely personal data: " + (f"every value looks like a {form} address or number" if form else "by its name")
        )
    return likely


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def contract_text(found: Sequence[ColumnProfile], verdict: FileVerdict, dialect: Dialect) -> str:
    """The proposed contract as YAML."""
    stem = re.sub(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[-_]?", "", PurePath(verdict.file).name.split(".")[0]) or "my_dataset"
    name = re.sub(r"\W+", "_", stem).strip("_").lower() or "my_dataset"
    head = [
        f"# Proposed from {_comment(PurePath(verdict.file).name)}: {verdict.read:,} rows read, {verdict.quarantined:,} of them broken and not counted.",
        "# Comments say what speaks for each clause; questions marked with ? are yours to answer.",
        "apiVersion: v3.1.0",
        "kind: DataContract",
        f"id: {_quote(name)}",
        f"name: {_quote(name)}",
        "version: 0.1.0",
        "status: proposed",
        "schema:",
        f"  - name: {_quote(name)}",
        f"    physicalName: {_quote(name)}",
        "    physicalType: table",
        "    customProperties:",
        "      - {property: maxBadFraction, value: 0.05}  # ? more bad rows than this reject the file",
    ]
    if re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", PurePath(verdict.file).name):
        head.append(
            "      # ? the file's name begins with a day; if each file is one day: - {property: deliveryDay, value: fileName}"
        )
    changed = [
        f"{key}: {_quote(getattr(dialect, key))}"
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
        head += _column_lines(column, taken)
    head += ["    quality:", "      - {name: at_least_one_row, metric: rowCount, mustBeGreaterThan: 0}", ""]
    return "\n".join(head)


def _column_lines(found: ColumnProfile, taken: set[str]) -> list[str]:
    column = propose(found)
    lines = [f"      - name: {_quote(column.name)}"]
    plain = re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.name)).strip("_").lower()
    if plain and plain != column.name and plain not in taken:
        taken.add(plain)
        lines.append(f"        physicalName: {_quote(plain)}")
    lines += [f"        # {_comment(text)}" for text in column.evidence]
    lines += [f"        # ? {_comment(text)}" for text in column.questions]
    lines += [f"        {key}: {value}" for key, value in column.keys.items()]
    if column.options:
        lines.append(f"        logicalTypeOptions: {{{', '.join(f'{k}: {v}' for k, v in column.options.items())}}}")
    if found.example and "personalData" not in column.custom:
        lines.append(f"        examples: [{_quote(found.example[:200])}]")
    if column.custom:
        lines.append("        customProperties:")
        lines += [f"          - {{property: {key}, value: {value}}}" for key, value in column.custom.items()]
    return lines


def _comment(text: str) -> str:
    """One line: what a file holds must not end the comment."""
    return "".join(c if c.isprintable() else " " for c in text)
