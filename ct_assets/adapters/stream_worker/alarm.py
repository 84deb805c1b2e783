"""The rate alarm: when more messages than agreed are set aside, one incident says so, and closes when it is over.

What goes here: the rule and its incident. What does not: dead letters themselves (``adapters.stream``), incidents of
lost data (they stop the worker).

A producer that changes its schema (F33) or sends garbage (F31) stops nothing: its messages become dead letters and can
be replayed. Somebody must hear of it all the same, once, and not of the dirt that every topic has.

The rule looks at the last 1,000 messages or so since it last changed its mind. It opens when more than 5 % of them (and of
at least 100) are dead and a topic with 2 % dirt would show so many once in a million times; it closes when a topic with 5 %
would show so few once in a million times. So it opens at 12 dead of 100, 29 of 500, 51 of 1,000, and closes after 270
messages without any, or with 20 of 1,000. A constant 1.6 % has 51 of 1,000 with a probability of 1.5e-12, a constant 2 %
with 3.0e-9. Shares of about 3 to 4.5 %, between the two limits, may open and close it now and then.
"""

from __future__ import annotations

import shlex
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ct_assets.adapters.stream.state import DeadLetterRow, Stream
    from ct_assets.settings import Settings
    from ct_assets.streaming.definition import Definition

SHARE = 0.05  # of the messages; the shop's sample with all its dirt has 0.006
DIRT = 0.02  # a share that nobody need hear of
CHANCE = 1e-6  # what is rarer is no chance
WINDOW = 1_000  # messages looked back on
LEAST = 100  # messages before a share is a share
RULE = "dead_letter_rate"
LOST = ("offset_out_of_range", "topic_recreated", "log_truncated")  # what stopped a worker is over when one reads again


def at_most(dead: int, messages: int, share: float) -> float:
    """The probability of at most ``dead`` among ``messages`` of which each is dead with that ``share`` (binomial)."""
    term = (1 - share) ** messages
    total = term if dead >= 0 else 0.0
    for k in range(dead):
        term *= (messages - k) / (k + 1) * share / (1 - share)
        total += term
    return total


@dataclass
class DeadLetterAlarm:
    """Watches the share of dead letters, in a window of the batches that hold the last ``WINDOW`` messages.

    ``tell(message, detail)`` is called when it opens, and again once a window while it stays beyond ``SHARE``; ``over()``
    when it closes, also in a worker that did not see it open; ``reads()`` with the first batch.
    """

    tell: Callable[[str, dict[str, Any]], None]
    over: Callable[[], None]
    reads: Callable[[], None] = lambda: None
    again: str = "ct dead-letter replay"  # the command that takes letters back
    _batches: deque[tuple[int, Sequence[DeadLetterRow]]] = field(default_factory=deque, init=False)
    _messages: int = field(default=0, init=False)
    _dead: int = field(default=0, init=False)
    _untold: int = field(default=0, init=False)  # messages since it told
    _raised: bool | None = field(default=None, init=False)  # None: nothing is known of what earlier workers raised
    _began: bool = field(default=False, init=False)

    def judged(self, messages: int, dead: Sequence[DeadLetterRow]) -> None:
        """One batch: how many messages it held, and those that were set aside."""
        if not self._began:
            self._began = True
            self.reads()
        self._add(messages, dead)
        if self._messages < LEAST:
            return
        if self._is_too_many():
            if not self._raised or self._untold >= WINDOW:
                self._tell()
                self._turn(raised=True)
        elif self._raised is not False and self._is_few():
            self.over()
            self._turn(raised=False)

    def _add(self, messages: int, dead: Sequence[DeadLetterRow]) -> None:
        self._batches.append((messages, dead))
        self._messages, self._dead, self._untold = (
            self._messages + messages,
            self._dead + len(dead),
            self._untold + messages,
        )
        while self._messages - self._batches[0][0] >= WINDOW:
            old, letters = self._batches.popleft()
            self._messages, self._dead = self._messages - old, self._dead - len(letters)

    def _turn(self, *, raised: bool) -> None:
        """What was seen has been used: the next turn needs evidence of its own."""
        self._raised = raised
        self._batches.clear()
        self._messages = self._dead = self._untold = 0

    def _is_too_many(self) -> bool:
        messages, dead = self._seen()
        return self._dead > SHARE * self._messages and 1 - at_most(dead - 1, messages, DIRT) < CHANCE

    def _is_few(self) -> bool:
        messages, dead = self._seen()
        return at_most(dead, messages, SHARE) < CHANCE

    def _seen(self) -> tuple[int, int]:
        """Messages and dead ones, of a batch beyond the window as if it were one: more messages allow no smaller doubt."""
        if self._messages <= WINDOW:
            return self._messages, self._dead
        return WINDOW, self._dead * WINDOW // self._messages

    def _tell(self) -> None:
        letters = [letter for _, dead in self._batches for letter in dead]
        reasons = Counter(letter.reason for letter in letters)
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        first = next(letter for letter in letters if letter.reason == reasons.most_common(1)[0][0])
        self.tell(
            f"{len(letters):,} of {self._messages:,} messages were set aside ({listed}); the first of these: partition"
            f" {first.partition}, offset {first.offset}. `ct dead-letter list` has the errors; once contract or producer"
            f" is mended, `{self.again}` takes them again",
            {"messages": self._messages, "dead": dict(reasons), "partition": first.partition, "offset": first.offset},
        )


def ledger_alarm(
    settings: Settings,
    definition: Definition,
    stream: Stream,
    say: Callable[[str], None],
    message_format: str = "json",
) -> DeadLetterAlarm:
    """An alarm whose incidents are rows of the ledger; a ledger that is away is said and stops nothing."""

    def with_ledger(act: Callable[[Any], Any]) -> None:
        import psycopg

        from ct_assets.adapters.postgres.connect import DatabaseUnreachable, connect, url_for

        try:
            with connect(url_for(settings, "ledger")) as conn:
                act(conn)
        except (psycopg.Error, DatabaseUnreachable) as error:
            say(f"the ledger could not be told of dead letters: {type(error).__name__}")

    def tell(message: str, detail: dict[str, Any]) -> None:
        from ct_assets.adapters import incidents

        say(message)
        schema = definition.schema
        found = incidents.Incident(
            definition.name, schema.name, None, RULE, message, schema.digest, detail=detail, stream=stream.reading
        )
        with_ledger(lambda conn: incidents.report(conn, found))

    def settle(*rules: str) -> None:
        from ct_assets.adapters import incidents

        with_ledger(lambda conn: incidents.settle(conn, definition.schema.name, rules, stream.reading, definition.name))

    again = f"ct dead-letter replay --definition {shlex.quote(str(definition.path))}"
    if message_format != "json":
        again = f"{again} --format {message_format}"
    return DeadLetterAlarm(tell, lambda: settle(RULE), lambda: settle(*LOST), again)
