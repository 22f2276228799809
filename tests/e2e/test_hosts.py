"""The whole house over two hosts with a network between them: TLS, names, and training."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import netns
from tests.support.cluster import BIN, ROOT
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
