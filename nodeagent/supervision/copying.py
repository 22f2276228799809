"""The scribe's own side: a process that copies output from its segments into files of its owner's.

It is a copy of the supervisor that puts on the owner's user and groups, but only as its effective
ones: files are opened and made with the owner's rights and become the owner's, while the owner's
programs, which have another real and saved user, can neither signal it nor look into it (kill(2),
ptrace(2)). It runs no program, and leads no other life than this module.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import stat
import struct
import time
from typing import TYPE_CHECKING, NoReturn

from nodeagent.supervision.worker import reset_signals

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nodeagent.plan import Identity

ENTRY = struct.Struct("<IqqI")
"""What the scribe is told: number of a stream; where a new segment of it begins, or -1; offset as
far as which it may be copied; 1 if a descriptor, that segment's, belongs to the entry."""
ENTRIES = 32
"""So many in a packet at most."""
WORDS_BYTES = 8192
"""The most that it says at once."""
LAST_TRY_S = 3.0
"""After the workers' end, a file that takes no bytes is given so long."""
_CHUNK = 1 << 20
_WORDS = 1500
_RETRY_S = 1.0
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT)
"""What may be over in a while."""


def become_scribe(
    line: socket.socket, paths: Sequence[str], done: Sequence[int], identity: Identity | None
) -> NoReturn:
    """Be the scribe, in a fork of the supervisor, for streams that go to these files, each from
    where it is `done`."""
    code = 1
    try:
        reset_signals()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)
        # The lease's lock among them: it must be free the moment its supervisor is gone.
        os.closerange(3, line.fileno())
        os.closerange(line.fileno() + 1, 1 << 20)
        os.chdir("/")
        os.umask(0o022)  # as of the workers
        if identity is not None:
            os.setgroups(identity.groups)
            os.setresgid(-1, identity.gid, -1)
            os.setresuid(-1, identity.uid, -1)
        _Copier(line, paths, done).run()
        code = 0
    finally:
        os._exit(code)


class _File:
    """A file that output is appended to."""

    def __init__(self, path: str, line: socket.socket) -> None:
        self.path, self._line = path, line
        self._fd = -1
        self._fault = ""
        self._until: float | None = None
        self.lost_bytes = 0

    def write(self, data: bytes) -> None:
        """Append all of it, or count what is lost."""
        view = memoryview(data)
        while view and not self._fault:
            try:
                if self._fd < 0:
                    self._fd = _open(self.path)
                view = view[os.write(self._fd, view) :]
            except OSError as error:
                words = f"{self.path}: {error.strerror}"
                if error.errno not in _PASSING or not self._wait(words):
                    self._fault = words
                    _say(self._line, fault=words)
        self.lost_bytes += len(view)

    def _wait(self, words: str) -> bool:
        """Wait a while for room; False when it is too late to try again."""
        if self._until is None:
            _say(self._line, fault=f"{words}; it is tried again")
            self._until = float("inf")
        poll = select.poll()
        poll.register(self._line, select.POLLRDHUP)
        if not poll.poll(_RETRY_S * 1000):
            return True
        if self._until == float("inf"):
            self._until = time.monotonic() + LAST_TRY_S
        time.sleep(_RETRY_S / 10)
        return time.monotonic() < self._until

    def close(self) -> None:
        """Say how it went, where it did not go well."""
        if self.lost_bytes:
            words = self._fault or f"{self.path}: the node's disk was full, or its writing too slow"
            _say(self._line, fault=f"{words}; {self.lost_bytes} bytes of output are not in it")


class _Source:
    """A stream, in the segments that are known so far."""

    def __init__(self, file: _File, at: int) -> None:
        self.file = file
        self.segments: list[tuple[int, int]] = []
        self.at = at
        self.end = 0

    def copy(self) -> None:
        """Copy as far as it may be."""
        while self.at < self.end and self.segments:
            start, fd = self.segments[0]
            if self.at < start:
                self.file.lost_bytes += start - self.at
                self.at = start
            data = os.pread(fd, min(_CHUNK, self.end - self.at), self.at - start)
            if data:
                self.file.write(data)
                self.at += len(data)
            elif len(self.segments) > 1:
                os.close(fd)
                del self.segments[0]
            else:  # what comes after it could not be kept
                self.file.lost_bytes += self.end - self.at
                self.at = self.end


class _Copier:
    """Hears what may be copied, and does it."""

    def __init__(self, line: socket.socket, paths: Sequence[str], done: Sequence[int]) -> None:
        self._line = line
        self._files = {path: _File(path, line) for path in paths}
        self._sources = [_Source(self._files[p], at) for p, at in zip(paths, done, strict=True)]

    def run(self) -> None:
        """Until the line ends."""
        size = ENTRY.size * ENTRIES
        while True:
            data, fds, _, _ = socket.recv_fds(self._line, size, ENTRIES)
            if not data:
                break
            self._take(data, iter(fds))
            _say(self._line, done=1)
        for file in self._files.values():
            file.close()

    def _take(self, data: bytes, fds: Iterator[int]) -> None:
        for number, begin, end, has_fd in ENTRY.iter_unpack(data):
            source = self._sources[number]
            if has_fd:
                source.segments.append((begin, next(fds)))
            source.end = max(source.end, end)
            source.copy()


def _open(path: str) -> int:
    """A regular file to append to, with the folders on the way. OSError when there can be none."""
    with contextlib.suppress(FileExistsError):  # a file in its place: told by what comes next
        os.makedirs(os.path.dirname(path), exist_ok=True)
    # Not blocking: a pipe without a reader would hold us up, a terminal might become ours.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file")
    return fd


def _say(line: socket.socket, *, done: int = 0, fault: str = "") -> None:
    said = json.dumps({"done": done, "fault": fault[:_WORDS]}, ensure_ascii=False)
    # Nobody may listen any more.
    with contextlib.suppress(OSError):
        line.send(said.encode(errors="replace"))
