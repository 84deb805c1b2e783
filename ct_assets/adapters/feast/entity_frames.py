"""The entity rows of a historical read, as pandas has them, as labels of a live view: every row with a moment and a key.

What goes here: nulls and types of the two columns that a value depends on. What does not: the values (``training_frames``),
Feast's interface (``offline_store``). Pandas tells neither nulls from numbers nor integers from doubles reliably: an
integer column with one null is float64, so whole numbers in float64 are taken as integers, and NaN, NaT and NA as null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from ct_assets.adapters.stream.training_frames import without_moment
from ct_assets.errors import UsageError
from ct_assets.streaming.definition import WHOLE_64

if TYPE_CHECKING:
    import polars as pl

    from ct_assets.streaming.definition import Definition

_EXACT = 2**53  # a double from here on may stand for several integers: 2**53 + 1 becomes 2**53
_FOUND = {  # what pandas finds in a column, nulls aside, that can be a key of the contract's type
    "integer": ("integer", "floating", "mixed-integer-float", "empty"),
    "string": ("string", "empty"),
}


def moments(frame: pd.DataFrame, column: str) -> pl.Series:
    """The moments as integer microseconds UTC; times without a zone are UTC. Raises UsageError where one is missing."""
    import polars as pl

    at = frame[column]
    if not isinstance(at.dtype, pd.DatetimeTZDtype):
        at = pd.to_datetime(at, utc=True)
    missing = at.isna().to_numpy()
    if missing.any():
        raise without_moment(column, missing, f"leave those rows out: frame.dropna(subset=[{column!r}])")
    return pl.Series("at", at.astype("datetime64[us, UTC]").astype("int64").to_numpy())


def entities(frame: pd.DataFrame, key: str, definition: Definition) -> pl.Series:
    """The keys in the type of the definition's entity; a null stays one, and is an entity without events.

    Raises UsageError for a column that is not there or holds another type.
    """
    import polars as pl

    if key not in frame.columns:
        raise UsageError(
            f"the entity rows have no column {key!r}, the key of {definition.name}",
            hint=f"columns: {', '.join(map(str, frame.columns))}",
        )
    given, kind = frame[key], definition.schema.column(definition.entity).type
    if given.dtype == "int64" and kind == "integer":
        return pl.Series(definition.entity, given.to_numpy())
    values = given.astype(object)
    found = pd.api.types.infer_dtype(values, skipna=True)
    if found not in _FOUND[kind]:
        raise _wrong(key, f"{found} values ({given.dtype})", definition.name, kind)
    listed: list[Any] = values.where(given.notna(), None).tolist()
    if kind == "string":
        return pl.Series(definition.entity, listed, pl.String)
    try:
        return pl.Series(definition.entity, [None if v is None else _whole(v) for v in listed], pl.Int64)
    except ValueError as wrong:
        raise _wrong(key, str(wrong), definition.name, kind) from None


def _whole(value: Any) -> int:
    if isinstance(value, float) and not (value.is_integer() and abs(value) < _EXACT):
        raise ValueError(f"{value!r}, which may be no exact integer")
    if int(value) not in WHOLE_64:
        raise ValueError(f"{value!r}, which does not fit 64 bits")
    return int(value)


def _wrong(key: str, found: str, view: str, kind: str) -> UsageError:
    become = "Int64" if kind == "integer" else "string"
    return UsageError(
        f"the column {key!r} of the entity rows holds {found}; the key of {view} is of type {kind}",
        hint=f"convert it: frame[{key!r}].astype({become!r})",
    )
