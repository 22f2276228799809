"""Progress of attempts, in SQL: one row for each, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from controlplane.model.progress import Checkpoint, Point, Progress
from controlplane.registry import tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from controlplane.registry.rows import Readable, Row

_KEY = ("job_id", "task_index", "attempt")
_BODY = ("rank", "last", "checkpoint", "history", "faults")


def row(progress: Progress) -> Row:
    """The row of an attempt's progress."""
    values = asdict(progress)
    body = {name: values[name] for name in _BODY}
    return {
        **{name: values[name] for name in (*_KEY, "revision")},
        "body": json.dumps(body, separators=(",", ":"), sort_keys=True, ensure_ascii=False),
    }


def value(found: Readable) -> Progress:
    """The progress of a row."""
    body: dict[str, Any] = json.loads(found["body"])
    last, saved = body["last"], body["checkpoint"]
    if last is not None:
        last = Point(**{**last, "metrics": tuple((name, v) for name, v in last["metrics"])})
    return Progress(
        **{name: found[name] for name in (*_KEY, "revision")},
        rank=body["rank"],
        last=last,
        checkpoint=Checkpoint(**saved) if saved is not None else None,
        history=tuple((moment, fraction) for moment, fraction in body["history"]),
        faults=tuple((lease_id, tuple(words)) for lease_id, words in body["faults"]),
    )


def of_live(connection: sa.Connection, states: Sequence[str]) -> Iterator[Progress]:
    """The progress of the attempts that are in one of these states."""
    c, a = tables.progress.c, tables.attempt.c
    same = sa.and_(c.job_id == a.job_id, c.task_index == a.task_index, c.attempt == a.number)
    query = sa.select(tables.progress).join(tables.attempt, same).where(a.state.in_(states))
    for found in connection.execute(query).mappings():
        yield value(found)


def of_jobs(
    connection: sa.Connection, job_ids: Sequence[int], index: int | None = None
) -> Iterator[Progress]:
    """The progress of the attempts of some jobs, or of their tasks with that index."""
    query = sa.select(tables.progress).where(tables.progress.c.job_id.in_(job_ids))
    if index is not None:
        query = query.where(tables.progress.c.task_index == index)
    for found in connection.execute(query).mappings():
        yield value(found)
