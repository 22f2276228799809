"""Prolog and epilog of a site with real daemons, and nodes that eat jobs."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.v1 import job_pb2, node_pb2
from tests.support.cluster import Cluster, cluster, until
from tests.support.disk import small_disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def program(folder: Path, name: str, script: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def state(made: Cluster, name: str) -> tuple[int, str]:
    found = made.client.node(f"nodes/{name}")
    return found.state, found.reason


def causes(made: Cluster, name: str) -> str:
    """Why the job's attempts have ended so far."""
    return "; ".join(attempt.cause.message for attempt in made.client.get(name).attempts)


def test_a_node_whose_prolog_fails_is_drained_and_its_jobs_run_elsewhere(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        broken = program(tmp_path, "prolog", "echo the GPUs have fallen off the bus; exit 1")
        made.agent("bad", cpus=64, prolog=broken)
        jobs = [made.submit({"command": ["hostname"], "name": f"job-{n}"}) for n in range(5)]
        until(lambda: state(made, "bad")[0] == node_pb2.NODE_STATE_DRAINED, "it to be drained")
        reason = state(made, "bad")[1]
        assert reason.startswith("3 attempts in a row failed here within 10 s")
        assert reason.endswith("ended with exit code 1: the GPUs have fallen off the bus")
        made.agent("good", cpus=64)
        for name in jobs:
            job = made.ended(name)
            assert job.exit_code == 0, job.reason
            assert job.attempts[-1].workers[0].node_display_name == "good"
        assert "node.suspected" in [event.kind for event in made.client.events()]


def test_an_epilog_runs_once_for_each_lease_before_its_end_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with cluster(tmp_path) as made:
        made.agent(
            "a",
            prolog=program(tmp_path, "prolog", f"echo prolog $CC_JOB_ID $CC_OWNER >> {log}"),
            epilog=program(tmp_path, "epilog", f"sleep 0.5; echo epilog $CC_JOB_ID >> {log}"),
        )
        first = made.ended(made.submit({"command": ["sh", "-c", f"echo job >> {log}"]}))
        assert log.read_text().split() == ["prolog", "1", "admin", "job", "epilog", "1"]
        assert first.exit_code == 0
        # An agent that dies while it runs: the next one runs it, and tells the end.
        name = made.submit({"command": ["sh", "-c", f"echo job >> {log}"]})
        until(lambda: log.read_text().count("job\n") == 2, "the job to run")
        made.agents["a"].kill()
        made.agents["a"].start()
        assert made.ended(name).exit_code == 0
        assert log.read_text().count("epilog 2") >= 1


def test_a_node_whose_epilog_fails_takes_no_more_work(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    with cluster(tmp_path) as made:
        script = f"if [ -e {broken} ]; then echo memory is left on GPU 3; exit 1; fi"
        made.agent("a", epilog=program(tmp_path, "epilog", script))
        done = made.ended(made.submit({"command": ["true"]}))
        assert done.state == job_pb2.JOB_STATE_SUCCEEDED, "the job itself went well"
        until(lambda: made.client.node("nodes/a").facts.trouble, "the node to tell of it")
        assert "memory is left on GPU 3" in made.ccctl("node", "list").stdout
        name = made.submit({"command": ["true"]})
        until(lambda: "in trouble" in made.client.get(name).reason, "it to wait")
        broken.unlink()
        made.agents["a"].stop()
        made.agents["a"].start()
        assert made.ended(name).exit_code == 0


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a small disk")
def test_a_node_whose_disk_is_full_gets_no_jobs_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "size=24m") as disk, cluster(tmp_path) as made:
        made.agent("small", cpus=64, gpus=0, **{"min-free-mib": "8"})
        assert made.ended(made.submit({"command": ["true"]})).exit_code == 0
        ballast = fill(disk)
        until(lambda: made.client.node("nodes/small").facts.trouble, "the node to tell of it")
        words = made.ccctl("node", "show", "small").stdout
        assert "0 MiB free, and 8 are needed; make room there, or lower min_free_mib" in words
        name = made.submit({"command": ["true"]})
        until(lambda: "in trouble" in made.client.get(name).reason, "it to wait")
        assert not made.client.get(name).attempts
        ballast.unlink()
        job = made.ended(name)
        assert (job.exit_code, len(job.attempts)) == (0, 1)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a folder read-only")
def test_a_jobs_folder_that_is_read_only_is_the_nodes_fault_and_no_jobs(tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = (
        f"[ -e $CC_JOB_DIR/again ] && exit 0; touch $CC_JOB_DIR/again; while [ ! -e {go} ];"
        " do sleep 0.05; done; exit 3"
    )
    document = {"command": ["sh", "-c", script], "requeue_exit_codes": [3], "max_attempts": 1}
    with cluster(tmp_path, "a") as made:
        name = made.submit(document)
        folder = tmp_path / "a" / "jobs" / name.removeprefix("jobs/")
        until((folder / "again").exists, "the job to run")
        with read_only(folder):
            go.touch()
            words = f"{folder}: {pwd.getpwuid(0).pw_name} can make no file there: Read-only file"
            until(lambda: words in causes(made, name), "it to be told")
        job = made.ended(name)
        assert job.exit_code == 0, job.reason
        kinds = [attempt.cause.kind for attempt in job.attempts]
        assert job_pb2.CAUSE_KIND_INFRASTRUCTURE in kinds
        assert "node.suspected" in [event.kind for event in made.client.events()]


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", folder, folder], check=True, timeout=10)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True, timeout=10)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=10)


def test_a_working_directory_that_is_not_there_is_told_as_the_jobs(tmp_path: Path) -> None:
    with cluster(tmp_path, "a") as made:
        name = made.submit({"command": ["true"], "working_dir": str(tmp_path / "gone")})
        words = f"working_dir: {tmp_path / 'gone'} is no folder on a"
        until(lambda: words in causes(made, name), "it to be told")
        made.client.cancel([name])
