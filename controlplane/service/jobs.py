"""JobService: what users and ccctl speak."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from controlplane.kit import failpoints
from controlplane.model.errors import FieldFault, InvalidRequest
from controlplane.model.signals import parse_signal
from controlplane.model.specfaults import shown
from controlplane.registry import jobs as commands
from controlplane.registry import signals
from controlplane.registry.store import JobFilter, JobRecord, whose
from controlplane.registry.which import Which
from controlplane.service import eventlist, jobchanges, watching
from controlplane.service.asked import (
    LARGEST_PAGE,
    all_mine,
    asked,
    decimal,
    page_size,
    which_of,
)
from controlplane.service.auth import CALLER
from controlplane.service.context import once_for
from controlplane.service.errors import answers, streams
from controlplane.service.filters import job_filter, narrowed
from controlplane.service.hub import wait
from controlplane.service.jobchanges import checked, named
from controlplane.service.logreader import read_logs
from controlplane.service.permissions import READ_LOGS, may_job
from controlplane.service.progress import metrics
from controlplane.service.room import fitting
from controlplane.service.tasklist import list_tasks
from controlplane.v1 import job_service_pb2 as pb
from controlplane.v1.job_service_pb2_grpc import JobServiceServicer
from controlplane.wire.jobs import (
    checked_job,
    conceal,
    job_message,
    narrow_to_task,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.registry.draft import Draft
    from controlplane.service.context import House
    from controlplane.v1 import job_pb2

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
        house = self._house
        if request.validate_only:
            wanted = await jobchanges.with_pasts(house, checked(house, request.spec))
            paid_by = house.registry.trial(
                lambda draft: commands.accounted(draft, [wanted]), house.actor(context)
            )
            account = paid_by[wanted.spec.account]
            return checked_job(wanted.spec, wanted.spec_sha256, CALLER.get().name, account)
        number, made = await jobchanges.submit(house, request, context)
        failpoints.reach("submit.answered")
        if made is None:  # a repeat: what became of it meanwhile
            return await self._message(Which(number))
        return self._encode(JobRecord(job=made, tasks=(), attempts=(), leases={}))

    @answers
    async def SubmitJobs(
        self, request: pb.SubmitJobsRequest, context: Any
    ) -> pb.SubmitJobsResponse:
        """Accept many jobs."""
        return await jobchanges.submit_jobs(self._house, request, context)

    @answers
    async def HoldJobs(self, request: pb.HoldJobsRequest, context: Any) -> pb.HoldJobsResponse:
        """Start nothing more of jobs."""
        return await jobchanges.hold(self._house, request, context)

    @answers
    async def ReleaseJobs(
        self, request: pb.ReleaseJobsRequest, context: Any
    ) -> pb.ReleaseJobsResponse:
        """Let held jobs go on."""
        return await jobchanges.release(self._house, request, context)

    @answers
    async def RequeueJobs(
        self, request: pb.RequeueJobsRequest, context: Any
    ) -> pb.RequeueJobsResponse:
        """Have what runs started again."""
        return await jobchanges.requeue(self._house, request, context)

    @answers
    async def UpdateJob(self, request: pb.UpdateJobRequest, context: Any) -> job_pb2.Job:
        """Change a job."""
        number = await jobchanges.update(self._house, request, context)
        return await self._message(Which(number))

    @answers
    async def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> pb.ListTasksResponse:
        """List the tasks of a job that were placed."""
        which = await asked(self._house, request.name)
        return await list_tasks(self._house, which, request)

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
        which = narrowed(self._house.registry, job_filter(request.filter))
        full = request.view == pb.JOB_VIEW_FULL
        store = self._house.registry.store
        records = await asyncio.to_thread(
            store.jobs, which, before=before, limit=limit + 1, full=full
        )
        jobs = next(fitting(map(self._encode, records[:limit])), [])
        more = len(records) > len(jobs)
        return pb.ListJobsResponse(
            jobs=jobs,
            next_page_token=str(records[len(jobs) - 1].job.job_id) if more else "",
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
        if request.HasField("filter"):
            which = [Which(number) for number in await self._matching(request.filter)]
        else:
            which = await named(house, request.names)
        once = once_for(caller.name, request)

        def command(draft: Draft) -> dict[str, object]:
            done = commands.cancel(draft, which)
            return {"cancelled": list(done.cancelled), "already_ended": list(done.already_ended)}

        body: Any = await house.write(command, house.actor(context), once)
        failpoints.reach("cancel.answered")
        return pb.CancelJobsResponse(
            cancelled=body["cancelled"], already_ended=body["already_ended"]
        )

    @answers
    async def SignalJob(self, request: pb.SignalJobRequest, context: Any) -> pb.SignalJobResponse:
        """Send a signal to workers of a running job."""
        house, caller = self._house, CALLER.get()
        which = which_of(request.name)
        try:
            name = parse_signal(request.signal)
        except ValueError as error:
            words = f"{shown(request.signal)}: {error}"
            raise InvalidRequest(FieldFault(field="signal", description=words)) from None
        await all_mine(self._house, [which.job_id])

        def command(draft: Draft) -> dict[str, object]:
            done = signals.send(draft, which, name, request.ranks)
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
        which = narrowed(self._house.registry, which)
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
        which = await asked(self._house, request.name)
        told: tuple[str, str] | None = None
        with self._house.hub.listening(("job", which.job_id)) as changed:
            while True:
                job = await self._message(which)
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
        return await eventlist.list_events(self._house, request)

    @streams
    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Any
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """Follow events."""
        async for message in watching.watch_events(self._house, request):
            yield message

    @streams
    async def WatchJobs(
        self, request: pb.WatchJobsRequest, context: Any
    ) -> AsyncIterator[pb.WatchJobsResponse]:
        """Follow the jobs that match a filter."""
        async for message in watching.watch_jobs(self._house, request):
            yield message

    @streams
    async def ReadLogs(
        self, request: pb.ReadLogsRequest, context: Any
    ) -> AsyncIterator[pb.ReadLogsResponse]:
        """Read the output of a job's workers."""
        which = await asked(self._house, request.name)
        async for piece in read_logs(self._house, which, request):
            yield piece

    @answers
    async def GetMetrics(
        self, request: pb.GetMetricsRequest, context: Any
    ) -> pb.GetMetricsResponse:
        """Show what an attempt reported of its progress."""
        return await metrics(self._house, await asked(self._house, request.name), request)

    async def _message(self, which: Which) -> job_pb2.Job:
        registry = self._house.registry
        record = registry.live_job(which.job_id, which.task)
        if record is None:
            record = await asyncio.to_thread(registry.job, which.job_id, which.task)
        message = self._encode(record)
        if which.task is not None:
            code = record.attempts[-1].exit_code if record.attempts else None
            task = record.tasks[0] if record.tasks else None
            narrow_to_task(message, which.task, task, code)
        return message

    def _encode(self, record: JobRecord) -> job_pb2.Job:
        registry = self._house.registry
        message = job_message(
            record.job,
            registry.reason(record.job),
            record.attempts,
            record.leases,
            record.usages,
            record.progress,
            registry.node_names() if record.attempts else {},
        )
        if not may_job(registry, CALLER.get(), READ_LOGS, whose(record.job)):
            conceal(message)
        return message
