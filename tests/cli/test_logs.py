"""Output on its way to pipes and terminals, and following a job to its end."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.v1 import job_pb2, lease_pb2
from tests.cli.fake_server import FakeServer, World
from tests.cli.worlds import ago, job

if TYPE_CHECKING:
    from tests.cli.conftest import Ccctl

WHOLE = b"epoch 1\nepoch 2\n\x00\xff\x1b[2J no end"


def one_worker(state: str = "SUCCEEDED", **more: Any) -> job_pb2.Job:
    made = job(7, state, attempts=[job_pb2.Attempt(number=1)], **more)
    made.spec.update({"workers": 1})
    return made


@pytest.fixture
def laid(served: World) -> World:
    running = job(1, "ACTIVE", attempts=[job_pb2.Attempt(number=1)])
    served.jobs["jobs/1"] = [running]
    served.jobs["jobs/7"] = [one_worker()]
    return served


def test_the_bytes_of_one_worker_pass_unchanged(ccctl: Ccctl, laid: World) -> None:
    laid.logs = {(1, 0, 1): WHOLE}
    told = ccctl("logs", "7")
    assert told.out.encode("latin-1") == WHOLE
    assert told.err == ""


def test_lines_of_several_workers_begin_with_their_rank(ccctl: Ccctl, laid: World) -> None:
    told = ccctl("logs", "1")
    assert told.out.encode("latin-1").splitlines() == [
        b"[0] epoch 1",
        b"[0] epoch 2",
        b"[0] warning",
        b"[1] \x1b[31mred\x1b[0m",
        b"[1] \x00\xff no end",
    ]


def test_one_rank_of_several_passes_unchanged(ccctl: Ccctl, laid: World) -> None:
    told = ccctl("logs", "1", "--rank", "1")
    assert told.out.encode("latin-1") == laid.logs[1, 1, 1]
    assert ccctl("logs", "1", "--rank", "0", "--stderr").out == "warning\n"
    assert ccctl("logs", "1", "--rank", "0", "--stdout", "--tail", "8").out == "epoch 2\n"


def test_what_the_cap_has_dropped_is_told(ccctl: Ccctl, laid: World) -> None:
    laid.logs, laid.begins = {(1, 0, 1): b"a" * 5000 + b"\nend\n"}, {(1, 0, 1): 5001}
    told = ccctl("logs", "7")
    assert told.out == "end\n"
    words = "… the first 4.9KiB of rank 0's stdout are gone: only the newest output is kept …\n"
    assert told.err == words
    assert ccctl("logs", "7", "--since", "1h").err == words
    assert ccctl("logs", "7", "--tail", "3").err == ""


def test_output_of_which_nothing_is_kept_is_told(ccctl: Ccctl, laid: World) -> None:
    worker = lease_pb2.Worker(rank=0, stdout_bytes=5000)
    attempts = [job_pb2.Attempt(number=1, workers=[worker]), job_pb2.Attempt(number=2)]
    laid.jobs["jobs/7"], laid.logs = [job(7, "SUCCEEDED", attempts=attempts)], {}
    assert ccctl("logs", "7", "--attempt", "1").err == (
        "… nothing is here of the 4.9KiB that attempt 1 has printed: no longer kept, or not handed"
        " over by its node …\n"
    )
    for words in ((), ("--attempt", "1", "--stderr"), ("--since", "1h"), ("--attempt", "2")):
        assert ccctl("logs", "7", *words).err == ""


def test_output_of_a_time_is_that_of_all_attempts_with_a_line_between_them(
    ccctl: Ccctl, laid: World
) -> None:
    attempts = [job_pb2.Attempt(number=n) for n in (1, 2, 3)]
    laid.jobs["jobs/7"] = [job(7, "FAILED", attempts=attempts)]
    laid.jobs["jobs/7"][0].spec.update({"workers": 1})
    laid.logs = {(1, 0, 1): b"one\n", (3, 0, 1): b"three\n"}
    told = ccctl("logs", "7", "--since", "2026-03-01", "--until", "2026-03-02")
    assert (told.out, told.err) == ("one\nthree\n", "… attempt 3 of jobs/7 …\n")
    asked = [request for request in laid.requests if hasattr(request, "since_time")]
    assert [request.attempt for request in asked] == [1, 2, 3]
    times = {r.until_time.ToMicroseconds() - r.since_time.ToMicroseconds() for r in asked}
    assert times == {86_400_000_000}
    laid.requests.clear()
    assert ccctl("logs", "7", "--since", "1h", "--attempt", "3").out == "three\n"
    assert [request.attempt for request in laid.requests] == [3]
    assert ccctl("logs", "7").out == "three\n"


def test_following_tells_states_on_stderr_and_output_on_stdout(ccctl: Ccctl, laid: World) -> None:
    laid.logs = {(1, 0, 1): b"hello\n"}
    attempt = job_pb2.Attempt(number=1, state=job_pb2.ATTEMPT_STATE_RUNNING)
    laid.jobs["jobs/4"] = [
        job(4, "PENDING", reason="waits: 1 GPU is needed"),
        job(4, "ACTIVE", etag="4.2", attempts=[attempt], reason="runs"),
        job(
            4, "FAILED", etag="4.3", attempts=[attempt], reason="rank 0 exited with 3", exit_code=3
        ),
    ]
    for states in laid.jobs["jobs/4"]:
        states.spec.update({"workers": 1})
    laid.submits["again"] = laid.jobs["jobs/4"][0]
    told = submitted(ccctl, "submit", "-", "--follow", "--request-id", "again")
    assert told.code == 3
    assert told.out == "hello\n"
    assert told.err.splitlines() == [
        "Submitted jobs/4.",
        "12:00:00  jobs/4  pending: waits: 1 GPU is needed",
        "12:00:00  jobs/4  running: runs",
        "12:00:00  jobs/4  failed: rank 0 exited with 3",
    ]


def test_states_of_a_later_attempt_tell_its_number(ccctl: Ccctl, laid: World) -> None:
    attempts = [job_pb2.Attempt(number=n, state=job_pb2.ATTEMPT_STATE_RUNNING) for n in (1, 2)]
    laid.jobs["jobs/7"] = [
        one_worker("ACTIVE", reason="runs"),
        job(7, "ACTIVE", etag="2", attempts=attempts, reason="runs again"),
        job(7, "SUCCEEDED", etag="3", attempts=attempts, exit_code=0),
    ]
    laid.jobs["jobs/7"][0].attempts[0].state = job_pb2.ATTEMPT_STATE_RUNNING
    assert [line[10:] for line in ccctl("watch", "7").err.splitlines()] == [
        "jobs/7  running: runs",
        "jobs/7  running, attempt 2: runs again",
        "jobs/7  succeeded",
    ]


def submitted(ccctl: Ccctl, *arguments: str) -> Any:
    """Run a command with a job.json on stdin."""
    kept = os.dup(0)
    read, write = os.pipe()
    os.write(write, json.dumps({"command": ["hostname"]}).encode())
    os.close(write)
    os.dup2(read, 0)
    try:
        with open(0, closefd=False) as stdin, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", stdin)
            return ccctl(*arguments)
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(read)


def test_watch_tells_changes_and_exits_with_the_jobs_code(ccctl: Ccctl, laid: World) -> None:
    laid.jobs["jobs/7"] = [
        one_worker("ACTIVE", reason="runs"),
        one_worker("CANCELLED", etag="2", reason="cancelled by ada", exit_code=130, end_time=ago()),
    ]
    told = ccctl("watch", "7")
    assert (told.code, told.out) == (130, "")
    assert told.err.splitlines()[-1] == "12:00:00  jobs/7  cancelled: cancelled by ada"
    lines = [json.loads(line) for line in ccctl("watch", "7", "-o", "json").out.splitlines()]
    assert [line["state"] for line in lines] == ["active", "cancelled"]


def in_a_terminal(server: FakeServer, *arguments: str) -> tuple[int, bytes]:
    """Run `ccctl` as a process whose output is a terminal; give its exit code and what is shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from controlplane.cli.main import main; main()", *arguments],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "CCCTL_SERVER": server.address, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how a terminal says that nobody writes to it any more
            break
        shown += part
    os.close(ours)
    return process.wait(20), shown


def test_on_a_terminal_no_output_can_play_with_it() -> None:
    laid = World(jobs={"jobs/7": [one_worker(reason="ended \x1b[2J well")]})
    laid.logs = {(1, 0, 1): WHOLE + "é\x9b1m".encode() + b"\rbar\r\n"}
    with FakeServer(laid) as server:
        code, shown = in_a_terminal(server, "logs", "7")
        assert code == 0
        assert shown.decode().replace("\r\n", "\n") == (
            "epoch 1\nepoch 2\n\\x00\\xff\\x1b[2J no endé\\x9b1m\nbar\n"
        )
        code, shown = in_a_terminal(server, "show", "7")
        assert b"ended \\x1b[2J well" in shown
        assert b"\x1b[2J" not in shown
        assert b"\x1b[32msucceeded" in shown
        code, shown = in_a_terminal(server, "show", "7", "--no-color")
        assert b"\x1b[32m" not in shown


def test_interrupting_a_follow_leaves_the_job_alone(tmp_path: Any) -> None:
    file = tmp_path / "job.json"
    file.write_text('{"command": ["sleep", "9"]}')
    world = World()
    with FakeServer(world) as server:
        process = subprocess.Popen(
            [
                *("env", "--default-signal=INT"),  # whoever runs the tests may ignore it
                sys.executable,
                "-c",
                "from controlplane.cli.main import main; main()",
                "submit",
                str(file),
                "-f",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "CCCTL_SERVER": server.address},
            text=True,
        )
        with process:
            try:
                assert process.stderr is not None
                assert process.stderr.readline() == "Submitted jobs/1.\n"
                assert "jobs/1  pending" in process.stderr.readline()
                process.send_signal(signal.SIGINT)
                rest = process.stderr.read()
                code = process.wait(20)
            finally:
                process.kill()
    assert code == 130
    assert "jobs/1 runs on. Go on watching: ccctl watch 1" in rest
    assert "Traceback" not in rest
    assert world.calls["CancelJobs"] == 0


def test_a_reader_that_goes_away_is_no_error() -> None:
    laid = World(jobs={"jobs/7": [one_worker()]}, piece_bytes=60_000)
    laid.logs = {(1, 0, 1): b"line\n" * 400_000}
    with FakeServer(laid) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", "from controlplane.cli.main import main; main()", "logs", "7"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "CCCTL_SERVER": server.address},
        )
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(5) == b"line\n"
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(20) == 1


def in_a_shell(server: FakeServer, line: str) -> subprocess.CompletedProcess[str]:
    """A line for a shell, in which `"$@"` is `ccctl`."""
    command = ["sh", "-c", line, "sh", sys.executable, "-c"]
    command.append("from controlplane.cli.main import main; main()")
    env = {**os.environ, "CCCTL_SERVER": server.address}
    env.pop("PYTHONUNBUFFERED", None)  # where it is set, errors of output show earlier
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=30, check=False)


@pytest.mark.parametrize("words", ["list", "logs 7"])
def test_output_that_finds_no_room_is_no_fault_of_ccctl(words: str, laid: World) -> None:
    laid.logs = {(1, 0, 1): b"line\n"}
    with FakeServer(laid) as server:
        done = in_a_shell(server, f'"$@" {words} > /dev/full')
    assert done.returncode == 1
    told = "The output, or a temporary file, can't be written: No space left on device."
    assert done.stderr == f"Error: {told}\n"


def test_a_reader_that_never_reads_is_no_error_of_many_words(laid: World) -> None:
    with FakeServer(laid) as server:
        done = in_a_shell(server, '{ "$@" list; echo $? >&2; } | true')
    assert done.stderr in ("0\n", "1\n"), "one that was quick enough had room in the pipe"


@pytest.mark.parametrize("words", ["list", "logs 7"])
def test_who_has_closed_its_streams_does_without_them(words: str, laid: World) -> None:
    laid.logs = {(1, 0, 1): b"line\n"}
    with FakeServer(laid) as server:
        for closed in (">&-", "<&- >&- 2>&-"):
            done = in_a_shell(server, f'"$@" {words} {closed}')
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), closed


def test_a_word_that_is_not_utf_8_is_told_as_that(laid: World) -> None:
    with FakeServer(laid) as server:
        done = in_a_shell(server, '"$@" list --name "$(printf \'\\377\')"')
    assert done.returncode == 2
    assert done.stderr.startswith("Error: '\\udcff' is not UTF-8")
