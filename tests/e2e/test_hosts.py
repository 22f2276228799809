"""The whole house over several hosts with a network between them: TLS, training, pulled cables."""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support import netns
from tests.support.cluster import BIN, ROOT, alive, until
from tests.support.house import House, house

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not netns.available(), reason="needs root, to make hosts"),
    pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl"),
]
PAIR = {"workers": 2, "workers_per_node": 1}
BOTH = ["host-a", "host-b"]
LEASE_S, MARGIN_S = 3, 2
FAST = {"node-lease-s": str(LEASE_S), "node-lease-margin-s": str(MARGIN_S), "hold-s": "0.5"}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two hosts that train."""
    folder = tmp_path_factory.mktemp("two")
    with netns.hosts(4) as (centre, desk, a, b), house(folder, centre, desk) as made:
        made.join(a, "host-a")
        made.join(b, "host-b")
        yield made


def train(two: House, example: str) -> tuple[dict[str, Any], str]:
    """Submit an example and follow it to a good end; the job, and what was shown."""
    done = two.ccctl("submit", ROOT / "examples" / example / "job.json", "--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    job = two.job(two.ask("list")["jobs"][0]["name"])
    assert job["state"] == "succeeded"
    assert sorted(w["node_display_name"] for w in job["attempts"][-1]["workers"]) == BOTH
    assert [len(lease["device_ids"]) for lease in job["attempts"][-1]["leases"]] == [1, 1]
    return job, done.stdout


def result(two: House, job: dict[str, Any]) -> dict[str, Any]:
    """What a training has left in the job's folder on its first node."""
    (path,) = two.folder.glob(f"host-*/jobs/{job['job_id']}/result.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_hosts_name_leads_to_its_own_loopback_and_its_node_is_called_by_it(two: House) -> None:
    name = two.submit({"command": ["sh", "-c", 'hostname; getent hosts "$(hostname)"'], **PAIR})
    job = two.job_when(name, "end", lambda job: job["exit_code"] is not None)
    assert job["exit_code"] == 0, job["reason"]
    for worker in job["attempts"][-1]["workers"]:
        said = two.ccctl("logs", name, "--rank", str(worker["rank"])).stdout.split()
        host = worker["node_display_name"]
        assert said == [host, "127.0.1.1", host]
    nodes = two.ask("node", "list")["nodes"]
    assert len({n["facts"]["address"] for n in nodes} - {"127.0.1.1", "127.0.0.1"}) == 2


@pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="Horovod is not installed: make horovod"
)
def test_horovod_trains_with_a_rank_on_each_host(two: House) -> None:
    job, shown = train(two, "digits")
    assert result(two, job)["test_accuracy"] > 0.95
    assert "[0] epoch 1/" in shown


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_torch_distributed_trains_with_a_rank_on_each_host(two: House) -> None:
    job, _ = train(two, "torchrun")
    assert result(two, job)["test_accuracy"] > 0.95


@pytest.mark.skipif(
    not all(map(shutil.which, ("mpirun", "orted"))),
    reason="Open MPI is not installed: apt install openmpi-bin",
)
def test_mpi_starts_two_ranks_on_each_host_without_ssh(two: House) -> None:
    command = ["sh", "-c", 'echo "rank $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE"']
    document = {"launcher": "mpi", "command": command, "workers": 4, "workers_per_node": 2}
    name = two.submit(document)
    job = two.job_when(name, "end", lambda job: job["exit_code"] is not None)
    assert job["exit_code"] == 0, job["reason"]
    said = two.ccctl("logs", name, "--stdout").stdout.splitlines()
    assert sorted(line.split("] ")[-1] for line in said) == [f"rank {i} of 4" for i in range(4)]
    workers = job["attempts"][-1]["workers"]
    assert sorted(w["node_display_name"] for w in workers) == [*BOTH[:1] * 2, *BOTH[1:] * 2]


def test_who_does_not_know_the_certificate_gets_nothing(two: House) -> None:
    command = [str(BIN / "ccctl"), "--server", two.server, "--timeout", "1"]
    command += ["--token-file", str(two.state / "admin.token"), "node", "list"]
    done = two.desk.run(command, check=False)
    assert done.returncode != 0
    assert "no CA that you trust signed its certificate" in done.stderr


def when(moment: str) -> float:
    """Seconds since 1970 of a moment that ccctl tells."""
    return datetime.fromisoformat(moment).timestamp()


def parent(pid: int) -> int:
    """The process that has started a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def facts(made: House, host: str) -> list[dict[str, Any]]:
    """What the supervisor of a host's only lease has written down."""
    (path,) = made.folder.glob(f"{host}/leases/*/status.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_pulled_cable_ends_the_workers_there_and_the_job_runs_elsewhere(tmp_path: Path) -> None:
    with (
        netns.hosts(5) as (centre, desk, a, b, c),
        house(tmp_path, centre, desk, FAST) as made,
    ):
        made.join(a, "host-a")
        agent = made.join(b, "host-b")
        name = made.submit({"command": ["sleep", "600"], **PAIR})
        job = made.running(name)
        on = {w["node_display_name"]: w["pid"] for w in job["attempts"][0]["workers"]}
        assert sorted(on) == BOTH
        supervisor = parent(on["host-b"])

        b.link_down()
        until(
            lambda: not alive(on["host-b"]) and not alive(supervisor),
            "the supervisor to fence the worker and to go",
            LEASE_S + MARGIN_S,
        )
        dead = time.time()
        assert alive(on["host-a"]), "its own host still holds its lease"
        assert facts(made, "host-b")[-1]["end"] == "fenced"

        job = made.job_when(name, "wait", lambda job: "waits for" in job["reason"], 20)
        (lost,) = job["attempts"]
        assert lost["state"] == "node_lost"
        assert lost["cause"]["kind"] == "infrastructure"
        assert lost["cause"]["node"] == "host-b"
        assert lost["cause"]["message"] == "host-b was silent past its lease"
        assert dead < when(lost["stop_time"]), "nothing may run twice"
        assert not alive(on["host-a"])
        assert "1 node take no work (draining or silent)" in job["reason"]
        assert made.node_state("host-b") == "unknown"

        made.join(c, "host-c")
        again = made.running(name, 2)
        nodes = [w["node_display_name"] for w in again["attempts"][1]["workers"]]
        assert sorted(nodes) == ["host-a", "host-c"]

        b.link_up()
        until(lambda: made.node_state("host-b") == "ready", "host-b to come back by itself", 40)
        assert agent.process is not None
        assert agent.process.poll() is None
        until(lambda: not list(tmp_path.glob("host-b/leases/*")), "the old lease to be forgotten")
        assert made.running(name, 2)["attempts"][1] == again["attempts"][1]
        assert all(alive(w["pid"]) for w in again["attempts"][1]["workers"])


def test_a_job_that_waits_for_a_cut_off_host_runs_when_the_cable_is_back(tmp_path: Path) -> None:
    with netns.hosts(4) as (centre, desk, a, b), house(tmp_path, centre, desk, FAST) as made:
        made.join(a, "host-a")
        made.join(b, "host-b")
        name = made.submit({"command": ["sh", "-c", "echo up; sleep 600"], **PAIR})
        made.running(name)

        a.link_down()
        made.job_when(name, "wait", lambda job: "waits for" in job["reason"], 20)
        a.link_up()
        job = made.running(name, 2, 40)
        assert sorted(w["node_display_name"] for w in job["attempts"][1]["workers"]) == BOTH
        assert made.node_state("host-a") == "ready"
