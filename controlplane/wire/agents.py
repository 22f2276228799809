"""What the control plane and its agents say to each other, on the wire."""

from __future__ import annotations

from controlplane.model.launch import GangMember, Launch, LeaseOrder, LeaseSignal, Limit
from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus, WorkerStatus
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.wire.basics import (
    EnumWire,
    duration,
    from_duration,
    from_timestamp,
    timestamp,
)
from controlplane.wire.jobs import WORKER_STATES

PHASES = EnumWire(LeasePhase, pb.LeasePhase, "LEASE_PHASE")
ENDS = EnumWire(LeaseEnd, pb.LeaseEnd, "LEASE_END", zero="NATURAL")


def status_message(status: LeaseStatus) -> pb.LeaseStatus:
    """A lease as its node sees it."""
    return pb.LeaseStatus(
        lease_id=status.lease_id,
        token=status.token,
        phase=PHASES.out(status.phase),
        workers=[_worker(worker) for worker in status.workers],
        end=ENDS.out(status.end),
        message=status.message,
        signals_done=status.signals_done,
        warning_time=timestamp(status.warned_us),
        job_dir=status.job_dir,
        output_fault=status.output_fault,
        time_limit=duration(status.time_limit_us) if status.time_limit_us is not None else None,
        stuck=status.stuck,
    )


def status_value(message: pb.LeaseStatus) -> LeaseStatus:
    """A lease as its node sees it. ValueError for states that this release does not know."""
    return LeaseStatus(
        lease_id=message.lease_id,
        token=message.token,
        phase=PHASES.into(message.phase),
        workers=tuple(_worker_value(worker) for worker in message.workers),
        end=ENDS.into(message.end),
        message=message.message,
        signals_done=message.signals_done,
        warned_us=from_timestamp(message, "warning_time"),
        job_dir=message.job_dir,
        output_fault=message.output_fault,
        time_limit_us=(
            from_duration(message.time_limit) if message.HasField("time_limit") else None
        ),
        stuck=message.stuck,
    )


def _worker(worker: WorkerStatus) -> pb.WorkerStatus:
    return pb.WorkerStatus(
        rank=worker.rank,
        local_rank=worker.local_rank,
        state=WORKER_STATES.out(worker.state),
        pid=worker.pid,
        exit_code=worker.exit_code,
        signal=worker.signal,
        start_time=timestamp(worker.started_us),
        end_time=timestamp(worker.ended_us),
        stderr_tail=worker.stderr_tail,
        stdout_bytes=worker.stdout_bytes,
        stderr_bytes=worker.stderr_bytes,
        peak_memory_bytes=worker.peak_memory_bytes,
        oom_limit_bytes=worker.oom_limit_bytes,
        oom_peak_bytes=worker.oom_peak_bytes,
    )


def _worker_value(message: pb.WorkerStatus) -> WorkerStatus:
    return WorkerStatus(
        rank=message.rank,
        local_rank=message.local_rank,
        state=WORKER_STATES.into(message.state),
        pid=message.pid,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal if message.HasField("signal") else None,
        started_us=from_timestamp(message, "start_time"),
        ended_us=from_timestamp(message, "end_time"),
        stderr_tail=message.stderr_tail,
        stdout_bytes=message.stdout_bytes,
        stderr_bytes=message.stderr_bytes,
        peak_memory_bytes=(
            message.peak_memory_bytes if message.HasField("peak_memory_bytes") else None
        ),
        oom_limit_bytes=message.oom_limit_bytes if message.HasField("oom_limit_bytes") else None,
        oom_peak_bytes=message.oom_peak_bytes if message.HasField("oom_peak_bytes") else None,
    )


def order_message(order: LeaseOrder) -> pb.LeaseOrder:
    """What should become of a lease."""
    limit = order.limit
    return pb.LeaseOrder(
        lease_id=order.lease_id,
        token=order.token,
        goal=pb.LEASE_GOAL_STOP if order.stop else pb.LEASE_GOAL_RUN,
        grace_period=duration(order.grace_period_us) if order.stop else None,
        launch=_launch(order.launch) if order.launch is not None else None,
        signals=[
            pb.LeaseSignal(number=each.number, signal=each.signal, ranks=each.ranks)
            for each in order.signals
        ],
        time_limit=duration(limit.us) if limit is not None and limit.us is not None else None,
        no_time_limit=limit is not None and limit.us is None,
    )


def order_value(message: pb.LeaseOrder) -> LeaseOrder:
    """What should become of a lease."""
    limit = Limit(None) if message.no_time_limit else None
    if message.HasField("time_limit"):
        limit = Limit(from_duration(message.time_limit))
    return LeaseOrder(
        lease_id=message.lease_id,
        token=message.token,
        stop=message.goal == pb.LEASE_GOAL_STOP,
        grace_period_us=from_duration(message.grace_period),
        launch=_launch_value(message.launch) if message.HasField("launch") else None,
        signals=tuple(
            LeaseSignal(number=each.number, signal=each.signal, ranks=tuple(each.ranks))
            for each in message.signals
        ),
        limit=limit,
    )


def _launch(launch: Launch) -> pb.Launch:
    return pb.Launch(
        job_id=launch.job_id,
        task_index=launch.task_index,
        task_count=launch.task_count,
        attempt=launch.attempt,
        job_display_name=launch.job_display_name,
        owner=launch.owner,
        launcher=launch.launcher,
        command=launch.command,
        env=dict(launch.env),
        working_dir_path=launch.working_dir_path,
        working_dir_sha256=launch.working_dir_sha256,
        setup=launch.setup,
        output=launch.output,
        error=launch.error,
        own_devices_only=launch.own_devices_only,
        members=[
            pb.GangMember(
                node_display_name=member.node_display_name,
                address=member.address,
                first_rank=member.first_rank,
                workers=member.workers,
                ports=member.ports,
                devices=member.devices,
            )
            for member in launch.members
        ],
        member_index=launch.member_index,
        gang_secret=launch.gang_secret,
        step_token=launch.step_token,
        device_ids=launch.device_ids,
        cpu_ids=launch.cpu_ids,
        cpu_millicores=launch.cpu_millicores,
        memory_bytes=launch.memory_bytes,
        time_limit=duration(launch.time_limit_us) if launch.time_limit_us is not None else None,
        grace_period=duration(launch.grace_period_us),
        warning_signal=launch.warning_signal,
        warning_before=duration(launch.warning_before_us) if launch.warning_signal else None,
        requeue_exit_codes=launch.requeue_exit_codes,
        keep_running=launch.keep_running,
    )


def _launch_value(message: pb.Launch) -> Launch:
    limited = message.HasField("time_limit")
    return Launch(
        job_id=message.job_id,
        task_index=message.task_index,
        task_count=max(1, message.task_count),
        attempt=message.attempt,
        job_display_name=message.job_display_name,
        owner=message.owner,
        launcher=message.launcher,
        command=tuple(message.command),
        env=tuple(sorted(message.env.items())),
        working_dir_path=message.working_dir_path,
        working_dir_sha256=message.working_dir_sha256,
        setup=tuple(message.setup),
        output=message.output if message.HasField("output") else None,
        error=message.error if message.HasField("error") else None,
        own_devices_only=message.own_devices_only,
        members=tuple(
            GangMember(
                node_display_name=member.node_display_name,
                address=member.address,
                first_rank=member.first_rank,
                workers=member.workers,
                ports=tuple(member.ports),
                devices=member.devices,
            )
            for member in message.members
        ),
        member_index=message.member_index,
        gang_secret=message.gang_secret,
        step_token=message.step_token,
        device_ids=tuple(message.device_ids),
        cpu_ids=tuple(message.cpu_ids),
        cpu_millicores=message.cpu_millicores,
        memory_bytes=message.memory_bytes,
        time_limit_us=from_duration(message.time_limit) if limited else None,
        grace_period_us=from_duration(message.grace_period),
        warning_signal=message.warning_signal,
        warning_before_us=from_duration(message.warning_before),
        requeue_exit_codes=tuple(message.requeue_exit_codes),
        keep_running=message.keep_running,
    )
