"""What happened to a lease, written down: ``status.jsonl``, one fact per line.

Facts, each with ``time`` (UTC, microseconds):

* ``supervising`` pid, ticks, boot: who holds the lease, and in which boot of the host;
* ``started``     rank, pid, ticks;
* ``exited``      rank, exit_code or signal, stdout_bytes, stderr_bytes, peak_memory_bytes
  (of it, or of one process that it waited for), stderr_tail when it failed, and oom_limit_bytes and
  oom_peak_bytes when anything of it was ended for want of memory;
* ``limited``     time_limit_ms: the time limit that is kept from now on, null for none;
* ``stuck``       message: which processes do not end though they were killed, and why;
* ``output_fault`` message: what is missing in the files of the workers' output, and why;
* ``warned``      signal: to all workers, before the time limit;
* ``signalled``   number, signal, ranks: to these workers, on order; the highest number is the
  last;
* ``step_started`` step, rank, pid, ticks, detached: a step beside that worker;
* ``step_exited`` step, exit_code or signal, message;
* ``stopping``    end, message;
* ``ended``       end, message, bytes ({rank: [stdout, stderr]} where they grew after
  ``exited``); the last one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from typing import TYPE_CHECKING, Any

from nodeagent.supervision import sockets

if TYPE_CHECKING:
    import socket

STATUS = "status.jsonl"
"""The file of facts in a lease's folder."""
PLAN = "plan.json"
"""The plan in a lease's folder. Its flock is held by whoever may write facts."""
STAGED = "staged.json"
"""The plan as the agent wrote it down before the prolog. One that dies before the plan is handed
over leaves word by it that an epilog is owed; later it is the spare copy."""
CONTROL = "control.sock"
"""Where a supervisor listens for orders."""
FORBIDDEN = "forbidden"
"""Lies in a lease's folder once its workers must not be started any more."""
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading JSON may raise that is cut short, or not what was written."""


def was_supervised(folder: str) -> bool:
    """Whether a lease has a supervisor, or has had one, though its facts be lost."""
    if os.path.lexists(os.path.join(folder, CONTROL)):
        return True
    try:
        with open(os.path.join(folder, STATUS), "rb") as file:
            return b"\n" in file.read(65536)
    except FileNotFoundError:
        return False


class Recorder:
    """Appends facts and nudges the agent. Whoever makes one must hold the lease's lock."""

    def __init__(self, path: str, lease_id: int, notify_socket: str = "") -> None:
        """Append to the file at `path`; make it if it is not there."""
        self._fd = os.open(
            path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        self._pending = b""
        self._nudge = str(lease_id).encode()
        self._notify_socket = notify_socket
        self._sender: socket.socket | None = None
        self._told = False

    def tell(self, fact: str, **fields: Any) -> None:
        """Write one fact down. When the disk is full it is kept for `flush`."""
        line = {"fact": fact, "time": time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000, **fields}
        self._pending += json.dumps(line, separators=(",", ":")).encode() + b"\n"
        self._write()

    def flush(self) -> bool:
        """Write what is left to write, and nudge the agent if something was; False while there is
        more."""
        if self._pending:
            self._write()
        if self._told and self._notify_socket:
            self._told = False
            if self._sender is None:
                self._sender = sockets.datagram_socket()
            # Nobody may listen now; who comes later reads the file.
            with contextlib.suppress(OSError):
                sockets.send_to(self._sender, self._notify_socket, self._nudge)
        return not self._pending

    def close(self) -> None:
        """Close what is open."""
        os.close(self._fd)
        if self._sender is not None:
            self._sender.close()

    def _write(self) -> None:
        # Torn lines are written again as a whole; readers pass over what is no fact.
        data = b"\n" + self._pending if _is_torn(self._fd) else self._pending
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            return
        self._told = True
        if written == len(data):
            self._pending = b""


def _is_torn(fd: int) -> bool:
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"
