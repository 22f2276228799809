"""Who may call what, on whose objects: one table, and the one function that reads it.

What is not in the table is denied. An object's owner is a principal: of a job who submitted it, of
a node the agent that enrolled it, of a blob who uploaded it.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING

from controlplane.model.account import Doing
from controlplane.model.errors import NotAllowed
from controlplane.model.identity import Role
from controlplane.registry.store import Sight

if TYPE_CHECKING:
    from controlplane.registry.registry import Registry
    from controlplane.registry.store import Whose
    from controlplane.service.auth import Principal


class Reach(StrEnum):
    """On whose objects a role may call an rpc."""

    NONE = "none"
    """On nobody's: the call is refused before it is read."""
    OWN = "own"
    """On the caller's own."""
    ALL = "all"
    """On everybody's, and on what has no owner."""


NONE, OWN, ALL = Reach.NONE, Reach.OWN, Reach.ALL
COLUMNS = tuple(Role)


def _row(*reaches: Reach, joiner: Reach = NONE) -> dict[Role, Reach]:
    return dict(zip(COLUMNS, (*reaches, joiner), strict=True))


_ADMIN_ALONE = _row(NONE, NONE, NONE, ALL, NONE)

PERMISSIONS: dict[str, dict[Role, Reach]] = {
    # _row(viewer, user, operator, admin, agent), and the joiner where it may
    "/controlplane.v1.JobService/SubmitJob": _row(NONE, OWN, OWN, OWN, NONE),
    "/controlplane.v1.JobService/SubmitJobs": _row(NONE, OWN, OWN, OWN, NONE),
    "/controlplane.v1.JobService/GetJob": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.JobService/ListJobs": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.JobService/CancelJobs": _row(NONE, OWN, ALL, ALL, NONE),
    "/controlplane.v1.JobService/HoldJobs": _row(NONE, OWN, ALL, ALL, NONE),
    "/controlplane.v1.JobService/ReleaseJobs": _row(NONE, OWN, ALL, ALL, NONE),
    "/controlplane.v1.JobService/RequeueJobs": _row(NONE, OWN, ALL, ALL, NONE),
    "/controlplane.v1.JobService/UpdateJob": _row(NONE, OWN, ALL, ALL, NONE),
    "/controlplane.v1.JobService/ListTasks": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.JobService/SignalJob": _row(NONE, OWN, ALL, ALL, NONE),
    "/controlplane.v1.JobService/WatchJob": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.JobService/WatchJobs": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.JobService/ListEvents": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.JobService/WatchEvents": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.JobService/ReadLogs": _row(OWN, OWN, OWN, ALL, NONE),
    # Whoever runs a step acts as the job's owner: no part of keeping a centre running.
    "/controlplane.v1.StepService/Exec": _row(NONE, OWN, OWN, ALL, NONE),
    "/controlplane.v1.JobService/GetMetrics": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.ScheduleService/ExplainJob": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.ScheduleService/DumpView": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.UsageService/GetUsage": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.AccountService/CreateAccount": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.AccountService/GetAccount": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.AccountService/ListAccounts": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.AccountService/UpdateAccount": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.AccountService/DeleteAccount": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.AccountService/SetMember": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.AccountService/RemoveMember": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.AccountService/ListMembers": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.AccountService/ListShares": _row(ALL, OWN, ALL, ALL, NONE),
    "/controlplane.v1.FleetService/ListNodes": _row(ALL, ALL, ALL, ALL, NONE),
    "/controlplane.v1.FleetService/GetNode": _row(ALL, ALL, ALL, ALL, NONE),
    "/controlplane.v1.FleetService/DrainNode": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.FleetService/UndrainNode": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.FleetService/LabelNode": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.FleetService/ReleaseNode": _ADMIN_ALONE,
    "/controlplane.v1.FleetService/GetServerInfo": _row(ALL, ALL, ALL, ALL, ALL),
    # What a class is worth is a centre's policy; queues and reservations are its running.
    "/controlplane.v1.QueueService/CreatePriorityClass": _ADMIN_ALONE,
    "/controlplane.v1.QueueService/GetPriorityClass": _row(ALL, ALL, ALL, ALL, NONE),
    "/controlplane.v1.QueueService/ListPriorityClasses": _row(ALL, ALL, ALL, ALL, NONE),
    "/controlplane.v1.QueueService/DeletePriorityClass": _ADMIN_ALONE,
    "/controlplane.v1.QueueService/CreateQueue": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.QueueService/GetQueue": _row(ALL, ALL, ALL, ALL, NONE),
    "/controlplane.v1.QueueService/ListQueues": _row(ALL, ALL, ALL, ALL, NONE),
    "/controlplane.v1.QueueService/UpdateQueue": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.QueueService/DeleteQueue": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.QueueService/CreateReservation": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.QueueService/GetReservation": _row(ALL, ALL, ALL, ALL, NONE),
    "/controlplane.v1.QueueService/ListReservations": _row(ALL, ALL, ALL, ALL, NONE),
    "/controlplane.v1.QueueService/DeleteReservation": _row(NONE, NONE, ALL, ALL, NONE),
    "/controlplane.v1.BlobService/GetBlob": _row(NONE, OWN, OWN, ALL, NONE),
    "/controlplane.v1.BlobService/UploadBlob": _row(NONE, OWN, OWN, OWN, NONE),
    "/controlplane.v1.BlobService/DownloadBlob": _row(NONE, OWN, OWN, ALL, OWN),
    "/controlplane.v1.FleetService/RevokeNode": _ADMIN_ALONE,
    "/controlplane.v1.IdentityService/CreateUser": _ADMIN_ALONE,
    "/controlplane.v1.IdentityService/ListUsers": _ADMIN_ALONE,
    "/controlplane.v1.IdentityService/UpdateUser": _ADMIN_ALONE,
    "/controlplane.v1.IdentityService/CreateToken": _row(OWN, OWN, OWN, ALL, NONE),
    "/controlplane.v1.IdentityService/ListTokens": _row(OWN, OWN, OWN, ALL, NONE),
    "/controlplane.v1.IdentityService/RevokeToken": _row(OWN, OWN, OWN, ALL, NONE),
    "/controlplane.v1.IdentityService/CreateJoinToken": _ADMIN_ALONE,
    "/controlplane.v1.IdentityService/ListJoinTokens": _ADMIN_ALONE,
    "/controlplane.v1.IdentityService/RevokeJoinToken": _ADMIN_ALONE,
    "/controlplane.v1.IdentityService/JoinNode": _row(NONE, NONE, NONE, NONE, NONE, joiner=OWN),
    "/controlplane.v1.AgentService/RenewCertificate": _row(NONE, NONE, NONE, NONE, ALL),
    "/controlplane.v1.AgentService/Synchronize": _row(NONE, NONE, NONE, NONE, OWN),
    "/controlplane.v1.AgentService/ShipLogs": _row(NONE, NONE, NONE, NONE, OWN),
    "/controlplane.v1.AgentService/ServeStep": _row(NONE, NONE, NONE, NONE, OWN),
    "/controlplane.v1.AgentService/ShipProgress": _row(NONE, NONE, NONE, NONE, OWN),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _row(ALL, ALL, ALL, ALL, ALL),
    "/grpc.channelz.v1.Channelz/GetTopChannels": _ADMIN_ALONE,
    "/grpc.channelz.v1.Channelz/GetServers": _ADMIN_ALONE,
    "/grpc.channelz.v1.Channelz/GetServer": _ADMIN_ALONE,
    "/grpc.channelz.v1.Channelz/GetServerSockets": _ADMIN_ALONE,
    "/grpc.channelz.v1.Channelz/GetChannel": _ADMIN_ALONE,
    "/grpc.channelz.v1.Channelz/GetSubchannel": _ADMIN_ALONE,
    "/grpc.channelz.v1.Channelz/GetSocket": _ADMIN_ALONE,
}
"""Rpc → role → on whose objects. docs/security.md says why each is as it is."""

_OF_JOBS = "/controlplane.v1.JobService/"
_SEE = ("GetJob", "ListJobs", "WatchJob", "WatchJobs", "ListTasks", "ListEvents", "WatchEvents")
_STOP = ("CancelJobs", "HoldJobs", "ReleaseJobs", "RequeueJobs", "SignalJob", "UpdateJob")
SHARED: dict[str, Doing] = {
    **{f"{_OF_JOBS}{name}": Doing.SEE for name in (*_SEE, "GetMetrics")},
    "/controlplane.v1.ScheduleService/ExplainJob": Doing.SEE,
    f"{_OF_JOBS}ReadLogs": Doing.READ,
    **{f"{_OF_JOBS}{name}": Doing.STOP for name in _STOP},
}
"""Rpc → what it does to a job: where a role reaches its own jobs alone, the account that pays may
let its members, and does let its coordinators, reach those of others. What is not here, such as a
step, which acts as the job's owner, no account can share."""

PUBLIC = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})
"""Open to everybody: load balancers and service managers ask without credentials."""

EXEC = "/controlplane.v1.StepService/Exec"
GET_JOB = "/controlplane.v1.JobService/GetJob"
READ_LOGS = "/controlplane.v1.JobService/ReadLogs"
GET_BLOB = "/controlplane.v1.BlobService/GetBlob"

RPC: ContextVar[str] = ContextVar("rpc")
"""The rpc that is being handled, set by the guard together with `CALLER`."""


def reach(principal: Principal, rpc: str) -> Reach:
    """On whose objects a principal may call an rpc; `NONE` for an rpc that the table lacks."""
    return PERMISSIONS.get(rpc, {}).get(principal.role, NONE)


def may(principal: Principal, rpc: str, owner: str | None) -> bool:
    """Whether a principal may call an rpc on an object of `owner`; None: of nobody."""
    found = reach(principal, rpc)
    return found is ALL or (found is OWN and owner is not None and owner == principal.name)


def sight(registry: Registry, principal: Principal, rpc: str) -> Sight | None:
    """On whose jobs a principal may call an rpc: None for everybody's."""
    found, doing = reach(principal, rpc), SHARED.get(rpc)
    if found is ALL:
        return None
    shares = found is OWN and doing is not None and principal.job_id is None
    accounts = registry.shared(principal.name, doing) if shares and doing else frozenset()
    return Sight(owner=principal.name if found is OWN else "", accounts=accounts)


def may_job(registry: Registry, principal: Principal, rpc: str, whose: Whose) -> bool:
    """Whether a principal may call an rpc on a job."""
    if may(principal, rpc, whose.owner):
        return True
    seen = sight(registry, principal, rpc)
    return seen is None or whose.account in seen.accounts


def authorise(principal: Principal, rpc: str) -> None:
    """NotAllowed unless there is something that the principal may call the rpc on."""
    if reach(principal, rpc) is NONE:
        raise refusal(principal, rpc)
    if principal.job_id is not None and rpc != EXEC:
        raise NotAllowed(
            f"this is the token of the script of jobs/{principal.job_id}, which may start steps in"
            " it and nothing else"
        )


def refusal(principal: Principal, rpc: str, resource: str = "") -> NotAllowed:
    """The error that says who was refused what, and who may."""
    name, role, called = principal.name, principal.role, short(rpc)
    row = PERMISSIONS.get(rpc, {})
    if row.get(role, NONE) is NONE:
        able = [each for each in COLUMNS if row.get(each, NONE) is not NONE]
        words = f"{name} has the role {role}, which may not call {called}"
        return NotAllowed(f"{words}; {_listed(able)} may" if able else words, resource)
    able = [each for each in COLUMNS if row.get(each) is ALL]
    words = f"{resource}: not {name}'s own, and the role {role} may call {called} for its own alone"
    return NotAllowed(f"{words}; {_listed(able)} may for all" if able else words, resource)


def short(rpc: str) -> str:
    """An rpc as people write it: `JobService/GetJob`."""
    service, _, method = rpc.lstrip("/").partition("/")
    return f"{service.rpartition('.')[2]}/{method}"


def _listed(roles: list[Role]) -> str:
    *others, last = roles
    return f"{', '.join(others)} and {last}" if others else str(last)
