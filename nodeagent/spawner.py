"""The small process that supervisors are forks of: ``python -m nodeagent.spawner``.

The agent writes folders of leases to its stdin, one per line; each gets a supervisor in a session
of its own. At the end of
stdin the spawner goes, and the supervisors live on. It imports next to nothing, so that a fork is
cheap.
"""

from __future__ import annotations

import gc
import os
import signal

from nodeagent.launchers import rendezvous  # noqa: F401  # loaded once, not in each fork
from nodeagent.supervision import kernel
from nodeagent.supervisor import supervise


def main() -> None:
    """Fork supervisors until stdin ends."""
    # Children are never asked for: the kernel may reap them. Supervisors set handlers of their own.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    boot_id = kernel.boot_id()
    gc.freeze()  # what is there now stays shared with the forks
    pending = b""
    while data := os.read(0, 65536):
        *folders, pending = (pending + data).split(b"\n")
        for folder in folders:
            if os.fork() == 0:
                _become_supervisor(os.fsdecode(folder), boot_id)


def _become_supervisor(folder: str, boot_id: str) -> None:
    os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGCHLD))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, 1 << 16)
    supervise(folder, boot_id)


if __name__ == "__main__":
    main()
