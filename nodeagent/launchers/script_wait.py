"""Waits on a node of a `script` job until the command on the first node has ended.

Run as a program of its own: `script_wait.py HOST PORT` of the gang's rendezvous store, which is
served as long as the command runs. Exit code 0 when it is served no longer, 1 when the first node
cannot be reached.
"""

from __future__ import annotations

import socket
import sys
import time

PATIENCE_S = 60.0
"""The first node may be out of reach for so long."""
PAUSE_S = 0.5
CONNECT_S = 5.0


def hold(host: str, port: int) -> None:
    """Be connected for as long as the other side is. OSError when it cannot be reached."""
    with socket.create_connection((host, port), timeout=CONNECT_S) as held:
        held.settimeout(None)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            held.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        while held.recv(4096):
            pass


def wait(host: str, port: int) -> int:
    """Wait for the end; the exit code."""
    until = time.monotonic() + PATIENCE_S
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


if __name__ == "__main__":
    sys.exit(wait(sys.argv[1], int(sys.argv[2])))
