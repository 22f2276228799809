"""Commands of agents and operators: what a node reports, and whether it takes work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from controlplane.model.errors import NotAllowed, NotFound
from controlplane.model.lease import (
    Lease,
    LeaseEnd,
    LeasePhase,
    LeaseStatus,
    WorkerState,
    WorkerStatus,
)
from controlplane.model.node import Device, Node, NodeFacts
from controlplane.model.spec import OnDisconnect
from controlplane.registry import attempts, signals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from controlplane.registry.draft import Draft

_PHASES = list(LeasePhase)
WAITS_FOR = "waits for a word of "
"""So begins the reason of a job whose workers may run on a node that is cut off."""
LONGEST_TOLD = 255
"""Characters of a name that is told again; no node has a longer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """Everything that an agent observes."""

    node_uuid: str
    """The node."""
    boot_id: str
    """Its host's boot."""
    facts: NodeFacts | None
    """What the host has; None: as told before."""
    leases: tuple[LeaseStatus, ...]
    """Every lease that it knows of."""


def observe(draft: Draft, report: NodeReport) -> None:
    """Take in a node's report. Reports on leases that are over, or under a stale token, are passed
    over. The first that speaks for a node enrols it.

    NotFound when the node is new and the report carries no facts; NotAllowed when another principal
    has enrolled it.
    """
    node = draft.nodes.get(report.node_uuid)
    if node is not None and node.enrolled_by not in ("", draft.actor.principal):
        raise foreign(node, draft.actor.principal)
    if node is None and report.facts is None:
        raise NotFound(f"nodes/{report.node_uuid}: unknown node; its agent must send its facts")
    rebooted = node is not None and node.boot_id != report.boot_id
    _update_node(draft, node, report)
    statuses = {status.lease_id: status for status in report.leases}
    for lease_id in sorted(draft.node_leases.get(report.node_uuid) or ()):
        lease = draft.leases[lease_id]
        status = statuses.get(lease_id)
        if status is not None and status.token == lease.token:
            _take_in(draft, lease, status)
            _tell_stuck(draft, lease, status)
        elif lease.acknowledged:
            node_name = draft.nodes[report.node_uuid].facts.display_name
            lose(
                draft,
                lease,
                f"{node_name} was rebooted"
                if rebooted
                else f"{node_name} knows nothing of it any more",
            )


def _update_node(draft: Draft, node: Node | None, report: NodeReport) -> None:
    if node is None:
        if report.facts is None:
            raise AssertionError("a new node needs facts")
        node = Node(
            uuid=report.node_uuid,
            facts=report.facts,
            boot_id=report.boot_id,
            created_us=draft.now_us,
            enrolled_by=draft.actor.principal,
        )
        told = {"display_name": report.facts.display_name, "enrolled_by": node.enrolled_by}
        draft.emit("node.joined", node.name, told)
        draft.turn(node.uuid)
        draft.nodes[node.uuid] = node
        return
    changed: dict[str, object] = {}
    if node.boot_id != report.boot_id:
        changed["boot_id"] = [node.boot_id, report.boot_id]
    if report.facts is not None and node.facts != report.facts:
        changed["facts"] = _difference(node.facts, report.facts)
    if node.silent_since_us is not None:
        changed["silent_since"] = [node.silent_since_us, None]
        _heard_again(draft, node)
    if not node.enrolled_by:
        changed["enrolled_by"] = ["", draft.actor.principal]
    if changed:
        draft.emit("node.changed", node.name, changed)
        draft.nodes[node.uuid] = replace(
            node,
            boot_id=report.boot_id,
            facts=report.facts or node.facts,
            silent_since_us=None,
            enrolled_by=draft.actor.principal,
        )


def _difference(before: NodeFacts, after: NodeFacts) -> dict[str, object]:
    """What has changed of a host, by name: before, and after."""
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in NodeFacts.__slots__}
    return {name: [_told(a), _told(b)] for name, (a, b) in pairs.items() if a != b}


def _told(value: object) -> object:
    """A value of a host as an event tells it: of devices their ids, with what is wrong."""
    if not isinstance(value, tuple):
        return value
    return [
        " ".join(filter(None, (each.device_id, each.fault)))
        if isinstance(each, Device)
        else list(each)
        for each in value
    ]


def _take_in(draft: Draft, lease: Lease, status: LeaseStatus) -> None:
    """Merge a node's word on a lease. Phases never go back."""
    lease, attempt = signals.take_in(draft, lease, draft.attempts[lease.attempt_key], status)
    phase = max(lease.phase, status.phase, key=_PHASES.index)
    told = replace(
        lease,
        acknowledged=True,
        phase=phase,
        end=status.end,
        message=status.message or lease.message,
        job_dir=status.job_dir or lease.job_dir,
        output_fault=status.output_fault or lease.output_fault,
    )
    if told.output_fault != lease.output_fault:
        node = draft.nodes[lease.node_uuid].facts.display_name
        draft.emit(
            "attempt.output_missing", attempt.name, {"node": node, "fault": told.output_fault}
        )
    workers = list(attempt.workers)
    for worker in status.workers:
        if not lease.first_rank <= worker.rank < lease.first_rank + lease.workers:
            continue
        known = workers[worker.rank]
        if known.state is WorkerState.ENDED:
            # What it left behind may still have written something.
            worker = replace(
                known,
                stdout_bytes=max(known.stdout_bytes, worker.stdout_bytes),
                stderr_bytes=max(known.stderr_bytes, worker.stderr_bytes),
            )
        workers[worker.rank] = worker
    if told == lease and tuple(workers) == attempt.workers:
        return
    draft.leases[lease.lease_id] = told
    attempts.advance(draft, replace(attempt, workers=tuple(workers)), told)


def _tell_stuck(draft: Draft, lease: Lease, status: LeaseStatus) -> None:
    """Have a job say which processes of it do not end: as long as they are there, its devices are
    taken."""
    job = draft.jobs.get(lease.job_id)
    if job is None or job.state.final:
        return
    node = draft.nodes[lease.node_uuid].facts.display_name
    reason = f"is being ended on {node}: {status.stuck}"
    if status.stuck and job.reason != reason:
        name = draft.attempts[lease.attempt_key].name
        seq = draft.emit("attempt.stuck", name, {"node": node, "message": status.stuck})
        draft.jobs[job.job_id] = replace(job, reason=reason, revision=seq)


def lose(draft: Draft, lease: Lease, message: str) -> None:
    """Take a lease for ended because its node cannot tell of it any more."""
    if lease.phase is LeasePhase.ENDED:
        return
    lost = replace(lease, phase=LeasePhase.ENDED, end=LeaseEnd.SUPERVISOR_LOST, message=message)
    draft.leases[lease.lease_id] = lost
    attempt = draft.attempts[lease.attempt_key]
    ranks = range(lease.first_rank, lease.first_rank + lease.workers)
    workers = tuple(
        _lost(w) if w.rank in ranks and w.state is not WorkerState.ENDED else w
        for w in attempt.workers
    )
    attempts.advance(draft, replace(attempt, workers=workers), lost)


def _lost(worker: WorkerStatus) -> WorkerStatus:
    return replace(worker, state=WorkerState.LOST)


def silence(draft: Draft, node_uuid: str, since_us: int) -> None:
    """Say that a node has been silent past its lease: from now on it is unknown."""
    node = draft.nodes[node_uuid]
    if node.silent_since_us is None:
        draft.emit("node.silent", node.name, {"silent_since": [None, since_us]})
        draft.nodes[node_uuid] = replace(node, silent_since_us=since_us)


def expire(draft: Draft, node_uuid: str) -> bool:
    """The lease of a silent node and its margin are over: its workers have been ended by their
    supervisors. What runs on without the control plane is waited for. Whether anything else was
    there."""
    node = draft.nodes[node_uuid]
    name = node.facts.display_name
    lost = False
    for lease_id in sorted(draft.node_leases.get(node_uuid) or ()):
        lease = draft.leases[lease_id]
        if _runs_on(draft, lease):
            _wait_for(draft, lease, name)
        else:
            lose(draft, lease, f"{name} was silent past its lease")
            lost = True
    return lost


def give_up(draft: Draft, node_uuid: str) -> None:
    """Take for lost what a silent node has; a node that is heard is left alone."""
    node = draft.nodes.get(node_uuid)
    if node is None or node.silent_since_us is None:
        return
    for lease_id in sorted(draft.node_leases.get(node_uuid) or ()):
        lose(draft, draft.leases[lease_id], f"{node.facts.display_name} was shut out while silent")


def _runs_on(draft: Draft, lease: Lease) -> bool:
    """Whether its workers run on while their node is cut off."""
    spec = draft.jobs[lease.job_id].spec
    return spec.on_disconnect is OnDisconnect.KEEP_RUNNING and lease.acknowledged


def _wait_for(draft: Draft, lease: Lease, node: str) -> None:
    job = draft.jobs[lease.job_id]
    reason = f"{WAITS_FOR}{node}, which is silent past its lease: its workers may run on there"
    if job.reason != reason:
        name = draft.attempts[lease.attempt_key].name
        seq = draft.emit("attempt.cut_off", name, {"node": node})
        draft.jobs[job.job_id] = replace(job, reason=reason, revision=seq)


def _heard_again(draft: Draft, node: Node) -> None:
    """The jobs that were waited for because of this node are waited for no more."""
    for lease_id in draft.node_leases.get(node.uuid) or ():
        lease = draft.leases[lease_id]
        job = draft.jobs[lease.job_id]
        if job.reason.startswith(f"{WAITS_FOR}{node.facts.display_name},"):
            name = draft.attempts[lease.attempt_key].name
            seq = draft.emit("attempt.heard_again", name, {"node": node.facts.display_name})
            draft.jobs[job.job_id] = replace(job, reason="", revision=seq)


def label(draft: Draft, node_uuid: str, given: Mapping[str, str], taken: Iterable[str]) -> None:
    """Give a node labels, which override those of its agent, and take given ones away. NotFound
    when it has no such label of an operator's."""
    node = _known(draft, node_uuid)
    labels = dict(node.given_labels)
    for key in taken:
        if labels.pop(key, None) is None:
            raise NotFound(
                f"{node.facts.display_name} has no label {key} of an operator's; what its agent"
                " says is changed in the agent's configuration (`labels`)"
            )
    after = tuple(sorted({**labels, **given}.items()))
    if after != node.given_labels:
        pair = [dict(node.given_labels), dict(after)]
        draft.emit("node.labelled", node.name, {"labels": pair})
        draft.nodes[node_uuid] = replace(node, given_labels=after)


def drain(draft: Draft, node_uuid: str, reason: str) -> None:
    """Send a node no more work."""
    node = _known(draft, node_uuid)
    if node.drain_reason != reason:
        draft.emit("node.drained", node.name, {"reason": [node.drain_reason, reason]})
        draft.nodes[node_uuid] = replace(node, drain_reason=reason)


def undrain(draft: Draft, node_uuid: str) -> None:
    """Take a node back into service."""
    node = _known(draft, node_uuid)
    if node.drain_reason is not None:
        draft.emit("node.undrained", node.name, {"reason": [node.drain_reason, None]})
        draft.nodes[node_uuid] = replace(node, drain_reason=None, quick_failures=())


def release(draft: Draft, node_uuid: str) -> None:
    """Forget who enrolled a node: the next agent that speaks for it enrols it anew."""
    node = _known(draft, node_uuid)
    if node.enrolled_by:
        draft.emit("node.released", node.name, {"enrolled_by": [node.enrolled_by, ""]})
        draft.nodes[node_uuid] = replace(node, enrolled_by="")


def foreign(node: Node, principal: str) -> NotAllowed:
    """The error for an agent that speaks for a node which another principal has enrolled."""
    return NotAllowed(
        f"{node.name} was enrolled by {node.enrolled_by}, and {principal} may not speak for it;"
        f" an admin lets another in with `ccctl node release {node.facts.display_name}`",
        node.name,
    )


def _known(draft: Draft, node_uuid: str) -> Node:
    node = draft.nodes.get(node_uuid)
    if node is None:
        raise NotFound(f"nodes/{node_uuid}: there is no such node")
    return node


def find(nodes: Iterable[Node], name: str) -> Node:
    """The node of a resource name: `nodes/<uuid>`, or `nodes/<display name>` where that is unique.
    NotFound else."""
    wanted = name.removeprefix("nodes/")
    found = [n for n in nodes if wanted in (n.uuid, n.facts.display_name)]
    if not found:
        told = wanted[:LONGEST_TOLD]
        raise NotFound(f"nodes/{told}: there is no such node; `ccctl node list` shows them")
    exact = [n for n in found if n.uuid == wanted]
    if len(found) > 1 and not exact:
        uuids = ", ".join(sorted(n.uuid for n in found))
        raise NotFound(
            f"nodes/{wanted}: several nodes have this name; name one by its uuid: {uuids}"
        )
    return (exact or found)[0]
