"""The small process that supervisors are forks of: ``python -m nodeagent.spawner``.

The agent writes control folders of leases to its stdin, one per line; each gets a supervisor in a
session of its own. It imports next to nothing, so that a fork is cheap.

What a killed supervisor leaves behind falls to it, and is ended at once. So it lives as long as any
of its supervisors does, though stdin ends with the agent.
"""

from __future__ import annotations

import gc
import os
import signal

from nodeagent.supervision import kernel, processes
from nodeagent.supervisor import supervise


class Spawner:
    """Forks supervisors, and waits for them."""

    def __init__(self) -> None:
        """Become the parent of whatever a supervisor leaves behind."""
        self._boot_id = kernel.boot_id()
        self._supervisors: set[int] = set()
        self._orphaned = False
        os.chdir("/")
        kernel.become_subreaper()
        signal.signal(signal.SIGCHLD, lambda *_: self._reap())
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        gc.collect()
        gc.freeze()  # what is there now stays shared with the forks

    def serve(self) -> None:
        """Fork supervisors until stdin ends; go when the last of them has gone."""
        pending = b""
        while data := os.read(0, 65536):
            *folders, pending = (pending + data).split(b"\n")
            for folder in folders:
                self._fork(os.fsdecode(folder))
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
        self._reap()
        while self._supervisors or self._orphaned:
            signal.sigwaitinfo((signal.SIGCHLD,))
            self._reap()

    def _fork(self, folder: str) -> None:
        # A supervisor must be known before it can be waited for.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, signal.SIGTERM))
        try:
            pid = os.fork()
        except OSError:  # No room for a process: the agent finds a lease without a supervisor.
            pid = -1
        if pid == 0:
            self._become_supervisor(folder)
        if pid > 0:
            self._supervisors.add(pid)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _become_supervisor(self, folder: str) -> None:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.closerange(3, 1 << 16)
        supervise(folder, self._boot_id)

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
                self._supervisors.remove(pid)
                self._orphaned = self._orphaned or status != 0
        if self._orphaned:
            self._end_orphans()

    def _end_orphans(self) -> None:
        """Each one's end brings its own children here, and us back to this place."""
        orphans = set(processes.children(os.getpid())) - self._supervisors
        self._orphaned = bool(orphans)
        processes.signal_all(orphans, signal.SIGKILL)


if __name__ == "__main__":
    Spawner().serve()
