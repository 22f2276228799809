"""Leases as a supervisor finds them: a plan in a folder; and what the supervisor left there.

Which file lies where is known here alone, so that tests speak of a lease and not of its files.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from controlplane.model.lease import LeasePhase, LeaseStatus
from nodeagent import status, streams
from nodeagent.plan import StepPlan, WorkerPlan
from nodeagent.supervision import kernel, processes, record, sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nodeagent.spawning import Spawner

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
WITHIN_S = 20.0
FREEZER = Path("/sys/fs/cgroup/freezer")
"""Where processes can be frozen, if there is such a place."""
_PAUSE_S = 0.005
_SUPERVISE = """import os, sys
from nodeagent.supervisor import supervise
{before}
supervise(*sys.argv[1:])
"""


T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, within_s: float = WITHIN_S) -> T:
    """Wait for a condition; its value. The test fails in words when it does not come."""
    deadline = time.monotonic() + within_s
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"waited {within_s:g} s for {what}"
        time.sleep(_PAUSE_S)


def worker(*argv: str, rank: int = 0, **fields: Any) -> WorkerPlan:
    """A worker that runs a program."""
    values: dict[str, Any] = {"env": ENV, "cwd": "/", "local_rank": rank, **fields}
    return WorkerPlan(rank=rank, argv=argv, **values)


def shell(script: str, rank: int = 0, **fields: Any) -> WorkerPlan:
    """A worker that is a shell."""
    return worker("/bin/sh", "-c", script, rank=rank, **fields)


def step(*workers: WorkerPlan, **fields: Any) -> StepPlan:
    """A plan for these workers, with a grace that no test waits for."""
    values: dict[str, Any] = {
        "lease_id": 7,
        "token": 3,
        "grace_ms": 60_000,
        "failure_grace_ms": 60_000,
        **fields,
    }
    return StepPlan(workers=workers, **values)


def gone(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    process = processes.look(pid)
    return process is None or process.state in "ZX"


@contextlib.contextmanager
def frozen(pid: int, name: str) -> Iterator[None]:
    """A process that even SIGKILL does not end, as one whose writes hang in the kernel."""
    group = FREEZER / name
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "freezer.state").write_text("FROZEN")
        yield
    finally:
        (group / "freezer.state").write_text("THAWED")
        until(lambda: not (group / "cgroup.procs").read_text(), "what was frozen to end")
        group.rmdir()


class Lease:
    """One lease on the disk."""

    def __init__(self, root: Path, plan: StepPlan | str) -> None:
        """Make it below `root`, with a plan, or with words in a plan's place."""
        made = plan if isinstance(plan, StepPlan) else step()
        self.control = root / "control" / str(made.lease_id)
        """What agent and supervisor share: plan, status, lock, orders."""
        self.output = root / "data" / str(made.lease_id)
        """What the workers print."""
        self._spawned = False
        self.plan = replace(made, output_dir=str(self.output))
        for folder in (self.control, self.output):
            folder.mkdir(parents=True, mode=0o700)
        text = self.plan.to_json() if isinstance(plan, StepPlan) else plan
        (self.control / record.PLAN).write_text(text)

    # The supervisor's side, for tests that have none

    def append(self, data: bytes) -> None:
        """Add bytes to what the supervisor wrote down."""
        with (self.control / record.STATUS).open("ab") as file:
            file.write(data)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lease as its supervisor does."""
        fd = os.open(self.control / record.PLAN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(fd)

    # The agent's side

    def spawn(self, spawner: Spawner) -> Lease:
        """Have a supervisor started."""
        self._spawned = True
        spawner.spawn(self.control)
        return self

    def supervise(self, *prefix: str, before: str = "") -> int:
        """Have it supervised by a process of the test's own until that ends; its exit code.

        `prefix` goes before the command, and `before` are lines of Python that it runs first.
        """
        code = _SUPERVISE.format(before=before)
        command = [*prefix, sys.executable, "-c", code, str(self.control), kernel.boot_id()]
        return subprocess.run(command, timeout=WITHIN_S, check=False).returncode

    def reader(self) -> status.StatusReader:
        """Reads what happened, as the agent does."""
        return status.StatusReader(self.control, self.plan)

    def stop(self, grace_ms: int, why: str = "ordered") -> bool:
        """Order the end."""
        return status.stop(self.control, grace_ms, why)

    def running(self) -> LeaseStatus:
        """The status once all its workers run."""
        return self._at(LeasePhase.RUNNING)

    def ended(self, within_s: float = WITHIN_S) -> LeaseStatus:
        """The status once all is over."""
        return self._at(LeasePhase.ENDED, within_s)

    def send(self, data: bytes) -> bool:
        """Send bytes where orders are heard; whether somebody listens."""
        sender = sockets.datagram_socket()
        try:
            sockets.send_to(sender, str(self.control / record.CONTROL), data)
        except OSError:
            return False
        finally:
            sender.close()
        return True

    def _at(self, phase: LeasePhase, within_s: float = WITHIN_S) -> LeaseStatus:
        reader = self.reader()

        def look() -> LeaseStatus | None:
            seen = reader.read()
            return seen if seen.phase is phase else None

        try:
            return until(look, phase, within_s)
        except AssertionError as error:
            error.add_note(f"{reader.read()}\n{self.facts()}\n{self.faults()}")
            raise

    # What is there

    def written_down(self) -> bytes:
        """What the supervisor wrote down, as it is."""
        try:
            return (self.control / record.STATUS).read_bytes()
        except FileNotFoundError:
            return b""

    def facts(self) -> list[dict[str, Any]]:
        """What the supervisor wrote down; every line must be whole."""
        return [json.loads(line) for line in self.written_down().splitlines()]

    def told(self) -> list[str]:
        """The facts' names."""
        return [fact["fact"] for fact in self.facts()]

    def supervisor(self) -> int:
        """Process id of the supervisor, once it has shown itself."""
        until(self.told, "a supervisor to show itself")
        pid = self.facts()[0]["pid"]
        assert isinstance(pid, int)
        return pid

    def held(self) -> bool:
        """Whether a supervisor holds it."""
        try:
            with self.lock():
                return False
        except BlockingIOError:
            return True

    def printed(self, rank: int = 0, stream: streams.Stream = "out") -> bytes:
        """What a worker has printed, as far as it is kept."""
        data, (begin, part) = b"", streams.read(self.output, rank, stream, 0, 1 << 20)
        while part:
            data += part
            begin, part = streams.read(self.output, rank, stream, begin + len(part), 1 << 20)
        return data

    def waits_for(self, words: bytes, rank: int = 0) -> None:
        """Wait until a worker has printed something."""
        until(lambda: words in self.printed(rank), f"rank {rank} to print {words!r}")

    def faults(self) -> str:
        """The supervisor's own mistakes."""
        path = self.control / "supervisor.log"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        """End whatever still runs of it."""
        if self._spawned:
            until(self.told, "a supervisor to show itself")
        if not self.held():
            return
        self.stop(0)
        try:
            until(lambda: not self.held(), "the supervisor to end")
        except AssertionError:
            pid = self.supervisor()
            processes.signal_all([*processes.descendants(pid), pid], signal.SIGKILL)
            raise
