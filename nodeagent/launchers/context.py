"""What a launcher may know of the node it plans for, and what a launcher is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.model.launch import Launch
    from controlplane.model.node import Device
    from nodeagent.plan import StepPlan


class LaunchError(ValueError):
    """This launch cannot be started on this node; the message says why and what would help."""


class LaunchRefused(LaunchError):
    """As `LaunchError`, and the job may be to blame: what it names is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    """This node and this lease, as far as a launcher needs to know them."""

    lease_id: int
    """The lease that the workers run under."""
    token: int
    """Its fencing token."""
    display_name: str
    """Display name of the node."""
    address: str
    """Address at which the other nodes reach this one, as a literal IP."""
    interface: str = ""
    """Network interface that holds `address`; empty when it is not known: libraries then choose."""
    hostname_address: str
    """Where programs listen that bind to what this host's own name resolves to, as some libraries
    do in silence; empty when that is nowhere."""
    cpu_map: Mapping[int, int] = field(default_factory=dict)
    """From the node's core numbers (those of the lease) to this host's; others stay as they are."""
    devices: tuple[Device, ...] = ()
    """All that this host has, offered or not."""
    python: str
    """Python in which this package is installed, for our own small programs on the node."""
    mpirun: str = ""
    """Open MPI's `mpirun` on this node; empty when there is none."""
    uid: int
    """User id that the workers run as."""
    user: str
    """Its name."""
    home: str
    """Its home folder."""
    shell: str = "/bin/sh"
    """Its login shell."""
    path: str = "/usr/local/bin:/usr/bin:/bin"
    """Where the workers' programs are looked up."""
    lang: str = "C.UTF-8"
    """Language and character set of the workers."""
    tmp_dir: str = "/tmp"
    """Folder for temporary files; the agent gives each lease its own."""
    job_dir: str
    """The job's folder, the same for all its attempts."""
    work_dir: str
    """Folder that the workers start in."""
    server: str = ""
    """The control plane's address, for programs that start steps; empty for none."""
    ca_file: str = ""
    """PEM certificates to trust there; empty for the system's, or for plaintext."""
    step_token_file: str = ""
    """A file of the workers' with a token that starts steps of this attempt; empty for none."""
    deadline_file: str = ""
    """See `StepPlan.deadline_file`."""
    notify_socket: str = ""
    """See `StepPlan.notify_socket`."""


class Launcher(Protocol):
    """One way of starting and joining the workers of a gang."""

    def __call__(self, launch: Launch, node: NodeContext) -> StepPlan:
        """Plan this node's part. Pure. `LaunchError` when it cannot be started as asked."""
        ...
