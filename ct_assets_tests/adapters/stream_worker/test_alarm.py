"""The rate alarm on seeded topics: constant dirt never opens it, a jump does soon and once, and it closes when it is over.

Why the limits are computed here from whole numbers: the rule's own sum of a binomial is what is on trial.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from fractions import Fraction
from math import comb

import pytest

from ct_assets.adapters.stream.state import DeadLetterRow
from ct_assets.adapters.stream_worker.alarm import CHANCE, DIRT, LEAST, SHARE, WINDOW, DeadLetterAlarm, at_most

LETTER = DeadLetterRow(0, 5, "poison", "no JSON", "digest", b"x")


@dataclass
class Topic:
    """Messages with a share of dead ones, in batches; what the alarm said after how many."""

    seed: int
    batch: int = 103
    said: list[tuple[str, int]] = field(default_factory=list)
    messages: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.alarm = DeadLetterAlarm(
            lambda message, _: self.said.append((message.split(" messages")[0], self.messages)),
            lambda: self.said.append(("over", self.messages)),
            lambda: self.said.append(("reads", self.messages)),
        )

    def send(self, share: float, messages: int) -> list[tuple[str, int]]:
        """What is said of these further messages, and after how many of them."""
        begin, already = self.messages, len(self.said)
        for _ in range(messages // self.batch):
            self.messages += self.batch
            self.alarm.judged(self.batch, [LETTER] * sum(self.chance.random() < share for _ in range(self.batch)))
        return [(what, after - begin) for what, after in self.said[already:]]


@pytest.mark.parametrize("batch", [1, 20, 103, 5_000])
def test_constant_dirt_of_1_6_percent_opens_nothing(batch: int) -> None:
    """In pieces of 100, each judged alone, it opened every few minutes and the next piece closed it."""
    said = Topic(7, batch).send(0.016, 400_000)
    assert [what for what, _ in said] == ["reads", "over"], "an earlier worker's alarm is over, and that is all"


@pytest.mark.parametrize("seed", range(5))
def test_a_jump_to_20_percent_opens_soon_stays_open_and_closes_when_it_is_over(seed: int) -> None:
    topic = Topic(seed)
    topic.send(0.016, 20_000)
    first, *others = topic.send(0.2, 50_000)
    assert " of " in first[0]
    assert first[1] <= 500
    assert "over" not in {what for what, _ in others}
    assert len(others) <= 50_000 / WINDOW, "once a window"
    *last, (over, after) = topic.send(0.016, 100_000)
    assert (over, after <= 3 * WINDOW) == ("over", True)
    assert len(last) <= 1, "the window of the mending may be one more of too many"


@pytest.mark.parametrize("share", [0.001, 0.02, 0.025, 0.06, 0.5, 1.0])
def test_a_constant_share_beside_the_limits_turns_it_once(share: float) -> None:
    said = [what for what, _ in Topic(3).send(share, 300_000) if what != "reads"]
    if share < SHARE:
        assert said in (["over"], []), "of 2 to 3 % nothing is sure: what was open stays open"
    else:
        assert "over" not in said
        assert 1 <= len(said) <= 300_000 / WINDOW


def test_single_messages_are_no_share() -> None:
    topic = Topic(1)
    topic.alarm.judged(20, [LETTER] * 20)
    assert topic.said == [("reads", 0)], "too few to say"
    topic.alarm.judged(LEAST - 20, [])
    assert topic.said[1:] == [("20 of 100", 0)]


def exactly(dead: int, messages: int, share: float) -> Fraction:
    """At most so many, exactly."""
    p = Fraction(str(share))
    return sum((comb(messages, k) * p**k * (1 - p) ** (messages - k) for k in range(dead + 1)), Fraction(0))


@pytest.mark.parametrize(
    ("dead", "messages", "share"), [(0, 270, SHARE), (50, 1000, 0.016), (28, 500, DIRT), (-1, 9, DIRT)]
)
def test_the_sum_of_a_binomial(dead: int, messages: int, share: float) -> None:
    assert at_most(dead, messages, share) == pytest.approx(float(exactly(dead, messages, share)), rel=1e-9)


@pytest.mark.parametrize(("dead", "messages"), [(12, 100), (29, 500), (51, 1000), (5_001, 100_000)])
def test_it_opens_at_the_figures_that_the_module_says(dead: int, messages: int) -> None:
    if messages <= WINDOW:
        limit = next(n for n in range(messages) if n > SHARE * messages and 1 - exactly(n - 1, messages, DIRT) < CHANCE)
        assert limit == dead
    for n in (dead, dead - 1):
        topic = Topic(1)
        topic.alarm.judged(messages, [LETTER] * n)
        assert [what for what, _ in topic.said[1:]] == ([f"{dead:,} of {messages:,}"] if n == dead else [])


@pytest.mark.parametrize(("dead", "messages"), [(0, 270), (20, 1000), (2_099, 100_000)])
def test_it_closes_at_the_figures_that_the_module_says(dead: int, messages: int) -> None:
    if messages <= WINDOW:
        assert exactly(dead, messages, SHARE) < CHANCE < exactly(dead + 1, messages, SHARE)
    for n in (dead, dead + 1):
        topic = Topic(1)
        topic.alarm.judged(messages, [LETTER] * n)
        assert [what for what, _ in topic.said[1:]] == (["over"] if n == dead else [])


def test_constant_dirt_reaches_the_limit_as_rarely_as_the_module_says() -> None:
    assert float(1 - exactly(50, 1000, 0.016)) == pytest.approx(1.5e-12, rel=0.05)
    assert float(1 - exactly(50, 1000, 0.02)) == pytest.approx(3.0e-9, rel=0.05)
