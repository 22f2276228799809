"""Fields of job.json that tell where a job may run, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from controlplane.model.dependencies import Dependency, DependencyKind, parse_dependency
from controlplane.model.moments import format_moment, parse_moment
from controlplane.model.selector import Selector, parse_selector
from controlplane.model.speckinds import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from controlplane.model.specfaults import Faults

LONGEST_SELECTOR: Final = 1000
"""Characters."""
MOST_DEPENDENCIES: Final = 100
"""Of one job."""


def node_selector() -> Kind:
    """Which nodes will do, by their labels."""

    def read(value: object, path: str, faults: Faults) -> Selector | None:
        if not isinstance(value, str) or not 0 < len(value.strip()) <= LONGEST_SELECTOR:
            words = f'must be text of at most {LONGEST_SELECTOR} characters, e.g. "tier=prod,!old"'
            faults.add(path, value, words)
            return None
        try:
            return parse_selector(value)
        except ValueError as problem:
            faults.note(path, str(problem))
            return None

    return Kind(
        words="label selector as in Kubernetes",
        schema={"type": "string", "minLength": 1, "maxLength": LONGEST_SELECTOR},
        read=read,
        write=str,
        takes_text=True,
    )


def moment() -> Kind:
    """A moment, UTC in microseconds once parsed."""

    def read(value: object, path: str, faults: Faults) -> int | None:
        try:
            return parse_moment(value if isinstance(value, str) else "")
        except ValueError as problem:
            faults.add(path, value, f'{problem}; ccctl reads "now+2h" and "18:00", too')
            return None

    return Kind(
        words="time of RFC 3339 with its zone; for `ccctl` also `now+2h` or `18:00`",
        schema={"type": "string", "minLength": 1},
        read=read,
        write=format_moment,
        takes_text=True,
    )


def dependencies() -> Kind:
    """What is waited for, in order and each once."""
    wanted = f'must be a list of at most {MOST_DEPENDENCIES} strings, e.g. ["afterok:123"]'

    def read(value: object, path: str, faults: Faults) -> tuple[Dependency, ...] | None:
        if not isinstance(value, list | tuple) or len(value) > MOST_DEPENDENCIES:
            faults.add(path, value, wanted)
            return None
        before, found = faults.count, []
        for index, item in enumerate(value):
            try:
                found.append(parse_dependency(item if isinstance(item, str) else ""))
            except ValueError as problem:
                faults.add(f"{path}[{index}]", item, str(problem))
        return tuple(dict.fromkeys(found)) if faults.count == before else None

    pattern = f"^({'|'.join(DependencyKind)}):[0-9]{{1,18}}(_[0-9]{{1,8}})?$"
    return Kind(
        words=f"list of at most {MOST_DEPENDENCIES} dependencies as Slurm's",
        schema={
            "type": "array",
            "items": {"type": "string", "pattern": pattern},
            "maxItems": MOST_DEPENDENCIES,
        },
        read=read,
        write=lambda made: [str(each) for each in made],
    )


def pairs_are_of_arrays(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """`aftercorr` pairs the tasks of this job with those of one other."""
    pairs = [d for d in found.get("depends_on") or () if d.kind is DependencyKind.AFTER_CORR]
    if len(pairs) > 1:
        yield "depends_on", "may have one aftercorr: a task has one that it is paired with"
    if pairs and found.get("tasks", ...) is None:
        yield "depends_on", "aftercorr pairs tasks with tasks; set tasks, or write afterok"
