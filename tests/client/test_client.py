"""The client against a server that fails, restarts and speaks other versions."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from controlplane.client import (
    Client,
    ClientError,
    DeadlinePassed,
    Denied,
    InvalidInput,
    NotFound,
    Refused,
    RetryNotice,
    Unreachable,
    VersionMismatch,
)
from controlplane.v1 import event_pb2, job_pb2, job_service_pb2, usage_service_pb2
from tests.cli.fake_server import FakeServer, World

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
HELLO = {"command": ["hostname"]}


def job(number: int, state: str, etag: str = "1", attempts: int = 0) -> job_pb2.Job:
    return job_pb2.Job(
        name=f"jobs/{number}",
        job_id=number,
        state=job_pb2.JobState.Value(f"JOB_STATE_{state}"),
        etag=etag,
        attempts=[job_pb2.Attempt(number=n + 1) for n in range(attempts)],
    )


@contextmanager
def served(world: World, **options: Any) -> Iterator[Client]:
    with FakeServer(world) as server, Client(server.address, **options) as client:
        yield client


def test_a_job_is_submitted_once_however_often_the_server_is_away() -> None:
    notices: list[RetryNotice] = []
    world = World(failures={"SubmitJob": [UNAVAILABLE, grpc.StatusCode.CANCELLED]})
    with served(world, on_retry=notices.append) as client:
        made = client.submit(HELLO)

    assert made.name == "jobs/1"
    assert world.calls["SubmitJob"] == 3
    assert [notice.tries for notice in notices] == [1, 2]
    assert len(world.submits) == 1


def test_all_pages_of_usage_end_at_the_moment_of_the_first() -> None:
    rows = [usage_service_pb2.UsageRow(key=str(number), jobs=1) for number in range(5)]
    world = World(usage=[*rows, usage_service_pb2.UsageRow(jobs=5)])
    asked = usage_service_pb2.GetUsageRequest(owner="ada")
    with served(world) as client:
        answer = client.usage(asked)

    assert list(answer.rows) == rows
    assert (answer.total.jobs, answer.next_page_token) == (5, "")
    first, *others = world.requests
    assert first == asked == usage_service_pb2.GetUsageRequest(owner="ada")
    assert [request.page_token for request in others] == ["2", "4"]
    assert all(request.to_time == answer.to_time for request in others)


def test_every_try_carries_the_same_request_id() -> None:
    world = World()
    with served(world) as client:
        client.submit(HELLO)
        client.submit(HELLO)
        client.submit(HELLO, request_id="mine")
        client.submit(HELLO, request_id="mine")
    ids = [request.request_id for request in world.requests]
    assert len(set(ids)) == 3
    assert ids[2:] == ["mine", "mine"]
    assert len(world.jobs) == 3


def test_a_server_that_starts_late_is_waited_for(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    away = threading.Event()
    with Client(address, timeout_s=20, on_retry=lambda _: away.set()) as client:
        found: list[job_pb2.Job] = []
        asking = threading.Thread(target=lambda: found.append(client.get("jobs/7")))
        asking.start()
        assert away.wait(10)
        with FakeServer(World(jobs={"jobs/7": [job(7, "PENDING")]}), address):
            asking.join(20)
        assert found[0].job_id == 7


def test_a_server_that_never_comes_is_told_in_time() -> None:
    refused = pytest.raises(Unreachable, match=r"127.0.0.1:1 does not answer: connection refused")
    with Client("127.0.0.1:1", timeout_s=0.3) as client, refused:
        client.get("jobs/1")


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (grpc.StatusCode.NOT_FOUND, NotFound, 3),
        (grpc.StatusCode.PERMISSION_DENIED, Denied, 4),
        (grpc.StatusCode.UNAUTHENTICATED, Denied, 4),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlinePassed, 6),
        (grpc.StatusCode.ALREADY_EXISTS, Refused, 1),
        (grpc.StatusCode.FAILED_PRECONDITION, Refused, 1),
        (grpc.StatusCode.INTERNAL, ClientError, 1),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput, 2),
        (grpc.StatusCode.UNIMPLEMENTED, VersionMismatch, 1),
    ],
)
def test_each_status_becomes_its_error_and_is_not_tried_again(
    code: grpc.StatusCode, kind: type[ClientError], exit_code: int
) -> None:
    world = World(failures={"GetJob": [code]})
    with served(world) as client, pytest.raises(ClientError) as caught:
        client.get("jobs/1")
    assert type(caught.value) is kind
    assert caught.value.exit_code == exit_code
    assert world.calls["GetJob"] == 1


@pytest.mark.parametrize("in_trailer", [False, True])
def test_a_server_of_another_api_version_is_named(in_trailer: bool) -> None:
    world = World(api_version="v2", in_trailer=in_trailer, jobs={"jobs/1": [job(1, "PENDING")]})
    with served(world) as client:
        for call in (
            lambda: client.get("jobs/1"),
            lambda: client.get("jobs/2"),
            lambda: list(client.watch("jobs/1")),
        ):
            with pytest.raises(VersionMismatch, match=r"version 9\.8\.7.* speaks API v2.* API v1"):
                call()
            if in_trailer:
                break  # what is told at the end of a stream that nobody ends can't be known


def test_the_token_travels_with_calls_streams_and_uploads(tmp_path: Path) -> None:
    world = World(token="secret", jobs={"jobs/1": [job(1, "SUCCEEDED", attempts=1)]})
    world.logs = {(1, 0, 1): b"hello"}
    with served(world, token="secret") as client:
        client.get("jobs/1")
        assert len(list(client.watch("jobs/1"))) == 1
        assert b"".join(piece.data for piece in client.logs("jobs/1")) == b"hello"
        client.upload_dir(tmp_path)
    with served(world) as client, pytest.raises(Denied, match="the token is not valid"):
        client.get("jobs/1")


def test_the_same_faults_are_told_here_and_by_the_server() -> None:
    bad: dict[str, Any] = {"command": [], "workers": 0, "resources": {"memory": "8GBB"}}
    with served(World()) as client:
        with pytest.raises(InvalidInput) as here:
            client.submit(bad)
        request = job_service_pb2.SubmitJobRequest()
        request.spec.update(bad)
        connection = client._connection
        with pytest.raises(InvalidInput) as there:
            connection.call(client._jobs.SubmitJob, request, 10)
    assert here.value.faults == there.value.faults
    assert here.value.message == there.value.message
    assert len(here.value.faults) == 3
    assert there.value.reason == "INVALID_SPEC"


def test_variables_are_taken_from_the_submitters_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAKEN", "from here")
    monkeypatch.setenv("BOTH", "from here")
    monkeypatch.delenv("UNSET", raising=False)
    document = {
        "command": ["true"],
        "env": {"BOTH": "from the file"},
        "pass_env": ["TAKEN", "BOTH"],
        "secret_env": ["TAKEN"],
    }
    world = World()
    with served(world) as client:
        client.submit(document)
        with pytest.raises(InvalidInput, match=r'pass_env\[1\]: "UNSET": is not set here'):
            client.submit({**document, "pass_env": ["TAKEN", "UNSET"]})
    (sent,) = world.requests
    assert dict(sent.spec["env"]) == {"BOTH": "from the file", "TAKEN": "from here"}
    assert "pass_env" not in sent.spec


def test_a_watch_survives_breaks_and_tells_nothing_twice() -> None:
    states = [job(1, "PENDING", "1"), job(1, "ACTIVE", "2"), job(1, "SUCCEEDED", "3")]
    world = World(jobs={"jobs/1": states}, cuts={"WatchJob": [1, 2]})
    with served(world) as client:
        told = [found.etag for found in client.watch("jobs/1")]
    assert world.calls["WatchJob"] == 3
    # After a break the server tells the present state first; this one tells its story again.
    assert told[0] == "1"
    assert told[-1] == "3"
    assert all(a != b for a, b in itertools.pairwise(told))


def test_a_watch_tells_why_a_job_waits_though_nothing_else_has_changed() -> None:
    states = [job(1, "PENDING"), job(1, "PENDING"), job(1, "PENDING"), job(1, "SUCCEEDED", "2")]
    states[1].reason = states[2].reason = "waits for resources"
    with served(World(jobs={"jobs/1": states})) as client:
        told = [found.reason for found in client.watch("jobs/1")]
    assert told == ["", "waits for resources", ""]


def test_closing_the_client_ends_a_watch() -> None:
    world = World(jobs={"jobs/1": [job(1, "PENDING")]})
    with served(world) as client:
        watching = client.watch("jobs/1")
        assert next(watching).etag == "1"
        client.close()
        assert list(watching) == []


def test_lists_go_on_over_pages() -> None:
    world = World(jobs={f"jobs/{n}": [job(n, "PENDING")] for n in range(1, 8)})
    world.events = [event_pb2.Event(seq=n, resource="jobs/1") for n in range(1, 6)]
    with served(world) as client:
        assert len(list(client.list(page_size=3))) == 7
        assert world.calls["ListJobs"] == 3
        assert len(list(itertools.islice(client.list(page_size=3), 2))) == 2
        assert world.calls["ListJobs"] == 4
        assert [event.seq for event in client.events("jobs/1")] == [1, 2, 3, 4, 5]
        assert [event.seq for event in client.events("jobs/1", after_seq=3)] == [4, 5]


def test_a_folder_is_uploaded_once_and_after_a_break_again_from_its_beginning(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").write_bytes(bytes(range(256)) * 8000)
    sent: list[tuple[int, int]] = []
    world = World(failures={"UploadBlob": [UNAVAILABLE]})
    with served(world, on_upload=lambda n, total: sent.append((n, total))) as client:
        first = client.upload_dir(tmp_path)
        second = client.upload_dir(tmp_path)
    assert first == second
    assert world.calls["UploadBlob"] == 2
    assert hashlib.sha256(world.blobs[first.sha256]).hexdigest() == first.sha256
    assert sent[-1] == (first.size_bytes, first.size_bytes)


def test_a_folder_to_ship_becomes_its_hash(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("x")
    world = World()
    document = {**HELLO, "working_dir": {"ship": "src", "exclude": ["*.pt"]}}
    with served(world) as client:
        client.submit(document, base=tmp_path, validate_only=True)
        assert not world.blobs
        made = client.submit(document, base=tmp_path)
    (sha256, data), *_ = world.blobs.items()
    assert MessageToDict(made.spec)["working_dir"] == {"sha256": sha256, "size": len(data)}


@pytest.mark.parametrize(
    ("folder", "words"),
    [("nowhere", "there is no such folder"), ("file", "is no folder"), ("out", "leads out")],
)
def test_a_folder_that_cannot_be_shipped_is_a_fault_of_its_field(
    tmp_path: Path, folder: str, words: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "out").symlink_to("/")
    with Client() as client, pytest.raises(InvalidInput, match=words) as caught:
        client.submit({**HELLO, "working_dir": {"ship": folder}}, base=tmp_path)
    assert caught.value.faults[0].field == "working_dir.ship"


def test_a_watch_of_events_goes_on_behind_its_last_token() -> None:
    world = World(cuts={"WatchEvents": [2, 0, 3]})
    world.events = [event_pb2.Event(seq=n, resource="nodes/a") for n in range(1, 6)]
    tokens: list[str] = []
    with served(world) as client:
        watch = client.watch_events("nodes", kinds=["node"], since_us=5, on_token=tokens.append)
        assert [event.seq for event in itertools.islice(watch, 5)] == [1, 2, 3, 4, 5]
    asked = [(request.token, request.HasField("since_time")) for request in world.requests]
    assert asked == [("", True), ("1", False), ("1", False), ("3", False)]
    assert tokens == ["0", "1", "1", "2", "3", "3", "4"], "5 was not done with"


def test_a_token_that_is_too_old_ends_a_watch_of_events_in_words() -> None:
    world = World(oldest_token=3)
    with served(world) as client, pytest.raises(Refused, match="were removed") as caught:
        next(client.watch_events(token="2"))
    assert caught.value.reason == "TOKEN_OUT_OF_RANGE"


def test_a_watch_of_jobs_lists_again_when_its_token_is_too_old_and_tells_nothing_twice() -> None:
    first = [job(1, "PENDING", "1"), job(1, "ACTIVE", "2"), job(1, "FAILED", "3")]
    world = World(jobs={"jobs/1": first, "jobs/2": [job(2, "PENDING", "1")]})
    world.cuts["WatchJobs"] = [2]
    with served(world) as client:
        watch = client.watch_jobs()
        told = [(each.job_id, each.etag) for each in itertools.islice(watch, 3)]
        assert told == [(2, "1"), (1, "1"), (1, "2")]
        world.oldest_token = 3
        world.jobs["jobs/1"] = [job(1, "FAILED", "3"), job(1, "FAILED", "4")]
        assert [each.etag for each in itertools.islice(watch, 2)] == ["3", "4"]
    assert [request.token for request in world.requests] == ["", "2", ""]
