"""What a supervisor wrote down, as the status that is reported; and orders to a supervisor."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from controlplane.model.lease import (
    LeaseEnd,
    LeasePhase,
    LeaseStatus,
    WorkerState,
    WorkerStatus,
)
from nodeagent.supervision import processes, record, sockets
from nodeagent.supervision.cage import Cage

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from nodeagent.plan import StepPlan

APPEAR_S = 10.0
"""A supervisor that has not shown itself for so long was never started."""
MARKS = ("CC_JOB_DIR", "CC_ATTEMPT")
"""No two leases of a host have the same values of these in their workers' environment."""
_LOOKS, _PAUSE_S = 10, 0.005
"""A process is gone a moment after its SIGKILL: looked so often, with such a pause, at once."""


def fold(status: LeaseStatus, fact: dict[str, Any]) -> LeaseStatus:
    """The status after one more fact. KeyError, TypeError or ValueError for what is no fact."""
    match fact["fact"]:
        case "started":
            fresh = {"state": WorkerState.RUNNING, "pid": fact["pid"], "started_us": fact["time"]}
            status = _with(status, fact["rank"], **fresh)
            running = all(w.state is not WorkerState.WAITING for w in status.workers)
            if running and status.phase is LeasePhase.STARTING:
                status = replace(status, phase=LeasePhase.RUNNING)
        case "exited":
            status = _with(
                status,
                fact["rank"],
                state=WorkerState.ENDED,
                exit_code=fact.get("exit_code"),
                signal=fact.get("signal"),
                ended_us=fact["time"],
                stdout_bytes=fact["stdout_bytes"],
                stderr_bytes=fact["stderr_bytes"],
                stderr_tail=fact.get("stderr_tail", ""),
                peak_memory_bytes=fact.get("peak_memory_bytes"),
                oom_limit_bytes=fact.get("oom_limit_bytes"),
                oom_peak_bytes=fact.get("oom_peak_bytes"),
            )
        case "warned":
            status = replace(status, warned_us=fact["time"])
        case "stuck":
            status = replace(status, stuck=fact["message"])
        case "limited":
            limit_ms = fact["time_limit_ms"]
            status = replace(status, time_limit_us=None if limit_ms is None else limit_ms * 1000)
        case "output_fault":
            status = replace(status, output_fault=fact["message"])
        case "signalled":
            status = replace(status, signals_done=fact["number"])
        case "stopping":
            status = replace(
                status,
                phase=LeasePhase.STOPPING,
                end=LeaseEnd(fact["end"]),
                message=fact["message"],
            )
        case "ended":
            for rank, (out, err) in fact.get("bytes", {}).items():
                status = _with(status, int(rank), stdout_bytes=out, stderr_bytes=err)
            status = replace(
                status,
                phase=LeasePhase.ENDED,
                end=LeaseEnd(fact["end"]),
                message=fact["message"],
                stuck="",
            )
    return status


def _with(status: LeaseStatus, rank: int, **changes: Any) -> LeaseStatus:
    workers = tuple(replace(w, **changes) if w.rank == rank else w for w in status.workers)
    return replace(status, workers=workers)


def expanded(status: LeaseStatus, ranks_per_worker: int) -> LeaseStatus:
    """The status with a worker for each rank that a worker stands for.

    They share their process and its end; its output and its memory are told of the first.
    """
    if ranks_per_worker == 1:
        return status
    workers = []
    for first in status.workers:
        silent = replace(first, stdout_bytes=0, stderr_bytes=0, peak_memory_bytes=None)
        workers.append(first)
        workers += [
            replace(silent, rank=first.rank + i, local_rank=i) for i in range(1, ranks_per_worker)
        ]
    return replace(status, workers=tuple(workers))


class StepEnd(NamedTuple):
    """How a detached step ended."""

    exit_code: int | None
    """Exit code, if it exited."""
    signal: int | None
    """Number of the signal that ended it, if one did."""
    message: str
    """Why it was ended, in words; empty when it ended by itself."""


class StatusReader:
    """Reads one lease's facts, each once."""

    def __init__(self, folder: Path, plan: StepPlan) -> None:
        """`folder`: the lease's, with its supervisor's word; `plan`: what that was told."""
        self._folder = folder
        env = plan.workers[0].env if plan.workers else {}
        self._status = LeaseStatus(
            lease_id=plan.lease_id,
            token=plan.token,
            phase=LeasePhase.STARTING,
            workers=tuple(WorkerStatus(rank=w.rank, local_rank=w.local_rank) for w in plan.workers),
            job_dir=env.get("CC_JOB_DIR", ""),
            time_limit_us=None if plan.time_limit_ms is None else plan.time_limit_ms * 1000,
        )
        self._ranks_per_worker = plan.ranks_per_worker
        self._offset = 0
        self._ticks: dict[int, int] = {}
        self._supervised = False
        self.steps: dict[int, StepEnd | None] = {}
        """Detached steps by number; their end, once they have ended."""
        self._since = time.monotonic()
        self._cage = Cage(plan.cage) if plan.cage is not None else None
        self._marks = {f"{name}={env[name]}".encode() for name in MARKS if name in env}

    def read(self) -> LeaseStatus:
        """The status by now. A line that is not whole yet is read the next time."""
        self._read()
        return expanded(self._status, self._ranks_per_worker)

    def _read(self) -> LeaseStatus:
        if self._status.phase is LeasePhase.ENDED:
            return self._status
        try:
            with (self._folder / record.STATUS).open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return self._status
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        for line in data[:whole].splitlines():
            self._take(line)
        return self._status

    def _take(self, line: bytes) -> None:
        try:
            fact = json.loads(line)
            self._supervised = True
            if fact["fact"] in ("started", "step_started") and fact["pid"] > 1:
                self._ticks[fact["pid"]] = fact["ticks"]
            self._status = fold(self._status, fact)
            self._take_step(fact)
        except record.DAMAGE:
            return  # torn by a full disk: its writer writes it again

    def _take_step(self, fact: dict[str, Any]) -> None:
        match fact["fact"]:
            case "step_started" if fact["detached"]:
                self.steps[fact["step"]] = None
            case "step_exited" if fact["step"] in self.steps:
                self.steps[fact["step"]] = StepEnd(
                    fact.get("exit_code"), fact.get("signal"), fact["message"]
                )
            case "ended":
                words = fact["message"] or "its job has ended, and how it ended is not known"
                for step, end in self.steps.items():
                    self.steps[step] = end or StepEnd(None, None, words)

    def look(self) -> LeaseStatus:
        """As `read`; and when the supervisor is gone without a last word, end what it started.

        The lease has ended only when nothing of that is there any more: the next look tells.
        """
        status = self.read()
        if status.phase is LeasePhase.ENDED:
            return status
        shown = self._supervised or record.was_supervised(str(self._folder))
        if not shown and time.monotonic() - self._since < APPEAR_S:
            return status
        fd = os.open(self._folder / record.PLAN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return status
        else:
            status = self.read()  # it may have said its last word meanwhile
            if status.phase is not LeasePhase.ENDED and self._end_orphans():
                words = "its supervisor was lost, and the workers that it had started were ended"
                recorder = record.Recorder(str(self._folder / record.STATUS), status.lease_id)
                recorder.tell("ended", end=LeaseEnd.SUPERVISOR_LOST.value, message=words)
                recorder.close()
                if self._cage is not None:
                    self._cage.remove()
                status = self.read()
            return status
        finally:
            os.close(fd)

    def _end_orphans(self) -> bool:
        """Kill what is left of the lease; whether nothing is there any more.

        The spawner does so too, unless it died first.
        """
        for _ in range(_LOOKS):
            found = self._orphans()
            if not found:
                return True
            for pid in found:
                processes.signal_all([*processes.descendants(pid), pid], signal.SIGKILL)
            time.sleep(_PAUSE_S)
        return False

    def _orphans(self) -> list[int]:
        """Those that have left their worker's process group are known by the environment that they
        inherited."""
        groups = set()
        for pid, ticks in self._ticks.items():
            # A group's number is taken while the group has members, so it cannot be another's,
            # unless its first process is: then the time of its start tells.
            first = processes.look(pid)
            if first is None or first.ticks == ticks:
                groups.add(pid)
        caged = self._cage.members() if self._cage is not None else []
        return caged + [
            process.pid
            for process in processes.everything()
            if process.group in groups or self._is_marked(process.pid)
        ]

    def _is_marked(self, pid: int) -> bool:
        return len(self._marks) == len(MARKS) and self._marks <= processes.environment(pid)


def stop(folder: Path, grace_ms: int, why: str, words: str = "") -> bool:
    """Tell a supervisor to end its lease; False when it does not listen (yet, or any more)."""
    return _tell(folder, {"do": "stop", "why": why, "words": words, "grace_ms": grace_ms})


def forbid(folder: Path) -> None:
    """Have a supervisor that has not started its workers yet never start them. OSError when that
    cannot be written down."""
    (folder / record.FORBIDDEN).touch()


def signal_workers(folder: Path, number: int, which: int, ranks: Collection[int]) -> bool:
    """Have a supervisor send signal `which` to some workers, to all if `ranks` is empty; False when
    it does not listen. A repeat of a `number` changes nothing."""
    return _tell(folder, {"do": "signal", "number": number, "signal": which, "ranks": list(ranks)})


def change_limit(folder: Path, time_limit_us: int | None) -> bool:
    """Have a supervisor keep another time limit, None for none; False when it does not listen."""
    limit_ms = None if time_limit_us is None else time_limit_us // 1000
    return _tell(folder, {"do": "limit", "time_limit_ms": limit_ms})


def start_step(folder: Path, order: dict[str, object], fds: list[int]) -> bool:
    """Have a supervisor start a step with these descriptors, see `supervision.steps`; False when it
    does not listen."""
    data = json.dumps({"do": "step", **order}, separators=(",", ":"), ensure_ascii=False)
    sender = sockets.datagram_socket()
    try:
        # More than what fits by default: words of 32 KiB may be written with six bytes for each.
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        path = str(folder / record.CONTROL)
        sockets.send_with(sender, path, data.encode(errors="surrogateescape"), fds)
    except OSError:
        return False
    finally:
        sender.close()
    return True


def _tell(folder: Path, what: dict[str, object]) -> bool:
    order = json.dumps(what, separators=(",", ":")).encode()
    sender = sockets.datagram_socket()
    try:
        sockets.send_to(sender, str(folder / record.CONTROL), order)
    except OSError:
        return False
    finally:
        sender.close()
    return True
