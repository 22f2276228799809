"""Dependencies, begin times, queues and reservations with real daemons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.v1 import job_pb2
from tests.support.cluster import Cluster, cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    serve = {"end-unmet-dependencies": ""}
    with cluster(tmp_path_factory.mktemp("cluster"), serve=serve) as made:
        made.agent("n1", cpus=4, labels="rack=r1")
        made.agent("n2", cpus=4)
        yield made


def pending(two: Cluster, name: str, reason: str) -> None:
    """Wait until a job waits for this reason."""
    until(lambda: reason in two.client.get(name).reason, f"{name} to wait for {reason}")
    assert two.client.get(name).state == job_pb2.JOB_STATE_PENDING


def test_jobs_wait_for_each_other_over_a_kill(two: Cluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"until [ -e {go} ]; do sleep 0.1; done; [ $CC_TASK_INDEX != 1 ]"
    first = two.submit({"command": ["sh", "-c", script], "tasks": "0-2", "name": "first"})
    number = first.removeprefix("jobs/")
    after = two.submit({"command": ["true"], "depends_on": [f"afternotok:{number}"]})
    pairs = two.submit({"command": ["true"], "tasks": "0-2", "depends_on": [f"aftercorr:{number}"]})
    chain = two.submit({"command": ["true"], "depends_on": [f"afterok:{number}"]})
    last = two.submit({"command": ["true"], "depends_on": [f"afterany:{chain[5:]}"]})
    pending(two, after, f"waits for {first} to fail (afternotok:{number})")
    assert list(two.client.get(after).waits_for) == [f"afternotok:{number}"]
    two.control.kill()
    go.touch()
    two.control.start()
    assert two.ended(first).exit_code == 1
    assert two.ended(after).exit_code == 0
    assert two.ended(pairs).tasks.succeeded == 2
    assert two.client.get(pairs).tasks.cancelled == 1
    assert two.ended(chain).reason.startswith("cancelled by control-plane: it could never run")
    assert two.ended(last).exit_code == 0
    assert "afternotok" in two.ccctl("history", after).stdout
    assert f"Depends on  aftercorr:{number}" in two.ccctl("show", pairs).stdout


def test_a_job_begins_no_earlier_than_it_asked(two: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"command": ["true"], "begin": "now+3s"}))
    name = json.loads(two.ccctl("submit", file, "-o", "json").stdout)["name"]
    pending(two, name, "waits until 2")
    ended = two.ended(name)
    begin = two.ccctl("show", name, "-o", "json").stdout
    asked = json.loads(begin)["spec"]["begin"]
    assert ended.start_time.ToJsonString() >= asked.replace("Z", "")


def test_a_queue_has_its_nodes_and_a_reservation_keeps_them(two: Cluster) -> None:
    listed = json.loads(two.ccctl("node", "list", "--selector", "rack=r1", "-o", "json").stdout)
    assert [node["facts"]["display_name"] for node in listed["nodes"]] == ["n1"]
    made = two.ccctl("queue", "create", "r1", "--selector", "rack=r1", "--max-time", "1h")
    assert made.returncode == 0, made.stderr
    assert two.ccctl("queue", "update", "r1", "--close", "for the test").returncode == 0
    name = two.submit({"command": ["true"], "queue": "r1"})
    pending(two, name, "the queue r1 is closed: for the test")
    kept = two.ccctl(
        *("reservation", "create", "mine", "--for", "1h", "--nodes", "n1", "--user", "eve")
    )
    assert kept.returncode == 0, kept.stderr
    assert two.ccctl("queue", "update", "r1", "--open").returncode == 0
    until(lambda: "closed" not in two.client.get(name).reason, "the scheduler to see it open again")
    assert two.client.get(name).state == job_pb2.JOB_STATE_PENDING
    assert two.ccctl("reservation", "delete", "mine").returncode == 0
    job = two.ended(name)
    (lease,) = two.client.get(name).attempts[-1].leases
    assert (job.exit_code, lease.node_display_name) == (0, "n1")
    assert job.time_limit.ToSeconds() == 3600
    told = two.ccctl("events", "--since", "1h").stdout
    assert "changed the queue" in told
