"""Arrays, batches, holds, requeues and changes with real daemons."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.v1 import job_pb2
from tests.support.cluster import Cluster, cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        for name in ("n1", "n2"):
            made.agent(name, cpus=8)
        yield made


def test_an_array_runs_each_index_once_and_goes_on_over_a_kill(
    two: Cluster, tmp_path: Path
) -> None:
    script = 'echo "$CC_TASK_INDEX of $CC_TASK_COUNT"; sleep 0.2; [ $CC_TASK_INDEX != 7 ]'
    name = two.submit(
        {
            "command": ["sh", "-c", script],
            "tasks": "1-20:3,30-39%6",
            "working_dir": str(tmp_path),
            "output": "%a.out",
            "resources": {"cpus": 1},
        }
    )
    until(lambda: two.client.get(name).tasks.succeeded >= 3, "a few tasks to end")
    two.control.kill()
    two.control.start()
    job = two.ended(name)
    wanted = [*range(1, 21, 3), *range(30, 40)]
    assert (job.tasks.total, job.tasks.succeeded, job.tasks.failed) == (17, 16, 1)
    assert job.exit_code == 1
    assert job.reason == "1 failed, 16 succeeded of 17 tasks"
    found = {path.stem: path.read_text() for path in tmp_path.glob("*.out")}
    assert found == {str(index): f"{index} of 17\n" for index in wanted}

    number = name.removeprefix("jobs/")
    told = json.loads(two.ccctl("tasks", number, "--state", "failed", "-o", "json").stdout)
    (failed,) = told["tasks"]
    assert (failed["index"], failed["exit_code"], failed["attempts"]) == (7, 1, 1)
    shown = two.ccctl("show", f"{number}_7")
    assert "rank 0 on" in shown.stdout
    assert "exited with code 1" in shown.stdout
    assert two.ccctl("logs", f"{number}_34").stdout == "34 of 17\n"
    assert two.ccctl("logs", number).returncode == 2
    assert "17/17" in two.ccctl("list").stdout
    assert two.ccctl("watch", f"{number}_7").returncode == 1
    assert two.ccctl("watch", number).returncode == 1


def test_a_list_of_jobs_is_accepted_whole_or_not_at_all(two: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "jobs.json"
    jobs: list[dict[str, object]] = [{"command": ["true"], "name": f"b-{n}"} for n in range(50)]
    file.write_text(json.dumps([*jobs, {"command": ["true"], "workers": 0}]))
    done = two.ccctl("submit", file)
    assert done.returncode == 2
    assert "[50].workers: 0: must be a whole number" in done.stderr
    assert json.loads(two.ccctl("list", "--name", "b-*", "-o", "json").stdout)["jobs"] == []
    file.write_text(json.dumps(jobs))
    said = two.ccctl("submit", file, "-o", "json")
    names = json.loads(said.stdout)["names"]
    assert len(names) == 50
    assert all(two.ended(name).exit_code == 0 for name in names)
    history = two.ccctl("history", names[3]).stdout
    assert "admin submitted it from 127.0.0.1, one of 50 jobs together" in history


def test_hold_release_requeue_and_cancel_of_one_task(two: Cluster) -> None:
    script = 'trap "exit 143" TERM; while :; do sleep 0.05; done'
    name = two.submit({"command": ["sh", "-c", script], "tasks": "0-3%2"})
    number = name.removeprefix("jobs/")
    until(lambda: two.client.get(name).tasks.active == 2, "two tasks to run")
    assert two.ccctl("hold", number).returncode == 0
    assert two.ccctl("requeue", f"{number}_0").returncode == 0
    until(lambda: two.client.get(f"{name}/tasks/0").state == job_pb2.JOB_STATE_PENDING, "its end")
    time.sleep(0.5)
    assert two.client.get(f"{name}/tasks/0").state == job_pb2.JOB_STATE_PENDING
    assert "held by admin" in two.ccctl("show", number).stdout
    assert two.ccctl("release", number).returncode == 0
    until(lambda: len(two.client.get(f"{name}/tasks/0").attempts) == 2, "a second attempt")
    assert two.ccctl("cancel", f"{number}_1", f"{number}_3").returncode == 0
    until(lambda: two.client.get(name).tasks.cancelled == 2, "them to be cancelled")
    assert two.client.get(f"{name}/tasks/1").exit_code == 130
    two.client.cancel([name])
    job = two.ended(name)
    assert (job.state, job.tasks.cancelled) == (job_pb2.JOB_STATE_CANCELLED, 4)


def test_a_running_job_gets_another_time_limit(two: Cluster) -> None:
    name = two.submit({"command": ["sleep", "60"], "time_limit": "1h", "grace_period": 0})
    two.running(name)
    for limit in ("none", "2s"):
        done = two.ccctl("update", name, "--time-limit", limit)
        assert done.returncode == 0, done.stderr
    job = two.ended(name)
    assert job.attempts[0].state == job_pb2.ATTEMPT_STATE_TIMED_OUT
    assert job.exit_code == 124
    longer = two.submit({"command": ["sleep", "10"], "time_limit": "9s"})
    two.running(longer)
    two.client.update(longer, no_time_limit=True)  # sooner there than ccctl has started
    assert two.ended(longer).exit_code == 0
