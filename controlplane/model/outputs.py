"""Files that workers' output is written into: what `output` and `error` of a job.json mean.

A pattern names a file below the job's working directory. Its letters are those of Slurm's sbatch(1)
("filename pattern"), where both have the same thing; a width pads a number with zeros: `%4t`.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Final, NamedTuple

NONE: Final = "none"
"""As a pattern: no file, as for srun(1)."""
DEFAULT: Final = "job-%j-%t.out"
"""Where `output` goes that names no file."""
DEFAULT_OF_ARRAY: Final = "job-%j_%a-%t.out"
"""The same in an array."""
LONGEST: Final = 1024
"""Most characters of a pattern."""

LETTERS: Final = {
    "j": "number of the job",
    "A": "the same, as Slurm's scripts write it",
    "a": "index in the job's array; 0 in a plain job",
    "t": "rank",
    "r": "number of the attempt, from 1",
    "N": "name of the node",
    "x": "name of the job",
    "u": "owner of the job",
}
"""What a letter after % stands for."""
ONE_VOICE: Final = ("mpi", "script")
"""Launchers whose output comes from one process of each node, and stands under its first rank."""
_NUMBERS = "jAatr"
_WIDEST = 10
_PLACE = re.compile("%([0-9]*)(.?)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What the letters of a pattern stand for, for one worker."""

    job_id: int
    """Number of its job."""
    task_index: int
    """Index of its task."""
    attempt: int
    """Number of its attempt."""
    rank: int
    """Its rank."""
    node: str
    """Display name of its node."""
    name: str
    """Display name of the job."""
    owner: str
    """The job's owner."""
    array: bool = False
    """Whether the task is one of several."""


class Files(NamedTuple):
    """Where one worker's output goes: absolute paths, the same one for both or not."""

    output: str
    """Its standard output; empty for no file."""
    error: str
    """Its standard error; empty for no file."""


def complaint(pattern: str) -> str | None:
    """Say what is wrong with a pattern, whatever the job; None when nothing is."""
    if not pattern:
        return f'names no file; write a path such as "logs/%j-%t.out", or "{NONE}" for no file'
    if pattern.endswith("/"):
        return "names a folder; add the file's name, e.g. %j-%t.out"
    if ".." in pattern.split("/"):
        return "must not contain a .. component; write a path below the working directory"
    if pattern.startswith("~"):
        return "~ is not replaced; write a path below the working directory"
    for place in _PLACE.finditer(pattern):
        width, letter = place.groups()
        if letter == "%" and not width:
            continue
        if letter not in LETTERS or not letter:
            known = ", ".join(f"%{each} ({words})" for each, words in LETTERS.items())
            return f"%{width}{letter} stands for nothing; there are {known}, and %% for a %"
        if width and (letter not in _NUMBERS or not 1 <= int(width) <= _WIDEST):
            return f"%{width}{letter}: a width is for numbers, and at most {_WIDEST}: %4t"
    return None


def contains(pattern: str, letter: str) -> bool:
    """Whether a pattern has this letter."""
    return any(place[2] == letter for place in _PLACE.finditer(pattern))


def is_below(path: str, folder: str) -> bool:
    """Whether an absolute path leads to something in a folder, going by their names."""
    inside = posixpath.normpath(folder).rstrip("/") + "/"
    return posixpath.normpath(path).startswith(inside)


def files(output: str | None, error: str | None, base: str, named: Named) -> Files:
    """Where a worker's output goes by these patterns, in the folder `base`.

    Without a pattern for its own, standard error goes where standard output goes.
    """
    usual = DEFAULT_OF_ARRAY if named.array else DEFAULT
    out = _path(usual if output is None else output, base, named)
    return Files(out, out if error is None else _path(error, base, named))


def _path(pattern: str, base: str, named: Named) -> str:
    if pattern == NONE:
        return ""
    parts = (_harmless(part) for part in _expanded(pattern, named).split("/"))
    return posixpath.normpath(posixpath.join(base, "/".join(parts)))


def _expanded(pattern: str, named: Named) -> str:
    values: dict[str, int | str] = {
        "j": named.job_id,
        "A": named.job_id,
        "a": named.task_index,
        "t": named.rank,
        "r": named.attempt,
        "N": named.node,
        "x": named.name,
        "u": named.owner,
    }

    def value(place: re.Match[str]) -> str:
        width, letter = place.groups()
        if letter == "%":
            return "%"
        found = values[letter]
        return f"{found:0{width or 1}d}" if isinstance(found, int) else found.replace("/", "_")

    return _PLACE.sub(value, pattern)


def _harmless(part: str) -> str:
    """A name that leads nowhere else: a job may be called `..`."""
    return "__" if part == ".." else part
