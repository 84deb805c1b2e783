"""The sales contract is the one that the design publishes, and all of it is enforced."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from ct_assets.ingest.examples import try_examples
from ct_assets_tests.ingest.judging import judge, sales, sales_file, sales_line

DAY = "2010-12-01.csv"


def test_every_clause_is_enforced() -> None:
    coverage = sales().coverage
    assert coverage.documentation_only == ()
    assert len(coverage.enforced) >= 30


def test_policies() -> None:
    schema = sales()
    assert (schema.on_exact_duplicate, schema.max_bad_fraction, schema.delivery_day, schema.on_repeated_header) == (
        "collapse",
        0.1,
        "fileName",
        "reject",
    )
    assert schema.primary_key == ()
    assert [c.name for c in schema.columns if c.pii] == ["CustomerID"]
    assert schema.time_zone == "Europe/London"


def test_every_rule_that_rejects_has_an_example_and_every_example_holds() -> None:
    schema = sales()
    results = try_examples(schema)
    assert [r for r in results if not r.holds] == []
    assert {r.name for r in schema.rules if r.severity == "error"} == {r.rule for r in results if r.rule}


def test_an_example_that_is_let_through_is_seen() -> None:
    """The mutation: without the rule, its example must fail."""
    from dataclasses import replace

    schema = sales()
    without = replace(schema, rules=tuple(r for r in schema.rules if r.name != "zero_quantity"))
    assert [r.rule for r in try_examples(without) if not r.holds] == ["zero_quantity"]


def test_how_a_line_is_stored() -> None:
    line = sales_line(
        StockCode=" 85123a ",
        Description=" HEART  HOLDER ",
        InvoiceDate="2010-12-01 08:26:00",
        UnitPrice="2.550",
        Country=" UK ",
    )
    judged = judge(sales_file(line), sales(), DAY)
    assert judged.rows == [
        (
            "536365",
            "85123A",
            "HEART  HOLDER",
            6,
            datetime(2010, 12, 1, 8, 26, tzinfo=UTC),
            Decimal("2.5500"),
            "17850",
            " UK ",
            True,
        ),
    ]
    assert judged.verdict.day == date(2010, 12, 1)


def test_summer_time_is_stored_as_utc() -> None:
    judged = judge(sales_file(sales_line(InvoiceDate="2011-07-01 00:30:00")), sales(), "2011-07-01-again.csv")
    assert judged.good["InvoiceDate"].to_list() == [datetime(2011, 6, 30, 23, 30, tzinfo=UTC)]


@pytest.mark.parametrize(
    "code",
    ["POST", "DOT", "M", "D", "C2", "S", "B", "PADS", "CRUK", "BANK CHARGES", "AMAZONFEE", "gift_0001_10", " m "],
)
def test_codes_that_are_no_product_are_kept(code: str) -> None:
    judged = judge(sales_file(sales_line(StockCode=code)), sales(), DAY)
    assert judged.good["is_product"].to_list() == [False]


@pytest.mark.parametrize("code", ["85123A", "GIFT", "GIFTX", "POSTE", "DCGS0003"])
def test_codes_that_are_products(code: str) -> None:
    assert judge(sales_file(sales_line(StockCode=code)), sales(), DAY).good["is_product"].to_list() == [True]


def test_equal_lines_after_cleaning_collapse_to_the_first() -> None:
    judged = judge(
        sales_file(sales_line(), sales_line(UnitPrice="2.5500", Description="HEART HOLDER "), sales_line(Quantity="7")),
        sales(),
        DAY,
    )
    assert judged.verdict.rows == {"read": 3, "good": 2, "quarantined": 0, "duplicates": 1}
    assert judged.good["_line"].to_list() == [2, 4]


def test_free_and_nameless_lines_only_warn() -> None:
    judged = judge(sales_file(sales_line(UnitPrice="0.0", Description="", CustomerID="")), sales(), DAY)
    assert judged.verdict.decision == "accepted"
    assert judged.verdict.reasons == {"description_absent": 1, "zero_price": 1}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("sales.csv", "no_delivery_day"),
        ("2010-13-01.csv", "no_delivery_day"),
        ("x2010-12-01.csv", "no_delivery_day"),
        ("2010-12-011.csv", "no_delivery_day"),
        (DAY, None),
    ],
)
def test_the_day_is_taken_from_the_name(name: str, rule: str | None) -> None:
    assert judge(sales_file(sales_line()), sales(), name).rule == rule


def test_the_budget_is_ten_percent() -> None:
    lines = [sales_line(InvoiceNo=str(i)) for i in range(9)]
    assert (
        judge(sales_file(*lines, sales_line(Quantity="0")), sales(), DAY).verdict.decision == "accepted_with_quarantine"
    )
    assert judge(sales_file(*lines[:8], sales_line(Quantity="0")), sales(), DAY).rule == "max_bad_fraction"
