"""The rate alarm: when more messages than agreed are set aside, one incident says so, and closes when it is over.

What goes here: the rule and its incident. What does not: dead letters themselves (``adapters.stream``), incidents of
lost data (they stop the worker).

A producer that changes its schema (F33) or sends garbage (F31) stops nothing: its messages become dead letters and can
be replayed. Somebody must hear of it all the same.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ct_assets.adapters.stream.state import DeadLetterRow
    from ct_assets.settings import Settings
    from ct_assets.streaming.definition import Definition

SHARE = 0.05  # of the messages; the shop's sample with all its dirt has 0.006
LEAST = 100  # messages before a share is a share
RULE = "dead_letter_rate"
LOST = ("offset_out_of_range", "topic_recreated", "log_truncated")  # what stopped a worker is over when one reads again


@dataclass
class DeadLetterAlarm:
    """Watches the share of dead letters, in pieces of at least ``LEAST`` messages.

    ``tell(message, detail)`` is called when the share passes ``SHARE`` and again for each further piece beyond it;
    ``over()`` with the first piece below it, also in a worker that did not see the beginning.
    """

    tell: Callable[[str, dict[str, Any]], None]
    over: Callable[[], None]
    again: str = "ct dead-letter replay"  # the command that takes letters back
    _messages: int = field(default=0, init=False)
    _dead: list[DeadLetterRow] = field(default_factory=list, init=False)
    _raised: bool | None = field(default=None, init=False)  # None: nothing is known of what earlier workers raised

    def judged(self, messages: int, dead: Sequence[DeadLetterRow]) -> None:
        """One batch: how many messages it held, and those that were set aside."""
        self._messages += messages
        self._dead += dead
        if self._messages < LEAST:
            return
        if len(self._dead) > SHARE * self._messages:
            self._raised = True
            self._tell()
        elif self._raised is not False:
            self._raised = False
            self.over()
        self._messages, self._dead = 0, []

    def _tell(self) -> None:
        reasons = Counter(letter.reason for letter in self._dead)
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        first = next(letter for letter in self._dead if letter.reason == reasons.most_common(1)[0][0])
        self.tell(
            f"{len(self._dead):,} of {self._messages:,} messages were set aside ({listed}); the first of these: partition"
            f" {first.partition}, offset {first.offset}. `ct dead-letter list` has the errors; once contract or producer"
            f" is mended, `{self.again}` takes them again",
            {"messages": self._messages, "dead": dict(reasons), "partition": first.partition, "offset": first.offset},
        )


def ledger_alarm(
    settings: Settings, definition: Definition, say: Callable[[str], None], message_format: str = "json"
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
        found = incidents.Incident(definition.name, schema.name, None, RULE, message, schema.digest, detail=detail)
        with_ledger(lambda conn: incidents.report(conn, found))

    def over() -> None:
        from ct_assets.adapters import incidents

        with_ledger(lambda conn: incidents.settle(conn, definition.schema.name, (RULE, *LOST)))

    again = f"ct dead-letter replay --definition {shlex.quote(str(definition.path))}"
    return DeadLetterAlarm(tell, over, again if message_format == "json" else f"{again} --format {message_format}")
