"""Tells systemd how a daemon does (sd_notify(3)); does nothing where systemd did not start it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send e.g. `READY=1`, `STOPPING=1`, `WATCHDOG=1`, `STATUS=…`. Failures are passed over:
    nobody may listen."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.connect(address)
            sender.sendall(state.encode())
        except OSError:
            return


def watchdog_period_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """How often to send `WATCHDOG=1`: half of what systemd allows; None where it asks for none."""
    allowed_us = environ.get("WATCHDOG_USEC", "")
    if not allowed_us.isdigit() or environ.get("WATCHDOG_PID", str(os.getpid())) != str(
        os.getpid()
    ):
        return None
    return int(allowed_us) / 2_000_000
