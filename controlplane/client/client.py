"""The client itself: one method for each thing that can be asked."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from controlplane.client.retry import FIRST_WAIT_S, RetryNotice, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from grpc import Call

    from controlplane.client.logs import LogPiece
    from controlplane.client.steps import Step
    from controlplane.client.watching import Resumed
    from controlplane.kit.archive import Packed
    from controlplane.v1 import (
        event_pb2,
        fleet_service_pb2,
        job_pb2,
        job_service_pb2,
        node_pb2,
        schedule_service_pb2,
        step_pb2,
        usage_service_pb2,
    )

FINAL_STATES: Final = (3, 4, 5)
"""Numbers of the job states that nothing follows: SUCCEEDED, FAILED, CANCELLED."""


VIEW_S = 120.0
"""A view of a large cluster may take so long to arrive."""


class Client:
    """Speaks with one control plane. May be shared by threads; close it, or use it in a `with`.

    Every method raises a `ClientError` when it fails. Each call ends within `timeout_s` seconds.
    While the server is away, calls are tried again within that time; changes carry a request id, so
    that a repeat changes nothing twice. `watch`, `watch_jobs`, `watch_events` and `logs` bear an
    absence of `patience_s` seconds, and go on where they stopped.
    """

    def __init__(
        self,
        server: str = "127.0.0.1:7600",
        *,
        token: str | None = None,
        ca_file: Path | None = None,
        timeout_s: float = 15.0,
        patience_s: float = 600.0,
        on_retry: Callable[[RetryNotice], None] = lambda _: None,
        on_upload: Callable[[int, int], None] = lambda _sent, _total: None,
    ) -> None:
        """Prepare for one server; nothing is dialled yet.

        `server`: `host:port`, `https://host:port` or `unix:/path`; plaintext is spoken with
        loopback addresses and sockets only. `token`: who you are. `ca_file`: PEM certificates to
        trust instead of the system's. `on_retry` hears of each retry, `on_upload` of bytes sent so
        far and in all.
        """
        # gRPC is heavy: whoever only imports this module should not wait for it.
        from controlplane.client.accounts import Accounts
        from controlplane.client.identities import Identities
        from controlplane.client.queues import Queues
        from controlplane.client.transport import Connection
        from controlplane.v1.account_service_pb2_grpc import AccountServiceStub
        from controlplane.v1.blob_service_pb2_grpc import BlobServiceStub
        from controlplane.v1.fleet_service_pb2_grpc import FleetServiceStub
        from controlplane.v1.identity_service_pb2_grpc import IdentityServiceStub
        from controlplane.v1.job_service_pb2_grpc import JobServiceStub
        from controlplane.v1.queue_service_pb2_grpc import QueueServiceStub
        from controlplane.v1.schedule_service_pb2_grpc import ScheduleServiceStub
        from controlplane.v1.step_service_pb2_grpc import StepServiceStub
        from controlplane.v1.usage_service_pb2_grpc import UsageServiceStub

        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._on_upload = on_upload
        self._connection = Connection(
            server, token=token, ca_file=ca_file, timing=Timing(on_retry=on_retry)
        )
        self._jobs = JobServiceStub(self._connection.channel)
        self._fleet = FleetServiceStub(self._connection.channel)
        self._blobs = BlobServiceStub(self._connection.channel)
        self._usage = UsageServiceStub(self._connection.channel)
        self.identities = Identities(
            IdentityServiceStub(self._connection.channel),
            lambda method, request: self._connection.call(method, request, self._timeout_s),
        )
        """Users, tokens, and hosts that join."""
        self.accounts = Accounts(
            AccountServiceStub(self._connection.channel),
            lambda method, request: self._connection.call(method, request, self._timeout_s),
        )
        """Accounts and their members."""
        self.queues = Queues(
            QueueServiceStub(self._connection.channel),
            lambda method, request: self._connection.call(method, request, self._timeout_s),
        )
        """Priority classes, queues and reservations."""
        self._steps = StepServiceStub(self._connection.channel)
        self._schedule = ScheduleServiceStub(self._connection.channel)

    def __enter__(self) -> Self:
        """Give the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the connection, and every call that another thread has on it."""
        self._connection.close()

    # Jobs

    def submit(
        self,
        document: Mapping[str, object],
        *,
        base: Path = Path(),
        request_id: str | None = None,
        validate_only: bool = False,
        hold: bool = False,
    ) -> job_pb2.Job:
        """Submit a decoded job.json, and give its job. Once this returns, the job is kept.

        `base`: the folder that `{"ship": "…"}` is relative to. `request_id`: the same one never
        makes a second job; one is chosen when none is given. `validate_only`: only check, ship
        nothing. `hold`: accept it held, see `hold_jobs`.
        """
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.SubmitJobRequest(
            request_id=request_id or uuid.uuid4().hex, validate_only=validate_only, hold=hold
        )
        request.spec.update(self._ready(document, base, validate_only))
        return self._connection.call(self._jobs.SubmitJob, request, self._timeout_s)

    def submit_many(
        self,
        documents: Iterable[Mapping[str, object]],
        *,
        base: Path = Path(),
        request_id: str | None = None,
        hold: bool = False,
    ) -> Sequence[str]:
        """Submit jobs together, all of them or none, and give their names in the same order. As
        `submit` otherwise."""
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.SubmitJobsRequest(
            request_id=request_id or uuid.uuid4().hex, hold=hold
        )
        for document in documents:
            request.specs.add().update(self._ready(document, base, False))
        return self._connection.call(self._jobs.SubmitJobs, request, self._timeout_s).names

    def _ready(
        self, document: Mapping[str, object], base: Path, validate_only: bool
    ) -> dict[str, Any]:
        """A document as the server takes it: checked, with its folder shipped."""
        from controlplane.client.shipping import (
            check_document,
            folder_to_ship,
            with_moment,
            with_passed_env,
        )
        from controlplane.kit.clock import SystemClock
        from controlplane.model.spec import Ship

        document = with_moment(with_passed_env(document, os.environ), SystemClock().now_us())
        spec = check_document(document)
        plain: dict[str, Any] = json.loads(json.dumps(document))
        plain.pop("pass_env", None)
        if isinstance(spec.working_dir, Ship):
            packed = self._ship(
                folder_to_ship(base, spec.working_dir.folder),
                spec.working_dir.exclude,
                validate_only,
            )
            plain["working_dir"] = {"sha256": packed.sha256, "size": packed.size_bytes}
            if validate_only:
                # The folder was checked here; the server would miss its archive.
                del plain["working_dir"]
        return plain

    def hold_jobs(self, names: Iterable[str], *, request_id: str | None = None) -> Sequence[str]:
        """Start nothing more of jobs until they are released; their names."""
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.HoldJobsRequest(
            names=names, request_id=request_id or uuid.uuid4().hex
        )
        return self._connection.call(self._jobs.HoldJobs, request, self._timeout_s).names

    def release_jobs(self, names: Iterable[str], *, request_id: str | None = None) -> Sequence[str]:
        """Let jobs that are held go on; their names."""
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.ReleaseJobsRequest(
            names=names, request_id=request_id or uuid.uuid4().hex
        )
        return self._connection.call(self._jobs.ReleaseJobs, request, self._timeout_s).names

    def requeue(self, names: Iterable[str], *, request_id: str | None = None) -> Sequence[str]:
        """End what runs of jobs or tasks, and have it started again; names of the tasks."""
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.RequeueJobsRequest(
            names=names, request_id=request_id or uuid.uuid4().hex
        )
        return self._connection.call(self._jobs.RequeueJobs, request, self._timeout_s).tasks

    def update(
        self,
        name: str,
        *,
        time_limit_us: int | None = None,
        no_time_limit: bool = False,
        priority_class: str = "",
        account: str = "",
        request_id: str | None = None,
    ) -> job_pb2.Job:
        """Change a job's time limit, its priority class or the account that pays, and give the job
        as it is then."""
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.UpdateJobRequest(
            name=name,
            no_time_limit=no_time_limit,
            priority_class=priority_class,
            account=account,
            request_id=request_id or uuid.uuid4().hex,
        )
        if time_limit_us is not None:
            request.time_limit.FromMicroseconds(time_limit_us)
        return self._connection.call(self._jobs.UpdateJob, request, self._timeout_s)

    def tasks(
        self, name: str, *, states: Iterable[job_pb2.JobState.ValueType] = (), page_size: int = 0
    ) -> Iterator[job_pb2.Task]:
        """Yield the tasks of a job that were placed or ended, by index."""
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.ListTasksRequest(name=name, states=states, page_size=page_size)
        while True:
            page = self._connection.call(self._jobs.ListTasks, request, self._timeout_s)
            yield from page.tasks
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def get(self, name: str) -> job_pb2.Job:
        """Give one job with all its attempts. `name`: `jobs/123`."""
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.GetJobRequest(name=name)
        return self._connection.call(self._jobs.GetJob, request, self._timeout_s)

    def list(
        self,
        filter: job_service_pb2.JobFilter | None = None,
        *,
        full: bool = False,
        page_size: int = 0,
    ) -> Iterator[job_pb2.Job]:
        """Yield jobs, newest first; pages are asked for as needed. `full`: with their attempts."""
        from controlplane.v1 import job_service_pb2

        view = job_service_pb2.JOB_VIEW_FULL if full else job_service_pb2.JOB_VIEW_BASIC
        request = job_service_pb2.ListJobsRequest(filter=filter, view=view, page_size=page_size)
        while True:
            page = self._connection.call(self._jobs.ListJobs, request, self._timeout_s)
            yield from page.jobs
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def cancel(
        self,
        names: Iterable[str] = (),
        *,
        filter: job_service_pb2.JobFilter | None = None,
        request_id: str | None = None,
    ) -> job_service_pb2.CancelJobsResponse:
        """End jobs, by their names or by a filter; those that have ended are left as they are."""
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.CancelJobsRequest(
            names=names, filter=filter, request_id=request_id or uuid.uuid4().hex
        )
        return self._connection.call(self._jobs.CancelJobs, request, self._timeout_s)

    def signal(
        self,
        name: str,
        signal: str,
        *,
        ranks: Iterable[int] = (),
        request_id: str | None = None,
    ) -> job_service_pb2.SignalJobResponse:
        """Send a signal to workers of a running job, to all of them without `ranks`.

        `signal`: its name, such as `USR1`. Each worker gets it once, however often this is tried.
        """
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.SignalJobRequest(
            name=name, signal=signal, ranks=ranks, request_id=request_id or uuid.uuid4().hex
        )
        return self._connection.call(self._jobs.SignalJob, request, self._timeout_s)

    def watch(self, name: str) -> Iterator[job_pb2.Job]:
        """Yield a job as it is now, and after each change, until it has ended."""
        yield from self._watch(name, self._timeout_s)

    def watch_jobs(
        self, filter: job_service_pb2.JobFilter | None = None, *, token: str = ""
    ) -> Iterator[job_pb2.Job]:
        """Yield the jobs that match a filter, newest first, then each after it has changed, for
        ever; without attempts.

        It goes on by itself when the server was away. When that was for so long that what changed
        meanwhile is not known any more, it begins again with the list: a job that was told before
        may come again. Of the filter's states only the list is made: a job that leaves them is
        told, too.
        """
        from controlplane.client.watching import jobs
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.WatchJobsRequest(filter=filter, token=token)
        yield from jobs(self._resumed(self._jobs.WatchJobs, request))

    def watch_events(
        self,
        resource: str = "",
        *,
        kinds: Iterable[str] = (),
        since_us: int | None = None,
        token: str = "",
        on_token: Callable[[str], None] = lambda _: None,
    ) -> Iterator[event_pb2.Event]:
        """Yield what happens to a resource and its parts from now on, or since a moment (UTC,
        microseconds), for ever: each event once, in order, whatever happens to the server.

        `kinds`: only these, such as `node.drained`, or all of a noun, `node`. `token`: from
        `on_token`, which is called with one when all events before it were taken: a program that
        keeps it misses nothing when it is started again. Raises `Refused` with the reason
        TOKEN_OUT_OF_RANGE when what follows the token is not kept any more.
        """
        from controlplane.client.watching import events
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.WatchEventsRequest(resource=resource, kinds=kinds, token=token)
        if since_us is not None and not token:
            request.since_time.FromMicroseconds(since_us)
        yield from events(self._resumed(self._jobs.WatchEvents, request), on_token)

    def _resumed(
        self,
        method: Any,
        request: job_service_pb2.WatchEventsRequest | job_service_pb2.WatchJobsRequest,
    ) -> Resumed:
        from controlplane.client.watching import Resumed

        return Resumed(
            self._connection,
            method,
            request,
            first_s=self._timeout_s,
            patience_s=self._patience_s,
        )

    def _watch(self, name: str, first_s: float) -> Iterator[job_pb2.Job]:
        """As `watch`; `first_s`: for so long an absent server is waited for at first."""
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.WatchJobRequest(name=name)
        last = None
        while True:
            for job in self._connection.stream(
                self._jobs.WatchJob, lambda: request, first_s=first_s, patience_s=self._patience_s
            ):
                first_s = self._patience_s
                # After each reconnection the server tells the present state again. Why a job waits
                # is no part of the etag: it is found anew by each look of the scheduler.
                told = (job.etag, job.reason)
                if told != last or not job.etag:
                    yield job
                last = told
                if job.state in FINAL_STATES:
                    return
            if self._connection.closed:
                return
            # A server that stops may end its streams in peace; do not storm the next one.
            self._connection.timing.sleep(FIRST_WAIT_S)

    def logs(
        self,
        name: str,
        *,
        attempt: int = 0,
        ranks: Sequence[int] = (),
        stream: str | None = None,
        follow: bool = False,
        tail_bytes: int = 0,
        since_us: int | None = None,
        until_us: int | None = None,
        step: int = 0,
        on_attempt: Callable[[int], None] = lambda _: None,
    ) -> Iterator[LogPiece]:
        """Yield what a job's workers wrote: each byte once, in order within each stream.

        `attempt`: 0 for the last one and, with `follow`, those after it; for all of them with
        `since_us` or `until_us`, which choose what was printed at or after a moment and before
        another, to a second or so (UTC, microseconds). `ranks`: empty for all. `stream`: `stdout`,
        `stderr`, or None for both. `follow`: go on until the job, or the attempt that was asked
        for, has ended. `tail_bytes`: only so many last bytes of each stream; 0 for all. `step`:
        instead of the workers' output, that of this detached step. `on_attempt` is called with the
        number of an attempt after the first before its output; of one that begins meanwhile, as
        soon as it does.
        """
        from controlplane.client.logs import STREAMS, read_attempts
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.ReadLogsRequest(
            name=name,
            attempt=attempt,
            ranks=ranks,
            stream=STREAMS[stream] if stream else job_service_pb2.LOG_STREAM_UNSPECIFIED,
            follow=follow,
            tail_bytes=tail_bytes,
            step=step,
        )
        if since_us is not None:
            request.since_time.FromMicroseconds(since_us)
        if until_us is not None:
            request.until_time.FromMicroseconds(until_us)
        first_s = self._timeout_s

        def next_attempt(after: int) -> int:
            nonlocal first_s
            number = self._next_attempt(name, after, wait=follow, first_s=first_s)
            if follow:
                first_s = self._patience_s  # it was heard: now its absence is borne
            return number

        yield from read_attempts(
            request,
            next_attempt,
            lambda ask: self._connection.stream(
                self._jobs.ReadLogs, ask, first_s=first_s, patience_s=self._patience_s
            ),
            on_attempt,
        )

    def events(
        self, resource: str = "", *, after_seq: int = 0, since_us: int | None = None
    ) -> Iterator[event_pb2.Event]:
        """Yield what happened to a resource and its parts, oldest first; without one, to all.
        `since_us`: from that moment on, UTC in microseconds."""
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.ListEventsRequest(resource=resource, after_seq=after_seq)
        if since_us is not None:
            request.since_time.FromMicroseconds(since_us)
        while True:
            page = self._connection.call(self._jobs.ListEvents, request, self._timeout_s)
            if not page.events:
                return
            yield from page.events
            request.after_seq = page.events[-1].seq
            request.ClearField("since_time")

    # Steps

    def start_step(self, start: step_pb2.StepStart) -> Step:
        """Start a command or a shell inside a running job, and give the connection with it.

        It is not tried again when it fails: a repeat would start another.
        """
        from controlplane.client.steps import Step

        return Step(self._connection, self._steps, start, self._timeout_s)

    def metrics(self, name: str, *, attempt: int = 0) -> job_service_pb2.GetMetricsResponse:
        """Give the series that a job's attempt reported of its progress; 0 for the last one."""
        from controlplane.v1 import job_service_pb2

        request = job_service_pb2.GetMetricsRequest(name=name, attempt=attempt)
        return self._connection.call(self._jobs.GetMetrics, request, self._timeout_s)

    # Decisions

    def explain(self, name: str) -> schedule_service_pb2.Explanation:
        """Why a job waits, or one task of it, when it will start, and what would start it now.

        WrongState for one that does not wait.
        """
        from controlplane.v1 import schedule_service_pb2

        request = schedule_service_pb2.ExplainJobRequest(name=name)
        return self._connection.call(self._schedule.ExplainJob, request, self._timeout_s)

    def view(self) -> bytes:
        """The JSON document that the next decision would be made of; its pieces are of one moment,
        so a call that breaks is begun anew."""
        from controlplane.v1 import schedule_service_pb2

        request = schedule_service_pb2.DumpViewRequest()

        def once(left_s: float) -> tuple[schedule_service_pb2.DumpViewResponse, Call]:
            call = self._schedule.DumpView(
                request, timeout=left_s, metadata=self._connection.metadata
            )
            data = b"".join(piece.data for piece in call)
            return schedule_service_pb2.DumpViewResponse(data=data), call

        return self._connection.attempt(once, max(self._timeout_s, VIEW_S)).data

    # Usage

    def usage(
        self, request: usage_service_pb2.GetUsageRequest | None = None
    ) -> usage_service_pb2.GetUsageResponse:
        """Sum what jobs used; the rows of all pages, as of the moment of the first one.

        Without a request: of each user, from the first record up to now.
        """
        from controlplane.v1 import usage_service_pb2

        asked = usage_service_pb2.GetUsageRequest()
        if request is not None:
            asked.CopyFrom(request)
        answer = self._connection.call(self._usage.GetUsage, asked, self._timeout_s)
        asked.to_time.CopyFrom(answer.to_time)
        while answer.next_page_token:
            asked.page_token = answer.next_page_token
            page = self._connection.call(self._usage.GetUsage, asked, self._timeout_s)
            answer.rows.extend(page.rows)
            answer.next_page_token = page.next_page_token
        return answer

    # Nodes

    def nodes(self, selector: str = "") -> Iterator[node_pb2.Node]:
        """Yield all nodes by display name, or those whose labels a selector allows."""
        from controlplane.v1 import fleet_service_pb2

        request = fleet_service_pb2.ListNodesRequest(node_selector=selector)
        while True:
            page = self._connection.call(self._fleet.ListNodes, request, self._timeout_s)
            yield from page.nodes
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def node(self, name: str) -> node_pb2.Node:
        """Give one node. `name`: `nodes/<uuid>`, or `nodes/<display name>` where that is unique."""
        from controlplane.v1 import fleet_service_pb2

        request = fleet_service_pb2.GetNodeRequest(name=name)
        return self._connection.call(self._fleet.GetNode, request, self._timeout_s)

    def label(
        self,
        name: str,
        labels: Mapping[str, str],
        remove: Iterable[str] = (),
        *,
        request_id: str | None = None,
    ) -> node_pb2.Node:
        """Give a node labels, which override those of its agent, and take given ones away."""
        from controlplane.v1 import fleet_service_pb2

        request = fleet_service_pb2.LabelNodeRequest(
            name=name, labels=labels, remove=remove, request_id=request_id or uuid.uuid4().hex
        )
        return self._connection.call(self._fleet.LabelNode, request, self._timeout_s)

    def drain(self, name: str, *, reason: str, request_id: str | None = None) -> node_pb2.Node:
        """Send a node no new work; what runs may finish."""
        from controlplane.v1 import fleet_service_pb2

        request = fleet_service_pb2.DrainNodeRequest(
            name=name, reason=reason, request_id=request_id or uuid.uuid4().hex
        )
        return self._connection.call(self._fleet.DrainNode, request, self._timeout_s)

    def undrain(self, name: str, *, request_id: str | None = None) -> node_pb2.Node:
        """Take a node back into service."""
        from controlplane.v1 import fleet_service_pb2

        request = fleet_service_pb2.UndrainNodeRequest(
            name=name, request_id=request_id or uuid.uuid4().hex
        )
        return self._connection.call(self._fleet.UndrainNode, request, self._timeout_s)

    def release(self, name: str, *, request_id: str | None = None) -> node_pb2.Node:
        """Let the agent that calls next speak for a node, whoever enrolled it before."""
        from controlplane.v1 import fleet_service_pb2

        request = fleet_service_pb2.ReleaseNodeRequest(
            name=name, request_id=request_id or uuid.uuid4().hex
        )
        return self._connection.call(self._fleet.ReleaseNode, request, self._timeout_s)

    def revoke(self, name: str, *, request_id: str | None = None) -> node_pb2.Node:
        """Make every certificate void that a node was issued until now."""
        from controlplane.v1 import fleet_service_pb2

        request = fleet_service_pb2.RevokeNodeRequest(
            name=name, request_id=request_id or uuid.uuid4().hex
        )
        return self._connection.call(self._fleet.RevokeNode, request, self._timeout_s)

    # The rest

    def server_info(self) -> fleet_service_pb2.ServerInfo:
        """Tell which control plane this is, and whom it takes the caller for."""
        from controlplane.v1 import fleet_service_pb2

        request = fleet_service_pb2.GetServerInfoRequest()
        return self._connection.call(self._fleet.GetServerInfo, request, self._timeout_s)

    def upload_dir(self, folder: Path, exclude: Sequence[str] = ()) -> Packed:
        """Bring a folder to the server, once per content; gives its SHA-256 and size for a spec."""
        return self._ship(folder, exclude, dry_run=False)

    def _ship(self, folder: Path, exclude: Sequence[str], dry_run: bool) -> Packed:
        from controlplane.client.blobs import upload_dir

        return upload_dir(
            self._connection,
            self._blobs,
            folder,
            exclude,
            timeout_s=self._timeout_s,
            on_upload=self._on_upload,
            dry_run=dry_run,
        )

    def _next_attempt(self, name: str, after: int, *, wait: bool, first_s: float) -> int:
        """Number of the attempt to read after another; after none, the last. 0: there is none."""
        for job in self._watch(name, first_s) if wait else [self.get(name)]:
            if job.HasField("tasks"):
                from controlplane.client.errors import InvalidInput
                from controlplane.model.errors import FieldFault

                words = f"{name} is an array: name one of its tasks, such as {name}/tasks/4"
                raise InvalidInput.of(FieldFault(field="name", description=words))
            last = job.attempts[-1].number if job.attempts else 0
            if last > after:
                return after + 1 if after else last
        return 0
