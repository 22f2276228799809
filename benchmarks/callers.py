"""A process of callers, each with a connection of its own: ``python -m benchmarks.callers``.

They make one kind of unary call, one after the other, for some seconds; then one line of JSON tells
how many were answered, how long they waited, and what processor time the callers themselves took.
Requests are made before and answers are not read, so that the callers are cheap.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from controlplane.v1.job_service_pb2 import SubmitJobRequest
from controlplane.wire.basics import struct

SUBMIT = "/controlplane.v1.JobService/SubmitJob"
EMPTY = "/benchmarks.Empty/Empty"
DIFFERING = 20_000
"""So many specs are made that differ; then they begin anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """How a server is reached."""

    target: str
    """Its address."""
    token_file: str = ""
    """Of who calls; empty: nobody says who they are."""
    ca_file: str = ""
    """Whom to trust; empty: plaintext."""

    def channel(self) -> grpc.aio.Channel:
        """A connection that nobody shares."""
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        if not self.ca_file:
            return grpc.aio.insecure_channel(self.target, options=options)
        trust = grpc.ssl_channel_credentials(Path(self.ca_file).read_bytes())
        return grpc.aio.secure_channel(self.target, trust, options=options)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Who calls."""
        if not self.token_file:
            return ()
        return (("authorization", f"Bearer {Path(self.token_file).read_text().strip()}"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What came of a run."""

    rate: float
    """Calls that were answered in a second."""
    median_ms: float
    """What one waited."""
    worst_ms: float
    """What the one that waited longest did."""
    cpu: float
    """Cores that the callers kept busy."""


def call(door: Door, method: str, *, callers: int, seconds: float, alike: bool = True) -> Called:
    """Have a process of its own make calls."""
    words = {**asdict(door), "method": method, "callers": callers, "seconds": seconds}
    flags = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "benchmarks.callers", *flags, *([] if alike else ["--differ"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    return Called(**json.loads(done.stdout))


def spec(number: int) -> dict[str, object]:
    """A job of a sweep that waits for ever: there is no such node."""
    return {
        "name": "sweep",
        "command": ["python", "train.py", "--seed", str(number)],
        "resources": {"cpus": 4096, "memory": "8GiB"},
        "env": {"OMP_NUM_THREADS": "4"},
        "time_limit": "2h",
    }


def requests(method: str, *, alike: bool) -> Iterator[bytes]:
    """Requests without end; each submit has an id of its own, as ccctl gives it one."""
    if method != SUBMIT:
        return itertools.repeat(b"")
    made = [
        SubmitJobRequest(spec=struct(spec(n))).SerializeToString()
        for n in range(1 if alike else DIFFERING)
    ]
    # Messages that are written one behind the other are merged.
    run = uuid.uuid4().hex
    ids = (SubmitJobRequest(request_id=f"{run}-{n}") for n in itertools.count())
    pairs = zip(itertools.cycle(made), ids, strict=False)
    return (body + named.SerializeToString() for body, named in pairs)


async def _run(door: Door, method: str, callers: int, seconds: float, alike: bool) -> Called:
    coming = requests(method, alike=alike)
    next(coming)
    channels = [door.channel() for _ in range(callers)]
    for channel in channels:
        await channel.channel_ready()
    waited: list[float] = []
    metadata = door.metadata
    spent, began = time.process_time(), time.monotonic()

    async def one(make: Callable[..., grpc.aio.UnaryUnaryCall]) -> None:
        while (sent := time.monotonic()) - began < seconds:
            await make(next(coming), metadata=metadata)
            waited.append(time.monotonic() - sent)

    await asyncio.gather(*(one(channel.unary_unary(method)) for channel in channels))
    took, spent = time.monotonic() - began, time.process_time() - spent
    for channel in channels:
        await channel.close()
    return Called(
        rate=len(waited) / took,
        median_ms=statistics.median(waited) * 1000,
        worst_ms=max(waited) * 1000,
        cpu=spent / took,
    )


def main() -> None:
    """Call, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--token_file", default="")
    parser.add_argument("--ca_file", default="")
    parser.add_argument("--method", default=SUBMIT)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--differ", action="store_true", help="each spec is another one")
    asked = parser.parse_args()
    door = Door(target=asked.target, token_file=asked.token_file, ca_file=asked.ca_file)
    done = asyncio.run(_run(door, asked.method, asked.callers, asked.seconds, not asked.differ))
    print(json.dumps(asdict(done)))


if __name__ == "__main__":
    main()
