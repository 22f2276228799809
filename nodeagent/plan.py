"""What a supervisor is told to do: the workers of one lease on this node, as plain values.

A launcher makes it (a pure function of the launch and the node), the agent writes it into the
lease's folder as ``plan.json``, and the supervisor reads it there. This module imports the standard
library only, because every supervisor is a fork of a small process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom a process becomes before it runs anything of a job's."""

    uid: int
    """User id."""
    gid: int
    """Primary group."""
    groups: tuple[int, ...]
    """All groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """One process to start."""

    rank: int
    """Rank in the gang."""
    local_rank: int
    """Rank on this node."""
    argv: tuple[str, ...]
    """Program and arguments; looked up in the PATH of `env`, never passed through a shell."""
    env: dict[str, str]
    """The whole environment; nothing is inherited."""
    cwd: str
    """Folder to run in."""
    cpu_ids: tuple[int, ...] = ()
    """Cores to pin it to (this host's numbers); empty for no affinity."""
    hears_signals: bool = True
    """Whether it gets warnings and signals; not where another worker hands them on to it."""
    hostname: str = ""
    """Run it under this hostname in a UTS namespace of its own; empty to keep the host's."""
    output: str = ""
    """File that its standard output is appended to, besides; empty for none."""
    error: str = ""
    """The same for its standard error."""
    before: tuple[str, ...] = ()
    """Words that go before any command that is run in this worker's place: its setup lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CagePlan:
    """The groups of one lease."""

    version: int
    """1 or 2."""
    groups: dict[str, str]
    """Controller → folder of the lease's group; with version 2 all have the same."""
    memory_bytes: int = 0
    """For each worker; 0 for no limit."""
    pids: int = 0
    """Processes and threads of the lease together; 0 for no limit."""
    cpu_millicores: int = 0
    """Its share of the cores when they are short, in thousandths; 0: as any other's."""
    denied_devices: tuple[str, ...] = ()
    """Device nodes that it may not open, as `c 195:3`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousPlan:
    """A rendezvous store to serve beside the workers."""

    host: str
    """Address to listen on."""
    port: int
    """Port to listen on."""
    scopes: dict[str, int]
    """Members of each scope known beforehand: so many must finish before it is emptied."""
    secret: str
    """Opens the scopes that our own helpers use; the gang's programs cannot read those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """A group of workers to start and hold under one lease."""

    lease_id: int
    """The lease."""
    token: int
    """Its fencing token."""
    workers: tuple[WorkerPlan, ...]
    """What to start."""
    places: tuple[WorkerPlan, ...] = ()
    """What steps beside a rank get of the world, where that is not its worker's: a worker may stand
    for several ranks, or do something else."""
    rendezvous: RendezvousPlan | None = None
    """The store to serve, when this node hosts it."""
    wait_for: tuple[str, int] | None = None
    """Address and port that must accept connections before the workers start."""
    wait_ms: int = 60_000
    """How long to wait for it, in milliseconds."""
    time_limit_ms: int | None = None
    """End the workers after so long, in milliseconds; None for no limit."""
    warn_signal: int = 0
    """Number of the signal that warns the workers of the time limit; 0 for no warning."""
    warn_before_ms: int = 0
    """How long before the time limit they are warned, in milliseconds."""
    grace_ms: int = 10_000
    """Between SIGTERM and SIGKILL, in milliseconds."""
    failure_grace_ms: int = 2_000
    """As `grace_ms`, for the others when one worker has failed."""
    deadline_file: str = ""
    """File with the CLOCK_BOOTTIME microsecond at which this node's lease ends; empty: nobody
    fences."""
    notify_socket: str = ""
    """Unix datagram socket to nudge after each change of the status; empty for none."""
    output_dir: str = "."
    """Folder in whose `logs/` the workers' output is kept; a relative one counts from the lease's
    control folder."""
    log_segment_bytes: int = 4 << 20
    """Size of one segment of an output stream, in bytes."""
    log_cap_bytes: int = 64 << 20
    """Bytes of each output stream kept on the node; the oldest segments go first."""
    limits: tuple[tuple[str, int], ...] = ()
    """Limits of the workers, by name as in `supervision.rlimits`; others are as the agent's own."""
    cage: CagePlan | None = None
    """The workers' control groups; None: they have none of their own."""
    identity: Identity | None = None
    """Whom the workers run as; None: as the supervisor itself."""
    ranks_per_worker: int = 1
    """Ranks that each worker stands for: more than one where a launcher starts its own (MPI)."""
    requeue_exit_codes: tuple[int, ...] = ()
    """Exit codes by which a worker asks for another attempt: the others get `grace_ms` then."""
    job: dict[str, Any] = field(default_factory=dict)
    """Labels for people who look at the folder: job, attempt, owner."""

    def to_json(self) -> str:
        """As `plan.json` keeps it."""
        return json.dumps(self, separators=(",", ":"), default=_fields)

    @staticmethod
    def from_json(text: str | bytes) -> StepPlan:
        """From `plan.json`. ValueError, KeyError or TypeError when it is not one."""
        raw = json.loads(text)
        raw["workers"] = tuple(map(_worker, raw["workers"]))
        raw["places"] = tuple(map(_worker, raw.get("places", ())))
        raw["limits"] = tuple((name, value) for name, value in raw["limits"])
        if raw["identity"] is not None:
            whom = raw["identity"]
            raw["identity"] = Identity(**{**whom, "groups": tuple(whom["groups"])})
        if raw.get("cage") is not None:
            cage = raw["cage"]
            raw["cage"] = CagePlan(**{**cage, "denied_devices": tuple(cage["denied_devices"])})
        if raw["rendezvous"] is not None:
            raw["rendezvous"] = RendezvousPlan(**raw["rendezvous"])
        if raw["wait_for"] is not None:
            host, port = raw["wait_for"]
            raw["wait_for"] = (host, port)
        raw["requeue_exit_codes"] = tuple(raw.get("requeue_exit_codes", ()))
        return StepPlan(**raw)


def _worker(raw: dict[str, Any]) -> WorkerPlan:
    lists = {name: tuple(raw.get(name, ())) for name in ("argv", "cpu_ids", "before")}
    return WorkerPlan(**{**raw, **lists})


def _fields(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)}
