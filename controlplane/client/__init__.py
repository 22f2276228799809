"""A typed client of the control plane's gRPC API, for `ccctl` and for any other program.

    from controlplane.client import Client

    with Client("127.0.0.1:7600", token=token) as client:
        job = client.submit({"name": "hello", "launcher": "command", "command": ["hostname"]})
        for job in client.watch(job.name):
            print(job.state, job.reason)

Stable: the names that this package exports, and the messages of `controlplane.v1`, which the
methods return as they are. It never prints, never reads configuration, and never talks to anything
but the one server that it was given.
"""

from __future__ import annotations

from controlplane.client.client import Client
from controlplane.client.errors import (
    ClientError,
    DeadlinePassed,
    Denied,
    InvalidInput,
    NotFound,
    Refused,
    Unreachable,
    VersionMismatch,
)
from controlplane.client.logs import LogPiece
from controlplane.client.retry import RetryNotice

__all__ = [
    "Client",
    "ClientError",
    "DeadlinePassed",
    "Denied",
    "InvalidInput",
    "LogPiece",
    "NotFound",
    "Refused",
    "RetryNotice",
    "Unreachable",
    "VersionMismatch",
]
