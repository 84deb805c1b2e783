"""Faults in the bytes of a file: F05 (torn tail), F08-F11, F16-F19, F22-F26 at the front door.

Each test first shows that its fault is really in the bytes (an independent reader is misled by them), then what becomes
of it. Grains of the other faults of files are in ``test_files_contract.py``.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from ct_assets.contracts.model import DatasetSchema, Dialect
from ct_assets_tests.ingest.judging import contract, judge, sales, sales_file, sales_line, texts

AB = texts("a", "b")


@pytest.mark.fault("F05")
@pytest.mark.parametrize("cut", [5, 20, 45, 60])
def test_f05_torn_tail_rejects_the_file(cut: int) -> None:
    whole = sales_file(sales_line(), sales_line(InvoiceNo="2"))
    torn = whole.rstrip("\n")[:-cut]
    last = torn.rsplit("\n", 1)[1]
    judged = judge(torn, sales(), "2010-12-01.csv")
    if last.count(",") == 7:
        assert judged.verdict.decision == "accepted"
        assert any("no line end" in warning for warning in judged.verdict.warnings)
    else:
        assert judged.rule == "torn_tail"
        assert judged.verdict.rejected is not None
        assert judged.verdict.rejected.line == 3
    required = replace(sales(), dialect=Dialect(final_newline=True))
    assert judge(torn, required, "2010-12-01.csv").rule == "torn_tail", "a contract may ask for the line end"
    assert judge(whole, required, "2010-12-01.csv").rule is None


@pytest.mark.fault("F08")
def test_f08_byte_order_mark_is_stripped() -> None:
    judged = judge(b"\xef\xbb\xbfa,b\n1,2\n", AB)
    assert judged.rows == [("1", "2")]


@pytest.mark.fault("F08")
@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ("utf-16", "begins a UTF-16 (little endian) mark"),
        ("utf-16-le", "NUL at byte 1 of the header"),
        ("utf-16-be", "NUL at byte 0 of the header"),
        ("utf-32", "begins a UTF-16 (little endian) mark"),
    ],
)
def test_f08_utf16_is_rejected_not_read_as_garbage(encoding: str, says: str) -> None:
    data = "a,b\n1,2\n".encode(encoding)
    assert b"\x00" in data
    judged = judge(data, AB)
    assert judged.rule == "encoding"
    assert says in judged.verdict.rejected.message  # type: ignore[union-attr]


@pytest.mark.fault("F08")
def test_f08_latin1_is_rejected_with_the_byte_offset() -> None:
    data = "a,b\n1,2\n3,caf\u00e9\n".encode("latin-1")
    offset = data.index(b"\xe9")
    for chunk in (4, 1 << 20):
        judged = judge(data, AB, chunk_bytes=chunk)
        assert judged.rule == "encoding"
        assert f"byte {offset} (0xe9)" in judged.verdict.rejected.message  # type: ignore[union-attr]
        assert judged.verdict.rejected.line == 3  # type: ignore[union-attr]
    declared = replace(AB, dialect=Dialect(encoding="latin-1"))
    assert judge(data, declared).rows[1] == ("3", "caf\u00e9")


@pytest.mark.fault("F09")
@pytest.mark.parametrize("plain", [0, 500], ids=["much is quoted", "few quotes"])
def test_f09_embedded_newlines_quotes_and_mixed_line_ends(plain: int) -> None:
    data = 'a,b\r\n"x\r\ny","say ""hi"""\n1,2\r\n' + "3,4\n" * plain
    assert data.count("\n") == plain + 4, "one more than the records and the header have"
    judged = judge(data, AB)
    assert judged.rows == [("x\r\ny", 'say "hi"'), ("1", "2"), *[("3", "4")] * plain]
    assert judged.good["_line"].to_list() == [2, 4, *range(5, 5 + plain)]


@pytest.mark.fault("F10")
@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("chunk", [100_000, 4 << 20])
def test_f10_a_field_of_a_million_characters_is_quarantined_with_a_preview(quoted: bool, chunk: int) -> None:
    field = "é" * 1_000_000
    data = f"a,b\n1,2\n3,{f'{chr(34)}{field}{chr(34)}' if quoted else field}\n4,5\n"
    judged = judge(data, AB, chunk_bytes=chunk)
    assert judged.rows == [("1", "2"), ("4", "5")]
    assert judged.reasons == {3: ["field_too_long"]}
    preview = judged.quarantined["_raw"][0]
    assert preview.startswith("3,")
    assert len(preview.encode()) <= 1_000


@pytest.mark.fault("F10")
def test_f10_a_row_over_the_cap_is_quarantined() -> None:
    names = [f"c{i}" for i in range(20)]
    schema = texts(*names)
    data = ",".join(names) + "\n" + ",".join(["x" * 100_000] * 20) + "\n" + ",".join("1" * 20) + "\n"
    judged = judge(data, schema)
    assert judged.reasons == {2: ["row_too_long"]}
    assert judged.verdict.good == 1


@pytest.mark.fault("F11")
@pytest.mark.parametrize("control", ["\x00", "\x01", "\x08", "\x0b", "\x1b", "\x1f", "\r"])
@pytest.mark.parametrize("quoted", [True, False])
def test_f11_nul_and_control_bytes_quarantine_the_row(control: str, quoted: bool) -> None:
    if control == "\r" and quoted:  # RFC 4180 allows it there
        assert judge(f'a,b\n"x{control}y",2\n', AB).rows == [(f"x{control}y", "2")]
        return
    mark = '"' if quoted else ""
    judged = judge(f"a,b\n1,2\n{mark}x{control}y{mark},4\n5,6\n", AB)
    assert judged.rows == [("1", "2"), ("5", "6")]
    assert judged.reasons == {3: ["control_byte"]}
    assert "\x00" not in judged.quarantined["_raw"][0], "PostgreSQL must be able to store the quarantine"


@pytest.mark.fault("F11")
def test_f11_a_tab_is_text() -> None:
    assert judge("a,b\nx\ty,2\n", AB).rows == [("x\ty", "2")]


@pytest.mark.fault("F16")
def test_f16_type_drift_quarantines_those_rows_and_over_budget_the_batch(tmp_path: Path) -> None:
    budget = "    customProperties: [{property: maxBadFraction, value: 0.5}]\n"
    schema = contract(tmp_path, "{name: n, logicalType: integer}\n{name: b}", budget)
    judged = judge("n,b\n" + "1,x\n" * 6 + "n/a,x\n" * 4, schema)
    assert judged.verdict.reasons == {"n.type": 4}
    assert judged.verdict.good == 6
    assert judge("n,b\n" + "1,x\n" * 4 + "n/a,x\n" * 6, schema).rule == "max_bad_fraction"


@pytest.mark.fault("F17")
def test_f17_only_declared_date_forms_are_read(tmp_path: Path) -> None:
    schema = contract(tmp_path, "{name: d, logicalType: date, logicalTypeOptions: {format: dd/MM/yyyy}}\n{name: b}")
    judged = judge("d,b\n03/04/2011,1\n2011-04-03,2\n4/3/2011,3\n13/13/2011,4\n31/02/2011,5\n", schema)
    assert [str(v) for v in judged.good["d"]] == ["2011-04-03"]
    assert set(judged.reasons) == {3, 4, 5, 6}


@pytest.mark.fault("F18")
def test_f18_decimal_comma_thousands_and_currency_only_if_declared(tmp_path: Path) -> None:
    rows = 'p,b\n1.50,1\n"1,50",2\n"1.234,50",3\n€2,4\n1.5055,5\n'
    plain = contract(tmp_path, "{name: p, logicalType: number, physicalType: 'decimal(9,2)'}\n{name: b}")
    strict = judge(rows, plain)
    assert strict.good["p"].to_list() == [Decimal("1.50")]
    assert set(strict.reasons) == {3, 4, 5, 6}, "1.5055 is not rounded: the contract has two decimals"
    form = "customProperties: [{property: numberFormat, value: {decimal: ',', group: '.', currency: '€'}}]"
    declared = contract(
        tmp_path, f"{{name: p, logicalType: number, physicalType: 'decimal(9,2)', {form}}}\n{{name: b}}"
    )
    judged = judge(rows, declared)
    assert judged.good["p"].to_list() == [Decimal("1.50"), Decimal("1234.50"), Decimal("2.00")]
    assert set(judged.reasons) == {2, 6}, "neither 1.50 nor 1.5055 is a number of that form"


@pytest.mark.fault("F19")
@pytest.mark.parametrize(
    ("text", "valid_float"),
    [
        ("NaN", False),
        ("nan", False),
        ("inf", False),
        ("-inf", False),
        ("Infinity", False),
        ("1e400", False),
        ("9223372036854775808", True),
        ("007", False),
        ("0000000000000007", False),  # too long for the fast reader
    ],
)
def test_f19_not_finite_overflowing_and_zero_led_numbers_are_invalid(
    text: str, valid_float: bool, tmp_path: Path
) -> None:
    schema = contract(tmp_path, "{name: f, logicalType: number}\n{name: n, logicalType: integer}\n{name: id}")
    judged = judge(f"f,n,id\n{text},{text},{text}\n1.5,7,007\n", schema)
    assert judged.reasons == {2: ["n.type"] if valid_float else ["f.type", "n.type"]}
    assert judged.good.drop("_line").rows() == [(1.5, 7, "007")], "identifiers are text"


@pytest.mark.fault("F22")
def test_f22_skipped_and_repeated_local_times_are_quarantined() -> None:
    skipped = judge(
        sales_file(
            *[sales_line(InvoiceNo=str(i), InvoiceDate="2011-03-27 12:00:00") for i in range(20)],
            sales_line(InvoiceDate="2011-03-27 01:30:00"),
        ),
        sales(),
        "2011-03-27.csv",
    )
    assert skipped.reasons == {22: ["InvoiceDate.nonexistent_local_time"]}
    repeated = judge(
        sales_file(
            *[sales_line(InvoiceNo=str(i), InvoiceDate="2011-10-30 12:00:00") for i in range(20)],
            sales_line(InvoiceDate="2011-10-30 01:30:00"),
        ),
        sales(),
        "2011-10-30.csv",
    )
    assert repeated.reasons == {22: ["InvoiceDate.ambiguous_local_time"]}
    assert skipped.good["InvoiceDate"][0] == datetime(2011, 3, 27, 11, tzinfo=UTC)


@pytest.mark.fault("F22")
def test_f22_future_and_ancient_times_are_bounded_by_the_contract(tmp_path: Path) -> None:
    schema = contract(
        tmp_path,
        "{name: t, logicalType: timestamp, logicalTypeOptions: {format: 'yyyy-MM-dd HH:mm:ss', minimum: '2000-01-01 00:00:00', exclusiveMaximum: '2100-01-01 00:00:00'}}\n{name: b}",
    )
    judged = judge("t,b\n0001-01-01 00:00:00,1\n2011-01-01 00:00:00,2\n9999-12-31 23:59:59,3\n", schema)
    assert judged.reasons == {2: ["t.minimum"], 4: ["t.exclusiveMaximum"]}


# ru_maxrss of a process includes what its parent held when it forked, so a large test runner would be measured.
MEMORY = """
import io, pathlib, resource, sys
from ct_assets.contracts.odcs import load_contract
from ct_assets.ingest.judge import Judgement

class Endless(io.RawIOBase):
    def __init__(self, total):
        self.left, self.block = total, (sys.argv[2] + "\\n").encode() * 1_000
        self.head = (sys.argv[3] + "\\n").encode()
        self.n = 0
    def read(self, size=-1):
        if self.head:
            head, self.head = self.head, b""
            return head
        if self.left <= 0: return b""
        out = b"".join(b"%d%s\\n" % (self.n + i, sys.argv[2].encode()) for i in range(size // 90))
        self.n += size // 90
        self.left -= len(out)
        return out

schema = load_contract(sys.argv[1]).schema()
def peak(total):
    verdict = Judgement(Endless(total), schema, name="2010-12-01.csv").exhaust()
    assert verdict.rejected is None and verdict.quarantined == 0, verdict
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        high = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return verdict.read, int(high.split()[1]) // 1024
    return verdict.read, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20
print(*peak(20 << 20), *peak(200 << 20))
"""


@pytest.mark.fault("F23")
@pytest.mark.slow
def test_f23_memory_is_bounded_at_ten_times_the_size() -> None:
    from ct_assets_tests.conftest import ROOT
    from ct_assets_tests.ingest.judging import HEADER, SALES

    line = sales_line(InvoiceNo="")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(ROOT / SALES), line, HEADER],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    rows, peak, rows10, peak10 = map(int, done.stdout.split())
    assert rows10 > 9 * rows
    assert peak10 < 400, f"{peak} MB, then {peak10} MB at ten times the size"
    assert peak10 - peak < 150


@pytest.mark.fault("F24")
@pytest.mark.parametrize(
    ("data", "rule"),
    [(b"", "empty_file"), (b"\xef\xbb\xbf", "empty_file"), (b"a,b\n", "header_only"), (b"a,b\n\n\n", "header_only")],
)
def test_f24_empty_and_header_only_files_are_rejected(data: bytes, rule: str) -> None:
    judged = judge(data, AB)
    assert judged.rule == rule
    assert judged.verdict.rows == {"read": 0, "good": 0, "quarantined": 0, "duplicates": 0}


GZIP, ZIP = replace(AB, dialect=Dialect(compression="gzip")), replace(AB, dialect=Dialect(compression="zip"))
CSV = b"a,b\n1,2\n3,4\n"


def zipped(**members: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return held.getvalue()


@pytest.mark.fault("F25")
def test_f25_declared_archives_are_read_and_undeclared_ones_refused() -> None:
    for data, schema in (
        (gzip.compress(CSV), GZIP),
        (zipped(x=CSV), ZIP),
        (gzip.compress(CSV[:6]) + gzip.compress(CSV[6:]), GZIP),
    ):
        for chunk in (3, 1 << 20):
            assert judge(data, schema, chunk_bytes=chunk).rows == [("1", "2"), ("3", "4")]
        assert judge(data, AB).rule == "encoding"


@pytest.mark.fault("F25")
def test_f25_a_bomb_is_stopped_by_ratio_and_by_bytes() -> None:
    bomb = gzip.compress(b"a,b\n" + b"1,2\n" * 4_000_000)
    assert len(bomb) < 16_000_000 / 200, "it must be one"
    assert judge(bomb, GZIP).rule == "archive_ratio"
    assert judge(zipped(x=b"a,b\n" + b"1,2\n" * 4_000_000), ZIP).rule == "archive_ratio"
    capped = replace(AB, dialect=Dialect(compression="gzip", max_unpacked_bytes=1_000))
    assert judge(gzip.compress(b"a,b\n" + b"1,2\n" * 1_000), capped).rule == "archive_too_large"


@pytest.mark.fault("F25")
def test_f25_paths_links_and_several_members_are_refused() -> None:
    for name in ("../../etc/passwd", "/etc/passwd", "..\\x.csv", "C:\\x.csv"):
        assert judge(zipped(**{name: CSV}), ZIP).rule == "archive_path", name
    assert judge(zipped(a=CSV, b=CSV), ZIP).rule == "archive_members"
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        link = zipfile.ZipInfo("x.csv")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert judge(held.getvalue(), ZIP).rule == "archive_link"


@pytest.mark.fault("F25")
@pytest.mark.parametrize(
    ("data", "schema", "rule"),
    [
        (b"no gzip", GZIP, "archive_broken"),
        (gzip.compress(CSV)[:-5], GZIP, "archive_torn"),
        (b"no zip", ZIP, "archive_broken"),
        (b"", GZIP, "empty_file"),
    ],
    ids=[
        "no gzip",
        "torn gzip",
        "no zip",
        "empty",
    ],  # gzip writes the time: made from bytes, ids would differ by worker
)
def test_f25_broken_and_torn_archives(data: bytes, schema: DatasetSchema, rule: str) -> None:
    assert judge(data, schema).rule == rule


@pytest.mark.fault("F26")
@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x","y")', "\t=1"])
def test_f26_formulas_are_stored_verbatim(text: str) -> None:
    quoted = '"' + text.replace('"', '""') + '"'
    assert judge(f"a,b\n{quoted},2\n", AB).rows == [(text, "2")]


@pytest.mark.fault("F20")
def test_f20_a_negative_quantity_needs_a_cancellation() -> None:
    lines = [sales_line(InvoiceNo=str(i)) for i in range(20)]
    judged = judge(
        sales_file(
            *lines, sales_line(InvoiceNo="C1", Quantity="-6"), sales_line(Quantity="-6"), sales_line(InvoiceNo="C2")
        ),
        sales(),
        "2010-12-01.csv",
    )
    assert judged.reasons == {23: ["negative_quantity_without_cancellation"], 24: ["positive_quantity_on_cancellation"]}
    assert judged.good.filter(judged.good["Quantity"] < 0)["InvoiceNo"].to_list() == ["C1"]


@pytest.mark.fault("F21")
def test_f21_exact_duplicates_collapse_and_conflicting_keys_are_quarantined(tmp_path: Path) -> None:
    custom = "    customProperties: [{property: onExactDuplicate, value: collapse}]\n"
    schema = contract(tmp_path, "{name: id, primaryKey: true}\n{name: v}", custom)
    judged = judge("id,v\n1,a\n1,a\n1,b\n2,a\n", schema, chunk_bytes=6)
    assert judged.verdict.rows == {"read": 4, "good": 2, "quarantined": 1, "duplicates": 1}
    assert judged.reasons == {4: ["primary_key"]}
