"""What shows only over weeks: shares are kept, and nobody waits for ever."""

from __future__ import annotations

import random

from tests.scheduling.small_centre import HOUR, SmallCentre, stream

WEEK = 24 * 7


def test_accounts_converge_to_their_shares_within_two_percent() -> None:
    """Each account asks for more than all there is; from the fourth week on each has had its
    part."""
    shares = {"a": 5, "b": 3, "c": 2}
    centre = SmallCentre(4, shares)
    chance = random.Random(1)
    job = 0
    for hour in range(8 * WEEK):
        for account in shares:
            asked = sum(w.account == account for w in centre.waiting.values())
            for _ in range(40 - asked):
                job += 1
                centre.come(job, chance.choice((1, 2, 4)), chance.choice((1, 2, 3)), account)
        if hour == 3 * WEEK:
            centre.had = dict.fromkeys(shares, 0)
        centre.step()
    whole = sum(centre.had.values())
    assert whole >= 0.97 * 32 * 5 * WEEK, "nothing stands idle meanwhile"
    for account, share in shares.items():
        assert abs(centre.had[account] / whole - share / 10) <= 0.02, centre.had


def test_nobody_starves_at_a_load_of_95_percent() -> None:
    """Of an open stream of jobs of 1 to 64 GPUs on 64, each starts within 3 days: the first in line
    has a time promised, and whoever waits gets older than those that come."""
    centre = SmallCentre(8, {})
    jobs = stream(3, 0.95, 64, (1, 2, 4, 8, 16, 32, 64), (40, 20, 12, 12, 6, 4, 2))
    came = 0
    for _ in range(6 * WEEK):
        for gpus, hours in next(jobs):
            came += 1
            centre.come(came, gpus, hours)
        centre.step()
    longest = max(centre.waits.values()) // HOUR
    assert longest <= 72, longest
    oldest = min((w.created_us for w in centre.waiting.values()), default=centre.now)
    assert (centre.now - oldest) // HOUR <= 72
    assert came - len(centre.waiting) >= 0.95 * came
