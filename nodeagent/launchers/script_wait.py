"""The small program of `script` jobs on several nodes, where they meet by the gang's rendezvous
store.

`script_wait.py there HOST PORT NAME`, on every node but the first: says that the node is there, and
waits until the store is served no longer, which is when the command on the first node has ended.
Exit code 0 then, and 1 when the first node cannot be reached.

`script_wait.py first HOST PORT NAME,… COMMAND…`, on the first node: waits until all others are
there, and becomes the command. So no command ends before the rest of its gang has begun.
"""

from __future__ import annotations

import http.client
import os
import socket
import sys
import time
from typing import NoReturn

SCOPE = "script"
"""Scope of the store in which each node says that it is there."""
PATIENCE_S = 60.0
"""The first node may be out of reach for so long."""
BEGIN_S = 120.0
"""The others may need so long to begin."""
PAUSE_S = 0.5
LOOK_S = 0.02
CONNECT_S = 5.0


def ask(method: str, host: str, port: int, name: str) -> bool:
    """Whether the store says yes. OSError or HTTPException when it does not answer."""
    store = http.client.HTTPConnection(host, port, timeout=CONNECT_S)
    try:
        store.request(method, f"/{SCOPE}/{name}", body=b"1" if method == "PUT" else None)
        answer = store.getresponse()
        answer.read()
        return answer.status == 200
    finally:
        store.close()


def ask_until(method: str, host: str, port: int, name: str, until: float) -> bool:
    """Ask again until the store says yes; False when it has not by a moment."""
    while time.monotonic() < until:
        try:
            if ask(method, host, port, name):
                return True
        except (OSError, http.client.HTTPException):
            time.sleep(PAUSE_S)
        time.sleep(LOOK_S)
    return False


def hold(host: str, port: int) -> None:
    """Be connected for as long as the other side is. OSError when it cannot be reached."""
    with socket.create_connection((host, port), timeout=CONNECT_S) as held:
        held.settimeout(None)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            held.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        while held.recv(4096):
            pass


def wait(host: str, port: int, name: str) -> int:
    """Be there until the end; the exit code."""
    until = time.monotonic() + PATIENCE_S
    if ask_until("PUT", host, port, name, until):
        while time.monotonic() < until:
            try:
                hold(host, port)
            except ConnectionRefusedError:
                return 0
            except OSError:
                time.sleep(PAUSE_S)
            else:  # The store lets idle ones go, or has ended: the next try tells.
                until = time.monotonic() + PATIENCE_S
                time.sleep(PAUSE_S / 10)
    print(f"the first node cannot be reached at {host}:{port}", file=sys.stderr)
    return 1


def begin(host: str, port: int, names: list[str], command: list[str]) -> NoReturn:
    """Become the command when all others are there."""
    until = time.monotonic() + BEGIN_S
    for name in names:
        if not ask_until("GET", host, port, name, until):
            print(f"node {name} was not there within {BEGIN_S:g} s", file=sys.stderr)
            sys.exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        sys.exit(127 if isinstance(error, (FileNotFoundError, NotADirectoryError)) else 126)


if __name__ == "__main__":
    _, what, where, number, named, *rest = sys.argv
    if what == "first":
        begin(where, int(number), named.split(","), rest)
    sys.exit(wait(where, int(number), named))
