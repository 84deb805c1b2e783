"""How a column prints its numbers: decimal mark, thousands mark, currency. Which readings fit, and which the file proves.

What goes here: the candidate forms and the choice between them. What does not: reading values (``casts.py``), the other
evidence (``profile.py``).

``1.234`` is 1234 in Berlin and 1.234 in London. A column whose values leave it open is decided by the file's other
columns when they all print one decimal mark; otherwise it is a question to the user, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from ct_assets.contracts.model import NumberFormat

INTEGER = r"^-?(?:0|[1-9][0-9]{0,17})$"
MARKS = ((".", ""), (",", ""), (",", "."), (".", ","), (",", " "), (".", "'"), (",", "\xa0"), (",", "\u202f"))
CURRENCIES = ("€", "EUR", "$", "USD", "£", "GBP", "CHF")


@dataclass
class Printed:
    """What the values are under one form. ``marked``/``grouped``: how many hold a decimal mark, a thousands mark."""

    low: float = float("inf")
    high: float = float("-inf")
    whole_digits: int = 0
    decimals: int = 0
    marked: int = 0
    grouped: int = 0

    def add(self, texts: pl.Series, form: NumberFormat) -> None:
        """Take in texts that all fit ``form``."""
        plain = texts.str.replace_all(form.currency, "", literal=True).str.strip_chars(" ") if form.currency else texts
        if form.group:
            self.grouped += int(plain.str.contains(form.group, literal=True).sum())
            plain = plain.str.replace_all(form.group, "", literal=True)
        self.marked += int(plain.str.contains(form.decimal, literal=True).sum())
        parts = plain.str.strip_prefix("-").str.split_exact(form.decimal, 1).struct.unnest()
        self.whole_digits = max(self.whole_digits, int(parts["field_0"].str.len_bytes().max() or 0))  # pyright: ignore[reportArgumentType]
        self.decimals = max(self.decimals, int(parts["field_1"].str.len_bytes().max() or 0))  # pyright: ignore[reportArgumentType]
        values = plain.str.replace(form.decimal, ".", literal=True).cast(pl.Float64, strict=False)
        low, high = values.min(), values.max()
        if isinstance(low, float) and isinstance(high, float):
            self.low, self.high = min(self.low, low), max(self.high, high)


@dataclass
class NumberForms:
    """The forms that every value so far fits, each with what the values are under it."""

    live: dict[NumberFormat, Printed] | None = None

    def add(self, texts: pl.Series) -> None:
        """Take in trimmed texts, none of them null."""
        if self.live is None:
            currency = _currency(str(texts[0]))
            self.live = {NumberFormat(mark, group, currency): Printed() for mark, group in MARKS}
        if not self.live:
            return
        whole = bool(texts.str.contains(INTEGER).all())  # whole numbers are the same in every form
        for form, printed in list(self.live.items()):
            if whole or texts.str.contains(pattern(form)).all():
                printed.add(texts, form)
            else:
                del self.live[form]

    def readings(self) -> dict[NumberFormat, Printed]:
        """The forms without those that declare a mark of which no value makes use."""
        return {
            form: printed
            for form, printed in (self.live or {}).items()
            if (not form.group or printed.grouped) and (form.decimal == "." or printed.marked or printed.grouped)
        }


@dataclass(frozen=True)
class Reading:
    """The form chosen for a column, or None with the question to ask."""

    form: NumberFormat | None = None
    printed: Printed = field(default_factory=Printed)
    evidence: str = ""
    question: str = ""


def choose(columns: Mapping[str, NumberForms]) -> dict[str, Reading]:
    """The reading of each column of one file."""
    found = {name: forms.readings() for name, forms in columns.items()}
    sure = {name: next(iter(fits.items())) for name, fits in found.items() if len(fits) == 1}
    proof = {form.decimal: name for name, (form, printed) in sure.items() if printed.marked or printed.grouped}
    return {name: _choose(fits, proof) for name, fits in found.items()}


def _choose(fits: Mapping[NumberFormat, Printed], proof: Mapping[str, str]) -> Reading:
    if not fits:
        return Reading()
    if len(fits) == 1:
        form, printed = next(iter(fits.items()))
        return Reading(form, printed)
    by_proof = [form for form in fits if len(proof) == 1 and form.decimal in proof]
    if len(by_proof) == 1:
        form = by_proof[0]
        mark, other = form.decimal, proof[form.decimal]
        return Reading(form, fits[form], f"read with the decimal mark {mark!r}, as column {other!r} proves it")
    forms = " or ".join(f"numberFormat {yaml_of(form)}" for form in fits)
    question = f"the file cannot tell thousands from decimals here: {forms}?"
    plain = next((form for form in fits if form.decimal == "." and not form.group), None)
    return Reading(plain, fits[plain] if plain else Printed(), question=question)


def pattern(form: NumberFormat) -> str:
    """The regular expression of a form, as strict as the cast that reads it: no leading zeros, no ``+``, no exponent."""
    whole = "(?:0|[1-9][0-9]*)"
    if form.group:
        whole = f"(?:0|[1-9][0-9]*|[1-9][0-9]{{0,2}}(?:{re.escape(form.group)}[0-9]{{3}})+)"
    core = f"-?{whole}(?:{re.escape(form.decimal)}[0-9]+)?"
    sign = re.escape(form.currency)
    return f"^(?:{sign} *)?{core}(?: *{sign})?$" if sign else f"^{core}$"


def yaml_of(form: NumberFormat) -> str:
    """The form as the customProperty ``numberFormat`` has it."""
    keys = {"decimal": form.decimal, "group": form.group, "currency": form.currency}
    said = ", ".join(f"{k}: {_quoted(v)}" for k, v in keys.items() if v)
    return f"{{{said}}}"


def _quoted(text: str) -> str:
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text) + '"'


def _currency(text: str) -> str:
    return next((sign for sign in CURRENCIES if text.startswith(sign) or text.endswith(sign)), "")
