"""Written forms: date patterns of the JDK, named string formats, ECMA regular expressions, as strict regexes.

What goes here: pure translations, each with the source of the form. What does not: parsing values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class DateFormat:
    """One declared form of a date or timestamp: the text must match ``regex``, then ``strptime`` reads it."""

    pattern: str  # as declared
    regex: str
    strptime: str
    has_time: bool
    has_offset: bool


# JDK DateTimeFormatter letters that ODCS refers to; two-digit years and locale forms are left out on purpose:
# they cannot be read without a guess.
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"  # there is no year 0
_PARTS: tuple[tuple[str, str, str], ...] = (
    ("yyyy", _YEAR, "%Y"),
    ("uuuu", _YEAR, "%Y"),
    ("MM", "(?:0[1-9]|1[0-2])", "%m"),
    ("dd", "(?:0[1-9]|[12][0-9]|3[01])", "%d"),
    ("HH", "(?:[01][0-9]|2[0-3])", "%H"),
    ("mm", "[0-5][0-9]", "%M"),
    ("ss", "[0-5][0-9]", "%S"),
    ("M", "(?:[1-9]|1[0-2])", "%m"),
    ("d", "(?:[1-9]|[12][0-9]|3[01])", "%d"),
    ("H", "(?:1?[0-9]|2[0-3])", "%H"),
    (".SSSSSS", r"\.[0-9]{6}", "%.6f"),
    (".SSS", r"\.[0-9]{3}", "%.3f"),
    ("[.SSSSSS]", r"(?:\.[0-9]{1,6})?", "%.f"),
    ("XXX", "(?:Z|[+-][0-9]{2}:[0-9]{2})", "%#z"),
    ("xxx", "[+-][0-9]{2}:[0-9]{2}", "%:z"),
    ("Z", "[+-][0-9]{4}", "%z"),
)
_TIME_LETTERS = re.compile(r"[HmsS]")


def date_format(pattern: str) -> DateFormat | None:
    """Translate a JDK pattern (``yyyy-MM-dd HH:mm:ss``, ``dd/MM/yyyy``); None when a part of it is not supported."""
    regex, strptime, rest = "", "", pattern
    parts = sorted(_PARTS, key=lambda part: -len(part[0]))
    while rest:
        if rest[0] == "'":
            literal, closed, rest = rest[1:].partition("'")
            if not closed:
                return None
            regex, strptime = regex + re.escape(literal or "'"), strptime + (literal or "'").replace("%", "%%")
            continue
        part = next((p for p in parts if rest.startswith(p[0])), None)
        if part is not None:
            regex, strptime, rest = regex + part[1], strptime + part[2], rest[len(part[0]) :]
        elif rest[0].isalpha() or rest[0] in "[]{}#%":
            return None
        else:
            regex, strptime, rest = regex + re.escape(rest[0]), strptime + rest[0], rest[1:]
    stripped = re.sub(r"'[^']*'", "", pattern)
    return DateFormat(
        pattern, f"^{regex}$", strptime, bool(_TIME_LETTERS.search(stripped)), bool(re.search(r"XXX|xxx|Z", stripped))
    )


DEFAULT_FORMATS = {
    "date": ("yyyy-MM-dd",),
    "timestamp": ("yyyy-MM-dd HH:mm:ss", "yyyy-MM-dd HH:mm:ss[.SSSSSS]", "yyyy-MM-dd'T'HH:mm:ss[.SSSSSS]"),
    "timestamp with offset": ("yyyy-MM-dd'T'HH:mm:ss[.SSSSSS]XXX", "yyyy-MM-dd HH:mm:ss[.SSSSSS]XXX"),
}

# Deliberately narrow forms; what a mail server or resolver might also take is not accepted.
STRING_FORMATS = {
    "email": r"^[A-Za-z0-9._%+\-]+@[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?)+$",
    "uuid": r"^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$",  # RFC 9562
    "uri": r"^[A-Za-z][A-Za-z0-9+.\-]*:[^\s]+$",  # RFC 3986: scheme ":" rest, no space
    "hostname": r"^[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?)*$",  # RFC 1123
    "ipv4": r"^(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])$",
}
INTEGER_RANGES = {f"i{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)}
INTEGER_RANGES |= {f"u{bits}": (0, 2**bits - 1) for bits in (8, 16, 32)}

_LOOKAROUND = re.compile(r"\(\?(?:[=!]|<[=!])|(?<!\\)(?:\\\\)*\\[1-9]|\\k<")
_ASCII = {
    "d": ("[0-9]", "0-9"),
    "w": ("[A-Za-z0-9_]", "A-Za-z0-9_"),
    "D": ("[^0-9]", None),
    "W": ("[^A-Za-z0-9_]", None),
}


def linear_regex(pattern: str) -> str | None:
    """An ECMA-262 pattern for a linear-time engine; None when it needs look-around or back references.

    ``\\d`` and ``\\w`` mean ASCII, as in ECMA; the match is a search, as in JSON Schema (anchor it yourself).
    """
    if len(pattern) > 2_000 or _LOOKAROUND.search(pattern):
        return None
    out, inside, i = "", False, 0
    while i < len(pattern):
        char, follower = pattern[i], pattern[i + 1 : i + 2]
        if char == "\\" and follower:
            out += _escape(follower, inside)
            i += 2
            continue
        if inside and char in "[&~":  # nested classes and set operations exist only in the target engine
            char = "\\" + char
        elif char in "[]":
            inside = char == "["
        out += char
        i += 1
    try:
        re.compile(out)
    except (re.error, OverflowError, RecursionError):
        return None
    return out


def _escape(letter: str, inside: bool) -> str:
    outside_form, inside_form = _ASCII.get(letter, (None, None))
    return (inside_form if inside else outside_form) or ("/" if letter == "/" else "\\" + letter)


def like_regex(pattern: str) -> str:
    """SQL LIKE as an anchored regex: ``%`` any text, ``_`` one character, ``\\`` escapes."""
    out, i = "", 0
    while i < len(pattern):
        if pattern[i] == "\\" and i + 1 < len(pattern):
            out, i = out + re.escape(pattern[i + 1]), i + 2
            continue
        out += {"%": ".*", "_": "."}.get(pattern[i], re.escape(pattern[i]))
        i += 1
    return f"(?s)^{out}$"
