"""The small process that supervisors are forks of: ``python -m nodeagent.spawner``.

The agent writes control folders of leases to its stdin, one per line; each gets a supervisor in a
session of its own. It imports next to nothing, so that a fork is cheap; but each still copies some
600 pages of the interpreter's memory. So a supervisor whose lease has ended waits a while for the
next one, and a few of them are kept.

What a killed supervisor leaves behind falls to the spawner, and is ended at once. So it lives as
long as any of its supervisors does, though stdin ends with the agent.
"""

from __future__ import annotations

import gc
import os
import select
import signal
from typing import NoReturn

from nodeagent.supervision import kernel, processes
from nodeagent.supervisor import supervise

KEPT = 8
"""So many supervisors wait for a next lease at most."""
CROWD = 256
"""Supervisors beyond so many go with their lease: each that may stay costs a descriptor."""
_PID_BYTES = 4
_LINE_BYTES = 1 << 16


class Spawner:
    """Forks supervisors, hands them leases, and waits for them."""

    def __init__(self) -> None:
        """Become the parent of whatever a supervisor leaves behind."""
        self._boot_id = kernel.boot_id()
        self._cpus = os.sched_getaffinity(0)
        self._supervisors: dict[int, int] = {}  # by pid: the pipe on which it reads its next lease
        self._free: list[int] = []
        self._handed: dict[int, bytes] = {}  # by pid: the lease that a free supervisor was handed
        self._freed, self._free_here = os.pipe()
        self._orphaned = False
        self._leaving = False
        os.chdir("/")
        kernel.become_subreaper()
        self._woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        gc.collect()
        gc.freeze()  # what is there now stays shared with the forks

    def serve(self) -> None:
        """Find supervisors for leases until stdin ends; go when the last of them has gone."""
        pending = b""
        poll = select.poll()
        for fd in (0, self._freed, self._woken):
            poll.register(fd, select.POLLIN)
        while not self._leaving or self._supervisors or self._orphaned:
            ready = {fd for fd, _ in poll.poll()}
            if self._woken in ready:
                os.read(self._woken, _LINE_BYTES)
                self._reap()
            if self._freed in ready:
                self._note_free()
            if 0 in ready:
                data = os.read(0, _LINE_BYTES)
                *folders, pending = (pending + data).split(b"\n")
                for folder in folders:
                    self._find_supervisor(folder)
                if not data:
                    self._leaving = True
                    poll.unregister(0)
                    for pid in self._supervisors:
                        self._dismiss(pid)

    def _note_free(self) -> None:
        told = os.read(self._freed, _LINE_BYTES)
        for at in range(0, len(told), _PID_BYTES):
            pid = int.from_bytes(told[at : at + _PID_BYTES], "little")
            self._handed.pop(pid, None)
            if self._supervisors.get(pid, -1) >= 0:
                self._free.append(pid)
        while len(self._free) > KEPT:
            self._dismiss(self._free.pop(0))

    def _dismiss(self, pid: int) -> None:
        """Hang up: it goes when it finds that nothing comes any more."""
        if (pipe := self._supervisors[pid]) >= 0:
            os.close(pipe)
        self._supervisors[pid] = -1

    def _find_supervisor(self, folder: bytes) -> None:
        while self._free:
            pid = self._free.pop()
            try:
                os.write(self._supervisors[pid], folder)
            except BrokenPipeError:  # It was killed.
                continue
            self._handed[pid] = folder
            return
        orders, pipe = os.pipe()
        # Until it can heed one: it must end its lease, and not only itself.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        try:
            pid = os.fork()
        except OSError:  # No room for a process: the agent finds a lease without a supervisor.
            os.close(pipe)
        else:
            if pid == 0:
                self._become_supervisor(folder, orders)
            self._supervisors[pid] = pipe
            if self._leaving or len(self._supervisors) > CROWD:
                self._dismiss(pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.close(orders)

    def _become_supervisor(self, folder: bytes, orders: int) -> NoReturn:
        code = 1
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            self._be_as_new(orders)
            while folder and supervise(os.fsdecode(folder), self._boot_id):
                self._be_as_new(orders)
                os.write(self._free_here, os.getpid().to_bytes(_PID_BYTES, "little"))
                folder = os.read(orders, _LINE_BYTES)
            code = 0
        except BrokenPipeError:  # The spawner is gone, and no lease can come.
            code = 0
        finally:
            os._exit(code)

    def _be_as_new(self, orders: int) -> None:
        """Keep nothing of the spawner's, and nothing of an earlier lease."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.chdir("/")
        os.sched_setaffinity(0, self._cpus)
        first = 3
        for kept in (*sorted((orders, self._free_here)), 1 << 16):
            os.closerange(first, kept)
            first = kept + 1

    def _reap(self) -> None:
        """Wait for what has ended. After a supervisor's violent end, end what it has left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._orphaned = False
                return
            if pid == 0:
                break
            if pid in self._supervisors:
                self._orphaned = self._orphaned or status != 0
                folder = self._forget(pid)
                if folder and os.WIFSIGNALED(status):
                    # It may have died before it saw the lease; if not, another one leaves it alone.
                    self._find_supervisor(folder)
        if self._orphaned:
            self._end_orphans()

    def _forget(self, pid: int) -> bytes:
        """Drop a supervisor that has ended; the lease that it was handed last."""
        self._dismiss(pid)
        del self._supervisors[pid]
        if pid in self._free:
            self._free.remove(pid)
        return self._handed.pop(pid, b"")

    def _end_orphans(self) -> None:
        """Each one's end brings its own children here, and us back to this place."""
        orphans = set(processes.children(os.getpid())) - self._supervisors.keys()
        self._orphaned = bool(orphans)
        processes.signal_all(orphans, signal.SIGKILL)


if __name__ == "__main__":
    Spawner().serve()
