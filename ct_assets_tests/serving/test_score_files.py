"""Files of users for `ct score`: what names none is refused in words, with its place.

What goes here: reading the file. What does not: scores (``test_serve``).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ct_assets.cli.serve import entities_of
from ct_assets.errors import UsageError


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "cannot be read as CSV"),
        (b"user_id,b\n42\n43,1,2\n", "cannot be read as CSV"),
        (b"user_id\n\xff\n", "cannot be read as CSV"),
        (b"user_id\n42\n1_000\n", 'user_id is "1_000" in data row 2, no whole number'),
        ("user_id\n\u0664\u0662\n".encode(), "in data row 1, no whole number"),
        (b"user_id,b\n,1\n", "user_id is null in data row 1"),
        (b"users\n42\n", "has no column 'user_id'"),
    ],
)
def test_a_file_that_names_no_users_is_refused_in_words(tmp_path: Path, text: bytes, says: str) -> None:
    (tmp_path / "users.csv").write_bytes(text)
    follower = SimpleNamespace(current=SimpleNamespace(features=SimpleNamespace(is_integer=True)))
    with pytest.raises(UsageError) as refused:
        entities_of(tmp_path / "users.csv", "user_id", cast(Any, follower))
    assert says in str(refused.value)


def test_whole_numbers_are_taken_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("b,user_id\nx,42\ny, -7 \nz,+9007199254740993\n")
    follower = SimpleNamespace(current=SimpleNamespace(features=SimpleNamespace(is_integer=True)))
    assert entities_of(tmp_path / "users.csv", "user_id", cast(Any, follower)) == [42, -7, 9007199254740993]
