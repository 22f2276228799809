"""A job of a higher class takes the place of one of a lower class, which starts again later."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.v1 import job_pb2
from tests.support.cluster import cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def test_a_higher_class_takes_the_place_and_the_lower_starts_again(tmp_path: Path) -> None:
    with cluster(tmp_path) as one:
        one.agent("a", cpus=4, gpus=2)
        until(lambda: one.node("a"), "the node to join")
        script = f"trap 'exit 1' TERM; touch {tmp_path}/began; while :; do sleep 0.05; done"
        low = one.submit(
            {
                "command": ["sh", "-c", script],
                "resources": {"gpus": 2},
                "priority_class": "low",
                "max_attempts": 1,
            }
        )
        one.running(low)
        until((tmp_path / "began").exists, "the program to begin")
        same = one.submit({"command": ["true"], "resources": {"gpus": 1}, "priority_class": "low"})
        high = one.submit(
            {
                "command": ["sh", "-c", f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"],
                "resources": {"gpus": 2},
                "priority_class": "high",
            }
        )
        one.running(high)
        assert one.client.get(same).state == job_pb2.JOB_STATE_PENDING, "of the same class: waits"
        first = one.client.get(low).attempts[0]
        assert first.state == job_pb2.ATTEMPT_STATE_PREEMPTED
        number = high.removeprefix("jobs/")
        assert first.cause.message == f"preempted: makes room for job {number}"
        (tmp_path / "go").touch()
        again = one.running(low)
        assert len(again.attempts) == 2
        told = one.ccctl("history", low.removeprefix("jobs/")).stdout
        assert f"it makes room for job {number}" in told


SAVES = """
import os, pathlib, signal, sys, time
from pathlib import Path

def save(*_):
    time.sleep(0.5)
    with open(os.environ["CC_REPORT"], "a") as told:
        told.write('{"checkpoint": {"path": "state.pt", "step": 7}}\\n')
    Path(sys.argv[1], "saved").touch()

signal.signal(signal.SIGUSR1, save)
Path(sys.argv[1], "began").touch()
while True:
    time.sleep(0.05)
"""


def test_one_that_has_a_warning_signal_may_save_its_state_first(tmp_path: Path) -> None:
    with cluster(tmp_path) as one:
        one.agent("a", cpus=4, gpus=1)
        until(lambda: one.node("a"), "the node to join")
        low = one.submit(
            {
                "command": ["python3", "-c", SAVES, str(tmp_path)],
                "resources": {"gpus": 1},
                "priority_class": "low",
                "time_limit": "1h",
                "signal": "USR1@50m",
            }
        )
        one.running(low)
        until((tmp_path / "began").exists, "the program to begin")
        high = one.submit({"command": ["true"], "resources": {"gpus": 1}, "priority_class": "high"})
        assert one.ended(high).state == job_pb2.JOB_STATE_SUCCEEDED
        assert (tmp_path / "saved").exists()
        first = one.client.get(low).attempts[0]
        assert first.state == job_pb2.ATTEMPT_STATE_PREEMPTED
        assert first.cause.message == (
            "preempted: makes room for others, and it has saved its state"
        )
