"""The order of lines."""

from __future__ import annotations

import numpy as np
import pytest

from controlplane.scheduling.lines import highest_first


@pytest.mark.parametrize("widest", [1, 5, 10**7, 2**55, 2**62])
def test_the_highest_comes_first_and_of_equals_the_earlier(widest: int) -> None:
    scores = np.random.default_rng(1).integers(-widest // 2, widest // 2 + 1, 3000)
    assert (highest_first(scores) == np.argsort(-scores, kind="stable")).all()
    assert len(highest_first(scores[:0])) == 0
