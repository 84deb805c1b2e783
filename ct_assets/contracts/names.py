"""Which names of a contract can be those of a table, its columns and its assets, and what to write instead.

What goes here: the form of names, checked where a dataset is to be published. What does not: names that only a file has
(``ct verdict`` judges a contract of any names).
"""

from __future__ import annotations

import re
import unicodedata

from ct_assets.contracts.errors import ContractError
from ct_assets.contracts.model import Contract, DatasetSchema
from ct_assets.contracts.safe_yaml import Block

TABLE = re.compile(r"[a-z][a-z0-9_]{0,47}")
MAX_BYTES = 63  # of a PostgreSQL identifier; a longer one would be cut in silence
ADDED = ("_line", "_day", "_revision", "_revision_id")  # columns of every published table
_GERMAN = str.maketrans(
    {"\u00e4": "ae", "\u00f6": "oe", "\u00fc": "ue", "\u00df": "ss", "\u00c4": "Ae", "\u00d6": "Oe", "\u00dc": "Ue"}
)


def table_name(text: str) -> str:
    """``text`` as a table or column may be called (``Ums\u00e4tze 2024`` -> ``umsaetze_2024``); "" when nothing of it can stay."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFC", text).translate(_GERMAN))
    plain = plain.encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain)).strip("_").lower()
    return (f"t_{plain}" if plain[:1].isdigit() else plain)[:48].rstrip("_")


def check_publishable(contract: Contract, schema: DatasetSchema) -> None:
    """Whether the dataset can become a table, assets and columns. Raises ContractError at the line of the name."""
    block = _block(contract, schema.name)
    key = "physicalName" if block is not None and block.get("physicalName") else "name"
    line = block.line_of(key) if block is not None else schema.line
    name = schema.physical_name or schema.name
    if not TABLE.fullmatch(name):
        raise ContractError(
            contract.path,
            line,
            f"{key} {name!r} cannot name a table and its assets: lower-case letters, digits and _, a letter first, at most 48",
            f"for instance physicalName: {table_name(name) or 'my_dataset'}",
        )
    seen: dict[str, str] = {}
    for column in schema.columns:
        _check_column(contract, column.physical_name or column.name, column.name, column.line, seen)


def _check_column(contract: Contract, physical: str, name: str, line: int, seen: dict[str, str]) -> None:
    proposal = f"for instance physicalName: {table_name(name) or 'my_column'}"
    if physical in ADDED:
        raise ContractError(contract.path, line, f"every published table has a column {physical!r} already", proposal)
    if physical in seen:
        raise ContractError(
            contract.path,
            line,
            f"columns {seen[physical]!r} and {name!r} would both be {physical!r} in the table",
            "give one another physicalName",
        )
    if len(physical.encode()) > MAX_BYTES or not physical.isprintable() or "\x00" in physical:
        raise ContractError(
            contract.path,
            line,
            f"{physical[:80]!r} cannot name a column: printable, at most {MAX_BYTES} bytes",
            proposal,
        )
    seen[physical] = name


def _block(contract: Contract, name: str) -> Block | None:
    blocks = contract.raw.get("schema") or ()
    return next((b for b in blocks if isinstance(b, Block) and str(b.get("name")) == name), None)
