"""What one training run sees: the panel of its cut-off, and for each fold the panel as it was known then.

What goes here: making both from tables, digests. What does not: reading tables (``adapters``), fitting.

A fold is an honest rehearsal: its model learns from the revisions that were known at the end of its origin day, and its
week is judged by those known when the week ended. A correction published later changes the refit on all data and no
fold, so folds that were computed stay valid. Asked for with ``corrected`` tables (no revisions), folds see what is
known now.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import polars as pl

from ct_assets.features.panel import Panel, build_panel
from ct_assets.features.revisions import Revisions, Tables
from ct_assets.features.training_set import HORIZON_DAYS, data_digest, weekly_origins
from ct_assets.training.evaluation import FOLDS, FoldOrigin
from ct_assets.training.recipe import TrainingFailed


@dataclass(frozen=True)
class Dataset:
    """``cutoff``: the last day; ``digest``: of every row up to it; ``folds``: oldest first."""

    panel: Panel
    cutoff: dt.date
    digest: str
    folds: tuple[FoldOrigin, ...]

    @property
    def at(self) -> int:
        """The position of the cut-off."""
        return self.panel.index(self.cutoff)

    @property
    def origins(self) -> tuple[int, ...]:
        """Positions of the folds' origins."""
        return tuple(fold.at for fold in self.folds)


def dataset(
    daily: pl.DataFrame, lines: pl.DataFrame, folds: int = FOLDS, revisions: Revisions | None = None
) -> Dataset:
    """The panel, the folds and the digests. Raises :class:`TrainingFailed` when there are no rows.

    ``revisions``: what else was known of the days (``adapters.training_data.Sales.revisions``).
    """
    if daily.is_empty():
        raise TrainingFailed("no daily product sales are published: deliver some days first")
    panel, tables = build_panel(daily, lines), Tables(daily, lines, revisions)
    cutoff = panel.day(panel.days - 1)
    made = tuple(_fold(tables, panel, at) for at in weekly_origins(panel, folds))
    return Dataset(panel, cutoff, data_digest(daily, lines, cutoff), made)


def _fold(tables: Tables, panel: Panel, at: int) -> FoldOrigin:
    known = tables.as_known(panel.day(at), HORIZON_DAYS)
    digest = data_digest(known.daily, known.lines, panel.day(at + HORIZON_DAYS))
    if known is not tables:  # the same days, so that positions stay
        panel = build_panel(known.daily, known.lines, [panel.day(day) for day in panel.open_days])
    return FoldOrigin(panel, at, digest)
