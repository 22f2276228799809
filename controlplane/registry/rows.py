"""Values as rows and back: the only place that knows both."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from controlplane.model.account import Account, Limits, Member, MembersMay
from controlplane.model.blackhole import QuickFailure
from controlplane.model.dependencies import Dependency, parse_dependency
from controlplane.model.event import Actor, Event
from controlplane.model.identity import Admission, JoinToken, Role, Token, User
from controlplane.model.job import (
    NONE_ENDED,
    Attempt,
    AttemptState,
    Cause,
    CauseKind,
    Job,
    JobState,
    SentSignal,
    Task,
)
from controlplane.model.lease import Lease, LeaseEnd, LeasePhase, WorkerState, WorkerStatus
from controlplane.model.node import Device, DeviceKind, Node, NodeFacts
from controlplane.model.spec import SPECS_REMEMBERED, JobSpec, canonical_json
from controlplane.model.specstored import load_spec
from controlplane.model.spending import Spending
from controlplane.model.tasks import TaskCounts
from controlplane.registry.facts import Cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = dict[str, Any]


class Readable(Protocol):
    """A row as a query gives it."""

    def __getitem__(self, name: str, /) -> Any:
        """The value of a column."""


_json = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode


def cluster_row(cluster: Cluster) -> Row:
    """The cluster's one row."""
    return {
        "id": 1,
        "uuid": cluster.uuid,
        "secret": cluster.secret,
        "epoch": cluster.epoch,
        "seq": cluster.seq,
        "last_job_id": cluster.last_job_id,
        "last_lease_id": cluster.last_lease_id,
        "jobs_removed_us": cluster.jobs_removed_us,
        "logs_removed_us": cluster.logs_removed_us,
        "usage_removed_us": cluster.usage_removed_us,
        "events_removed_seq": cluster.events_removed_seq,
    }


def cluster_value(row: Readable) -> Cluster:
    """The cluster of its row."""
    return Cluster(**{name: row[name] for name in cluster_row(_NO_CLUSTER) if name != "id"})


def cluster_changes(cluster: Cluster) -> Row:
    """What a commit may change of the cluster's row."""
    return {name: getattr(cluster, name) for name in CLUSTER_CHANGES}


_NO_CLUSTER = Cluster(uuid="", secret="", epoch=0)
CLUSTER_CHANGES = tuple(
    name for name in cluster_row(_NO_CLUSTER) if name not in ("id", "uuid", "secret", "epoch")
)
"""Columns of the cluster that a commit may change."""


def job_row(job: Job, spec_text: str = "") -> Row:
    """A job's row. `spec_text`: its spec's canonical JSON, where that is at hand."""
    return {
        "job_id": job.job_id,
        "name": job.spec.name,
        "spec": spec_text or canonical_json(job.spec),
        "spec_sha256": job.spec_sha256,
        "owner": job.owner,
        "created_us": job.created_us,
        "submitted_seq": job.submitted_seq,
        "blob_sha256": job.blob_sha256,
        **_job_changes(job),
    }


JOB_CHANGES = (
    "account",
    "priority",
    "priority_class",
    "time_limit_us",
    "state",
    "reason",
    "cancelled_by",
    "held_by",
    "promised_us",
    "exit_code",
    "started_us",
    "ended_us",
    "begun",
    "skipped",
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "waits_for",
    "doomed",
    "revision",
)
"""Columns of a job that may change; all others stay as they were written first."""


def _job_changes(job: Job) -> Row:
    values = (
        job.account,
        job.priority,
        job.priority_class,
        job.time_limit_us,
        job.state.value,
        job.reason,
        job.cancelled_by,
        job.held_by,
        job.promised_us,
        job.exit_code,
        job.started_us,
        job.ended_us,
        job.begun,
        _json(sorted(job.skipped)) if job.skipped else "[]",
        job.running,
        job.ended.succeeded,
        job.ended.failed,
        job.ended.cancelled,
        _json(list(map(str, job.waits_for))) if job.waits_for else "[]",
        job.doomed,
        job.revision,
    )
    return dict(zip(JOB_CHANGES, values, strict=True))


def job_changes(job: Job) -> Row:
    """What may change of a job's row, and its key as `of`: the spec is never written again."""
    return {"of": job.job_id, **_job_changes(job)}


def job_value(row: Readable) -> Job:
    """The job of a row."""
    return Job(
        job_id=row["job_id"],
        spec=_spec(row["spec_sha256"], row["spec"]),
        spec_sha256=row["spec_sha256"],
        owner=row["owner"],
        account=row["account"],
        priority=row["priority"],
        state=_JOB_STATES[row["state"]],
        reason=row["reason"],
        cancelled_by=row["cancelled_by"],
        exit_code=row["exit_code"],
        created_us=row["created_us"],
        started_us=row["started_us"],
        ended_us=row["ended_us"],
        revision=row["revision"],
        submitted_seq=row["submitted_seq"],
        priority_class=row["priority_class"],
        time_limit_us=row["time_limit_us"],
        held_by=row["held_by"],
        promised_us=row["promised_us"],
        begun=row["begun"],
        skipped=NOTHING if row["skipped"] == "[]" else frozenset(json.loads(row["skipped"])),
        running=row["running"],
        ended=_ended(row["succeeded"], row["failed"], row["cancelled"]),
        waits_for=() if row["waits_for"] == "[]" else _dependencies(row["waits_for"]),
        doomed=row["doomed"],
    )


_JOB_STATES = {state.value: state for state in JobState}
_SPECS: dict[str, JobSpec] = {}


def _spec(sha256: str, text: str) -> JobSpec:
    """The spec of a row; those that are alike are read once, and share their memory."""
    known = _SPECS.get(sha256)
    if known is None:
        if len(_SPECS) >= SPECS_REMEMBERED:
            _SPECS.clear()
        known = _SPECS[sha256] = load_spec(text)
    return known


NOTHING: frozenset[int] = frozenset()


def _dependencies(text: str) -> tuple[Dependency, ...]:
    return tuple(map(parse_dependency, json.loads(text)))


def _ended(succeeded: int, failed: int, cancelled: int) -> TaskCounts:
    if not (succeeded or failed or cancelled):
        return NONE_ENDED
    return TaskCounts(succeeded=succeeded, failed=failed, cancelled=cancelled)


def task_row(task: Task) -> Row:
    """A task's row."""
    return {
        "job_id": task.job_id,
        "task_index": task.index,
        "state": task.state.value,
        "attempts": task.attempts,
        "application_faults": task.application_faults,
        "infrastructure_faults": task.infrastructure_faults,
        "quick_requeues": task.quick_requeues,
        "not_before_us": task.not_before_us,
        "released_us": task.released_us,
    }


def task_value(row: Readable) -> Task:
    """The task of a row."""
    return Task(
        job_id=row["job_id"],
        index=row["task_index"],
        state=_JOB_STATES[row["state"]],
        attempts=row["attempts"],
        application_faults=row["application_faults"],
        infrastructure_faults=row["infrastructure_faults"],
        quick_requeues=row["quick_requeues"],
        not_before_us=row["not_before_us"],
        released_us=row["released_us"],
    )


def attempt_row(attempt: Attempt) -> Row:
    """An attempt's row; its workers have rows of their own."""
    return {
        "job_id": attempt.job_id,
        "task_index": attempt.task_index,
        "number": attempt.number,
        "state": attempt.state.value,
        "outcome": attempt.outcome.value if attempt.outcome else None,
        "cause": _json(asdict(attempt.cause)) if attempt.cause else None,
        "created_us": attempt.created_us,
        "started_us": attempt.started_us,
        "running_us": attempt.running_us,
        "stopped_us": attempt.stopped_us,
        "ended_us": attempt.ended_us,
        "warned_us": attempt.warned_us,
        "signals": _json([asdict(each) for each in attempt.signals]),
        "requeue": int(attempt.requeue),
    }


def attempt_value(
    row: Readable, leases: Sequence[Lease], workers: Sequence[WorkerStatus]
) -> Attempt:
    """The attempt of a row, with its leases and workers in order of rank."""
    return Attempt(
        job_id=row["job_id"],
        task_index=row["task_index"],
        number=row["number"],
        state=AttemptState(row["state"]),
        outcome=AttemptState(row["outcome"]) if row["outcome"] else None,
        cause=_cause(json.loads(row["cause"])) if row["cause"] else None,
        lease_ids=tuple(lease.lease_id for lease in leases),
        workers=tuple(workers),
        created_us=row["created_us"],
        started_us=row["started_us"],
        running_us=row["running_us"],
        stopped_us=row["stopped_us"],
        ended_us=row["ended_us"],
        warned_us=row["warned_us"],
        signals=tuple(_sent(each) for each in json.loads(row["signals"])),
        requeue=bool(row["requeue"]),
    )


def _cause(raw: dict[str, Any]) -> Cause:
    return Cause(**{**raw, "kind": CauseKind(raw["kind"])})


def _sent(raw: dict[str, Any]) -> SentSignal:
    return SentSignal(**{**raw, "ranks": tuple(raw["ranks"])})


def lease_row(lease: Lease) -> Row:
    """A lease's row."""
    return {
        "lease_id": lease.lease_id,
        "token": lease.token,
        "job_id": lease.job_id,
        "task_index": lease.task_index,
        "attempt": lease.attempt,
        "node_uuid": lease.node_uuid,
        "first_rank": lease.first_rank,
        "workers": lease.workers,
        "device_ids": _json(lease.device_ids),
        "cpu_ids": _json(lease.cpu_ids),
        "cpu_millicores": lease.cpu_millicores,
        "memory_bytes": lease.memory_bytes,
        "ports": _json(lease.ports),
        "added_us": lease.added_us,
        "removed_us": lease.removed_us,
        "acknowledged": int(lease.acknowledged),
        "phase": lease.phase.value,
        "end_kind": lease.end.value,
        "message": lease.message,
        "signals_done": lease.signals_done,
        "job_dir": lease.job_dir,
        "output_fault": lease.output_fault,
    }


def lease_value(row: Readable) -> Lease:
    """The lease of a row."""
    return Lease(
        lease_id=row["lease_id"],
        token=row["token"],
        job_id=row["job_id"],
        task_index=row["task_index"],
        attempt=row["attempt"],
        node_uuid=row["node_uuid"],
        first_rank=row["first_rank"],
        workers=row["workers"],
        device_ids=tuple(json.loads(row["device_ids"])),
        cpu_ids=tuple(json.loads(row["cpu_ids"])),
        cpu_millicores=row["cpu_millicores"],
        memory_bytes=row["memory_bytes"],
        ports=tuple(json.loads(row["ports"])),
        added_us=row["added_us"],
        removed_us=row["removed_us"],
        acknowledged=bool(row["acknowledged"]),
        phase=LeasePhase(row["phase"]),
        end=LeaseEnd(row["end_kind"]),
        message=row["message"],
        signals_done=row["signals_done"],
        job_dir=row["job_dir"],
        output_fault=row["output_fault"],
    )


def worker_rows(attempt: Attempt, before: Attempt | None) -> list[Row]:
    """Rows of those of an attempt's workers that are not as they were."""
    known = before.workers if before is not None else ()
    return [
        {
            "job_id": attempt.job_id,
            "task_index": attempt.task_index,
            "attempt": attempt.number,
            "rank": w.rank,
            "local_rank": w.local_rank,
            "state": w.state.value,
            "pid": w.pid,
            "exit_code": w.exit_code,
            "signal": w.signal,
            "started_us": w.started_us,
            "ended_us": w.ended_us,
            "stderr_tail": w.stderr_tail,
            "stdout_bytes": w.stdout_bytes,
            "stderr_bytes": w.stderr_bytes,
            "peak_memory_bytes": w.peak_memory_bytes,
            "oom_limit_bytes": w.oom_limit_bytes,
            "oom_peak_bytes": w.oom_peak_bytes,
        }
        for i, w in enumerate(attempt.workers)
        if i >= len(known) or w != known[i]
    ]


def worker_value(row: Readable) -> WorkerStatus:
    """The worker of a row."""
    return WorkerStatus(
        rank=row["rank"],
        local_rank=row["local_rank"],
        state=WorkerState(row["state"]),
        pid=row["pid"],
        exit_code=row["exit_code"],
        signal=row["signal"],
        started_us=row["started_us"],
        ended_us=row["ended_us"],
        stderr_tail=row["stderr_tail"],
        stdout_bytes=row["stdout_bytes"],
        stderr_bytes=row["stderr_bytes"],
        peak_memory_bytes=row["peak_memory_bytes"],
        oom_limit_bytes=row["oom_limit_bytes"],
        oom_peak_bytes=row["oom_peak_bytes"],
    )


def node_row(node: Node) -> Row:
    """A node's row; its devices have rows of their own."""
    facts = {name: getattr(node.facts, name) for name in NodeFacts.__slots__}
    del facts["devices"]
    return {
        "uuid": node.uuid,
        "display_name": node.facts.display_name,
        "facts": _json(facts),
        "boot_id": node.boot_id,
        "created_us": node.created_us,
        "drain_reason": node.drain_reason,
        "silent_since_us": node.silent_since_us,
        "enrolled_by": node.enrolled_by,
        "quick_failures": _json([asdict(each) for each in node.quick_failures]),
        "given_labels": _json(node.given_labels),
    }


def node_value(row: Readable, devices: Sequence[Device]) -> Node:
    """The node of a row, with its devices in their order."""
    facts = json.loads(row["facts"])
    facts["labels"] = tuple((key, value) for key, value in facts["labels"])
    return Node(
        uuid=row["uuid"],
        facts=NodeFacts(**facts, devices=tuple(devices)),
        boot_id=row["boot_id"],
        created_us=row["created_us"],
        drain_reason=row["drain_reason"],
        silent_since_us=row["silent_since_us"],
        enrolled_by=row["enrolled_by"],
        quick_failures=tuple(QuickFailure(**each) for each in json.loads(row["quick_failures"])),
        given_labels=tuple((key, value) for key, value in json.loads(row["given_labels"])),
    )


def user_row(user: User) -> Row:
    """A user's row."""
    return {**_columns(user), "role": user.role.value}


def user_value(row: Readable) -> User:
    """The user of a row."""
    return User(**{**_fields(User, row), "role": Role(row["role"])})


def token_row(token: Token) -> Row:
    """A token's row."""
    columns = _columns(token)
    columns["user_name"] = columns.pop("user")
    return columns


def token_value(row: Readable) -> Token:
    """The token of a row."""
    names = [name for name in Token.__slots__ if name != "user"]
    return Token(user=row["user_name"], **{name: row[name] for name in names})


def join_token_row(token: JoinToken) -> Row:
    """A join token's row."""
    return _columns(token)


def join_token_value(row: Readable) -> JoinToken:
    """The join token of a row."""
    return JoinToken(**_fields(JoinToken, row))


def admission_row(admission: Admission) -> Row:
    """An admission's row."""
    return _columns(admission)


def admission_value(row: Readable) -> Admission:
    """The admission of a row."""
    return Admission(**_fields(Admission, row))


def account_row(account: Account) -> Row:
    """An account's row."""
    return {
        **_columns(account),
        "limits": _json(asdict(account.limits)),
        "open": int(account.open),
        "members_may": account.members_may.value,
    }


def account_value(row: Readable) -> Account:
    """The account of a row."""
    return Account(
        **{
            **_fields(Account, row),
            "limits": Limits(**json.loads(row["limits"])),
            "open": bool(row["open"]),
            "members_may": MembersMay(row["members_may"]),
        }
    )


def member_row(member: Member) -> Row:
    """A membership's row."""
    return {
        "account": member.account,
        "user_name": member.user,
        "shares": member.shares,
        "limits": _json(asdict(member.limits)),
        "coordinator": int(member.coordinator),
        "is_default": int(member.default),
        "revision": member.revision,
    }


def member_value(row: Readable) -> Member:
    """The membership of a row."""
    return Member(
        account=row["account"],
        user=row["user_name"],
        shares=row["shares"],
        limits=Limits(**json.loads(row["limits"])),
        coordinator=bool(row["coordinator"]),
        default=bool(row["is_default"]),
        revision=row["revision"],
    )


def spending_row(spending: Spending) -> Row:
    """A row of what was used in an account's name."""
    columns = {name: getattr(spending, name) for name in ("account", "usage_us", "as_of_us")}
    return {**columns, "user_name": spending.user, "days": _json(spending.days)}


def spending_value(row: Readable) -> Spending:
    """What was used in an account's name, of a row."""
    return Spending(
        account=row["account"],
        user=row["user_name"],
        usage_us=row["usage_us"],
        as_of_us=row["as_of_us"],
        days=tuple((day, gpu_us) for day, gpu_us in json.loads(row["days"])),
    )


def _columns(value: User | Token | JoinToken | Admission | Account) -> Row:
    return {name: getattr(value, name) for name in value.__slots__}


def _fields(kind: type[User | JoinToken | Admission | Account], row: Readable) -> dict[str, Any]:
    return {name: row[name] for name in kind.__slots__}


def device_rows(node: Node) -> list[Row]:
    """Rows of a node's devices."""
    return [
        {
            "node_uuid": node.uuid,
            "device_id": d.device_id,
            "kind": d.kind.value,
            "model": d.model,
            "memory_bytes": d.memory_bytes,
            "device_index": d.index,
            "pci_bus_id": d.pci_bus_id,
            "numa_node": d.numa_node,
            "nvlinks": d.nvlinks,
            "fault": d.fault,
        }
        for d in node.facts.devices
    ]


def device_value(row: Readable) -> Device:
    """The device of a row."""
    return Device(
        device_id=row["device_id"],
        kind=DeviceKind(row["kind"]),
        model=row["model"],
        memory_bytes=row["memory_bytes"],
        index=row["device_index"],
        pci_bus_id=row["pci_bus_id"],
        numa_node=row["numa_node"],
        nvlinks=row["nvlinks"],
        fault=row["fault"],
    )


def event_row(event: Event) -> Row:
    """An event's row."""
    return {
        "seq": event.seq,
        "time_us": event.time_us,
        "kind": event.kind,
        "version": event.version,
        "principal": event.actor.principal,
        "peer": event.actor.peer,
        "resource": event.resource,
        "changed": _json(event.changed),
    }


def event_value(row: Readable) -> Event:
    """The event of a row."""
    return Event(
        seq=row["seq"],
        time_us=row["time_us"],
        kind=row["kind"],
        version=row["version"],
        actor=Actor(principal=row["principal"], peer=row["peer"]),
        resource=row["resource"],
        changed=json.loads(row["changed"]),
    )
