"""Reports of progress as files that are the job's own: read with care, told once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from nodeagent.folders import LeaseKey
from nodeagent.progress import FLOOD_BYTES, READ_BYTES, REPORT_FILE, LeaseReports

if TYPE_CHECKING:
    from pathlib import Path

    from controlplane.model.progress import LeaseProgress

SECOND = 1_000_000


class Reports:
    """A lease's reports, and the agent that reads them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.control = folder / "tmp", folder / "control"
        self.folder.mkdir()
        self.control.mkdir()
        self.path = self.folder / f"{REPORT_FILE}.0"
        self.now_us = 100 * SECOND
        self.agent = self.started()

    def started(self) -> LeaseReports:
        return LeaseReports(
            key=LeaseKey(7, 9),
            folder=self.folder,
            control=self.control,
            ranks=(0, 1),
            uid=os.geteuid(),
        ).resume()

    def write(self, data: bytes, rank: int = 0) -> None:
        with (self.folder / f"{REPORT_FILE}.{rank}").open("ab") as file:
            file.write(data)

    def told(self, *, ended: bool = False, answered: bool = True) -> LeaseProgress | None:
        """What is handed over next."""
        self.now_us += 3 * SECOND
        self.agent.look(self.now_us, whole=ended)
        found = self.agent.due(self.now_us, ended=ended)
        if answered:
            self.agent.sent = None
        return found


@pytest.fixture
def reports(tmp_path: Path) -> Reports:
    return Reports(tmp_path)


def steps(told: LeaseProgress | None) -> list[int | None]:
    return [point.step for point in told.points] if told is not None else []


def test_lines_are_told_once_and_half_a_line_when_it_is_whole(reports: Reports) -> None:
    assert reports.told() is None
    reports.write(b'{"step": 1}\n{"step"')
    assert steps(reports.told()) == [1]
    assert reports.told() is None
    reports.write(b": 2}\n")
    assert steps(reports.told()) == [2]
    reports.write(b'{"step": 3}')
    assert reports.told() is None
    assert steps(reports.told(ended=True)) == [3]
    assert reports.agent.is_done(reports.now_us)


def test_a_running_lease_is_told_of_every_two_seconds_at_most(reports: Reports) -> None:
    reports.write(b'{"step": 1}\n')
    assert reports.told() is not None
    reports.write(b'{"step": 2}\n')
    reports.agent.look(reports.now_us, whole=False)
    assert reports.agent.due(reports.now_us + SECOND, ended=False) is None
    assert reports.agent.due(reports.now_us + SECOND, ended=True) is not None


def test_a_clock_that_is_set_back_holds_nothing_up(reports: Reports) -> None:
    reports.write(b'{"step": 1}\n')
    assert reports.told() is not None
    reports.write(b'{"step": 2}\n')
    reports.agent.look(reports.now_us - 3600 * SECOND, whole=False)
    assert steps(reports.agent.due(reports.now_us + 3 * SECOND, ended=False)) == [2]


def test_an_agent_that_is_started_anew_loses_and_doubles_nothing(reports: Reports) -> None:
    reports.write(b'{"step": 1}\n{"checkpoint": {"path": "/1", "step": 1}}\n')
    first = reports.told(answered=False)
    reports.write(b'{"step": 2}\n')
    reports.agent = reports.started()
    assert reports.told() == first
    assert steps(reports.told()) == [2]
    reports.write(b'{"step": 3}\n')
    reports.agent.look(reports.now_us, whole=False)  # read, and killed before it was told
    reports.agent = reports.started()
    reports.told()  # what was sent last, once more
    assert steps(reports.told()) == [3]


@pytest.mark.parametrize("kind", ["link", "fifo", "hard link", "folder"])
def test_what_is_no_file_of_the_job_is_not_read(reports: Reports, kind: str) -> None:
    secret = reports.control / "secret"
    secret.write_text('{"step": 1}\n')
    if kind == "link":
        reports.path.symlink_to(secret)
    elif kind == "fifo":
        os.mkfifo(reports.path)
    elif kind == "hard link":
        reports.path.hardlink_to(secret)
    else:
        reports.path.mkdir()
    told = reports.told()
    assert told is not None
    assert (told.points, told.faults) == (
        (),
        ("rank 0's report: is no regular file of the job's own, and is not read",),
    )
    assert reports.told() is None


def test_of_a_flood_the_end_is_read_and_the_rest_is_told_in_bytes(reports: Reports) -> None:
    line = b'{"step": 1, "metrics": {"loss": 0.5}}\n'
    count = 4 * FLOOD_BYTES // len(line)
    reports.write(line * count + b'{"step": 2}\n')
    passed = reports.path.stat().st_size - READ_BYTES
    told = reports.told()
    assert told is not None
    assert told.points[-1].step == 2
    assert told.faults == (
        f"rank 0's report: grows faster than it is read: {passed} bytes were passed over",
    )


@pytest.mark.parametrize("garbage", [b"\0" * 300_000, os.urandom(100_000), b"x\n" * 9999])
def test_garbage_is_told_in_few_words(reports: Reports, garbage: bytes) -> None:
    reports.write(garbage + b'\n{"step": 4}\n')
    told = None
    for _ in range(10):
        told = reports.told() or told
    assert told is not None
    assert 1 <= len(told.faults) <= 6
    assert told.points[-1].step == 4


def test_a_file_that_was_cut_short_or_replaced_is_read_from_its_beginning(
    reports: Reports,
) -> None:
    reports.write(b'{"step": 1}\n{"step": 2}\n')
    reports.told()
    reports.path.write_bytes(b'{"step": 7}\n')
    assert steps(reports.told()) == [7]
    fresh = reports.path.with_name("fresh")
    fresh.write_bytes(b'{"step": 8}\n{"step": 9}\n')
    fresh.replace(reports.path)
    assert steps(reports.told()) == [8, 9]


def test_the_lowest_rank_of_the_lease_is_told_and_checkpoints_of_all(reports: Reports) -> None:
    reports.write(b'{"step": 5}\n{"checkpoint": {"path": "/b"}}\n', rank=1)
    told = reports.told()
    assert told is not None
    assert (told.rank, steps(told)) == (1, [5])
    reports.write(b'{"step": 1}\n')
    reports.write(b'{"step": 6}\n{"checkpoint": {"path": "/c"}}\n', rank=1)
    told = reports.told()
    assert told is not None
    assert (told.rank, steps(told)) == (0, [1])
    assert told.checkpoint is not None
    assert (told.checkpoint.rank, told.checkpoint.path) == (1, "/c")
