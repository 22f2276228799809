"""Launches and nodes for tests of the launchers, sensible where a test says nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controlplane.model.launch import GangMember, Launch
from nodeagent.launchers import NodeContext


def members(
    workers: Sequence[int],
    addresses: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    port: int = 20000,
) -> tuple[GangMember, ...]:
    """A gang with so many workers on each node; the first node has leased `port`."""
    return tuple(
        GangMember(
            node_display_name=names[index] if names else f"node{index}",
            address=addresses[index] if addresses else f"10.0.0.{index + 1}",
            first_rank=sum(workers[:index]),
            workers=count,
            ports=(port,) if index == 0 else (),
        )
        for index, count in enumerate(workers)
    )


def launch(launcher: str, gang: tuple[GangMember, ...], index: int = 0, **fields: Any) -> Launch:
    """A launch for one member of a gang."""
    values: dict[str, Any] = {
        "job_id": 12,
        "attempt": 1,
        "job_display_name": "digits",
        "owner": "ada",
        "command": ("python", "train.py"),
        "gang_secret": "s3cret",
        **fields,
    }
    return Launch(launcher=launcher, members=gang, member_index=index, **values)


def node(gang: tuple[GangMember, ...], index: int = 0, **fields: Any) -> NodeContext:
    """The node of one member of a gang."""
    values: dict[str, Any] = {
        "interface": "eth0",
        "hostname_address": gang[index].address,
        "python": "/opt/agent/bin/python",
        "mpirun": "/usr/bin/mpirun",
        "uid": 1000,
        "user": "ada",
        "home": "/home/ada",
        "path": "/usr/bin:/bin",
        "tmp_dir": "/tmp/lease7",
        "job_dir": "/srv/jobs/12",
        "work_dir": "/srv/leases/7/work",
        **fields,
    }
    return NodeContext(
        lease_id=7 + index,
        token=7 + index,
        display_name=gang[index].node_display_name,
        address=gang[index].address,
        **values,
    )


def real_node(
    gang: tuple[GangMember, ...], index: int, folder: Path, work_dir: Path | None, **fields: Any
) -> NodeContext:
    """A node that plans for this machine: its folders are there, and `python` is this one.

    Without `work_dir` it has one of its own, as nodes do.
    """
    own = folder / f"node{index}"
    for name in ("tmp", "home", "work"):
        (own / name).mkdir(parents=True, exist_ok=True)
    job_dir = folder / "job"
    job_dir.mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "interface": "lo",
        "python": sys.executable,
        "path": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "uid": 0,
        "user": "root",
        "home": str(own / "home"),
        "tmp_dir": str(own / "tmp"),
        "job_dir": str(job_dir),
        "work_dir": str(work_dir or own / "work"),
        **fields,
    }
    return node(gang, index, **values)
