"""Prolog and epilog of a site with real daemons, and nodes that eat jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.v1 import job_pb2, node_pb2
from tests.support.cluster import Cluster, cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def program(folder: Path, name: str, script: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def state(made: Cluster, name: str) -> tuple[int, str]:
    found = made.client.node(f"nodes/{name}")
    return found.state, found.reason


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
