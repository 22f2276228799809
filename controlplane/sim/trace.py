"""A trace of jobs: what came when, what it asked for, and how long it ran."""

from __future__ import annotations

import csv
import gzip
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from controlplane.sim.faults import BadInput, at, decimal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SECOND_US: Final = 1_000_000
GIB: Final = 1 << 30
MILLI: Final = 1000
NEEDED: Final = ("job_id", "submit_s", "duration_s", "gpus")
"""Columns that a trace must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    """A job of a trace."""

    name: str
    """What the trace calls it."""
    submit_us: int
    """When it came, in microseconds since the trace's beginning."""
    duration_us: int
    """How long it runs where nothing interrupts it, in microseconds."""
    gpu_milli: int
    """Thousandths of a GPU: a part of one, or whole ones."""
    cpu_milli: int | None = None
    """Thousandths of a core; None: the trace does not tell."""
    memory_bytes: int | None = None
    """Memory; None: the trace does not tell."""
    account: str = ""
    """The account that pays: the trace's group."""
    priority: int | None = None
    """Value of its priority class; None: the default's."""
    limit_us: int | None = None
    """Its time limit; None: it has none, or the trace does not tell."""
    gpu_models: tuple[str, ...] = ()
    """Models of GPU that will do; empty: every one."""

    @property
    def gpus(self) -> int:
        """Whole GPUs that it takes where none is shared."""
        return -(-self.gpu_milli // MILLI)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which part of a trace is taken, and what is made of it."""

    from_us: int | None = None
    """Jobs that came at this or later."""
    to_us: int | None = None
    """Jobs that came before this."""
    limit: int | None = None
    """At most so many, the first."""
    limit_factor: float | None = None
    """Jobs without a time limit get one: so many times their length."""

    def of(self, jobs: list[TraceJob]) -> list[TraceJob]:
        """Those that are taken, of jobs in the order in which they came."""
        taken = [
            job
            for job in jobs
            if (self.from_us is None or job.submit_us >= self.from_us)
            and (self.to_us is None or job.submit_us < self.to_us)
        ]
        taken = taken if self.limit is None else taken[: self.limit]
        factor = self.limit_factor
        if factor is None:
            return taken
        return [
            replace(job, limit_us=round(job.duration_us * factor)) if job.limit_us is None else job
            for job in taken
        ]


def read_trace(path: Path) -> list[TraceJob]:
    """Read a trace from CSV, packed by gzip or not: its jobs in the order in which they came.

    BadInput names the line and the column.
    """
    jobs: list[TraceJob] = []
    names: dict[str, int] = {}
    for line, row in rows(path, NEEDED):
        job = _job(path, line, row)
        if names.setdefault(job.name, line) != line:
            first = names[job.name]
            raise at(path, line, "job_id", f"{job.name!r} is the job of line {first}, too")
        jobs.append(job)
    if not jobs:
        raise BadInput(f"{path} has no job: a line for each is needed below the header")
    return sorted(jobs, key=lambda job: job.submit_us)


def _job(path: Path, line: int, row: Mapping[str, str]) -> TraceJob:
    def number(column: str, unit: int) -> int | None:
        text = row.get(column, "").strip()
        if not text:
            return None
        try:
            return decimal(text, unit)
        except ValueError as error:
            raise at(path, line, column, str(error)) from None

    def needed(column: str, unit: int) -> int:
        value = number(column, unit)
        if value is None:
            raise at(path, line, column, "is empty, and every job needs a number here")
        return value

    name = row["job_id"].strip()
    if not name:
        raise at(path, line, "job_id", "is empty, and every job needs a name of its own")
    gpu_milli = needed("gpus", MILLI)
    if gpu_milli > MILLI and gpu_milli % MILLI:
        words = f"{row['gpus']!r} is neither a part of one GPU nor a whole number of them"
        raise at(path, line, "gpus", words)
    priority = row.get("priority", "").strip()
    return TraceJob(
        name=name,
        submit_us=needed("submit_s", SECOND_US),
        duration_us=needed("duration_s", SECOND_US),
        gpu_milli=gpu_milli,
        cpu_milli=number("cpus", MILLI),
        memory_bytes=number("mem_gb", GIB),
        account=row.get("group", "").strip(),
        # Some traces have words for classes here, which say nothing of who goes first.
        priority=int(priority) if priority.isdecimal() else None,
        limit_us=number("limit_s", SECOND_US),
        gpu_models=tuple(m for m in row.get("gpu_spec", "").strip().split("|") if m),
    )


def rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of a CSV file with a header, each with its number. BadInput where it is none."""
    try:
        with _open(path) as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames or ()
            lacks = [column for column in needed if column not in header]
            if lacks:
                raise BadInput(
                    f"{path}, line 1: the header has no column {', '.join(lacks)}; it has"
                    f" {', '.join(header) or 'none'}, and needs {', '.join(needed)}"
                )
            for row in reader:
                if None in row or None in row.values():
                    has = sum(value is not None for key, value in row.items() if key is not None)
                    has += len(row.get(None) or ())
                    raise BadInput(
                        f"{path}, line {reader.line_num}: has {has} values, and the header names"
                        f" {len(header)} columns"
                    )
                yield reader.line_num, row
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: is not CSV: {error}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not text in UTF-8: is it packed? Name it .gz then") from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise BadInput(f"{path} is named .gz, and gzip can't read it: {error}") from None
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror or error}") from None


def _open(path: Path) -> TextIO:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
