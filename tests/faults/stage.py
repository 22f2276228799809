"""A centre whose processes can be made to fail at any named step, the notes of its clients, and
what is there at the end."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

from controlplane.client import Client
from controlplane.kit import failpoints
from controlplane.v1 import job_pb2
from nodeagent.supervision import processes
from nodeagent.supervision.cage import own_groups
from tests.faults.check import FINAL_JOB, Accounts, Happened, Known, Line, Told
from tests.faults.worker import LINES, LOCKS
from tests.support import timewarp
from tests.support.cluster import Cluster, Daemon, alive, cluster, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.support.netns import Host
    from tests.support.postgres import Postgres

LEASE_S, MARGIN_S = 3, 2
SHORT = {
    "node-lease-s": str(LEASE_S),
    "node-lease-margin-s": str(MARGIN_S),
    "hold-s": "0.5",
}
MARK = "FAULTS"
WORKER = Path(__file__).with_name("worker.py")
TIMEWARP = Path(timewarp.__file__)
WITHIN_S = 90.0


class Stage:
    """A cluster, and all that is needed to judge it."""

    def __init__(self, folder: Path, made: Cluster) -> None:
        self.folder, self.cluster = folder, made
        self.postgres: Postgres | None = None
        self.cables: Mapping[str, Host] = {}
        self.small_disk = False
        self._lock = threading.Lock()
        self._told: list[Told] = []
        self._asked: dict[str, tuple[list[dict[str, Any]], bool]] = {}
        self.clock, self.site = folder / "clock", folder / "site"
        (folder / LOCKS).mkdir()

    # What clients do

    def client(self, timeout_s: float = 60) -> Client:
        """Another client."""
        made = self.cluster
        token = made.token_file.read_text().strip()
        return Client(made.server, token=token, ca_file=made.ca_file, timeout_s=timeout_s)

    def document(
        self, seconds: float = 0.2, code: int = 0, until: str = "", **fields: Any
    ) -> dict[str, Any]:
        """A job whose workers keep an account."""
        worker = [
            sys.executable,
            "-S",
            "-E",
            str(WORKER),
            str(self.folder),
            str(seconds),
            str(code),
        ]
        return {
            "command": [*worker, *([until] if until else [])],
            "env": {MARK: str(self.folder)},
            "grace_period": 1,
            **fields,
        }

    def note(self, *told: Told) -> None:
        """Write down what a client was told."""
        with self._lock:
            self._told += told

    def submit(
        self,
        client: Client,
        *documents: dict[str, Any],
        hold: bool = False,
        request_id: str | None = None,
    ) -> tuple[str, ...]:
        """Submit, and note what was answered; names of the jobs."""
        request_id = request_id or uuid.uuid4().hex
        with self._lock:
            self._asked[request_id] = (list(documents), hold)
        names = _submit(client, documents, hold, request_id)
        self.note(Told(what="submitted", names=names, request_id=request_id))
        return names

    # What goes wrong

    @property
    def points(self) -> Path:
        """Where steps are armed."""
        return self.folder / "failpoints"

    def arm(self, point: str, action: str) -> None:
        """Have something happen the next time that a step is reached."""
        self.reached(point).unlink(missing_ok=True)
        fresh = self.points / f"{point}.new"
        fresh.write_text(action)
        fresh.rename(self.points / point)

    def reached(self, point: str) -> Path:
        """Is there once it has happened, and holds the process id."""
        return self.points / f"{point}{failpoints.REACHED}"

    def wait_reached(self, point: str) -> int:
        """The process that it has happened to."""
        path = self.reached(point)
        until(path.exists, f"{point} to be reached")
        return int(path.read_text())

    def set_clock(self, off_s: int) -> None:
        """Have the daemons' time of day be off by so many seconds."""
        fresh = self.clock.with_suffix(".new")
        fresh.write_text(str(off_s))
        fresh.replace(self.clock)

    def disarm(self) -> None:
        """Nothing more happens."""
        for path in self.points.iterdir():
            if path.suffix != failpoints.REACHED:
                path.unlink(missing_ok=True)

    @property
    def daemons(self) -> list[Daemon]:
        """The control plane, and the agents."""
        return [self.cluster.control, *self.cluster.agents.values()]

    def heal(self) -> None:
        """Let go on what was stopped, and start what has died."""
        self.disarm()
        self.set_clock(0)
        for pid in self.processes():
            processes.signal_all([pid], signal.SIGCONT)
        self.revive()

    def revive(self) -> None:
        """Start daemons that have died."""
        for daemon in self.daemons:
            assert daemon.process is not None
            if not alive(daemon.pid):
                daemon.process.wait(10)  # its first thread may be gone before the others
                daemon.start()

    def undrain(self) -> None:
        """Take back nodes that were blamed for what we did to them."""
        for node in self.cluster.client.nodes():
            if node.reason:
                self.cluster.client.undrain(node.name)

    # What is there

    def processes(self) -> dict[int, str]:
        """All that this has started and that lives, and their command lines."""
        marks = {f"{MARK}={self.folder}".encode(), f"{failpoints.VARIABLE}={self.points}".encode()}
        mine = os.getpid()
        return {
            process.pid: _command_line(process.pid)
            for process in processes.everything()
            if process.pid != mine and marks & processes.environment(process.pid)
        }

    def workers(self) -> dict[int, str]:
        """Those of them that jobs have started."""
        mark = f"{MARK}={self.folder}".encode()
        return {p: c for p, c in self.processes().items() if mark in processes.environment(p)}

    def spawners(self) -> list[int]:
        """Spawners and supervisors."""
        return [pid for pid, line in self.processes().items() if "nodeagent.spawner" in line]

    def jobs(self) -> dict[str, Known]:
        """All jobs."""
        return {
            job.name: Known(
                state=job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower(),
                reason=job.reason,
                exit_code=job.exit_code if job.HasField("exit_code") else None,
                tasks=job.tasks.total if job.HasField("tasks") else 1,
            )
            for job in self.cluster.client.list()
        }

    def settle(self, within_s: float = WITHIN_S) -> None:
        """Wait until every job has ended."""
        deadline = time.monotonic() + within_s
        while living := self._living():
            assert time.monotonic() < deadline, f"waited {within_s:g} s for jobs to end: {living}"
            self.undrain()
            time.sleep(0.1)

    def _living(self) -> dict[str, Known]:
        return {n: job for n, job in self.jobs().items() if job.state not in FINAL_JOB}

    def accounts(self) -> Accounts:
        """All that is known, once everything has ended; every submit is asked once more."""
        with self._lock:
            asked = list(self._asked.items())
        client = self.cluster.client
        known = {each.request_id for each in self._told}
        for request_id, (documents, hold) in asked:
            if request_id in known:
                names = _submit(client, documents, hold, request_id)
                self.note(Told(what="submitted", names=names, request_id=request_id))
        events = [
            Happened(
                seq=event.seq,
                kind=event.kind,
                resource=event.resource,
                changed=MessageToDict(event.changed),
            )
            for event in client.events()
        ]
        with self._lock:
            told = list(self._told)
        left, lines = self.left(), self.lines()
        succeeded = {event.resource for event in events if event.kind == "attempt.succeeded"}
        return Accounts(
            events=events,
            jobs=self.jobs(),
            lines=lines,
            told=told,
            printed=self._printed(succeeded, lines),
            site=self.site.read_text().splitlines(),
            left=left,
        )

    def _printed(self, names: set[str], lines: Sequence[Line]) -> dict[tuple[str, int], str]:
        """The output of the ranks of attempts, as the control plane has it."""
        found = {}
        for line in lines:
            name = f"jobs/{line.job}/tasks/{line.task}/attempts/{line.attempt}"
            if line.what == "begin" and name in names:
                pieces = self.cluster.client.logs(
                    f"jobs/{line.job}/tasks/{line.task}", attempt=line.attempt, ranks=[line.rank]
                )
                data = b"".join(piece.data for piece in pieces)
                found[name, line.rank] = data.decode(errors="replace")
        return found

    def lines(self) -> list[Line]:
        """What workers wrote."""
        path = self.folder / LINES
        raw = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [Line(**{name: one[name] for name in Line.__slots__ if name in one}) for one in raw]

    def left(self, within_s: float = 20.0) -> list[str]:
        """What is still there of jobs that have all ended; it may take a moment to go."""
        deadline = time.monotonic() + within_s
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _left(self) -> list[str]:
        left = [f"process {pid}: {line}" for pid, line in self.workers().items()]
        for node in self.cluster.client.nodes():
            left += [f"a lease of {each} on {node.facts.display_name}" for each in node.attempts]
            if node.leased_millicores or node.leased_memory_bytes or node.leased_device_ids:
                left.append(f"what is leased on {node.facts.display_name}")
        for name in self.cluster.agents:
            for part in ("run/leases", "leases", "tmp"):
                left += [str(path) for path in (self.folder / name / part).glob("*")]
        return left + self._groups("*")

    def _groups(self, below: str = "") -> list[str]:
        """Control groups of leases, or with nothing `below` those that hold them."""
        notes = [self.folder / name / "node.json" for name in self.cluster.agents]
        uuids = [json.loads(note.read_text())["uuid"] for note in notes]
        folders = {Path(path) for name, path in own_groups().items() if name}
        found = [folder / f"nodeagent.{uuid}" for folder in folders for uuid in uuids]
        found = [each for base in found for each in (base.glob(below) if below else [base])]
        return [str(path) for path in found if path.is_dir()]

    def left_by_daemons(self, within_s: float = 20.0) -> list[str]:
        """What is still there of daemons that were all ended."""
        deadline = time.monotonic() + within_s
        while True:
            left = [f"process {pid}: {line}" for pid, line in self.processes().items()]
            left += self._groups()
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)

    def clear(self) -> None:
        """End what is left, so that nothing outlives a test that fails."""
        for pid in self.processes():
            processes.signal_all([pid], signal.SIGKILL)


@contextmanager
def stage(
    folder: Path,
    agents: Mapping[str, Mapping[str, int]],
    serve: Mapping[str, str] | None = None,
    hosts: Sequence[Host] = (),
) -> Iterator[Stage]:
    """A centre with agents of these names; each with so many `cpus` and `gpus`. Nothing of it is
    there afterwards, and nothing of it may have stayed by itself."""
    points = folder / "failpoints"
    points.mkdir()
    env = {failpoints.VARIABLE: str(points)}
    clock = folder / "clock"
    clock.write_text("0")
    warped = (sys.executable, TIMEWARP, clock)
    site = {name: str(_site_program(folder, name)) for name in ("prolog", "epilog")}
    play: Stage | None = None
    try:
        serve = {**SHORT, **(serve or {})}
        with cluster(folder, serve=serve, env=env, hosts=hosts, before=warped) as made:
            play = Stage(folder, made)
            play.cables = dict(zip(agents, hosts[1:], strict=False))
            try:
                for name, has in agents.items():
                    made.agent(name, cpus=has.get("cpus", 8), gpus=has.get("gpus", 0), **site)
                yield play
            finally:
                play.heal()
        left = play.left_by_daemons()
        assert not left, left
    finally:
        if play is not None:
            play.clear()


def _site_program(folder: Path, name: str) -> Path:
    """A prolog or an epilog that does nothing but note that it ran."""
    lease = "$CC_JOB_ID.$CC_TASK_INDEX.$CC_ATTEMPT on $CC_NODE_NAME"
    path, said = folder / name, folder / "site"
    said.touch()
    path.write_text(f'#!/bin/sh\necho "{name} {lease}" >> {said}\n')
    path.chmod(0o755)
    return path


def _submit(
    client: Client, documents: Sequence[dict[str, Any]], hold: bool, request_id: str
) -> tuple[str, ...]:
    if len(documents) == 1:
        return (client.submit(documents[0], request_id=request_id, hold=hold).name,)
    return tuple(client.submit_many(documents, request_id=request_id, hold=hold))


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""
