"""The few calls of Linux that Python 3.11 has no word for."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWUSER = 0x10000000


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def become_subreaper() -> None:
    """Make this process the parent of every descendant whose own parent dies."""
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; leave at once if it has."""
    _checked(
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl(PR_SET_PDEATHSIG)"
    )
    if os.getppid() != parent:
        os._exit(137)


def take_hostname(name: str) -> None:
    """Move into a UTS namespace of one's own that is called `name`.

    Without root that takes a user namespace too, in which one stays who one is. OSError when the
    host forbids it.
    """
    if os.geteuid() == 0:
        _checked(_libc.unshare(_CLONE_NEWUTS), "unshare(CLONE_NEWUTS)")
    else:
        uid, gid = os.geteuid(), os.getegid()
        _checked(
            _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWUTS), "unshare(CLONE_NEWUSER|CLONE_NEWUTS)"
        )
        for name_of_map, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name_of_map}", "w") as file:
                file.write(text)
    socket.sethostname(name)


def boot_us() -> int:
    """CLOCK_BOOTTIME in microseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def boot_id() -> str:
    """Names this boot of the host."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
