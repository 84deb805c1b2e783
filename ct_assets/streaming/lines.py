"""Which lines of a file of JSON lines are messages: all but blank ones, and a byte-order mark is no part of the first.

What goes here: that one rule, for the commands that read such files. What does not: what a message holds (``decode.py``);
an empty message of a topic is a message, and poison.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ct_assets.streaming.messages import Messages

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACES = np.frombuffer(b" \t\n\r\x0b\x0c", np.uint8)


@dataclass
class Skipped:
    """What of a file is no message."""

    marked: bool = False  # it begins with a byte-order mark
    blank: int = 0

    def first(self, data: bytes) -> bytes:
        """The beginning of the file without its byte-order mark."""
        self.marked = data.startswith(BYTE_ORDER_MARK)
        return data.removeprefix(BYTE_ORDER_MARK)

    def said(self) -> list[str]:
        """In words; empty when there was nothing."""
        mark = ["the byte-order mark at the beginning is no content"] if self.marked else []
        lines = "1 blank line is" if self.blank == 1 else f"{self.blank:,} blank lines are"
        return [*mark, f"{lines} skipped"] if self.blank else mark

    def numbered(self, stream: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
        """(number in the file from 1, line) of each message."""
        for number, line in enumerate(stream, start=1):
            text = self.first(line) if number == 1 else line
            if text and not text.isspace():
                yield number, text
            elif text:
                self.blank += 1

    def without_blank(self, messages: Messages) -> Messages:
        """The messages of lines that are not blank; their offsets stay."""
        blank = _blank(messages)
        if not blank.any():
            return messages
        self.blank += int(blank.sum())
        return messages.take(np.flatnonzero(~blank))


def _blank(messages: Messages) -> npt.NDArray[np.bool_]:
    """Lines of nothing but white space: only those that begin with it are looked at."""
    blank = messages.length == 0
    filled = np.flatnonzero(~blank)
    begins = np.frombuffer(messages.data, np.uint8)[messages.start[filled]]
    for index in filled[np.isin(begins, _SPACES)]:
        blank[index] = (messages.payload(int(index)) or b"").isspace()
    return blank
