"""What a removal is: exact texts of the checkout, each with what stands there once the guard is gone.

What goes here: the shape of a row, and the faults that need one. What does not: the rows (``removals_files``,
``removals_ledger``), running them (``guards``).
"""

from __future__ import annotations

from dataclasses import dataclass

# F04 needs a queue and comes with the streaming pipeline; F31 to F35 are its own.
FAULTS = tuple(f"F{n:02d}" for n in (*range(1, 4), *range(5, 31), *range(36, 45)))


@dataclass(frozen=True)
class Edit:
    """``old`` stands exactly once in ``file`` (a path in the checkout) and becomes ``new``."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Removal:
    """One guard less. ``why``: what it guards. Several edits: guards that overlap, removed together.

    ``raises``: the exception of the code under test that ends its test, where no assertion can be reached.
    """

    fault: str
    why: str
    edits: tuple[Edit, ...]
    raises: str = ""


def gone(fault: str, file: str, old: str, new: str, why: str, *, raises: str = "") -> Removal:
    """A removal of one text. ``file`` without its leading ``ct_assets/``."""
    return Removal(fault, why, (Edit(f"ct_assets/{file}", old, new),), raises)


def both(fault: str, why: str, *edits: tuple[str, str, str], raises: str = "") -> Removal:
    """Guards that overlap (each alone would hold): removed together. Edits are (file, old, new)."""
    return Removal(fault, why, tuple(Edit(f"ct_assets/{file}", old, new) for file, old, new in edits), raises)
