"""What a person reads in a run's log and on the quarantine's page: the contract's verdict of each file, and the plot."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import dagster as dg

from ct_assets.orchestration import stages
from ct_assets_tests.adapters.sales_files import write_day
from ct_assets_tests.orchestration.passes import QUARANTINE, Passes

FRIDAY, MONDAY = dt.date(2011, 1, 7), dt.date(2011, 1, 10)


def test_the_log_says_what_was_counted_and_what_stopped_a_delivery(passes: Passes, tmp_path: Path):
    wrong = write_day(tmp_path, MONDAY)
    wrong.write_text(wrong.read_text().replace("Quantity", "Qty", 1))
    passes.deliver(write_day(tmp_path, FRIDAY, good=30, bad=2), wrong)
    said: list[str] = []
    stages.bring_in(passes.installation, passes.pipeline.spec, [FRIDAY, MONDAY], said.append)
    assert said[0] == (
        "2011-01-07.csv: published: 32 read, 30 good, 2 quarantined, 0 duplicates; rules broken: zero_quantity 2"
    )
    assert said[1].startswith("2011-01-10.csv: rejected, nothing was written (missing_column): ")
    assert "'Quantity'" in said[1]
    assert "'Qty'" in said[1]


def test_the_newest_event_of_the_quarantine_shows_the_plot_also_after_a_correction(passes: Passes, tmp_path: Path):
    passes.deliver(*(write_day(tmp_path, day, bad=2) for day in (FRIDAY, MONDAY)))
    passes.run()
    for suffix in ("", "-corrected"):
        if suffix:
            passes.deliver(write_day(tmp_path, FRIDAY, good=33, bad=1, suffix=suffix))
            passes.run()
        newest = passes.instance.get_latest_materialization_event(QUARANTINE)
        assert newest is not None
        assert newest.asset_materialization is not None
        assert newest.asset_materialization.partition == str(FRIDAY if suffix else MONDAY)
        plot = newest.asset_materialization.metadata["by reason"]
        assert isinstance(plot, dg.MarkdownMetadataValue)
        assert "data:image/png;base64," in str(plot.value)
