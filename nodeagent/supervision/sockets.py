"""Unix datagram sockets at paths of any length: the kernel takes 107 bytes, a folder's path may be
longer."""

from __future__ import annotations

import array
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


MOST_DESCRIPTORS = 4
"""So many come with one datagram."""


def send_with(sender: socket.socket, path: str, data: bytes, fds: list[int]) -> None:
    """As `send_to`, with descriptors that the receiver gets as its own."""
    folder, name = os.path.split(path)
    fd = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        sender.sendmsg([data], [rights], 0, f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def receive(listening: int, size: int) -> tuple[bytes, list[int]]:
    """One datagram of a socket that `bind_to` made, and the descriptors that came with it."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, fileno=listening)
    try:
        data, fds, _, _ = socket.recv_fds(
            receiver, size, MOST_DESCRIPTORS, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        )
    finally:
        receiver.detach()
    return data, list(fds)


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
