"""Faults between a file and its contract: F12-F15, F27-F29, and what must never leak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from ct_assets.contracts.errors import ContractError
from ct_assets.contracts.model import Column, DatasetSchema
from ct_assets.contracts.odcs import load_contract
from ct_assets_tests.ingest.judging import HEADER, contract, judge, sales, sales_file, sales_line, texts

AB = texts("a", "b")


@pytest.mark.fault("F12")
def test_f12_a_reordered_header_is_accepted_by_name() -> None:
    names = HEADER.split(",")
    row = sales_line().split(",")
    order = [5, 0, 7, 2, 1, 4, 3, 6]
    shuffled = ",".join(names[i] for i in order) + "\n" + ",".join(row[i] for i in order) + "\n"
    straight = judge(sales_file(sales_line()), sales(), "2010-12-01.csv")
    assert shuffled.split("\n")[0] != HEADER
    assert judge(shuffled, sales(), "2010-12-01.csv").rows == straight.rows


@pytest.mark.fault("F13")
def test_f13_a_renamed_column_stops_before_any_row_with_the_nearest_name() -> None:
    text = sales_file(sales_line()).replace("UnitPrice", "Unit_Price")
    judged = judge(text, sales(), "2010-12-01.csv")
    assert judged.rule == "missing_column"
    assert judged.verdict.read == 0
    assert "'UnitPrice'" in judged.verdict.rejected.message  # type: ignore[union-attr]
    assert "the nearest in the file is 'Unit_Price'" in judged.verdict.rejected.message  # type: ignore[union-attr]
    assert "renamedFrom: [Unit_Price]" in judged.verdict.rejected.message  # type: ignore[union-attr]


@pytest.mark.fault("F13")
def test_f13_a_declared_rename_applies() -> None:
    schema = DatasetSchema("t", (Column("UnitPrice", renamed_from=("Unit_Price",)), Column("b")))
    assert judge("Unit_Price,b\n1,2\n", schema).rows == [("1", "2")]


@pytest.mark.fault("F14")
def test_f14_an_added_column_warns_or_rejects_when_closed() -> None:
    judged = judge("a,b,extra\n1,2,3\n", AB)
    assert judged.rows == [("1", "2")]
    assert any("'extra'" in w and "add it" in w for w in judged.verdict.warnings)
    assert judge("a,b,extra\n1,2,3\n", replace(AB, closed=True)).rule == "unknown_column"


@pytest.mark.fault("F15")
@pytest.mark.parametrize(
    ("header", "case", "rule"),
    [
        ("a,b,a", "exact", "duplicate_column"),
        ("a,b,A", "exact", None),
        ("a,b,A", "insensitive", "duplicate_column"),
        ("A,B,c", "insensitive", None),
        ("A,B,c", "exact", "missing_column"),
    ],
)
def test_f15_duplicate_and_case_different_headers(header: str, case: str, rule: str | None) -> None:
    schema = replace(AB, dialect=replace(AB.dialect, header_case=case))
    assert judge(header + "\n1,2,3\n", schema).rule == rule


@pytest.mark.fault("F27")
def test_f27_names_are_data_and_expressions_are_parsed_not_run(tmp_path: Path) -> None:
    evil = 'x"; DROP TABLE t; --'
    judged = judge(f'"{evil.replace(chr(34), chr(34) * 2)}",b\n1,2\n', texts(evil, "b"))
    assert judged.good.columns == [evil, "b", "_line"]
    for query in (
        "SELECT COUNT(*) FROM t WHERE a = '1'; DROP TABLE t",
        "SELECT COUNT(*) FROM t WHERE pg_sleep(9) = '1'",
    ):
        with pytest.raises(ContractError, match="cannot use the expression"):
            contract(tmp_path, "{name: a}", f'    quality: [{{type: sql, query: "{query}", mustBe: 0}}]\n')


CANARY = "canary.person@example.com"


@pytest.mark.fault("F28")
def test_f28_no_personal_value_in_verdicts_messages_or_proposed_contracts(tmp_path: Path) -> None:
    """Personal values stay in the quarantine's rows; lines, logs and files that go to git never show one."""
    from ct_assets.cli.contract import contract as group
    from ct_assets.cli.verdict import verdict

    path = tmp_path / "people.csv"
    path.write_text("customer_email,n\n" + f"{CANARY},1\n" * 3 + f"{CANARY},x\n")
    rules = tmp_path / "c.yaml"
    rules.write_text(
        "apiVersion: v3.1.0\nkind: DataContract\nid: t\nversion: 1.0.0\nstatus: active\nschema:\n  - name: t\n    properties:\n      - {name: customer_email, unique: true, classification: pii}\n      - {name: n, logicalType: integer}\n"
    )
    for options in ([], ["--json"]):
        run = CliRunner().invoke(verdict, ["--contract", str(rules), *options, str(path)], standalone_mode=False)
        assert "n.type" in run.output, "the fault must be seen"
        assert CANARY not in run.output
    run = CliRunner().invoke(group, ["infer", str(path)], standalone_mode=False)
    assert "personal data" in run.output
    assert CANARY not in run.output


ODCS = "apiVersion: v3.1.0\nkind: DataContract\n"
BOMB = "a: &a [x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n" + "".join(
    f"c{i}: &c{i} [{', '.join([f'*c{i - 1}' if i else '*b'] * 9)}]\n" for i in range(5)
)


@pytest.mark.fault("F29")
@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: !!python/object/apply:os.system ['touch /tmp/pwned']\n", 1, "a tag (tag:yaml.org,2002:python"),
        (BOMB, 1, "more than 50000 values once aliases are expanded"),
        ("a: " + "[" * 60 + "]" * 60, 1, "nested deeper than 40 levels"),
        ("a: " + "[" * 5_000 + "]" * 5_000, 1, "nested too deeply"),
        ("a: &a {b: *a}\n", 1, "nested deeper than 40 levels"),
        ("a: 1\nb: 2\na: 3\n", 3, "the key 'a' is already given on line 1"),
        ("a: 1\n" + "# " + "x" * 600_000 + "\n", 1, "a contract has at most 524,288"),
        ("\x00\x01", 1, "not valid YAML"),
        (f"{ODCS}schema: 5\n", 3, "schema"),
        (f"{ODCS}schema: [5]\n", 3, "schema"),
        (f"{ODCS}schema: [{{name: t, properties: [5]}}]\n", 3, "properties"),
        (f"{ODCS}schema: [{{name: t, properties: [{{name: a, quality: [5]}}]}}]\n", 3, "quality"),
        (f"{ODCS}schema: [{{name: t, customProperties: {{a: 1}}, properties: [{{name: a}}]}}]\n", 3, "customProperties"),
        (f"{ODCS}schema: [{{name: t, customProperties: [{{property: dialect, value: 5}}], properties: [{{name: a}}]}}]\n", 3, "dialect"),
        (f"{ODCS}schema: [{{name: t, properties: [{{name: a, logicalTypeOptions: 5}}]}}]\n", 3, "logicalTypeOptions"),
        (f"{ODCS}schema: [{{name: t, properties: [{{name: a, logicalTypeOptions: {{maxLength: x}}}}]}}]\n", 3, "maxLength"),
    ],
    ids=["tag", "bomb", "deep", "deeper", "itself", "twice", "large", "nul", *"abcdefgh"],
)  # fmt: skip
def test_f29_a_hostile_contract_is_an_error_with_a_line(text: str, line: int, says: str, tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text(text)
    with pytest.raises(ContractError) as caught:
        load_contract(path).schema()
    assert caught.value.line == line
    assert says in str(caught.value)


@pytest.mark.fault("F29")
def test_f29_markup_in_descriptions_is_text(tmp_path: Path) -> None:
    schema = contract(tmp_path, "{name: a, description: '<script>alert(1)</script>'}")
    assert schema.columns[0].description == "<script>alert(1)</script>", "kept as text; whoever renders HTML escapes it"


@pytest.mark.fault("F28")
def test_f28_a_file_without_header_does_not_show_its_first_row() -> None:
    judged = judge(f"{CANARY},7\n{CANARY},8\n", texts("customer_email", "n"))
    assert judged.rule == "missing_column"
    assert CANARY not in judged.verdict.rejected.message  # type: ignore[union-attr]
    assert "has the file a header?" in judged.verdict.rejected.message  # type: ignore[union-attr]
