"""Cleaning on one thread while another writes to the database, in bounded memory.

What goes here: the hand-over between the two. What does not: what is cleaned or where it is written.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")

_END = object()


class _HandOver(Generic[T]):
    """A bounded queue between one producer and one consumer, either of which may end early."""

    def __init__(self, depth: int) -> None:
        self.queue: queue.Queue[object] = queue.Queue(maxsize=depth)
        self.stopped = threading.Event()
        self.failure: BaseException | None = None

    def put(self, item: object) -> bool:
        """Hand an item over; False when nobody consumes any more."""
        while not self.stopped.is_set():
            try:
                self.queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def produce(self, items: Iterable[T]) -> None:
        """Hand over all items, then the end; an exception waits for the consumer."""
        try:
            for item in items:
                if not self.put(item):
                    return
        except BaseException as error:  # noqa: BLE001 - raised where the items are consumed, whatever it is
            self.failure = error
        self.put(_END)

    def consume(self) -> Iterator[T]:
        """The items in order."""
        while (item := self.queue.get()) is not _END:
            yield item  # pyright: ignore[reportReturnType]
        if self.failure is not None:
            raise self.failure


@contextmanager
def ahead(items: Iterable[T], depth: int = 2) -> Iterator[Iterator[T]]:
    """Iterate ``items`` on a thread of their own, at most ``depth`` items ahead of whoever consumes them.

    An exception of the producer is raised where the items are consumed. When the block ends early, the producer stops
    at its next item, and the block waits for that: nothing runs on afterwards.
    """
    hand_over: _HandOver[T] = _HandOver(depth)
    thread = threading.Thread(target=hand_over.produce, args=(items,), name="ct-clean", daemon=True)
    thread.start()
    try:
        yield hand_over.consume()
    finally:
        hand_over.stopped.set()
        thread.join()
