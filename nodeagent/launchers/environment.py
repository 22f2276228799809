"""The environment of a worker, and the parts of a plan that every launcher shares.

Later layers win over earlier ones:

1. the user: HOME USER LOGNAME SHELL PATH TMPDIR LANG; nothing else is inherited from the agent;
2. defaults that a job may change: OMP_NUM_THREADS, PYTHONUNBUFFERED and the launcher's tunables;
3. the job's own `env`, less names that begin with `CC_`, which are ours;
4. `CC_*`: what the program may want to know of its job, its gang and its node;
5. the lease: CC_DEVICES, and the variables of `visibility`;
6. the launcher's facts: ranks and addresses, which are no one's choice.

Every rank sees all devices of its lease on the node, so that `gpus[hvd.local_rank()]` and
`torch.cuda.set_device(local_rank)` mean what they say; or its own alone, where the job asks for
that. A lease without devices sees none.

A job's `setup` lines run in the worker's own process before its command: bash reads them, and then
becomes the command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model.signals import signal_number
from nodeagent.launchers.context import LaunchError
from nodeagent.launchers.slots import core_slices, labels, slots
from nodeagent.launchers.visibility import visibility
from nodeagent.plan import RendezvousPlan, StepPlan, WorkerPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from controlplane.model.launch import Launch
    from nodeagent.launchers.context import NodeContext
    from nodeagent.launchers.slots import Slot


def environment(
    launch: Launch,
    node: NodeContext,
    slot: Slot,
    cores: Sequence[int],
    *,
    defaults: Mapping[str, str],
    facts: Mapping[str, str],
) -> dict[str, str]:
    """The whole environment of one worker, layer upon layer."""
    own = {
        "HOME": node.home,
        "USER": node.user,
        "LOGNAME": node.user,
        "SHELL": node.shell,
        "PATH": node.path,
        "TMPDIR": node.tmp_dir,
        "LANG": node.lang,
    }
    usual = {"OMP_NUM_THREADS": str(max(1, len(cores))), "PYTHONUNBUFFERED": "1"}
    asked = {name: value for name, value in launch.env if not name.startswith("CC_")}
    lease = device_variables(launch, node, slot.local_rank)
    told = gang_variables(launch, node, slot, cores)
    return {**own, **usual, **defaults, **asked, **told, **lease, **facts}


def visible_devices(launch: Launch, local_rank: int) -> tuple[str, ...]:
    """The devices that a worker of this node sees."""
    if not launch.own_devices_only:
        return launch.device_ids
    each = len(launch.device_ids) // launch.here.workers
    return launch.device_ids[local_rank * each : (local_rank + 1) * each]


def device_variables(launch: Launch, node: NodeContext, local_rank: int) -> dict[str, str]:
    """By what a worker of this node finds its devices."""
    seen = visible_devices(launch, local_rank)
    return {"CC_DEVICES": ",".join(seen), **visibility(seen, node.devices)}


def command_of(launch: Launch) -> tuple[str, ...]:
    """The job's command, behind its setup lines where it has any."""
    return (*before_command(launch), *launch.command)


def before_command(launch: Launch) -> tuple[str, ...]:
    """What goes before the job's command, and before that of a step: the setup lines."""
    if not launch.setup:
        return ()
    # Not `set -e`: what people source (module, conda) is not written for it.
    script = "".join(
        f"{line}\n__cc=$?; [ $__cc = 0 ] ||"
        f' {{ echo "setup line {number}: exit code $__cc" >&2; exit $__cc; }}\n'
        for number, line in enumerate(launch.setup, start=1)
    )
    script += 'exec "$@"\n'
    return ("/bin/bash", "-c", script, "setup")


def gang_variables(
    launch: Launch, node: NodeContext, slot: Slot, cores: Sequence[int]
) -> dict[str, str]:
    """What a program is told of its job, its gang and its node."""
    hosts = zip(labels(launch.members), launch.members, strict=True)
    return {
        "CC_JOB_ID": str(launch.job_id),
        "CC_JOB_NAME": launch.job_display_name,
        "CC_TASK_INDEX": str(launch.task_index),
        "CC_TASK_COUNT": str(launch.task_count),
        "CC_ATTEMPT": str(launch.attempt),
        "CC_RESTART_COUNT": str(launch.attempt - 1),
        "CC_OWNER": launch.owner,
        "CC_RANK": str(slot.rank),
        "CC_WORLD_SIZE": str(slot.size),
        "CC_LOCAL_RANK": str(slot.local_rank),
        "CC_LOCAL_SIZE": str(slot.local_size),
        "CC_NODE_RANK": str(slot.node_rank),
        "CC_NODES": str(slot.nodes),
        "CC_NODE_NAME": node.display_name,
        "CC_NODE_ADDRESS": node.address,
        "CC_HOSTS": ",".join(f"{name}:{member.workers}" for name, member in hosts),
        "CC_HEAD_ADDRESS": launch.members[0].address,
        "CC_JOB_DIR": node.job_dir,
        "CC_REPORT": f"{node.tmp_dir}/.cc-report.{slot.rank}",
        "CC_CPUS": ",".join(map(str, cores)),
    }


def workers(
    launch: Launch,
    node: NodeContext,
    *,
    defaults: Mapping[str, str] | None = None,
    facts: Mapping[int, Mapping[str, str]] | None = None,
    hostname: str = "",
) -> tuple[WorkerPlan, ...]:
    """One worker for each of this node's ranks, each running the job's command.

    `defaults` hold for all of them, `facts` by local rank.
    """
    cores = core_slices(launch.cpu_ids, launch.here.workers, node.cpu_map)
    return tuple(
        WorkerPlan(
            rank=slot.rank,
            local_rank=slot.local_rank,
            argv=command_of(launch),
            env=environment(
                launch,
                node,
                slot,
                cores[slot.local_rank],
                defaults=defaults or {},
                facts=(facts or {}).get(slot.local_rank, {}),
            ),
            cwd=node.work_dir,
            cpu_ids=cores[slot.local_rank],
            hostname=hostname,
            before=before_command(launch),
        )
        for slot in slots(launch)
    )


def step(
    launch: Launch,
    node: NodeContext,
    started: tuple[WorkerPlan, ...],
    *,
    scopes: Mapping[str, int] | None = None,
) -> StepPlan:
    """The plan that holds these workers.

    With `scopes`, even empty ones, the gang has a rendezvous store: the first node serves it on its
    first leased port, and all wait for it.
    """
    limit_us = launch.time_limit_us
    rendezvous, wait_for = None, None
    if scopes is not None:
        wait_for = head_endpoint(launch)
        if launch.member_index == 0:
            rendezvous = RendezvousPlan(
                host=wait_for[0], port=wait_for[1], scopes=dict(scopes), secret=launch.gang_secret
            )
    return StepPlan(
        lease_id=node.lease_id,
        token=node.token,
        workers=started,
        rendezvous=rendezvous,
        wait_for=wait_for,
        time_limit_ms=None if limit_us is None else -(-limit_us // 1000),
        warn_signal=signal_number(launch.warning_signal) if launch.warning_signal else 0,
        warn_before_ms=launch.warning_before_us // 1000,
        grace_ms=launch.grace_period_us // 1000,
        deadline_file="" if launch.keep_running else node.deadline_file,
        notify_socket=node.notify_socket,
        requeue_exit_codes=launch.requeue_exit_codes,
        job={
            "job_id": launch.job_id,
            "task_index": launch.task_index,
            "attempt": launch.attempt,
            "name": launch.job_display_name,
            "owner": launch.owner,
            "launcher": launch.launcher,
        },
    )


def head_endpoint(launch: Launch) -> tuple[str, int]:
    """Address and port where the gang meets. `LaunchError` when no port was leased for it."""
    head = launch.members[0]
    if not head.ports:
        raise LaunchError(
            f"the {launch.launcher} launcher needs a TCP port on node {head.node_display_name} for "
            "the ranks to meet at, and the lease holds none; check the node's port range"
        )
    return head.address, head.ports[0]


def spans_hosts(launch: Launch) -> bool:
    """Whether the gang's members have more than one address."""
    return len({member.address for member in launch.members}) > 1


def own_hostname(launch: Launch, node: NodeContext) -> str:
    """The hostname to run workers under, or empty to keep the host's.

    Libraries that bind to what `gethostname()` resolves to would listen where no other node can
    reach them when that is a loopback address, as on many installations, and would not start when
    it resolves to nothing. A hostname that is the node's literal address always resolves to it.
    """
    found = node.hostname_address
    good = found == node.address or (found and not spans_hosts(launch))
    return "" if good else node.address
