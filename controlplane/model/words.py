"""Sentences that more than one room says."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.model.lease import WorkerStatus


def describe_worker_end(worker: WorkerStatus) -> str:
    """How a worker ended, to follow its name: `exited with code 3`, `was ended by signal 9
    (SIGKILL)`."""
    if worker.signal is not None:
        return f"was ended by signal {worker.signal} ({signal_name(worker.signal)})"
    if worker.exit_code is not None:
        return f"exited with code {worker.exit_code}"
    return "was lost"


def signal_name(number: int) -> str:
    """Name of a signal, `SIGRTMIN+3` and the like included."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def count(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
