"""Queues as the registry keeps them: nodes, limits, and who may use them. Slurm's partitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.model.errors import FieldFault
from controlplane.model.quantity import SECOND_US, format_duration
from controlplane.model.selector import EVERYWHERE, Selector
from controlplane.model.words import count

if TYPE_CHECKING:
    from controlplane.model.spec import JobSpec

DEFAULT_QUEUE = "default"
"""Of jobs that name none. It is always there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQueue:
    """A named set of nodes with limits. None and empty: no limit."""

    name: str
    """Its name."""
    selector: Selector = EVERYWHERE
    """Its nodes, by their labels; queues may overlap."""
    default_limit_us: int | None = None
    """Time limit of jobs that name none, in microseconds; None: `max_limit_us`."""
    max_limit_us: int | None = None
    """The longest time limit, in microseconds."""
    max_workers: int | None = None
    """The most workers of a job."""
    max_gpus: int | None = None
    """The most GPUs of a job."""
    accounts: tuple[str, ...] = ()
    """Accounts whose jobs may use it, sorted. With `users` empty, too: everybody's."""
    users: tuple[str, ...] = ()
    """Users who may use it, sorted."""
    priority: int = 0
    """What waits in it comes before whatever waits in queues with less."""
    closed: str = ""
    """Why nothing of it starts now, in words; empty where it may. Submits are taken even so."""
    description: str = ""
    """For what it is, in words."""

    @property
    def resource(self) -> str:
        """Resource name."""
        return f"queues/{self.name}"

    def limit_us(self, wanted_us: int | None) -> int | None:
        """The time limit of a job that asks for this one, or for none."""
        if wanted_us is not None:
            return wanted_us
        return self.default_limit_us if self.default_limit_us is not None else self.max_limit_us

    def takes(self, owner: str, account: str) -> bool:
        """Whether somebody's jobs may use it."""
        anybody = not self.accounts and not self.users
        return anybody or owner in self.users or account in self.accounts

    def faults(self, spec: JobSpec, owner: str, account: str) -> list[FieldFault]:
        """What of a job is against its rules, each with what it allows. `account`: that pays."""
        found = []

        def fault(field: str, words: str) -> None:
            found.append(FieldFault(field=field, description=words))

        if not self.takes(owner, account):
            fault("queue", f'"{self.name}": is for {self.whom}, and not for {owner}')
        if words := self.too_long(spec.time_limit_us):
            fault("time_limit", words)
        if self.max_workers is not None and spec.workers > self.max_workers:
            allowed = count(self.max_workers, "worker")
            fault("workers", f'{spec.workers}: the queue "{self.name}" allows {allowed} at most')
        gpus = spec.workers * spec.resources.gpus
        if self.max_gpus is not None and gpus > self.max_gpus:
            words = f"{gpus} GPUs in all: the queue"
            allowed = count(self.max_gpus, "GPU")
            fault("resources.gpus", f'{words} "{self.name}" allows {allowed} at most')
        return found

    def too_long(self, limit_us: int | None) -> str:
        """What is wrong with a time limit here, in words; empty where it is well."""
        if self.max_limit_us is None or limit_us is None or limit_us <= self.max_limit_us:
            return ""
        wanted = format_duration(limit_us // SECOND_US * SECOND_US)
        allowed = format_duration(self.max_limit_us)
        return f'"{wanted}": the queue "{self.name}" allows {allowed} at most'

    @property
    def whom(self) -> str:
        """Whose jobs may use it, in words."""
        accounts = [f"account {name}" for name in self.accounts]
        return ", ".join([*accounts, *self.users])


FIRST_QUEUES = (JobQueue(name=DEFAULT_QUEUE, description="All nodes, without limits"),)
"""What a new centre has."""
