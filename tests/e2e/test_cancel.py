"""Cancel in each state of a job's life: how it ends, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from controlplane.v1 import job_pb2, lease_pb2
from tests.support.cluster import BIN, Cluster, alive, cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

PAIR = {"workers": 2, "workers_per_node": 1}
STUBBORN = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"]
MARGIN_S = 20.0
"""A cancelled job is over within its grace period and this."""
NOTHING = "jobs/1000000"
ENDED, NEVER_STARTED = lease_pb2.WORKER_STATE_ENDED, lease_pb2.WORKER_STATE_LOST


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("two")) as made:
        made.agent("a", cpus=16, gpus=2)
        made.agent("b", cpus=16, gpus=2)
        yield made


def cancel(made: Cluster, *words: str) -> str:
    """What ccctl says to a cancel."""
    done = made.ccctl("cancel", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def over(made: Cluster, name: str, since: float, grace_s: float = 0) -> job_pb2.Job:
    """The job, ended in time; nothing of any job is left, on the nodes or in the books."""
    job = made.ended(name)
    assert time.monotonic() - since < grace_s + MARGIN_S
    nothing_is_held(made)
    until(lambda: not processes(made), "supervisors and helpers to go", MARGIN_S)
    return job


def nothing_is_held(made: Cluster) -> None:
    for node in made.client.nodes():
        assert not node.attempts
        assert not node.leased_device_ids
        assert node.leased_millicores == node.leased_memory_bytes == 0


def processes(made: Cluster) -> list[int]:
    """Supervisors that hold a lease, workers and their children on all nodes: all begin in a
    lease's or a job's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and alive(int(entry.name)):
            with contextlib.suppress(OSError):
                where = Path(os.readlink(entry / "cwd"))
                if where.is_relative_to(made.folder) and {"leases", "jobs"} & set(where.parts):
                    found.append(int(entry.name))
    return found


def last(job: job_pb2.Job) -> job_pb2.Attempt:
    return job.attempts[-1]


def by_admin(job: job_pb2.Job) -> None:
    """How a job ends that somebody has cancelled while it waited, started or ran."""
    assert job.state == job_pb2.JOB_STATE_CANCELLED
    assert job.reason == "cancelled by admin"
    assert job.exit_code == 130


def attempt_by_admin(job: job_pb2.Job) -> None:
    by_admin(job)
    assert last(job).state == job_pb2.ATTEMPT_STATE_CANCELLED
    assert last(job).cause.kind == job_pb2.CAUSE_KIND_USER
    assert last(job).cause.message == "cancelled by admin"


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def started(made: Cluster, document: Mapping[str, Any]) -> job_pb2.Job:
    """A job whose workers all run and have said that they are up; what obeys is over long before
    its grace period."""
    name = made.submit({"grace_period": "2m", **document})
    job = made.running(name)
    ranks = range(len(last(job).workers))
    for rank in ranks:
        until(lambda rank=rank: b"up" in made.printed(name, rank), f"rank {rank} to speak")  # type: ignore[misc]
    return made.client.get(name)


# --- before anything runs -------------------------------------------------------------------------


def test_a_job_that_can_never_run(two: Cluster) -> None:
    name = two.submit({"command": ["true"], "workers": 1000})
    until(lambda: "can never run" in two.client.get(name).reason, "the scheduler to look at it")
    assert cancel(two, name) == f"{name} is being cancelled.\n"
    job = two.client.get(name)
    by_admin(job)
    assert not job.attempts
    over(two, name, time.monotonic())


def test_a_job_that_waits_for_room_leaves_the_line(two: Cluster) -> None:
    whole = {"workers": 4, "resources": {"gpus": 1}}
    running = two.submit({"command": ["sleep", "600"], **whole})
    two.running(running)
    first, second = (two.submit({"command": ["true"], **whole}) for _ in range(2))
    until(lambda: "waits for resources" in two.client.get(second).reason, "a reason to wait")
    cancel(two, first)
    by_admin(two.client.get(first))
    cancel(two, running)
    assert two.ended(second).state == job_pb2.JOB_STATE_SUCCEEDED
    assert not two.client.get(first).attempts


def test_a_job_that_backs_off_after_faults_of_the_infrastructure(two: Cluster) -> None:
    name = two.submit({"command": ["true"], "working_dir": "/no/such/folder"})

    def backs_off_for_long() -> bool:
        job = two.client.get(name)
        ended = [attempt.end_time.seconds > 0 for attempt in job.attempts]
        return ended == [True] * 3 and job.reason.startswith("backs off after a fault")

    until(backs_off_for_long, "a third fault, after which it waits for 4 s", 15)
    began = time.monotonic()
    cancel(two, name)
    job = over(two, name, began)
    by_admin(job)
    states = [attempt.state for attempt in job.attempts]
    assert states == [job_pb2.ATTEMPT_STATE_LAUNCH_FAILED] * 3


def test_a_job_whose_folder_is_being_downloaded(two: Cluster, tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(250 << 20)
    packed = two.client.upload_dir(tmp_path)
    where = {"sha256": packed.sha256, "size": packed.size_bytes}
    name = two.submit({"command": ["true"], "working_dir": where})
    until(lambda: list(two.folder.glob(f"?/blobs/.{packed.sha256}.*")), "the download to begin")
    two.client.cancel([name])
    job = over(two, name, time.monotonic())
    attempt_by_admin(job)
    assert not last(job).HasField("start_time")
    left = [path for path in two.folder.glob("?/blobs/*") if packed.sha256 in path.name]
    assert not left, "the download was cut off, and its part removed"
    no_folders(two)


def test_a_job_whose_folder_is_being_unpacked(two: Cluster, tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(bytes(8 << 10))
    for number in range(1, 25_000):
        (tmp_path / str(number)).hardlink_to(tmp_path / "0")
    packed = two.client.upload_dir(tmp_path)
    where = {"sha256": packed.sha256, "size": packed.size_bytes}
    name = two.submit({"command": ["true"], "working_dir": where})
    until(lambda: list(two.folder.glob("?/leases/*/work")), "the unpacking to begin")
    two.client.cancel([name])
    job = over(two, name, time.monotonic())
    attempt_by_admin(job)
    assert not last(job).HasField("start_time")
    no_folders(two)


def no_folders(made: Cluster) -> None:
    """Folders of leases are removed once the control plane knows all about them."""
    folders = ("?/leases/*", "?/run/leases/*")
    until(
        lambda: not any(list(made.folder.glob(each)) for each in folders),
        "the lease's folders to go",
        10,
    )


def head_and_other(made: Cluster) -> tuple[str, str]:
    """Where the first and the second rank of a pair go when all is free."""
    job = made.ended(made.submit({"command": ["true"], **PAIR}))
    first, second = last(job).workers
    return first.node_display_name, second.node_display_name


def test_a_gang_of_which_one_node_has_started_and_the_other_does_not_answer(two: Cluster) -> None:
    _, other = head_and_other(two)
    with paused(two.agents[other].pid):
        name = two.submit({"command": STUBBORN, "grace_period": "1s", **PAIR})
        state = job_pb2.ATTEMPT_STATE_STARTING
        until(lambda: [a.state for a in two.client.get(name).attempts] == [state], "it to start")
        (pid,) = (w.pid for w in two.client.get(name).attempts[0].workers if w.pid)
        began = time.monotonic()
        cancel(two, name)
        until(lambda: not alive(pid), "the started worker to go", 1 + MARGIN_S)
        assert time.monotonic() - began > 0.9, "it had its grace period"
        job = two.client.get(name)
        assert last(job).state == job_pb2.ATTEMPT_STATE_STOPPING, "nobody knows what runs there"
        assert not job.HasField("exit_code")
    job = over(two, name, time.monotonic(), grace_s=1)
    attempt_by_admin(job)
    assert not last(job).HasField("running_time")


def test_a_gang_that_waits_for_the_rendezvous_of_a_node_that_does_not_answer(two: Cluster) -> None:
    head, other = head_and_other(two)
    with paused(two.agents[head].pid):
        name = two.submit({"launcher": "horovod", "command": ["sleep", "600"], **PAIR})

        until(lambda: two.client.get(name).attempts, "it to be placed")
        (lease,) = (
            lease.lease_id
            for lease in last(two.client.get(name)).leases
            if lease.node_display_name == other
        )
        facts = two.folder / other / "run" / "leases" / f"{lease}.{lease}" / "status.jsonl"
        until(lambda: facts.exists() and "supervising" in facts.read_text(), "a supervisor there")
        assert last(two.client.get(name)).state == job_pb2.ATTEMPT_STATE_STAGING
        cancel(two, name)
        until(lambda: not processes(two), "the supervisor to give up", MARGIN_S)
    job = over(two, name, time.monotonic(), grace_s=0)
    attempt_by_admin(job)
    (there,) = (w for w in last(job).workers if w.node_display_name == other)
    assert there.pid == 0
    assert there.state == NEVER_STARTED


def test_a_gang_on_a_node_that_never_answers_again_is_over_with_that_nodes_lease(
    tmp_path: Path,
) -> None:
    serve = {"node-lease-s": "2", "node-lease-margin-s": "1", "hold-s": "0.5"}
    with cluster(tmp_path, "a", "b", serve=serve) as made:
        name = made.submit({"command": ["sleep", "600"], **PAIR})
        pids = [w.pid for w in last(made.running(name)).workers]
        with paused(made.agents["b"].pid):
            began = time.monotonic()
            cancel(made, name)
            job = over(made, name, began, grace_s=2 + 1 + 1)  # looked at once in a second
            attempt_by_admin(job)
            assert not any(map(alive, pids))


@pytest.mark.parametrize("launcher", ["command", "horovod"])
def test_a_gang_at_any_moment_of_its_start(two: Cluster, launcher: str) -> None:
    document = {"launcher": launcher, "command": ["sleep", "600"], "grace_period": "1s", **PAIR}
    for pause_ms in range(0, 60, 3):
        name = two.submit(document)
        time.sleep(pause_ms / 1000)  # waits for nothing: this is the moment that is tried
        two.client.cancel([name])
        job = over(two, name, time.monotonic())
        by_admin(job)
        for attempt in job.attempts:
            assert attempt.state == job_pb2.ATTEMPT_STATE_CANCELLED
            assert {w.state for w in attempt.workers} <= {ENDED, NEVER_STARTED}


# --- while it runs, and after ---------------------------------------------------------------------


def test_a_job_that_runs_and_obeys(two: Cluster) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    job = started(two, {"command": ["sh", "-c", script], **PAIR})
    began = time.monotonic()
    cancel(two, job.name)
    job = over(two, job.name, began, grace_s=0)
    attempt_by_admin(job)
    assert [w.exit_code for w in last(job).workers] == [0, 0]
    assert two.output(job.name, rank=1) == b"up\nbye\n"


def test_a_job_that_runs_and_does_not_obey_with_children_that_have_left_it(two: Cluster) -> None:
    child = "trap '' TERM; sleep 600 & echo up; wait"
    script = f'trap "" TERM; setsid sh -c "{child}"; sleep 600'
    job = started(two, {"command": ["sh", "-c", script], "grace_period": "1s", **PAIR})
    assert len(processes(two)) >= 2 * 4, "supervisor, worker, child and grandchild on each node"
    began = time.monotonic()
    cancel(two, job.name)
    job = over(two, job.name, began, grace_s=1)
    attempt_by_admin(job)
    assert [w.signal for w in last(job).workers] == [signal.SIGKILL] * 2
    assert 1 <= last(job).end_time.ToSeconds() - last(job).stop_time.ToSeconds() <= 3


def test_a_job_whose_agent_is_down_ends_when_the_agent_is_back(two: Cluster) -> None:
    job = started(two, {"command": STUBBORN, "grace_period": "1s"})
    (worker,) = last(job).workers
    agent = two.agents[worker.node_display_name]
    agent.kill()
    cancel(two, job.name)
    assert last(two.client.get(job.name)).state == job_pb2.ATTEMPT_STATE_STOPPING
    agent.start()
    until(lambda: not alive(worker.pid), "the agent to come back and end the worker")
    job = over(two, job.name, time.monotonic())
    attempt_by_admin(job)
    assert last(job).workers[0].pid == worker.pid


def test_a_job_that_somebody_else_is_cancelling_already(two: Cluster) -> None:
    eve = token(two, "eve")
    job = started(two, {"command": STUBBORN, "grace_period": "5s"})
    began = time.monotonic()
    cancel(two, job.name)
    assert last(two.client.get(job.name)).state == job_pb2.ATTEMPT_STATE_STOPPING
    assert cancel(two, job.name, "--token-file", eve) == f"{job.name} is being cancelled.\n"
    again = two.client.get(job.name)
    assert last(again).state == job_pb2.ATTEMPT_STATE_STOPPING, "it still has its grace period"
    assert last(again).cause.message == "cancelled by admin"
    job = over(two, job.name, began, grace_s=5)
    attempt_by_admin(job)
    story = [e for e in two.client.events(job.name) if e.kind == "job.cancelled"]
    assert [e.principal for e in story] == ["admin"]


def test_a_gang_that_is_being_ended_because_a_rank_has_failed(two: Cluster) -> None:
    fail = 'test "$CC_RANK" = 0 && test -e go && exit 3'
    script = f"trap '' TERM; cd $CC_JOB_DIR; echo up; while :; do {fail}; sleep 0.1; done"
    job = started(two, {"command": ["sh", "-c", script], "max_attempts": 3, **PAIR})
    for folder in two.folder.glob(f"?/jobs/{job.job_id}"):
        (folder / "go").touch()
    state = job_pb2.ATTEMPT_STATE_STOPPING
    until(lambda: last(two.client.get(job.name)).state == state, "the rest to be ended")
    began = time.monotonic()
    assert cancel(two, job.name) == f"{job.name} is being cancelled.\n"
    job = over(two, job.name, began, grace_s=2)
    assert len(job.attempts) == 1, "it gets no second one"
    assert last(job).state == job_pb2.ATTEMPT_STATE_FAILED
    assert last(job).cause.exit_code == job.exit_code == 3
    assert job.state == job_pb2.JOB_STATE_CANCELLED
    assert job.reason == f"cancelled by admin; before that, {last(job).cause.message}"


def test_jobs_that_have_ended_are_left_as_they_are(two: Cluster) -> None:
    good, bad = two.submit({"command": ["true"]}), two.submit({"command": ["false"]})
    ended = [two.ended(good), two.ended(bad)]
    said = cancel(two, good, bad)
    assert said == f"{good} had ended before.\n{bad} had ended before.\n"
    assert [two.client.get(good), two.client.get(bad)] == ended


def test_a_job_that_was_cancelled_before(two: Cluster) -> None:
    job = started(two, {"command": ["sh", "-c", "echo up; exec sleep 600"]})
    assert cancel(two, job.name, job.name) == f"{job.name} is being cancelled.\n"
    ended = over(two, job.name, time.monotonic())
    attempt_by_admin(ended)
    assert cancel(two, job.name) == f"{job.name} had ended before.\n"
    assert two.client.get(job.name) == ended


# --- many -----------------------------------------------------------------------------------------


def test_a_name_that_never_was_cancels_none_of_the_others(two: Cluster) -> None:
    job = started(two, {"command": ["sh", "-c", "echo up; exec sleep 600"]})
    done = two.ccctl("cancel", job.name, NOTHING)
    assert done.returncode != 0
    assert f"{NOTHING}: there is no such job" in done.stderr
    assert two.client.get(job.name) == job
    began = time.monotonic()
    cancel(two, job.name)
    attempt_by_admin(over(two, job.name, began))


def test_all_that_match_a_filter_in_whatever_state(two: Cluster) -> None:
    sleep = {"command": ["sleep", "600"], "resources": {"memory": "64MiB"}}
    over_already = two.submit({**sleep, "command": ["true"], "name": "x-over"})
    was = two.ended(over_already)
    other = two.submit({**sleep, "name": "y-0"})
    runs = [two.submit({**sleep, "name": f"x-{i}"}) for i in range(10)]
    waits = [two.submit({**sleep, "workers": 1000, "name": f"x-{i}"}) for i in range(10, 15)]
    for name in [other, *runs]:
        two.running(name)

    refused = two.ccctl("cancel", "--name", "x-*")
    assert refused.returncode != 0
    assert "This would cancel 15 jobs; add --yes" in refused.stderr

    began = time.monotonic()
    said = cancel(two, "--name", "x-*", "--yes")
    assert sorted(said.splitlines()) == sorted(
        f"{name} is being cancelled." for name in [*runs, *waits]
    )
    for name in runs:
        attempt_by_admin(two.ended(name))
    for name in waits:
        by_admin(two.ended(name))
    assert time.monotonic() - began < 2 * MARGIN_S
    assert two.client.get(over_already) == was
    assert last(two.client.get(other)).state == job_pb2.ATTEMPT_STATE_RUNNING
    (held,) = [node.attempts for node in two.client.nodes() if node.attempts]
    assert list(held) == [f"{other}/tasks/0/attempts/1"]

    began = time.monotonic()
    cancel(two, "--name", "y-*", "--yes")
    attempt_by_admin(over(two, other, began))
    assert cancel(two, "--name", "x-*", "--yes") == "No job matches.\n"


def token(made: Cluster, name: str) -> str:
    """File with a token of another administrator."""
    out = made.folder / f"{name}.token"
    command: list[str | Path] = [BIN / "controlplane", "token", "create", name, "--role", "admin"]
    command += ["--out", out, "--state-dir", made.folder / "controlplane"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return str(out)
