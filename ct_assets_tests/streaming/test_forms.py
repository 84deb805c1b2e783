"""Messages of one form: what is read together equals what the exact reader reads, for every byte that may be wrong.

Why every byte: a form is trusted for all messages of its length, so one that is off by a single byte must be noticed.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from ct_assets.contracts.model import Column
from ct_assets.streaming import form_columns
from ct_assets.streaming.decode import JsonDecoder
from ct_assets.streaming.definition import Definition, load_definition
from ct_assets.streaming.form_columns import FormColumns
from ct_assets.streaming.messages import Messages
from ct_assets_tests.conftest import ROOT

SHOP = load_definition(ROOT / "ct_assets/defs/growth/shop/streams/user_activity.yaml")
NEVER = 10**9
SAMPLES = [
    b'{"event_id":"e-000001","user_id":1234567890123,"event_time":"2026-02-28T23:59:59.999999Z","event_type":"purchase","amount":10.05}',
    b'{"amount" : -7.5 ,"event_type":"refund","user_id":-42,"event_time":"2024-02-29T00:00:00+02:00","event_id":"\x7f~ !"}',
    b'{"event_id":"1","user_id":0,"event_time":"2026-01-01T00:00:00.1Z","event_type":"click","amount":null,"more":"text","seen":true}',
]


def outcome(values: list[bytes], scan_from: int, definition: Definition = SHOP) -> tuple[list, list]:
    decoder = JsonDecoder(definition.schema, definition.acceptance, scan_from=scan_from)
    found = decoder.decode(Messages.from_values([*values, b"last"]))
    return list(found.frame.iter_rows()), [(d.index, d.reason, d.error) for d in found.dead]


def by_forms(values: list[bytes], definition: Definition = SHOP) -> list[int]:
    """Which messages are read by their form."""
    messages = Messages.from_values([*values, b"0" * 40])
    reader = FormColumns(definition.schema, definition.acceptance, 1)
    for _ in range(3):  # a batch may teach so many forms
        frame = reader.frame(messages, messages.length >= 0)
    return [] if frame is None else frame["_i"].to_list()


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_replaced_byte_is_judged_as_the_exact_reader_judges_it(sample: bytes) -> None:
    others = [bytes([byte]) for byte in b"\x00\x09\x0a\x1f !\"'+,-./0123456789:;[\\]`aetTZz{|}~\x7f\x80\xbf\xc3\xff"]
    values = [sample] * 70 + [sample[:at] + byte + sample[at + 1 :] for at in range(len(sample)) for byte in others]
    assert outcome(values, 1) == outcome(values, NEVER)
    assert by_forms([sample] * 3) == [0, 1, 2]


@pytest.mark.parametrize("seed", range(4))
def test_several_replaced_bytes_and_mixed_forms(seed: int) -> None:
    rng = Random(seed)
    values: list[bytes] = []
    for _ in range(6_000):
        raw = bytearray(rng.choice(SAMPLES))
        for _ in range(rng.choice([0, 0, 2, 3])):
            raw[rng.randrange(len(raw))] = rng.choice(b'0123456789.-+:TZ,"\\{}[] \x00\x1f\x80eE')
        values.append(bytes(raw))
    assert outcome(values, 1) == outcome(values, NEVER)


def column(name: str, type_: str, **more: int) -> Column:
    return Column(name, type_, **more)


def typed() -> Definition:
    """The shop's contract with a column of every type more, closed."""
    extra = (
        column("n", "number"),
        column("b", "boolean"),
        column("d", "date"),
        column("p", "decimal", precision=4, scale=2),
        column("at", "timestamp"),
        column("s", "string"),
    )
    schema = replace(SHOP.schema, columns=(*SHOP.schema.columns, *extra), closed=True)
    return replace(SHOP, schema=schema)


HEAD = b'{"event_id":"a","user_id":1,"event_time":"2026-01-01T00:00:00Z","event_type":"cart",'
READ = [
    b'"n":-0.0}',
    b'"n":-0}',
    b'"n":0.1}',
    b'"n":123456789.123456}',
    b'"n":12}',
    b'"b":true}',
    b'"b":false}',
    b'"d":"2024-02-29"}',
    b'"d":null}',
    b'"p":99.99}',
    b'"p":-1}',
    b'"p":0.5}',
    b'"at":"1969-12-31T23:59:59.123456789-23:59"}',
    b'"s":""}',
    b'"s":"plain text"}',
]
LEFT = [
    b'"n":1e3}',
    b'"n":1234567890.1234567}',
    b'"n":"1"}',
    b'"p":1.234}',
    b'"p":"1.00"}',
    b'"b":1}',
    b'"d":"2024-2-29"}',
    b'"at":"2026-01-01 00:00:00Z"}',
    b'"at":"2026-01-01T00:00:00+24:00"}',
    b'"s":"\xc3\xbc"}',
    b'"s":"a\\nb"}',
    b'"s":7}',
    b'"unknown":1}',
    b'"n":[1]}',
]
DECIDED = [b'"d":"2023-02-29"}', b'"p":100.00}', b'"at":"2026-01-01T24:00:00Z"}', b'"at":"2026-13-01T00:00:00Z"}']


def test_each_type_is_read_by_its_form_or_left_and_the_values_are_equal() -> None:
    definition = typed()
    values = [HEAD + tail for tail in (*READ, *LEFT, *DECIDED)]
    assert by_forms(values, definition) == list(range(len(READ)))
    rows, dead = outcome(values, 1, definition)
    expected, letters = outcome(values, NEVER, definition)
    assert dead == letters
    assert [repr(row) for row in rows] == [repr(row) for row in expected]  # -0.0 equals 0.0, its text does not


def test_forms_are_bounded_and_lengths_without_company_are_left_alone() -> None:
    definition = typed()
    values = [HEAD + b'"s":"%s"}' % (b"x" * n) for n in range(300)]
    messages = Messages.from_values([*values, b"0" * 40])
    reader = FormColumns(definition.schema, definition.acceptance, 1)
    for _ in range(12):
        reader.frame(messages, messages.length >= 0)
    assert sum(map(len, reader._forms.values())) == form_columns.MOST_FORMS
    patient = FormColumns(definition.schema, definition.acceptance)
    assert patient.frame(messages, np.ones(len(messages), np.bool_)) is None


def test_a_tombstone_and_the_end_of_the_buffer_are_never_read_beyond() -> None:
    decoder = JsonDecoder(SHOP.schema, SHOP.acceptance, scan_from=1)
    found = decoder.decode(Messages.from_values([SAMPLES[0], None, SAMPLES[0]]))
    assert found.frame["_i"].to_list() == [0, 2]
    assert found.tombstones.tolist() == [1]
