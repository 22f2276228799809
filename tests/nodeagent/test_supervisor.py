"""Real supervisors, made by a real spawner, that hold real processes."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane.model.lease import LeaseEnd, LeasePhase, WorkerState
from nodeagent import status
from nodeagent.plan import RendezvousPlan, StepPlan, WorkerPlan
from nodeagent.spawning import Spawner
from nodeagent.status import signal_workers
from nodeagent.supervision import kernel, processes
from tests.support.ports import free_port
from tests.support.supervised import ENV, FREEZER, Lease, frozen, gone, shell, step, until, worker

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 1; done"
POLITE = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
FAILING = "while ! [ -e go ]; do sleep 0.01; done; exit 3"
FOR_LONG = "echo ready; exec sleep 600"

Make = Callable[[StepPlan | str], Lease]


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes leases; what runs of them ends with the test."""
    made: list[Lease] = []

    def one(plan: StepPlan | str) -> Lease:
        made.append(Lease(tmp_path / "leases", plan))
        return made[-1]

    yield one
    for lease in made:
        lease.close()
        assert lease.faults() == ""


@pytest.fixture
def start(make: Make, spawner: Spawner) -> Callable[[StepPlan], Lease]:
    """Makes a lease and has it supervised."""
    return lambda plan: make(plan).spawn(spawner)


Start = Callable[[StepPlan], Lease]


def children_of(lease: Lease) -> list[int]:
    """The processes that its supervisor has started itself."""
    pid = lease.supervisor()
    found = map(processes.look, processes.descendants(pid))
    return [child.pid for child in found if child is not None and child.parent == pid]


# --- how workers end ------------------------------------------------------------------------------


def test_a_worker_that_ends_well_ends_its_lease(start: Start) -> None:
    lease = start(step(shell("echo out; echo err >&2")))

    over = lease.ended()

    assert (over.lease_id, over.token) == (7, 3)
    assert (over.end, over.message) == (LeaseEnd.NATURAL, "")
    (only,) = over.workers
    assert (only.state, only.exit_code, only.signal) == (WorkerState.ENDED, 0, None)
    assert (only.stdout_bytes, only.stderr_bytes, only.stderr_tail) == (4, 4, "")
    assert only.started_us is not None
    assert only.ended_us is not None
    assert only.started_us <= only.ended_us
    assert lease.told() == ["supervising", "started", "exited", "ended"]
    assert lease.printed() == b"out\n"
    assert lease.printed(stream="err") == b"err\n"


def test_the_most_memory_that_a_worker_had_is_told_with_its_end(start: Start) -> None:
    hungry = f"{sys.executable} -c 'kept = bytearray(200 << 20); del kept'"
    lease = start(step(shell("exit"), shell(hungry, rank=1)))

    small, large = (worker.peak_memory_bytes or 0 for worker in lease.ended().workers)

    assert 0 < small < 100 << 20
    assert 200 << 20 <= large < 300 << 20


def test_an_exit_code_is_kept_with_the_last_words(start: Start) -> None:
    over = start(step(shell("echo fine; echo no such data >&2; exit 3"))).ended()

    assert over.end is LeaseEnd.NATURAL
    (only,) = over.workers
    assert (only.exit_code, only.signal, only.stderr_tail) == (3, None, "no such data\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_that_ended_a_worker_is_kept(start: Start, number: signal.Signals) -> None:
    (only,) = start(step(shell(f"ulimit -c 0; kill -{number.value} $$"))).ended().workers

    assert (only.exit_code, only.signal) == (None, number.value)


@pytest.mark.parametrize(
    ("plan", "code", "words"),
    [
        (
            worker("no-such-program", "x"),
            127,
            f"cannot run 'no-such-program': not found in PATH={ENV['PATH']}\n",
        ),
        (
            worker("/no/such/program"),
            127,
            "cannot run '/no/such/program': No such file or directory\n",
        ),
        (worker("/etc/passwd"), 126, "cannot run '/etc/passwd': Permission denied\n"),
        (worker("/etc"), 126, "cannot run '/etc': Permission denied\n"),
        (
            worker("true", cwd="/no/such/folder"),
            126,
            "cannot enter the working directory '/no/such/folder': No such file or directory\n",
        ),
        (
            worker("true", cwd="/etc/passwd"),
            126,
            "cannot enter the working directory '/etc/passwd': Not a directory\n",
        ),
    ],
    ids=["not in PATH", "not there", "not executable", "a folder", "no cwd", "cwd is a file"],
)
def test_what_cannot_be_run_says_why(start: Start, plan: WorkerPlan, code: int, words: str) -> None:
    lease = start(step(plan))

    over = lease.ended()

    assert over.end is LeaseEnd.NATURAL
    (only,) = over.workers
    assert (only.exit_code, only.stderr_tail) == (code, words)
    assert lease.printed(stream="err") == words.encode()


def test_a_script_needs_to_say_who_runs_it(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo hello\n")
    script.chmod(0o755)

    (only,) = start(step(worker(str(script)))).ended().workers

    assert only.exit_code == 126
    assert only.stderr_tail.endswith("Exec format error (a script needs a #! line)\n")


# --- what workers are given -----------------------------------------------------------------------


def test_the_environment_is_what_was_planned_and_nothing_else(start: Start) -> None:
    env = {"PATH": "/usr/bin:/bin", "WORDS": "größer =\n'$HOME'", "EMPTY": ""}
    lease = start(step(worker("env", "-0", env=env)))
    lease.ended()

    got = dict(entry.split("=", 1) for entry in lease.printed().decode().split("\0")[:-1])
    assert got == env


def test_arguments_go_through_no_shell(start: Start, tmp_path: Path) -> None:
    words = ("$HOME", "a b", "*", "", "größer", ";exit 3")
    lease = start(step(worker("printf", "<%s>", *words, cwd=str(tmp_path))))

    assert lease.ended().workers[0].exit_code == 0
    assert lease.printed().decode() == "".join(f"<{word}>" for word in words)


def test_a_worker_has_its_own_group_folder_and_streams_and_no_other_files(
    start: Start, tmp_path: Path
) -> None:
    script = (
        "pwd; umask; readlink /proc/self/fd/0; ls /proc/self/fd | wc -l;"
        " cut -d' ' -f1,5 /proc/$$/stat; grep -E 'SigBlk|SigIgn' /proc/self/status"
    )
    lease = start(step(shell(script, cwd=str(tmp_path))))
    (only,) = lease.ended().workers

    *lines, ignored = lease.printed().decode().splitlines()
    assert lines == [
        str(tmp_path),
        "0022",
        "/dev/null",
        "4",  # the three streams, and the listing's own
        f"{only.pid} {only.pid}",
        "SigBlk:\t0000000000000000",
    ]
    # The C library keeps signals 32 and 33 to itself, and ignores them until it needs them.
    assert int(ignored.removeprefix("SigIgn:"), 16) & ~(0b11 << 31) == 0


@pytest.mark.parametrize("hostname", ["", pytest.param("node7", marks=pytest.mark.root)])
def test_a_worker_ignores_no_signal_that_its_agent_was_started_to_ignore(
    make: Make, hostname: str
) -> None:
    grep = worker("grep", "SigIgn", "/proc/self/status", hostname=hostname)
    lease = make(step(grep))
    ignoring = ("import signal", "signal.signal(signal.SIGQUIT, signal.SIG_IGN)")

    assert lease.supervise(before="\n".join(ignoring)) == 0

    quit_bit = 1 << (signal.SIGQUIT - 1)
    assert int(lease.printed().decode().split()[1], 16) & quit_bit == 0


@pytest.mark.parametrize("core", sorted(os.sched_getaffinity(0))[:2])
def test_a_worker_runs_on_its_own_cores(start: Start, core: int) -> None:
    grep = worker("grep", "Cpus_allowed_list", "/proc/self/status", cpu_ids=(core,))
    lease = start(step(grep))
    lease.ended()

    assert lease.printed().decode().split() == ["Cpus_allowed_list:", str(core)]


def test_workers_have_the_limits_of_the_site(start: Start) -> None:
    limits = (("core", 0), ("nofile", 333))
    lease = start(step(shell("ulimit -n; ulimit -c; ulimit -Hn"), limits=limits))
    lease.ended()

    assert lease.printed().split() == [b"333", b"0", b"333"]


def test_a_limit_that_the_agent_may_not_give_is_a_failed_launch(make: Make) -> None:
    lease = make(step(shell("exit"), limits=(("nofile", 4096),)))
    lowered = ("import resource", "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))")
    unprivileged = ("setpriv", "--bounding-set=-sys_resource") if os.geteuid() == 0 else ()

    assert lease.supervise(*unprivileged, before="\n".join(lowered)) == 0

    over = lease.ended()
    assert over.end is LeaseEnd.LAUNCH_FAILED
    assert over.message == (
        "cannot start a worker: limits.nofile: 4096 is more than this agent may give, which is 100;"
        " raise LimitNOFILE= in its unit, or lower it"
    )


def test_cores_that_the_host_has_not_are_a_failed_launch(start: Start) -> None:
    lease = start(step(shell(FOR_LONG), shell(FOR_LONG, rank=1, cpu_ids=(900, 901))))

    over = lease.ended()

    assert over.end is LeaseEnd.LAUNCH_FAILED
    assert over.message == "rank 1: this host cannot give it cores 900,901: Invalid argument"
    assert [w.exit_code for w in over.workers] == [None, 125]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a host another name")
def test_a_worker_may_live_under_another_hostname(start: Start) -> None:
    lease = start(step(worker("uname", "-n", hostname="node7"), worker("uname", "-n", rank=1)))
    lease.ended()

    assert lease.printed(0) == b"node7\n"
    assert lease.printed(1).decode() == f"{os.uname().nodename}\n"


# --- output ---------------------------------------------------------------------------------------


def test_all_output_is_kept_when_a_worker_ends_at_once(start: Start) -> None:
    script = "head -c 3000000 /dev/zero; head -c 100000 /dev/zero >&2; printf end"
    lease = start(step(shell(script)))

    (only,) = lease.ended().workers

    assert (only.stdout_bytes, only.stderr_bytes) == (3_000_003, 100_000)
    assert lease.printed() == bytes(3_000_000) + b"end"
    assert lease.printed(stream="err") == bytes(100_000)


def test_only_the_newest_output_is_kept(start: Start) -> None:
    plan = step(shell("seq 100000"), log_segment_bytes=1000, log_cap_bytes=10_000)
    lease = start(plan)
    whole = "".join(f"{number}\n" for number in range(1, 100_001)).encode()

    (only,) = lease.ended().workers

    assert only.stdout_bytes == len(whole)
    printed = lease.printed()
    assert 8_000 < len(printed) <= 10_000
    assert whole.endswith(printed)


def test_output_is_there_while_the_worker_runs(start: Start) -> None:
    lease = start(step(shell(FOR_LONG)))

    lease.waits_for(b"ready\n")

    assert lease.running().workers[0].state is WorkerState.RUNNING


def test_what_a_leftover_prints_is_counted_too(start: Start, tmp_path: Path) -> None:
    """It comes after its worker's exit, which told the bytes until then."""
    leftover = "(trap 'echo late; exit' TERM; echo up; : > up; while :; do sleep 0.01; done) &"
    script = f"{leftover} while ! [ -e up ]; do sleep 0.01; done"
    lease = start(step(shell(script, cwd=str(tmp_path))))

    (only,) = lease.ended().workers

    assert lease.printed() == b"up\nlate\n"
    assert only.stdout_bytes == len(b"up\nlate\n")
    (exited,) = (fact for fact in lease.facts() if fact["fact"] == "exited")
    assert exited["stdout_bytes"] == len(b"up\n")


# --- the end of all -------------------------------------------------------------------------------


def test_a_child_that_hides_in_a_session_of_its_own_is_ended(start: Start) -> None:
    """Forked twice, with a session of its own, as daemons are."""
    script = "(setsid sh -c 'echo $$; exec sleep 600' &) ; while :; do sleep 0.01; done"
    lease = start(step(shell(script)))
    lease.waits_for(b"\n")
    hidden = int(lease.printed())
    process = processes.look(hidden)
    assert process is not None
    assert process.session == hidden
    processes.signal_all([lease.running().workers[0].pid], signal.SIGKILL)

    assert lease.ended().end is LeaseEnd.NATURAL
    assert gone(hidden)


def test_a_leftover_that_ignores_sigterm_is_killed(start: Start, tmp_path: Path) -> None:
    leftover = "trap '' TERM; : > up; while :; do sleep 1; done"
    script = f'(setsid sh -c "{leftover}" &); while ! [ -e up ]; do sleep 0.01; done'
    lease = start(step(shell(script, cwd=str(tmp_path))))

    (only,) = lease.ended().workers

    assert only.exit_code == 0
    assert "stopping" not in lease.told()


def test_a_rank_that_fails_ends_the_others(start: Start, tmp_path: Path) -> None:
    failing = shell(FAILING, rank=1, cwd=str(tmp_path))
    lease = start(step(shell(POLITE), failing, shell(POLITE, rank=2)))
    for rank in (0, 2):
        lease.waits_for(b"ready\n", rank)

    (tmp_path / "go").touch()

    over = lease.ended()
    assert (over.end, over.message) == (LeaseEnd.NATURAL, "rank 1 failed")
    assert [w.exit_code for w in over.workers] == [0, 3, 0]
    assert "stopping" in lease.told()


def test_a_rank_that_ends_well_leaves_the_others_alone(start: Start) -> None:
    lease = start(step(shell("exit 0"), shell(FOR_LONG, rank=1)))
    until(lambda: "exited" in lease.told(), "rank 0 to end")
    lease.waits_for(b"ready\n", rank=1)

    assert lease.running().workers[1].state is WorkerState.RUNNING
    assert "stopping" not in lease.told()


def test_the_others_get_the_grace_of_a_failure(start: Start, tmp_path: Path) -> None:
    failing = shell(FAILING, rank=1, cwd=str(tmp_path))
    lease = start(step(shell(STUBBORN), failing, failure_grace_ms=50))
    lease.waits_for(b"ready\n")

    (tmp_path / "go").touch()

    over = lease.ended()
    assert over.message == "rank 1 failed"
    assert over.workers[0].signal == signal.SIGKILL


# --- orders ---------------------------------------------------------------------------------------


def test_a_stop_asks_first(start: Start) -> None:
    lease = start(step(shell(POLITE)))
    lease.waits_for(b"ready\n")

    assert lease.stop(60_000)

    over = lease.ended()
    assert (over.end, over.message) == (LeaseEnd.ORDERED, "")
    assert over.workers[0].exit_code == 0
    assert lease.printed() == b"ready\nbye\n"
    assert lease.told() == ["supervising", "started", "stopping", "exited", "ended"]


def test_a_stop_reaches_the_children_of_a_worker(start: Start) -> None:
    lease = start(step(shell("sleep 600 & echo $!; wait")))
    lease.waits_for(b"\n")

    lease.stop(60_000)

    assert lease.ended().workers[0].signal == signal.SIGTERM
    assert gone(int(lease.printed()))


def test_a_worker_that_ignores_sigterm_is_killed_when_its_grace_is_over(start: Start) -> None:
    lease = start(step(shell(STUBBORN)))
    lease.waits_for(b"ready\n")
    began = kernel.boot_us()

    lease.stop(100)

    (only,) = lease.ended().workers
    assert kernel.boot_us() - began >= 100_000
    assert (only.exit_code, only.signal) == (None, signal.SIGKILL)


def test_what_no_signal_ends_is_told_and_waited_for(start: Start) -> None:
    if not os.access(FREEZER, os.W_OK):
        pytest.skip("nothing can be frozen here")
    lease = start(step(shell(FOR_LONG)))
    lease.waits_for(b"ready")
    pid = lease.running().workers[0].pid
    with frozen(pid, f"stuck-{os.getpid()}"):
        assert lease.stop(0)
        reader = lease.reader()
        told = until(lambda: reader.read().stuck, "the supervisor to tell")
        name = processes.look(pid)
        assert name is not None
        words = "these do not end, though they were killed"
        assert told == f"{words}: {pid} ({name.name}, state D)"
        assert reader.read().phase is LeasePhase.STOPPING
    over = lease.ended()
    assert (over.end, over.stuck) == (LeaseEnd.ORDERED, "")
    assert lease.told().count("stuck") == 1


def test_a_second_stop_cuts_the_grace_short(start: Start) -> None:
    lease = start(step(shell(STUBBORN)))
    lease.waits_for(b"ready\n")
    lease.stop(60_000)
    until(lambda: "stopping" in lease.told(), "the stop to be heard")

    lease.stop(0, "time_limit")

    over = lease.ended()
    assert over.end is LeaseEnd.ORDERED
    assert over.workers[0].signal == signal.SIGKILL


def test_a_stopped_process_can_heed_a_stop(start: Start) -> None:
    lease = start(step(shell(POLITE)))
    lease.waits_for(b"ready\n")
    pid = lease.running().workers[0].pid
    os.kill(pid, signal.SIGSTOP)
    until(lambda: (p := processes.look(pid)) is not None and p.state == "T", "it to be stopped")

    lease.stop(60_000)

    assert lease.ended().workers[0].exit_code == 0


def test_what_is_no_order_is_passed_over(start: Start) -> None:
    lease = start(step(shell(FOR_LONG)))
    lease.running()
    for data in (b"", b"stop", b"[]", b'{"do": "stop"}', b'{"do":"go","why":"","grace_ms":0}'):
        assert lease.send(data)

    assert lease.stop(0, "ordered")
    assert lease.ended().end is LeaseEnd.ORDERED


def test_a_supervisor_that_is_told_to_end_ends_its_lease(start: Start) -> None:
    lease = start(step(shell(POLITE)))
    lease.waits_for(b"ready\n")

    os.kill(lease.supervisor(), signal.SIGTERM)

    over = lease.ended()
    assert over.end is LeaseEnd.ORDERED
    assert over.message == "the supervisor was told to end by SIGTERM"
    assert over.workers[0].exit_code == 0


def test_nobody_hears_an_order_after_the_end(start: Start) -> None:
    lease = start(step(shell("exit")))
    lease.ended()
    until(lambda: not lease.held(), "the supervisor to go")

    assert not lease.stop(0)


# --- time -----------------------------------------------------------------------------------------


def test_the_time_limit_ends_the_workers(start: Start) -> None:
    lease = start(step(shell(POLITE), time_limit_ms=300))

    over = lease.ended()

    assert over.end is LeaseEnd.TIME_LIMIT
    assert over.message == "the time limit of 0.3 s was reached"
    (only,) = over.workers
    assert only.ended_us is not None
    assert only.started_us is not None
    assert only.ended_us - only.started_us >= 290_000


# --- the warning, and signals ---------------------------------------------------------------------

LISTENING = (
    'for n in HUP USR1 USR2; do trap "echo got $n" $n; done;'
    " echo ready; while :; do sleep 0.01; done"
)


def test_workers_are_warned_before_the_time_limit_and_then_ended(start: Start) -> None:
    two = (shell(LISTENING, rank=rank) for rank in range(2))
    warned = {"warn_signal": signal.SIGUSR2, "warn_before_ms": 700, "time_limit_ms": 1_200}
    lease = start(step(*two, **warned))

    over = lease.ended()

    assert over.end is LeaseEnd.TIME_LIMIT
    assert lease.told() == [
        *("supervising", "started", "started"),
        *("warned", "stopping", "exited", "exited", "ended"),
    ]
    assert [lease.printed(rank) for rank in range(2)] == [b"ready\ngot USR2\n"] * 2
    assert over.warned_us is not None
    began = max(worker.started_us or 0 for worker in over.workers)
    assert 490_000 <= over.warned_us - began < 1_200_000


def test_a_warning_reaches_the_children_of_a_worker_too(start: Start) -> None:
    child = "trap 'echo child; exit' USR2; echo r; while :; do sleep 0.01; done"
    script = f"trap : USR2; ({child}) & wait; wait"
    lease = start(
        step(shell(script), warn_signal=signal.SIGUSR2, warn_before_ms=58_000, time_limit_ms=60_000)
    )

    assert lease.ended().workers[0].exit_code == 0
    assert lease.printed() == b"r\nchild\n"


def test_signals_reach_those_that_they_are_for_once_and_are_told(start: Start) -> None:
    lease = start(step(*(shell(LISTENING, rank=rank) for rank in range(3))))
    lease.running()
    for rank in range(3):
        lease.waits_for(b"ready\n", rank)
    reader = lease.reader()

    def send(number: int, which: int, *ranks: int) -> None:
        for _ in range(3):
            assert signal_workers(lease.control, number, which, ranks)
        until(lambda: reader.read().signals_done == number, f"signal {number} to be told")

    send(2, signal.SIGUSR1)
    send(3, signal.SIGHUP, 0, 2, 9)
    send(7, signal.SIGUSR2, 1)
    signal_workers(lease.control, 6, signal.SIGHUP, ())  # late, and so a repeat
    lease.waits_for(b"got USR2\n", 1)
    lease.waits_for(b"got HUP\n", 2)
    lease.waits_for(b"got HUP\n", 0)

    lease.stop(60_000)
    lease.ended()

    said = [sorted(lease.printed(rank).split(b"\n")[1:-1]) for rank in range(3)]
    assert said == [
        [b"got HUP", b"got USR1"],
        [b"got USR1", b"got USR2"],
        [b"got HUP", b"got USR1"],
    ]
    told = [f for f in lease.facts() if f["fact"] == "signalled"]
    assert [(f["number"], f["ranks"]) for f in told] == [(2, [0, 1, 2]), (3, [0, 2]), (7, [1])]


def test_a_worker_to_which_another_hands_signals_on_gets_none_itself(start: Start) -> None:
    deaf = shell(LISTENING, rank=1, hears_signals=False)
    lease = start(step(shell(LISTENING), deaf))
    lease.running()
    for rank in range(2):
        lease.waits_for(b"ready\n", rank)

    signal_workers(lease.control, 1, signal.SIGUSR1, ())

    lease.waits_for(b"got USR1\n")
    lease.stop(60_000)
    lease.ended()
    assert lease.printed(1) == b"ready\n"


def test_a_signal_that_is_not_handled_ends_the_worker(start: Start) -> None:
    lease = start(step(shell(FOR_LONG)))
    lease.waits_for(b"ready\n")

    signal_workers(lease.control, 1, signal.SIGUSR1, ())

    over = lease.ended()
    assert (over.end, over.workers[0].signal) == (LeaseEnd.NATURAL, signal.SIGUSR1)
    assert over.signals_done == 1


def test_when_one_asks_to_be_started_again_the_others_get_their_whole_grace(
    start: Start, tmp_path: Path
) -> None:
    saves = "trap 'sleep 0.5; echo saved; exit 75' TERM; echo ready; while :; do sleep 0.01; done"
    asks = shell(FAILING.replace("3", "75"), rank=1, cwd=str(tmp_path))
    lease = start(step(shell(saves), asks, failure_grace_ms=0, requeue_exit_codes=(75,)))
    lease.waits_for(b"ready\n")

    (tmp_path / "go").touch()

    assert [worker.exit_code for worker in lease.ended().workers] == [75, 75]
    assert lease.printed() == b"ready\nsaved\n"


def test_a_deadline_in_the_past_lets_nothing_start(start: Start, tmp_path: Path) -> None:
    deadline = tmp_path / "deadline"
    deadline.write_text(f"{kernel.boot_us() - 1}\n")
    lease = start(step(shell(FOR_LONG), deadline_file=str(deadline)))

    over = lease.ended()

    assert over.end is LeaseEnd.FENCED
    assert over.message == "the control plane was silent past the node's lease"
    assert over.workers[0].state is WorkerState.WAITING
    assert lease.told() == ["supervising", "stopping", "ended"]


def test_a_start_that_was_forbidden_before_there_was_a_supervisor_is_none(
    make: Make, spawner: Spawner
) -> None:
    lease = make(step(shell(FOR_LONG)))
    status.forbid(lease.control)

    over = lease.spawn(spawner).ended()

    assert over.end is LeaseEnd.ORDERED
    assert over.workers[0].state is WorkerState.WAITING
    assert lease.told() == ["supervising", "stopping", "ended"]


def test_past_its_deadline_a_lease_is_ended_without_grace(start: Start, tmp_path: Path) -> None:
    """It is written when the lease runs already; until then nobody fences."""
    deadline = tmp_path / "deadline"
    lease = start(step(shell(STUBBORN), deadline_file=str(deadline)))
    lease.waits_for(b"ready\n")

    deadline.write_text(f"{kernel.boot_us()}\n")

    over = lease.ended()
    assert over.end is LeaseEnd.FENCED
    assert over.workers[0].signal == signal.SIGKILL


@pytest.mark.slow
def test_a_deadline_that_is_moved_on_ends_nothing(start: Start, tmp_path: Path) -> None:
    deadline = tmp_path / "deadline"
    first_us = kernel.boot_us() + 2_000_000
    deadline.write_text(f"{first_us}\n")
    lease = start(step(shell(FOR_LONG), deadline_file=str(deadline)))
    lease.running()
    later = tmp_path / "deadline.new"
    second_us = first_us + 500_000
    later.write_text(f"{second_us}\n")
    later.replace(deadline)

    over = lease.ended()

    assert over.end is LeaseEnd.FENCED
    assert kernel.boot_us() >= second_us


def test_without_a_deadline_yet_a_lease_runs(start: Start, tmp_path: Path) -> None:
    lease = start(step(shell("exit 0"), deadline_file=str(tmp_path / "deadline")))

    assert lease.ended().end is LeaseEnd.NATURAL


# --- before the workers ---------------------------------------------------------------------------


@pytest.fixture
def port() -> int:
    """A port of this host that nobody listens on."""
    return free_port()


def store(port: int) -> RendezvousPlan:
    return RendezvousPlan(host="127.0.0.1", port=port, scopes={"global": 1}, secret="open sesame")


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    return False


def test_a_store_is_served_while_the_workers_run(start: Start, port: int) -> None:
    lease = start(step(shell(POLITE), rendezvous=store(port), wait_for=("127.0.0.1", port)))
    lease.waits_for(b"ready\n")
    assert answers(port)

    lease.stop(60_000)

    assert lease.ended().workers[0].exit_code == 0
    assert not answers(port)


def test_the_workers_end_of_itself_ends_the_store(start: Start, port: int) -> None:
    lease = start(step(shell("exit 0"), rendezvous=store(port), wait_for=("127.0.0.1", port)))

    assert (lease.ended().end, lease.ended().message) == (LeaseEnd.NATURAL, "")
    assert lease.told() == ["supervising", "started", "exited", "ended"]
    assert not answers(port)


def test_a_port_that_is_taken_is_a_failed_launch(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        over = start(step(shell(FOR_LONG), rendezvous=store(port))).ended()

    assert over.end is LeaseEnd.LAUNCH_FAILED
    assert over.message == f"the rendezvous store at 127.0.0.1:{port}: Address already in use"
    assert over.workers[0].state is WorkerState.WAITING


def test_a_store_that_is_lost_is_a_failed_launch(start: Start, port: int) -> None:
    lease = start(step(shell(POLITE), rendezvous=store(port)))
    lease.waits_for(b"ready\n")
    (helper,) = set(children_of(lease)) - {lease.running().workers[0].pid}

    os.kill(helper, signal.SIGKILL)

    over = lease.ended()
    assert over.end is LeaseEnd.LAUNCH_FAILED
    assert over.message == f"the rendezvous store at 127.0.0.1:{port} ended"


def test_workers_wait_for_the_gangs_store(start: Start, port: int) -> None:
    lease = start(step(shell("exit 0"), wait_for=("127.0.0.1", port)))
    lease.supervisor()
    assert lease.reader().read().phase is LeasePhase.STARTING

    with socket.create_server(("127.0.0.1", port)):
        assert lease.ended().workers[0].exit_code == 0


def test_a_store_that_never_answers_is_a_failed_launch(start: Start, port: int) -> None:
    over = start(step(shell("exit 0"), wait_for=("127.0.0.1", port), wait_ms=100)).ended()

    assert over.end is LeaseEnd.LAUNCH_FAILED
    assert over.message == f"rank 0's rendezvous at 127.0.0.1:{port} did not answer within 0.1 s"


def test_who_waits_can_be_stopped(start: Start, port: int) -> None:
    lease = start(step(shell("exit 0"), wait_for=("127.0.0.1", port)))
    until(lambda: lease.stop(60_000), "the supervisor to listen")

    over = lease.ended()

    assert over.end is LeaseEnd.ORDERED
    assert over.workers[0].state is WorkerState.WAITING


def test_a_helper_that_is_killed_while_it_waits_is_a_failed_launch(start: Start, port: int) -> None:
    lease = start(step(shell("exit 0"), wait_for=("127.0.0.1", port)))
    (helper,) = until(lambda: children_of(lease), "the supervisor to wait")

    os.kill(helper, signal.SIGKILL)

    over = lease.ended()
    assert over.end is LeaseEnd.LAUNCH_FAILED
    assert over.message == f"the wait for rank 0's rendezvous at 127.0.0.1:{port} ended"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to count processes by itself")
def test_numbers_of_processes_may_start_over_between_two_helpers(make: Make, port: int) -> None:
    """The store has the last number that there is, and who waits for it one of the first."""
    lease = make(step(shell("sleep 0.1"), rendezvous=store(port), wait_for=("127.0.0.1", port)))
    before = """
with open("/proc/sys/kernel/pid_max") as file:
    last = int(file.read()) - 3
with open("/proc/sys/kernel/ns_last_pid", "w") as file:
    file.write(str(last))
if pid := os.fork():
    os.waitpid(pid, 0)
    sys.exit()
"""

    unshare = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*unshare, "true"], timeout=20, check=False).returncode:
        pytest.skip("no namespace of processes can be made here")
    assert lease.supervise(*unshare, before=before) == 0

    assert lease.supervisor() > 1000
    over = lease.ended()
    assert over.workers[0].pid < 1000
    assert (over.end, over.message) == (LeaseEnd.NATURAL, "")


def test_a_folder_with_another_plan_is_a_failed_launch(make: Make, spawner: Spawner) -> None:
    lease = make("{}").spawn(spawner)

    until(lambda: "ended" in lease.told(), "the supervisor to give up")

    (fact,) = lease.facts()
    assert fact["end"] == "launch_failed"
    assert "is no plan: KeyError: 'workers'" in fact["message"]


def test_a_folder_that_is_gone_leaves_no_trace(tmp_path: Path, make: Make) -> None:
    code = "from nodeagent.supervisor import supervise; supervise('gone', '')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=20, check=False)

    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


# --- the death of a supervisor or a spawner -------------------------------------------------------


def test_workers_do_not_outlive_their_supervisor(start: Start) -> None:
    lease = start(step(shell(STUBBORN), shell(FOR_LONG, rank=1)))
    pids = [w.pid for w in lease.running().workers]
    lease.waits_for(b"ready\n")

    os.kill(lease.supervisor(), signal.SIGKILL)

    until(lambda: all(map(gone, pids)), "the workers to end")
    until(lambda: not lease.held(), "the supervisor to be gone")
    over = lease.reader().look()
    assert (over.phase, over.end) == (LeasePhase.ENDED, LeaseEnd.SUPERVISOR_LOST)


@pytest.mark.parametrize("agent_is_there", [True, False], ids=["with an agent", "without"])
def test_nothing_that_workers_started_outlives_their_supervisor_either(
    make: Make, agent_is_there: bool
) -> None:
    spawner = Spawner()
    script = "setsid sh -c 'setsid sleep 1000 & echo $! $$; wait' & echo $!; wait"
    lease = make(step(shell(script))).spawn(spawner)
    until(lambda: len(lease.printed().split()) == 3, "three processes to tell of themselves")
    pids = [int(word) for word in lease.printed().split()]
    guardian = spawner.pid
    if not agent_is_there:
        spawner.close()
    assert not any(map(gone, [guardian, *pids]))

    os.kill(lease.supervisor(), signal.SIGKILL)

    until(lambda: all(map(gone, pids)), "all of them to end")
    spawner.close()
    until(lambda: gone(guardian), "the spawner to go with the last of its supervisors")


@pytest.mark.slow
def test_a_second_supervisor_leaves_a_lease_alone_that_is_held(start: Start) -> None:
    lease = start(step(shell(FOR_LONG)))
    lease.waits_for(b"ready\n")
    before = lease.written_down()

    assert lease.supervise() == 0

    assert lease.written_down() == before
    assert lease.stop(0)  # the first one still hears
    assert lease.ended().end is LeaseEnd.ORDERED


def test_a_second_supervisor_leaves_a_lease_alone_that_has_ended(start: Start) -> None:
    lease = start(step(shell("echo once")))
    lease.ended()
    until(lambda: not lease.held(), "the first to go")
    before = lease.written_down()

    assert lease.supervise() == 0

    assert lease.written_down() == before
    assert lease.printed() == b"once\n"


def test_an_agents_look_does_not_keep_a_supervisor_from_starting(
    make: Make, spawner: Spawner
) -> None:
    lease = make(step(shell("exit 0")))
    with lease.lock():
        lease.spawn(spawner)
        spawned = spawner.pid
        until(lambda: processes.descendants(spawned), "a supervisor that finds the lock held")

    assert lease.ended().workers[0].exit_code == 0


def test_the_agent_is_nudged_after_every_change(start: Start, tmp_path: Path) -> None:
    """By the lease's number."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
        agent.settimeout(10)
        agent.bind(str(tmp_path / "agent.sock"))
        lease = start(step(shell(FOR_LONG), notify_socket=str(tmp_path / "agent.sock")))
        seen = [agent.recv(64)]
        while lease.reader().read().phase is not LeasePhase.RUNNING:
            seen.append(agent.recv(64))
        assert lease.stop(0)
        seen.append(agent.recv(64))
        while lease.reader().read().phase is not LeasePhase.ENDED:
            seen.append(agent.recv(64))

    assert set(seen) == {b"7"}


def test_supervisors_outlive_their_spawner(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    first, second, third = (make(step(shell(POLITE), lease_id=number)) for number in (11, 12, 13))
    spawner = Spawner()
    try:
        first.spawn(spawner).running()
        with caplog.at_level(logging.WARNING):
            pid = spawner.pid
            os.kill(pid, signal.SIGKILL)
            until(lambda: gone(pid), "the spawner to die")
            second.spawn(spawner).running()
        assert "the spawner died" in caplog.text
        spawner.close()
        third.spawn(spawner).running()
    finally:
        spawner.close()

    for lease in (first, second, third):
        lease.waits_for(b"ready\n")
        assert lease.stop(60_000)
        assert lease.ended().workers[0].exit_code == 0


def test_many_leases_are_held_at_once(make: Make, spawner: Spawner) -> None:
    leases = [make(step(shell(f"echo {n}"), lease_id=100 + n)).spawn(spawner) for n in range(8)]

    assert [lease.ended().workers[0].exit_code for lease in leases] == [0] * 8
    assert [lease.printed() for lease in leases] == [b"%d\n" % n for n in range(8)]
