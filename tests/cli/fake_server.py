"""A small control plane in this process, with jobs, nodes and output that a test lays down."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from controlplane.model.spec import Archive, InvalidSpec, canonical, parse_spec
from controlplane.v1 import (
    account_service_pb2_grpc,
    blob_service_pb2,
    blob_service_pb2_grpc,
    event_pb2,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    job_pb2,
    job_service_pb2,
    job_service_pb2_grpc,
    node_pb2,
    usage_service_pb2,
    usage_service_pb2_grpc,
)
from tests.cli.fake_accounts import FakeAccounts

FINAL = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)


@dataclass(kw_only=True)
class World:
    """What the server tells, and what it was told."""

    jobs: dict[str, list[job_pb2.Job]] = field(default_factory=dict)
    """Each job's states, in order; `WatchJob` tells all of them, the others the last."""
    nodes: list[node_pb2.Node] = field(default_factory=list)
    events: list[event_pb2.Event] = field(default_factory=list)
    tasks: list[job_pb2.Task] = field(default_factory=list)
    usage: list[usage_service_pb2.UsageRow] = field(default_factory=list)
    """Rows, of which the last is the total."""
    logs: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    """(attempt, rank, stream) → all of its output."""
    begins: dict[tuple[int, int, int], int] = field(default_factory=dict)
    """(attempt, rank, stream) → first byte that is still kept."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    submits: dict[str, job_pb2.Job] = field(default_factory=dict)
    """request_id → the job that it became."""
    calls: Counter[str] = field(default_factory=Counter)
    """How often each rpc was called."""
    requests: list[Any] = field(default_factory=list)
    failures: dict[str, list[grpc.StatusCode]] = field(default_factory=dict)
    """Rpc → codes with which its next calls fail."""
    denials: dict[str, str] = field(default_factory=dict)
    """Rpc → words with which all its calls are denied."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """Streaming rpc → after how many messages its next calls break."""
    api_version: str = "v1"
    in_trailer: bool = False
    """Whether the version is told at the end of a call, or at its start."""
    token: str | None = None
    piece_bytes: int = 7
    oldest_token: int = 0
    """Tokens of watches before this number are refused as too old."""


class _Handlers(grpc.ServerInterceptor):
    """Counts calls, checks the token, tells the version, fails what should fail."""

    def __init__(self, world: World) -> None:
        self.world = world

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            return None
        name = details.method.rpartition("/")[2]
        world = self.world
        streaming = handler.response_streaming
        inner = handler.unary_stream or handler.unary_unary or handler.stream_unary

        def enter(context: grpc.ServicerContext) -> None:
            world.calls[name] += 1
            version = (("cc-server-version", "9.8.7"), ("cc-api-version", world.api_version))
            if world.in_trailer:
                context.set_trailing_metadata(version)
            else:
                context.send_initial_metadata(version)
            sent = dict(context.invocation_metadata())
            if world.token is not None and sent.get("authorization") != f"Bearer {world.token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not valid here")
            if name in world.denials:
                deny(context, world.denials[name])
            if world.failures.get(name):
                code = world.failures[name].pop(0)
                context.abort(code, f"failing with {code.name} as told")

        def one(request: Any, context: grpc.ServicerContext) -> Any:
            enter(context)
            return inner(request, context)

        def many(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            enter(context)
            cut = world.cuts[name].pop(0) if world.cuts.get(name) else None
            for number, message in enumerate(inner(request, context)):
                if number == cut:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was cut as told")
                yield message

        return handler._replace(
            unary_unary=one if handler.unary_unary else None,
            stream_unary=one if handler.stream_unary else None,
            unary_stream=many if streaming else None,
        )


class FakeServer(
    job_service_pb2_grpc.JobServiceServicer,
    fleet_service_pb2_grpc.FleetServiceServicer,
    blob_service_pb2_grpc.BlobServiceServicer,
    usage_service_pb2_grpc.UsageServiceServicer,
):
    """The server; use it in a `with`."""

    def __init__(
        self,
        world: World,
        address: str = "127.0.0.1:0",
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.world = world
        self._lock = threading.Lock()
        self._pool = futures.ThreadPoolExecutor(max_workers=8)
        self._server = grpc.server(self._pool, interceptors=[_Handlers(world)])
        job_service_pb2_grpc.add_JobServiceServicer_to_server(self, self._server)
        fleet_service_pb2_grpc.add_FleetServiceServicer_to_server(self, self._server)
        blob_service_pb2_grpc.add_BlobServiceServicer_to_server(self, self._server)
        usage_service_pb2_grpc.add_UsageServiceServicer_to_server(self, self._server)
        account_service_pb2_grpc.add_AccountServiceServicer_to_server(
            FakeAccounts(world.requests), self._server
        )
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        self.address = address if address.startswith("unix:") else f"127.0.0.1:{port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait(10)
        self._pool.shutdown()

    # Jobs

    def SubmitJob(self, request: Any, context: grpc.ServicerContext) -> job_pb2.Job:
        self.world.requests.append(request)
        document = _plain(request.spec)
        try:
            spec = parse_spec(document)
        except InvalidSpec as error:
            refuse(context, [(f.path, f"{f.value_repr}: {f.message}") for f in error.faults])
        shipped = spec.working_dir
        if isinstance(shipped, Archive) and shipped.sha256 not in self.world.blobs:
            refuse(context, [("working_dir.sha256", "no such blob here")])
        with self._lock:
            if request.request_id in self.world.submits:
                return self.world.submits[request.request_id]
            number = 0 if request.validate_only else len(self.world.jobs) + 1
            job = job_pb2.Job(
                name=f"jobs/{number}" if number else "",
                job_id=number,
                display_name=spec.name,
                spec=struct(canonical(spec)),
                owner="ada",
                state=job_pb2.JOB_STATE_PENDING,
                etag="1",
            )
            if number:
                self.world.submits[request.request_id] = job
                self.world.jobs.setdefault(job.name, [job])
            return job

    def _job(self, name: str, context: grpc.ServicerContext) -> job_pb2.Job:
        if name not in self.world.jobs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {name}")
        return self.world.jobs[name][-1]

    def GetJob(self, request: Any, context: grpc.ServicerContext) -> job_pb2.Job:
        return self._job(request.name, context)

    def ListJobs(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.world.requests.append(request)
        found = [states[-1] for _, states in sorted(self.world.jobs.items(), reverse=True)]
        if request.filter.states:
            found = [job for job in found if job.state in request.filter.states]
        start, size = int(request.page_token or 0), request.page_size or 100
        more = str(start + size) if start + size < len(found) else ""
        page = found[start : start + size]
        return job_service_pb2.ListJobsResponse(jobs=page, next_page_token=more)

    def CancelJobs(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.world.requests.append(request)
        answer = job_service_pb2.CancelJobsResponse()
        names = list(request.names) or [
            name
            for name, states in self.world.jobs.items()
            if states[-1].state in request.filter.states
        ]
        for name in names:
            ended = self._job(name, context).state in FINAL
            (answer.already_ended if ended else answer.cancelled).append(name)
        return answer

    def SignalJob(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.world.requests.append(request)
        job = self._job(request.name, context)
        if not job.attempts or job.attempts[-1].state != job_pb2.ATTEMPT_STATE_RUNNING:
            words = f"{job.name} waits: it has no workers yet that could get a signal"
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, words)
        return job_service_pb2.SignalJobResponse(
            attempt=job.attempts[-1].name,
            signal=f"SIG{request.signal}",
            ranks=request.ranks or [0, 1],
        )

    def SubmitJobs(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.world.requests.append(request)
        names = [f"jobs/{number}" for number in range(7, 7 + len(request.specs))]
        return job_service_pb2.SubmitJobsResponse(names=names)

    def HoldJobs(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.world.requests.append(request)
        return job_service_pb2.HoldJobsResponse(names=request.names)

    def ReleaseJobs(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.world.requests.append(request)
        return job_service_pb2.ReleaseJobsResponse(names=request.names)

    def RequeueJobs(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.world.requests.append(request)
        tasks = [name if "/tasks/" in name else f"{name}/tasks/0" for name in request.names]
        return job_service_pb2.RequeueJobsResponse(tasks=tasks)

    def UpdateJob(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.world.requests.append(request)
        return self._job(request.name, context)

    def ListTasks(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._job(request.name, context)
        return job_service_pb2.ListTasksResponse(tasks=self.world.tasks)

    def WatchJob(self, request: Any, context: grpc.ServicerContext) -> Iterator[job_pb2.Job]:
        self._job(request.name, context)
        yield from self.world.jobs[request.name]

    def ListEvents(self, request: Any, context: grpc.ServicerContext) -> Any:
        found = [
            event
            for event in self.world.events
            if event.seq > request.after_seq and event.resource.startswith(request.resource)
        ]
        return job_service_pb2.ListEventsResponse(events=found[:2])

    def WatchEvents(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Tokens are numbers of events. Ends where a real one would wait."""
        self.world.requests.append(request)
        after = int(request.token or 0)
        self._check_token(after, context)
        yield job_service_pb2.WatchEventsResponse(token=str(after))
        for event in self.world.events:
            if event.seq > after and event.resource.startswith(request.resource):
                yield job_service_pb2.WatchEventsResponse(events=[event], token=str(event.seq))

    def WatchJobs(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Lists the first states, then tells the later ones; tokens are their places in a row."""
        self.world.requests.append(request)
        after = int(request.token or 0)
        self._check_token(after, context)
        names = sorted(self.world.jobs, reverse=True)
        if not request.token:
            jobs = [self.world.jobs[name][0] for name in names]
            yield job_service_pb2.WatchJobsResponse(jobs=jobs, token="1")
        later = [job for name in names for job in self.world.jobs[name][1:]]
        for number, job in enumerate(later, 2):
            if number > after:
                yield job_service_pb2.WatchJobsResponse(jobs=[job], token=str(number))

    def _check_token(self, after: int, context: grpc.ServicerContext) -> None:
        if 0 < after < self.world.oldest_token:
            status = status_pb2.Status(code=11, message="events after this token were removed")
            packed = AnyMessage()
            packed.Pack(
                error_details_pb2.ErrorInfo(reason="TOKEN_OUT_OF_RANGE", domain="controlplane")
            )
            status.details.append(packed)
            context.set_trailing_metadata(
                (("grpc-status-details-bin", status.SerializeToString()),)
            )
            context.abort(grpc.StatusCode.OUT_OF_RANGE, status.message)

    def ReadLogs(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.world.requests.append(request)
        self._job(request.name, context)
        starts = {(p.rank, p.stream): p.offset for p in request.positions}
        for (attempt, rank, stream), data in sorted(self.world.logs.items()):
            wanted = attempt == request.attempt and rank in (request.ranks or [rank])
            if not wanted or request.stream not in (0, stream):
                continue
            tail = max(0, len(data) - request.tail_bytes) if request.tail_bytes else 0
            offset = starts.get((rank, stream), tail)
            offset = max(offset, self.world.begins.get((attempt, rank, stream), 0))
            while offset < len(data):
                part = data[offset : offset + self.world.piece_bytes]
                yield job_service_pb2.ReadLogsResponse(
                    attempt=attempt,
                    rank=rank,
                    stream=job_service_pb2.LogStream.ValueType(stream),
                    offset=offset,
                    data=part,
                    first_kept=self.world.begins.get((attempt, rank, stream), 0),
                )
                offset += len(part)

    def GetMetrics(self, request: Any, context: grpc.ServicerContext) -> Any:
        job = self._job(request.name, context)
        answer = job_service_pb2.GetMetricsResponse(stride=1)
        for attempt in job.attempts[-1:]:
            answer.attempt, answer.rank = attempt.name, 0
            for step in (100, 200):
                point = answer.points.add(step=step, metrics={"loss": 30 / step})
                point.time.FromJsonString(f"2026-03-01T11:0{step // 100}:00Z")
        return answer

    def GetUsage(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.world.requests.append(request)
        *rows, total = self.world.usage
        start = int(request.page_token or 0)
        answer = usage_service_pb2.GetUsageResponse(
            rows=rows[start : start + 2],
            total=total,
            from_time=request.from_time if request.HasField("from_time") else None,
            next_page_token=str(start + 2) if start + 2 < len(rows) else "",
        )
        answer.to_time.FromJsonString("2026-03-01T12:00:00Z")
        return answer

    # Nodes

    def _node(self, name: str, context: grpc.ServicerContext) -> node_pb2.Node:
        for node in self.world.nodes:
            if name in (node.name, f"nodes/{node.facts.display_name}"):
                return node
        context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {name}")
        raise AssertionError("abort raises")

    def ListNodes(self, request: Any, context: grpc.ServicerContext) -> Any:
        return fleet_service_pb2.ListNodesResponse(nodes=self.world.nodes)

    def GetNode(self, request: Any, context: grpc.ServicerContext) -> node_pb2.Node:
        return self._node(request.name, context)

    def DrainNode(self, request: Any, context: grpc.ServicerContext) -> node_pb2.Node:
        node = self._node(request.name, context)
        node.state, node.reason = node_pb2.NODE_STATE_DRAINING, request.reason
        return node

    def LabelNode(self, request: Any, context: grpc.ServicerContext) -> node_pb2.Node:
        found = self._node(request.name, context)
        found.labels.update(request.labels)
        for key in request.remove:
            del found.labels[key]
        return found

    def UndrainNode(self, request: Any, context: grpc.ServicerContext) -> node_pb2.Node:
        node = self._node(request.name, context)
        node.state, node.reason = node_pb2.NODE_STATE_READY, ""
        return node

    def ReleaseNode(self, request: Any, context: grpc.ServicerContext) -> node_pb2.Node:
        node = self._node(request.name, context)
        node.enrolled_by = ""
        return node

    def RevokeNode(self, request: Any, context: grpc.ServicerContext) -> node_pb2.Node:
        return self._node(request.name, context)

    def GetServerInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        return fleet_service_pb2.ServerInfo(
            version="9.8.7", cluster_uuid="c", epoch=3, principal="ada", role="user"
        )

    # Blobs

    def GetBlob(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.sha256 not in self.world.blobs:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such blob")
        size = len(self.world.blobs[request.sha256])
        return blob_service_pb2.Blob(sha256=request.sha256, size_bytes=size)

    def DownloadBlob(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield blob_service_pb2.DownloadBlobResponse(data=self.world.blobs[request.sha256])

    def UploadBlob(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        sha256, data = "", b""
        for request in requests:
            sha256, data = sha256 or request.sha256, data + request.data
        self.world.blobs[sha256] = data
        return blob_service_pb2.Blob(sha256=sha256, size_bytes=len(data))


def refuse(context: grpc.ServicerContext, faults: list[tuple[str, str]]) -> None:
    """End a call as INVALID_ARGUMENT with field violations."""
    request = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=field, description=words)
            for field, words in faults
        ]
    )
    status = status_pb2.Status(code=3, message="invalid")
    for detail in (request, error_details_pb2.ErrorInfo(reason="INVALID_SPEC", domain="test")):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "invalid")


def deny(context: grpc.ServicerContext, words: str) -> None:
    """End a call as PERMISSION_DENIED, as the server does."""
    status = status_pb2.Status(code=7, message=words)
    packed = AnyMessage()
    packed.Pack(error_details_pb2.ErrorInfo(reason="NOT_ALLOWED", domain="test"))
    status.details.append(packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.PERMISSION_DENIED, words)


def struct(document: dict[str, Any]) -> Struct:
    """Give a document as it travels."""
    made = Struct()
    made.update(document)
    return made


def _plain(spec: Struct) -> dict[str, object]:
    document: dict[str, object] = MessageToDict(spec)
    return document
