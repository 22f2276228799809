"""Being somebody else towards files, in one thread.

Linux keeps for each thread as whom it uses files: user, group and groups, by which permission bits,
quotas and the servers of network file systems judge (setfsuid(2), credentials(7)). Unlike a change
of the effective user, this lets nobody send us signals. The thread cannot go back, and should end.
As any change of user it forbids core dumps of the process (PR_SET_DUMPABLE in prctl(2)).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SETGROUPS = {
    "x86_64": 116,
    "aarch64": 159,
    "riscv64": 159,
    "loongarch64": 159,
    "ppc64le": 81,
    "s390x": 206,
}
"""The C library's own changes all threads of the process."""
_CAPABILITIES_3 = 0x20080522
_ASK = -1
"""No user's number: setfsuid(2) then changes nothing and tells who one is."""

_libc = ctypes.CDLL(None, use_errno=True)


def act_for(uid: int, gid: int, groups: Sequence[int]) -> None:
    """Use files as this account from now on, without root's privileges. OSError when we may not."""
    number = _SETGROUPS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"no known number of setgroups(2) on {platform.machine()}")
    array = (ctypes.c_uint32 * len(groups))(*groups)
    _checked(_libc.syscall(number, len(groups), array))
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    # They tell nothing of a refusal.
    if (_libc.setfsuid(_ASK), _libc.setfsgid(_ASK)) != (uid, gid):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    # Most that concerns files went with the user; what passes quotas and reserves goes here.
    header = struct.pack("=Ii", _CAPABILITIES_3, 0)
    _checked(_libc.capset(header, bytes(24)))


def _checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
