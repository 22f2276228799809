"""Where a job's workers run: a path on the nodes, or a folder that travels with the job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from controlplane.model import speckinds as kinds
from controlplane.model.specshapes import REQUIRED, Field, Table, text_list
from controlplane.model.specvalues import Archive, NodePath, Ship

if TYPE_CHECKING:
    from controlplane.model.specfaults import Faults

PATH_LIMIT: Final = 4095
"""Most bytes of a path that the kernel takes."""


def _absolute_path(value: object, path: str, faults: Faults) -> NodePath | None:
    found = kinds.read_text(value, path, faults)
    if found is None:
        return None
    if not found.startswith("/"):
        faults.add(
            path, value, 'must be an absolute path; to bring a folder along write {"ship": "."}'
        )
    elif ".." in found.split("/"):
        faults.add(path, value, "must not contain a .. component")
    elif len(found.encode()) > PATH_LIMIT:
        faults.add(path, value, f"must have at most {PATH_LIMIT} bytes")
    else:
        return NodePath(path=found)
    return None


def _inner_folder(value: object, path: str, faults: Faults) -> str | None:
    found = kinds.read_text(value, path, faults)
    if found is None:
        return None
    if not found or found.startswith("/") or ".." in found.split("/"):
        faults.add(path, value, 'must be a folder inside that of job.json, such as "." or "src"')
        return None
    return found


SHIP: Final = Table(
    title="A folder that `ccctl submit` brings along: `working_dir` with `ship`",
    fields=(
        Field(
            name="ship",
            kind=kinds.Kind(
                words="folder inside that of job.json",
                schema={"type": "string", "minLength": 1},
                read=_inner_folder,
                takes_text=True,
            ),
            default=REQUIRED,
            meaning=(
                "The folder, relative to job.json's own. `ccctl` packs it, uploads it once per "
                "content, and puts `sha256` and `size` in its place."
            ),
            example=".",
            attribute="folder",
        ),
        Field(
            name="exclude",
            kind=text_list(maximum=256),
            default=[],
            meaning="Glob patterns, relative to the folder, of what is not packed.",
            example=["*.pt", ".git"],
        ),
    ),
)

ARCHIVE: Final = Table(
    title="A folder that was uploaded already: `working_dir` with `sha256`",
    fields=(
        Field(
            name="sha256",
            kind=kinds.matching(
                "^[0-9a-f]{64}$",
                words="64 hex digits, lower case",
                complaint="must be a SHA-256: 64 hex digits in lower case",
            ),
            default=REQUIRED,
            meaning="SHA-256 of the archive.",
            example="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ),
        Field(
            name="size",
            kind=kinds.integer(0, 2**40),
            default=REQUIRED,
            meaning="Size of the archive in bytes.",
            example=20480,
            attribute="size_bytes",
        ),
    ),
)


def working_dir() -> kinds.Kind:
    """A path, a folder to ship, or an archive that was shipped."""

    def read(value: object, path: str, faults: Faults) -> NodePath | Ship | Archive | None:
        if isinstance(value, str):
            return _absolute_path(value, path, faults)
        before = faults.count
        if isinstance(value, Mapping) and "ship" in value:
            found = SHIP.read(value, path, faults)
            return Ship(**found) if found and faults.count == before else None
        if isinstance(value, Mapping) and ("sha256" in value or "size" in value):
            found = ARCHIVE.read(value, path, faults)
            return Archive(**found) if found and faults.count == before else None
        faults.add(path, value, 'must be an absolute path on the nodes, or {"ship": "a folder"}')
        return None

    def write(value: NodePath | Ship | Archive) -> object:
        if isinstance(value, NodePath):
            return value.path
        return (SHIP if isinstance(value, Ship) else ARCHIVE).write(value)

    path_schema = {"type": "string", "pattern": "^/", "maxLength": PATH_LIMIT}
    return kinds.Kind(
        words="absolute path, or object, see below",
        schema={"anyOf": [path_schema, SHIP.schema(), ARCHIVE.schema()]},
        read=read,
        write=write,
        tables=(SHIP, ARCHIVE),
    )
