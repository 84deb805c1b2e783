"""A definition file: what it becomes, what changes its hash, and errors that name the line and the remedy."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ct_assets.contracts.errors import ContractError
from ct_assets.errors import CtError, UsageError
from ct_assets.streaming.aggregates import RESERVED
from ct_assets.streaming.definition import Aggregate, load_definition, shared_acceptance
from ct_assets_tests.conftest import ROOT
from ct_assets_tests.streaming.random_streams import CONTRACT, DEFINITION

SHOP = ROOT / "ct_assets/defs/growth/shop/streams/user_activity.yaml"


def write(folder: Path, definition: str = DEFINITION, contract: str = CONTRACT.replace("ENTITY", "integer")) -> Path:
    (folder / "random.odcs.yaml").write_text(contract)
    path = folder / "random.yaml"
    path.write_text(definition)
    return path


def test_the_shop_definition() -> None:
    shop = load_definition(SHOP)
    assert (shop.name, shop.entity, shop.columns) == ("user_activity", "user_id", ("event_type", "amount"))
    spend = shop.aggregate("spend_1h")
    assert spend == Aggregate("spend_1h", "sum", "amount", 3_600_000_000, (("event_type", ("purchase", "refund")),))
    assert {a.name: shop.result_type(a) for a in shop.aggregates} == {
        "purchases_5m": "integer",
        "spend_5m": "decimal(38,2)",
        "clicks_5m": "integer",
        "clicks_1h": "integer",
        "purchases_1h": "integer",
        "spend_1h": "decimal(38,2)",
        "largest_1h": "decimal(12,2)",
    }
    assert shop.max_window_us == 3_600_000_000
    assert shop.acceptance.dedup_horizon_us == 3_600_000_000
    assert (shop.ttl_us, shop.freshness_us, shop.on_stale) == (30 * 86_400_000_000, 60_000_000, "flag")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("on_stale: null", "null"),
        ("on_stale: 'null'", "null"),
        ("on_stale: ~", "null"),
        ("on_stale: flag", "flag"),
        ("", "flag"),
    ],
)
def test_on_stale_null_needs_no_quotes(tmp_path: Path, written: str, meant: str) -> None:
    text = DEFINITION.replace("ttl: 30d", f"ttl: 30d\nfreshness: 60s\n{written}")
    assert load_definition(write(tmp_path, text)).on_stale == meant


def test_the_hash_is_of_what_decides_a_value(tmp_path: Path) -> None:
    lines = "  - {name: n, function: count, window: 5m}\n  - {name: m, function: count, window: 1h}\n"
    head = DEFINITION.split("aggregates:")[0] + "aggregates:\n"
    base = load_definition(write(tmp_path, head + lines)).hash
    same = [
        head + "".join(reversed(lines.splitlines(keepends=True))),
        "# a comment\n" + head + lines,
        head.replace("name: random_activity", "name: random_activity\ndescription: other words") + lines,
        (head + lines).replace("window: 5m", "window: 300s"),
    ]
    assert {load_definition(write(tmp_path, text)).hash for text in same} == {base}
    described = CONTRACT.replace("ENTITY", "integer").replace(
        "logicalType: integer, required", "description: x, logicalType: integer, required"
    )
    assert load_definition(write(tmp_path, head + lines, described)).hash == base
    other = [
        (head + lines).replace(*change)
        for change in [("5m", "10m"), ("name: n,", "name: k,"), ("60s", "61s"), ("ttl: 30d", "ttl: 31d")]
    ]
    hashes = {load_definition(write(tmp_path, text)).hash for text in other}
    retyped = CONTRACT.replace("ENTITY", "integer").replace("numeric(12,2)", "numeric(12,3)")
    hashes.add(load_definition(write(tmp_path, head + lines, retyped)).hash)
    assert len(hashes | {base}) == 6


ERRORS = [
    ("kind: StreamAggregates", "kind: Stream", "random.yaml:2:", "write `kind: StreamAggregates`"),
    ("allowed_lateness", "alowed_lateness", "random.yaml:7:", "did you mean 'allowed_lateness'?"),
    ("allowed_lateness: 60s", "allowed_lateness: 60", "random.yaml:7:", "units: us, ms, s, m, h, d, w"),
    ("entity: user_id", "entity: userid", "random.yaml:5:", "did you mean 'user_id'?"),
    ("entity: user_id", "entity: amount", "random.yaml:5:", "a string or an integer"),
    ("contract: random.odcs.yaml", "contract: none.yaml", "random.yaml:4:", "relative to this file"),
    ("event_time: event_time", "event_time: day", "random.yaml:4:", "the custom property unit"),
    ("event_time: event_time", "event_time: units", "random.odcs.yaml:17:", "value: us"),
    ("function: count", "function: cuont", "random.yaml:10:", "did you mean 'count'?"),
    ("function: count", "function: sum", "random.yaml:10:", "add `column: amount`"),
    ("function: count", "function: sum, column: note", "random.yaml:10:", "integer, decimal, number"),
    ("window: 5m", "window: 0s", "random.yaml:10:", "between 1us and 3650d"),
    ("window: 5m", "window: 5m, mode: sawtooth", "random.yaml:10:", "for example `hop: 10s`"),
    ("window: 5m", "window: 5m, mode: sawtooth, hop: 7s", "random.yaml:10:", "a hop that divides it"),
    ("window: 5m", "window: 5m, hop: 1s", "random.yaml:10:", "mode: sawtooth"),
    ("window: 5m", "window: 5m, where: {kind: purchse}", "random.yaml:10:", "did you mean 'purchase'?"),
    ("window: 5m", "window: 5m, where: {kid: purchase}", "random.yaml:10:", "did you mean 'kind'?"),
    ("window: 5m", "window: 5m, where: {amount: 1}", "random.yaml:10:", "a string, an integer or a boolean"),
    ("name: n,", "name: user_id,", "random.yaml:10:", "names must differ"),
    *[
        ("name: n,", f"name: {name},", "random.yaml:10:", "a row of answers has fields of its own")
        for name in ("at", "as_known_at", "watermark", "staleness_seconds", "is_stale", "definition", "window_end")
    ],
    ("name: n,", "name: event_timestamp,", "random.yaml:10:", "a row of answers has fields of its own"),
    ("name: n,", "name: N-1,", "random.yaml:10:", "a lower-case letter"),
    ("ttl: 30d", "ttl: 30d\ndedup_horizon: 5s", "random.yaml:9:", "remembered at least as long"),
    ("ttl: 30d", "ttl: 30d\nemit: {hop: 301s}", "random.yaml:9:", "events between two windows would be in no row"),
    ("ttl: 30d", "ttl: 30d\non_stale: ignore", "random.yaml:9:", "one of: flag, null"),
    ("name: n,", "nam: n,", "random.yaml:10:", "an aggregate has no key 'nam'"),
    ("ttl: 30d", "ttl: 299s", "random.yaml:8: ttl is 299s, the longest window 5m", "make ttl at least as long"),
    ("ttl: 30d", "ttl: [30d", "random.yaml:9:", "check indentation and quotes"),
    (
        DEFINITION,
        "# nothing yet",
        "random.yaml:1: expected a mapping",
        "found nothing\n  docs/guides/contracts.md shows",
    ),
    (DEFINITION, "- name: n", "random.yaml:1: expected a mapping", "found a list"),
]


@pytest.mark.parametrize(("old", "new", "where", "remedy"), ERRORS)
def test_errors_name_the_line_and_the_remedy(old: str, new: str, where: str, remedy: str, tmp_path: Path) -> None:
    assert old in DEFINITION
    with pytest.raises(ContractError) as caught:
        load_definition(write(tmp_path, DEFINITION.replace(old, new, 1)))
    assert where in str(caught.value)
    assert remedy in str(caught.value)
    assert caught.value.exit_code == (1 if where.startswith("random.odcs.yaml") else 2)


@pytest.mark.parametrize("name", RESERVED)
def test_an_entity_is_not_named_as_a_field_beside_the_values(name: str, tmp_path: Path) -> None:
    """`ct features get` wrote the field over the key."""
    text, contract = DEFINITION.replace("entity: user_id", f"entity: {name}"), CONTRACT.replace("user_id", name)
    with pytest.raises(ContractError) as caught:
        load_definition(write(tmp_path, text, contract.replace("ENTITY", "integer")))
    assert "random.yaml:5:" in str(caught.value)
    assert f"{name!r} is no name for an entity" in str(caught.value)
    assert "a row of answers has fields of its own" in str(caught.value)


def test_no_file_and_a_rule_about_a_delivery(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no definition"):
        load_definition(tmp_path / "none.yaml")
    daily = CONTRACT.replace("ENTITY", "integer").replace(
        "    logicalType: object\n",
        "    logicalType: object\n    customProperties: [{property: deliveryDay, value: fileName}]\n",
    )
    daily += "    quality:\n      - {name: today, type: sql, query: 'SELECT COUNT(*) FROM ${table} WHERE day <> ${deliveryDay}', mustBe: 0}\n"
    with pytest.raises(CtError, match="today"):
        load_definition(write(tmp_path, contract=daily))


def test_definitions_of_one_worker_accept_alike() -> None:
    shop = load_definition(SHOP)
    later = replace(shop, acceptance=replace(shop.acceptance, allowed_lateness_us=1))
    assert shared_acceptance([shop, shop]) == shop.acceptance
    with pytest.raises(UsageError, match="differ in allowed_lateness"):
        shared_acceptance([shop, later])


def test_reading_a_definition_loads_nothing_heavy() -> None:
    code = f"import sys; from ct_assets.streaming.definition import load_definition as l; l({str(SHOP)!r}); print([m for m in ('polars', 'numpy', 'pyarrow', 'dagster') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
