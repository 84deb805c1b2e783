"""A pipeline's file: what is accepted, and that every mistake is named with line, column and the nearest choice."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from ct_assets.errors import UsageError
from ct_assets.platform.document import SpecError
from ct_assets.platform.spec import Gate, choose_pipeline, load_pipelines, parse_pipeline

BUILT_IN = Path(__file__).resolve().parents[2] / "ct_assets" / "defs"
MINIMAL = """\
type: ct_assets.components.RetrainingPipeline
attributes:
  name: orders
  owner: {team: logistics, oncall: logistics-oncall}
  source: {contract: contracts/orders.odcs.yaml, start: 2024-01-01}
"""
FULL = (
    MINIMAL
    + """\
  tier: 1
  rollups: [sql/orders_daily.sql]
  features: [orders_daily]
  model: {name: volume_7d, trainer: "team.models:recipe", seed: 3}
  freshness: {data: 36h, model: 2w, on_breach: page}
  retrain: {any: [new_data, {every: 7d}]}
  gates: {wape: {not_worse_than_champion_by: 0.05}, coverage: {between: [0.8, 0.95]}}
  forecast: {total: [0.5, 3], product: 8}
"""
)


def write(folder: Path, text: str) -> Path:
    home = folder / "logistics" / "orders"
    (home / "contracts").mkdir(parents=True, exist_ok=True)
    (home / "sql").mkdir(exist_ok=True)
    (home / "contracts" / "orders.odcs.yaml").write_text("kind: DataContract\n")
    (home / "sql" / "orders_daily.sql").write_text("select 1\n")
    file = home / "defs.yaml"
    file.write_text(text)
    return file


def test_a_mistake_of_one_team_leaves_the_others(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL)
    other = tmp_path / "cafe" / "bad"
    other.mkdir(parents=True)
    (other / "defs.yaml").write_text(MINIMAL.replace("start: 2024-01-01", "mode: dayly"))
    broken: list[UsageError] = []
    assert list(load_pipelines(tmp_path, broken)) == ["orders"]
    assert [type(error) for error in broken] == [SpecError]
    with pytest.raises(SpecError):
        load_pipelines(tmp_path)


def test_a_pipeline_of_contract_and_owner_is_complete(tmp_path: Path):
    spec = parse_pipeline(write(tmp_path, MINIMAL))
    assert (spec.name, spec.domain, spec.tier) == ("orders", "orders", 2)
    assert spec.source.start == dt.date(2024, 1, 1)
    assert spec.source.late_correction == "auto"
    assert (spec.model, spec.features, spec.rollups, dict(spec.gates)) == (None, (), (), {})
    assert not spec.retrain.new_data
    assert spec.source.contract == tmp_path / "logistics" / "orders" / "contracts" / "orders.odcs.yaml"


def test_every_key_arrives_typed(tmp_path: Path):
    spec = parse_pipeline(write(tmp_path, FULL))
    assert spec.model is not None
    assert (spec.model.name, spec.model.trainer, spec.model.seed) == ("volume_7d", "team.models:recipe", 3)
    assert (spec.freshness.data, spec.freshness.model) == (dt.timedelta(hours=36), dt.timedelta(days=14))
    assert (spec.retrain.new_data, spec.retrain.every) == (True, "7d")
    assert spec.gates["wape"] == Gate("wape", 0.05, 0.95, None)
    assert spec.gates["coverage"].between == (0.8, 0.95)
    assert (spec.forecast.total, spec.forecast.product) == ((0.5, 3.0), 8.0)
    assert [path.name for path in spec.rollups] == ["orders_daily.sql"]


MISTAKES = [
    # what to replace, with what, the text at fault, part of the message, part of the hint
    ("owner:", "ownr:", "ownr:", "no key attributes.ownr", "'owner'"),
    ("team: logistics,", "team: '',", "'',", "attributes.owner.team", None),
    ("name: orders", "name: My Orders", "My Orders", "lower-case letters", "my_orders"),
    ("name: orders", "nmae: orders", "nmae", "no key attributes.nmae", "'name'"),
    ("2024-01-01", "01.02.2024", "01.02.2024", "YYYY-MM-DD", None),
    ("orders.odcs.yaml", "order.odcs.yaml", "contracts/order.", "a file beside this one", "contracts/orders.odcs.yaml"),
    ("contracts/orders.odcs.yaml", "/etc/passwd", "/etc/passwd", "relative", None),
    ("tier: 1", "tier: 9", "9", "between 1 and 3", None),
    ("tier: 1", "tier: one", "one\n", "'one'", None),
    ("tier: 1", "tier: '1'", "'1'", "whole number", None),
    ("tier: 1", "tier: 1\n  tier: 3", "tier: 3", "given twice", None),
    ("36h", "36 hours", "36 hours", "a duration", None),
    ("page", "pager", "pager", "one of page, warn", "'page'"),
    ("every: 7d", "every: 9d", "9d", "one of 1d, 7d, 30d", None),
    ("[new_data,", "[new_date,", "new_date", "one of new_data", "'new_data'"),
    ("wape:", "wap:", "wap:", "no key attributes.gates.wap", "'wape'"),
    ("[0.8, 0.95]", "[0.95, 0.8]", "[0.95, 0.8]", "lower number first", None),
    ("[0.8, 0.95]", "0.8", "0.8", "a list", None),
    ("[0.5, 3]", "[3, 0.5]", "[3, 0.5]", "[low, high]: multiples", None),
    ("product: 8", "product: 0", "0}", "between 1 and", None),
    ("team.models:recipe", "team.models", '"team.models"', "package.module:function", None),
    ("features: [orders_daily]\n", "\n", "{name: volume", "needs features", "features"),
    ("RetrainingPipeline", "RetrainingPipelin", "ct_assets.components", "one of ct_assets", "RetrainingPipeline"),
    ("orders_daily.sql]", "../contracts/orders.odcs.yaml]", "[sql/../", "names no table", "orders_odcs.sql"),
    ("orders_daily.sql]", "orders_daly.sql]", "sql/orders_daly", "a file beside this one", "sql/orders_daily.sql"),
]


@pytest.mark.parametrize(
    ("old", "new", "fault", "message", "hint"), MISTAKES, ids=[m[1][:24].strip() for m in MISTAKES]
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, old, new, fault, message, hint):
    text = FULL.replace(old, new, 1)
    assert text != FULL
    file = write(tmp_path, text)
    before = text[: text.index(fault)]
    place = f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
    with pytest.raises(UsageError) as caught:
        parse_pipeline(file)
    assert caught.value.message.startswith(f"{file}:{place}: "), caught.value.message
    assert message in caught.value.message
    if hint is not None:
        assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("a: [1", "not valid YAML"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("a: !!python/object/apply:os.system ['true']\n", "tags"),
        ("a: " + "[" * 60 + "]" * 60, "nested too deeply"),
        ("- a\n", "expected a mapping"),
        ("type: ct_assets.components.RetrainingPipeline\n", "has no 'attributes'"),
    ],
)
def test_what_is_no_pipeline_file_is_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(UsageError, match=message):
        parse_pipeline(write(tmp_path, text))


def test_a_file_that_is_not_utf8_is_refused_with_the_byte(tmp_path: Path):
    file = write(tmp_path, MINIMAL)
    file.write_bytes(MINIMAL.encode() + b"# \xff\n")
    with pytest.raises(UsageError, match=rf"not UTF-8 at byte {len(MINIMAL) + 2}"):
        parse_pipeline(file)


def test_two_pipelines_of_one_name_are_refused(tmp_path: Path):
    file = write(tmp_path, MINIMAL)
    other = tmp_path / "other" / "orders"
    (other / "contracts").mkdir(parents=True)
    (other / "contracts" / "orders.odcs.yaml").write_text("kind: DataContract\n")
    (other / "defs.yaml").write_text(MINIMAL)
    with pytest.raises(UsageError, match="two pipelines are named 'orders'") as caught:
        load_pipelines(tmp_path)
    assert str(file) in caught.value.message
    assert str(other / "defs.yaml") in caught.value.message


def test_the_nearest_pipeline_is_named(tmp_path: Path):
    write(tmp_path, MINIMAL)
    found = load_pipelines(tmp_path)
    assert choose_pipeline(found, "orders") is found["orders"]
    with pytest.raises(UsageError) as caught:
        choose_pipeline(found, "order")
    assert caught.value.hint == "did you mean 'orders'?"


def test_the_built_in_pipelines_load():
    found = load_pipelines(BUILT_IN)
    assert found["sales"].model is not None
    assert found["sales"].owner.team == "merchandising"


STREAMING = """
type: ct_assets.components.RetrainingPipeline
attributes:
  name: shop
  owner: {team: growth, oncall: growth-oncall}
  source: {contract: c.yaml, start: 2026-01-01, mode: streaming, stream: s.yaml}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (", stream: s.yaml", "", "a streaming source needs the file of its aggregates"),
        ("mode: streaming, ", "", "'stream' is about mode streaming, but the mode is daily"),
        ("stream: s.yaml", "stream: s.yaml, late_correction: approve", "'late_correction' is about mode daily"),
        (
            "stream: s.yaml}",
            "stream: s.yaml}\n  features: [x]",
            "the features of a streaming pipeline are the aggregates",
        ),
        ("stream: s.yaml}", "stream: s.yaml}\n  model: {name: m, trainer: 'a.b:c'}", "a stream is learnt from by"),
    ],
)
def test_a_streaming_pipeline_says_what_it_takes(tmp_path: Path, old: str, new: str, said: str) -> None:
    for name in ("c.yaml", "s.yaml"):
        (tmp_path / name).touch()
    file = tmp_path / "defs.yaml"
    file.write_text(STREAMING)
    spec = parse_pipeline(file)
    assert (spec.source.mode, spec.source.stream) == ("streaming", tmp_path / "s.yaml")
    assert old in STREAMING
    file.write_text(STREAMING.replace(old, new))
    with pytest.raises(SpecError, match=said):
        parse_pipeline(file)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("\n  rollups: [daily_sums.sql]\n", "two pipelines have a rollup named 'daily_sums'"),
        (
            "\n  features: [product_daily]\n  model: {name: volume, trainer: 'a.b:c'}\n",
            "two pipelines have a model named 'volume'",
        ),
    ],
)
def test_two_pipelines_with_one_table_or_model_are_refused(tmp_path: Path, more: str, message: str) -> None:
    files = []
    for name in ("orders", "returns"):
        folder = tmp_path / name
        (folder / "contracts").mkdir(parents=True)
        (folder / "contracts" / "orders.odcs.yaml").write_text("kind: DataContract\n")
        (folder / "daily_sums.sql").write_text("select 1\n")
        (folder / "defs.yaml").write_text(MINIMAL.replace("name: orders", f"name: {name}").rstrip() + more)
        files.append(folder / "defs.yaml")
    with pytest.raises(UsageError, match=message) as caught:
        load_pipelines(tmp_path)
    assert all(str(file) in caught.value.message for file in files)
