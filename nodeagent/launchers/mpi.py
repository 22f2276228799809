"""`mpi`: Open MPI 4.1 across nodes without ssh.

The first node's worker is `mpirun`. Where it would call ssh it calls `mpi_rsh`, which lays the
command line of Open MPI's daemon into the gang's rendezvous store. Every other node has one
worker, `mpi_join`, which takes its line from there and becomes that daemon. On a single node there
is `mpirun` alone.

So a node has one worker whatever its number of ranks: the ranks are Open MPI's children. Their
output comes through `mpirun` and stands in the log of rank 0; its exit code is that of the first
rank that failed. Each rank is started through `mpi_rank`, which gives it the same `CC_*`
variables, folder and cores as any other launcher would.

Signals go to `mpirun` alone, which hands USR1 and USR2 on to every rank.

A job tunes Open MPI by its environment, for example `OMPI_MCA_orte_tag_output=1` to put the rank
before each line, or `OMPI_MCA_hwloc_base_binding_policy`. Open MPI itself gives a rank one second
between SIGTERM and SIGKILL; `OMPI_MCA_odls_base_sigkill_timeout` changes that.
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from nodeagent.launchers.context import LaunchError
from nodeagent.launchers.environment import (
    before_command,
    command_of,
    device_variables,
    environment,
    head_endpoint,
    own_hostname,
    spans_hosts,
    step,
)
from nodeagent.launchers.slots import core_slices, slots
from nodeagent.plan import WorkerPlan

if TYPE_CHECKING:
    from controlplane.model.launch import Launch
    from nodeagent.launchers.context import NodeContext
    from nodeagent.plan import StepPlan


def plan(launch: Launch, node: NodeContext) -> StepPlan:
    """Plan the node's one worker. `LaunchError` without `mpirun`, or without a port to meet at."""
    _check(launch, node)
    slices = core_slices(launch.cpu_ids, launch.here.workers, node.cpu_map)
    cores = tuple(dict.fromkeys(core for part in slices for core in part))
    slot = slots(launch)[0]
    several = len(launch.members) > 1
    worker = WorkerPlan(
        rank=slot.rank,
        local_rank=0,
        argv=_mpirun(launch, node) if slot.node_rank == 0 else _join(node),
        env=environment(
            launch,
            node,
            slot,
            slices[0],
            defaults={
                "OMPI_MCA_rmaps_base_mapping_policy": "slot",
                "OMPI_MCA_hwloc_base_binding_policy": "none",
            },
            facts=_parameters(node)
            | {
                "CC_MPI_CPUS": ";".join(",".join(map(str, part)) for part in slices),
                "CC_MPI_DEVICES": json.dumps(
                    [device_variables(launch, node, i) for i in range(launch.here.workers)]
                ),
                "CC_MPI_CWD": node.work_dir,
            }
            | (_meeting(launch, node) if several else {}),
        ),
        cwd=node.work_dir,
        cpu_ids=cores,
        before=before_command(launch),
        hears_signals=slot.node_rank == 0,
        # Two daemons under the same literal address would be one host to mpirun.
        hostname=own_hostname(launch, node) if spans_hosts(launch) else "",
    )
    plan = step(launch, node, (worker,), scopes={} if several else None)
    return replace(plan, ranks_per_worker=launch.here.workers)


def host_names(launch: Launch) -> tuple[str, ...]:
    """The names by which `mpirun` knows the nodes; Open MPI never has to resolve them.

    Literal addresses spare it the attempt. Agents that share an address, and IPv6, whose colons
    mean
    something else in a host list, get a made-up name.
    """
    addresses = [member.address for member in launch.members]
    return (
        "localhost",
        *(
            address if ":" not in address and addresses.count(address) == 1 else f"cc-{index}"
            for index, address in enumerate(addresses[1:], start=1)
        ),
    )


def _check(launch: Launch, node: NodeContext) -> None:
    if not node.mpirun:
        raise LaunchError(
            f"node {node.display_name} has no mpirun; install Open MPI 4.1 on every node of the "
            "job's queue (Debian: openmpi-bin), or choose another launcher"
        )
    if ":" in launch.command:
        raise LaunchError(
            "command: an argument is ':', which to mpirun is the start of another program; "
            "put the command into a script"
        )
    if " " in node.python:
        raise LaunchError(
            f"the agent's Python {node.python!r} has a space in its path, which Open MPI would "
            "split; install the agent elsewhere"
        )


def _mpirun(launch: Launch, node: NodeContext) -> tuple[str, ...]:
    pairs = zip(host_names(launch), launch.members, strict=True)
    hosts = ",".join(f"{name}:{member.workers}" for name, member in pairs)
    as_root = ("--allow-run-as-root",) if node.uid == 0 else ()
    # Every node has these; `mpi_rank` puts the command and the node's own folder in their place.
    there = ("-wdir", "/", "env")
    return (node.mpirun, *as_root, "-n", str(launch.size), "-H", hosts, *there, *command_of(launch))


def _join(node: NodeContext) -> tuple[str, ...]:
    return (node.python, "-I", "-m", "nodeagent.launchers.mpi_join")


def _meeting(launch: Launch, node: NodeContext) -> dict[str, str]:
    """How `mpirun` reaches the other nodes' daemons. The ranks never see these."""
    host, port = head_endpoint(launch)
    return {
        "OMPI_MCA_plm": "rsh",
        "OMPI_MCA_plm_rsh_agent": f"{node.python} -I -m nodeagent.launchers.mpi_rsh",
        "OMPI_MCA_plm_rsh_no_tree_spawn": "1",
        "OMPI_MCA_orte_leave_session_attached": "1",
        "CC_MPI_STORE_HOST": host,
        "CC_MPI_STORE_PORT": str(port),
        "CC_MPI_NAME": host_names(launch)[launch.member_index],
        "CC_MPI_SECRET": launch.gang_secret,
    }


def _parameters(node: NodeContext) -> dict[str, str]:
    """Open MPI's parameters that differ from node to node.

    `mpirun` hands its own on to everyone, so a second copy as CC_MPI_MCA_* lets `mpi_rank` put the
    node's own back.
    """
    own = {"orte_fork_agent": f"{node.python} -I -m nodeagent.launchers.mpi_rank"}
    if node.interface:
        own |= {"oob_tcp_if_include": node.interface, "btl_tcp_if_include": node.interface}
    if ip_address(node.address).is_loopback:
        # Several agents share this host: their ranks would meet in each other's shared memory.
        own["btl_vader_backing_directory"] = node.tmp_dir
    return {f"OMPI_MCA_{name}": value for name, value in own.items()} | {
        f"CC_MPI_MCA_{name}": value for name, value in own.items()
    }
