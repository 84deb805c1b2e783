"""What was known when: the published tables as somebody would have seen them at the end of an earlier day.

What goes here: choosing revisions, over frames. What does not: reading them (``adapters.training_data``).

Rule: at the end of day D a day shows the newest of its revisions that was known by then. The first revision of a day is
always known: it counts as known at the end of its business day, however late history was delivered.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

REVISION = "_revision_id"


@dataclass(frozen=True)
class Revisions:
    """Every revision of the days that have several.

    ``known``: ``day, part, revision, known_at`` (UTC) and :data:`REVISION`, one row a revision. ``daily`` and
    ``lines``: the rows of all of them, with :data:`REVISION`. ``day_ends``: when a day's first revision became known.
    """

    known: pl.DataFrame
    daily: pl.DataFrame
    lines: pl.DataFrame
    day_ends: Mapping[dt.date, dt.datetime]


@dataclass(frozen=True)
class Tables:
    """Daily product sales and sales lines (see ``panel.build_panel``), and other revisions of their days, if any."""

    daily: pl.DataFrame
    lines: pl.DataFrame
    revisions: Revisions | None = None

    def as_known(self, day: dt.date, ahead: int = 0) -> Tables:
        """What was known at the end of ``day``, and of the ``ahead`` days after it what was known at their end.

        The same object when nothing differs. Days after those stay as they are: nothing point-in-time looks at them.
        """
        chosen = self._chosen(day, ahead)
        if self.revisions is None or chosen is None:
            return self
        swapped = chosen["day"].unique().implode()
        ids = chosen[REVISION].implode()
        daily, lines = (
            pl.concat(
                [now.filter(~pl.col("day").is_in(swapped)), then.filter(pl.col(REVISION).is_in(ids)).drop(REVISION)]
            )
            for now, then in ((self.daily, self.revisions.daily), (self.lines, self.revisions.lines))
        )
        return Tables(daily.sort("day", "stock_code"), lines.sort("day", "_line"))

    def _chosen(self, day: dt.date, ahead: int) -> pl.DataFrame | None:
        """The revisions of the days that showed another one than now; None when there is no such day."""
        if self.revisions is None or day not in self.revisions.day_ends:
            return None
        end = self.revisions.day_ends[day]
        last = pl.when(pl.col("day") <= day).then(pl.lit(end)).otherwise(pl.lit(end + dt.timedelta(days=ahead)))
        within = self.revisions.known.filter(pl.col("day") <= day + dt.timedelta(days=ahead)).sort(
            "known_at", "revision"
        )
        first = pl.int_range(pl.len()).over("day", "part") == 0
        newest = pl.col(REVISION).last()
        then = within.filter(first | (pl.col("known_at") <= last)).group_by("day", "part").agg(newest)
        now = within.group_by("day", "part").agg(newest)
        changed = then.join(now, on=["day", "part", REVISION], how="anti")["day"].unique()
        return then.filter(pl.col("day").is_in(changed.implode())) if len(changed) else None
