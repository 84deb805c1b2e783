"""A sample stream that is sent at once to a broker which stamps arrivals itself (`sent_us`)."""

from __future__ import annotations

import numpy as np

from ct_assets.sampling.arrivals import ArrivalOptions, arrive
from ct_assets.sampling.shoppers import ShopOptions

HOUR = 3_600_000_000
SENT = 1_767_225_600_000_000 + 30 * HOUR


def test_nothing_but_what_is_planted_lies_ahead_of_the_moment_of_sending() -> None:
    found = arrive(ArrivalOptions(ShopOptions(users=400, hours=24, seed=5), sent_us=SENT))
    planted = np.asarray(found.planted)
    time = np.asarray(found.event_time)
    ahead = time > SENT
    assert (planted == "future").sum() > 0
    assert (ahead == (planted == "future")).all(), "no clock runs four minutes ahead: the stamp would not expose it"
    assert (time[ahead] == SENT + HOUR).all()


def test_without_a_moment_of_sending_some_clocks_run_ahead_of_their_arrival() -> None:
    found = arrive(ArrivalOptions(ShopOptions(users=400, hours=24, seed=5)))
    early = np.asarray(found.event_time) - np.asarray(found.append_time)
    clean = np.asarray(found.planted) == "clean"
    assert ((early > 0) & clean).sum() > 0
    assert early[clean].max() <= 4 * 60 * 1_000_000
