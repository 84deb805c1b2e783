"""`ct contract infer` on JSON lines: the proposal loads, and every event of its own file keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ct_assets.contracts.odcs import load_contract
from ct_assets_tests.cli.test_verdict_command import ct

SCANS = [
    {"id": "s-1", "van": 7, "at": "2026-03-01T08:00:00Z", "kind": "in", "kg": "12.50", "lat": 48.858399999999996},
    {"id": "s-2", "van": 8, "at": "2026-03-01T09:00:00.25+01:00", "kind": "out", "kg": "3.2", "fee": 1.5, "ok": True},
    {"id": "s-3", "van": 7, "at": "2026-03-01T10:00:00Z", "kind": "in", "kg": None, "fee": 2, "lat": 2.5, "ok": False},
    {"id": "s-4", "van": 7, "at": "2026-03-01T11:00:00Z", "kind": "in", "where": {"dock": 3}, "day": "2026-03-01"},
]
DEFINITION = """apiVersion: ct_assets/v1
kind: StreamAggregates
name: activity
source: {{contract: found.odcs.yaml, event_id: {id}, event_time: {at}}}
entity: {entity}
out_of_orderness: 30d
allowed_lateness: 30d
ttl: 30d
on_stale: flag
aggregates: [{{name: n, function: count, window: 30d}}]
"""


def write(path: Path, events: list[Any]) -> Path:
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in events))
    return path


def computed(folder: Path, events: Path, entity: str, at: str = "at") -> dict[str, Any]:
    """What `ct stream compute` says of the very file, under the contract beside it."""
    (folder / "d.yaml").write_text(DEFINITION.format(id="id", at=at, entity=entity))
    (folder / "q.csv").write_text(f"{entity},at\n1,2026-03-20T00:00:00Z\n")
    run = ct(
        *("stream", "compute", "--definition", folder / "d.yaml", "--events", events, "--queries", folder / "q.csv"),
        *("--out", folder / "o.parquet", "--json"),
    )
    assert run.exit_code == 0, run.stderr
    return json.loads(run.stdout)


def test_types_are_those_of_the_json_and_compute_accepts_the_file(tmp_path: Path):
    events, out = write(tmp_path / "2026-03-01 Van Scans.jsonl", SCANS), tmp_path / "found.odcs.yaml"
    run = ct("contract", "infer", events, "--out", out)
    assert run.exit_code == 0, run.stderr
    schema = load_contract(out).schema()
    assert schema.name == "van_scans"
    assert {c.name: (c.type, c.required) for c in schema.columns} == {
        "id": ("string", True),
        "van": ("integer", True),
        "at": ("timestamp", True),
        "kind": ("string", True),
        "kg": ("decimal", False),
        "lat": ("number", False),
        "fee": ("decimal", False),
        "ok": ("boolean", False),
        "day": ("date", False),
    }
    assert (schema.column("kg").precision, schema.column("kg").scale) == (18, 2)
    text = out.read_text()
    assert 'left out: "where", an object in 1 of 4 events' in text
    assert [c.name for c in schema.columns if c.pii] == []
    assert {r.name for r in schema.rules if r.kind == "minimum"} == {"van.minimum", "kg.minimum", "fee.minimum"}
    assert '"where"' in run.stderr
    assert 'only 2 unlike values; add enum: ["in", "out"] if there can be no others' in text
    assert "null in 1, absent in 1 of 4 events" in text
    assert computed(tmp_path, events, "van")["accepted"] == 4


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1_000), ("us", 1_000_000)])
def test_an_integer_time_says_what_it_counts(unit: str, factor: int, tmp_path: Path):
    events = write(tmp_path / "x.jsonl", [{"id": n, "u": "1", "ts": (1_772_352_000 + n) * factor} for n in range(3)])
    out = tmp_path / "found.odcs.yaml"
    assert ct("contract", "infer", events, "--out", out).exit_code == 0
    assert f"{{property: unit, value: {unit}}}" in out.read_text()
    assert "from 2026-03-01 08:00:00" in out.read_text()
    assert computed(tmp_path, events, "u", "ts")["accepted"] == 3


def test_local_times_are_a_question_and_still_accepted(tmp_path: Path):
    events = write(tmp_path / "x.jsonl", [{"id": 1, "u": 1, "at": "2026-03-01 08:00:00"}])
    out = tmp_path / "found.odcs.yaml"
    assert ct("contract", "infer", events, "--out", out).exit_code == 0
    assert "? local times without an offset: of which zone?" in out.read_text()
    assert computed(tmp_path, events, "u")["accepted"] == 1


def test_torn_lines_are_counted_and_no_person_goes_to_git(tmp_path: Path):
    events = write(
        tmp_path / "x.jsonl", [{"id": 1, "email": "ann@x.com"}, '{"id": 2, "em', "", {"id": 3, "email": "b@x.com"}]
    )
    said = ct("contract", "infer", events).stdout
    assert "2 events read, 1 of the lines are no JSON object" in said
    assert "ann@x.com" not in said
    assert "personalData, value: true" in said


@pytest.mark.parametrize(
    ("text", "what"),
    [("[1, 2]\n", "one JSON object a line"), ("", "the file is empty"), ('{\n "a": 1\n}\n', "one JSON object a line")],
)
def test_what_is_no_json_lines_is_explained(text: str, what: str, tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    run = ct("contract", "infer", path)
    assert run.exit_code == 2
    assert what in run.stderr


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(float),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", " x ", "1.50", "-0.1", "007", "true", "a@b.co", "\x00", "é", "# no", "- {a: b}", "1e3"]),
    st.sampled_from(["9" * 50 + ".5", "192.0.2.1", 1772352000000, "2026-03-01", "2026-02-30", "0001-01-01"]),
    st.sampled_from(["2026-03-01T08:00Z", "9999-12-31T23:59:59-10:00", "2026-03-01 08:00:00"]),
    st.sampled_from([[1], {"a": 1}]),
)
KEYS = st.sampled_from(
    ["n", "note: x", "- a", "#", "a b", "Phone", "no", "null", "true", "1", "é", "ts", "user_id", ""]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_event_keeps_the_contract_proposed_from_it(data: st.DataObject, tmp_path: Path):
    pools = {key: data.draw(st.lists(VALUES, min_size=1, max_size=3)) for key in data.draw(st.sets(KEYS, max_size=4))}
    events = []
    for n in range(4):
        event: dict[str, Any] = {"id": n, "u": n, "at": "2026-03-01T08:00:00Z"}
        event |= {key: data.draw(st.sampled_from(pool)) for key, pool in pools.items() if data.draw(st.booleans())}
        events.append(event)
    path, out = write(tmp_path / "x.jsonl", events), tmp_path / "found.odcs.yaml"
    assert ct("contract", "infer", path, "--out", out, "--yes").exit_code == 0
    found = computed(tmp_path, path, "u")
    assert found["accepted"] == 4, (tmp_path / "o.dead-letters.jsonl").read_text()
    assert pl.read_parquet(tmp_path / "o.parquet")["n"].to_list() == [1]
