"""Deliveries gone wrong, made from a good one: the stories that the demo tells and that tests repeat.

What goes here: a dirty day, a renamed column, a corrected redelivery. What does not: the everyday dirt (``dirt``).
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace

import numpy as np

from ct_assets.sampling.dirt import NEGATIVE_PRICE, NEGATIVE_WITHOUT_CANCELLATION, WRONG_DAY, ZERO_QUANTITY
from ct_assets.sampling.lines import Line, SalesDay


@dataclass(frozen=True)
class Correction:
    """What a corrected redelivery changed, in good lines after cleaning: the oracle of the revision's diff."""

    changed: int
    removed: int
    added: int
    codes: tuple[str, ...]


def dirty_day(day: SalesDay, seed: int, share: float = 0.07) -> SalesDay:
    """The day with so many broken lines that their share of all lines is ``share`` at most: high, yet under the budget.

    Lines broken already count in. Raises ValueError unless 0 < share < 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share}: between 0 and 1")
    rng = np.random.default_rng([seed, 7, day.day.toordinal()])
    lines = [replace(line) for line in day.lines]
    room = int(share * len(lines)) - sum(line.broken is not None for line in lines)
    # Only lines that nothing repeats: breaking one of a pair would make the other no duplicate any more.
    repeated = {_identity(line) for line in lines if line.repeats}
    open_to_it = [line for line in _first_sales(lines) if _identity(line) not in repeated]
    picked = rng.choice(len(open_to_it), size=max(0, min(room, len(open_to_it))), replace=False)
    for turn, index in enumerate(picked.tolist()):
        _break_line(open_to_it[index], turn)
    return SalesDay(day.day, lines, [*day.notes, {"kind": "dirty_day", "broken": len(picked)}])


def rename_column(data: bytes, old: str, new: str) -> bytes:
    """The file with one column renamed in its header and every other byte kept.

    Raises ValueError when the header has no column ``old``.
    """
    head, newline, rest = data.partition(b"\n")
    columns = next(csv.reader([head.decode("utf-8")]))
    if old not in columns:
        raise ValueError(f"no column {old!r} in the header: {', '.join(columns)}")
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="").writerow([new if name == old else name for name in columns])
    return text.getvalue().encode("utf-8") + newline + rest


def corrected(
    day: SalesDay, seed: int, changed: int = 12, removed: int = 3, added: int = 5
) -> tuple[SalesDay, Correction]:
    """The day as its supplier delivers it again: some quantities corrected, some lines gone, some that came late.

    Raises ValueError when the day has too few sales lines for that.
    """
    rng = np.random.default_rng([seed, 8, day.day.toordinal()])
    lines = [replace(line) for line in day.lines]
    candidates = _first_sales(lines)
    if len(candidates) < changed + removed + added:
        raise ValueError(f"{day.day}: {len(candidates)} sales lines, fewer than {changed + removed + added} to correct")
    picked = [
        candidates[i] for i in rng.choice(len(candidates), size=changed + removed + added, replace=False).tolist()
    ]
    touched = picked[: changed + removed]
    wrong, gone, late = touched[:changed], touched[changed:], picked[changed + removed :]
    # The duplicates of a touched line go with it, or the old value would live on in them.
    stale = {_identity(line) for line in touched}
    absent = {id(line) for line in gone}
    lines = [line for line in lines if id(line) not in absent and not (line.repeats and _identity(line) in stale)]
    lines += [replace(line, invoice=f"{line.invoice}9", written_code=None, written_description=None) for line in late]
    for line in wrong:
        line.quantity += 2
    note = {"kind": "correction", "changed": changed, "removed": removed, "added": added}
    correction = Correction(changed, removed, added, tuple(sorted({line.code for line in picked})))
    return SalesDay(day.day, lines, [*day.notes, note]), correction


def _first_sales(lines: list[Line]) -> list[Line]:
    """Good lines that are no cancellations, adjustments or repeats."""
    return [line for line in lines if line.broken is None and not line.repeats and line.invoice.isdigit()]


def _identity(line: Line) -> tuple[object, ...]:
    """What two lines of a sample share when they are equal after cleaning."""
    return (line.invoice, line.code, line.quantity, line.when)


def _break_line(line: Line, turn: int) -> None:
    """Break a line for one rule, in turn."""
    import datetime as dt

    line.broken = (NEGATIVE_WITHOUT_CANCELLATION, NEGATIVE_PRICE, ZERO_QUANTITY, WRONG_DAY)[turn % 4]
    match line.broken:
        case "negative_quantity_without_cancellation":
            line.quantity = -line.quantity
        case "negative_price":
            line.price_cents = -max(1, line.price_cents)
        case "zero_quantity":
            line.quantity = 0
        case _:
            line.when -= dt.timedelta(days=1)
