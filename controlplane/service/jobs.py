"""JobService: what users and ccctl speak."""

from __future__ import annotations

import asyncio
import difflib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from controlplane.model.errors import FieldFault, InvalidRequest, NotAllowed
from controlplane.model.signals import parse_signal
from controlplane.model.spec import Archive, JobSpec, parse_spec, spec_sha256
from controlplane.model.specfaults import shown
from controlplane.registry import jobs as commands
from controlplane.registry import signals
from controlplane.registry.store import JobFilter, JobRecord
from controlplane.service.asked import all_mine, asked, decimal, job_number
from controlplane.service.auth import CALLER
from controlplane.service.context import once_for, once_of
from controlplane.service.errors import answers, streams
from controlplane.service.hub import wait
from controlplane.service.logreader import read_logs
from controlplane.service.permissions import (
    GET_BLOB,
    READ_LOGS,
    RPC,
    Reach,
    may,
    reach,
    refusal,
)
from controlplane.service.progress import metrics
from controlplane.v1 import job_service_pb2 as pb
from controlplane.v1.job_service_pb2_grpc import JobServiceServicer
from controlplane.wire.basics import document, from_timestamp
from controlplane.wire.jobs import JOB_STATES, checked_job, conceal, event_message, job_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from controlplane.registry.draft import Draft
    from controlplane.service.context import House
    from controlplane.v1 import job_pb2

DEFAULT_PAGE, LARGEST_PAGE = 100, 1000
MOST_NAMES = 10_000
"""Names of jobs in one call."""
LONGEST_PATTERN = 200
"""Characters of a pattern; display names are no longer."""
REASON_PERIOD_S = 1.0
"""Reasons to wait are not events: a watched job that waits is looked at so often."""


class JobService(JobServiceServicer):
    """Submits, shows and ends jobs."""

    def __init__(self, house: House) -> None:
        """`house`: the rooms to speak to."""
        self._house = house

    @answers
    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Any) -> job_pb2.Job:
        """Accept a job."""
        house, caller = self._house, CALLER.get()
        spec = parse_spec(document(request.spec))
        priority = self._check(spec)
        sha256 = spec_sha256(spec)
        if request.validate_only:
            return checked_job(spec, sha256, caller.name)
        once = once_of(caller.name, request.request_id, sha256)

        def command(draft: Draft) -> dict[str, object]:
            return {"job_id": commands.submit(draft, spec, sha256, priority).job_id}

        body = await house.write(command, house.actor(context), once)
        return await self._message(int(str(body["job_id"])))

    def _check(self, spec: JobSpec) -> int:
        """What only this site can know of a spec: its classes, its queues, its blobs. Answers the
        priority."""
        rules, faults = self._house.rules, []
        wanted = spec.priority_class or rules.default_priority_class
        if wanted not in rules.priority_classes:
            words = _unknown(wanted, "priority class", rules.priority_classes)
            faults.append(FieldFault(field="priority_class", description=words))
        if spec.queue not in rules.queues:
            words = _unknown(spec.queue, "queue", rules.queues)
            faults.append(FieldFault(field="queue", description=words))
        if isinstance(spec.working_dir, Archive):
            sha256, caller = spec.working_dir.sha256, CALLER.get()
            blobs = self._house.blobs
            allowed = may(caller, GET_BLOB, blobs.owner(sha256, caller.name))
            if not allowed or not blobs.use(sha256):
                words = f'"{sha256}": no such blob of yours here; upload it before the submit'
                faults.append(FieldFault(field="working_dir.sha256", description=words))
        if faults:
            raise InvalidRequest(*faults)
        return rules.priority_classes[wanted]

    @answers
    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> job_pb2.Job:
        """Show one job."""
        return await self._message(await asked(self._house, request.name))

    @answers
    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        """List jobs, newest first."""
        limit = page_size(request.page_size)
        before = decimal(request.page_token)
        if request.page_token and before is None:
            words = "is none of this server's; use the next_page_token of the answer before"
            raise InvalidRequest(FieldFault(field="page_token", description=words))
        which = _narrowed(job_filter(request.filter))
        full = request.view == pb.JOB_VIEW_FULL
        store = self._house.registry.store
        records = await asyncio.to_thread(
            store.jobs, which, before=before, limit=limit + 1, full=full
        )
        more = len(records) > limit
        return pb.ListJobsResponse(
            jobs=[self._encode(record) for record in records[:limit]],
            next_page_token=str(records[limit - 1].job.job_id) if more else "",
        )

    @answers
    async def CancelJobs(
        self, request: pb.CancelJobsRequest, context: Any
    ) -> pb.CancelJobsResponse:
        """End jobs by name or by filter."""
        house, caller = self._house, CALLER.get()
        if bool(request.names) == request.HasField("filter"):
            words = "name jobs, or give a filter with at least one field set, but not both"
            raise InvalidRequest(FieldFault(field="names", description=words))
        if len(request.names) > MOST_NAMES:
            words = f"{len(request.names)} of them; at most {MOST_NAMES} in one call"
            raise InvalidRequest(FieldFault(field="names", description=words))
        numbers = [job_number(name, "names") for name in request.names]
        await all_mine(self._house, numbers)
        if request.HasField("filter"):
            numbers = await self._matching(request.filter)
        once = once_for(caller.name, request)

        def command(draft: Draft) -> dict[str, object]:
            done = commands.cancel(draft, numbers)
            return {"cancelled": list(done.cancelled), "already_ended": list(done.already_ended)}

        body: Any = await house.write(command, house.actor(context), once)
        return pb.CancelJobsResponse(
            cancelled=[f"jobs/{number}" for number in body["cancelled"]],
            already_ended=[f"jobs/{number}" for number in body["already_ended"]],
        )

    @answers
    async def SignalJob(self, request: pb.SignalJobRequest, context: Any) -> pb.SignalJobResponse:
        """Send a signal to workers of a running job."""
        house, caller = self._house, CALLER.get()
        number = job_number(request.name)
        try:
            name = parse_signal(request.signal)
        except ValueError as error:
            words = f"{shown(request.signal)}: {error}"
            raise InvalidRequest(FieldFault(field="signal", description=words)) from None
        await all_mine(self._house, [number])

        def command(draft: Draft) -> dict[str, object]:
            done = signals.send(draft, number, name, request.ranks)
            return {"attempt": done.attempt, "ranks": list(done.ranks)}

        once = once_for(caller.name, request)
        body: Any = await house.write(command, house.actor(context), once)
        return pb.SignalJobResponse(
            attempt=body["attempt"], signal=f"SIG{name}", ranks=body["ranks"]
        )

    async def _matching(self, message: pb.JobFilter) -> list[int]:
        which = job_filter(message)
        if which == JobFilter():
            words = "would end every job; set at least one field, e.g. states"
            raise InvalidRequest(FieldFault(field="filter", description=words))
        which = _narrowed(which)
        numbers: list[int] = []
        before: int | None = None
        while True:
            records = await asyncio.to_thread(
                self._house.registry.store.jobs,
                which,
                before=before,
                limit=LARGEST_PAGE,
                full=False,
            )
            numbers += [r.job.job_id for r in records if not r.job.state.final]
            if len(records) < LARGEST_PAGE:
                return numbers
            before = records[-1].job.job_id

    @streams
    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Any
    ) -> AsyncIterator[job_pb2.Job]:
        """Follow one job until it ends."""
        number = await asked(self._house, request.name)
        told: tuple[str, str] | None = None
        with self._house.hub.listening(("job", number)) as changed:
            while True:
                job = await self._message(number)
                if (job.etag, job.reason) != told:
                    told = (job.etag, job.reason)
                    yield job
                if job.HasField("exit_code"):
                    return
                await wait(changed, REASON_PERIOD_S)

    @answers
    async def ListEvents(
        self, request: pb.ListEventsRequest, context: Any
    ) -> pb.ListEventsResponse:
        """List events in the order of commits."""
        await self._may_see(request.resource)
        events = await asyncio.to_thread(
            self._house.registry.store.events,
            request.resource,
            after=request.after_seq,
            limit=page_size(request.page_size),
        )
        return pb.ListEventsResponse(events=[event_message(event) for event in events])

    @streams
    async def ReadLogs(
        self, request: pb.ReadLogsRequest, context: Any
    ) -> AsyncIterator[pb.ReadLogsResponse]:
        """Read the output of a job's workers."""
        number = await asked(self._house, request.name)
        async for piece in read_logs(self._house, number, request):
            yield piece

    @answers
    async def GetMetrics(
        self, request: pb.GetMetricsRequest, context: Any
    ) -> pb.GetMetricsResponse:
        """Show what an attempt reported of its progress."""
        return await metrics(self._house, await asked(self._house, request.name), request)

    async def _may_see(self, resource: str) -> None:
        """NotAllowed unless the caller may see the events of a resource."""
        name, _, _ = resource.removeprefix("jobs/").partition("/")
        if resource.startswith("jobs/") and decimal(name) is not None:
            await asked(self._house, f"jobs/{name}")
            return
        caller = CALLER.get()
        if reach(caller, RPC.get()) is not Reach.ALL:
            raise NotAllowed(
                f"{caller.name} has the role {caller.role}, which sees events of its own jobs"
                " alone; name one of them, or a part of one, as the resource: jobs/123"
            )

    async def _message(self, job_id: int) -> job_pb2.Job:
        registry = self._house.registry
        record = registry.live_job(job_id)
        if record is None:
            record = await asyncio.to_thread(registry.job, job_id)
        return self._encode(record)

    def _encode(self, record: JobRecord) -> job_pb2.Job:
        registry = self._house.registry
        message = job_message(
            record.job,
            registry.reason(record.job),
            record.attempts,
            record.leases,
            record.usages,
            record.progress,
            registry.node_names(),
        )
        if not may(CALLER.get(), READ_LOGS, record.job.owner):
            conceal(message)
        return message


def _narrowed(which: JobFilter) -> JobFilter:
    """A filter that takes only what the caller may do this to. NotAllowed when it asks for others'
    by name."""
    caller = CALLER.get()
    if reach(caller, RPC.get()) is Reach.ALL:
        return which
    if which.owner and not may(caller, RPC.get(), which.owner):
        error = refusal(caller, RPC.get(), f"jobs of {which.owner[:100]!r}")
        error.resource = "jobs"  # the name is the caller's words, and may be anything
        raise error
    return replace(which, owner=caller.name)


def job_filter(message: pb.JobFilter) -> JobFilter:
    """A filter. InvalidRequest for a state that this release does not know, or no moment."""
    try:
        states = frozenset(JOB_STATES.into(state) for state in message.states)
    except ValueError as error:
        raise InvalidRequest(FieldFault(field="filter.states", description=str(error))) from None
    if len(message.display_name) > LONGEST_PATTERN:
        words = f"has {len(message.display_name)} characters; at most {LONGEST_PATTERN} are allowed"
        raise InvalidRequest(FieldFault(field="filter.display_name", description=words))
    return JobFilter(
        states=states,
        owner=message.owner,
        name_pattern=message.display_name,
        created_from_us=_moment(message, "created_after"),
        created_before_us=_moment(message, "created_before"),
        labels=tuple(sorted(message.labels.items())),
    )


def _moment(message: pb.JobFilter, field: str) -> int | None:
    try:
        return from_timestamp(message, field)
    except ValueError as error:
        raise InvalidRequest(FieldFault(field=f"filter.{field}", description=str(error))) from None


def page_size(wanted: int) -> int:
    """How many entries a page holds. InvalidRequest for a negative number."""
    if wanted < 0:
        words = f"{wanted}: must not be negative; at most {LARGEST_PAGE}"
        raise InvalidRequest(FieldFault(field="page_size", description=words))
    return min(wanted or DEFAULT_PAGE, LARGEST_PAGE)


def _unknown(name: str, noun: str, known: Iterable[str]) -> str:
    there = sorted(known)
    near = difflib.get_close_matches(name, there, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else f"; there are: {', '.join(there)}"
    return f'"{name}": there is no such {noun}{hint}'
