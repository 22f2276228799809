"""`ccctl run` with a terminal or with standard input, with real daemons."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controlplane.cli.attended import HOLD
from controlplane.v1 import job_pb2
from tests.support.cluster import Cluster, alive, cluster, until
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from controlplane.v1.job_pb2 import Job

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("one")) as made:
        made.agent("a", cpus=16)
        yield made


def run(one: Cluster, *words: str) -> list[str | Path]:
    return [*one.as_admin, "run", *words]


def fed(one: Cluster, data: bytes, *words: str) -> tuple[subprocess.CompletedProcess[bytes], Job]:
    """What `ccctl run` says with this on its standard input, and its job."""
    done = subprocess.run(
        run(one, *words), input=data, capture_output=True, timeout=60, check=False
    )
    told = re.search(rb"Submitted (jobs/\d+)\.", done.stderr)
    assert told, done.stderr
    return done, one.client.get(told[1].decode())


def test_standard_input_goes_to_the_command_and_its_output_comes_back(one: Cluster) -> None:
    done, job = fed(one, b"hi\n", "--cpus", "1", "--", "cat")
    assert (done.returncode, done.stdout) == (0, b"hi\n"), done.stderr
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED
    data = os.urandom(3_000_000)
    done, _ = fed(one, data, "--", "cat")
    assert done.stdout == data, done.stderr


def test_the_commands_exit_code_is_the_jobs_and_ours(one: Cluster) -> None:
    done, job = fed(one, b"7\n", "-e", "A=b", "--", "sh", "-c", "read x; echo $A >&2; exit $x")
    assert (done.returncode, job.exit_code) == (7, 7)
    assert b"\nb\n" in done.stderr
    assert job.reason.endswith("on a exited with code 7")
    done, job = fed(one, b"", "--", "no-such-program")
    assert (done.returncode, job.exit_code) == (127, 127)
    assert b"no-such-program" in done.stderr
    done, job = fed(one, b"", "--", "sh", "-c", "kill -USR1 $$")
    assert (done.returncode, job.exit_code) == (138, 138)


def test_a_file_on_standard_input_goes_along_and_no_stdin_leaves_it(
    one: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "data").write_bytes(b"one\ntwo\n")
    for words, out in (((), b"2\n"), (("--no-stdin",), b"0\n")):
        with (tmp_path / "data").open() as file:
            done = subprocess.run(
                run(one, *words, "--", "wc", "-l"),
                stdin=file,
                capture_output=True,
                timeout=60,
                check=False,
            )
        assert (done.returncode, done.stdout) == (0, out), done.stderr


def test_a_job_that_may_be_started_again_keeps_its_own_ways(one: Cluster) -> None:
    done, job = fed(one, b"hi\n", "--set", "max_attempts=2", "--", "sh", "-c", "cat; exit 3")
    assert (done.returncode, done.stdout, len(job.attempts)) == (3, b"", 2)
    no = one.ccctl("run", "--pty", "--set", "workers=2", "--", "bash")
    assert no.returncode == 2
    assert "--pty: nobody can be at this job: it has more workers than one." in no.stderr
    no = one.ccctl("run", "--pty", "--no-stdin", "--", "bash")
    assert (no.returncode, "Give --pty or --no-stdin, not both" in no.stderr) == (2, True)


def test_a_terminal_is_the_commands_and_the_job_ends_with_it(one: Cluster) -> None:
    here = Terminal(run(one, "--pty", "--", "bash", "--norc"), 33, 101)
    name = here.sees(rb"Submitted (jobs/\d+)\.")[1].decode()
    here.sees(rb"[#$] ")  # a shell drops what was typed before it has set up its terminal
    here.type(b"stty size; tty; echo job=$CC_JOB_ID\n")
    here.sees(rb"33 101\r\n")
    here.sees(rb"/dev/pts/\d+\r\n")
    here.sees(rb"job=" + name.removeprefix("jobs/").encode() + rb"\r\n")
    here.type(b"python3 -c 'import time\ntry: print(40 + 2, flush=True); time.sleep(60)\n")
    here.type(b"except KeyboardInterrupt: print(40 + 3)'\n")
    here.sees(rb"[\r\n]42\r\n")
    here.type(b"\x03")
    here.sees(rb"43\r\n")
    here.type(b"exit 9\n")
    assert here.end() == 9
    assert one.ended(name).exit_code == 9


def test_ctrl_c_is_a_key_to_a_command_on_a_terminal(one: Cluster) -> None:
    script = "trap 'echo heard; exit 4' INT; echo ready; while :; do sleep 0.1; done"
    here = Terminal(run(one, "-t", "--", "sh", "-c", script))
    here.sees(rb"ready\r\n")
    here.type(b"\x03")
    here.sees(rb"heard\r\n")
    assert here.end() == 4


def ready(started: subprocess.Popen[str]) -> tuple[str, int]:
    """The name of the job of a run whose command tells its pid, and that."""
    assert started.stdout is not None
    assert started.stderr is not None
    pid = int(started.stdout.readline())
    told = ""
    while not (found := re.search(r"Submitted (jobs/\d+)\.", told)):
        told += started.stderr.readline()
    return found[1], pid


def sleeping(one: Cluster) -> subprocess.Popen[str]:
    return subprocess.Popen(
        run(one, "--", "sh", "-c", "echo $$; exec sleep 600"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_twice_cancels_the_job(one: Cluster) -> None:
    with sleeping(one) as started:
        assert started.stderr is not None
        name, pid = ready(started)
        started.send_signal(signal.SIGINT)
        while "Ctrl-C once more cancels it." not in started.stderr.readline():
            pass
        assert alive(pid)
        started.send_signal(signal.SIGINT)
        assert started.wait(20) == 130
    assert one.client.get(name).reason == "cancelled by admin"
    until(lambda: not alive(pid), "the command to end")


def test_the_job_is_cancelled_when_its_client_is_told_to_end(one: Cluster) -> None:
    with sleeping(one) as started:
        name, pid = ready(started)
        started.terminate()
        assert started.wait(20) == 143
    assert one.ended(name).reason.startswith("cancelled by admin")
    until(lambda: not alive(pid), "the command to end")


def test_the_job_ends_when_its_client_is_killed(one: Cluster) -> None:
    with sleeping(one) as started:
        name, pid = ready(started)
        started.kill()
    job = one.ended(name)
    assert (job.exit_code, job.reason) == (129, "rank 0 on a exited with code 129")
    assert "the connection with ccctl run was lost" in job.attempts[0].cause.stderr_tail
    until(lambda: not alive(pid), "the command to end")


def test_a_job_that_nobody_comes_for_ends_by_itself(tmp_path: Path) -> None:
    hold = HOLD.replace("sleep 60", "sleep 0.2")
    done = subprocess.run(
        ["sh", "-c", hold],
        env={"CC_JOB_DIR": str(tmp_path), "CC_ATTEMPT": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "ccctl run did not come for its job within 60 s\n",
    )
    assert not list(tmp_path.iterdir())
