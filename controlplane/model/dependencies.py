"""What a job waits for of other jobs, as Slurm's `--dependency` says it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from controlplane.model.tasks import LAST_INDEX

if TYPE_CHECKING:
    from controlplane.model.job import JobState

_WRITTEN = re.compile(r"([a-z]+):(\d{1,18})(?:_(\d{1,8}))?", re.ASCII)
PAIRS: Final = -1
"""In place of a task's index: each of them in turn, as `aftercorr` waits for them."""
_EXAMPLE = 'write e.g. "afterok:123", "afterany:123_4", "afternotok:123" or "aftercorr:123"'


class DependencyKind(StrEnum):
    """How what is waited for must end."""

    AFTER_OK = "afterok"
    """Well."""
    AFTER_ANY = "afterany"
    """Somehow."""
    AFTER_NOT_OK = "afternotok"
    """Not well: it failed, or was cancelled."""
    AFTER_CORR = "aftercorr"
    """Well, task by task: each task waits for that of the same index."""


_WANTED: Final = {
    DependencyKind.AFTER_OK: "succeed",
    DependencyKind.AFTER_ANY: "end",
    DependencyKind.AFTER_NOT_OK: "fail",
    DependencyKind.AFTER_CORR: "succeed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """One thing that a job waits for."""

    kind: DependencyKind
    """How it must end."""
    job_id: int
    """The job that is waited for."""
    task_index: int | None = None
    """Index of the task that is waited for; None for the whole job."""

    def __str__(self) -> str:
        """As in job.json."""
        return f"{self.kind}:{self.job_id}" + self._task("_")

    @property
    def whom(self) -> str:
        """Resource name of what is waited for."""
        return f"jobs/{self.job_id}" + self._task("/tasks/")

    def _task(self, mark: str) -> str:
        return "" if self.task_index is None else f"{mark}{self.task_index}"

    def met_by(self, state: JobState) -> bool:
        """Whether it is fulfilled by the end of what is waited for, in that state."""
        if self.kind is DependencyKind.AFTER_ANY:
            return True
        return (state.value == "succeeded") != (self.kind is DependencyKind.AFTER_NOT_OK)

    def words(self) -> str:
        """What is waited for, after `waits for`: `jobs/123 to succeed (afterok:123)`."""
        pairs = ", task by task" if self.kind is DependencyKind.AFTER_CORR else ""
        return f"{self.whom} to {_WANTED[self.kind]}{pairs} ({self})"

    def never(self, state: JobState) -> str:
        """Why it can never be fulfilled, after `because`, where that ended in this state."""
        ended = "was cancelled" if state.value == "cancelled" else state.value
        return f"{self.whom} {ended}, and {self} wants it to {_WANTED[self.kind]}"


def parse_dependency(text: str) -> Dependency:
    """Read `afterok:123` or `afterany:123_4`. ValueError, in words, for anything else."""
    found = _WRITTEN.fullmatch(text)
    if found is None or found[1] not in list(DependencyKind) or not int(found[2]):
        raise ValueError(f"is no dependency; {_EXAMPLE}")
    kind = DependencyKind(found[1])
    if found[3] is None:
        return Dependency(kind=kind, job_id=int(found[2]))
    if kind is DependencyKind.AFTER_CORR:
        raise ValueError(f'pairs the tasks of whole arrays; write "aftercorr:{found[2]}"')
    if int(found[3]) > LAST_INDEX:
        raise ValueError(f"names a task that cannot be: the highest index is {LAST_INDEX}")
    return Dependency(kind=kind, job_id=int(found[2]), task_index=int(found[3]))


def key_of(dependency: Dependency) -> int | None:
    """What of the other job is waited for: a task's index, `PAIRS`, or None for all of it."""
    pairs = dependency.kind is DependencyKind.AFTER_CORR
    return PAIRS if pairs else dependency.task_index
