"""Progress that a program reports reaches who watches its job, whatever dies on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cluster import cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SCRIPT = """
echo '{"step": 1, "progress": 0.25, "metrics": {"loss": 3}}' >> "$CC_REPORT"
echo '{"progress": 1.7, "los": 1}' >> "$CC_REPORT"
echo '{"checkpoint": {"path": "/shared/1.pt", "step": 1}}' >> "$CC_REPORT"
until [ -e "$CC_JOB_DIR/go" ]; do sleep 0.05; done
echo '{"step": 2, "progress": 0.5, "metrics": {"loss": 2}}' >> "$CC_REPORT"
printf '{"step": 3, "progress": 1}' >> "$CC_REPORT"
"""


def test_progress_is_shown_though_agent_and_control_plane_are_killed(tmp_path: Path) -> None:
    with cluster(tmp_path, "a") as made:
        name = made.submit({"command": ["sh", "-c", SCRIPT]})

        def first() -> bool:
            job = made.client.get(name)
            return bool(job.attempts) and job.attempts[-1].progress.step == 1

        until(first, "the first point")
        for daemon in (made.agents["a"], made.control):
            daemon.kill()
            daemon.start()
        number = name.removeprefix("jobs/")
        until(lambda: made.client.get(name), "the control plane to answer")
        (tmp_path / "a" / "jobs" / number / "go").touch()
        job = made.ended(name)
        assert job.exit_code == 0

        def last() -> bool:
            return made.client.get(name).attempts[-1].progress.step == 3

        until(last, "the last point")
        shown = made.ccctl("show", name).stdout
        assert "Progress: 100.0 %, step 3, loss 2" in shown
        assert "Last checkpoint: step 1 by rank 0" in shown
        assert "rank 0's report: line 2: progress: 1.7: must be 0 to 1" in shown
        points = json.loads(made.ccctl("metrics", name, "-o", "json").stdout)["points"]
        assert [point["step"] for point in points] == [1, 2, 3]
        assert made.ccctl("metrics", name, "-o", "csv").stdout.startswith("time,step,progress,loss")


def test_watch_tells_the_progress_of_a_job_that_runs(tmp_path: Path) -> None:
    script = """
    for step in 1 2 3; do
      echo "{\\"step\\": $step, \\"progress\\": 0.$step}" >> "$CC_REPORT"; sleep 0.8
    done"""
    with cluster(tmp_path, "a") as made:
        name = made.submit({"command": ["sh", "-c", script]})
        watched = made.ccctl("watch", name)
        assert watched.returncode == 0, watched.stderr
        assert "%, step " in watched.stderr
