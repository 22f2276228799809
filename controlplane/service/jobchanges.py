"""What users have done to jobs: accepted, ended, held, released, started again, changed."""

from __future__ import annotations

import asyncio
import difflib
import hashlib
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from google.protobuf.struct_pb2 import Struct

from controlplane.model.errors import FieldFault, InvalidRequest, NotAllowed
from controlplane.model.event import Actor
from controlplane.model.identity import Role
from controlplane.model.spec import (
    SPECS_REMEMBERED,
    Archive,
    InvalidSpec,
    JobSpec,
    parse_spec,
)
from controlplane.model.specpieces import PIECES_REMEMBERED, Piece, canonical_text, joined, piece
from controlplane.registry import jobs as commands
from controlplane.registry.accounts import payer
from controlplane.registry.depending import Unread
from controlplane.registry.jobs import Change, Wanted
from controlplane.service.asked import all_mine, which_of
from controlplane.service.auth import CALLER
from controlplane.service.context import once_for, once_of
from controlplane.service.dependencies import looked_up
from controlplane.service.permissions import GET_BLOB, may
from controlplane.v1 import job_service_pb2 as pb
from controlplane.wire.basics import document, from_duration, member, members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from controlplane.model.job import Job
    from controlplane.model.queues import JobQueue
    from controlplane.registry.draft import Draft
    from controlplane.registry.which import Which
    from controlplane.service.context import House

MOST_NAMES = 10_000
"""Names of jobs, or specs, in one call."""
LONGEST_LIMIT_US = 366 * 86_400_000_000
"""As in job.json."""
LONGEST_REMEMBERED = 4096
"""Bytes of a spec, or of a member of one, that is remembered as it was read."""
_OPERATORS = (Role.OPERATOR, Role.ADMIN)


def checked(house: House, message: Struct) -> Wanted:
    """A spec as it was sent, checked. InvalidSpec with each fault of the document; InvalidRequest
    with each that only this site can know of: its classes, its queues, its blobs."""
    sent = message.SerializeToString(deterministic=True)
    return _allowed(house, *(_read_again if len(sent) <= LONGEST_REMEMBERED else _read)(sent))


def _allowed(house: House, spec: JobSpec, text: str, spec_hash: str) -> Wanted:
    """A spec of this site. InvalidRequest with each fault."""
    registry, faults = house.registry, []
    found, queue = registry.priority_class(spec.priority_class), registry.queue(spec.queue)
    if found is None:
        faults.append(_no_class(house, spec.priority_class or ""))
    if queue is None:
        words = _unknown(spec.queue, "queue", [each.name for each in registry.queues()])
        faults.append(FieldFault(field="queue", description=words))
    else:
        owner = CALLER.get().name
        faults += queue.faults(spec, owner, _payer(house, spec.account, owner, queue))
    if isinstance(spec.working_dir, Archive):
        sha256, caller = spec.working_dir.sha256, CALLER.get()
        blobs = house.blobs
        allowed = may(caller, GET_BLOB, blobs.owner(sha256, caller.name))
        if not allowed or not blobs.use(sha256):
            words = f'"{sha256}": no such blob of yours here; upload it before the submit'
            faults.append(FieldFault(field="working_dir.sha256", description=words))
    if faults or found is None:
        raise InvalidRequest(*faults)
    return Wanted(spec, spec_hash, found.value, text)


def _payer(house: House, wanted: str | None, owner: str, queue: JobQueue) -> str:
    """The account that would pay for a job, where its queue asks for that."""
    if wanted or not queue.accounts:
        return wanted or ""
    actor = Actor(principal=owner)
    return house.registry.trial(lambda draft: payer(draft, None, owner), actor)


def _no_class(house: House, name: str) -> FieldFault:
    there = [each.name for each in house.registry.priority_classes()]
    return FieldFault(field="priority_class", description=_unknown(name, "priority class", there))


def _read(sent: bytes) -> tuple[JobSpec, str, str]:
    """A spec, its canonical JSON and the SHA-256 of that. What was lately sent as a whole, or in
    the same member of another one, is not read again."""
    parts = members(sent)
    spec = joined(map(_part, parts)) if parts is not None else None
    if spec is None:
        spec = parse_spec(document(Struct.FromString(sent)))
    text = canonical_text(spec)
    return spec, text, hashlib.sha256(text.encode()).hexdigest()


_read_again = lru_cache(SPECS_REMEMBERED)(_read)


def _part(sent: bytes) -> Piece | None:
    return _remembered(sent) if len(sent) <= LONGEST_REMEMBERED else piece(*member(sent))


@lru_cache(PIECES_REMEMBERED)
def _remembered(sent: bytes) -> Piece | None:
    return piece(*member(sent))


def _unknown(name: str, noun: str, known: Iterable[str]) -> str:
    there = sorted(known)
    near = difflib.get_close_matches(name, there, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else f"; there are: {', '.join(there)}"
    return f'"{name}": there is no such {noun}{hint}'


async def submit(
    house: House, request: pb.SubmitJobRequest, context: Any
) -> tuple[int, Job | None]:
    """Accept a job; its number, and it as it was accepted, unless this is a repeat."""
    found = checked(house, request.spec)
    content = found.spec_sha256 + (" held" if request.hold else "")
    once = once_of(CALLER.get().name, request.request_id, content)
    made: dict[int, Job] = {}
    while True:
        command = _submitting([await with_pasts(house, found)], made, hold=request.hold)
        with suppress(Unread):  # one that it waits for has just ended: how, is in the store now
            body: Any = await house.write(command, house.actor(context), once)
            number = int(body["job_id"] if "job_id" in body else body["first"])
            return number, made.get(number)


def _submitting(
    wanted: list[Wanted], made: dict[int, Job], *, hold: bool
) -> Callable[[Draft], dict[str, object]]:
    """`made`: where the first job is put."""

    def command(draft: Draft) -> dict[str, object]:
        numbers = commands.submit(draft, wanted, hold=hold)
        made[numbers[0]] = draft.jobs[numbers[0]]
        return {"first": numbers[0], "jobs": len(numbers)}

    return command


async def with_pasts(house: House, wanted: Wanted) -> Wanted:
    """A job that somebody wants accepted, with what is known of those that it waits for."""
    if not wanted.spec.depends_on:
        return wanted
    return await asyncio.to_thread(looked_up, house, wanted)


async def submit_jobs(
    house: House, request: pb.SubmitJobsRequest, context: Any
) -> pb.SubmitJobsResponse:
    """Accept many jobs."""
    if not 1 <= len(request.specs) <= MOST_NAMES:
        words = f"{len(request.specs)} of them; give 1 to {MOST_NAMES} in one call"
        raise InvalidRequest(FieldFault(field="specs", description=words))
    once = once_for(CALLER.get().name, request)
    body: Any = None
    while body is None:
        wanted = await asyncio.to_thread(_all_checked, house, request)
        command = _submitting(wanted, {}, hold=request.hold)
        with suppress(Unread):
            body = await house.write(command, house.actor(context), once)
    first, count = int(body["first"]), int(body["jobs"])
    return pb.SubmitJobsResponse(names=[f"jobs/{n}" for n in range(first, first + count)])


def _all_checked(house: House, request: pb.SubmitJobsRequest) -> list[Wanted]:
    """Each spec checked; those that are alike are checked once."""
    known: dict[bytes, Wanted] = {}
    wanted, faults = [], []
    for number, spec in enumerate(request.specs):
        content = spec.SerializeToString(deterministic=True)
        found = known.get(content)
        if found is None:
            try:
                found = _allowed(house, *_read(content))
                if found.spec.depends_on:
                    found = looked_up(house, found)
                known[content] = found
            except InvalidSpec as error:
                faults += [
                    FieldFault(
                        field=f"specs[{number}]{'.' if each.path else ''}{each.path}",
                        description=f"{each.value_repr}: {each.message}".removeprefix(": "),
                    )
                    for each in error.faults
                ]
            except InvalidRequest as error:
                faults += [
                    replace(each, field=f"specs[{number}].{each.field}") for each in error.faults
                ]
        if len(faults) > 100:
            break
        if found is not None:
            wanted.append(found)
    if faults:
        raise InvalidRequest(*faults)
    return wanted


async def named(house: House, names: Sequence[str]) -> list[Which]:
    """The jobs and tasks that a request names, all of them its caller's to do this to."""
    if not 1 <= len(names) <= MOST_NAMES:
        words = f"{len(names)} of them; name 1 to {MOST_NAMES} in one call"
        raise InvalidRequest(FieldFault(field="names", description=words))
    which = [which_of(name, "names") for name in names]
    await all_mine(house, [each.job_id for each in which])
    return which


async def _named_jobs(house: House, names: Sequence[str]) -> list[int]:
    which = await named(house, names)
    for each in which:
        if each.task is not None:
            words = f"{each} is a task: this is done to a whole job, jobs/{each.job_id}"
            raise InvalidRequest(FieldFault(field="names", description=words))
    return [each.job_id for each in which]


async def hold(house: House, request: pb.HoldJobsRequest, context: Any) -> pb.HoldJobsResponse:
    """Start nothing more of jobs."""
    numbers = await _named_jobs(house, request.names)

    def command(draft: Draft) -> dict[str, object]:
        commands.hold(draft, numbers)
        return {}

    once = once_for(CALLER.get().name, request)
    await house.write(command, house.actor(context), once)
    return pb.HoldJobsResponse(names=list(dict.fromkeys(request.names)))


async def release(
    house: House, request: pb.ReleaseJobsRequest, context: Any
) -> pb.ReleaseJobsResponse:
    """Let jobs go on."""
    numbers = await _named_jobs(house, request.names)
    caller = CALLER.get()

    def command(draft: Draft) -> dict[str, object]:
        for number in numbers:
            job = draft.jobs.get(number)
            holder = job.held_by if job is not None else ""
            if holder not in ("", caller.name) and caller.role not in _OPERATORS:
                raise NotAllowed(
                    f"jobs/{number} is held by {holder}; operator and admin may release it",
                    f"jobs/{number}",
                )
        commands.release(draft, numbers)
        return {}

    await house.write(command, house.actor(context), once_for(caller.name, request))
    return pb.ReleaseJobsResponse(names=list(dict.fromkeys(request.names)))


async def requeue(
    house: House, request: pb.RequeueJobsRequest, context: Any
) -> pb.RequeueJobsResponse:
    """Have what runs started again."""
    which = await named(house, request.names)

    def command(draft: Draft) -> dict[str, object]:
        return {"tasks": commands.requeue(draft, which)}

    once = once_for(CALLER.get().name, request)
    body: Any = await house.write(command, house.actor(context), once)
    return pb.RequeueJobsResponse(tasks=body["tasks"])


async def update(house: House, request: pb.UpdateJobRequest, context: Any) -> int:
    """Change a job; its number."""
    caller = CALLER.get()
    (number,) = await _named_jobs(house, [request.name])
    limited = request.HasField("time_limit")
    if limited and request.no_time_limit:
        words = "is set, and no_time_limit takes it away; give one of them"
        raise InvalidRequest(FieldFault(field="time_limit", description=words))
    account = request.account.removeprefix("accounts/")
    if not (limited or request.no_time_limit or request.priority_class or account):
        words = "nothing to change; set time_limit, no_time_limit, priority_class or account"
        raise InvalidRequest(FieldFault(field="time_limit", description=words))
    limit_us = from_duration(request.time_limit) if limited else None
    if limit_us is not None and not 1_000_000 <= limit_us <= LONGEST_LIMIT_US:
        words = "must be from 1 s to 366 days"
        raise InvalidRequest(FieldFault(field="time_limit", description=words))
    found = house.registry.priority_class(request.priority_class)
    if found is None:
        raise InvalidRequest(_no_class(house, request.priority_class))
    change = Change(
        time_limit_us=limit_us,
        no_time_limit=request.no_time_limit,
        priority_class=request.priority_class,
        priority=found.value,
        account=account,
        by_operator=caller.role in _OPERATORS,
    )

    def command(draft: Draft) -> dict[str, object]:
        commands.update(draft, number, change)
        return {}

    await house.write(command, house.actor(context), once_for(caller.name, request))
    return number
