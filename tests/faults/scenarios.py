"""What may go wrong, as a table of prose; each is played with real processes on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from controlplane.client.errors import Refused
from controlplane.kit.failpoints import POINTS
from nodeagent.supervision import processes, record
from tests.faults.check import Told
from tests.faults.stage import LEASE_S, MARGIN_S, Stage
from tests.support.cluster import alive, until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from controlplane.client import Client

GANG: dict[str, Any] = {"workers": 2, "workers_per_node": 1}
TOO_LONG_S = LEASE_S + MARGIN_S + 1.5
"""Longer than a node may be silent."""
HOUR_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One row of the table."""

    name: str
    """In a word, to choose it by."""
    prose: str
    """What goes wrong, and when."""
    play: Callable[[Stage], None]
    """Has it go wrong; it is healed afterwards, and judged."""
    on: str = "sqlite"
    """Which centre it takes: `sqlite`, `postgresql`, `small-disk` or `hosts`."""
    quick: bool = False
    """Whether `make test` plays it, too."""


def kill_at(point: str, stage: Stage, *, attempts: Collection[int], cancel: bool = False) -> None:
    """A process dies at a step of a gang's life, or of its end."""
    document = stage.document(60 if cancel else 0.3, **GANG)
    with ThreadPoolExecutor(1) as pool, stage.client() as client:
        if cancel:
            (name,) = stage.submit(client, document)
            stage.cluster.running(name)
            stage.arm(point, "kill")
            asked = pool.submit(cancel_job, stage, name)
        else:
            stage.arm(point, "kill")
            asked = pool.submit(lambda: stage.submit(client, document)[0])
        pid = stage.wait_reached(point)
        until(lambda: not alive(pid), "it to die")
        stage.revive()
        name = asked.result(60)
    job = stage.cluster.ended(name)
    made = [each.number for each in job.attempts]
    assert len(made) in attempts, f"{len(made)} attempts, not {attempts}: {job.reason}"
    assert job.exit_code == (130 if cancel else 0), job.reason


def cancel_job(stage: Stage, name: str, client: Client | None = None) -> str:
    """Cancel, and note what was answered."""
    if client is None:
        with stage.client() as own:
            return cancel_job(stage, name, own)
    done = client.cancel([name])
    stage.note(Told(what="cancelled", names=tuple(done.cancelled)))
    return name


def kill_running(stage: Stage, *, who: str, attempts: int) -> None:
    """A process dies while a gang runs."""
    name, pids = running_gang(stage)
    victims = {
        "daemon": [stage.cluster.control.pid],
        "agent": [stage.cluster.agents[host_of(stage, name)].pid],
        "agents": [daemon.pid for daemon in stage.cluster.agents.values()],
        "supervisor": supervisors(stage, pids)[:1],
        "spawners": [pid for pid in stage.spawners() if pid not in supervisors(stage, pids)],
        "spawner-and-supervisor": stage.spawners(),
        "everything": [*(daemon.pid for daemon in stage.daemons), *stage.spawners()],
        "worker": pids[:1],
    }[who]
    assert victims
    processes.signal_all(victims, signal.SIGKILL)
    until(lambda: not any(map(alive, victims)), "it to die")
    stage.revive()
    (stage.folder / "go").touch()
    job = stage.cluster.ended(name)
    assert len(job.attempts) == attempts, [a.cause.message for a in job.attempts]
    assert job.exit_code == (137 if who == "worker" else 0), job.reason


def cut_journal(stage: Stage, *, name: str) -> None:
    """An agent dies while a gang runs, and what is written down of the lease is cut short."""
    job, _ = running_gang(stage)
    host = host_of(stage, job)
    stage.cluster.agents[host].kill()
    (path,) = (stage.folder / host / "run" / "leases").glob(f"*/{name}")
    os.truncate(path, path.stat().st_size // 2)
    stage.revive()
    until(lambda: stage.cluster.node(host), "the node to be heard")
    (stage.folder / "go").touch()
    ended = stage.cluster.ended(job)
    assert len(ended.attempts) == 1, [a.cause.message for a in ended.attempts]
    assert ended.exit_code == 0, ended.reason


def running_gang(stage: Stage) -> tuple[str, list[int]]:
    """A gang whose workers run until the file `go` is there; their process ids."""
    go = stage.folder / "go"
    go.unlink(missing_ok=True)
    with stage.client() as client:
        (name,) = stage.submit(client, stage.document(60, 0, str(go), **GANG))
    job = stage.cluster.running(name)
    return name, [worker.pid for worker in job.attempts[-1].workers]


def host_of(stage: Stage, name: str) -> str:
    """Where a gang's first rank is."""
    return stage.cluster.client.get(name).attempts[-1].leases[0].node_display_name


def supervisors(stage: Stage, workers: list[int]) -> list[int]:
    """Those that have started workers."""
    found = (processes.look(pid) for pid in workers)
    return [process.parent for process in found if process is not None]


def stop_and_go(stage: Stage, *, who: str, attempts: int, seconds: float = TOO_LONG_S) -> None:
    """A process is stopped for longer than a lease while a gang runs, and goes on then."""
    name, pids = running_gang(stage)
    victim = {
        "daemon": [stage.cluster.control.pid],
        "agent": [stage.cluster.agents[host_of(stage, name)].pid],
        "supervisor": supervisors(stage, pids)[:1],
        "worker": pids[:1],
    }[who]
    processes.signal_all(victim, signal.SIGSTOP)
    time.sleep(seconds)
    processes.signal_all(victim, signal.SIGCONT)
    until(stage.cluster.client.server_info, "the control plane to answer")
    if attempts > 1:
        until(lambda: len(stage.cluster.client.get(name).attempts) > 1, "another attempt")
    (stage.folder / "go").touch()
    job = stage.cluster.ended(name)
    assert len(job.attempts) == attempts, [a.cause.message for a in job.attempts]
    assert job.exit_code == 0, job.reason


def stop_at(point: str, stage: Stage) -> None:
    """A process is stopped at a step until its gang runs elsewhere, and goes on then."""
    go = stage.folder / "go"
    go.unlink(missing_ok=True)
    stage.arm(point, "stop")
    with stage.client() as client:
        (name,) = stage.submit(client, stage.document(60, 0, str(go), **GANG))
    pid = stage.wait_reached(point)
    until(lambda: len(stage.cluster.client.get(name).attempts) > 1, "another attempt")
    stage.cluster.running(name)
    processes.signal_all([pid], signal.SIGCONT)
    until(lambda: all(map(stage.cluster.node, stage.cluster.agents)), "its node to be heard")
    time.sleep(1)  # for what it may have begun
    go.touch()
    assert stage.cluster.ended(name).exit_code == 0


def cancel_stopped(stage: Stage) -> None:
    """A job is cancelled while the supervisors of its workers are stopped."""
    name, pids = running_gang(stage)
    victims = supervisors(stage, pids)
    processes.signal_all(victims, signal.SIGSTOP)
    cancel_job(stage, name)
    time.sleep(1)
    processes.signal_all(victims, signal.SIGCONT)
    assert stage.cluster.ended(name).exit_code == 130


def set_clock(stage: Stage, *, off_s: int) -> None:
    """The daemons' clocks are set while a gang runs: it runs on, and a silent node's lease ends."""
    name, _ = running_gang(stage)
    stage.set_clock(off_s)
    time.sleep(TOO_LONG_S)
    job = stage.cluster.client.get(name)
    assert len(job.attempts) == 1, job.reason
    victim = [stage.cluster.agents[host_of(stage, name)].pid]
    processes.signal_all(victim, signal.SIGSTOP)
    until(lambda: len(stage.cluster.client.get(name).attempts) > 1, "another attempt")
    processes.signal_all(victim, signal.SIGCONT)
    (stage.folder / "go").touch()
    job = stage.cluster.ended(name)
    assert len(job.attempts) == 2, [a.cause.message for a in job.attempts]
    assert job.exit_code == 0, job.reason


def cut(stage: Stage, *, seconds: float, attempts: int) -> None:
    """A host's cable is pulled while a gang runs, and plugged in again."""
    name, _ = running_gang(stage)
    cable = stage.cables[host_of(stage, name)]
    cable.link_down()
    time.sleep(seconds)
    cable.link_up()
    if attempts > 1:
        until(lambda: len(stage.cluster.client.get(name).attempts) > 1, "another attempt", 60)
    (stage.folder / "go").touch()
    job = stage.cluster.ended(name)
    assert len(job.attempts) == attempts, [a.cause.message for a in job.attempts]
    assert job.exit_code == 0, job.reason


def under_load(stage: Stage, *, what: Callable[[Stage], None]) -> None:
    """Something goes wrong while clients submit and cancel."""
    until_s = time.monotonic() + 5

    def client(number: int) -> None:
        with stage.client() as mine:
            while time.monotonic() < until_s:
                documents = [stage.document(0.05) for _ in range(1 + number % 2)]
                with contextlib.suppress(Refused):  # where there is no room
                    names = stage.submit(mine, *documents)
                    if number % 3 == 0:
                        cancel_job(stage, names[0], mine)
                time.sleep(0.1)

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, number) for number in range(8)]
        while time.monotonic() < until_s - 2:
            time.sleep(1)
            what(stage)
        for each in clients:
            each.result(90)


def restart_postgresql(stage: Stage) -> None:
    """End the server at once, and start it again."""
    assert stage.postgres is not None
    stage.postgres.stop()
    time.sleep(0.3)
    stage.postgres.start()


def restart_daemon(stage: Stage) -> None:
    """Kill the control plane, and start it again."""
    stage.cluster.control.kill()
    stage.cluster.control.start()


def fill_disk(stage: Stage) -> None:
    """Leave no byte free on the control plane's disk for a second."""
    ballast = stage.folder / "controlplane" / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        time.sleep(1)
    ballast.unlink()


def _steps() -> list[Scenario]:
    """`kill -9` at every named step."""
    # Where a node loses what it had begun, the gang is started again.
    again = {"agent.folder_made", "agent.prepared", "agent.prolog_ran", "agent.plan_written"}
    again |= {point for point in POINTS if point.startswith("supervisor.")}
    again -= {"supervisor.ended"}
    quick = {
        "submit.answered",
        "synchronize.start_answered",
        "agent.ordered",
        "agent.spawned",
        "supervisor.worker_started",
        "agent.prolog_ran",
        "cancel.answered",
        "attempt.succeeded.before_commit",
    }
    ends = {"cancel.answered", "synchronize.stop_answered", "agent.stop_ordered", "agent.stop_sent"}
    ends |= {"supervisor.stop_heard", "job.cancelled.before_commit", "job.cancelled.after_commit"}
    kinds = ("job.submitted", "attempt.placed", "attempt.running", "attempt.succeeded")
    when = {"before_commit": "is about to be committed", "after_commit": "was committed"}
    words = {
        f"{kind}.{point}": f"{kind} {told}"
        for kind in (*kinds, "job.cancelled")
        for point, told in when.items()
    }
    rows = []
    for point, step in {**words, **POINTS}.items():
        owner = point.partition(".")[0]
        who = owner if owner in ("agent", "supervisor") else "control plane"
        attempts = [2] if point in again and point not in ends else [1]
        if point == "supervisor.holds":  # the spawner may find that it has begun nothing
            attempts = [1, 2]
        rows.append(
            Scenario(
                name=f"kill:{point}",
                prose=f"kill -9 of the {who}: {step}",
                play=partial(kill_at, point, attempts=attempts, cancel=point in ends),
                quick=point in quick,
            )
        )
    return rows


SCENARIOS = [
    *_steps(),
    *(
        Scenario(name=f"kill:{who}", prose=prose, play=partial(kill_running, who=who, attempts=n))
        for who, n, prose in (
            ("daemon", 1, "kill -9 of the control plane while a gang runs"),
            ("agent", 1, "kill -9 of an agent while a gang runs"),
            ("agents", 1, "kill -9 of all agents at once while a gang runs"),
            ("spawners", 1, "kill -9 of all spawners while a gang runs"),
            ("supervisor", 2, "kill -9 of a supervisor while a gang runs"),
            ("spawner-and-supervisor", 2, "kill -9 of spawners and supervisors at once"),
            ("everything", 2, "kill -9 of everything that is ours at once, workers live on"),
            ("worker", 1, "kill -9 of a worker of a gang"),
        )
    ),
    *(
        Scenario(
            name=f"stop:{who}",
            prose=f"SIGSTOP of {what} for longer than the lease and its margin, then SIGCONT",
            play=partial(stop_and_go, who=who, attempts=n),
        )
        for who, n, what in (
            ("daemon", 2, "the control plane"),
            ("agent", 2, "an agent"),
            ("supervisor", 1, "a supervisor"),
            ("worker", 1, "a worker"),
        )
    ),
    *(
        Scenario(
            name=f"stop:{point}",
            prose=f"SIGSTOP until the gang runs elsewhere, then SIGCONT: {POINTS[point]}",
            play=partial(stop_at, point),
            quick=point == "agent.plan_written",
        )
        for point in list(POINTS)[list(POINTS).index("agent.ordered") :][:6]
    ),
    *(
        Scenario(
            name=f"clock:{word}",
            prose=f"the clocks are set {word} by an hour while a gang runs; then a node is silent",
            play=partial(set_clock, off_s=off_s),
            quick=word == "back",
        )
        for word, off_s in (("back", -HOUR_S), ("on", HOUR_S))
    ),
    *(
        Scenario(
            name=f"journal:{name.partition('.')[0]}",
            prose=f"kill -9 of an agent while a gang runs, and its {name} is cut in half",
            play=partial(cut_journal, name=name),
            quick=True,
        )
        for name in (record.STATUS, record.PLAN)
    ),
    Scenario(
        name="stop:agent-shortly",
        prose="SIGSTOP of an agent for less than the lease, then SIGCONT",
        play=partial(stop_and_go, who="agent", attempts=1, seconds=LEASE_S / 3),
        quick=True,
    ),
    Scenario(
        name="stop:cancel",
        prose="a job is cancelled while its supervisors are stopped",
        play=cancel_stopped,
    ),
    Scenario(
        name="load:daemon",
        prose="the control plane is killed and started under load, again and again",
        play=partial(under_load, what=restart_daemon),
    ),
    Scenario(
        name="load:postgresql",
        prose="PostgreSQL is ended at once and started under load, again and again",
        play=partial(under_load, what=restart_postgresql),
        on="postgresql",
        quick=True,
    ),
    Scenario(
        name="load:disk",
        prose="the control plane's disk is full for a second under load, again and again",
        play=partial(under_load, what=fill_disk),
        on="small-disk",
        quick=True,
    ),
    Scenario(
        name="cut:shortly",
        prose="a host is cut off for less than the lease while a gang runs",
        play=partial(cut, seconds=LEASE_S / 3, attempts=1),
        on="hosts",
    ),
    Scenario(
        name="cut:long",
        prose="a host is cut off for longer than the lease and its margin while a gang runs",
        play=partial(cut, seconds=TOO_LONG_S, attempts=2),
        on="hosts",
    ),
]
"""All of them."""
