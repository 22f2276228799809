"""Real daemons: warnings before the time limit, signals from users, and jobs that ask to be started
again."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from controlplane.client.errors import InvalidInput, Refused
from controlplane.v1 import job_pb2
from tests.support.cluster import ROOT, Cluster, cluster, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
PAIR = {"workers": 2, "workers_per_node": 1}
LIMIT_S = 10


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("two")) as made:
        made.agent("a", cpus=16)
        made.agent("b", cpus=16)
        yield made


def told(two: Cluster, name: str) -> str:
    done = two.ccctl("history", name)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_warned_job_saves_is_requeued_and_goes_on_from_its_checkpoint(two: Cluster) -> None:
    document = two.example("checkpoint/job.json", time_limit=f"{LIMIT_S}s", signal="USR2@8s")
    document["env"] = {"GOAL": "30", "PACE": "0.1"}
    job = two.client.submit(document, base=ROOT / "examples/checkpoint")

    job = two.ended(job.name)

    assert (job.state, job.exit_code) == (job_pb2.JOB_STATE_SUCCEEDED, 0), job.reason
    *warned, last = job.attempts  # a slow machine needs a third one
    assert warned
    for each in warned:
        assert each.state == job_pb2.ATTEMPT_STATE_FAILED
        assert each.cause.message.endswith(
            "exited with code 75, by which it asks to be started again"
        )
        ran = each.warning_time.ToNanoseconds() - each.start_time.ToNanoseconds()
        assert 1.9e9 < ran < LIMIT_S * 1e9
    assert not last.HasField("warning_time")
    said = two.output(job.name).decode().splitlines()
    assert said[0].startswith(f"restart {len(warned)} begins after step ")
    assert int(said[0].rpartition(" ")[2]) > 0
    assert said[-1] == "done: step 30"
    words = "attempt 1 was warned of its time limit by SIGUSR2 on a\n"
    assert words in told(two, job.name).replace("on b\n", "on a\n")
    assert "Warned of the time limit" in two.ccctl("show", job.name).stdout


LISTEN = """
for name in HUP USR1 USR2; do trap "echo got $name" $name; done
trap 'exit 0' TERM
echo ready
while :; do sleep 0.05; done
"""


def said(two: Cluster, name: str, rank: int) -> list[str]:
    return two.printed(name, rank).decode().splitlines()


def test_a_signal_reaches_every_rank_once_though_an_agent_is_killed_in_the_middle(
    two: Cluster,
) -> None:
    name = two.submit({"command": ["sh", "-c", LISTEN], **PAIR})
    two.running(name)
    until(lambda: all("ready" in said(two, name, r) for r in range(2)), "both to be ready")

    def delivered(count: int) -> bool:
        (attempt,) = two.client.get(name).attempts
        return [s.delivered for s in attempt.signals] == [True] * count

    agent = two.agents["a"]
    assert (
        two.ccctl("signal", name, "usr1").stdout
        == f"SIGUSR1 is being sent to 2 workers of {name}.\n"
    )
    agent.kill()  # it may or may not have handed the first one on
    assert two.ccctl("signal", name, "USR2").returncode == 0
    agent.start()
    until(lambda: delivered(2), "both signals to be delivered")
    for _ in range(2):  # a repeat sends nothing
        two.client.signal(name, "HUP", ranks=[1], request_id="third")
    until(lambda: delivered(3), "the third signal to be delivered")

    expected = (["ready", "got USR1", "got USR2"], ["ready", "got USR1", "got USR2", "got HUP"])
    counts = [len(lines) for lines in expected]
    until(lambda: [len(said(two, name, r)) for r in range(2)] == counts, "both to speak")
    two.client.cancel([name])
    two.ended(name)
    for rank, lines in enumerate(expected):
        found = two.output(name, rank).decode().splitlines()
        assert (found[0], sorted(found[1:])) == (lines[0], sorted(lines[1:]))
    assert told(two, name).count("admin sent SIG") == 3
    shown = two.ccctl("show", name).stdout
    assert "SIGHUP to rank 1: sent by admin " in shown
    assert "not delivered" not in shown


@pytest.mark.skipif(not shutil.which("mpirun"), reason="needs Open MPI: apt install openmpi-bin")
def test_mpirun_hands_a_signal_on_to_every_rank_of_every_node_once(two: Cluster) -> None:
    script = (
        "trap 'echo rank $CC_RANK got USR1' USR1; echo rank $CC_RANK ready;"
        " for i in $(seq 300); do [ -e $CC_JOB_DIR/go ] && exit 0; sleep 0.05; done; exit 9"
    )
    document = {"launcher": "mpi", "command": ["sh", "-c", script], "workers_per_node": 2}
    name = two.submit({**document, "workers": 4})
    two.running(name)
    until(lambda: len(said(two, name, 0)) == 4, "all ranks to be ready")

    assert two.ccctl("signal", name, "USR1").returncode == 0

    def got() -> list[str]:
        return sorted(line for line in said(two, name, 0) if "got" in line)

    everyone = [f"rank {rank} got USR1" for rank in range(4)]
    until(lambda: got() == everyone, "every rank to get it")
    for folder in two.folder.glob(f"*/jobs/{name.removeprefix('jobs/')}"):
        (folder / "go").touch()
    job = two.ended(name)
    assert job.exit_code == 0, job.reason
    assert got() == everyone
    no = two.ccctl("signal", name, "USR1")
    assert (no.returncode, no.stderr) == (
        1,
        f"Error: {name} has ended: no worker of it is left to get a signal.\n",
    )


def test_signals_that_cannot_be_sent_are_refused_past_ccctl_too(two: Cluster) -> None:
    name = two.submit({"command": ["sleep", "600"]})
    two.running(name)
    for signal, words in (("KILL", "no program can handle KILL"), ("usr1", "did you mean USR1?")):
        with pytest.raises(InvalidInput, match=re.escape(words)):
            two.client.signal(name, signal)
    with pytest.raises(InvalidInput, match="has no such rank"):
        two.client.signal(name, "USR1", ranks=[1])
    two.client.signal(name, "WINCH", request_id="same")  # which ends no one
    with pytest.raises(Refused, match="was used for another request"):
        two.client.signal(name, "USR1", request_id="same")
    waiting = two.submit({"command": ["true"], "workers": 1000})
    with pytest.raises(Refused, match="has no workers yet") as no:
        two.client.signal(waiting, "USR1")
    assert no.value.reason == "WRONG_STATE"
    two.client.cancel([name, waiting])
