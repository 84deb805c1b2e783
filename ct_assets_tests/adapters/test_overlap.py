"""The hand-over between cleaning and writing: order, bounded memory, nothing left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ct_assets.adapters.overlap import ahead


def _cleaners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ct-clean"]


def test_order_is_kept() -> None:
    with ahead(range(1000)) as items:
        assert list(items) == list(range(1000))
    assert not _cleaners()


def test_at_most_depth_plus_one_items_are_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    with ahead(items(), depth=2) as got:
        assert next(got) == 0
        time.sleep(0.3)
        assert len(made) <= 1 + 2 + 1
        assert list(got) == list(range(1, 100))


def test_the_producers_exception_is_raised_at_the_consumer() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("bad block")

    seen = []
    with pytest.raises(ValueError, match="bad block"), ahead(items()) as got:
        seen.extend(iter(got.__next__, None))
    assert seen == [1]
    assert not _cleaners()


def test_a_consumer_that_gives_up_stops_the_producer() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(10**6):
            made.append(i)
            yield i

    def give_up() -> None:
        with ahead(items()) as got:
            next(got)
            raise RuntimeError("connection lost")

    with pytest.raises(RuntimeError, match="connection lost"):
        give_up()
    assert not _cleaners()
    assert len(made) < 10
