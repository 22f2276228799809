"""Launchers for real: the plans of a gang under real supervisors, on loopback and between hosts.

What is run is what the examples show, so these tests hold for them too.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nodeagent import host
from nodeagent.launchers import plan_step
from tests.support import gangs, netns
from tests.support.gangs import Outcome
from tests.support.launches import launch, members, real_node
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
TENSORFLOW = ROOT / ".venv-tensorflow" / "bin" / "python"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
needs_horovod = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="Horovod is not installed: make horovod"
)
needs_mpi = pytest.mark.skipif(
    not all(map(shutil.which, ("mpirun", "mpicc", "orted"))),
    reason="Open MPI is not installed: apt install openmpi-bin libopenmpi-dev",
)
needs_hosts = [
    pytest.mark.root,
    pytest.mark.skipif(not netns.available(), reason="needs root, to make hosts"),
]

Run = Callable[..., list[Outcome]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command as a gang with so many workers on each node."""

    def run_gang(
        launcher: str,
        workers: Sequence[int],
        command: Sequence[str],
        *,
        addresses: Sequence[str] = (),
        prefixes: Sequence[Sequence[str]] = (),
        work_dir: Path | None = None,
        interface: str = "lo",
        hostname_address: str | None = None,
        **fields: Any,
    ) -> list[Outcome]:
        where = addresses or ["127.0.0.1"] * len(workers)
        gang = members(workers, where, port=free_port())
        resolved = host.hostname_address()
        plans = [
            plan_step(
                launch(launcher, gang, index, command=tuple(command), **fields),
                real_node(
                    gang,
                    index,
                    tmp_path,
                    work_dir,
                    mpirun=shutil.which("mpirun") or "",
                    interface=interface,
                    hostname_address=resolved if hostname_address is None else hostname_address,
                ),
            )
            for index in range(len(workers))
        ]
        return gangs.run(plans, tmp_path, prefixes=prefixes, timeout_s=100)

    return run_gang


def exits(outcomes: list[Outcome]) -> dict[int, int | None]:
    """Exit codes of the whole gang by rank, with what was said shown when a test fails."""
    for outcome in outcomes:
        print(outcome)
        assert outcome.end == "natural"
    return {rank: code for outcome in outcomes for rank, code in outcome.exits.items()}


def result(folder: Path) -> dict[str, Any]:
    """What an example has left in the job's folder."""
    found: dict[str, Any] = json.loads((folder / "job" / "result.json").read_text())
    return found


# --- command --------------------------------------------------------------------------------------


def test_a_command_runs_once_per_worker_and_knows_its_place(run: Run) -> None:
    code = "import os; print(os.environ['CC_RANK'], os.environ['CC_LOCAL_RANK'], os.getcwd())"

    outcomes = run("command", [1, 2], [sys.executable, "-c", code])

    assert exits(outcomes) == {0: 0, 1: 0, 2: 0}
    said = [text.split()[:2] for outcome in outcomes for text in outcome.out.values()]
    assert said == [["0", "0"], ["1", "0"], ["2", "1"]]


# --- torchrun -------------------------------------------------------------------------------------


@needs_torch
@pytest.mark.parametrize("workers", [[1, 1], [2, 2]])
def test_torch_distributed_trains(run: Run, tmp_path: Path, workers: list[int]) -> None:
    command = ["python", "train_ddp.py", "--epochs", "8"]

    outcomes = run("torchrun", workers, command, work_dir=EXAMPLES / "torchrun")

    assert exits(outcomes) == dict.fromkeys(range(sum(workers)), 0)
    assert result(tmp_path)["test_accuracy"] > 0.9


# --- horovod --------------------------------------------------------------------------------------


@needs_horovod
@pytest.mark.parametrize("workers", [[1, 1], [2, 2]])
def test_horovod_trains_pytorch(run: Run, tmp_path: Path, workers: list[int]) -> None:
    command = ["python", "train_torch.py", "--epochs", "8"]

    outcomes = run("horovod", workers, command, work_dir=EXAMPLES / "digits")

    assert exits(outcomes) == dict.fromkeys(range(sum(workers)), 0)
    found = result(tmp_path)
    assert found["test_accuracy"] > 0.9
    assert (tmp_path / "job" / "model.pt").stat().st_size > 1000
    progress = [line for line in outcomes[0].out[0].splitlines() if line.startswith("epoch")]
    assert len(progress) == found["epochs"]


LOAD = """
import sys, tensorflow
assert tensorflow.keras.models.load_model(sys.argv[1]).output_shape == (None, 10)
"""


@pytest.mark.tensorflow
@pytest.mark.parametrize("workers", [[1, 1], [2, 2]])
def test_horovod_trains_keras(run: Run, tmp_path: Path, workers: list[int]) -> None:
    command = [str(TENSORFLOW), "train_keras.py", "--epochs", "10"]

    outcomes = run("horovod", workers, command, work_dir=EXAMPLES / "digits-tensorflow")

    assert exits(outcomes) == dict.fromkeys(range(sum(workers)), 0)
    assert result(tmp_path)["test_accuracy"] > 0.9
    subprocess.run(
        [TENSORFLOW, "-c", LOAD, tmp_path / "job" / "model.keras"], check=True, timeout=60
    )


NUMBERS = """
import torch, horovod.torch as hvd
hvd.init()
pairs = hvd.add_process_set([0, hvd.size() - 1])
ranks = hvd.allgather(torch.tensor([[hvd.rank(), hvd.local_rank(), hvd.cross_rank()]]))
if pairs.included():
    print("pair", hvd.allreduce(torch.tensor([1.0]), op=hvd.Sum, process_set=pairs).item())
if hvd.rank() == 0:
    print(ranks.tolist())
hvd.barrier()
hvd.shutdown()
hvd.init()
print("again", hvd.allreduce(torch.tensor([1.0]), op=hvd.Sum).item())
"""


@needs_horovod
def test_horovods_ranks_process_sets_and_second_start_work_on_an_uneven_gang(run: Run) -> None:
    env = (("HOROVOD_DYNAMIC_PROCESS_SETS", "1"), ("OMP_NUM_THREADS", "1"))

    outcomes = run("horovod", [1, 2], [sys.executable, "-c", NUMBERS], env=env)

    assert exits(outcomes) == {0: 0, 1: 0, 2: 0}
    assert outcomes[0].out[0] == "pair 2.0\n[[0, 0, 0], [1, 0, 1], [2, 1, 0]]\nagain 3.0\n"
    assert outcomes[1].out == {1: "again 3.0\n", 2: "pair 2.0\nagain 3.0\n"}


class TestBetweenHosts:
    """Two hosts with a network between them, whose own hostname leads nowhere."""

    pytestmark = needs_hosts

    def between(
        self, run: Run, launcher: str, workers: list[int], command: list[str], **more: Any
    ) -> list[Outcome]:
        with netns.hosts(2) as (a, b):
            return run(
                launcher,
                workers,
                command,
                addresses=[a.address, b.address],
                prefixes=[a.prefix, b.prefix],
                interface="eth0",
                hostname_address="",
                **more,
            )

    @needs_horovod
    def test_horovod_trains_though_the_hostname_is_of_no_use(
        self, run: Run, tmp_path: Path
    ) -> None:
        work_dir = EXAMPLES / "digits"
        outcomes = self.between(
            run, "horovod", [1, 1], ["python", "train_torch.py"], work_dir=work_dir
        )

        assert exits(outcomes) == {0: 0, 1: 0}
        assert result(tmp_path)["test_accuracy"] > 0.95

    @needs_torch
    def test_torch_distributed_trains(self, run: Run, tmp_path: Path) -> None:
        work_dir = EXAMPLES / "torchrun"
        outcomes = self.between(
            run, "torchrun", [1, 1], ["python", "train_ddp.py"], work_dir=work_dir
        )

        assert exits(outcomes) == {0: 0, 1: 0}
        assert result(tmp_path)["test_accuracy"] > 0.95

    @needs_mpi
    def test_mpi_sums_over_all_ranks(self, run: Run, hello: Path) -> None:
        outcomes = self.between(run, "mpi", [2, 1], [str(hello)])

        assert exits(outcomes) == {0: 0, 2: 0}
        assert "sum of all ranks: 3" in outcomes[0].out[0]


# --- mpi ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MPI example, compiled."""
    program = tmp_path_factory.mktemp("mpi") / "hello_mpi"
    source = EXAMPLES / "mpi" / "hello_mpi.c"
    subprocess.run(["mpicc", "-O1", "-o", program, source], check=True, timeout=60)
    return program


@needs_mpi
@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.1", "127.0.0.1"]],
    ids=["one node", "two addresses", "one address, two agents"],
)
def test_mpi_sums_over_all_ranks(run: Run, hello: Path, addresses: list[str]) -> None:
    workers = [2] * len(addresses)
    size = sum(workers)

    outcomes = run("mpi", workers, [str(hello)], addresses=addresses)

    assert exits(outcomes) == {2 * index: 0 for index in range(len(addresses))}
    lines = sorted(outcomes[0].out[0].splitlines())
    assert lines[:size] == [
        f"rank {rank} of {size} on node{rank // 2}: local rank {rank % 2}" for rank in range(size)
    ]
    assert lines[size:] == [f"sum of all ranks: {size * (size - 1) // 2}"]


@needs_mpi
def test_mpi_ranks_find_their_own_variables_and_folder_and_no_secret(
    run: Run, tmp_path: Path
) -> None:
    code = (
        "import json, os; env = dict(os.environ); cores = sorted(os.sched_getaffinity(0));"
        "said = json.dumps([env['CC_RANK'], env['CC_LOCAL_RANK'], os.getcwd(), cores,"
        " 's3' + 'cret' in str(env), [k for k in env if k.startswith('CC_MPI')]]);"
        "os.write(1, (said + chr(10)).encode())"  # in one piece: ranks share mpirun's output
    )

    outcomes = run(
        "mpi",
        [1, 1],
        [sys.executable, "-c", code],
        addresses=["127.0.0.1", "127.0.0.2"],
        cpu_ids=(0,),
    )

    assert exits(outcomes) == {0: 0, 1: 0}
    assert sorted(map(json.loads, outcomes[0].out[0].splitlines())) == [
        ["0", "0", str(tmp_path / "node0" / "work"), [0], False, []],
        ["1", "0", str(tmp_path / "node1" / "work"), [0], False, []],
    ]


@needs_mpi
def test_a_failing_mpi_rank_on_another_node_fails_the_gang_with_its_exit_code(run: Run) -> None:
    code = "import os, sys; sys.exit(5 if os.environ['CC_RANK'] == '1' else 0)"

    outcomes = run(
        "mpi", [1, 1], [sys.executable, "-c", code], addresses=["127.0.0.1", "127.0.0.2"]
    )

    assert exits(outcomes)[0] == 5
    assert "Exit code:    5" in outcomes[0].err[0]


@needs_mpi
def test_a_program_that_mpi_cannot_find_is_named(run: Run) -> None:
    outcomes = run("mpi", [1], ["no-such-program"])

    assert exits(outcomes)[0] == 127
    assert "rank 0 on node node0: cannot run 'no-such-program'" in outcomes[0].err[0]
