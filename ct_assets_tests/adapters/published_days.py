"""Sales days of the sample, really delivered and published, for tests of what reads them.

What goes here: bringing files in. What does not: assertions.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import psycopg

from ct_assets.adapters import landing, ledger
from ct_assets.adapters.datasets import pipeline_dataset
from ct_assets.adapters.publish import publish_delivery
from ct_assets.sampling.demand import SampleOptions
from ct_assets.sampling.sales import write_sales
from ct_assets.settings import Settings


def bring(settings: Settings, paths: list[Path]) -> None:
    """Deliver and publish files of the sales pipeline."""
    dataset = pipeline_dataset("sales", settings)
    for delivered in landing.deliver(settings, "sales", paths):
        assert settings.ledger_url is not None
        with psycopg.connect(settings.ledger_url) as conn:
            found = ledger.delivery(conn, delivered.delivery_id)
        assert found is not None
        assert publish_delivery(settings, dataset, found).state == "published"


def sample(folder: Path, days: int, products: int = 40, seed: int = 5) -> list[Path]:
    """Files of a sample, in order of day."""
    write_sales(folder, SampleOptions(days=days, seed=seed, products=products))
    return sorted(folder.glob("*.csv"))


def day_of(path: Path) -> dt.date:
    """The business day of a file."""
    return dt.date.fromisoformat(path.name[:10])


def corrected(path: Path, folder: Path, factor: int = 3) -> Path:
    """The same day again with every sale ``factor`` times as large."""
    folder.mkdir(parents=True, exist_ok=True)
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    at = head.split(",").index("Quantity")
    changed = []
    for line in lines:
        cells = line.split(",")
        if '"' not in line and len(cells) > at and cells[at].isdigit():
            cells[at] = str(int(cells[at]) * factor)
        changed.append(",".join(cells))
    target = folder / path.name
    target.write_text("\n".join([head, *changed]) + "\n", encoding="utf-8")
    return target
