"""Real daemons, real processes: what becomes of jobs, on good days and bad ones."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from controlplane.v1 import job_pb2
from tests.support.cluster import ROOT, Cluster, alive, cluster, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
PAIR = {"workers": 2, "workers_per_node": 1}
GRACE_S = 10
"""The grace period of a job that says nothing of it."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("two")) as made:
        made.agent("a", cpus=16, gpus=2)
        made.agent("b", cpus=16, gpus=2)
        yield made


def cause(job: job_pb2.Job) -> job_pb2.Cause:
    return job.attempts[-1].cause


def test_horovod_trains_a_real_model_across_two_nodes(two: Cluster) -> None:
    done = two.ccctl("submit", ROOT / "examples/digits/job.json", "--follow")
    assert done.returncode == 0, done.stderr
    job = next(iter(two.client.list()))
    job = two.client.get(job.name)
    last = job.attempts[-1]
    assert sorted(w.node_display_name for w in last.workers) == ["a", "b"]
    assert all(len(lease.device_ids) == 1 for lease in last.leases)
    (result,) = two.folder.glob(f"*/jobs/{job.job_id}/result.json")
    assert json.loads(result.read_text())["test_accuracy"] > 0.95
    assert "[0] epoch 1/" in done.stdout

    def reported() -> bool:
        return two.client.get(job.name).attempts[-1].progress.fraction == 1

    until(reported, "the last of its progress")
    assert dict(two.client.get(job.name).attempts[-1].progress.metrics)["loss"] < 1


def test_torchrun_trains_across_two_nodes(two: Cluster) -> None:
    done = two.ccctl("submit", ROOT / "examples/torchrun/job.json", "--follow")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("mpirun"), reason="needs Open MPI: apt install openmpi-bin")
def test_mpi_starts_several_ranks_on_each_node_without_ssh(two: Cluster) -> None:
    document = {"launcher": "mpi", "command": ["sh", "-c", "echo rank $OMPI_COMM_WORLD_RANK"]}
    name = two.submit({**document, "workers": 4, "workers_per_node": 2})
    job = two.ended(name)
    assert job.exit_code == 0, job.reason
    said = sorted(line.split("rank ")[-1] for line in two.output(name).decode().splitlines())
    assert said == ["0", "1", "2", "3"]
    assert [w.rank for w in job.attempts[-1].workers] == [0, 1, 2, 3]


def test_a_rank_that_dies_ends_the_gang_and_is_named(two: Cluster) -> None:
    script = "trap '' TERM; echo about to go >&2; sleep 60 & wait"
    name = two.submit({"command": ["sh", "-c", script], **PAIR})
    job = two.running(name)
    for rank in (0, 1):
        until(lambda rank=rank: two.printed(name, rank, "stderr"), f"rank {rank} to speak")  # type: ignore[misc]
    victim, other = two.client.get(name).attempts[-1].workers
    os.kill(victim.pid, signal.SIGKILL)
    job = two.ended(name, GRACE_S)
    assert not alive(other.pid)
    assert cause(job).rank == victim.rank
    assert cause(job).node == victim.node_display_name
    assert cause(job).signal == signal.SIGKILL
    assert cause(job).stderr_tail == "about to go\n"
    assert job.exit_code == 128 + signal.SIGKILL
    node = victim.node_display_name
    assert job.reason == f"rank {victim.rank} on {node} was ended by signal 9 (SIGKILL)"


def test_a_rank_that_hangs_is_ended_by_the_time_limit_children_too(two: Cluster) -> None:
    script = "setsid sleep 300 & echo $!; kill -STOP $$"
    document = {"command": ["sh", "-c", script], "time_limit": "1s", "grace_period": "1s"}
    name = two.submit(document)
    job = two.ended(name)
    assert job.attempts[-1].state == job_pb2.ATTEMPT_STATE_TIMED_OUT
    assert job.exit_code == 124
    assert not alive(int(two.output(name)))
    ran = job.attempts[-1].end_time.ToMicroseconds() - job.attempts[-1].start_time.ToMicroseconds()
    assert ran < GRACE_S * 1_000_000, "its own grace period is shorter"


def test_cancel_ends_what_ignores_sigterm_within_the_grace_period(two: Cluster) -> None:
    script = "trap '' TERM; while :; do sleep 1; done"
    name = two.submit({"command": ["sh", "-c", script], "grace_period": "1s", **PAIR})
    job = two.running(name)
    assert list(two.client.cancel([name]).cancelled) == [name]
    job = two.ended(name, GRACE_S)
    assert job.state == job_pb2.JOB_STATE_CANCELLED
    assert job.reason == "cancelled by admin"
    assert not any(alive(w.pid) for w in job.attempts[-1].workers)


def test_cancel_of_a_waiting_job_is_at_once(two: Cluster) -> None:
    name = two.submit({"command": ["true"], "workers": 1000})
    reason = until(
        lambda: "never" in two.client.get(name).reason and two.client.get(name).reason, "a reason"
    )
    assert reason.startswith("can never run because its 1000 workers need 1 core, 1 GiB of memory")
    two.client.cancel([name])
    assert two.client.get(name).state == job_pb2.JOB_STATE_CANCELLED


def test_two_gangs_that_each_want_all_devices_run_one_after_the_other(two: Cluster) -> None:
    wish = {"command": ["sleep", "0.5"], "workers": 4, "resources": {"gpus": 1}}
    first, second = (two.ended(name) for name in [two.submit(wish), two.submit(wish)])
    assert first.state == second.state == job_pb2.JOB_STATE_SUCCEEDED
    end, start = first.attempts[-1].end_time, second.attempts[-1].create_time
    assert end.ToMicroseconds() <= start.ToMicroseconds()
    assert len(second.attempts[-1].workers) == 4


def test_two_hundred_trivial_jobs_end_well(two: Cluster) -> None:
    names = [
        two.submit({"command": ["true"], "resources": {"memory": "64MiB"}}) for _ in range(200)
    ]
    states = {two.ended(name).state for name in names}
    assert states == {job_pb2.JOB_STATE_SUCCEEDED}
    assert len(set(names)) == 200


def test_output_comes_whole_and_binary_unharmed(two: Cluster) -> None:
    program = "import os,random; r=random.Random(1); os.write(1, r.randbytes(3_000_000))"
    name = two.submit({"command": [sys.executable, "-c", program]})
    two.ended(name)
    import random

    wanted = random.Random(1).randbytes(3_000_000)
    got = two.output(name)
    assert hashlib.sha256(got).hexdigest() == hashlib.sha256(wanted).hexdigest()


def test_a_rank_that_prints_a_hundred_megabytes_does_no_harm(two: Cluster) -> None:
    script = "head -c 100000000 /dev/zero | tr '\\0' 'x'; echo; echo the end"
    name = two.submit({"command": ["sh", "-c", script]})
    job = two.ended(name)
    assert job.exit_code == 0
    assert job.attempts[-1].workers[0].stdout_bytes == 100_000_009
    assert two.output(name).endswith(b"x\nthe end\n")


def test_workers_see_the_environment_and_devices_of_their_attempt(two: Cluster) -> None:
    document = {
        "name": "env",
        "command": ["env"],
        "workers": 2,
        "workers_per_node": 2,
        "resources": {"gpus": 1},
        "env": {"FOO": "a b=c"},
    }
    name = two.submit(document)
    job = two.ended(name)
    (lease,) = job.attempts[-1].leases
    for rank in (0, 1):
        lines = two.output(name, rank).decode().splitlines()
        seen = dict(line.split("=", 1) for line in lines)
        assert seen["FOO"] == "a b=c"
        assert seen["CC_JOB_ID"] == str(job.job_id)
        assert seen["CC_RANK"] == seen["CC_LOCAL_RANK"] == str(rank)
        assert seen["CUDA_VISIBLE_DEVICES"] == ",".join(lease.device_ids)


def test_setup_lines_run_first_and_a_rank_may_see_its_own_device_alone(two: Cluster) -> None:
    name = two.submit(
        {
            "setup": ["export GREETING='hello there'", "cd /tmp"],
            "command": ["sh", "-c", 'echo "$GREETING $PWD $CUDA_VISIBLE_DEVICES"'],
            "workers": 2,
            "workers_per_node": 2,
            "resources": {"gpus": 1},
            "device_visibility": "rank",
        }
    )
    job = two.ended(name)
    (lease,) = job.attempts[-1].leases
    for rank in (0, 1):
        said = two.output(name, rank).decode()
        assert said == f"hello there /tmp {lease.device_ids[rank]}\n"


def test_a_program_that_is_not_there_is_the_jobs_own_fault(two: Cluster) -> None:
    job = two.ended(two.submit({"command": ["no-such-program"]}))
    assert job.exit_code == 127
    assert "cannot run 'no-such-program': not found in PATH=" in cause(job).stderr_tail


def test_a_job_lives_through_restarts_of_its_agent_and_of_the_control_plane(
    tmp_path: Path,
) -> None:
    with cluster(tmp_path, "a") as one:
        script = "echo begin; sleep 4; echo end; exit 7"
        name = one.submit({"command": ["sh", "-c", script]})
        worker = one.running(name).attempts[-1].workers[0]
        one.agents["a"].kill()
        one.control.kill()
        assert alive(worker.pid)
        one.control.start()
        one.agents["a"].start()
        job = one.ended(name)
        assert len(job.attempts) == 1
        assert job.attempts[-1].workers[0].pid == worker.pid
        assert job.exit_code == 7
        assert one.output(name) == b"begin\nend\n"
        repeat = one.ccctl("list", "--output", "json")
        assert json.loads(repeat.stdout)


def test_a_node_cut_off_ends_its_workers_and_the_job_runs_elsewhere(tmp_path: Path) -> None:
    serve = {"node-lease-s": "2", "node-lease-margin-s": "1", "hold-s": "0.5"}
    with cluster(tmp_path, "a", serve=serve) as one:
        name = one.submit({"command": ["sleep", "120"]})
        worker = one.running(name).attempts[-1].workers[0]
        one.agent("b")
        os.kill(one.agents["a"].pid, signal.SIGSTOP)
        try:
            until(lambda: not alive(worker.pid), "the supervisor to fence the worker", 10)
            until(lambda: len(one.client.get(name).attempts) == 2, "a second attempt", 15)
            job = one.running(name)
            assert job.attempts[0].state == job_pb2.ATTEMPT_STATE_NODE_LOST
            assert job.attempts[1].workers[0].node_display_name == "b"
        finally:
            os.kill(one.agents["a"].pid, signal.SIGCONT)


def test_a_job_that_keeps_running_outlives_a_node_that_is_cut_off(tmp_path: Path) -> None:
    serve = {"node-lease-s": "2", "node-lease-margin-s": "1", "hold-s": "0.5"}
    script = (
        f"echo $CC_ATTEMPT >> {tmp_path}/ran; while ! [ -e {tmp_path}/go ]; do sleep 0.05; done"
    )
    document = {"command": ["sh", "-c", script], "on_disconnect": "keep_running"}
    with cluster(tmp_path, "a", serve=serve) as one:
        name = one.submit(document)
        worker = one.running(name).attempts[-1].workers[0]
        one.agent("b")
        os.kill(one.agents["a"].pid, signal.SIGSTOP)
        try:
            words = "waits for a word of a, which is silent past its lease"
            until(lambda: one.client.get(name).reason.startswith(words), "the wait to be told")
            assert alive(worker.pid)
        finally:
            os.kill(one.agents["a"].pid, signal.SIGCONT)
        until(lambda: one.client.get(name).reason == "", "it to be heard again")
        # And over a control plane that is away for longer than the lease.
        one.control.kill()
        time.sleep(4)
        one.control.start()
        (tmp_path / "go").touch()
        job = one.ended(name)
        assert (job.exit_code, len(job.attempts)) == (0, 1)
        assert (tmp_path / "ran").read_text() == "1\n"


def test_an_order_that_arrives_after_it_was_taken_back_starts_nothing(tmp_path: Path) -> None:
    serve = {"node-lease-s": "2", "node-lease-margin-s": "1", "hold-s": "0.5"}
    with cluster(tmp_path, "a", serve=serve) as one:
        script = f"echo $CC_ATTEMPT >> {tmp_path}/ran"
        os.kill(one.agents["a"].pid, signal.SIGSTOP)
        try:
            name = one.submit({"command": ["sh", "-c", script]})
            lost = [job_pb2.ATTEMPT_STATE_NODE_LOST]
            until(lambda: [a.state for a in one.client.get(name).attempts] == lost, "it to be lost")
        finally:
            os.kill(one.agents["a"].pid, signal.SIGCONT)
        job = one.ended(name)
        assert job.exit_code == 0
        assert len(job.attempts) == 2
        assert (tmp_path / "ran").read_text() == "2\n"
        gone = job.attempts[0].leases[0].lease_id
        assert not list(tmp_path.glob(f"a/**/leases/{gone}.*"))
