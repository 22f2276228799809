"""Steps under real supervisors, ordered as the agent orders them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.v1 import agent_service_pb2 as pb
from controlplane.v1 import step_pb2
from nodeagent import status
from nodeagent.launchers import plan_step
from nodeagent.plan import Identity, StepPlan
from nodeagent.spawning import Spawner
from nodeagent.steps import open_ends
from nodeagent.supervision.steps import FOLDER, Order, beside, make_line
from tests.support.launches import launch, members, node
from tests.support.supervised import Lease, gone, shell, step, until, worker

FOR_LONG = "echo ready; exec sleep 600"


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.close()


@pytest.fixture
def start(tmp_path: Path, spawner: Spawner) -> Iterator[Callable[[StepPlan], Lease]]:
    """Makes leases that run; what is left of them ends with the test."""
    made: list[Lease] = []

    def one(plan: StepPlan) -> Lease:
        made.append(Lease(tmp_path / "leases", plan))
        made[-1].spawn(spawner).running()
        return made[-1]

    yield one
    for lease in made:
        lease.close()
        assert lease.faults() == ""


class Held:
    """A step, held as an agent holds it."""

    def __init__(self, lease: Lease, *argv: str, number: int = 7, **order: Any) -> None:
        wanted = pb.StepOrder(step=number, command=argv, **order)
        self.line, theirs = make_line()
        self.line.settimeout(20)
        self.ends = open_ends(wanted)
        raw: dict[str, object] = {
            "step": number,
            "rank": wanted.rank,
            "argv": list(wanted.command),
            "env": dict(wanted.env),
            "terminal": wanted.HasField("terminal"),
            "detach": wanted.detach,
        }
        fds = [theirs.fileno(), *self.ends.theirs]
        assert status.start_step(lease.control, raw, fds)
        theirs.close()
        self.ends.close_theirs()

    def hear(self) -> dict[str, Any]:
        data = self.line.recv(65536)
        said: dict[str, Any] = json.loads(data) if data else {}
        return said

    def read(self, name: str = "stdout", until_words: bytes | None = None) -> bytes:
        """What it prints, to the end or up to some words."""
        fd, data = self.ends.outputs[name], b""
        deadline = time.monotonic() + 20
        while until_words is None or until_words not in data:
            assert time.monotonic() < deadline, data
            select.select([fd], [], [], 1)
            with contextlib.suppress(BlockingIOError):
                try:
                    piece = os.read(fd, 65536)
                except OSError:  # a terminal that nobody has open any more
                    piece = b""
                if not piece:
                    break
                data += piece
        return data

    def close(self) -> None:
        self.line.close()
        self.ends.close()


def test_a_step_has_its_workers_world_and_its_own_streams(start: Callable[..., Lease]) -> None:
    lease = start(step(shell(FOR_LONG, cwd="/usr", env={"PATH": "/usr/bin:/bin", "A": "1"})))
    script = 'read x; echo "$x $A $B $CC_STEP_ID $(pwd)"; echo err >&2; exit 7'
    held = Held(lease, "sh", "-c", script, env={"B": "2"})
    pid = held.hear()["started"]
    os.write(held.ends.stdin, b"in\n")
    assert held.read() == b"in 1 2 7 /usr\n"
    assert held.read("stderr") == b"err\n"
    assert held.hear() == {"ended": {"exit_code": 7}, "message": ""}
    assert held.hear() == {}
    held.close()
    facts = [fact for fact in lease.facts() if fact["fact"].startswith("step_")]
    assert [(f["fact"], f["step"]) for f in facts] == [("step_started", 7), ("step_exited", 7)]
    assert (facts[0]["pid"], facts[0]["rank"], facts[1]["exit_code"]) == (pid, 0, 7)
    assert lease.reader().read().workers[0].exit_code is None


def test_a_terminal_has_its_size_and_hears_what_is_typed(start: Callable[..., Lease]) -> None:
    lease = start(step(shell(FOR_LONG)))
    size = step_pb2.WindowSize(rows=31, columns=97)
    script = "stty size; tty; ps -o tpgid=,pgid= -p $$; trap 'echo int; exit 3' INT"
    script += "; echo go; while :; do sleep 0.05; done"
    held = Held(lease, "sh", "-c", script, terminal=step_pb2.Terminal(size=size))
    assert "started" in held.hear()
    seen = held.read(until_words=b"go\r\n").split()
    assert seen[:2] == [b"31", b"97"]
    assert seen[2].startswith(b"/dev/pts/")
    assert seen[3] == seen[4], "it is in the foreground of its own session"
    os.write(held.ends.stdin, b"\x03")
    assert b"int" in held.read()
    assert held.hear()["ended"] == {"exit_code": 3}
    held.close()


@pytest.mark.parametrize("terminal", [False, True])
def test_who_lets_go_of_a_step_hangs_up_on_it(start: Callable[..., Lease], terminal: bool) -> None:
    lease = start(step(shell(FOR_LONG)))
    size = step_pb2.Terminal(size=step_pb2.WindowSize(rows=1, columns=1)) if terminal else None
    held = Held(lease, "sh", "-c", "echo up; exec sleep 600", terminal=size)
    pid = held.hear()["started"]
    held.read(until_words=b"up")
    held.close()  # as the kernel does for an agent that was killed
    until(lambda: gone(pid), "the step to end")
    until(lambda: "step_exited" in lease.told(), "its end to be written down")
    assert lease.facts()[-1]["signal"] == signal.SIGHUP
    assert "ended" not in lease.told()


def test_a_signal_reaches_the_steps_group_alone(start: Callable[..., Lease]) -> None:
    lease = start(step(shell("trap 'echo hit' USR1; echo ready; while :; do sleep 0.05; done")))
    lease.waits_for(b"ready")
    held = Held(lease, "sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done")
    assert "started" in held.hear()
    held.read(until_words=b"up\n")
    held.line.send(b'{"signal": 10}')
    assert held.hear()["ended"] == {"exit_code": 9}
    assert lease.printed() == b"ready\n"
    held.close()


def test_a_detached_step_goes_on_alone_and_its_output_is_kept(start: Callable[..., Lease]) -> None:
    lease = start(step(shell(FOR_LONG)))
    held = Held(lease, "sh", "-c", "sleep 0.2; echo kept; echo bad >&2; exit 4", detach=True)
    assert "started" in held.hear()
    held.close()
    until(lambda: "step_exited" in lease.told(), "the step to end")
    assert lease.facts()[-1]["exit_code"] == 4
    inner = lease.output
    lease.output = inner / FOLDER / "7"
    assert (lease.printed(), lease.printed(stream="err")) == (b"kept\n", b"bad\n")
    lease.output = inner
    assert lease.printed() == b"ready\n"


def test_the_end_of_the_workers_ends_steps_and_says_why(start: Callable[..., Lease]) -> None:
    lease = start(step(shell(FOR_LONG)))
    held = Held(lease, "sleep", "600")
    pid = held.hear()["started"]
    lease.stop(0)
    said = held.hear()
    assert said["ended"]["signal"] in (signal.SIGTERM, signal.SIGKILL)
    assert said["message"] == ("the job ends on this node, and its steps with it: it was told to")
    held.close()
    assert gone(pid)
    lease.ended()
    assert lease.told()[-1] == "ended"


def test_no_step_is_started_twice_nor_in_a_lease_that_ends(start: Callable[..., Lease]) -> None:
    lease = start(step(shell("trap '' TERM; echo ready; while :; do sleep 0.05; done")))
    lease.waits_for(b"ready")
    first = Held(lease, "true")
    assert "started" in first.hear()
    again = Held(lease, "true")
    assert again.hear() == {"refused": "step 7 was started already"}
    foreign = Held(lease, "true", number=8, rank=5)
    assert foreign.hear()["refused"].endswith("rank 5 is none of this node's")
    lease.stop(60_000)
    until(lambda: "stopping" in lease.told(), "the end to begin")
    late = Held(lease, "true", number=9)
    assert late.hear()["refused"].startswith("the job ends on this node")
    for each in (first, again, foreign, late):
        each.close()


def test_what_is_no_order_for_a_step_does_no_harm(start: Callable[..., Lease]) -> None:
    lease = start(step(shell(FOR_LONG)))
    for raw in (b'{"do":"step"}', b'{"do":"step","step":1,"rank":0,"argv":1,"env":{}}', b"[]"):
        assert lease.send(raw)
    ours, theirs = socket.socketpair()
    assert status.start_step(lease.control, {"step": "x"}, [theirs.fileno()])
    theirs.close()
    ours.settimeout(20)
    assert ours.recv(1) == b"", "its descriptors were closed"
    ours.close()
    held = Held(lease, "true")
    assert "started" in held.hear()
    held.close()


def test_a_step_runs_behind_the_jobs_setup_lines() -> None:
    gang = members([1])
    plan = plan_step(launch("command", gang, setup=("export A=1",)), node(gang))
    order = Order(5, 0, ("env",), {"X": "y"}, False, False)
    made = beside(plan.workers[0], order)
    assert made.argv[0] == "/bin/bash"
    assert made.argv[3:] == ("setup", "env")
    assert (made.env["X"], made.env["CC_STEP_ID"], made.env["CC_RANK"]) == ("y", "5", "0")
    assert StepPlan.from_json(plan.to_json()) == plan


def test_a_shell_is_that_of_the_account() -> None:
    order = Order(5, 0, (), {}, True, False)
    assert beside(worker("true", env={"SHELL": "/bin/zsh"}), order).argv == ("/bin/zsh",)
    assert beside(worker("true", env={}), order).argv == ("/bin/sh",)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.parametrize("terminal", [False, True])
def test_a_step_is_who_the_workers_are_and_its_terminal_is_theirs(
    start: Callable[..., Lease], terminal: bool
) -> None:
    nobody = Identity(uid=65534, gid=65534, groups=(65534,))
    lease = start(step(shell(FOR_LONG), identity=nobody))
    size = step_pb2.Terminal(size=step_pb2.WindowSize(rows=1, columns=80)) if terminal else None
    script = "id -u; id -G; if tty >/dev/null; then stat -c %u $(tty); fi"
    held = Held(lease, "sh", "-c", script, terminal=size)
    assert "started" in held.hear()
    assert held.read().split() == [b"65534"] * (3 if terminal else 2)
    assert held.hear()["ended"] == {"exit_code": 0}
    held.close()
