"""What only the embedded log has: torn tails, corruption, one writer, segments, retention, a dead member's partitions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.adapters.clock import FixedClock
from ct_assets.adapters.events import log_segments as files
from ct_assets.adapters.events.log import LogSink, LogSource, add_partitions, create_log
from ct_assets.adapters.events.log_group import LogGroup
from ct_assets.adapters.events.log_sink import LogLocked, log_partitions, partition_folder
from ct_assets.adapters.events.port import BEGINNING, OffsetOutOfRange, SourceError
from ct_assets.errors import UsageError
from ct_assets_tests.adapters.events.reading import payloads, read_all


def _segment(folder: Path, partition: int = 0, base: int = 0) -> Path:
    return files.segment_path(partition_folder(folder, partition), base)


def _write(folder: Path, *values: bytes | None) -> None:
    sink = LogSink(folder)
    for value in values:
        sink.send([value])  # a frame each
    sink.close()


@given(
    batches=st.lists(st.lists(st.none() | st.binary(max_size=40), min_size=1, max_size=9), min_size=1, max_size=6),
    start=st.integers(0, 60),
    step=st.integers(1, 7),
)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_from_every_offset_in_every_step(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes | None]], start: int, step: int
) -> None:
    folder = tmp_path_factory.mktemp("log") / "events"
    sink = LogSink(folder)
    for number, batch in enumerate(batches):
        sink.send(batch, append_time=[1_000 * number + i for i in range(len(batch))])
    sink.close()
    written = [value for batch in batches for value in batch]
    times = [1_000 * number + i for number, batch in enumerate(batches) for i in range(len(batch))]
    start = min(start, len(written))
    source = LogSource(folder)
    source.assign({0: start})
    seen, offsets, appended = [], [], []
    while len(messages := source.poll(step, 0.0)):
        assert len(messages) <= step
        seen += payloads(messages)
        offsets += messages.offset.tolist()
        appended += messages.append_time.tolist()
    source.close()
    assert seen == written[start:]
    assert offsets == list(range(start, len(written)))
    assert appended == times[start:]


@pytest.mark.parametrize("left", [1, 4, 27, 28, 40, "all but one"])
def test_a_torn_tail_is_never_seen_and_cut_by_the_next_writer(tmp_path: Path, left: int | str) -> None:
    _write(tmp_path / "log", b"one", b"two")
    path = _segment(tmp_path / "log")
    whole = path.read_bytes()
    frame = files.encode(2, [b"never acknowledged"], np.zeros(1, np.int64))
    torn = frame[: len(frame) - 1 if isinstance(left, str) else left]
    path.write_bytes(whole + torn)

    source = LogSource(tmp_path / "log")
    assert source.end_offsets() == {0: 2}
    assert read_all(source, {0: 0}) == [b"one", b"two"]
    assert path.stat().st_size == len(whole) + len(torn)  # a reader changes nothing
    _write(tmp_path / "log", b"three")
    assert path.read_bytes()[: len(whole)] == whole
    assert payloads(source.poll(9, 1.0)) == [b"three"]
    assert source.end_offsets() == {0: 3}
    source.close()


def test_a_tail_of_the_right_length_with_wrong_bytes_is_torn_too(tmp_path: Path) -> None:
    """After a power cut a file may have its length and not its bytes."""
    _write(tmp_path / "log", b"one")
    path = _segment(tmp_path / "log")
    frame = bytearray(files.encode(1, [b"lost in the cache"], np.zeros(1, np.int64)))
    frame[-5:] = bytes(5)
    path.write_bytes(path.read_bytes() + frame)
    source = LogSource(tmp_path / "log")
    assert source.end_offsets() == {0: 1}
    assert read_all(source, {0: 0}) == [b"one"]
    source.close()
    _write(tmp_path / "log", b"two")
    source = LogSource(tmp_path / "log")
    assert read_all(source, {0: 0}) == [b"one", b"two"]
    source.close()


def test_damage_in_the_middle_is_said_and_nothing_is_cut(tmp_path: Path) -> None:
    _write(tmp_path / "log", b"one", b"two", b"three")
    path = _segment(tmp_path / "log")
    raw = bytearray(path.read_bytes())
    at = raw.index(b"two")
    raw[at] ^= 1
    path.write_bytes(raw)
    source = LogSource(tmp_path / "log")
    source.assign({0: 0})
    with pytest.raises(files.LogCorrupt, match="offsets 1 to 1") as found:
        source.poll(9, 0.0)
    assert str(path) in str(found.value)
    source.close()
    with pytest.raises(files.LogCorrupt, match="no torn tail"):
        _write(tmp_path / "log", b"four")
    assert path.read_bytes() == bytes(raw)
    with pytest.raises(files.LogCorrupt):  # and the failed attempt kept no lock
        _write(tmp_path / "log", b"four")


def test_one_writer_a_partition(tmp_path: Path) -> None:
    create_log(tmp_path / "log", 2)
    first, second = LogSink(tmp_path / "log"), LogSink(tmp_path / "log")
    first.send([b"a"], partition=0)
    second.send([b"b"], partition=1)
    with pytest.raises(LogLocked, match=str(os.getpid())):
        second.send([b"c"], partition=0)
    first.close()
    second.send([b"c"], partition=0)
    second.close()
    source = LogSource(tmp_path / "log")
    assert sorted(read_all(source, {0: 0, 1: 0})) == [b"a", b"b", b"c"]  # type: ignore[type-var]
    source.close()


def test_segments_follow_each_other_and_retention_takes_whole_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SEGMENT_BYTES", 400)
    sink = LogSink(tmp_path / "log")
    for number in range(40):
        sink.send([b"event %d" % number], append_time=number)
    sink.close()
    folder = partition_folder(tmp_path / "log", 0)
    bases = files.segments(folder)
    assert len(bases) > 4
    source = LogSource(tmp_path / "log")
    assert read_all(source, {0: 0}) == [b"event %d" % n for n in range(40)]
    source.assign({0: bases[2]})  # stands at the seam

    assert (
        files.delete_segments_before(folder, bases[3] - 1) == 2
    )  # the third segment's last record came at bases[3] - 1
    assert files.segments(folder) == bases[2:]
    assert source.begin_offsets() == {0: bases[2]}
    assert payloads(source.poll(1, 0.0)) == [b"event %d" % bases[2]]
    with pytest.raises(OffsetOutOfRange) as lost:
        source.assign({0: 1})
    assert (lost.value.partition, lost.value.committed, lost.value.available_from) == (0, 1, bases[2])
    assert read_all(source, {0: BEGINNING}) == [b"event %d" % n for n in range(bases[2], 40)]
    assert files.delete_segments_before(folder, 10**9) == len(bases) - 3  # the last one stays
    assert source.end_offsets() == {0: 40}
    source.close()


def test_keys_choose_the_partition_and_the_clock_stamps(tmp_path: Path) -> None:
    import datetime as dt

    clock = FixedClock(dt.datetime(2026, 1, 1, 0, 0, 0, 17, tzinfo=dt.UTC))
    sink = LogSink(tmp_path / "log", 4, clock)
    keys = [b"user %d" % (n % 10) for n in range(200)]
    sink.send([b"%d" % n for n in range(200)], keys)
    sink.close()
    source = LogSource(tmp_path / "log")
    source.assign(dict.fromkeys(range(4), 0))
    messages = source.poll(1000, 0.0)
    source.close()
    homes: dict[bytes, set[int]] = {}
    for index, value in enumerate(payloads(messages)):
        assert value is not None
        homes.setdefault(keys[int(value)], set()).add(int(messages.partition[index]))
    assert len(messages) == 200
    assert all(len(home) == 1 for home in homes.values())
    assert len(set.union(*homes.values())) > 1
    assert set(messages.append_time.tolist()) == {1767225600_000017}


def test_wrong_use_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no event log"):
        LogSource(tmp_path / "nothing")
    create_log(tmp_path / "log", 2)
    with pytest.raises(UsageError, match="there is a log"):
        create_log(tmp_path / "log", 2)
    with pytest.raises(UsageError, match="has 2 partitions, not 3"):
        LogSink(tmp_path / "log", 3)
    with pytest.raises(UsageError, match="only grow"):
        add_partitions(tmp_path / "log", 1)
    with pytest.raises(UsageError, match="no partition 7"):
        LogSink(tmp_path / "log").send([b"x"], partition=7)
    assert log_partitions(tmp_path / "log") == [0, 1]


def test_a_dead_members_partitions_go_to_the_living(tmp_path: Path) -> None:
    create_log(tmp_path / "log", 2)
    code = (
        "import sys, time; from pathlib import Path; from ct_assets.adapters.events.log_group import LogGroup\n"
        "print(LogGroup(Path(sys.argv[1]), 'g').balance([0, 1], print), flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "[0, 1]\n"
            member = LogGroup(tmp_path / "log", "g")
            assert member.balance([0, 1], lambda _: None) == []  # the other has not let go yet
        finally:
            other.kill()
    assert member.balance([0, 1], lambda _: None) == [0, 1]
    member.leave()
