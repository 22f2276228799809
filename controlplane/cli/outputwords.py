"""Where the files of an attempt's output lie, in lines for people."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from controlplane.v1 import job_pb2

_FOLDERS: Final = 3
"""So many folders are told."""


def output_lines(attempt: job_pb2.Attempt) -> list[str]:
    """A line for each folder with files of output, and for each node that could not write them."""
    names: dict[str, list[str]] = {}
    for worker in attempt.workers:
        for path in (worker.output_path, worker.error_path):
            folder, name = posixpath.split(path)
            if name and name not in names.setdefault(folder, []):
                names[folder].append(name)
    lines = [
        f"Output: {posixpath.join(folder, found[0])}"
        + (f" to {found[-1]}" if len(found) > 1 else "")
        for folder, found in list(names.items())[:_FOLDERS]
    ]
    if len(names) > _FOLDERS:
        lines.append(f"Output: and in {len(names) - _FOLDERS} more folders")
    return lines + [
        f"Output on {lease.node_display_name or lease.node}: {lease.output_fault}"
        for lease in attempt.leases
        if lease.output_fault
    ]
