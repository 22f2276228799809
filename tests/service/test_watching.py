"""Watches of the real server: nothing is left out and nothing told twice, from whichever source."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from controlplane.engine import retention
from controlplane.model.event import CONTROL_PLANE, Event
from controlplane.model.identity import Role
from controlplane.model.keep import DAY_US, Keep
from controlplane.registry import identity, jobs
from controlplane.registry.registry import Registry
from controlplane.registry.which import Which
from controlplane.service import watchtoken
from controlplane.service.eventlist import Wanted, first_since
from controlplane.service.feed import Feed, Group, Told
from controlplane.v1 import job_pb2
from controlplane.v1 import job_service_pb2 as pb
from tests.support.centre import Centre, centre

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JOBS = "/controlplane.v1.JobService"
ADMIN = ("an-admin", Role.ADMIN)
KEEP = Keep(jobs_us=30 * DAY_US, events_us=7 * DAY_US)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Centre]:
    with centre(tmp_path, KEEP) as one:
        yield one


class Watch:
    """An open call; it ends with the block."""

    def __init__(self, made: Centre, rpc: str, request: Any, who: tuple[str, Role] = ADMIN) -> None:
        answer = pb.WatchJobsResponse if rpc == "WatchJobs" else pb.WatchEventsResponse
        method = made.channel.unary_stream(
            f"{JOBS}/{rpc}", type(request).SerializeToString, answer.FromString
        )
        metadata = (("authorization", f"Bearer {made.token(*who)}"),)
        self.call = method(request, metadata=metadata, timeout=30)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.call.cancel()

    def events(self, count: int) -> tuple[list[int], str]:
        """Numbers of so many events or a few more, and the token behind them."""
        seen: list[int] = []
        token = ""
        while len(seen) < count:
            message = next(self.call)
            seen += [event.seq for event in message.events]
            token = message.token
        return seen, token


def watch_events(made: Centre, **fields: Any) -> Watch:
    return Watch(made, "WatchEvents", pb.WatchEventsRequest(**fields))


def write(made: Centre, count: int) -> None:
    for _ in range(count):
        made.submit("ada")


def code_of(watch: Watch) -> tuple[grpc.StatusCode, str, str]:
    """How a call ends: its code, its words, and the reason for programs."""
    with watch, pytest.raises(grpc.RpcError) as error:
        list(watch.call)
    metadata: dict[str, bytes] = dict(error.value.trailing_metadata())  # type: ignore[arg-type]
    packed = metadata["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(packed).details[0].Unpack(info)
    return error.value.code(), str(error.value.details()), info.reason


def test_a_watch_begins_now_and_tells_each_event_once(made: Centre) -> None:
    write(made, 3)
    with watch_events(made) as watch:
        first = next(watch.call)
        assert not first.events
        assert first.token
        begun = made.registry.seq
        write(made, 5)
        assert watch.events(5)[0] == list(range(begun + 1, begun + 6))


@pytest.mark.parametrize("kept", [10_000, 3, 0], ids=["ring", "small ring", "no ring"])
def test_no_gap_and_no_repeat_at_any_seam_while_four_write(made: Centre, kept: int) -> None:
    """Each call breaks off after some events, and the next goes on from its token, with the writers
    writing all the while; with a small ring much of it comes from the database."""
    made.house.hub.feed.kept = kept
    with watch_events(made) as watch:
        token = next(watch.call).token
    begun = made.registry.seq
    writers = [threading.Thread(target=write, args=(made, 60)) for _ in range(4)]
    for each in writers:
        each.start()
    seen: list[int] = []
    for size in itertools.cycle((1, 7, 30)):
        with watch_events(made, token=token) as watch:
            told, token = watch.events(min(size, 240 - len(seen)))
            seen += told
        if len(seen) >= 240:
            break
    for each in writers:
        each.join()
    assert seen == list(range(begun + 1, begun + 241))


def test_who_reads_slowly_loses_nothing(made: Centre) -> None:
    made.house.hub.feed.kept = 20
    with watch_events(made) as slow, watch_events(made) as quick:
        assert next(slow.call).token
        assert next(quick.call).token
        begun = made.registry.seq
        for _ in range(3):
            write(made, 40)
            quick.events(40)
        assert slow.events(120)[0] == list(range(begun + 1, begun + 121))


def test_many_watchers_see_the_same(made: Centre) -> None:
    begun = made.registry.seq + 1
    made.submit("ada")
    token = watchtoken.WatchToken(cluster=made.registry.cluster_uuid, seq=begun).write()
    watches = [watch_events(made, token=token) for _ in range(30)]
    write(made, 40)
    for watch in watches:
        with watch:
            assert watch.events(40)[0] == list(range(begun + 1, begun + 41))


def test_kinds_and_resources_choose(made: Centre) -> None:
    number = made.submit("ada")
    with (
        watch_events(made, kinds=["user", "job.cancelled"]) as some,
        watch_events(made, resource=f"jobs/{number}") as one,
    ):
        assert next(some.call).token
        assert next(one.call).token
        write(made, 3)
        made.do(lambda draft: identity.create_user(draft, "eve", Role.USER), "an-admin")
        made.do(lambda draft: jobs.cancel(draft, [Which(number)]), "ada")
        assert [e.kind for e in itertools.islice(kinds(some), 2)] == [
            "user.created",
            "job.cancelled",
        ]
        assert next(kinds(one)).resource == f"jobs/{number}"


def kinds(watch: Watch) -> Iterator[Any]:
    for message in watch.call:
        yield from message.events


def test_a_watch_since_a_moment_begins_with_what_happened_then(made: Centre) -> None:
    write(made, 2)
    us = made.house.clock.now_us()
    write(made, 3)
    request = pb.WatchEventsRequest()
    request.since_time.FromMicroseconds(us)
    with Watch(made, "WatchEvents", request) as watch:
        assert len(watch.events(3)[0]) == 3
    asked = pb.ListEventsRequest(since_time=request.since_time).SerializeToString()
    (answer,) = made.call(f"{JOBS}/ListEvents", asked, made.token(*ADMIN))
    assert len(pb.ListEventsResponse.FromString(answer).events) == 3
    request.token = watch_token(made, made.registry.seq)
    assert code_of(Watch(made, "WatchEvents", request))[0] is grpc.StatusCode.INVALID_ARGUMENT


def watch_token(made: Centre, seq: int, cluster: str = "") -> str:
    return watchtoken.WatchToken(cluster=cluster or made.registry.cluster_uuid, seq=seq).write()


@pytest.mark.parametrize("rpc", ["WatchEvents", "WatchJobs"])
def test_a_token_of_a_commit_that_memory_has_not_seen_yet_is_good(
    made: Centre, rpc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.submit("ada")
    token = watch_token(made, made.registry.seq)
    late = property(lambda self: self._facts.cluster.seq - 1)
    monkeypatch.setattr(Registry, "seq", late)
    ask = pb.WatchEventsRequest if rpc == "WatchEvents" else pb.WatchJobsRequest
    with Watch(made, rpc, ask(token=token)) as watch:
        assert next(watch.call).token == token


@pytest.mark.parametrize("rpc", ["WatchEvents", "WatchJobs"])
def test_tokens_that_are_none_are_refused_in_words(made: Centre, rpc: str) -> None:
    ask = pb.WatchEventsRequest if rpc == "WatchEvents" else pb.WatchJobsRequest
    for token in ("x", "é", "MSAy", watch_token(made, 5)[:-9], "MSAyIDMgNA=="):
        code, words, _ = code_of(Watch(made, rpc, ask(token=token)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "token" in words
    code, words, _ = code_of(Watch(made, rpc, ask(token=watch_token(made, 1, "another"))))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "it is of the cluster 'another', and this is" in words
    code, words, reason = code_of(Watch(made, rpc, ask(token=watch_token(made, 10**6))))
    assert (code, reason) == (grpc.StatusCode.OUT_OF_RANGE, "TOKEN_OUT_OF_RANGE")
    assert "put back to an earlier state" in words


def turn(made: Centre, days: float) -> None:
    """Let go of what is over, as if so many days had passed."""
    later = made.house.clock.now_us() + round(days * DAY_US)
    while retention.turn(made.registry, (), retention.Reached(), later):
        pass


def test_a_token_is_too_old_when_an_event_after_it_was_removed(made: Centre) -> None:
    number = made.submit("ada")
    begun = made.registry.seq
    made.do(lambda draft: identity.create_user(draft, "eve", Role.USER), "an-admin")
    removed = made.registry.seq
    made.submit("ada")
    turn(made, 8)
    for rpc, ask in (("WatchEvents", pb.WatchEventsRequest), ("WatchJobs", pb.WatchJobsRequest)):
        code, words, reason = code_of(Watch(made, rpc, ask(token=watch_token(made, begun))))
        assert (code, reason) == (grpc.StatusCode.OUT_OF_RANGE, "TOKEN_OUT_OF_RANGE")
        assert "events are kept for 7 days" in words
        with Watch(made, rpc, ask(token=watch_token(made, removed))) as watch:
            assert next(watch.call).token
    # Of a job that is kept nothing was removed.
    with watch_events(made, resource=f"jobs/{number}", token=watch_token(made, 0)) as watch:
        assert watch.events(1)[0] == [begun]


def test_the_end_of_a_removed_job_makes_a_token_too_old_and_ends_its_watch(made: Centre) -> None:
    number, lives = made.submit("ada"), made.submit("ada")
    before = made.registry.seq
    made.do(lambda draft: jobs.cancel(draft, [Which(number)]), "ada")
    with watch_events(made, resource=f"jobs/{number}") as watch:
        assert next(watch.call).token
        turn(made, 31)
        with pytest.raises(grpc.RpcError) as error:
            list(watch.call)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
    request = pb.WatchJobsRequest(token=watch_token(made, before))
    assert code_of(Watch(made, "WatchJobs", request))[0] is grpc.StatusCode.OUT_OF_RANGE
    with Watch(made, "WatchJobs", pb.WatchJobsRequest()) as listed:
        assert [job.job_id for job in next(listed.call).jobs] == [lives]


def told(message: Any) -> list[tuple[int, int]]:
    return [(job.job_id, job.state) for job in message.jobs]


PENDING, CANCELLED = job_pb2.JOB_STATE_PENDING, job_pb2.JOB_STATE_CANCELLED


def test_jobs_are_listed_and_then_told_when_they_change(made: Centre) -> None:
    first, second = made.submit("ada"), made.submit("ada")
    foreign = made.submit("bob")
    request = pb.WatchJobsRequest(filter=pb.JobFilter(owner="ada", states=[PENDING]))
    with Watch(made, "WatchJobs", request) as watch:
        message = next(watch.call)
        assert told(message) == [(second, PENDING), (first, PENDING)]
        assert not message.listing
        token = message.token
        made.do(lambda draft: jobs.cancel(draft, [Which(foreign), Which(first)]), "an-admin")
        assert told(next(watch.call)) == [(first, CANCELLED)]
    third = made.submit("ada")
    request.token = token
    with Watch(made, "WatchJobs", request) as watch:
        assert told(next(watch.call)) == []
        assert told(next(watch.call)) == [(first, CANCELLED), (third, PENDING)]


def test_a_user_watches_their_own_jobs_alone(made: Centre) -> None:
    mine, _ = made.submit("ada"), made.submit("bob")
    ada = ("ada", Role.USER)
    with Watch(made, "WatchJobs", pb.WatchJobsRequest(), ada) as watch:
        assert [job.job_id for job in next(watch.call).jobs] == [mine]
        made.submit("bob")
        later = made.submit("ada")
        assert [job.job_id for job in next(watch.call).jobs] == [later]
    denied = (
        Watch(made, "WatchJobs", pb.WatchJobsRequest(filter=pb.JobFilter(owner="bob")), ada),
        Watch(made, "WatchEvents", pb.WatchEventsRequest(), ada),
        Watch(made, "WatchEvents", pb.WatchEventsRequest(resource="nodes"), ada),
        Watch(made, "WatchEvents", pb.WatchEventsRequest(resource="jobs/2"), ada),
    )
    for each in denied:
        assert code_of(each)[0] is grpc.StatusCode.PERMISSION_DENIED
    made.submit("ada", env={"KEY": "hidden"})
    with Watch(made, "WatchJobs", pb.WatchJobsRequest(), ("vi", Role.VIEWER)) as watch:
        assert "hidden" not in str(next(watch.call))


def test_the_list_goes_on_amid_its_pages_while_jobs_change(made: Centre) -> None:
    count = 450
    numbers = [made.submit("ada") for _ in range(count)]
    with Watch(made, "WatchJobs", pb.WatchJobsRequest()) as watch:
        message = next(watch.call)
        seen = {job.job_id: job for job in message.jobs}
        assert message.listing
    changed = [numbers[0], numbers[-1]]
    made.do(lambda draft: jobs.cancel(draft, [Which(n) for n in changed]), "ada")
    etags: list[tuple[int, str]] = []
    with Watch(made, "WatchJobs", pb.WatchJobsRequest(token=message.token)) as watch:
        while len(seen) < count or {seen[n].state for n in changed} != {CANCELLED}:
            message = next(watch.call)
            etags += [(job.job_id, job.etag) for job in message.jobs]
            seen |= {job.job_id: job for job in message.jobs}
    assert sorted(seen) == numbers
    assert len(etags) == len(set(etags)), "no state is told twice"


def test_many_submitted_together_are_all_told(made: Centre) -> None:
    from controlplane.model.spec import parse_spec, spec_sha256

    spec = parse_spec({"command": ["true"]})
    wanted = [jobs.Wanted(spec, spec_sha256(spec), 1000)] * 500
    with Watch(made, "WatchJobs", pb.WatchJobsRequest()) as watch:
        assert next(watch.call).jobs == []
        numbers = made.do(lambda draft: jobs.submit(draft, wanted), "ada")
        seen: list[int] = []
        while len(seen) < 500:
            seen += [job.job_id for job in next(watch.call).jobs]
    assert seen == numbers
    with watch_events(made, resource=f"jobs/{numbers[7]}", token=watch_token(made, 0)) as watch_one:
        assert next(kinds(watch_one)).kind == "jobs.submitted"


# The feed and the other decisions by themselves


def event(seq: int, resource: str = "jobs/1", kind: str = "job.held", us: int = 0) -> Event:
    return Event(seq=seq, time_us=us, kind=kind, actor=CONTROL_PLANE, resource=resource)


def group(*numbers: int) -> Group:
    return Group(events=[Told(event=event(seq)) for seq in numbers], jobs={})


def numbers_after(feed: Feed, position: int, limit: int = 100) -> list[int] | None:
    batch = feed.after(position, limit)
    return None if batch is None else [each.event.seq for each in batch.events]


def test_the_ring_is_bounded_and_says_what_it_does_not_have() -> None:
    feed = Feed(kept=5)
    assert numbers_after(feed, 0) is None, "it knows nothing yet"
    for numbers in ((8, 9), (10,), (11, 12)):
        feed.add(group(*numbers))
    assert numbers_after(feed, 7) == [8, 9, 10, 11, 12]
    assert numbers_after(feed, 8, 2) == [9, 10]
    assert numbers_after(feed, 6) is None
    assert numbers_after(feed, 12) == numbers_after(feed, 20) == []
    feed.add(group(13))
    assert numbers_after(feed, 8) is None, "a group goes as a whole"
    assert numbers_after(feed, 9) == [10, 11, 12, 13]
    feed.add(group(*range(14, 30)))
    assert numbers_after(feed, 13) is None, "what is larger than the ring is read from the database"
    assert numbers_after(feed, 29) == []
    feed.add(group(40))
    assert numbers_after(feed, 29) is None, "what came before was not told here"
    assert numbers_after(feed, 39) == [40]


def test_an_event_tells_of_all_jobs_that_were_submitted_together() -> None:
    assert list(event(1, "jobs/4-7").jobs) == [4, 5, 6, 7]
    assert list(event(1, "jobs/4/tasks/1/attempts/2").jobs) == [4]
    assert list(event(1, "nodes/4").jobs) == list(event(1, "jobs/x").jobs) == []


def test_what_a_watch_takes() -> None:
    which = Wanted(resource="jobs/1", submitted=3, of_job=True, kinds=("job", "attempt.placed"))
    assert which.takes(event(9, "jobs/1"))
    assert which.takes(event(9, "jobs/1/tasks/0/attempts/1", "attempt.placed"))
    assert not which.takes(event(9, "jobs/1/tasks/0/attempts/1", "attempt.failed"))
    assert not which.takes(event(9, "jobs/11"))
    assert which.takes(event(3, "jobs/1-9", "job.submitted"))


def test_the_first_event_since_a_moment_is_found_by_few_looks() -> None:
    times = [10, 10, 20, 20, 30]  # of events 3, 4, 7, 8, 9
    known = dict(zip((3, 4, 7, 8, 9), times, strict=True))
    looks = []

    def next_us(after: int) -> int | None:
        looks.append(after)
        return next((us for seq, us in sorted(known.items()) if seq > after), None)

    for since, first in ((0, 3), (10, 3), (11, 7), (20, 7), (30, 9), (31, None)):
        found = first_since(next_us, 9, since)
        assert next((seq for seq in sorted(known) if seq > found), None) == first
    assert len(looks) <= 6 * 4
