"""Decoding: the scanner equals the exact reader on damaged look-alikes, and the truth table of values holds.

Why damage: a scanner that trusts a layout would take `{"a":1,}` or `01` for what it resembles.
"""

from __future__ import annotations

import datetime as dt
import io
import json
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any

import fastavro
import numpy as np
import polars as pl
import pytest

from ct_assets.streaming.avro import AvroDecoder, UnknownSchema
from ct_assets.streaming.decode import JsonDecoder
from ct_assets.streaming.messages import Messages
from ct_assets.streaming.text import PAD, Bytes, decimals, integers, timestamps
from ct_assets.streaming.times import NotATime, microseconds
from ct_assets_tests.streaming.random_streams import apart, base_definition, payload, random_event

DEFINITION = base_definition()
NEVER = 10**9


def decode(values: list[bytes | None], scan_from: int, definition: Any = DEFINITION) -> tuple[list[Any], list[Any]]:
    return decoded(Messages.from_values(values), scan_from, definition)


def decoded(messages: Messages, scan_from: int, definition: Any = DEFINITION) -> tuple[list[Any], list[Any]]:
    found = JsonDecoder(definition.schema, definition.acceptance, scan_from=scan_from).decode(messages)
    return list(found.frame.iter_rows()), [(d.index, d.reason) for d in found.dead]


def damaged(raw: bytes, rng: Random) -> bytes:
    """One to three bytes replaced, removed, doubled or inserted."""
    out = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 3])):
        at = rng.randrange(len(out))
        change = rng.choice(["replace", "remove", "double", "insert"])
        byte = rng.choice(b'0019.-+eE",:{}[]\\ntz \t\r\x00\x1f\n\x80\xc3Z:T' + bytes(range(32, 127)))
        if change == "replace":
            out[at] = byte
        elif change == "remove" and len(out) > 1:
            del out[at]
        else:
            out.insert(at, out[at] if change == "double" else byte)
    return bytes(out)


@pytest.mark.parametrize("seed", range(12))
def test_the_scanner_equals_the_exact_reader_on_damaged_messages(seed: int) -> None:
    rng = Random(seed)
    values: list[bytes | None] = []
    for number in range(400):
        raw = payload(
            random_event(rng, number, 1_767_225_600_000_000 + rng.randrange(10**12), True), rng if seed % 2 else None
        )
        values.append(damaged(raw, rng) if rng.random() < 0.6 else raw)
    expected = decode(values, NEVER)
    assert decode(values, 1) == expected
    assert decoded(apart(values, rng.choice([b"\n", b'"\xff\\', b"\x00" * 9])), 1) == expected


@pytest.mark.parametrize(
    "text", [b"\xff", b"a\x80", b"\xc3", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"a\x01", b"\x7f", "\u00e9".encode()]
)
def test_texts_that_are_no_text(text: bytes) -> None:
    body = b'{"event_id":"e%d","user_id":1,"event_time":"2026-01-01T00:00:00Z","kind":"click","note":"%s"}'
    values: list[bytes | None] = [body % (0, b"fine"), body % (1, text), body % (2, "\u00fc".encode())]
    rows, dead = decode(values, 1)
    assert (rows, dead) == decode(values, NEVER)
    good = text in (b"\x7f", "\u00e9".encode())
    assert [row[0] for row in rows] == (["e0", "e1", "e2"] if good else ["e0", "e2"])
    assert dead == ([] if good else [(1, "contract" if text == b"\\u0000" else "poison")])


NUMBERS = [
    "0",
    "-0",
    "01",
    "-01",
    "1",
    "-1",
    "+1",
    "1.",
    ".5",
    "-.5",
    "1.5",
    "1.50",
    "1.500",
    "1.5000",
    "00.5",
    "-0.5",
    "1e2",
    "1E-2",
    "0.1e1",
]
NUMBERS += [
    "9" * 9,
    "9" * 10,
    "9" * 11,
    "9" * 18,
    "9" * 19,
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "9" * 30,
]
NUMBERS += [
    "9999999999.99",
    "99999999999.99",
    "1.005",
    "123456789012345678.25",
    "9007199254740993",
    "0.1",
    "0.30000000000000004",
    "1.7976931348623157e308",
    "1e999",
    "NaN",
]
NUMBERS += [
    "null",
    "nul",
    "nulll",
    "true",
    "false",
    "1 ",
    " 1",
    '"1.5"',
    '"01"',
    '" 1"',
    '"1e2"',
    '""',
    "[]",
    "{}",
    "1_0",
    "٣",
]


@pytest.mark.parametrize("name", ["amount", "big", "units", "score", "extra"])
def test_every_written_form_of_a_number_is_read_alike(name: str) -> None:
    body = '{{"event_id":"e{0}","user_id":1,"event_time":"2026-01-01T00:00:00Z","kind":"click","{1}":{2}}}'
    values: list[bytes | None] = [body.format(n, name, text).encode() for n, text in enumerate(NUMBERS)]
    rows, dead = decode(values * 2, 1)
    assert (rows, dead) == decode(values * 2, NEVER)
    assert [(index, reason) for index, reason in dead if reason == "poison"] != []
    if name != "extra":
        column = DEFINITION.schema.columns.index(DEFINITION.schema.column(name))
        read = {row[0]: row[column] for row in rows}
        for n, text in enumerate(NUMBERS):
            if f"e{n}" in read and read[f"e{n}"] is not None:
                assert Decimal(read[f"e{n}"]) == (
                    Decimal(float(text)) if name == "score" else Decimal(text.strip().strip('"'))
                )


TIMES = [
    "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00.5Z",
    "2026-01-01T00:00:00.123456Z",
    "2026-01-01T00:00:00.123456789Z",
    "2026-01-01T00:00:00.1234567890Z",
]
TIMES += [
    "2024-02-29T23:59:59Z",
    "2025-02-29T00:00:00Z",
    "2100-02-29T00:00:00Z",
    "2000-02-29T00:00:00Z",
    "2026-00-01T00:00:00Z",
    "2026-13-01T00:00:00Z",
    "2026-04-31T00:00:00Z",
]
TIMES += [
    "2026-01-01T24:00:00Z",
    "2026-01-01T00:60:00Z",
    "2026-01-01T00:00:60Z",
    "2026-01-01T00:00Z",
    "2026-01-01 00:00:00Z",
    "2026-01-01t00:00:00z",
    "2026-01-01T00:00:00,5Z",
]
TIMES += [
    "2026-01-01T00:00:00+05:30",
    "2026-01-01T00:00:00-23:59",
    "2026-01-01T00:00:00+24:00",
    "2026-01-01T00:00:00+00:60",
    "2026-01-01T00:00:00+0530",
    "2026-01-01T00:00:00.25+05",
]
TIMES += [
    "2026-01-01T00:00:00",
    "2026-1-01T00:00:00Z",
    "2026-01-01",
    "",
    "2026-01-01T00:00:00.Z",
    "2026-01-01T0a:00:00Z",
    "2026/01/01T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "1969-12-31T23:59:59.999999Z",
]


def test_vectorised_times_are_sure_only_where_the_exact_reader_agrees() -> None:
    answers = []
    for text in TIMES:  # a batch of its own each: a reader looks at few lengths of a batch
        length = np.array([len(text)], np.int64)
        value, sure = timestamps(Bytes.padded(text.encode()), np.array([PAD]), length)
        answers.append((int(value[0]), bool(sure[0])))
    exact: list[int | None] = []
    for text in TIMES:
        try:
            exact.append(microseconds(text))
        except NotATime:
            exact.append(None)
    for text, (got, certain), want in zip(TIMES, answers, exact, strict=True):
        assert not certain or got == want, text
    assert [t for t, (_, certain) in zip(TIMES, answers, strict=True) if certain][:4] == TIMES[:4]
    assert exact[0] == 1_767_225_600_000_000
    assert exact[19] == exact[0] - 19_800_000_000


def test_digits_beyond_eighteen_are_left_to_the_exact_reader() -> None:
    texts = ["9" * n for n in range(1, 25)]
    data = Bytes.padded("".join(texts).encode())
    length = np.array([len(t) for t in texts], np.int64)
    start = np.cumsum(length) - length + PAD
    value, sure = integers(data, start, length)
    assert sure.tolist() == [n <= 18 for n in range(1, 25)]
    assert value[:18].tolist() == [int(t) for t in texts[:18]]
    _, sure = decimals(data, start, length, 3)
    assert sure.tolist() == [n <= 15 for n in range(1, 25)]


def test_local_times_of_a_declared_zone() -> None:
    columns = tuple(
        replace(c, time_zone="Europe/Berlin", offsets=False) if c.name == "event_time" else c
        for c in DEFINITION.schema.columns
    )
    definition = replace(DEFINITION, schema=replace(DEFINITION.schema, columns=columns))
    body = '{{"event_id":"e{}","user_id":1,"event_time":"{}","kind":"click"}}'
    texts = ["2026-07-01T02:00:00", "2026-10-25T02:30:00", "2026-03-29T02:30:00", "2026-07-01T02:00:00Z"]
    values: list[bytes | None] = [body.format(n, t).encode() for n, t in enumerate(texts)]
    rows, dead = decode(values, 1, definition)
    assert dead == [(1, "contract"), (2, "contract")]
    assert [row[2].isoformat() for row in rows] == ["2026-07-01T00:00:00+00:00", "2026-07-01T02:00:00+00:00"]


def test_rules_of_the_contract_refuse_and_name_themselves() -> None:
    from ct_assets.streaming.definition import load_definition
    from ct_assets_tests.conftest import ROOT

    shop = load_definition(ROOT / "ct_assets/defs/growth/shop/streams/user_activity.yaml")
    body = '{{"event_id":"e{}","user_id":1,"event_time":"2026-01-01T00:00:00Z","event_type":"{}","amount":{}}}'
    cases = [
        ("purchase", "1.00"),
        ("purchase", "-0.01"),
        ("refund", "0.01"),
        ("refund", "-5"),
        ("view", "null"),
        ("click", "null"),
    ]
    messages = Messages.from_values([body.format(n, kind, amount).encode() for n, (kind, amount) in enumerate(cases)])
    found = JsonDecoder(shop.schema, shop.acceptance, scan_from=1).decode(messages)
    assert [(d.index, d.reason, d.error) for d in found.dead] == [
        (1, "contract", "breaks negative_purchase"),
        (2, "contract", "breaks positive_refund"),
        (4, "contract", "breaks event_type.enum"),
    ]
    assert found.frame["_i"].to_list() == [0, 3, 5]
    assert found.frame["amount"].to_list() == [Decimal("1.00"), Decimal("-5.00"), None]


AVRO = {
    "type": "record",
    "name": "E",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "user_id", "type": ["null", "long"]},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "kind", "type": "string"},
        {"name": "amount", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}]},
    ],
}


def avro(event: dict[str, Any], schema_id: int = 7) -> bytes:
    out = io.BytesIO(b"\0" + schema_id.to_bytes(4, "big"))
    out.seek(5)
    fastavro.schemaless_writer(out, fastavro.parse_schema(AVRO), event)
    return out.getvalue()


@pytest.mark.case(19)
def test_case_19_avro_in_confluent_framing() -> None:
    moment = dt.datetime(2026, 1, 1, 0, 0, 0, 1, dt.UTC)
    good = {
        "event_id": "a",
        "user_id": 9_007_199_254_740_993,
        "event_time": moment,
        "kind": "click",
        "amount": Decimal("12.30"),
    }
    whole = avro(good)
    values = [
        whole,
        whole[:-3],
        b"\1" + whole[1:],
        avro(good, 99),
        None,
        whole + b"x",
        avro({**good, "user_id": None}),
        b"\0\0",
    ]
    asked: list[int] = []

    def registry(schema_id: int) -> str:
        asked.append(schema_id)
        return {7: json.dumps(AVRO)}[schema_id]

    found = AvroDecoder(DEFINITION.schema, DEFINITION.acceptance, registry).decode(Messages.from_values(values))
    assert [(d.index, d.reason) for d in found.dead] == [
        (1, "poison"),
        (2, "poison"),
        (3, "poison"),
        (5, "poison"),
        (6, "null_key"),
        (7, "poison"),
    ]
    assert found.tombstones.tolist() == [4]
    row = found.frame.row(0, named=True)
    assert (row["user_id"], row["event_time"], row["amount"]) == (9_007_199_254_740_993, moment, Decimal("12.30"))
    assert asked == [7, 99]
    strict = AvroDecoder(DEFINITION.schema, DEFINITION.acceptance, registry, unknown_is_dead=False)
    with pytest.raises(UnknownSchema, match="99"):
        strict.decode(Messages.from_values([avro(good, 99)]))


def test_frames_have_the_declared_types_also_when_empty() -> None:
    for values in ([], [b"poison"], [None]):
        found = JsonDecoder(DEFINITION.schema, DEFINITION.acceptance).decode(Messages.from_values(values))
        assert found.frame.schema["amount"] == pl.Decimal(12, 2)
        assert found.frame.schema["event_time"] == pl.Datetime("us", "UTC")
        assert found.frame.height == 0


@pytest.mark.parametrize(
    ("column", "raw", "error"),
    [
        ("amount", "1.505", "amount: 1.505 is no decimal(12,2)"),
        ("amount", '"1.505"', 'amount: "1.505" is no decimal(12,2)'),
        ("amount", "1E+400", "amount: 1E+400 is no decimal(12,2)"),
        ("amount", "true", "amount: true is no decimal"),
        ("amount", "[1.50, null]", "amount: [1.50, null] is no decimal"),
        ("units", "true", "units: true is no integer"),
        ("units", "1.0", "units: 1.0 is no integer"),
        ("units", '"1"', 'units: "1" is no integer'),
        ("units", "9223372036854775808", "units: 9223372036854775808 is beyond 64 bits"),
        ("score", "false", "score: false is no number"),
        ("score", "1e999", "score: 1E+999 is beyond a double"),
        ("score", '{"a": {"b": [true, 0.10]}}', 'score: {"a": {"b": [true, 0.10]}} is no number'),
        ("note", "0.10", "note: 0.10 is no string"),
        ("note", '["\u00e9", {}]', 'note: ["\u00e9", {}] is no string'),
        ("note", "[" * 90 + "]" * 90, "note: [[[[...]]]] is no string"),
        ("day", "20260101", "day: 20260101 is no date"),
        ("day", '"2026-13-01"', 'day: "2026-13-01" is no day (yyyy-mm-dd)'),
        ("event_time", "null", "event_time: absent or null"),
        ("event_time", "1.5", "event_time: 1.5 is no ISO 8601 text"),
        ("event_time", '"it\'s noon"', 'event_time: "it\'s noon" is no ISO 8601 time'),
        ("event_time", '"1999-01-01T00:00:00Z"', 'event_time "1999-01-01T00:00:00Z" is outside 2000 to 2100'),
    ],
)
def test_an_error_shows_the_value_as_the_message_has_it(column: str, raw: str, error: str) -> None:
    definition = base_definition()
    event = {"event_id": '"e"', "user_id": "1", "event_time": '"2026-01-01T00:00:00Z"', "kind": '"click"', column: raw}
    body = "{" + ", ".join(f'"{name}": {text}' for name, text in event.items()) + "}"
    found = JsonDecoder(definition.schema, definition.acceptance).decode(Messages.from_values([body.encode()]))
    assert [d.error for d in found.dead] == [error]


@pytest.mark.parametrize("raw", ["null", "[1, 2.50]", "true", '"text"'])
def test_what_is_no_object_is_shown_as_it_is(raw: str) -> None:
    definition = base_definition()
    found = JsonDecoder(definition.schema, definition.acceptance).decode(Messages.from_values([raw.encode()]))
    assert [(d.reason, d.error) for d in found.dead] == [("poison", f"no JSON object but {raw}")]
