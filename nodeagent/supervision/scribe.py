"""Output of workers into files of their owner's, by a process of its own: the supervisor's side.

Where such a file lies, its owner decides: on a file system that hangs, that is full, or of which
only they may know. So the supervisor writes none itself, or its deadlines would hang along. It
keeps the output as ever, and passes the segments on as descriptors to a child, the scribe, which
copies from them at its own pace; the order between streams is kept. The child is forked at the
first byte.

The line between them is a SEQPACKET socket. To the scribe: entries as `copying.ENTRY`. From it, in
JSON: `done` for each packet, and `fault`, words. It ends when the line has ended and all is copied.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from typing import TYPE_CHECKING, NamedTuple

from nodeagent.supervision import copying, ownfile
from nodeagent.supervision.copying import ENTRIES, ENTRY

if TYPE_CHECKING:
    from collections.abc import Callable

    from nodeagent.plan import Identity

PAUSE_US = 50_000
"""What is written is passed on so much later, in microseconds, and what comes meanwhile with it."""
FINISH_US = 5_000_000
"""At the end of the workers the scribe may take so long for what is left, in microseconds."""
LEAVE_US = 1_000_000
"""It is left to itself so long after its SIGKILL, in microseconds: it hangs in the kernel."""
LITTLE_BYTES = 256 << 10
"""So much of a lease's output is written without a scribe."""
_UNDONE = 4
"""So many packets may be on their way; the pipe between us is never full."""
_QUEUE = 256
"""Of more entries than so many, the order between streams is given up."""
_SEGMENTS = 16
"""So many segments wait here at most: the oldest are left out, as they are on the disk by then."""


class _Entry(NamedTuple):
    """What the scribe is to be told."""

    stream: int
    begin: int
    end: int
    fd: int


class _Stream:
    """A stream that is followed."""

    def __init__(self, scribe: Scribe, number: int) -> None:
        self._scribe, self._number = scribe, number

    def begun(self, start: int, path: str) -> None:
        self._scribe.add(self._number, start, path)

    def grown(self, end: int) -> None:
        self._scribe.grow(self._number, end)


class Scribe:
    """The supervisor's hand on its scribe."""

    def __init__(
        self,
        own_folder: str,
        identity: Identity | None,
        now_us: Callable[[], int],
        listen: Callable[[int, Callable[[], None]], None],
        unlisten: Callable[[int], None],
        tell: Callable[[str], None],
    ) -> None:
        """`own_folder`: the job's, on our own disk; empty for none. `identity`: whose the files
        are; None: our own. `listen` has a function called when a
        descriptor can be read, `unlisten` closes it. `tell` takes words on what went wrong."""
        self._identity, self._now_us = identity, now_us
        self._listen, self._unlisten, self._tell = listen, unlisten, tell
        self._own_folder = own_folder
        self._paths: list[str] = []
        self._by_ourselves = bool(own_folder)
        self._done: list[int] = []
        self._little = LITTLE_BYTES
        self._own: dict[str, int] = {}
        self._segments: dict[int, int] = {}
        self._queue: list[_Entry] = []
        self._line = -1
        self._undone = 0
        self._pass_on_us: int | None = None
        self._kill_us: int | None = None
        self._leave_us: int | None = None
        self._over = False
        self.pid = 0
        """Its process id; 0 while there is none."""
        self.left = False
        """Whether it hangs, and nobody waits for it any more."""

    def follow(self, path: str) -> _Stream | None:
        """What a stream's writer tells; None where no file is wanted. All before the first byte."""
        if not path:
            return None
        self._paths.append(path)
        self._done.append(0)
        self._by_ourselves &= os.path.dirname(path) == self._own_folder
        return _Stream(self, len(self._paths) - 1)

    def add(self, stream: int, start: int, path: str) -> None:
        """A segment of a stream was made."""
        if self._over:
            return
        waiting = [entry for entry in self._queue if entry.fd >= 0]
        if len(waiting) >= _SEGMENTS:
            os.close(waiting[0].fd)
            self._queue.remove(waiting[0])
        self._queue.append(_Entry(stream, start, start, os.open(path, os.O_RDONLY | os.O_CLOEXEC)))

    def grow(self, stream: int, end: int) -> None:
        """A stream may be copied as far as this."""
        if self._over:
            return
        last = self._queue[-1] if self._queue else None
        if last is not None and last.stream == stream:
            self._queue[-1] = last._replace(end=end)
        else:
            if len(self._queue) >= _QUEUE:
                self._forget_order()
            self._queue.append(_Entry(stream, -1, end, -1))
        if self._pass_on_us is None:
            self._pass_on_us = self._now_us() + PAUSE_US

    def wake_us(self) -> int | None:
        """When something is due."""
        due = [t for t in (self._pass_on_us, self._kill_us, self._leave_us) if t is not None]
        return min(due, default=None)

    def tick(self) -> bool:
        """Do what is due; True when it is left to itself from now on."""
        now = self._now_us()
        if self._pass_on_us is not None and self._pass_on_us <= now:
            self._pass_on()
        if self._kill_us is not None and self._kill_us <= now:
            self._kill_us, self._leave_us = None, now + LEAVE_US
            os.kill(self.pid, signal.SIGKILL)
        if self._leave_us is not None and self._leave_us <= now:
            self._leave_us, self.left = None, True
            self._end("its writes hang")
            return True
        return False

    def finish(self) -> bool:
        """Nothing will be written any more; True when there is nothing left to wait for."""
        if self._over or (not self.pid and not self._queue):
            return True
        if self._kill_us is None and self._leave_us is None:
            self._kill_us = self._now_us() + FINISH_US
            self._pass_on()
            if not self.pid and not self._over:
                self._end("")
        return self._over

    def reaped(self, status: int) -> None:
        """It has ended, and was waited for."""
        if self._over:
            return
        self._hear()
        code = os.waitstatus_to_exitcode(status)
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else "it failed"
        self._end(how if code else "")

    def _pass_on(self) -> None:
        self._pass_on_us = None
        if self._by_ourselves and self._write_by_ourselves():
            return
        if not self.pid and not self._over:
            try:
                self._fork()
            except OSError as error:
                self._end(f"no process can be started: {error.strerror}")
        while self._queue and self._undone < _UNDONE and not self._over:
            packet, self._queue = self._queue[:ENTRIES], self._queue[ENTRIES:]
            self._send(packet)
        if not self._queue and self._kill_us is not None and not self._over:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def _write_by_ourselves(self) -> bool:
        """Write what waits into the job's own folder; False when a scribe must from now on."""
        while self._queue:
            entry = self._queue[0]
            if entry.fd >= 0:
                if entry.begin:  # there is an earlier segment, or its bytes were lost
                    break
                self._segments[entry.stream] = entry.fd
                self._queue[0] = entry._replace(begin=-1, fd=-1)
            if not self._write_entry(self._queue[0]):
                break
            del self._queue[0]
        else:
            return True
        # The scribe gets the segments from their beginning, and goes on where we have stopped.
        self._by_ourselves = False
        again = [_Entry(stream, 0, 0, fd) for stream, fd in self._segments.items()]
        self._queue = again + self._queue
        self._segments = {}
        self._close_own()
        return False

    def _write_entry(self, entry: _Entry) -> bool:
        left = entry.end - self._done[entry.stream]
        if left > self._little:
            return False
        path = self._paths[entry.stream]
        try:
            if path not in self._own:
                self._own[path] = ownfile.open_own(path, self._identity)
            while left > 0:
                data = os.pread(self._segments[entry.stream], left, self._done[entry.stream])
                written = os.write(self._own[path], data)
                self._done[entry.stream] += written
                self._little -= written
                left -= written
                if not written:
                    return False
        except (OSError, KeyError):  # Whatever it is, a scribe may wait for it, and say it.
            return False
        return True

    def _close_own(self) -> None:
        for fd in self._own.values():
            os.close(fd)
        self._own = {}

    def _send(self, packet: list[_Entry]) -> None:
        data = b"".join(ENTRY.pack(e.stream, e.begin, e.end, int(e.fd >= 0)) for e in packet)
        fds = [entry.fd for entry in packet if entry.fd >= 0]
        try:
            socket.send_fds(self._socket, [data], fds)
            self._undone += 1
        except OSError:  # It is gone, and will be reaped.
            pass
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self) -> None:
        self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.pid = os.fork()
        except OSError:
            self._socket.close()
            its.close()
            raise
        if self.pid == 0:
            copying.become_scribe(its, self._paths, self._done, self._identity)
        its.close()
        self._socket.setblocking(False)
        self._line = os.dup(self._socket.fileno())
        self._listen(self._line, self._hear)

    def _hear(self) -> None:
        while self._line >= 0:
            try:
                data = os.read(self._line, copying.WORDS_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._hang_up()
                return
            said = json.loads(data)
            self._undone -= said["done"]
            if said["fault"]:
                self._tell(said["fault"])
        if self._queue and self._pass_on_us is None:  # it had to wait for its turn
            self._pass_on()

    def _end(self, words: str) -> None:
        """It copies nothing any more. `words`: why not; empty when all is copied."""
        if words:
            what = self._paths[0] + (", …" if len(self._paths) > 1 else "")
            self._tell(f"{what}: the process that writes them is gone ({words})")
        self._hang_up()
        for entry in self._queue:
            if entry.fd >= 0:
                os.close(entry.fd)
        for fd in self._segments.values():
            os.close(fd)
        self._segments = {}
        self._close_own()
        self._queue = []
        self._over = True
        self._pass_on_us = self._kill_us = self._leave_us = None

    def _hang_up(self) -> None:
        if self._line >= 0:
            line, self._line = self._line, -1
            self._unlisten(line)
            with contextlib.suppress(OSError):
                self._socket.close()

    def _forget_order(self) -> None:
        """Make one entry of all that a stream has, but for its segments."""
        ends = {entry.stream: entry.end for entry in self._queue}
        begun = [entry for entry in self._queue if entry.fd >= 0]
        self._queue = begun + [_Entry(stream, -1, end, -1) for stream, end in ends.items()]
