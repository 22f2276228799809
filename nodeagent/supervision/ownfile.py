"""A file in the job's own folder, opened so that it cannot hold us up.

That folder lies where the segments of output lie, on the agent's own disk; but its owner may put
links into it, pipes, or a mount of a file system that hangs. So the kernel is told to follow no
link and to cross no mount (openat2(2), Linux 5.6), and not to wait for a reader or for somebody's
lease on the file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nodeagent.plan import Identity

_OPENAT2 = 437
_RESOLVE = 0x01 | 0x02 | 0x04 | 0x08  # no mount, no magic link, no link, nothing above
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_own(path: str, identity: Identity | None) -> int:
    """A file to append to, directly in a folder that only root can move. It becomes its owner's,
    and is opened with the owner's rights. OSError when there is anything unusual about it."""
    folder, name = os.path.split(path)
    above, own = os.path.split(folder)
    parent = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    before = os.umask(0o022)  # as of the workers
    try:
        how = _How(_FLAGS, 0o666, _RESOLVE)
        with _acting_as(identity):
            fd: int = _libc.syscall(
                _OPENAT2,
                parent,
                os.fsencode(f"{own}/{name}"),
                ctypes.byref(how),
                ctypes.sizeof(how),
            )
            code = ctypes.get_errno()
    finally:
        os.umask(before)
        os.close(parent)
    if fd < 0:
        raise OSError(code, os.strerror(code), path)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return fd


@contextmanager
def _acting_as(identity: Identity | None) -> Iterator[None]:
    """Have somebody's rights for a moment, as `copying` has them: nobody can signal or trace us
    for it."""
    if identity is None:
        yield
        return
    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    try:
        os.setgroups(identity.groups)
        os.setresgid(-1, identity.gid, -1)
        os.setresuid(-1, identity.uid, -1)
        yield
    finally:
        os.setresuid(-1, uid, -1)
        os.setresgid(-1, gid, -1)
        os.setgroups(groups)
