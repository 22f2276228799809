"""Fields of job.json that tell into which files the workers' output goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controlplane.model import outputs
from controlplane.model.speckinds import CONTROL, Kind, text
from controlplane.model.specvalues import NodePath
from controlplane.model.tasks import ONE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from controlplane.model.specfaults import Faults


_SCHEMA = (
    r"^(?!~)(?!(.*/)?[.][.](/|$))(?!.*/$)"
    f"([^%{CONTROL}]|%%|%0*([1-9]|10)?[jAatr]|%[Nxu])+$"
)
"""What `outputs.complaint` says, as far as a regular expression can."""


def output_pattern() -> Kind:
    """A path below the working directory, with letters as `outputs.LETTERS` has them."""
    characters = text(minimum=0, maximum=outputs.LONGEST)

    def read(value: object, path: str, faults: Faults) -> str | None:
        found: str | None = characters.read(value, path, faults)
        if found is not None and (words := outputs.complaint(found)):
            faults.add(path, value, words)
            return None
        return found

    return Kind(
        words=f"path with `%`, at most {outputs.LONGEST} characters, or `{outputs.NONE}`",
        schema={
            "type": "string",
            "minLength": 1,
            "maxLength": outputs.LONGEST,
            "pattern": _SCHEMA,
        },
        read=read,
        load=str,
        takes_text=True,
    )


def output_has_its_place(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Files lie below the working directory, and no two workers write into one."""
    where = found.get("working_dir")
    apart = found.get("launcher") in outputs.ONE_VOICE or (found.get("workers") or 1) == 1
    for field in ("output", "error"):
        pattern: str | None = found.get(field)
        if pattern in (None, outputs.NONE):
            continue
        if not pattern.startswith("/") or "working_dir" not in found:
            pass
        elif not isinstance(where, NodePath):
            yield (
                field,
                "an absolute path must lie below working_dir, which names no folder of the nodes; "
                "write a relative path",
            )
        elif not outputs.is_below(pattern, where.path):
            yield field, f"lies outside of working_dir, {where.path}; write a path below that"
        if len(found.get("tasks") or ONE) > 1 and not outputs.contains(pattern, "a"):
            yield field, "must contain %a in an array, so that each task has files of its own"
        if not (apart or outputs.contains(pattern, "t")):
            yield (
                field,
                "must contain %t where there are several workers, so that each has a file of its "
                "own",
            )
