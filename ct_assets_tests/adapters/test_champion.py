"""Model versions and the champion pointer on a real PostgreSQL: numbering, idempotence, compare-and-set, audit."""

from __future__ import annotations

import datetime as dt
import json
import threading

import psycopg
import pytest

from ct_assets.adapters import champion as pointer
from ct_assets.adapters.artefacts import Artefact
from ct_assets.adapters.champion import Candidate, Move, PointerMoved, Provenance


def candidate(run_id: str, **given) -> Candidate:
    provenance = Provenance(dt.date(2011, 9, 30), None, "recipe", "data", "contract", "code-1", 7)
    return Candidate("demand", run_id, provenance, Artefact("models/demand/a.skops", "0" * 64), **given)


def test_versions_are_numbered_and_a_repeated_run_keeps_its_number(pg_url: str) -> None:
    with psycopg.connect(pg_url) as conn:
        numbers = [pointer.register(conn, candidate(run)) for run in ("r1", "r2", "r1", "r3")]
    assert numbers == [1, 2, 1, 3]


def test_not_a_number_is_stored_as_null_not_as_broken_json(pg_url: str) -> None:
    with psycopg.connect(pg_url) as conn:
        pointer.register(conn, candidate("r1", metrics={"deviance": float("nan"), "folds": [1.5, float("inf")]}))
        assert pointer.versions(conn, "demand")[0].metrics == {"deviance": None, "folds": [1.5, None]}


def test_the_pointer_moves_from_where_it_was_read_only(pg_url: str) -> None:
    with psycopg.connect(pg_url) as conn:
        for run in ("r1", "r2", "r3"):
            pointer.register(conn, candidate(run))
        assert pointer.champion(conn, "demand") is None
        first = pointer.move(conn, Move("demand", 1, None, "run r1", "first"))
        second = pointer.move(conn, Move("demand", 2, first.generation, "run r2", "refresh"))
        assert (second.version, second.generation) == (2, 2)
        with pytest.raises(PointerMoved, match="expected generation 1"):
            pointer.move(conn, Move("demand", 3, first.generation, "run r3", "stale"))
        assert pointer.champion(conn, "demand") == second
        again = pointer.move(conn, Move("demand", 2, first.generation, "run r2", "repeated after a crash"))
        assert again == second
        assert [(m["generation"], m["version"], m["previous"]) for m in pointer.history(conn, "demand")] == [
            (1, 1, None),
            (2, 2, 1),
        ]


def test_all_that_led_are_known_but_those_that_were_taken_back(pg_url: str) -> None:
    with psycopg.connect(pg_url) as conn:
        for i in range(5):
            pointer.register(conn, candidate(f"r{i}", recipe={"trainer": "a:b"}))
        for generation, version in enumerate((1, 2, 4, 2)):
            pointer.move(conn, Move("demand", version, generation or None, "somebody", "moved"))
        led = pointer.leaders(conn, "demand")
        assert [one.version for one in led] == [1, 2], "3 and 5 never led, 4 was taken back"
        assert (led[0].cutoff, led[0].trainer) == (dt.date(2011, 9, 30), "a:b")
        pointer.move(conn, Move("demand", 1, 4, "somebody", "further back"))
        assert [one.version for one in pointer.leaders(conn, "demand")] == [1]
        pointer.move(conn, Move("demand", 4, 5, "somebody", "it was right after all"))
        assert [one.version for one in pointer.leaders(conn, "demand")] == [1, 4]


def test_of_many_who_want_to_lead_exactly_one_moves_the_pointer(pg_url: str) -> None:
    with psycopg.connect(pg_url) as conn:
        for i in range(9):
            pointer.register(conn, candidate(f"r{i}"))
        pointer.move(conn, Move("demand", 1, None, "start", "first"))
    outcomes: list[str] = []
    barrier = threading.Barrier(8)

    def contend(version: int) -> None:
        with psycopg.connect(pg_url) as conn:
            barrier.wait()
            try:
                pointer.move(conn, Move("demand", version, 1, f"run {version}", "contend"))
                conn.commit()
                outcomes.append("moved")
            except PointerMoved:
                conn.rollback()
                outcomes.append("refused")

    threads = [threading.Thread(target=contend, args=(v,)) for v in range(2, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["moved", *["refused"] * 7]
    with psycopg.connect(pg_url) as conn:
        assert len(pointer.history(conn, "demand")) == 2


def test_provenance_comes_back_as_it_was_given(pg_url: str) -> None:
    given = candidate("r1", metrics={"wape": 0.6}, gates={"baselines": {"verdict": "pass"}}, decision="promoted")
    with psycopg.connect(pg_url) as conn:
        pointer.register(conn, given)
        found = pointer.versions(conn, "demand", 1)[0]
    assert (found.provenance, found.artefact, found.decision) == (given.provenance, given.artefact, "promoted")
    assert json.dumps(found.gates) == '{"baselines": {"verdict": "pass"}}'
