"""What a node should do: derived from the facts, never stored."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from controlplane.model.job import AttemptState, CauseKind
from controlplane.model.launch import GangMember, Launch, LeaseOrder, Limit
from controlplane.model.spec import DeviceVisibility, Launcher, NodePath, OnDisconnect
from controlplane.registry import signals, steptoken

if TYPE_CHECKING:
    from controlplane.model.job import Attempt
    from controlplane.model.lease import Lease
    from controlplane.registry.facts import Facts

FAILURE_GRACE_US = 2_000_000
"""Time between SIGTERM and SIGKILL for the rest of a gang that has failed: it cannot go on in any
case."""


def orders_for(facts: Facts, node_uuid: str) -> tuple[LeaseOrder, ...]:
    """One order for each lease of a node, by number."""
    leases = sorted(facts.node_leases.get(node_uuid, ()))
    return tuple(_order(facts, facts.leases[lease_id]) for lease_id in leases)


def _order(facts: Facts, lease: Lease) -> LeaseOrder:
    attempt = facts.attempts[lease.attempt_key]
    stop = attempt.state is AttemptState.STOPPING
    job = facts.jobs[lease.job_id]
    changed = job.time_limit_us != job.spec.time_limit_us
    return LeaseOrder(
        lease_id=lease.lease_id,
        token=lease.token,
        stop=stop,
        grace_period_us=_grace(facts, attempt) if stop else 0,
        launch=None if stop or lease.acknowledged else _launch(facts, attempt, lease),
        signals=() if stop else signals.orders(attempt, lease),
        limit=Limit(job.time_limit_us) if changed and not stop else None,
    )


def _grace(facts: Facts, attempt: Attempt) -> int:
    job = facts.jobs[attempt.job_id]
    by_itself = attempt.cause is not None and attempt.cause.kind in (
        CauseKind.APPLICATION,
        CauseKind.INFRASTRUCTURE,
    )
    # One that asks to be started again has saved its state; the others may be at it still.
    asks = attempt.cause is not None and attempt.cause.exit_code in job.spec.requeue_exit_codes
    grace_us = job.spec.grace_period_us
    return min(grace_us, FAILURE_GRACE_US) if by_itself and not asks else grace_us


def _launch(facts: Facts, attempt: Attempt, lease: Lease) -> Launch:
    job = facts.jobs[lease.job_id]
    spec = job.spec
    leases = [facts.leases[lease_id] for lease_id in attempt.lease_ids]
    where = spec.working_dir
    return Launch(
        job_id=job.job_id,
        task_index=lease.task_index,
        task_count=len(job.tasks),
        attempt=attempt.number,
        job_display_name=spec.name,
        owner=job.owner,
        launcher=spec.launcher,
        command=spec.command,
        env=tuple(spec.env),
        setup=spec.setup,
        own_devices_only=spec.device_visibility is DeviceVisibility.RANK,
        working_dir_path=where.path if isinstance(where, NodePath) else "",
        working_dir_sha256=job.blob_sha256 or "",
        output=spec.output,
        error=spec.error,
        members=tuple(_member(facts, each) for each in leases),
        member_index=attempt.lease_ids.index(lease.lease_id),
        gang_secret=_gang_secret(facts.cluster.secret, attempt),
        step_token=steptoken.make(facts.cluster.secret, attempt)
        if spec.launcher is Launcher.SCRIPT
        else "",
        device_ids=lease.device_ids,
        cpu_ids=lease.cpu_ids,
        cpu_millicores=lease.cpu_millicores,
        memory_bytes=lease.memory_bytes,
        time_limit_us=job.time_limit_us,
        grace_period_us=spec.grace_period_us,
        warning_signal=spec.signal.name if spec.signal is not None else "",
        warning_before_us=spec.signal.before_us if spec.signal is not None else 0,
        requeue_exit_codes=spec.requeue_exit_codes,
        keep_running=spec.on_disconnect is OnDisconnect.KEEP_RUNNING,
    )


def _member(facts: Facts, lease: Lease) -> GangMember:
    node = facts.nodes[lease.node_uuid].facts
    return GangMember(
        node_display_name=node.display_name,
        address=node.address,
        first_rank=lease.first_rank,
        workers=lease.workers,
        ports=lease.ports,
        devices=len(lease.device_ids),
    )


def _gang_secret(cluster_secret: str, attempt: Attempt) -> str:
    """Derived, so that no gang's secret needs a place in the database."""
    return hmac.new(cluster_secret.encode(), attempt.name.encode(), hashlib.sha256).hexdigest()
