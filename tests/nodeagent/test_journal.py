"""What an agent reads at its start, cut short at any byte or with rubbish for an end: it starts, no
lease of which anything runs is given up or started again, and none ends without a cause."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.model.lease import LeaseEnd, LeasePhase, WorkerState
from nodeagent import status
from nodeagent.folders import Folders, LeaseKey
from nodeagent.identity import Identity
from nodeagent.launchers import LaunchError
from nodeagent.leases import EPILOG, Leases
from nodeagent.looking import Looks
from nodeagent.preflight import Preflight
from nodeagent.progress import JOURNAL, REPORT_FILE, LeaseReports
from nodeagent.spawning import Spawner
from nodeagent.supervision import processes, record
from tests.support.supervised import gone, shell, step, until

if TYPE_CHECKING:
    from controlplane.model.lease import LeaseStatus
    from nodeagent.held import Held

BOOT = "4320176e-afbe-4e01-83e3-7c8c14dbd36c"
KEY = LeaseKey(7, 3)
NO_PID = 2**22 + 1
"""Above every process id that the kernel gives."""
FACTS: tuple[dict[str, Any], ...] = (
    {"fact": "supervising", "time": 1, "pid": NO_PID, "ticks": 1, "boot": BOOT},
    {"fact": "started", "time": 2, "rank": 0, "pid": NO_PID, "ticks": 1},
    {"fact": "step_started", "time": 3, "step": 5, "rank": 0, "pid": NO_PID, "ticks": 1}
    | {"detached": True},
    {"fact": "exited", "time": 4, "rank": 0, "exit_code": 3, "stdout_bytes": 1, "stderr_bytes": 0},
    {"fact": "ended", "time": 5, "end": "natural", "message": ""},
)
RUBBISH = (b"\0" * 16, b"\xff\xfe\n", b"[" * 2000 + b"\n", b'{"fact":"started","pid":0,"rank":0}\n')


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(state=tmp_path / "state", runtime=tmp_path / "run")
    made.prepare(BOOT)
    return made


class Nobody:
    """A spawner that must not be asked."""

    def spawn(self, folder: Path) -> None:
        raise AssertionError(f"{folder} was started again")


def started_agent(folders: Folders, preflight: Preflight | None = None) -> tuple[Leases, Held]:
    """What an agent does at its start; and the lease as it holds it."""
    folders.prepare(BOOT)
    none = Preflight(users=lambda ids: {}, prolog=None, epilog=None, deadline_s=5)
    leases = Leases(
        folders, cast("Any", None), cast("Any", Nobody()), preflight or none, Looks(), lambda: None
    )
    leases.adopt()
    leases.refresh_all()
    return leases, leases.held[KEY.lease_id]


def journal(folders: Folders, facts: tuple[dict[str, Any], ...] = FACTS) -> dict[str, Path]:
    """The files of a lease that has ended, or runs, and of its node; by name."""
    control, tmp = folders.control / str(KEY), folders.tmp / str(KEY)
    for folder in (control, tmp):
        folder.mkdir(exist_ok=True)
    plan = step(shell("exit 3", env={"CC_JOB_DIR": str(tmp), "CC_ATTEMPT": "1"}))
    for name in (record.STAGED, record.PLAN):
        (control / name).write_text(plan.to_json())
    (control / record.STATUS).write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    (tmp / f"{REPORT_FILE}.0").write_text('{"step": 1}\n{"what": "is this"}\n')
    reports = LeaseReports(key=KEY, folder=tmp, control=control, ranks=(0,), uid=os.geteuid())
    reports.look(100, whole=False)
    reports.due(100, ended=False)
    folders.deadline.write_text("123456789\n")
    (folders.state / "node.json").unlink(missing_ok=True)
    Identity(folders.state)
    paths = [control / name for name in (record.STAGED, record.PLAN, record.STATUS, JOURNAL)]
    paths += [folders.runtime / "boot_id", folders.deadline, folders.state / "node.json"]
    return {path.name: path for path in paths}


def identity_is_told(folders: Folders) -> None:
    """A node whose name is lost does not make itself another one."""
    with contextlib.suppress(ValueError):
        Identity(folders.state)


def has_a_cause(told: LeaseStatus) -> bool:
    ended = all(w.state is WorkerState.ENDED and w.exit_code == 3 for w in told.workers)
    return bool(told.message) or (bool(told.workers) and ended)


@contextlib.contextmanager
def held(plan: Path) -> Iterator[None]:
    """As a supervisor holds it."""
    with plan.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("facts", [FACTS[:3], FACTS], ids=["runs", "has ended"])
def test_a_lease_that_is_held_is_not_given_up_at_whichever_byte_a_file_ends(
    folders: Folders, facts: tuple[dict[str, Any], ...]
) -> None:
    for name, path in journal(folders, facts).items():
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with held(folders.control / str(KEY) / record.PLAN):
                _, found = started_agent(folders)
            identity_is_told(folders)
            written = (folders.control / str(KEY) / record.STATUS).read_bytes()
            ended = b'"ended"' in written and written.endswith(b"\n")
            assert (found.status.phase is LeasePhase.ENDED) == ended, (name, length)
        path.write_bytes(whole)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_lease_that_nobody_holds_ends_with_a_cause(folders: Folders, data: st.DataObject) -> None:
    facts = data.draw(st.sampled_from([FACTS[:1], FACTS[:3], FACTS[:4], FACTS]))
    files = journal(folders, facts)
    path = files[data.draw(st.sampled_from(sorted(files)))]
    whole = path.read_bytes()
    rubbish = data.draw(st.sampled_from(RUBBISH) | st.binary(max_size=40))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] + rubbish)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(status, "APPEAR_S", 0.0)  # nobody is on the way to it
        _, found = started_agent(folders)
    identity_is_told(folders)
    assert found.status.phase is LeasePhase.ENDED
    assert has_a_cause(found.status), found.status


# --- with processes -------------------------------------------------------------------------------


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.close()


def run(folders: Folders, spawner: Spawner, script: str) -> int:
    """Have a worker started; its process id. It adds a line to `starts` first."""
    env = {"CC_JOB_DIR": str(folders.jobs), "CC_ATTEMPT": "1", "PATH": os.environ["PATH"]}
    starts = folders.state / "starts"
    worker = shell(f"echo $$ >> {starts}; {script}", env=env)
    control = folders.control / str(KEY)
    control.mkdir()
    data = folders.data / str(KEY)
    for name in (record.STAGED, record.PLAN):
        (control / name).write_text(step(worker, output_dir=str(data)).to_json())
    spawner.spawn(control)
    until(lambda: b'"started"' in facts_of(folders), "its start to be written down")
    until(starts.exists, "it to begin")
    return int(starts.read_text())


def facts_of(folders: Folders) -> bytes:
    path = folders.control / str(KEY) / record.STATUS
    return path.read_bytes() if path.exists() else b""


def ended(leases: Leases, lease: Held) -> LeaseStatus:
    """The lease's status once it has ended."""

    def look() -> bool:
        leases.refresh_all()
        return lease.status.phase is LeasePhase.ENDED

    until(look, "the lease to end")
    return lease.status


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.8, 0.99])
def test_a_worker_is_waited_for_and_its_end_told_though_its_facts_were_cut(
    folders: Folders, spawner: Spawner, part: float
) -> None:
    go = folders.state / "go"
    pid = run(folders, spawner, f"while [ ! -e {go} ]; do sleep 0.02; done; exit 3")
    path = folders.control / str(KEY) / record.STATUS
    os.truncate(path, int(path.stat().st_size * part))
    leases, lease = started_agent(folders)
    assert lease.status.phase is not LeasePhase.ENDED
    assert not gone(pid)
    go.touch()
    told = ended(leases, lease)
    assert (told.end, told.workers[0].exit_code) == (LeaseEnd.NATURAL, 3)
    assert (folders.state / "starts").read_text() == f"{pid}\n"


def test_a_worker_whose_plan_was_cut_is_adopted_by_the_spare_copy(
    folders: Folders, spawner: Spawner
) -> None:
    pid = run(folders, spawner, "exec sleep 60")
    os.truncate(folders.control / str(KEY) / record.PLAN, 9)
    leases, lease = started_agent(folders)
    assert (lease.status.phase, lease.status.workers[0].pid) == (LeasePhase.RUNNING, pid)
    status.stop(leases.control(KEY), 0, LeaseEnd.ORDERED)
    assert ended(leases, lease).end is LeaseEnd.ORDERED


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_a_worker_whose_plans_were_cut_is_ended_before_its_lease_is(
    folders: Folders, spawner: Spawner, part: float
) -> None:
    pid = run(folders, spawner, "exec sleep 60")
    for name in (record.STAGED, record.PLAN):
        path = folders.control / str(KEY) / name
        os.truncate(path, int(path.stat().st_size * part))
    leases, lease = started_agent(folders)
    told = ended(leases, lease)
    assert gone(pid)
    assert told.end is LeaseEnd.SUPERVISOR_LOST
    assert told.message == "plan.json in its control folder was damaged, so its workers were ended"


def test_a_worker_outlives_a_note_of_the_boot_that_is_cut(
    folders: Folders, spawner: Spawner
) -> None:
    pid = run(folders, spawner, "exec sleep 60")
    for words in ("", BOOT[:-1], BOOT.replace("4", "5")):
        (folders.runtime / "boot_id").write_text(words)
        leases, lease = started_agent(folders)
        assert lease.status.phase is LeasePhase.RUNNING
        assert not gone(pid)
    status.stop(leases.control(KEY), 0, LeaseEnd.ORDERED)
    assert ended(leases, lease).end is LeaseEnd.ORDERED


def test_a_killed_supervisor_whose_facts_are_gone_is_not_followed_by_another(
    folders: Folders, spawner: Spawner
) -> None:
    pid = run(folders, spawner, "exec sleep 60")
    supervisor = processes.look(pid)
    assert supervisor is not None
    os.truncate(folders.control / str(KEY) / record.STATUS, 0)
    os.kill(supervisor.parent, signal.SIGKILL)
    spawner.spawn(folders.control / str(KEY))
    leases, lease = started_agent(folders)
    assert ended(leases, lease).end is LeaseEnd.SUPERVISOR_LOST
    assert gone(pid)
    assert (folders.state / "starts").read_text() == f"{pid}\n"


# --- an agent that died between prolog and plan ---------------------------------------------------


def program(folders: Folders, name: str, script: str) -> Path:
    path = folders.state / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_what_a_prolog_has_begun_its_epilog_undoes_though_the_agent_died_between(
    folders: Folders,
) -> None:
    said = folders.state / "said"
    preflight = Preflight(
        users=lambda ids: {},
        prolog=program(folders, "prolog", f"echo prolog >> {said}; exec sleep 60"),
        epilog=program(folders, "epilog", f"echo epilog $CC_JOB_ID >> {said}"),
        deadline_s=20,
    )
    env = {"CC_JOB_ID": "12", "CC_JOB_DIR": str(folders.jobs), "CC_ATTEMPT": "1"}
    plan = step(shell("exit 0", env=env))
    control = folders.control / str(KEY)
    control.mkdir()
    (control / record.STAGED).write_text(plan.to_json())

    async def play() -> None:
        prolog = asyncio.create_task(preflight.run_prolog(plan))  # of the agent that died
        await asyncio.to_thread(until, said.exists, "the prolog to begin")
        leases, lease = started_agent(folders, preflight)
        assert lease.status.phase is LeasePhase.STOPPING
        assert lease.closing is not None
        await lease.closing
        with pytest.raises(LaunchError, match="was ended by signal 9"):
            await prolog
        assert (lease.status.phase, lease.status.end) == (
            LeasePhase.ENDED,
            LeaseEnd.LAUNCH_FAILED,
        )
        assert said.read_text().split() == ["prolog", "epilog", "12"]
        assert (leases.control(KEY) / EPILOG).exists()
        _, again = started_agent(folders, preflight)
        assert again.closing is None

    asyncio.run(play())
