"""What a supervisor wrote down, read as a status: whole lines, torn ones, and no last word."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus, WorkerState, WorkerStatus
from nodeagent import status
from nodeagent.status import expanded, fold
from nodeagent.supervision import processes
from nodeagent.supervision.record import Recorder
from tests.support.examples import examples
from tests.support.supervised import ENV, Lease, gone, shell, step, until

if TYPE_CHECKING:
    from nodeagent.plan import StepPlan

Fact = dict[str, Any]

FRESH = LeaseStatus(
    lease_id=7,
    token=3,
    phase=LeasePhase.STARTING,
    workers=(WorkerStatus(rank=0, local_rank=0), WorkerStatus(rank=1, local_rank=1)),
)
NO_PID = 2**22 + 1
"""Above every process id that the kernel gives."""

SUPERVISING: Fact = {"fact": "supervising", "time": 9, "pid": NO_PID, "ticks": 1, "boot": "b"}
ENDED: Fact = {"fact": "ended", "time": 60, "end": "natural", "message": ""}
STOPPING: Fact = {"fact": "stopping", "time": 50, "end": "ordered", "message": "größer\n"}


def started(rank: int = 0, pid: int = NO_PID + 1, ticks: int = 5) -> Fact:
    return {"fact": "started", "time": 10 + rank, "rank": rank, "pid": pid, "ticks": ticks}


def exited(rank: int = 0, **fields: Any) -> Fact:
    how = fields or {"exit_code": 0}
    return {
        "fact": "exited",
        "time": 40 + rank,
        "rank": rank,
        **how,
        "stdout_bytes": 11,
        "stderr_bytes": 22,
        "peak_memory_bytes": 33,
    }


def line(fact: Fact) -> bytes:
    return json.dumps(fact).encode() + b"\n"


def after(*facts: Fact) -> LeaseStatus:
    return reduce(fold, facts, FRESH)


# --- one fact after the other ---------------------------------------------------------------------


def test_a_supervisor_that_showed_itself_changes_nothing_yet() -> None:
    assert after(SUPERVISING) == FRESH


def test_a_started_worker_runs() -> None:
    first, second = after(started(1, pid=55)).workers

    assert first == FRESH.workers[0]
    assert second == WorkerStatus(
        rank=1, local_rank=1, state=WorkerState.RUNNING, pid=55, started_us=11
    )


def test_the_lease_runs_when_its_last_worker_does() -> None:
    assert after(started(0)).phase is LeasePhase.STARTING
    assert after(started(0), started(1)).phase is LeasePhase.RUNNING
    assert after(started(0), exited(0), started(1)).phase is LeasePhase.RUNNING


def test_how_a_worker_ended_is_kept() -> None:
    first, second = after(
        started(0, pid=55),
        started(1),
        exited(0, signal=9),
        exited(1, exit_code=3, stderr_tail="oh"),
    ).workers

    assert first == WorkerStatus(
        rank=0,
        local_rank=0,
        state=WorkerState.ENDED,
        pid=55,
        signal=9,
        started_us=10,
        ended_us=40,
        stdout_bytes=11,
        stderr_bytes=22,
        peak_memory_bytes=33,
    )
    assert (second.exit_code, second.signal, second.stderr_tail) == (3, None, "oh")


def test_a_worker_that_ended_well_has_nothing_to_say() -> None:
    worker = after(started(), exited()).workers[0]

    assert (worker.exit_code, worker.stderr_tail, worker.failed) == (0, "", False)


def test_a_lease_that_is_being_ended_says_why_and_goes_not_back() -> None:
    stopping = after(started(0), STOPPING, started(1))

    assert stopping.phase is LeasePhase.STOPPING
    assert (stopping.end, stopping.message) == (LeaseEnd.ORDERED, "größer\n")


def test_a_warning_and_signals_are_kept_and_change_nothing_else() -> None:
    warned = {"fact": "warned", "time": 30, "signal": 12}
    first = {"fact": "signalled", "time": 31, "number": 4, "signal": 10, "ranks": [0]}
    second = {**first, "time": 32, "number": 6}
    ran = after(started(0), started(1))

    told = after(started(0), started(1), warned, first, second)

    assert told == replace(ran, warned_us=30, signals_done=6)


def test_output_that_came_after_the_exit_is_counted_at_the_end() -> None:
    first, second = after(exited(0), exited(1), ENDED | {"bytes": {"1": [100, 200]}}).workers

    assert (first.stdout_bytes, first.stderr_bytes) == (11, 22)
    assert (second.stdout_bytes, second.stderr_bytes) == (100, 200)


@pytest.mark.parametrize("end", LeaseEnd)
def test_every_end_is_told(end: LeaseEnd) -> None:
    over = after(ENDED | {"end": end.value, "message": "why"})

    assert (over.phase, over.end, over.message) == (LeasePhase.ENDED, end, "why")


@pytest.mark.parametrize(
    "no_fact",
    [
        {},
        {"fact": "started"},
        {"fact": "exited", "time": 1, "rank": 0},
        {"fact": "ended", "message": ""},
        ENDED | {"end": "tired"},
        ENDED | {"bytes": {"0": 5}},
        ENDED | {"bytes": {"x": [1, 2]}},
    ],
)
def test_what_is_no_fact_is_refused(no_fact: Fact) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        fold(FRESH, no_fact)


def test_a_fact_of_a_later_release_is_passed_over() -> None:
    assert after({"fact": "napping", "time": 3}) == FRESH


# --- a worker that stands for several ranks -------------------------------------------------------


def test_a_worker_that_stands_for_itself_is_left_as_it_is() -> None:
    assert expanded(FRESH, 1) == FRESH


def test_an_exit_that_an_older_supervisor_told_says_nothing_of_memory() -> None:
    older = {name: value for name, value in exited().items() if name != "peak_memory_bytes"}

    assert after(older).workers[0].peak_memory_bytes is None


def test_ranks_share_their_workers_end_and_the_first_has_the_output() -> None:
    one = LeaseStatus(
        lease_id=7,
        token=3,
        phase=LeasePhase.ENDED,
        workers=(
            WorkerStatus(
                rank=4,
                local_rank=0,
                state=WorkerState.ENDED,
                pid=55,
                exit_code=2,
                stdout_bytes=10,
                stderr_bytes=20,
                stderr_tail="oh",
                peak_memory_bytes=30,
            ),
        ),
    )

    first, second, third = expanded(one, 3).workers

    assert first == one.workers[0]
    silent = replace(first, stdout_bytes=0, stderr_bytes=0, peak_memory_bytes=None)
    assert second == replace(silent, rank=5, local_rank=1)
    assert third == replace(silent, rank=6, local_rank=2)


# --- reading --------------------------------------------------------------------------------------


@pytest.fixture
def lease(tmp_path: Path) -> Lease:
    return Lease(tmp_path, step(shell("exit"), shell("exit", rank=1)))


def test_nothing_is_known_of_a_supervisor_that_wrote_nothing(lease: Lease) -> None:
    reader = lease.reader()

    assert reader.read() == FRESH
    lease.append(b"")
    assert reader.read() == FRESH


def test_a_later_reader_comes_to_the_same_status(lease: Lease) -> None:
    first = lease.reader()
    for fact in (SUPERVISING, started(0), started(1), exited(1, signal=15), exited(0), ENDED):
        lease.append(line(fact))
        assert first.read() == lease.reader().read()

    assert first.read().phase is LeasePhase.ENDED


def test_ranks_are_expanded_as_the_plan_says(tmp_path: Path) -> None:
    lease = Lease(tmp_path, step(shell("exit"), ranks_per_worker=3))
    lease.append(line(started(0)))

    workers = lease.reader().read().workers

    assert [(w.rank, w.local_rank, w.state) for w in workers] == [
        (rank, rank, WorkerState.RUNNING) for rank in range(3)
    ]


def test_nothing_follows_the_last_word(lease: Lease) -> None:
    reader = lease.reader()
    lease.append(line(ENDED))
    over = reader.read()
    lease.append(line(started(0)) + line(ENDED | {"end": "fenced"}))

    assert reader.read() == reader.look() == over == after(ENDED)


STORY = (SUPERVISING, started(0), started(1), exited(0, exit_code=1, stderr_tail="é\n"), STOPPING)


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    """Whatever the byte at which the reader comes in between."""
    text = b"".join(map(line, STORY))
    expected = [after(*STORY[:facts]) for facts in range(len(STORY) + 1)]
    lease = Lease(tmp_path, step(shell("exit"), shell("exit", rank=1)))
    one_by_one = lease.reader()
    for at in range(len(text)):
        assert one_by_one.read() == expected[text[:at].count(b"\n")]
        lease.append(text[at : at + 1])

    assert one_by_one.read() == after(*STORY)


@pytest.mark.parametrize("torn", range(len(STORY)))
def test_a_line_that_a_full_disk_tore_is_read_when_it_was_written_again(
    tmp_path: Path, torn: int
) -> None:
    """Whatever the byte at which the disk was full."""
    before = b"".join(map(line, STORY[:torn]))
    rest = b"".join(map(line, STORY[torn:]))
    for cut in range(len(line(STORY[torn]))):
        lease = Lease(tmp_path / str(cut), step(shell("exit"), shell("exit", rank=1)))
        lease.append(before + rest[:cut])
        reader = lease.reader()
        assert reader.read() == after(*STORY[:torn])

        lease.append(b"\n" + rest)

        assert reader.read() == after(*STORY)


@settings(deadline=None, max_examples=examples(50))
@given(st.lists(st.binary(max_size=30), max_size=4))
def test_no_bytes_confuse_a_reader(junk: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        lease = Lease(Path(folder), step(shell("exit"), shell("exit", rank=1)))
        for data in (*junk, b"[]", b"5", b"null", b'"fact"', b'{"fact": []}'):
            lease.append(data + b"\n")
        lease.append(line(started(0)) + line(started(1)))

        assert lease.reader().read() == after(started(0), started(1))


# --- a supervisor without a last word -------------------------------------------------------------


@pytest.fixture
def groups() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Process groups of the test's own; what is in the list ends with the test."""
    made: list[subprocess.Popen[bytes]] = []
    yield made
    for leader in made:
        processes.signal_groups([leader.pid], 9)
        leader.wait(10)
        if leader.stdout is not None:
            leader.stdout.close()


def group(
    groups: list[subprocess.Popen[bytes]], script: str, env: dict[str, str] = ENV
) -> tuple[int, int]:
    """A group of a shell and a process that it names: their ids."""
    command = ["/bin/sh", "-c", script]
    leader = subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0, env=env)
    groups.append(leader)
    assert leader.stdout is not None
    return leader.pid, int(leader.stdout.readline())


def ticks(pid: int) -> int:
    process = processes.look(pid)
    assert process is not None
    return process.ticks


TWO = "sleep 600 & echo $!; wait"


def test_a_lease_is_left_alone_while_its_supervisor_holds_it(
    lease: Lease, groups: list[subprocess.Popen[bytes]]
) -> None:
    pid, child = group(groups, TWO)
    lease.append(line(SUPERVISING) + line(started(0, pid, ticks(pid))))
    reader = lease.reader()
    with lease.lock():
        assert reader.look() == after(started(0, pid))

    assert not gone(pid)
    assert not gone(child)
    assert lease.told() == ["supervising", "started"]


def ended_look(reader: status.StatusReader) -> LeaseStatus:
    """The status once it has ended: what a look has killed may take a while to go."""

    def look() -> LeaseStatus | None:
        seen = reader.look()
        return seen if seen.phase is LeasePhase.ENDED else None

    return until(look, "the lease to end")


def test_what_a_lost_supervisor_had_started_is_ended(
    lease: Lease, groups: list[subprocess.Popen[bytes]]
) -> None:
    pid, child = group(groups, TWO)
    lease.append(line(SUPERVISING) + line(started(0, pid, ticks(pid))))
    reader = lease.reader()

    seen = ended_look(reader)

    words = "its supervisor was lost, and the workers that it had started were ended"
    assert (seen.phase, seen.end, seen.message) == (
        LeasePhase.ENDED,
        LeaseEnd.SUPERVISOR_LOST,
        words,
    )
    assert groups[0].wait(10) == -9
    until(lambda: gone(child), "the worker's child to end")
    assert lease.told() == ["supervising", "started", "ended"]
    assert reader.look() == lease.reader().look() == seen
    assert lease.told().count("ended") == 1


def test_a_group_is_ended_though_its_first_process_is_gone(
    lease: Lease, groups: list[subprocess.Popen[bytes]]
) -> None:
    pid, child = group(groups, "sleep 600 & echo $!")
    began = ticks(pid)
    groups[0].wait(10)
    lease.append(line(SUPERVISING) + line(started(0, pid, began)) + line(exited(0)))

    assert ended_look(lease.reader()).end is LeaseEnd.SUPERVISOR_LOST
    until(lambda: gone(child), "what the worker left behind to end")


def test_what_left_the_group_is_ended_with_its_parent(
    lease: Lease, groups: list[subprocess.Popen[bytes]]
) -> None:
    script = "setsid sh -c 'echo $$; exec sleep 600' & wait"
    pid, child = group(groups, script)
    process = processes.look(child)
    assert process is not None
    assert process.group != pid
    lease.append(line(SUPERVISING) + line(started(0, pid, ticks(pid))))

    lease.reader().look()

    until(lambda: gone(child), "the worker's child to end")


def marked(job_dir: str, attempt: str) -> StepPlan:
    marks = {"CC_JOB_DIR": job_dir, "CC_ATTEMPT": attempt}
    return step(shell("exit", env={**ENV, **marks}))


def test_what_left_both_its_group_and_its_parent_is_known_by_its_environment(
    tmp_path: Path, groups: list[subprocess.Popen[bytes]]
) -> None:
    lease = Lease(tmp_path, marked("/jobs/1", "2"))
    script = "setsid sh -c 'echo $$; exec sleep 600' &"
    pid, child = group(groups, script, lease.plan.workers[0].env)
    others = [
        group(groups, TWO, plan.workers[0].env)[1]
        for plan in (marked("/jobs/1", "1"), marked("/jobs/11", "2"), step(shell("exit")))
    ]
    groups[0].wait(10)
    lease.append(line(SUPERVISING) + line(started(0, pid)))

    seen = ended_look(lease.reader())

    assert seen.end is LeaseEnd.SUPERVISOR_LOST
    assert gone(child)
    assert not any(map(gone, others))


def test_a_lease_has_not_ended_before_the_last_of_its_processes(
    lease: Lease, groups: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may be in the kernel for long, and heed SIGKILL only afterwards."""
    pid, child = group(groups, TWO)
    lease.append(line(SUPERVISING) + line(started(0, pid, ticks(pid))))
    reader = lease.reader()
    with monkeypatch.context() as patched:
        patched.setattr(processes, "signal_all", lambda _pids, _number: None)
        assert reader.look() == after(started(0, pid))
        assert not lease.held()

    assert ended_look(reader).end is LeaseEnd.SUPERVISOR_LOST
    assert gone(child)


def test_a_group_that_has_taken_the_number_is_left_alone(
    lease: Lease, groups: list[subprocess.Popen[bytes]]
) -> None:
    """The kernel gives numbers again: then the time of the start differs."""
    pid, child = group(groups, TWO)
    lease.append(line(SUPERVISING) + line(started(0, pid, ticks(pid) - 1)) + line(exited(0)))

    assert ended_look(lease.reader()).end is LeaseEnd.SUPERVISOR_LOST
    assert not gone(pid)
    assert not gone(child)


def test_a_supervisor_that_has_not_shown_itself_yet_is_waited_for(lease: Lease) -> None:
    assert lease.reader().look() == FRESH
    assert lease.written_down() == b""


def test_a_supervisor_that_never_showed_itself_was_never_started(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = lease.reader()
    monkeypatch.setattr(status, "APPEAR_S", 0.0)

    seen = reader.look()

    assert (seen.phase, seen.end) == (LeasePhase.ENDED, LeaseEnd.SUPERVISOR_LOST)
    assert [worker.state for worker in seen.workers] == [WorkerState.WAITING] * 2
    assert lease.told() == ["ended"]


def test_a_supervisor_that_starts_late_finds_its_lease_ended(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = lease.reader()
    monkeypatch.setattr(status, "APPEAR_S", 0.0)
    reader.look()

    assert lease.supervise() == 0
    assert lease.told() == ["ended"]


def test_a_last_word_that_is_said_meanwhile_counts(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease.append(line(SUPERVISING) + line(started(0)))
    reader = lease.reader()
    real = fcntl.flock

    def end_first(fd: int, operation: int) -> None:
        lease.append(line(ENDED))
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", end_first)

    assert reader.look() == after(started(0), ENDED)
    assert lease.told() == ["supervising", "started", "ended"]


def test_a_torn_last_line_does_not_hide_the_end(lease: Lease) -> None:
    lease.append(line(SUPERVISING) + b'{"fact": "star')

    seen = ended_look(lease.reader())

    assert seen.end is LeaseEnd.SUPERVISOR_LOST
    assert lease.reader().read() == seen


def test_the_lock_is_free_after_a_look(lease: Lease) -> None:
    lease.append(line(SUPERVISING))
    before = len(os.listdir("/proc/self/fd"))
    lease.reader().look()

    assert not lease.held()
    assert len(os.listdir("/proc/self/fd")) == before


# --- orders ---------------------------------------------------------------------------------------


def test_nobody_hears_an_order_where_nobody_listens(lease: Lease) -> None:
    assert not lease.stop(0)


# --- writing down ---------------------------------------------------------------------------------


def test_facts_that_found_no_room_are_written_when_there_is_some(
    lease: Lease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes seven bytes with each write, and later all."""
    path = tmp_path / "status.jsonl"
    recorder = Recorder(str(path), 7)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
        recorder.tell("started", rank=0, pid=NO_PID, ticks=5)
        assert not recorder.flush()
    recorder.tell("started", rank=1, pid=NO_PID, ticks=5)
    assert recorder.flush()
    recorder.close()

    lease.append(path.read_bytes())
    assert lease.reader().read().phase is LeasePhase.RUNNING
