"""Output as its reader sees it: over attempts, over restarts of the control plane, by time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from controlplane.v1 import job_pb2
from tests.support.cluster import Cluster, cluster, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

TWICE = """
echo begin $CC_ATTEMPT
until [ -e go$CC_ATTEMPT ]; do sleep 0.05; done
echo end $CC_ATTEMPT
exit $((2 - CC_ATTEMPT))
"""
"""Fails, and does well the second time; each attempt ends when it is let."""


class Follower:
    """A `ccctl logs` that goes on, and what it has shown."""

    def __init__(self, made: Cluster, *words: str) -> None:
        self._out, self._err = made.folder / "out", made.folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            command = [*made.as_admin, "logs", *words]
            self.process = subprocess.Popen(command, stdout=out, stderr=err)

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def notes(self) -> list[str]:
        """What it says beside the output, but for retries."""
        return [line for line in self._err.read_text().splitlines() if line.startswith("…")]

    def ended(self) -> int:
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()


def test_following_shows_each_attempt_whole_though_the_control_plane_is_killed_between_them(
    tmp_path: Path,
) -> None:
    with cluster(tmp_path, "a") as one:
        job = {"command": ["sh", "-c", TWICE], "max_attempts": 2, "working_dir": str(tmp_path)}
        name = one.submit(job)
        follower = Follower(one, name, "--follow")
        until(lambda: follower.out == "begin 1\n", "the first words to be shown")
        one.control.kill()
        (tmp_path / "go1").touch()
        one.control.start()
        until(lambda: follower.out.endswith("begin 2\n"), "the second attempt to be shown")
        assert one.control.stop() == 0
        (tmp_path / "go2").touch()
        one.control.start()

        assert one.ended(name).exit_code == 0
        assert follower.ended() == 0
        assert follower.out == "begin 1\nend 1\nbegin 2\nend 2\n"
        assert follower.notes == [f"… attempt 2 of {name} …"]


def test_following_goes_on_where_the_node_is_lost(tmp_path: Path) -> None:
    serve = {"node-lease-s": "2", "node-lease-margin-s": "1", "hold-s": "0.5"}
    with cluster(tmp_path, "a", serve=serve) as one:
        script = "echo try $CC_ATTEMPT; [ $CC_ATTEMPT = 2 ] || sleep 120"
        name = one.submit({"command": ["sh", "-c", script]})
        follower = Follower(one, name, "--follow")
        until(lambda: follower.out == "try 1\n", "the first words to be shown")
        one.agent("b")
        os.kill(one.agents["a"].pid, signal.SIGSTOP)
        try:
            assert follower.ended() == 0
        finally:
            os.kill(one.agents["a"].pid, signal.SIGCONT)
        assert follower.out == "try 1\ntry 2\n"
        assert follower.notes == [f"… attempt 2 of {name} …"]
        assert one.client.get(name).attempts[0].state == job_pb2.ATTEMPT_STATE_NODE_LOST


def test_one_attempt_that_is_followed_is_the_only_one_and_a_time_asks_for_all(
    tmp_path: Path,
) -> None:
    with cluster(tmp_path, "a") as one:
        job = {"command": ["sh", "-c", TWICE], "max_attempts": 2, "working_dir": str(tmp_path)}
        name = one.submit(job)
        follower = Follower(one, name, "--attempt", "1", "-f")
        (tmp_path / "go1").touch()
        assert follower.ended() == 0
        assert (follower.out, follower.notes) == ("begin 1\nend 1\n", [])

        until(lambda: one.client.get(name).attempts[-1].number == 2, "the second attempt")
        (tmp_path / "go2").touch()
        one.ended(name)
        since = one.ccctl("logs", name, "--since", "1h")
        assert since.stdout == "begin 1\nend 1\nbegin 2\nend 2\n"
        assert since.stderr == f"… attempt 2 of {name} …\n"
        assert (
            one.ccctl("logs", name, "--attempt", "2", "--since", "1h").stdout == "begin 2\nend 2\n"
        )
        assert one.ccctl("logs", name, "--until", "1h").stdout == ""
        assert one.ccctl("logs", name).stdout == "begin 2\nend 2\n"


def a_second(since_s: float) -> Callable[[], bool]:
    return lambda: time.monotonic() > since_s + 1.1


def said(made: Cluster, name: str, line: str, tail: str = "1GiB") -> Callable[[], bool]:
    return lambda: made.ccctl("logs", name, "--tail", tail).stdout.endswith(line)


def test_output_is_chosen_by_when_it_was_printed(tmp_path: Path) -> None:
    with cluster(tmp_path, "a") as one:
        script = "for i in 1 2 3; do until [ -e go$i ]; do sleep 0.05; done; echo line $i; done"
        name = one.submit({"command": ["sh", "-c", script], "working_dir": str(tmp_path)})
        moments = []
        for number in (1, 2, 3):
            # Moments are as fine as a second: the line before was found more than one ago.
            until(a_second(time.monotonic()), "a second to pass")
            moments.append(int(time.time() * 1_000_000))
            (tmp_path / f"go{number}").touch()
            until(said(one, name, f"line {number}\n"), f"line {number} to be shown")

        def between(since: int | None, before: int | None) -> str:
            pieces = one.client.logs(name, since_us=since, until_us=before)
            return b"".join(piece.data for piece in pieces).decode()

        one.ended(name)
        _, second, third = moments
        assert between(second, None) == "line 2\nline 3\n"
        assert between(None, second) == "line 1\n"
        assert between(second, third) == "line 2\n"
        assert between(third + 3600 * 1_000_000, None) == ""


def test_what_is_no_longer_kept_is_told(tmp_path: Path) -> None:
    with cluster(tmp_path, "a", serve={"log-cap-mib": "4"}) as one:
        name = one.submit({"command": ["sh", "-c", "yes | head -c 20000000; echo; echo end"]})
        assert one.ended(name).state == job_pb2.JOB_STATE_SUCCEEDED
        # Who reads while it still arrives is told more of it than is kept in the end.
        arrived = said(one, name, "end\n", tail="1KiB")
        until(arrived, "the last of it to arrive")
        shown = one.ccctl("logs", name, "--follow")
        assert shown.stdout.endswith("y\n\nend\n")
        gone = 20_000_005 - len(shown.stdout)
        assert gone >= 20_000_005 - (4 << 20)
        assert shown.stderr.startswith(f"… the first {gone / 2**20:.0f}MiB of rank 0's stdout are")
        assert one.ccctl("logs", name, "--since", "1h").stderr == shown.stderr
        assert one.ccctl("logs", name, "--tail", "1KiB").stderr == ""
