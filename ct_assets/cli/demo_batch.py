"""The batch part of `ct demo`: 90 days of sales, then a dirty day, a renamed column, a late correction.

What goes here: the chapters, their order and what is claimed. What does not: what is true in the ledger and in Dagster's
event log (``demo_claims``), the deliveries (``ct_assets.sampling``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ct_assets.cli.output import say

if TYPE_CHECKING:
    from ct_assets.cli.demo_claims import Claims
    from ct_assets.cli.demo_story import Story
    from ct_assets.sampling.lines import SalesDay

CORRECT_DAYS_BACK = 45  # far enough back that days before it, and days after its look-back, must stay untouched


def tell(story: Story, claims: Claims) -> None:
    """The chapters in order."""
    from itertools import islice

    from ct_assets.sampling.sales import SampleOptions, sales_days

    deliveries = list(islice(sales_days(SampleOptions(days=story.days, seed=story.seed)), story.days))
    history = _history(story, claims)
    later = deliveries[history : history + 2]
    _dirty_day(story, claims, later[0])
    _renamed_column(story, claims, later[1])
    _correction(story, claims, deliveries[history - CORRECT_DAYS_BACK * 6 // 7])


def _history(story: Story, claims: Claims) -> int:
    """Bring the sample in; returns how many days that were."""
    import json

    story.chapter(f"{story.days} days of sales with planted demand and dirt")
    story.ct("sample", "sales", "--days", story.days, "--seed", story.seed, "--out", story.inbox)
    truth = json.loads((story.inbox / "truth.json").read_text(encoding="utf-8"))
    story.result(f"{len(truth['files'])} files, {truth['totals']['read']} lines")

    story.chapter("deliver, check, publish, train, promote, forecast")
    story.ct("deliver", "--pipeline", "sales", *sorted(story.inbox.glob("*.csv")))
    story.ct("run", "--pipeline", "sales")
    planted = {
        file["day"]: [file[name] for name in ("read", "good", "quarantined", "duplicates")]
        for file in truth["files"].values()
    }
    story.claim(
        "every day's counts of good, quarantined and duplicate lines are the planted ones", claims.counts(), planted
    )
    story.claim(
        "units, revenue, orders and returns per product and day are the planted ones, to the penny",
        claims.daily_sales() == {file["day"]: file["daily"] for file in truth["files"].values()},
    )
    story.claim("features exist for exactly the delivered days", claims.feature_days(), sorted(planted))
    champion = claims.champion()
    story.claim("a first model is champion", champion["version"], 1)
    story.claim("it beats every baseline of a planner on the held-out weeks", claims.unbeaten_baselines(), [])
    story.claim("forecasts for the next 7 days are published by the champion", claims.forecast_model_version(), 1)
    off = _distances(truth, claims.forecasts())
    story.claim(
        f"they are nearer to the planted demand of that week ({off['model']:.0%} off) than last week's sales "
        f"({off['last week']:.0%}) or the 28-day mean ({off['28-day mean']:.0%})",
        off["model"] < min(off["last week"], off["28-day mean"]),
    )
    story.result(
        f"{truth['totals']['good']} lines published, {truth['totals']['quarantined']} in quarantine, model 1 is champion"
    )
    return len(truth["files"])


def _distances(truth: dict[str, Any], forecasts: dict[str, float]) -> dict[str, float]:
    """How far forecasts of the coming week are from what was planted: sum of absolute errors over the planted sum."""
    import datetime as dt

    sold = [file["daily"] for file in sorted(truth["files"].values(), key=lambda file: file["day"])]
    last = dt.date.fromisoformat(max(file["day"] for file in truth["files"].values()))
    week = [truth["expected"].get((last + dt.timedelta(days=ahead)).isoformat(), {}) for ahead in range(1, 8)]
    codes = {code for day in [*week, *sold[-24:]] for code in day} | set(forecasts)
    planted = {code: sum(day.get(code, 0.0) for day in week) for code in codes}
    open_days = sum(bool(day) for day in week)

    def mean_of(days: list[dict[str, Any]]) -> dict[str, float]:
        """The coming week as so many times the mean day; the cancelled outliers, thousands of units, left out."""
        units = {code: [day.get(code, {}).get("units", 0) for day in days] for code in codes}
        return {code: sum(n for n in counts if n < 3_000) / len(days) * open_days for code, counts in units.items()}

    candidates = {"model": forecasts, "last week": mean_of(sold[-6:]), "28-day mean": mean_of(sold[-24:])}
    return {
        name: sum(abs(units.get(code, 0.0) - planted[code]) for code in codes) / sum(planted.values())
        for name, units in candidates.items()
    }


def _dirty_day(story: Story, claims: Claims, day: SalesDay) -> None:
    """A day with many broken lines, yet under the contract's budget."""
    from ct_assets.sampling.deliveries import dirty_day
    from ct_assets.sampling.sales import file_name
    from ct_assets.sampling.truth import file_truth

    story.chapter("a dirty day")
    dirty = dirty_day(day, story.seed)
    data = dirty.csv_bytes()
    truth = file_truth(dirty, data)
    (story.inbox / file_name(day.day)).write_bytes(data)
    story.ct("deliver", "--pipeline", "sales", story.inbox / file_name(day.day))
    story.ct("run", "--pipeline", "sales")
    story.claim(
        f"{truth['quarantined']} of {truth['read']} lines are in quarantine, each with its rule",
        claims.quarantined(day.day),
        truth["reasons"],
    )
    story.claim(f"the other {truth['good']} are published", claims.published_rows(day.day), truth["good"])
    story.result(f"{truth['quarantined']} of {truth['read']} lines quarantined, the rest published")


def _renamed_column(story: Story, claims: Claims, day: SalesDay) -> None:
    """A delivery whose supplier renamed a column: nothing of it may be written."""
    from ct_assets.sampling.deliveries import rename_column
    from ct_assets.sampling.sales import file_name

    story.chapter("a delivery with a renamed column: Quantity -> Qty")
    before = claims.everything_written()
    (story.inbox / file_name(day.day)).write_bytes(rename_column(day.csv_bytes(), "Quantity", "Qty"))
    story.ct("deliver", "--pipeline", "sales", story.inbox / file_name(day.day))
    told = story.ct("run", "--pipeline", "sales", expect=1)
    incident = claims.incident(day.day)
    say(f"   {incident['message']}")
    story.claim("an incident is open for the missing column", incident["rule"], "missing_column")
    story.claim(
        "its message names both the column and the likely new name",
        all(name in incident["message"] for name in ("Quantity", "Qty")),
    )
    story.claim("`ct run` says so and ends with 1", "Qty" in told)
    story.claim("no row, revision, feature, model or forecast was written", claims.everything_written(), before)
    story.result("stopped before any write; likely new name: Qty")


def _correction(story: Story, claims: Claims, day: SalesDay) -> None:
    """A corrected file of an old day: a new revision, its dependent days rebuilt, one retrain."""
    from ct_assets.sampling.deliveries import corrected
    from ct_assets.sampling.sales import file_name
    from ct_assets.sampling.truth import file_truth

    story.chapter(f"a corrected redelivery of {day.day}")
    again, correction = corrected(day, story.seed)
    data = again.csv_bytes()
    truth = file_truth(again, data)
    path = story.inbox / "corrected" / file_name(day.day)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    dependent = claims.dependent_days(day.day)
    before = claims.mark()
    story.ct("deliver", "--pipeline", "sales", path)
    story.ct("run", "--pipeline", "sales")
    story.claim("the day is at revision 2", claims.revision(day.day), 2)
    story.claim(
        "its daily sales are those of the corrected file",
        claims.daily_sales(day.day)[day.day.isoformat()],
        truth["daily"],
    )
    story.claim(
        "the revision says what changed: rows removed, rows added",
        claims.diff(day.day),
        {"removed": correction.changed + correction.removed, "added": correction.changed + correction.added},
    )
    story.claim(
        "only that day was cleaned again", claims.rebuilt("clean/sales/sales_lines", before), [day.day.isoformat()]
    )
    rebuilt = claims.rebuilt("feature/sales/product_daily", before)
    story.claim(f"exactly the {len(dependent)} days whose features look back on it were rebuilt", rebuilt, dependent)
    story.claim("there was one retrain", claims.materializations("model/sales/demand_7d", before), 1)
    story.result(f"revision 2; {len(rebuilt)} days of features rebuilt, one retrain")
