"""Filters of jobs, as requests bring them, and as far as their callers reach."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from controlplane.model.errors import FieldFault, InvalidRequest
from controlplane.registry.store import JobFilter
from controlplane.service.auth import CALLER
from controlplane.service.permissions import RPC, may, refusal, sight
from controlplane.wire.basics import from_timestamp
from controlplane.wire.jobs import JOB_STATES

if TYPE_CHECKING:
    from controlplane.registry.registry import Registry
    from controlplane.v1 import job_service_pb2 as pb

LONGEST_PATTERN = 200
"""Characters of a pattern; display names are no longer."""


def narrowed(registry: Registry, which: JobFilter) -> JobFilter:
    """A filter that takes only what the caller may do this to. NotAllowed when it asks for others'
    by name, and no account shares any with the caller."""
    caller = CALLER.get()
    seen = sight(registry, caller, RPC.get())
    if seen is None:
        return which
    if seen.accounts:
        return replace(which, sight=seen)
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
        account=message.account.removeprefix("accounts/"),
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
