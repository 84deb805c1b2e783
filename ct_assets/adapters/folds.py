"""Folds of an evaluation, kept in the ledger so that the next training does not compute them again.

What goes here: reading and writing them by key. What does not: what a fold is (``training.evaluation``).
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg

    from ct_assets.training.evaluation import Fold


class LedgerFolds(MutableMapping[str, "Fold"]):
    """Folds by their key (``recipe:data:origin``) in ``ledger.evaluation``; a fold with a NaN is not kept."""

    def __init__(self, conn: psycopg.Connection, model: str) -> None:
        """Reads and writes in the connection's own transaction."""
        self.conn, self.model = conn, model

    def __getitem__(self, key: str) -> Fold:
        from ct_assets.training.evaluation import Fold

        row = self.conn.execute(
            f"select measures from ledger.evaluation where {_FOLD_KEY}".encode(), (self.model, *key.split(":"))
        ).fetchone()
        if row is None:
            raise KeyError(key)
        return Fold.from_json(row[0])

    def __setitem__(self, key: str, fold: Fold) -> None:
        import json

        try:
            text = json.dumps(fold.as_json(), allow_nan=False)
        except ValueError:
            return
        self.conn.execute(
            """insert into ledger.evaluation (model, recipe_digest, data_digest, origin, measures)
               values (%s, %s, %s, %s, %s) on conflict do nothing""",
            (self.model, *key.split(":"), text),
        )

    def __delitem__(self, key: str) -> None:
        self.conn.execute(f"delete from ledger.evaluation where {_FOLD_KEY}".encode(), (self.model, *key.split(":")))

    def __iter__(self) -> Iterator[str]:
        rows = self.conn.execute(
            "select recipe_digest, data_digest, origin from ledger.evaluation where model = %s order by origin",
            (self.model,),
        )
        return iter([f"{recipe}:{data}:{origin}" for recipe, data, origin in rows.fetchall()])

    def __len__(self) -> int:
        return sum(1 for _ in self)


_FOLD_KEY = "model = %s and recipe_digest = %s and data_digest = %s and origin = %s::date"
