"""The shop's pipeline on a real worker's stream: which hours become snapshots, corrections, checks that stop, the sensor."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.storage import open_storage
from ct_assets.adapters.stream import deployment, versions
from ct_assets.orchestration.runs import RunReport
from ct_assets.orchestration.stream_hours import DEAD, FRESH, NoStream, stream_state
from ct_assets.orchestration.stream_runs import StreamLoop
from ct_assets.settings import Settings
from ct_assets.streaming.definition import load_definition
from ct_assets.streaming.oracle import Event
from ct_assets_tests.adapters.stream_worker.world import DEFINITION
from ct_assets_tests.orchestration.stream_passes import HOUR_US, START_US, StreamPasses, key

TOO_LATE = "too late to be accepted, counted here"
OVER = [key(0), key(1), key(2)]  # the fourth hour's completeness has not passed its end


@pytest.fixture
def shop(settings: Settings, pg_url: str, tmp_path: Path) -> Iterator[StreamPasses]:
    with dg.DagsterInstance.ephemeral() as instance:
        found = StreamPasses(settings, pg_url, tmp_path, instance)
        yield found
        found.world.close()


def check(shop: StreamPasses, asset: dg.AssetKey, name: str) -> dg.AssetCheckEvaluation:
    records = shop.instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(asset, name), limit=1)
    event = records[0].event
    assert event is not None
    assert event.dagster_event is not None
    return event.dagster_event.asset_check_evaluation_data


def test_complete_hours_become_snapshots_with_the_values_of_the_specification(shop: StreamPasses) -> None:
    shop.work()
    report = shop.run()
    assert (report.failures, report.decided) == ([], {"hours complete": OVER})
    assert shop.told() == OVER, "an hour that is not over stays dark"
    late = shop.late()
    assert sum(late.values()) > 0, "the sample plants late events"
    storage = open_storage(shop.installation.settings)
    for hour in range(3):
        facts, events = shop.facts(hour), shop.accepted(hour)
        users = {event.values["user_id"] for event in [*events, *shop.too_late(hour)]}
        assert facts[TOO_LATE] == len(shop.too_late(hour))
        assert (facts["events"], facts["entities"], facts["accepted late"]) == (len(events), len(users), late[hour])
        places = [(event.partition, event.offset) for event in events]
        expected = {p: (min(o for q, o in places if q == p), max(o for q, o in places if q == p)) for p, _ in places}
        assert {row["partition"]: (row["first"], row["last"]) for row in facts["offsets"]} == expected
        frame = pl.read_parquet(io.BytesIO(storage.get(facts["file"])))
        end = START_US + (hour + 1) * HOUR_US
        assert frame["user_id"].to_list() == sorted(users)
        assert set(frame["at"].to_list()) == {end}
        found = shop.snapshot(hour)
        assert found == {user: shop.truth.closing_values(user, end) for user in users}
        assert any(values["purchases_1h"] for values in found.values())
    dead = {row["reason"] for hour in range(3) for row in shop.facts(hour).get("dead letters by reason", [])}
    assert dead <= set(shop.truth.dead)
    assert dead
    assert shop.truth.too_late, "the sample plants events that come too late"


def test_a_second_run_does_nothing_and_a_late_event_rebuilds_its_hour_alone(shop: StreamPasses) -> None:
    shop.work()
    shop.run()
    again = shop.run()
    assert (again.nothing_new, again.runs) == (True, [])
    shop.finish_the_last_hour()
    shop.work()
    assert shop.run().decided["hours complete"] == [key(3)]
    before = shop.facts(3)
    shop.send(4 * 3600 - 2, 0, 4 * 3600 + 31)  # 7 s behind the watermark: late, and within the allowed 60 s
    shop.work()
    report = shop.run()
    assert report.decided["hours complete"] == [key(3)], "exactly the hour that the late event belongs to"
    after = shop.facts(3)
    assert (after["events"], after["accepted late"]) == (before["events"] + 1, before["accepted late"] + 1)
    assert after["file"] != before["file"], "another version is another file; the old one stays"
    assert shop.told() == [*OVER, key(3), key(3)]


def test_hours_that_retention_has_reached_stop_no_other_hour_and_no_training(shop: StreamPasses) -> None:
    """Hour 0 is there in part; of hour 1 it can no longer be told which late events are repeats."""
    shop.work("--max-messages", "40")
    removed = shop.retain(START_US + HOUR_US * 5 // 6)
    assert HOUR_US // 6 < removed - START_US < HOUR_US * 5 // 6
    report = shop.run()
    assert (report.failures, report.decided) == ([], {"hours complete": [key(2)]})
    assert shop.told() == [key(2)]
    end = START_US + 3 * HOUR_US
    found = shop.snapshot(2)
    assert found == {user: shop.truth.closing_values(user, end) for user in found}
    assert len(found) == shop.facts(2)["entities"] > 0
    newest = shop.instance.get_latest_materialization_event(shop.pipeline.names.dataset)
    assert newest is not None
    assert shop.run().nothing_new
    shop.finish_the_last_hour()
    shop.work()
    assert shop.run().decided["hours complete"] == [key(3)]
    shop.send(HOUR_US / 1e6 + 60, 0, 4 * 3600 + 31)
    shop.work()
    again = shop.run()
    assert (again.failures, again.decided.get("hours complete", [])) == ([], []), "an hour half gone is not built anew"


def test_snapshots_stay_when_retention_has_removed_their_events(shop: StreamPasses) -> None:
    shop.work("--max-messages", "200")
    shop.run()
    before = [shop.facts(hour) for hour in range(3)]
    shop.retain(START_US + HOUR_US + HOUR_US // 2)
    report = shop.run()
    assert (report.failures, report.runs, shop.told()) == ([], [], OVER)
    assert [shop.facts(hour) for hour in range(3)] == before


def test_an_online_value_that_its_events_do_not_give_stops_retraining(shop: StreamPasses) -> None:
    shop.work()
    with connect(shop.world.url, autocommit=True) as conn:
        conn.execute(
            """insert into stream.read_sample (definition_hash, entity, at, values, offsets, is_stale)
               values (%s, '1064', %s, '{"clicks_5m": 77}', %s, false)""",
            (
                shop.pipeline.definition.hash,
                START_US + 4 * HOUR_US,
                json.dumps({str(p): [10**9, 0] for p in range(4)}),
            ),
        )
    report = shop.run()
    found = check(shop, shop.pipeline.feature, "determinism")
    assert not found.passed
    assert "1 differ" in str(found.description)
    assert not report.training or "version" not in report.training
    assert shop.instance.fetch_materializations(shop.pipeline.names.dataset, limit=1).records == []
    assert shop.instance.fetch_observations(shop.pipeline.names.dataset, limit=1).records == []


def test_four_hours_of_a_small_shop_train_no_champion_and_say_why(shop: StreamPasses) -> None:
    shop.work()
    report = shop.run()
    assert check(shop, shop.pipeline.feature, "determinism").passed
    assert report.training is not None
    assert report.training["champion"] is None
    data = shop.instance.fetch_materializations(shop.pipeline.names.dataset, limit=1).records[0].asset_materialization
    assert data is not None
    clicks = [e for e in shop.truth.accepted if e.values["event_type"] == "click"]
    assert 0 < int(str(data.metadata["clicks"].value)) < len(clicks), "the newest clicks have no label yet"
    assert not check(shop, shop.pipeline.names.model_key, "promotion").passed


def test_the_sensor_asks_once_for_all_hours_that_are_due(shop: StreamPasses) -> None:
    shop.work()
    first = shop.tick()
    assert [request.tags["ct/days"] for request in first.run_requests or []] == [f"{key(0)}..{key(2)}"]
    observed = [event for event in first.asset_events if isinstance(event, dg.AssetObservation)]
    assert [event.asset_key for event in observed] == [shop.pipeline.events]
    assert observed[0].metadata["events accepted"].value == len(shop.truth.accepted)
    again = shop.tick()  # the cursor was lost, nothing ran: the same run, by its key
    assert [r.run_key for r in again.run_requests or []] == [r.run_key for r in first.run_requests or []]
    quiet = shop.tick(first.cursor)
    assert (quiet.run_requests, quiet.asset_events) == ([], []), "asked already, and nothing moved"
    shop.run()
    assert shop.tick().run_requests == [], "a lost cursor after the run: nothing is due"
    shop.finish_the_last_hour()
    shop.work()
    later = shop.tick(quiet.cursor)
    assert [request.tags["ct/days"] for request in later.run_requests or []] == [f"{key(3)}..{key(3)}"]


def test_the_sensor_looks_at_all_hours_again_when_another_version_or_stream_answers(
    shop: StreamPasses, tmp_path: Path
) -> None:
    """A stream of its own has offsets of its own: those that the old one had read say nothing of it."""
    shop.work()
    shop.run()
    quiet = shop.tick(shop.tick().cursor)
    assert quiet.run_requests == []
    folder = DEFINITION.parent
    changed = tmp_path / "changed.yaml"
    text = re.sub(r"contract: (\S+?)([,}\n])", lambda m: f"contract: {folder / m[1]}{m[2]}", DEFINITION.read_text())
    changed.write_text(text + "  - {name: clicks_30m, function: count, window: 30m, where: {event_type: click}}\n")
    with connect(shop.world.url, autocommit=True) as conn:
        built = deployment.build(conn, load_definition(changed))
        versions.switch(conn, "user_activity", built.table.definition.hash, shop.pipeline.definition.hash)
    said: list[str] = []
    StreamLoop(
        shop.installation, shop.pipeline, shop.defs, shop.instance, said.append, RunReport("shop")
    ).tell_version()
    assert len(said) == 1, "the file is not the version that answers"
    assert f"version {built.table.definition.hash[:12]} of user_activity answers" in said[0]
    again = shop.tick(quiet.cursor)
    assert [request.tags["ct/days"] for request in again.run_requests or []] == [f"{key(0)}..{key(2)}"]
    assert shop.tick(again.cursor).run_requests == []
    with connect(shop.world.url, autocommit=True) as conn:
        versions.switch(conn, "user_activity", shop.pipeline.definition.hash, built.table.definition.hash)
        versions.switch(conn, "user_activity", built.table.definition.hash, shop.pipeline.definition.hash)
    (anew,) = shop.tick(again.cursor).run_requests or []
    assert anew.run_key != (again.run_requests or [])[0].run_key, "Dagster passes over a key it knows"
    before = json.loads(str(again.cursor))
    assert before["of"][1] == built.table.definition.hash
    other = json.dumps(before | {"of": [before["of"][0] + 1, *before["of"][1:]]})
    assert [r.run_key for r in shop.tick(other).run_requests or []] == [anew.run_key]


def test_checks_of_the_topic_look_at_data_time_and_dead_letters(shop: StreamPasses) -> None:
    shop.work()
    fresh, dead = stream_state(shop.installation, shop.pipeline)
    assert (fresh.check_name, fresh.passed, dead.check_name) == (FRESH, True, DEAD)
    total = sum(shop.truth.dead.values())
    share = total / (total + len(shop.truth.accepted))
    assert dead.metadata["share"] == dg.MetadataValue.float(share)
    assert dead.passed == (share <= 0.01)
    shop.installation.clock.sleep(3600)  # pyright: ignore[reportAttributeAccessIssue]
    stale, _ = stream_state(shop.installation, shop.pipeline)
    assert not stale.passed, "nobody delivered for an hour, whatever was materialized meanwhile"
    assert "at most 3,600 s are allowed" in str(stale.description)


def test_before_the_first_worker_everything_says_so(shop: StreamPasses) -> None:
    with pytest.raises(NoStream, match="no worker has run 'user_activity' yet") as said:
        shop.run()
    assert "ct stream run --definition" in str(said.value.hint)
    assert [result.passed for result in stream_state(shop.installation, shop.pipeline)] == [False, False]


@pytest.mark.case(8)
def test_an_event_too_late_for_online_values_rebuilds_its_hour_with_it(shop: StreamPasses) -> None:
    """Case 8: a dead letter, the online value as before, and the hour's snapshot under a new data version counts it."""
    shop.finish_the_last_hour()
    shop.work()
    shop.run()
    before, cursor = shop.facts(3), shop.tick().cursor
    end = START_US + 4 * HOUR_US
    online = shop.online(1064, end)
    shop.send(4 * 3600 - 200, 0, 4 * 3600 + 31)  # 205 s behind the watermark; 60 are allowed
    shop.work()
    asked = shop.tick(cursor).run_requests or []
    assert [request.tags["ct/days"] for request in asked] == [f"{key(3)}..{key(3)}"]
    assert shop.run().decided["hours complete"] == [key(3)], "exactly the hour that the late event belongs to"
    after = shop.facts(3)
    assert after["file"] != before["file"]
    assert (after["events"], after[TOO_LATE]) == (before["events"], before[TOO_LATE] + 1)
    assert shop.online(1064, end) == online, "online values stay as they were told"
    purchase = {"user_id": 1064, "event_type": "purchase", "amount": Decimal(5)}
    shop.truth.too_late.append(Event(purchase, end - 200_000_000, 0, 10**9, 0))
    assert shop.snapshot(3)[1064] == shop.truth.closing_values(1064, end)
    assert shop.snapshot(3)[1064]["purchases_5m"] == online["purchases_5m"] + 1
    shop.send(4 * 3600 - 200, 0, 4 * 3600 + 32, again=True)
    shop.send_again(
        shop.accepted(0)[0], 4 * 3600 + 33
    )  # accepted four hours ago, its id forgotten: late, but no new event
    shop.work()
    assert shop.run().nothing_new, "an event that is counted already changes nothing"
