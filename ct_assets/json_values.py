"""Values as JSON has them: numbers that it has no way to write are texts.

What goes here: the one rule for answers in JSON. What does not: how values are kept (``adapters.stream.consistency``).

JSON (RFC 8259) has no infinity, which a sum of doubles can be, and Python's ``json`` writes a word that other readers
refuse. Null would say that there is nothing. So they are the texts that Protocol Buffers and `feast serve` use.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(value: Any) -> str:
    """The value as one line of JSON: numbers that are not finite as :func:`finite` writes them, other types as text."""
    try:
        return json.dumps(value, default=str, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(finite(value), default=str, ensure_ascii=False, allow_nan=False)


def finite(value: Any) -> Any:
    """The value with "Infinity", "-Infinity" and "NaN" in the place of such numbers, at any depth."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
