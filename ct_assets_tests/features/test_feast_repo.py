"""The Feast repository on a real database: `feast apply`, historical and online values against an oracle, no lost label row.

Feast runs in processes of its own, as a user runs it: its imports take seconds and its warnings are not ours.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ct_assets.adapters.feature_tables import FeatureSource, ensure_tables
from ct_assets.features.spec import PRODUCT_DAILY
from ct_assets.features.training_set import training_frame

ROOT = Path(__file__).resolve().parents[2]
REPO = ROOT / "feature_repo"
ZONE = "Europe/London"
CODES = ("20001", "22423", "85123A")
DAYS = [dt.date(2011, 3, 24) + dt.timedelta(days=n) for n in range(8)]  # across the change to summer time
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(pg_url_module: str) -> dict[tuple[str, dt.date], list[float]]:
    """A few feature rows, written as the platform writes them; (code, day) -> values. A superseded version lies below."""
    rng = random.Random(3)
    written: dict[tuple[str, dt.date], list[float]] = {}
    with psycopg.connect(pg_url_module) as conn:
        ensure_tables(conn, FeatureSource(zone=ZONE))
        for day in DAYS:
            write_version(conn, day, 1, {code: [-99.0] * len(PRODUCT_DAILY.names) for code in CODES}, current=False)
            active = [code for code in CODES if (code, day) != ("22423", DAYS[3])]
            values = {code: [float(rng.randrange(1000)) / 8 for _ in PRODUCT_DAILY.names] for code in active}
            write_version(conn, day, 2, values, current=True)
            written |= {(code, day): numbers for code, numbers in values.items()}
    return written


def write_version(
    conn: psycopg.Connection, day: dt.date, version: int, values: dict[str, list[float]], current: bool
) -> None:
    version_id = conn.execute(
        "insert into ledger.feature_version (view, day, version, known_at, input_digest, rows, superseded_at)"
        " values (%s, %s, %s, %s, 'digest', %s, %s) returning version_id",
        (PRODUCT_DAILY.name, day, version, dt.datetime.combine(day, dt.time(22 + version % 2), dt.UTC), len(values), None if current else dt.datetime(2011, 5, 1, tzinfo=dt.UTC)),
    ).fetchone()  # fmt: skip
    assert version_id is not None
    names = ", ".join(("version_id", "day", PRODUCT_DAILY.entity, *PRODUCT_DAILY.names))
    for code, numbers in values.items():
        slots = ", ".join(["%s"] * (3 + len(numbers)))
        conn.execute(
            f"insert into store.{PRODUCT_DAILY.name} ({names}) values ({slots})".encode(),
            (version_id[0], day, code, *numbers),
        )


def in_feast(url: str, home: Path, program: str) -> Any:
    """Run ``program`` (it sets `answer`) with a FeatureStore `store` on the repository; the answer comes back as JSON."""
    prelude = "import datetime as dt, json, pandas as pd\nfrom feast import FeatureStore\nstore = FeatureStore('.')\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{prelude}{program}\nprint('ANSWER' + json.dumps(answer, default=str))"],
        cwd=REPO, env=environment(url, home), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rsplit("ANSWER", 1)[1])


def environment(url: str, home: Path) -> dict[str, str]:
    return {**os.environ, "CT_HOME": str(home), "CT_DATABASE_URL": url}


APPLY = "import features\nstore.apply([v for n, v in vars(features).items() if n in ('stock_code', 'product_daily')])\n"


def end_of_day(day: dt.date) -> dt.datetime:
    from zoneinfo import ZoneInfo

    return dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), ZoneInfo(ZONE)).astimezone(dt.UTC)


def known_at(rows: dict[tuple[str, dt.date], list[float]], code: str, when: dt.datetime) -> list[float] | None:
    """The oracle: values of the newest day that had ended by ``when``."""
    ended = [day for (found, day) in rows if found == code and end_of_day(day) <= when]
    return rows[code, max(ended)] if ended else None


def test_historical_features_are_the_oracles_and_every_label_row_is_kept(
    pg_url_module: str, tmp_path: Path, rows: dict[tuple[str, dt.date], list[float]]
) -> None:
    rng = random.Random(5)
    moments = [
        end_of_day(day) + step
        for day in DAYS
        for step in (dt.timedelta(0), -dt.timedelta(microseconds=1), dt.timedelta(hours=7))
    ]
    moments += [
        dt.datetime(2010, 1, 1, tzinfo=dt.UTC),
        dt.datetime(2012, 1, 1, tzinfo=dt.UTC),
    ]  # before all; ten months after all
    labels = [(rng.choice([*CODES, "unknown"]), rng.choice(moments)) for _ in range(150)]
    labels += labels[:20]  # the same product and moment asked twice, with labels of their own
    asked = [[code, when.isoformat(), number] for number, (code, when) in enumerate(labels)]
    names = list(PRODUCT_DAILY.names)
    answer = in_feast(
        pg_url_module, tmp_path,
        f"{APPLY}frame = pd.DataFrame({asked!r}, columns=['stock_code', 'event_timestamp', 'label'])\n"
        "frame['event_timestamp'] = pd.to_datetime(frame['event_timestamp'], utc=True, format='ISO8601')\n"
        f"got = store.get_historical_features(frame, ['product_daily:' + n for n in {names!r}]).to_df()\n"
        f"got = got.astype(object).where(got.notna(), None)\nanswer = got[['label', 'stock_code', *{names!r}]].values.tolist()",
    )  # fmt: skip
    assert sorted(row[0] for row in answer) == list(range(len(labels)))
    for number, code, *values in answer:
        expected = known_at(rows, *labels[number])
        assert code == labels[number][0]
        assert values == (expected if expected is not None else [None] * len(names)), labels[number]
    assert {known_at(rows, *label) is None for label in labels} == {True, False}


def test_online_features_are_those_of_the_last_day(
    pg_url_module: str, tmp_path: Path, rows: dict[tuple[str, dt.date], list[float]]
) -> None:
    names = list(PRODUCT_DAILY.names)
    answer = in_feast(
        pg_url_module, tmp_path,
        f"{APPLY}store.materialize(dt.datetime(2011, 1, 1, tzinfo=dt.UTC), dt.datetime(2011, 6, 1, tzinfo=dt.UTC))\n"
        f"answer = store.get_online_features(['product_daily:' + n for n in {names!r}], [{{'stock_code': c}} for c in {[*CODES, 'unknown']!r}]).to_dict()",
    )  # fmt: skip
    for place, code in enumerate(answer["stock_code"]):
        expected = rows.get((code, DAYS[-1]), [None] * len(names))
        assert [answer[name][place] for name in names] == expected, code


def test_the_command_line_applies_the_one_specification(pg_url: str, tmp_path: Path) -> None:
    with psycopg.connect(pg_url) as conn:
        ensure_tables(conn, FeatureSource(zone=ZONE))
    before = tables_of(pg_url)
    feast = Path(sys.executable).with_name("feast")
    done = subprocess.run(
        [str(feast), "apply"], cwd=REPO, env=environment(pg_url, tmp_path), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = in_feast(
        pg_url, tmp_path,
        "view = store.get_feature_view('product_daily')\n"
        "answer = [store.project, view.entities, [[f.name, str(f.dtype), f.description] for f in view.features], view.batch_source.timestamp_field]",
    )  # fmt: skip
    expected = [[f.name, f.dtype.capitalize(), f.description] for f in PRODUCT_DAILY.features]
    assert answer == ["ct_assets", [PRODUCT_DAILY.entity], expected, "event_timestamp"]
    assert {schema for schema, _ in tables_of(pg_url) - before} == {"feast_registry", "feast_online"}


def tables_of(url: str) -> set[tuple[str, str]]:
    with psycopg.connect(url) as conn:
        return set(conn.execute("select table_schema, table_name from information_schema.tables").fetchall())


def test_a_failing_url_shows_no_password(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from feast import FeatureStore; FeatureStore('.').list_feature_views()"], cwd=REPO, capture_output=True, text=True, timeout=300,
        env=environment("postgresql://ct:hush-hush@127.0.0.1:1/ct", tmp_path),
    )  # fmt: skip
    assert done.returncode != 0
    assert "hush-hush" not in done.stdout + done.stderr


def test_no_address_or_password_is_written_in_the_repository() -> None:
    text = (REPO / "feature_store.yaml").read_text(encoding="utf-8")
    assert "password" not in text.split("\n", 2)[2]
    assert "://settings/?plugin=ct_settings" in text
    assert all(word not in text for word in ("localhost", "127.0.0.1", "@"))
    assert callable(training_frame)  # the way to training sets; Feast serves reading and online use
