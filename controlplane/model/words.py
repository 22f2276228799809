"""Sentences that more than one room says."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.model.lease import WorkerStatus


def describe_worker_end(worker: WorkerStatus) -> str:
    """How a worker ended, to follow its name: `exited with code 3`, `was ended by signal 9
    (SIGKILL)`."""
    dry = ""
    if worker.oom_limit_bytes is not None:
        peak, limit = worker.oom_peak_bytes or worker.oom_limit_bytes, worker.oom_limit_bytes
        dry = f", out of memory: it had used {mebibytes(peak)} of the {mebibytes(limit)} it may"
    if worker.signal is not None:
        return f"was ended by signal {worker.signal} ({signal_name(worker.signal)}){dry}"
    if worker.exit_code is not None:
        return f"exited with code {worker.exit_code}{dry}"
    return "was lost"


def mebibytes(count: int) -> str:
    """Bytes in MiB, to one place where that is not a whole number."""
    return f"{count / (1 << 20):.1f}".removesuffix(".0") + " MiB"


def signal_name(number: int) -> str:
    """Name of a signal, `SIGRTMIN+3` and the like included."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def count(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
