"""SQL that adds doubles as the oracle does: from left to right, and beyond the largest double lies infinity, no error.

What goes here: sum, avg, var and std of an array of doubles. What does not: which doubles (``online_query``), the
functions for arrays with very large ones (migration 0007).

PostgreSQL's arithmetic raises where IEEE 754 gives an infinity, or a 0 for a number too small; one user's doubles would
end the read of all who are asked with him. So arrays with a large double go to functions that look before each step,
and where a quotient or a square would be too small, 0 stands instead. unnest stands in a select list, which hands on
the items in their order, one by one; in FROM it would write them to a tuplestore first.
"""

from __future__ import annotations

# doubles below these cannot get beyond the largest, however many there are: an array has at most 1.3e8 (1 GB)
_ADDS = 1e300
_SQUARES = 1e145
_SQUARE_IS_0 = 1.5717277847026285e-162  # the largest double whose square is nearer to 0 than to the least double


def float_number(function: str, doubles: str) -> str:
    """The value of ``function`` (sum, avg, var, std) over ``doubles``, an array in order; null where it has none."""
    if function == "sum":
        return f"coalesce({_total(doubles)}, 0)"
    mean = (
        f"(select {_quotient('w.total', 'w.n')}"
        f" from (select {_total(doubles)} as total, cardinality({doubles}) as n offset 0) w)"
    )
    if function == "avg":
        return mean
    distance = "(u.x - w.mean)"
    square = f"sum(case when abs({distance}) <= {_double(_SQUARE_IS_0)} then 0 else {distance} * {distance} end)"
    usual = (
        f"(select case when count(*) > 1 then {_quotient(square, '(count(*) - 1)')} end"
        f" from (select unnest({doubles}) as x) u, (select {mean} as mean offset 0) w)"
    )
    variance = _unless_large(doubles, _SQUARES, "stream.float_variance", usual)
    return variance if function == "var" else f"sqrt({variance})"


def _total(doubles: str) -> str:
    """Beginning with 0.0, as the oracle: -0.0 becomes 0.0."""
    usual = f"(select sum(u.x) + 0 from (select unnest({doubles}) as x) u)"
    return _unless_large(doubles, _ADDS, "stream.float_sum", usual)


def _unless_large(doubles: str, limit: float, function: str, usual: str) -> str:
    """``any`` compares in one loop, which costs less than adding."""
    large = f"{_double(limit)} <= any({doubles}) or {_double(-limit)} >= any({doubles})"
    return f"case when {large} then {function}({doubles}) else {usual} end"


def _quotient(above: str, below: str) -> str:
    """``above`` / ``below``, an integer from 1 on: a multiple of the least double, which is 0 up to a half of it."""
    too_small = f"abs({above}) <= {below} / 2 * {_double(5e-324)}"
    return f"case when {too_small} then {above} * 0 else {above} / {below} end"


def _double(number: float) -> str:
    return f"'{number!r}'::double precision"
