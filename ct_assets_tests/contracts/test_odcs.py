"""The loader: what of ODCS becomes which rule, what is only documentation, and errors that name the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ct_assets.contracts.errors import ContractError
from ct_assets.contracts.model import DatasetSchema
from ct_assets.contracts.odcs import load_contract
from ct_assets.errors import UsageError
from ct_assets_tests.ingest.judging import contract

HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: t\nname: t\nversion: 1.0.0\nstatus: active\n"


def load(tmp_path: Path, body: str) -> DatasetSchema:
    path = tmp_path / "c.yaml"
    path.write_text(HEAD + body, encoding="utf-8")
    return load_contract(path).schema()


def test_a_plain_contract_without_anything_of_ours(tmp_path: Path) -> None:
    schema = load(
        tmp_path,
        "schema:\n  - name: t\n    properties:\n      - name: a\n      - {name: n, logicalType: integer, required: true}\n",
    )
    assert [c.name for c in schema.columns] == ["a", "n"]
    assert [r.name for r in schema.rules] == ["n.type", "n.required"]
    assert (schema.max_bad_fraction, schema.on_exact_duplicate, schema.delivery_day, schema.closed) == (
        None,
        "keep",
        None,
        False,
    )


def test_types_in_postgresql_and_arrow(tmp_path: Path) -> None:
    schema = contract(
        tmp_path,
        """{name: s}
        {name: i, logicalType: integer}
        {name: d, logicalType: number, physicalType: 'numeric(10,2)'}
        {name: f, logicalType: number}
        {name: b, logicalType: boolean}
        {name: y, logicalType: date}
        {name: l, logicalType: timestamp}
        {name: z, logicalType: timestamp, logicalTypeOptions: {timezone: true, defaultTimezone: Europe/London}}
        {name: o, logicalType: object}""",
    )
    found = {c.name: (c.postgres_type, c.arrow_type) for c in schema.columns}
    assert found == {
        "s": ("text", "string"),
        "i": ("bigint", "int64"),
        "d": ("numeric(10,2)", "decimal128(10, 2)"),
        "f": ("double precision", "double"),
        "b": ("boolean", "bool"),
        "y": ("date", "date32[day]"),
        "l": ("timestamp", "timestamp[us]"),
        "z": ("timestamptz", "timestamp[us, tz=UTC]"),
        "o": ("text", "string"),
    }


ERRORS = {
    "misspelt property key": (
        "schema:\n  - name: t\n    properties:\n      - name: a\n        requird: true\n",
        11,
        "did you mean 'required'?",
    ),
    "misspelt custom property": (
        "schema:\n  - name: t\n    customProperties:\n      - {property: maxBadFracton, value: 0.1}\n    properties: [{name: a}]\n",
        10,
        "did you mean 'maxBadFraction'?",
    ),
    "unknown type": (
        "schema:\n  - name: t\n    properties:\n      - {name: a, logicalType: integr}\n",
        10,
        "did you mean 'integer'?",
    ),
    "misspelt option": (
        "schema:\n  - name: t\n    properties:\n      - {name: a, logicalType: integer, logicalTypeOptions: {minimun: 1}}\n",
        10,
        "did you mean 'minimum'?",
    ),
    "bound of another type": (
        "schema:\n  - name: t\n    properties:\n      - {name: a, logicalType: integer, logicalTypeOptions: {minimum: x}}\n",
        10,
        "type integer",
    ),
    "unknown zone": (
        "schema:\n  - name: t\n    properties:\n      - {name: a, logicalType: timestamp, logicalTypeOptions: {timezone: true, defaultTimezone: Europe/Londn}}\n",
        10,
        "Europe/London",
    ),
    "two columns of one name": (
        "schema:\n  - name: t\n    properties:\n      - name: a\n      - name: a\n",
        11,
        "names must differ",
    ),
    "reserved column": ("schema:\n  - name: t\n    properties:\n      - name: _line\n", 10, "rename"),
    "unknown metric": (
        "schema:\n  - name: t\n    properties: [{name: a}]\n    quality:\n      - {metric: rowCont, mustBe: 1}\n",
        11,
        "did you mean 'rowCount'?",
    ),
    "no operator": (
        "schema:\n  - name: t\n    properties: [{name: a}]\n    quality:\n      - {metric: rowCount}\n",
        11,
        "mustBe",
    ),
    "two operators": (
        "schema:\n  - name: t\n    properties: [{name: a}]\n    quality:\n      - {metric: rowCount, mustBe: 1, mustBeLessThan: 2}\n",
        11,
        "2 given",
    ),
    "sql of an unknown column": (
        "schema:\n  - name: t\n    properties: [{name: amount}]\n    quality:\n      - {type: sql, query: SELECT COUNT(*) FROM t WHERE amont = '1', mustBe: 0}\n",
        11,
        "did you mean 'amount'?",
    ),
    "budget out of range": (
        "schema:\n  - name: t\n    customProperties: [{property: maxBadFraction, value: 10}]\n    properties: [{name: a}]\n",
        9,
        "fraction",
    ),
    "unknown transform": (
        "schema:\n  - name: t\n    properties:\n      - name: a\n        customProperties: [{property: transforms, value: [trimm]}]\n",
        11,
        "did you mean 'trim'?",
    ),
    "day used but not declared": (
        "schema:\n  - name: t\n    properties: [{name: d, logicalType: date}]\n    quality:\n      - {name: w, type: sql, query: 'SELECT COUNT(*) FROM t WHERE d <> ${deliveryDay}', mustBe: 0}\n",
        11,
        "deliveryDay: fileName",
    ),
    "derived from nothing known": (
        "schema:\n  - name: t\n    properties:\n      - name: a\n      - {name: x, logicalType: boolean, transformLogic: b = '1', customProperties: [{property: derived, value: true}]}\n",
        11,
        "no column 'b'",
    ),
    "derived of another type": (
        "schema:\n  - name: t\n    properties:\n      - name: a\n      - {name: x, logicalType: integer, transformLogic: a = '1', customProperties: [{property: derived, value: true}]}\n",
        11,
        "gives a boolean",
    ),
    "unknown dialect key": (
        "schema:\n  - name: t\n    customProperties:\n      - {property: dialect, value: {delimeter: ';'}}\n    properties: [{name: a}]\n",
        10,
        "did you mean 'delimiter'?",
    ),
    "unknown encoding": (
        "schema:\n  - name: t\n    customProperties:\n      - {property: dialect, value: {encoding: utf-88}}\n    properties: [{name: a}]\n",
        10,
        "no encoding",
    ),
    "long delimiter": (
        "schema:\n  - name: t\n    customProperties:\n      - {property: dialect, value: {delimiter: '||'}}\n    properties: [{name: a}]\n",
        10,
        "one printable",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_line_and_the_remedy(name: str, tmp_path: Path) -> None:
    body, line, remedy = ERRORS[name]
    with pytest.raises(ContractError) as caught:
        load(tmp_path, body)
    assert caught.value.line == line
    assert remedy in f"{caught.value.message} {caught.value.hint}"
    assert str(tmp_path / "c.yaml") in caught.value.message


@pytest.mark.parametrize(
    ("head", "word"),
    [
        ("apiVersion: v2.2.2\n", "apiVersion"),
        ("apiVersion: v3.1.0\nkind: Other\n", "kind"),
        ("kind: DataContract\n", "apiVersion"),
    ],
)
def test_another_kind_of_file_is_refused(head: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(head)
    with pytest.raises(ContractError, match=word):
        load_contract(path)


def test_coverage_counts_what_is_enforced_and_names_the_rest(tmp_path: Path) -> None:
    schema = load(
        tmp_path,
        """schema:
  - name: t
    properties:
      - {name: a, required: true, logicalTypeOptions: {pattern: "^(?=x)"}}
      - {name: b, logicalType: array}
    quality:
      - {type: text, description: looks fine}
      - {type: custom, engine: soda, implementation: x}
      - {type: sql, query: SELECT max(a) FROM t, mustBe: 3}
      - {name: some, metric: rowCount, mustBeGreaterThan: 0}
slaProperties:
  - {property: latency, value: 4, unit: d}
""",
    )
    assert len(schema.coverage.enforced) == 2
    assert [c.where for c in schema.coverage.documentation_only] == ["a", "b", "t", "t", "t", "slaProperties"]
    assert str(schema.coverage).startswith(
        "2 of 8 clauses enforced; documentation-only: a pattern ^(?=x), b logicalType array"
    )


def test_several_schema_objects_need_a_name(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        HEAD + "schema:\n  - {name: orders, properties: [{name: a}]}\n  - {name: lines, properties: [{name: b}]}\n"
    )
    found = load_contract(path)
    assert found.schema("lines").columns[0].name == "b"
    with pytest.raises(UsageError, match="orders, lines"):
        found.schema()
    with pytest.raises(UsageError, match="did you mean 'orders'"):
        found.schema("order")


def test_the_digest_is_that_of_the_content_not_of_comments(tmp_path: Path) -> None:
    body = "schema:\n  - name: t\n    properties:\n      - name: a\n"
    first, commented, other = (
        load(tmp_path, body),
        load(tmp_path, "# hello\n" + body),
        load(tmp_path, body.replace("name: a", "name: b")),
    )
    assert first.digest == commented.digest
    assert first.digest != other.digest
    assert len(first.digest) == 64


def test_personal_data_by_classification_tag_or_property(tmp_path: Path) -> None:
    schema = contract(
        tmp_path,
        """{name: a, classification: restricted}
        {name: b, tags: [pii]}
        {name: c, customProperties: [{property: personalData, value: true}]}
        {name: d, classification: public}""",
    )
    assert [c.pii for c in schema.columns] == [True, True, True, False]


def test_every_example_of_the_standard_loads(shared_data: Path, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(shared_data / "odcs" / "odcs_examples_and_schemas.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    files = sorted(tmp_path.rglob("*.odcs.yaml"))
    assert len(files) >= 16
    for path in files:
        found = load_contract(path)
        for schema in found.schemas:
            assert len(schema.coverage.enforced) <= len(schema.coverage.clauses)


def test_a_column_may_be_absent_unless_it_is_required(tmp_path: Path) -> None:
    may = "customProperties: [{property: mayBeAbsent, value: true}]"
    schema = contract(tmp_path, f"{{name: a, required: true}}\n        {{name: b, {may}}}")
    assert [(c.name, c.may_be_absent) for c in schema.columns] == [("a", False), ("b", True)]
    enforced = [(c.where, c.text) for c in schema.coverage.clauses if c.enforced]
    assert enforced == [("a", "required"), ("b", "mayBeAbsent")]
    for key in ("required", "primaryKey"):
        with pytest.raises(ContractError, match="and may be absent"):
            contract(tmp_path, f"{{name: b, {key}: true, {may}}}")


def test_the_unit_of_an_integer_time_is_ours_and_any_other_unit_is_documentation(tmp_path: Path) -> None:
    custom = "customProperties: [{property: unit, value: "
    schema = contract(
        tmp_path,
        f"""{{name: at, logicalType: integer, {custom}ms}}]}}
        {{name: weight, logicalType: integer, {custom}kg}}]}}
        {{name: length, logicalType: number, {custom}s}}]}}""",
    )
    clauses = {c.where: c for c in schema.coverage.clauses if "unit" in c.text}
    assert {name: c.enforced for name, c in clauses.items()} == {"at": True, "weight": False, "length": False}
    assert clauses["weight"].why == "not one of ours"
