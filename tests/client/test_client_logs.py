"""Output is read without loss and without doubling, whatever breaks."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.client import Client, LogPiece
from controlplane.client.logs import Positions
from controlplane.client.transport import Connection
from controlplane.v1 import job_pb2, job_service_pb2
from tests.cli.fake_server import FakeServer, World
from tests.support.examples import examples


def job(state: str, attempts: int, etag: str) -> job_pb2.Job:
    return job_pb2.Job(
        name="jobs/1",
        state=job_pb2.JobState.Value(f"JOB_STATE_{state}"),
        attempts=[job_pb2.Attempt(number=n + 1) for n in range(attempts)],
        etag=etag,
    )


def world(**more: Any) -> World:
    return World(
        jobs={"jobs/1": [job("SUCCEEDED", 1, "1")]},
        logs={
            (1, 0, 1): bytes(range(100)),
            (1, 0, 2): b"errors",
            (1, 1, 1): b"other rank's words",
        },
        **more,
    )


def joined(pieces: list[LogPiece]) -> dict[tuple[int, int, str], bytes]:
    found: dict[tuple[int, int, str], bytes] = defaultdict(bytes)
    for piece in pieces:
        key = (piece.attempt, piece.rank, piece.stream)
        assert piece.missing_bytes or piece.offset == len(found[key])
        found[key] += piece.data
    return dict(found)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("cuts", [[], [0], [1], [3, 0, 5], [16, 16]])
def test_every_byte_comes_once_however_the_stream_breaks(cuts: list[int], follow: bool) -> None:
    laid = world(cuts={"ReadLogs": cuts})
    with FakeServer(laid) as server, Client(server.address) as client:
        found = joined(list(client.logs("jobs/1", follow=follow)))
    assert found == {
        (1, 0, "stdout"): bytes(range(100)),
        (1, 0, "stderr"): b"errors",
        (1, 1, "stdout"): b"other rank's words",
    }


def test_ranks_streams_and_tails_are_chosen() -> None:
    with FakeServer(world()) as server, Client(server.address) as client:
        only = joined(list(client.logs("jobs/1", ranks=[0], stream="stderr")))
        tail = list(client.logs("jobs/1", ranks=[0], stream="stdout", tail_bytes=9))
    assert only == {(1, 0, "stderr"): b"errors"}
    assert b"".join(piece.data for piece in tail) == bytes(range(91, 100))
    assert [piece.missing_bytes for piece in tail] == [0, 0]


def test_following_goes_on_to_the_attempts_that_come_after() -> None:
    laid = world(cuts={"ReadLogs": [2, 1]})
    laid.jobs["jobs/1"] = [
        job("PENDING", 0, "1"),
        job("ACTIVE", 1, "2"),
        job("ACTIVE", 3, "3"),
        job("FAILED", 3, "4"),
    ]
    laid.logs = {(n, 0, 1): b"output of attempt %d" % n for n in (1, 2, 3)}
    with FakeServer(laid) as server, Client(server.address) as client:
        begun: list[int] = []
        followed = joined(list(client.logs("jobs/1", follow=True, on_attempt=begun.append)))
        last = joined(list(client.logs("jobs/1")))
        first = joined(list(client.logs("jobs/1", attempt=1, follow=True)))
    assert followed == {(n, 0, "stdout"): b"output of attempt %d" % n for n in (1, 2, 3)}
    assert begun == [2, 3]
    assert last == {(3, 0, "stdout"): b"output of attempt 3"}
    assert first == {(1, 0, "stdout"): b"output of attempt 1"}


def test_a_job_that_never_started_has_no_output() -> None:
    laid = World(jobs={"jobs/1": [job("PENDING", 0, "1"), job("CANCELLED", 0, "2")]})
    with FakeServer(laid) as server, Client(server.address) as client:
        assert list(client.logs("jobs/1")) == []
        assert list(client.logs("jobs/1", follow=True)) == []


def test_bytes_that_the_cap_has_dropped_are_told() -> None:
    laid = world(begins={(1, 0, 1): 40})
    with FakeServer(laid) as server, Client(server.address) as client:
        pieces = list(client.logs("jobs/1", ranks=[0], stream="stdout"))
    assert [piece.missing_bytes for piece in pieces][:2] == [40, 0]
    assert b"".join(piece.data for piece in pieces) == bytes(range(40, 100))


def test_once_the_server_was_heard_its_absence_is_borne(monkeypatch: pytest.MonkeyPatch) -> None:
    laid = world()
    laid.jobs["jobs/1"] = [job("ACTIVE", 1, "1"), job("ACTIVE", 2, "2"), job("FAILED", 2, "3")]
    borne: list[float] = []
    stream = Connection.stream

    def noted(self: Connection, *arguments: Any, first_s: float, **more: Any) -> Any:
        borne.append(first_s)
        return stream(self, *arguments, first_s=first_s, **more)

    monkeypatch.setattr(Connection, "stream", noted)
    with (
        FakeServer(laid) as server,
        Client(server.address, timeout_s=7, patience_s=70) as client,
    ):
        list(client.logs("jobs/1", follow=True))
        # Whether there is a job, which attempt is read, whether there is one after it, and so on.
        assert borne == [7, 70, 70, 70, 70]
        borne.clear()
        list(client.logs("jobs/1", attempt=1, follow=True))
        assert borne == [7]


def test_a_time_asks_for_every_attempt_and_goes_on_with_those_that_come() -> None:
    laid = world()
    laid.jobs["jobs/1"] = [job("ACTIVE", 2, "1"), job("ACTIVE", 3, "2"), job("FAILED", 3, "3")]
    laid.logs = {(n, 0, 1): b"output of attempt %d" % n for n in (1, 2)}
    begun: list[int] = []
    with FakeServer(laid) as server, Client(server.address) as client:
        pieces = client.logs("jobs/1", since_us=1, follow=True, on_attempt=begun.append)
        assert joined(list(pieces)) == {
            (n, 0, "stdout"): b"output of attempt %d" % n for n in (1, 2)
        }
    assert begun == [2, 3]  # the third began meanwhile, and has printed nothing
    assert {r.since_time.ToMicroseconds() for r in laid.requests} == {1}


@pytest.mark.parametrize(
    ("how", "missing"),
    [({"tail_bytes": 50}, 0), ({"tail_bytes": 90}, 40), ({"since_us": 1}, 40)],
)
def test_of_a_part_only_what_may_have_been_meant_is_told_as_gone(
    how: dict[str, Any], missing: int
) -> None:
    laid = world(begins={(1, 0, 1): 40})
    with FakeServer(laid) as server, Client(server.address) as client:
        pieces = list(client.logs("jobs/1", ranks=[0], stream="stdout", **how))
    assert [piece.missing_bytes for piece in pieces][:2] == [missing, 0]


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), max_size=20))
def test_whatever_the_server_repeats_no_byte_is_told_twice(spans: list[tuple[int, int]]) -> None:
    whole = bytes(range(60))
    positions = Positions(job_service_pb2.ReadLogsRequest(name="jobs/1", attempt=1))
    at = 0
    for offset, length in spans:
        data = whole[offset : offset + length]
        piece = positions.accept(
            job_service_pb2.ReadLogsResponse(
                attempt=1, stream=job_service_pb2.LOG_STREAM_STDOUT, offset=offset, data=data
            )
        )
        if piece is None:
            assert offset + length <= at or not data
            continue
        assert piece.offset == max(at, offset)
        assert piece.missing_bytes == piece.offset - at
        assert piece.data == whole[piece.offset : offset + length]
        at = piece.offset + len(piece.data)
    asked = positions.request().positions
    assert [p.offset for p in asked] == ([at] if at else [])
