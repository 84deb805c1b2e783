"""How values are taken from a definition file: with their line, and an error that says what to write instead.

What goes here: the walk that definitions and aggregates share. What does not: what the keys mean.
"""

from __future__ import annotations

import re

from ct_assets.contracts.errors import ContractError
from ct_assets.contracts.model import Column, DatasetSchema
from ct_assets.contracts.reading import Reader, with_article
from ct_assets.contracts.safe_yaml import Block
from ct_assets.errors import did_you_mean

DURATION = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_SHOWN = ("d", "h", "m", "s", "ms", "us")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_DURATION = re.compile(r"\s*(\d{1,12})\s*(us|ms|s|m|h|d|w)\s*")


def duration_text(us: int) -> str:
    """Microseconds as a definition would say them: ``90m``."""
    unit = next(u for u in _SHOWN if us % DURATION[u] == 0) if us else "s"
    return f"{us // DURATION[unit]}{unit}"


class DefinitionError(ContractError):
    """A definition file is wrong: what was asked of the command cannot be meant (exit code 2)."""

    exit_code = 2


class Walk(Reader):
    """Reads parts of one definition file."""

    def at(self, line: int, message: str, hint: str | None = None) -> DefinitionError:
        """An error at a line, to raise."""
        return DefinitionError(self.path, line, message, hint)

    def known(self, block: Block, known: tuple[str, ...], what: str) -> None:
        """Refuse a key that is none of these."""
        for key in block:
            if key not in known:
                raise self.error(
                    block,
                    key,
                    f"{with_article(what)} has no key {key!r}",
                    did_you_mean(key, known) or f"one of: {', '.join(known)}",
                )

    def text(self, block: Block, key: str, what: str, example: str) -> str:
        """A text that is there."""
        value = block.get(key)
        if not isinstance(value, str) or not value:
            raise self.error(block, key, f"{what} needs `{key}`", f"for example `{key}: {example}`")
        return value

    def name(self, block: Block, what: str, example: str) -> str:
        """A name that can be a column in SQL."""
        value = self.text(block, "name", what, example)
        if not _NAME.fullmatch(value):
            hint = "a lower-case letter, then at most 47 lower-case letters, digits or _ (it becomes a column in SQL)"
            raise self.error(block, "name", f"{value!r} is no name for {what}", hint)
        return value

    def duration(self, block: Block, key: str, default: int | None = None, least: int = 0) -> int:
        """Microseconds; ``default`` when absent (None: required)."""
        value = block.get(key)
        if value is None and default is not None:
            return default
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            found = "is missing" if value is None else f"is {value!r}"
            raise self.error(
                block,
                key,
                f"{key} {found}",
                f"write a number and a unit, for example `{key}: 10s`; units: {', '.join(DURATION)}",
            )
        found = int(match.group(1)) * DURATION[match.group(2)]
        if not least <= found <= 3_650 * DURATION["d"]:
            raise self.error(block, key, f"{key} is {value}", "between " + ("1us" if least else "0s") + " and 3650d")
        return found

    def column(self, block: Block, key: str, schema: DatasetSchema) -> Column:
        """A column of the contract that a key names."""
        name = self.text(block, key, "a definition", "user_id")
        names = [c.name for c in schema.columns]
        if name not in names:
            hint = did_you_mean(name, names) or f"columns: {', '.join(names)}"
            raise self.error(block, key, f"{key} is {name!r}, which the contract {schema.name!r} has not", hint)
        return schema.column(name)
