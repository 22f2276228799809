"""Output by time through the real rpcs: what an agent hands over, and what a reader is given."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import pytest

from controlplane.model.identity import Role
from controlplane.model.job import AttemptState, JobState
from controlplane.model.lease import WorkerState
from controlplane.registry import jobs as commands
from controlplane.registry.which import Which
from controlplane.service import logstore
from controlplane.v1 import agent_service_pb2 as agents_pb
from controlplane.v1 import job_service_pb2 as pb
from controlplane.wire.basics import timestamp
from tests.support.centre import Centre, centre

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.registry.draft import Draft

READ = "/controlplane.v1.JobService/ReadLogs"
SHIP = "/controlplane.v1.AgentService/ShipLogs"
MICRO = 1_000_000
NOON = 1_770_000_000 * MICRO
LINES = [b"one\n", b"two\n", b"thr", b"ee\nfour\n"]
"""What is printed each minute from noon on; a line is cut between the third and the fourth."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    with centre(tmp_path_factory.mktemp("centre")) as found:
        yield found


def at(minute: float) -> int:
    return NOON + int(minute * 60 * MICRO)


class Printed:
    """A job of ada's with one worker, whose agent is a test."""

    def __init__(self, made: Centre) -> None:
        self._made = made
        self._node = made.join(str(uuid.uuid4()), "agent")
        number = made.submit("ada")
        made.place()
        self.name, self._at = f"jobs/{number}", 0
        (lease,) = made.registry.job(number).leases.values()
        self._lease, self._node = lease, lease.node_uuid

    def ship(self, data: bytes, time_us: int | None) -> None:
        chunk = agents_pb.LogChunk(
            lease_id=self._lease.lease_id,
            token=self._lease.token,
            stream=pb.LOG_STREAM_STDOUT,
            offset=self._at,
            data=data,
            read_time=timestamp(time_us),
        )
        self._at += len(data)
        request = agents_pb.ShipLogsRequest(node_uuid=self._node, chunks=[chunk])
        token = self._made.token("agent", Role.AGENT)
        (answer,) = self._made.call(SHIP, request.SerializeToString(), token)
        assert agents_pb.ShipLogsResponse.FromString(answer).next_offsets == [self._at]

    def read(
        self, since_us: int | None = None, until_us: int | None = None, **more: int
    ) -> list[pb.ReadLogsResponse]:
        request = pb.ReadLogsRequest(
            name=self.name, since_time=timestamp(since_us), until_time=timestamp(until_us)
        )
        for field, value in more.items():
            setattr(request, field, value)
        given = self._made.call(
            READ, request.SerializeToString(), self._made.token("ada", Role.USER)
        )
        return [pb.ReadLogsResponse.FromString(each) for each in given]

    def text(self, since_us: int | None = None, until_us: int | None = None, **more: int) -> bytes:
        return b"".join(each.data for each in self.read(since_us, until_us, **more))


@pytest.fixture(scope="module")
def printed(made: Centre) -> Printed:
    found = Printed(made)
    for minute, data in enumerate(LINES):
        found.ship(data, at(minute))
    return found


@pytest.mark.parametrize(
    ("since", "until", "wanted"),
    [
        (0.0, None, b"one\ntwo\nthree\nfour\n"),
        (0.5, None, b"two\nthree\nfour\n"),
        (1.0, 2.0, b"two\n"),
        (1.5, 2.5, b"three\n"),
        (2.5, None, b"three\nfour\n"),
        (3.5, None, b""),
        (None, 0.0, b""),
        (None, 0.5, b"one\n"),
        (-9.0, -8.0, b""),
        (0.1, 0.2, b""),
    ],
)
def test_lines_of_a_time_are_given_whole(
    printed: Printed, since: float | None, until: float | None, wanted: bytes
) -> None:
    since_us, until_us = (None if each is None else at(each) for each in (since, until))
    assert printed.text(since_us, until_us) == wanted


def test_a_tail_is_the_end_of_the_time_that_is_chosen(printed: Printed) -> None:
    assert printed.text(at(0), at(1.5), tail_bytes=3) == b"wo\n"
    assert printed.text(at(1), tail_bytes=1000) == b"two\nthree\nfour\n"


def test_who_goes_on_reading_goes_on_where_they_stopped(printed: Printed) -> None:
    request = pb.ReadLogsRequest(name=printed.name, since_time=timestamp(at(0.5)))
    request.positions.add(rank=0, stream=pb.LOG_STREAM_STDOUT, offset=9)
    token = printed._made.token("ada", Role.USER)
    given = printed._made.call(READ, request.SerializeToString(), token)
    assert [pb.ReadLogsResponse.FromString(each).offset for each in given] == [9]


def test_output_of_an_agent_that_tells_no_moment_has_that_of_its_arrival(made: Centre) -> None:
    old = Printed(made)
    before_us = made.house.clock.now_us()
    old.ship(b"words\n", None)
    assert old.text(before_us) == b"words\n"
    assert old.text(until_us=before_us) == b""


def test_where_the_beginning_is_gone_it_is_told_that_it_is(
    made: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logstore, "SEGMENT_BYTES", 1 << 18)
    long = Printed(made)
    for minute in range(8):
        long.ship(b"x" * ((1 << 18) - 1) + b"\n", at(minute))
    first = long.read()[0]
    assert first.offset == first.first_kept > 0
    assert long.read(at(0))[0].offset == first.first_kept
    assert long.read(at(7))[0].offset == 7 << 18


@pytest.mark.parametrize("follow", [False, True])
def test_output_that_comes_while_an_ended_job_is_looked_at_is_given(
    made: Centre, monkeypatch: pytest.MonkeyPatch, follow: bool
) -> None:
    late = Printed(made)
    (attempt,) = made.registry.job(int(late.name.removeprefix("jobs/"))).attempts
    worker = replace(attempt.workers[0], state=WorkerState.ENDED, stdout_bytes=4)

    def end(draft: Draft) -> None:
        draft.attempts[attempt.key] = replace(
            attempt, state=AttemptState.SUCCEEDED, workers=(worker,)
        )
        job = draft.jobs[attempt.job_id]
        draft.jobs[job.job_id] = replace(job, state=JobState.SUCCEEDED)
        draft.emit("test", late.name)

    made.do(end, "test")
    look = made.house.logs.streams

    def look_too_early(*which: int) -> object:
        found = look(*which)
        if not found:
            late.ship(b"one\n", at(0))
        return found

    monkeypatch.setattr(made.house.logs, "streams", look_too_early)
    assert late.text(follow=follow) == b"one\n"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"since_time": at(1), "until_time": at(0)},
            "since_time: 2026-02-02T02:41:00Z is not before until_time, which is"
            " 2026-02-02T02:40:00Z; nothing lies between them",
        ),
        (
            {"until_time": at(1), "follow": True},
            "until_time: says where to end, and follow goes on until the job ends; leave one of"
            " them out",
        ),
        ({"attempt": 3, "follow": True}, "has no attempt 3"),
        (
            {"since_time": 300_000_000_000 * MICRO},
            "since_time: 300000000000 s and 0 ns since 1970 is no moment of the years 1 to 9999",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(
    made: Centre, fields: dict[str, int], words: str
) -> None:
    number = made.submit("ada")
    made.do(lambda draft: commands.cancel(draft, [Which(number)]), "ada")
    request = pb.ReadLogsRequest(name=f"jobs/{number}")
    for field, value in fields.items():
        if field.endswith("_time"):
            getattr(request, field).CopyFrom(timestamp(value))
        else:
            setattr(request, field, value)
    with pytest.raises(grpc.RpcError) as error:
        made.call(READ, request.SerializeToString(), made.token("ada", Role.USER))
    assert words in str(error.value.details())
