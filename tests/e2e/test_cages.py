"""Jobs in control groups, with real daemons: who runs out of memory is named, nothing is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controlplane.v1 import job_pb2
from nodeagent.cages import Cages, find_cages
from tests.support.cluster import Cluster, cluster, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        not isinstance(find_cages("tests", 0, tuple), Cages), reason="no control groups here"
    ),
]
EAT = (
    "import os, time\n"
    "if os.environ['CC_RANK'] == '2': held = bytearray(300 << 20)\n"
    "time.sleep(60)\n"
)


def groups(made: Cluster, name: str) -> list[Path]:
    """Groups of leases of a node that are there."""
    uuid = made.client.node(f"nodes/{name}").name.removeprefix("nodes/")
    found = find_cages(uuid, 0, tuple)
    assert isinstance(found, Cages)
    return [path for base in found.base.values() for path in Path(base).iterdir() if path.is_dir()]


def test_one_rank_of_four_that_runs_out_of_memory_is_named(tmp_path: Path) -> None:
    with cluster(tmp_path, "a", "b") as made:
        assert made.client.node("nodes/a").facts.cages in ("v1", "v2")
        job = made.ended(
            made.submit(
                {
                    "command": ["python3", "-c", EAT],
                    "workers": 4,
                    "workers_per_node": 2,
                    "resources": {"memory": "64MiB"},
                }
            )
        )
        assert job.state == job_pb2.JOB_STATE_FAILED
        assert job.attempts[-1].cause.rank == 2
        words = " (SIGKILL), out of memory: it had used 64 MiB of the 64 MiB it may"
        assert job.reason.startswith("rank 2 on ")
        assert job.reason.endswith(words)
        assert words in made.ccctl("show", job.name).stdout.replace("\n", " ")
        until(lambda: not groups(made, "a") and not groups(made, "b"), "the groups to go")


def test_an_agents_restart_leaves_cages_alone_and_cleans_up_what_is_over(tmp_path: Path) -> None:
    with cluster(tmp_path, "a") as made:
        name = made.submit({"command": ["sleep", "3"]})
        job = made.running(name)
        (worker,) = job.attempts[-1].workers
        entered = Path(f"/proc/{worker.pid}/cgroup")
        until(lambda: "/nodeagent." in entered.read_text(), "the worker to be in its cage")
        before = entered.read_text()
        held = groups(made, "a")
        stale = held[0].parent / "999.999"
        stale.mkdir()
        made.agents["a"].kill()
        made.agents["a"].start()
        until(lambda: not stale.exists(), "the new agent to clean up")
        assert groups(made, "a") == held
        assert entered.read_text() == before
        assert made.ended(name).exit_code == 0
        until(lambda: not groups(made, "a"), "the groups to go")


def test_an_agent_that_must_have_cages_and_may_not_make_them_does_not_start(
    tmp_path: Path,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody without")
    with cluster(tmp_path, "a") as made:
        agent = made.agents["a"]
        agent.stop()
        hidden = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'umount -l /sys/fs/cgroup/memory; exec "$@"',
            "sh",
        ]
        agent.command = [*hidden, *agent.command, "--cages", "required"]
        agent.start()
        assert agent.process is not None
        assert agent.process.wait(30) == 1
        assert "cages: are required, and " in agent.log.read_text()
