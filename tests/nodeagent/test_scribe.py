"""Output that goes into files of its owner's: what is in them, and what goes wrong with them."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controlplane.model.lease import LeaseEnd, LeaseStatus
from nodeagent.plan import Identity, StepPlan
from nodeagent.spawning import Spawner
from nodeagent.supervision import processes, scribe
from tests.support.supervised import ENV, FREEZER, Lease, frozen, gone, shell, step, until, worker

Start = Callable[[StepPlan], Lease]


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.close()


@pytest.fixture
def start(tmp_path: Path, spawner: Spawner) -> Iterator[Start]:
    made: list[Lease] = []

    def one(plan: StepPlan) -> Lease:
        made.append(Lease(tmp_path / "leases", plan).spawn(spawner))
        return made[-1]

    yield one
    for lease in made:
        lease.close()
        assert lease.faults() == ""


def fault(lease: Lease) -> str:
    """What was told of missing output, the newest."""
    told = [fact["message"] for fact in lease.facts() if fact["fact"] == "output_fault"]
    return told[-1] if told else ""


def scribe_of(lease: Lease) -> int:
    """The process that writes the files: the supervisor's child in its own session."""
    own = lease.supervisor()

    def look() -> int | None:
        found = map(processes.look, processes.children(own))
        return next((p.pid for p in found if p is not None and p.group == own), None)

    return until(look, "a scribe to be there")


def well(over: LeaseStatus) -> bool:
    return over.end is LeaseEnd.NATURAL and not any(w.failed for w in over.workers)


def test_what_a_worker_prints_is_in_its_file_when_its_lease_has_ended(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "made" / "for it" / "7-0.out"
    script = "echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three"
    over = start(step(shell(script, output=str(path), error=str(path)))).ended()

    assert well(over)
    assert over.output_fault == ""
    assert path.read_text() == "one\ntwo\nthree\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_streams_and_ranks_have_files_of_their_own_and_attempts_add_to_them(
    start: Start, tmp_path: Path
) -> None:
    def files(rank: int) -> dict[str, str]:
        return {"output": str(tmp_path / f"{rank}.out"), "error": str(tmp_path / f"{rank}.err")}

    plan = step(*(shell(f"echo out {r}; echo err {r} >&2", r, **files(r)) for r in (0, 1)))
    start(plan).ended()
    start(step(*plan.workers, lease_id=8)).ended()

    for rank in (0, 1):
        assert (tmp_path / f"{rank}.out").read_text() == f"out {rank}\n" * 2
        assert (tmp_path / f"{rank}.err").read_text() == f"err {rank}\n" * 2


def test_a_worker_without_output_leaves_no_file(start: Start, tmp_path: Path) -> None:
    lease = start(step(shell("true", output=str(tmp_path / "x"), error=str(tmp_path / "y"))))

    assert well(lease.ended())
    assert [entry.name for entry in tmp_path.iterdir()] == ["leases"]


def test_a_file_holds_all_of_what_the_node_keeps_only_the_end_of(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "all"
    script = "import sys\nfor i in range(400_000): sys.stdout.write(f'{i:019}\\n')"
    plan = step(
        worker(sys.executable, "-c", script, output=str(path), error=str(path)),
        log_segment_bytes=1 << 20,
        log_cap_bytes=2 << 20,
    )
    lease = start(plan)

    assert well(lease.ended())
    assert len(lease.printed()) < 3 << 20
    assert path.read_bytes() == b"".join(b"%019d\n" % i for i in range(400_000))


STAYS = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    first = os.getppid()
    os.setsid()
    while os.getppid() == first:
        time.sleep(0.001)
    os.write(1, b"late\\n")
    time.sleep(600)
os.write(1, b"first\\n")
"""


def test_what_stays_behind_is_written_down_too(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "x"
    plan = step(worker(sys.executable, "-c", STAYS, output=str(path), error=str(path)))
    assert well(start(plan).ended())

    assert path.read_text() == "first\nlate\n"


def own(tmp_path: Path, script: str, **fields: Any) -> StepPlan:
    """A worker whose output goes into its job's own folder."""
    folder = tmp_path / "jobs" / "7"
    folder.mkdir(parents=True, exist_ok=True)
    path = str(folder / "job-7-0.out")
    env = {**ENV, "CC_JOB_DIR": str(folder), "PATH": f"{Path(sys.executable).parent}:{ENV['PATH']}"}
    return step(shell(script, env=env, output=path, error=path, cwd=str(tmp_path), **fields))


def test_a_little_in_the_jobs_own_folder_takes_no_scribe(start: Start, tmp_path: Path) -> None:
    script = "echo one; sleep 0.2; echo two >&2; while ! [ -e go ]; do sleep 0.01; done; echo three"
    lease = start(own(tmp_path, script))
    path = tmp_path / "jobs" / "7" / "job-7-0.out"
    until(lambda: path.exists() and path.read_text() == "one\ntwo\n", "the first two lines")
    assert len(processes.children(lease.supervisor())) == 1
    (tmp_path / "go").touch()

    over = lease.ended()
    assert (well(over), over.output_fault) == (True, "")
    assert path.read_text() == "one\ntwo\nthree\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_much_in_the_jobs_own_folder_is_handed_to_a_scribe(start: Start, tmp_path: Path) -> None:
    lines = 40_000
    code = f"for i in range({lines}): print(f'{{i:019}}', flush=i == 7)"
    lease = start(own(tmp_path, f'python -c "{code}"'))

    over = lease.ended()
    assert (well(over), over.output_fault) == (True, "")
    found = (tmp_path / "jobs" / "7" / "job-7-0.out").read_bytes()
    assert found == b"".join(b"%019d\n" % i for i in range(lines))


def test_what_is_odd_in_the_jobs_own_folder_is_the_scribes(start: Start, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    lease_plan = own(tmp_path, "echo one; sleep 0.3; echo two")
    (tmp_path / "jobs" / "7" / "job-7-0.out").symlink_to(elsewhere)
    over = start(lease_plan).ended()
    assert (well(over), over.output_fault) == (True, "")
    assert elsewhere.read_text() == "one\ntwo\n"

    pipe = tmp_path / "jobs" / "7" / "job-7-0.out"
    pipe.unlink()
    os.mkfifo(pipe)
    over = start(replace(lease_plan, lease_id=8)).ended()
    assert well(over)
    assert over.output_fault.startswith(f"{pipe}: No such device or address; ")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: os.mkfifo(path), "No such device or address"),
        (lambda path: path.symlink_to("/dev/full"), "it is no regular file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
)
def test_what_cannot_be_a_file_is_told_and_does_no_harm(
    start: Start, tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "x"
    make(path)
    lease = start(step(shell("echo 12345", output=str(path), error=str(path))))

    over = lease.ended()
    assert well(over)
    assert over.output_fault == f"{path}: {words}; 6 bytes of output are not in it"
    assert lease.printed() == b"12345\n"


@pytest.mark.parametrize("room", [True, False])
def test_a_full_disk_is_waited_for_as_long_as_the_workers_run(
    start: Start, tmp_path: Path, room: bool
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    path, ballast = disk / "x", disk / "ballast"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        ballast.write_bytes(bytes(60 << 10))
        script = "head -c 20000 /dev/zero; while ! [ -e go ]; do sleep 0.01; done; echo end"
        lease = start(step(shell(script, output=str(path), error=str(path), cwd=str(tmp_path))))
        full = f"{path}: No space left on device"
        until(lambda: fault(lease) == f"{full}; it is tried again", "the scribe to say so")
        if room:
            ballast.unlink()
        (tmp_path / "go").touch()

        over = lease.ended()
        assert well(over)
        missing = 20_004 - path.stat().st_size
        if room:
            assert missing == 0
        else:
            assert 0 < missing < 20_004
            assert over.output_fault == f"{full}; {missing} bytes of output are not in it"
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_scribe_that_is_ended_is_told_of_and_the_job_runs_on(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    script = "echo one; while ! [ -e go ]; do sleep 0.01; done; echo two"
    lease = start(step(shell(script, output=str(path), error=str(path), cwd=str(tmp_path))))
    until(lambda: path.exists() and path.read_text() == "one\n", "the first line")
    os.kill(scribe_of(lease), signal.SIGKILL)
    until(lambda: fault(lease), "the supervisor to tell")
    (tmp_path / "go").touch()

    over = lease.ended()
    assert well(over)
    assert over.output_fault == (
        f"{path}, …: the process that writes them is gone (ended by SIGKILL)"
    )
    assert lease.printed() == b"one\ntwo\n"


def test_a_time_limit_holds_beside_a_scribe_that_hangs(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    plan = step(
        shell("echo one; sleep 600", output=str(path), error=str(path)),
        time_limit_ms=700,
        grace_ms=100,
    )
    lease = start(plan)
    until(lambda: path.exists() and path.read_text(), "the first line")
    os.kill(scribe_of(lease), signal.SIGSTOP)

    over = lease.ended()
    assert over.end is LeaseEnd.TIME_LIMIT
    stopping, end = (
        next(f for f in lease.facts() if f["fact"] == n) for n in ("stopping", "ended")
    )
    assert end["time"] - stopping["time"] < scribe.FINISH_US + scribe.LEAVE_US
    assert over.output_fault.endswith("(ended by SIGKILL)")


def test_a_scribe_that_cannot_be_ended_is_left_to_itself(start: Start, tmp_path: Path) -> None:
    if not os.access(FREEZER, os.W_OK):
        pytest.skip("nothing can be frozen here")
    path = tmp_path / "x"
    script = "echo one; while ! [ -e go ]; do sleep 0.01; done; echo two"
    lease = start(step(shell(script, output=str(path), error=str(path), cwd=str(tmp_path))))
    until(lambda: path.exists() and path.read_text() == "one\n", "the first line")
    hung = scribe_of(lease)
    with frozen(hung, f"scribe-{os.getpid()}"):
        (tmp_path / "go").touch()
        over = lease.ended()
        assert well(over)
        assert over.output_fault == (
            f"{path}, …: the process that writes them is gone (its writes hang)"
        )
        until(lambda: gone(lease.supervisor()), "its supervisor to go")
    until(lambda: gone(hung), "the scribe to end once it can")


def test_files_are_their_owners_who_cannot_touch_the_scribe(start: Start, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can run workers as somebody else")
    home, closed = tmp_path / "home", tmp_path / "closed"
    home.mkdir(mode=0o700)
    closed.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    (home / "way").symlink_to(closed)
    whom = Identity(uid=65534, gid=65534, groups=(65534,))
    script = "echo one; while ! [ -e go ]; do sleep 0.01; done; kill -9 $(cat go) && echo killed"
    with passable(tmp_path):
        plan = step(
            shell(
                script,
                output=str(home / "logs" / "x"),
                error=str(home / "way" / "y"),
                cwd=str(home),
                env=ENV,
            ),
            identity=whom,
        )
        lease = start(plan)
        until(lambda: (home / "logs" / "x").exists(), "the first line")
        (home / "gone").write_text(str(scribe_of(lease)))
        (home / "gone").rename(home / "go")
        over = lease.ended()

    assert (home / "logs" / "x").read_text() == "one\n"
    assert (home / "logs" / "x").stat().st_uid == 65534
    assert (home / "logs").stat().st_uid == 65534
    assert b"not permitted" in lease.printed(stream="err")
    assert over.output_fault.startswith(f"{home / 'way' / 'y'}: Permission denied; ")
    assert list(closed.iterdir()) == []


@contextmanager
def passable(folder: Path) -> Iterator[None]:
    """Let others through to a folder of the test's."""
    shut = [one for one in (folder, *folder.parents) if not one.stat().st_mode & 0o001]
    modes = [stat.S_IMODE(one.stat().st_mode) for one in shut]
    for one, mode in zip(shut, modes, strict=True):
        one.chmod(mode | 0o011)
    try:
        yield
    finally:
        for one, mode in zip(shut, modes, strict=True):
            one.chmod(mode)
