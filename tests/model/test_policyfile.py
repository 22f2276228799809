"""Policies as files: what they may say, and what is told of those that say it wrong."""

from __future__ import annotations

import pytest

from controlplane.model.document import BadDocument
from controlplane.model.policy import DEFAULT, Backfill, FairShare, Policy, Weights
from controlplane.model.policyfile import read_policy


def test_an_empty_file_is_the_default() -> None:
    assert read_policy("") == DEFAULT


def test_everything_may_be_said() -> None:
    assert read_policy(
        """
        backfill = "conservative"
        backfill_depth = 50
        fair_share = "drf"
        age_limit = "3d"
        half_life = "12h"
        fabric = ["rack"]
        preemption = false
        [weights]
        age = 7
        [gpu_weights]
        H100 = 2500
        """
    ) == Policy(
        backfill=Backfill.CONSERVATIVE,
        backfill_depth=50,
        fair_share=FairShare.DRF,
        age_limit_us=3 * 86_400_000_000,
        half_life_us=12 * 3_600_000_000,
        fabric=("rack",),
        preemption=False,
        weights=Weights(age=7),
        gpu_weights=(("H100", 2500),),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("backfill = ", "is no TOML: "),
        ('backfill = "fast"', "backfill: 'fast': must be one of none, skip, easy, conservative"),
        ("speed = 1", "speed: is not known; known are age_limit_us, backfill, backfill_depth,"),
        ('weights = { age = "x" }', "weights.age: must be of type int"),
        ("weights = { age = -1 }", "weights.age: must not be below 0"),
        ('age_limit = "101d"', "age_limit: must be at most 100d"),
        ("age_limit = 5", 'age_limit: 5: must be a duration such as "7d" or "12h"'),
        ("preemption = 1", "preemption: must be of type bool"),
        ("gpu_weights = 3", "gpu_weights: must be a table of models and thousandths"),
        ('fabric = "rack"', "fabric: must be a list"),
    ],
)
def test_what_is_wrong_is_told_with_its_key(text: str, told: str) -> None:
    with pytest.raises(BadDocument) as caught:
        read_policy(text)
    assert str(caught.value).startswith(told)
