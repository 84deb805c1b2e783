"""One suite for both stores: what is true of a folder is true of an S3-compatible bucket."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ct_assets.adapters.storage import LocalStorage, Storage, StorageError, checked, open_storage
from ct_assets.settings import load


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return open_storage(f"file://{tmp_path}/a%20store")
    endpoint = request.getfixturevalue("s3_endpoint")
    return open_storage(
        load(
            {
                "CT_STORAGE_URL": f"s3://ct-test/{uuid.uuid4()}",
                "CT_S3_ENDPOINT": endpoint,
                "CT_S3_ACCESS_KEY": "test",
                "CT_S3_SECRET_KEY": "test",
            }
        )
    )


def test_bytes_come_back(storage: Storage) -> None:
    data = os.urandom(3_000_000)
    storage.put("raw/ab/cd", data)
    assert storage.get("raw/ab/cd") == data
    with storage.open("raw/ab/cd") as stream:
        assert stream.read(10) == data[:10]
        assert hashlib.sha256(stream.read()).digest() == hashlib.sha256(data[10:]).digest()
    storage.put("raw/ab/stream", io.BytesIO(data))
    assert storage.get("raw/ab/stream") == data


def test_an_empty_object_exists(storage: Storage) -> None:
    storage.put("empty", b"")
    assert storage.exists("empty")
    assert storage.get("empty") == b""


def test_put_replaces(storage: Storage) -> None:
    storage.put("k", b"old and longer")
    storage.put("k", b"new")
    assert storage.get("k") == b"new"


def test_absent_is_named(storage: Storage) -> None:
    assert not storage.exists("no/such")
    for read in (storage.get, storage.open):
        with pytest.raises(StorageError, match="nothing is stored under 'no/such'"):
            read("no/such")
    storage.delete("no/such")


def test_a_folder_is_no_object(storage: Storage) -> None:
    storage.put("a/b", b"1")
    assert not storage.exists("a")
    with pytest.raises(StorageError, match="nothing is stored"):
        storage.get("a")


def test_list_is_sorted_and_below_the_prefix(storage: Storage) -> None:
    for key in ("b/2", "b/1", "a", "bb/3", "b/c/4"):
        storage.put(key, b"x")
    assert sorted(storage.list()) == ["a", "b/1", "b/2", "b/c/4", "bb/3"]
    assert sorted(storage.list("b")) == ["b/1", "b/2", "b/c/4"]
    assert list(storage.list("nothing")) == []


def test_delete(storage: Storage) -> None:
    storage.put("k", b"x")
    storage.delete("k")
    assert not storage.exists("k")


class _Breaks(io.BytesIO):
    """A source that fails after its first block."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if not data:
            raise OSError(errno.EIO, "the source broke")
        return data


def test_a_write_that_breaks_off_leaves_what_was_there(storage: Storage) -> None:
    storage.put("k", b"good")
    with pytest.raises(StorageError, match="the source broke"):
        storage.put("k", _Breaks(b"half" * 1000))
    with pytest.raises(StorageError, match="the source broke"):
        storage.put("fresh", _Breaks(b"half" * 1000))
    assert storage.get("k") == b"good"
    assert list(storage.list()) == ["k"]


@pytest.mark.fault("F25")
@pytest.mark.parametrize(
    "key", ["../x", "a/../b", "/etc/passwd", "a//b", "", ".", "a/.", "a\\b", "a b", "a\0", "é", "a/..", "x" * 901]
)
def test_f25_no_key_leaves_the_store(storage: Storage, key: str) -> None:
    for act in (storage.get, storage.exists, storage.delete, storage.open, storage.local_path):
        with pytest.raises(StorageError, match="is not a storage key"):
            act(key)
    with pytest.raises(StorageError, match="is not a storage key"):
        storage.put(key, b"x")


@given(st.from_regex(r"[a-z0-9._=-]{1,8}(/[a-z0-9._=-]{1,8}){0,3}", fullmatch=True))
def test_any_checked_key_stays_below_the_root(key: str) -> None:
    try:
        checked(key)
    except StorageError:
        assert any(set(part) <= {"."} for part in key.split("/"))
        return
    assert (Path("/root") / key).resolve().is_relative_to("/root")


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=st.lists(st.tuples(st.sampled_from(["a", "b", "c/d"]), st.one_of(st.none(), st.binary(max_size=64)))))
def test_both_behave_like_a_dictionary(storage: Storage, writes: list[tuple[str, bytes | None]]) -> None:
    for key in list(storage.list()):
        storage.delete(key)
    model: dict[str, bytes] = {}
    for key, data in writes:
        if data is None:
            storage.delete(key)
            model.pop(key, None)
        else:
            storage.put(key, data)
            model[key] = data
    assert {key: storage.get(key) for key in storage.list()} == model


def test_local_path_only_where_there_is_one(storage: Storage) -> None:
    storage.put("k", b"x")
    path = storage.local_path("k")
    assert path is None or path.read_bytes() == b"x"
    assert (path is not None) == isinstance(storage, LocalStorage)


def test_the_folder_is_private(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path / "s")
    store.put("raw/x", b"1")
    assert (tmp_path / "s" / "raw").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("url", ["ftp://x/y", "s3://bucket/prefix"])
def test_an_unknown_store_is_refused(url: str) -> None:
    with pytest.raises(StorageError, match="cannot open storage"):
        open_storage(url)
