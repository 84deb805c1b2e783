"""Entity rows as pandas has them, through the real Feast: nulls and types are answered or refused in words.

What goes here: what a person can hand to ``get_historical_features`` of a live view. What does not: its values
(``test_live_views``, whose way of asking this uses).
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import online, state
from ct_assets.adapters.stream.training_frames import training_frame
from ct_assets.errors import UsageError
from ct_assets_tests.adapters.feast.test_live_views import AGGREGATES, STORE, answer, feast
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.worlds import START, Given, M, Writer

FEATURES = """\
from pathlib import Path
from ct_assets.adapters.feast.projection import projected

globals().update(projected([Path(__file__).parent / "defs/visits.yaml"]))
"""
ASKED = """\
T = pd.Timestamp('2026-01-01T00:02:00Z')
def ask(who, at=None):
    at = [T] * len(who) if at is None else at
    frame = pd.DataFrame({'who': who, 'event_timestamp': at})
    found = []
    done = refused(lambda: found.append(store.get_historical_features(frame, ['visits:n']).to_df()))
    if not found:
        return done
    assert found[0]['event_timestamp'].notna().all() and len(found[0]) == len(frame)
    return found[0]['n'].tolist()
"""


def world(kind: str, url: str, folder: Path) -> Path:
    """A feature repository whose view's key is of type ``kind``; user 1 (or "1") has two events, user 2 one."""
    definition = worlds.definition(folder / "defs", AGGREGATES, who=kind)
    (folder / "feature_store.yaml").write_text(STORE)
    (folder / "features.py").write_text(FEATURES)
    key = int if kind == "integer" else str
    with connect(url, autocommit=True) as conn:
        stream = state.open_stream(conn, "visits", definition.acceptance, worlds.identity())
        writer = Writer(conn, stream, [online.ensure(conn, stream, definition)])
        writer.commit(worlds.accepted([Given(key(1), M), Given(key(1), M + 1), Given(key(2), M + 2)]))
    return folder


@pytest.fixture
def integers(pg_url: str, tmp_path: Path) -> Path:
    return world("integer", pg_url, tmp_path)


@pytest.mark.slow
def test_integer_keys_with_nulls_are_answered_and_other_types_refused(pg_url: str, integers: Path) -> None:
    done = feast(pg_url, integers, "apply")
    assert done.returncode == 0, done.stderr[-3000:]
    found = answer(
        pg_url,
        integers,
        ASKED
        + "answer = [ask([1, 2, 3]), ask([1.0, None, 2.0]), ask(pd.array([1, None, 2], dtype='Int64')), ask([1, pd.NA, 2]),\n"
        "  ask([None, None]), ask(pd.array([1, 2], dtype='int32')), ask(pd.array([2, 1], dtype='uint64')),\n"
        "  ask(['1', '2']), ask([1.5, 2.0]), ask([1, 'x']), ask([True, False]), ask([2**53 + 1, None]), ask([2**64]),\n"
        "  ask([1, 2, 1], [T, pd.NaT, T]), ask([1, 1], [pd.NaT, pd.NaT]),\n"
        "  ask([1, 2], [pd.Timestamp('2026-01-01T00:02:00'), pd.Timestamp('2026-01-01T00:00:30')])]",
    )
    assert found[:7] == [[2, 1, 0], [2, 0, 1], [2, 0, 1], [2, 0, 1], [0, 0], [2, 1], [1, 2]]
    strings, fraction, mixed, booleans, rounded, beyond, one, all_ = found[7:15]
    told = "the key of visits is of type integer"
    for text, holds in [
        (strings, "holds string values"),
        (fraction, "holds 1.5"),
        (mixed, "holds mixed-integer values"),
        (booleans, "holds boolean values (bool)"),
        (rounded, "holds 9007199254740992.0"),
    ]:
        assert text.startswith(f"UsageError: the column 'who' of the entity rows {holds}"), text
        assert told in text
    assert beyond.startswith("UsageError: the column 'who' of the entity rows holds 18446744073709551616,"), beyond
    assert one.startswith("UsageError: column 'event_timestamp' has no moment in 1 of 3 rows (from 0 on: 1)")
    assert all_.startswith("UsageError: column 'event_timestamp' has no moment in 2 of 2 rows (from 0 on: 0, 1)")
    assert found[15] == [2, 0], "times without a zone are UTC"


@pytest.mark.slow
def test_text_keys_with_nulls_are_answered_and_numbers_refused(pg_url: str, tmp_path: Path) -> None:
    folder = world("string", pg_url, tmp_path)
    done = feast(pg_url, folder, "apply")
    assert done.returncode == 0, done.stderr[-3000:]
    found = answer(
        pg_url,
        folder,
        ASKED
        + "answer = [ask(['1', None, '2']), ask(pd.array(['2', pd.NA], dtype='string')), ask(pd.Categorical(['1', 'x', None])),\n"
        "  ask([None]), ask([1, 2]), ask([1.0, None]), ask(['1', 2])]",
    )
    assert found[:4] == [[2, 0, 1], [1, 0], [2, 0, 0], [0]]
    told = "the key of visits is of type string"
    for text, holds in zip(found[4:], ("integer", "floating", "mixed-integer"), strict=True):
        assert text.startswith(f"UsageError: the column 'who' of the entity rows holds {holds} values"), text
        assert told in text


@pytest.mark.parametrize(
    ("kind", "who", "counts"),
    [
        ("integer", pl.Series([1, None, 2], dtype=pl.Int64), [2, 0, 1]),
        ("integer", pl.Series([1, None, 2], dtype=pl.UInt8), [2, 0, 1]),
        ("integer", pl.Series([None, None]), [0, 0]),
        ("string", pl.Series(["1", None, "2"]), [2, 0, 1]),
        ("string", pl.Series(["1", None, "2"], dtype=pl.Categorical), [2, 0, 1]),
        ("integer", pl.Series(["1"]), "holds String; the key of visits is of type integer"),
        ("integer", pl.Series([1.0]), "holds Float64; the key of visits is of type integer"),
        ("integer", pl.Series([True]), "holds Boolean; the key of visits is of type integer"),
        ("integer", pl.Series([2**63], dtype=pl.UInt64), "holds UInt64; the key of visits is of type integer"),
        ("string", pl.Series([1]), "holds Int64; the key of visits is of type string"),
    ],
)
def test_training_frames_say_the_same_of_polars(
    pg_url: str, tmp_path: Path, kind: str, who: pl.Series, counts: list[int] | str
) -> None:
    world(kind, pg_url, tmp_path)
    labels = pl.DataFrame([who.alias("who"), pl.Series("at", [START + 2 * M] * len(who))])
    with connect(pg_url, autocommit=True) as conn:
        stream = state.find_stream(conn, 1)
        table = online.ensure(conn, stream, worlds.definition(tmp_path / "defs", AGGREGATES, who=kind))
        if isinstance(counts, str):
            with pytest.raises(UsageError, match=counts) as refused:
                training_frame(conn, table, labels)
            assert "convert it: labels.with_columns(pl.col('who').cast(pl." in str(refused.value.hint)
        else:
            found = training_frame(conn, table, labels)
            assert found["n"].to_list() == counts
            assert found["who"].dtype == who.dtype, "the labels stay as they were given"


def test_training_frames_name_the_rows_without_a_moment(pg_url: str, integers: Path) -> None:
    labels = pl.DataFrame({"who": [1] * 8, "at": [START, None, START, *[None] * 5]})
    with connect(pg_url, autocommit=True) as conn:
        table = online.ensure(
            conn, state.find_stream(conn, 1), worlds.definition(integers / "defs", AGGREGATES, who="integer")
        )
        with pytest.raises(UsageError, match=r"'at' has no moment in 6 of 8 rows \(from 0 on: 1, 3, 4, 5, 6, \.\.\.\)"):
            training_frame(conn, table, labels)
        with pytest.raises(UsageError, match="'at' holds String, no moments"):
            training_frame(conn, table, labels.with_columns(pl.lit("x").alias("at")))
