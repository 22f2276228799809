"""The quick ones of the scenarios; `make faults` plays them all, and the random soak."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.playing import KINDS, play
from tests.faults.scenarios import SCENARIOS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.mark.parametrize("on", KINDS)
def test_what_goes_wrong_is_borne(tmp_path: Path, on: str) -> None:
    wanted = [scenario for scenario in SCENARIOS if scenario.quick and scenario.on == on]
    if not wanted:
        pytest.skip("none of these is quick")
    if on in ("small-disk", "hosts") and os.geteuid() != 0:
        pytest.skip("needs root, for a disk or hosts of its own")
    outcomes = play(wanted, tmp_path, print)
    assert not any(outcome.faults for outcome in outcomes), "\n".join(map(str, outcomes))
