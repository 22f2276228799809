"""What is over, in SQL: found without a lock, removed with a commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from controlplane.registry import tables
from controlplane.registry.store import Ended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.registry.draft import Removed

_CHUNK = 500
"""Numbers in one IN list."""
_OF_JOBS = (
    tables.progress,
    tables.worker,
    tables.lease,
    tables.attempt,
    tables.task,
    tables.job,
)
"""Tables with rows of a job, in the order in which they may go. `usage` is not one of them."""
_KEY = ("job_id", "task_index", "attempt")
_j, _u, _e = tables.job.c, tables.usage.c, tables.event.c
_OF_JOB = sa.or_(
    _e.resource == sa.bindparam("job"),
    # '0' follows '/': its parts, by the index; and exactly them, however the database sorts.
    sa.and_(
        _e.resource >= sa.bindparam("parts"),
        _e.resource < sa.bindparam("behind"),
        _e.resource.like(sa.bindparam("like")),
    ),
)


def remove(connection: sa.Connection, removed: Removed) -> None:
    """Remove it, as a part of a commit."""
    for i in range(0, len(removed.jobs), _CHUNK):
        numbers = removed.jobs[i : i + _CHUNK]
        connection.execute(tables.event.delete().where(_OF_JOB), [_names(n) for n in numbers])
        for table in _OF_JOBS:
            connection.execute(table.delete().where(table.c.job_id.in_(numbers)))
    if removed.usages:
        keys = [dict(zip(("job", "task", "number"), key, strict=True)) for key in removed.usages]
        for table in (tables.usage_device, tables.usage):
            same = (table.c[a] == sa.bindparam(b) for a, b in zip(_KEY, keys[0], strict=True))
            connection.execute(table.delete().where(*same), keys)
    for i in range(0, len(removed.events), _CHUNK):
        connection.execute(tables.event.delete().where(_e.seq.in_(removed.events[i : i + _CHUNK])))


def _names(job_id: int) -> dict[str, str]:
    job = f"jobs/{job_id}"
    return {"job": job, "parts": f"{job}/", "behind": f"{job}0", "like": f"{job}/%"}


def ended(connection: sa.Connection, before_us: int, limit: int) -> list[Ended]:
    """As `Store.ended`."""
    workers = (
        sa.select(sa.func.count()).where(tables.worker.c.job_id == _j.job_id).scalar_subquery()
    )
    query = (
        sa.select(_j.job_id, workers)
        .where(_j.ended_us < before_us)  # null while it lives
        .order_by(_j.ended_us, _j.job_id)
        .limit(limit)
    )
    events = sa.select(sa.func.count(), sa.func.max(_e.seq)).where(_OF_JOB)
    found = []
    for job_id, count in connection.execute(query).all():
        told, last = connection.execute(events, _names(job_id)).one()
        found.append(Ended(job_id=job_id, rows=count + told, last_seq=last or 0))
    return found


def ends(connection: sa.Connection, job_ids: Sequence[int]) -> dict[int, int | None]:
    """As `Store.ends`."""
    found: dict[int, int | None] = {}
    for i in range(0, len(job_ids), _CHUNK):
        query = sa.select(_j.job_id, _j.ended_us).where(_j.job_id.in_(job_ids[i : i + _CHUNK]))
        found.update((row.job_id, row.ended_us) for row in connection.execute(query))
    return found


def unowned_usages(
    connection: sa.Connection, before_us: int, limit: int
) -> list[tuple[int, int, int]]:
    """As `Store.unowned_usages`."""
    query = (
        sa.select(*(_u[name] for name in _KEY))
        .where(_u.until_us < before_us, ~sa.exists().where(_j.job_id == _u.job_id))
        .order_by(_u.until_us)
        .limit(limit)
    )
    return [(job_id, index, attempt) for job_id, index, attempt in connection.execute(query)]


def blobs_used(connection: sa.Connection, hashes: Sequence[str]) -> frozenset[str]:
    """As `Store.blobs_used`."""
    found: set[str] = set()
    for i in range(0, len(hashes), _CHUNK):
        query = sa.select(_j.blob_sha256).where(_j.blob_sha256.in_(hashes[i : i + _CHUNK]))
        found.update(connection.execute(query.distinct()).scalars())
    return frozenset(found)
