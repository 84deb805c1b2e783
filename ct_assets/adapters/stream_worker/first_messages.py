"""The first messages of a stream that has accepted nothing yet: when all are refused, this is hardly the right topic.

What goes here: holding them back, and the refusal. What does not: why a message is refused (``streaming``), commits
(``committer``), what a refusal leaves behind (``registration.forget``).

A definition run on somebody else's topic would otherwise copy every byte of it into dead letters and say that all is well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ct_assets.errors import CtError

if TYPE_CHECKING:
    from ct_assets.adapters.stream_worker.session import Judged

# A right topic shows an accepted event long before: the shop's sample with all its dirt refuses 0.6 % of its messages, and
# of a topic that refuses even 95 % all of the first 1,000 come once in 10^22 times. Fewer may be one producer's bad start.
REFUSED_AT_LEAST = 1_000
_EXAMPLE = 120  # characters of a message that are shown


class NothingAccepted(CtError):
    """All of the first messages of a new stream were refused; nothing of them was stored."""


@dataclass
class FirstMessages:
    """Batches that wait until one event of the stream is accepted.

    ``accepted_before()`` asks the database whether the stream ever accepted one; ``hand_over`` takes a batch that may be
    committed. With ``keep_refused`` nothing is held back.
    """

    stream: str
    topic: str
    accepted_before: Callable[[], bool]
    hand_over: Callable[[Judged], None]
    keep_refused: bool = False
    nothing_accepted: bool = field(default=False, init=False)  # letters are stored, and still no event is accepted
    _settled: bool | None = field(default=None, init=False)  # None: the database was not asked yet
    _held: list[Judged] = field(default_factory=list, init=False)
    _dead: Counter[str] = field(default_factory=Counter, init=False)
    _messages: int = field(default=0, init=False)
    _examples: dict[str, str] = field(default_factory=dict, init=False)

    def judged(self, judged: Judged) -> None:
        """One more batch, in order. Raises :class:`NothingAccepted` when all of ``REFUSED_AT_LEAST`` were refused."""
        if self._settled is None:
            self._settled = self.accepted_before()
        self._held.append(judged)
        if self._settled or len(judged.batch.events):
            self._settled, self.nothing_accepted = True, False
            self.release()
            return
        self._count(judged)
        if self.keep_refused:
            self.release()
        elif self._dead.total() >= REFUSED_AT_LEAST:
            if not self.accepted_before():  # another worker's partition may be the good one
                raise self._refusal()
            self._settled = True
            self.release()

    def release(self) -> None:
        """Hand over what is held: there is no more to wait for."""
        held, self._held = self._held, []
        for judged in held:
            self.hand_over(judged)
        self.nothing_accepted = not self._settled and self._dead.total() > 0

    def forget(self) -> None:
        """The session begins again from the database: what is held comes again."""
        self._held, self._settled, self._messages = [], None, 0
        self._dead.clear()

    def _count(self, judged: Judged) -> None:
        self._messages += judged.batch.messages
        self._dead += judged.dead
        for letter in judged.batch.dead:
            if letter.reason not in self._examples:
                shown = ascii(letter.raw[:_EXAMPLE].decode(errors="backslashreplace"))
                place = f"partition {letter.partition}, offset {letter.offset}"
                self._examples[letter.reason] = f"{place}: {letter.error}: {shown}"

    def _refusal(self) -> NothingAccepted:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in self._dead.most_common(3))
        example = self._examples[self._dead.most_common(1)[0][0]]
        return NothingAccepted(
            f"{self.stream} accepted none of its first {self._messages:,} messages of {self.topic} ({listed}); "
            f"the worker stopped before it stored any that it held; for example {example}",
            hint="is this the right topic for the definition, and the right --format? `--keep-refused` goes on all the"
            " same and keeps them as dead letters",
        )
