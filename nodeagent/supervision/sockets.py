"""Unix datagram sockets at paths of any length: the kernel takes 107 bytes, a folder's path may be
longer."""

from __future__ import annotations

import contextlib
import os
import socket


def datagram_socket() -> socket.socket:
    """One that never blocks."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made


def send_to(sender: socket.socket, path: str, data: bytes) -> None:
    """Send one datagram to the socket at `path`. OSError when nobody can have got it."""
    folder, name = os.path.split(path)
    fd = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sender.sendto(data, f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def bind_to(path: str) -> socket.socket:
    """Listen at `path`, in the place of a socket that may lie there."""
    folder, name = os.path.split(path)
    fd = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    made = datagram_socket()
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)
        made.bind(f"/proc/self/fd/{fd}/{name}")
    except BaseException:
        made.close()
        raise
    finally:
        os.close(fd)
    return made
