"""Values as JSON has them: numbers that it has no way to write are texts.

What goes here: the one rule for answers in JSON, and how an error shows a value. What does not: how values are kept (``adapters.stream.consistency``).

JSON (RFC 8259) has no infinity, which a sum of doubles can be, and Python's ``json`` writes a word that other readers
refuse. Null would say that there is nothing. So they are the texts that Protocol Buffers and `feast serve` use.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from itertools import islice
from typing import Any

_LEVELS, _ITEMS, _CHARACTERS = 3, 20, 200


def json_text(value: Any) -> str:
    """The value as one line of JSON: numbers that are not finite as :func:`finite` writes them, other types as text."""
    try:
        return json.dumps(value, default=_text, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(finite(value), default=_text, ensure_ascii=False, allow_nan=False)


def _text(value: Any) -> str:
    """A decimal is written without an exponent."""
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def finite(value: Any) -> Any:
    """The value with "Infinity", "-Infinity" and "NaN" in the place of such numbers, at any depth."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def shown(value: Any, most: int = 60) -> str:
    """A value of an event as JSON writes it, for an error: decimals as they were, at most ``most`` characters.

    Of what is nested only the outer levels and first items are looked at: a message may hold any number of both.
    """
    return _shown(value, _LEVELS)[:most]


def _shown(value: Any, levels: int) -> str:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, str):
        value = value[:_CHARACTERS]
    if not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    begin, end = "{}" if isinstance(value, dict) else "[]"
    if not levels:
        return f"{begin}...{end}"
    if isinstance(value, list):
        items = [_shown(item, levels - 1) for item in value[:_ITEMS]]
    else:
        items = [f"{json.dumps(key)}: {_shown(item, levels - 1)}" for key, item in islice(value.items(), _ITEMS)]
    return begin + ", ".join(items) + end
