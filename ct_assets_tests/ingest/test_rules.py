"""One truth table a rule, through the real path: a contract in YAML, a CSV, the reasons of each row.

Why: engines differ on NULL, empty text, decimals and regular expressions; here each rule says what it does with them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ct_assets_tests.ingest.judging import contract, judge, sales, sales_file, sales_line

# property (flow mapping), then (text, reasons) for each row
TABLES: dict[str, tuple[str, list[tuple[str, list[str]]]]] = {
    "required": (
        "{name: v, logicalType: string, required: true}",
        [("x", []), ("", ["v.required"]), (" ", []), ("NULL", [])],
    ),
    "required after trim": (
        "{name: v, required: true, customProperties: [{property: transforms, value: [trim]}]}",
        [("x", []), ("  ", ["v.required"])],
    ),
    "required number": (
        "{name: v, logicalType: integer, required: true}",
        [("1", []), ("", ["v.required"]), ("x", ["v.type"])],
    ),
    "enum": ("{name: v, enum: [a, B, '1']}", [("a", []), ("b", ["v.enum"]), ("1", []), ("", []), ("a ", ["v.enum"])]),
    "enum of integers": (
        "{name: v, logicalType: integer, enum: [1, 2]}",
        [("1", []), ("3", ["v.enum"]), ("", []), ("x", ["v.type"])],
    ),
    "enum of decimals": (
        "{name: v, logicalType: number, physicalType: 'decimal(5,2)', enum: [1.5, 2]}",
        [("1.50", []), ("2.00", []), ("2.01", ["v.enum"])],
    ),
    "minLength": ("{name: v, logicalTypeOptions: {minLength: 2}}", [("é€", []), ("é", ["v.minLength"]), ("", [])]),
    "maxLength": ("{name: v, logicalTypeOptions: {maxLength: 2}}", [("é€", []), ("abc", ["v.maxLength"]), ("", [])]),
    "pattern searches": (
        "{name: v, logicalTypeOptions: {pattern: 'b\\d'}}",
        [("ab1c", []), ("abc", ["v.pattern"]), ("b٣", ["v.pattern"]), ("", [])],
    ),
    "pattern anchored": (
        "{name: v, logicalTypeOptions: {pattern: '^[A-Z]{2}$'}}",
        [("AB", []), ("ABC", ["v.pattern"]), ("AB\n", ["v.pattern"])],
    ),
    "pattern class": (
        "{name: v, logicalTypeOptions: {pattern: '^[\\w.&~[-]+$'}}",
        [("a_1.&~[-", []), ("a b", ["v.pattern"]), ("é", ["v.pattern"])],
    ),
    "format email": (
        "{name: v, logicalTypeOptions: {format: email}}",
        [("a@b.com", []), ("a@b", ["v.format"]), ("", [])],
    ),
    "format uuid": (
        "{name: v, logicalTypeOptions: {format: uuid}}",
        [("123e4567-e89b-12d3-a456-426614174000", []), ("123e4567e89b12d3a456426614174000", ["v.format"])],
    ),
    "format i8": (
        "{name: v, logicalType: integer, logicalTypeOptions: {format: i8}}",
        [("-128", []), ("128", ["v.format"]), ("", [])],
    ),
    "minimum": (
        "{name: v, logicalType: integer, logicalTypeOptions: {minimum: 0}}",
        [("0", []), ("-1", ["v.minimum"]), ("", []), ("x", ["v.type"])],
    ),
    "exclusiveMinimum": (
        "{name: v, logicalType: integer, logicalTypeOptions: {exclusiveMinimum: 0}}",
        [("1", []), ("0", ["v.exclusiveMinimum"])],
    ),
    "maximum is exact": (
        "{name: v, logicalType: number, physicalType: 'decimal(10,3)', logicalTypeOptions: {maximum: 0.1}}",
        [("0.1", []), ("0.100", []), ("0.101", ["v.maximum"])],
    ),
    "exclusiveMaximum": (
        "{name: v, logicalType: number, logicalTypeOptions: {exclusiveMaximum: 1}}",
        [("0.999", []), ("1.0", ["v.exclusiveMaximum"])],
    ),
    "date bounds": (
        "{name: v, logicalType: date, logicalTypeOptions: {minimum: 2020-01-01, exclusiveMaximum: '2021-01-01'}}",
        [("2020-01-01", []), ("2019-12-31", ["v.minimum"]), ("2021-01-01", ["v.exclusiveMaximum"])],
    ),
    "timestamp bounds in a zone": (
        "{name: v, logicalType: timestamp, logicalTypeOptions: {timezone: true, defaultTimezone: Europe/Berlin, minimum: '2020-07-01 00:00:00', format: 'yyyy-MM-dd HH:mm:ss'}}",
        [("2020-07-01 00:00:00", []), ("2020-06-30 23:59:59", ["v.minimum"])],
    ),
    "multipleOf": (
        "{name: v, logicalType: integer, logicalTypeOptions: {multipleOf: 5}}",
        [("10", []), ("-5", []), ("7", ["v.multipleOf"])],
    ),
    "multipleOf decimal": (
        "{name: v, logicalType: number, physicalType: 'decimal(10,2)', logicalTypeOptions: {multipleOf: 0.05}}",
        [("0.15", []), ("0.30", []), ("0.12", ["v.multipleOf"])],
    ),
    "nullValues": ("{name: v, quality: [{metric: nullValues, mustBe: 0}]}", [("x", []), ("", ["v.nullValues"])]),
    "missingValues": (
        "{name: v, quality: [{metric: missingValues, mustBe: 0, arguments: {missingValues: [null, '', N/A]}}]}",
        [("x", []), ("", ["v.missingValues"]), ("N/A", ["v.missingValues"]), ("n/a", [])],
    ),
    "invalidValues list": (
        "{name: v, quality: [{metric: invalidValues, mustBe: 0, arguments: {validValues: [a, b]}}]}",
        [("a", []), ("c", ["v.invalidValues"]), ("", ["v.invalidValues"])],
    ),
    "invalidValues list with null": (
        "{name: v, quality: [{metric: invalidValues, mustBe: 0, arguments: {validValues: [a, null]}}]}",
        [("a", []), ("c", ["v.invalidValues"]), ("", [])],
    ),
    "invalidValues pattern": (
        "{name: v, quality: [{metric: invalidValues, mustBeLessThan: 1, arguments: {pattern: '^a'}}]}",
        [("ab", []), ("b", ["v.invalidValues"]), ("", [])],
    ),
    "unique": ("{name: v, unique: true}", [("a", []), ("b", []), ("a", ["v.unique"]), ("", []), ("", []), ("A", [])]),
    "unique integers": (
        "{name: v, logicalType: integer, unique: true}",
        [("1", []), ("-1", []), ("1", ["v.unique"]), ("", []), ("", [])],
    ),
    "duplicateValues": (
        "{name: v, quality: [{metric: duplicateValues, mustBe: 0, name: twice}]}",
        [("a", []), ("a", ["twice"]), ("a", ["twice"])],
    ),
    "primaryKey": ("{name: v, primaryKey: true}", [("a", []), ("", ["v.required"]), ("a", ["primary_key"])]),
    "sql": (
        "{name: v, logicalType: integer, quality: [{type: sql, name: odd, query: 'SELECT COUNT(*) FROM t WHERE ${column} > 5', mustBe: 0}]}",
        [("5", []), ("6", ["odd"]), ("", [])],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_truth_table(name: str, tmp_path: Path) -> None:
    prop, rows = TABLES[name]
    schema = contract(tmp_path, "{name: k}\n" + prop)
    judged = judge("k,v\n" + "".join(f'{i},"{text}"\n' for i, (text, _) in enumerate(rows)), schema)
    found = {
        int(raw.split(",")[0]): list(reasons)
        for raw, reasons in judged.quarantined.select("_raw", "_reasons").iter_rows()
    }
    assert [found.get(i, []) for i in range(len(rows))] == [reasons for _, reasons in rows]


def test_a_warning_annotates_and_keeps_the_row(tmp_path: Path) -> None:
    schema = contract(tmp_path, "{name: v, quality: [{metric: nullValues, mustBe: 0, severity: warning}]}\n{name: w}")
    judged = judge("v,w\n,1\nx,2\n", schema)
    assert judged.verdict.rows["good"] == 2
    assert judged.verdict.reasons == {"v.nullValues": 1}
    assert judged.verdict.decision == "accepted"


def test_one_row_counts_under_every_rule_it_breaks_warnings_included() -> None:
    lines = [sales_line(InvoiceNo=str(i)) for i in range(20)]
    judged = judge(
        sales_file(*lines, sales_line(Quantity="0", UnitPrice="-1", Description="")), sales(), "2010-12-01.csv"
    )
    assert judged.verdict.reasons == {"description_absent": 1, "zero_quantity": 1, "negative_price": 1}
    assert judged.verdict.rows == {"read": 21, "good": 20, "quarantined": 1, "duplicates": 0}
    assert sorted(judged.reasons[22]) == ["description_absent", "negative_price", "zero_quantity"]


def test_more_rules_than_bits_in_a_word(tmp_path: Path) -> None:
    columns = "\n".join(
        f"{{name: c{i}, logicalType: integer, required: true, logicalTypeOptions: {{minimum: 0}}}}" for i in range(30)
    )
    schema = contract(tmp_path, columns)
    assert len(schema.rules) == 90
    names = ",".join(f"c{i}" for i in range(30))
    row = ["1"] * 30
    judged = judge(
        names + "\n" + ",".join([*row[:29], "-1"]) + "\n" + ",".join(["x", *row[1:]]) + "\n" + ",".join(row) + "\n",
        schema,
    )
    assert judged.reasons == {2: ["c29.minimum"], 3: ["c0.type"]}
    assert judged.verdict.good == 1
