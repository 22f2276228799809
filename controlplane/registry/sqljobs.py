"""Jobs with all that became of them, read by SQL: those that live, and those that are asked for."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from controlplane.model.job import FINAL_JOB_STATES, LIVE_ATTEMPT_STATES, JobState
from controlplane.registry import rows, sqlprogress, sqlusage, tables
from controlplane.registry.store import JobRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from controlplane.model.event import Event
    from controlplane.model.job import Job
    from controlplane.model.lease import Lease
    from controlplane.registry.facts import Facts
    from controlplane.registry.store import JobFilter

CHUNK = 500
"""Numbers in one IN list."""
_FINAL = [state.value for state in FINAL_JOB_STATES]
_ILL = [state.value for state in FINAL_JOB_STATES if state is not JobState.SUCCEEDED]
_LIVE = [state.value for state in LIVE_ATTEMPT_STATES]
_j, _t, _a, _l, _w = (
    table.c for table in (tables.job, tables.task, tables.attempt, tables.lease, tables.worker)
)
_SAME_ATTEMPT = sa.and_(
    _w.job_id == _a.job_id, _w.task_index == _a.task_index, _w.attempt == _a.number
)


def load_live(connection: sa.Connection, facts: Facts) -> None:
    """Put the jobs that live into the facts, and of each what lives of it."""
    jobs = connection.execute(sa.select(tables.job).where(_j.state.not_in(_FINAL)))
    names = tuple(jobs.keys())
    for some in jobs.partitions(CHUNK):
        for values in some:
            job = rows.job_value(dict(zip(names, values, strict=False)))
            facts.jobs[job.job_id] = job
    of_live = sa.select(tables.task).join(tables.job, _j.job_id == _t.job_id)
    for row in _all(connection, of_live.where(_j.state.not_in(_FINAL), _t.state.not_in(_FINAL))):
        facts.tasks[row["job_id"], row["task_index"]] = rows.task_value(row)
    ill = sa.select(_t.job_id, _t.task_index, _t.state).join(tables.job, _j.job_id == _t.job_id)
    for row in _all(connection, ill.where(_j.state.not_in(_FINAL), _t.state.in_(_ILL))):
        facts.note_end(row["job_id"], row["task_index"], JobState(row["state"]))
    leases: dict[Any, list[Lease]] = defaultdict(list)
    for row in _all(
        connection, sa.select(tables.lease).where(_l.removed_us.is_(None)).order_by("lease_id")
    ):
        lease = rows.lease_value(row)
        leases[lease.attempt_key].append(lease)
        facts.leases[lease.lease_id] = lease
        held = facts.node_leases.get(lease.node_uuid, frozenset())
        facts.node_leases[lease.node_uuid] = held | {lease.lease_id}
    workers: dict[Any, list[Any]] = defaultdict(list)
    of_live = sa.select(tables.worker).join(tables.attempt, _SAME_ATTEMPT)
    for row in _all(connection, of_live.where(_a.state.in_(_LIVE)).order_by(_w.rank)):
        key = (row["job_id"], row["task_index"], row["attempt"])
        workers[key].append(rows.worker_value(row))
    for row in _all(connection, sa.select(tables.attempt).where(_a.state.in_(_LIVE))):
        key = (row["job_id"], row["task_index"], row["number"])
        facts.attempts[key] = rows.attempt_value(row, leases[key], workers[key])
    for progress in sqlprogress.of_live(connection, _LIVE):
        facts.progress[progress.key] = progress
    for key, attempt in facts.attempts.items():
        facts.note_saving(key, attempt)
    for task in list(facts.tasks):
        facts.index_task(task)
    for job_id in list(facts.jobs):
        facts.index(job_id)
    facts.count_jobs()


def _all(connection: sa.Connection, query: sa.Select[Any]) -> Iterable[Any]:
    return connection.execute(query).mappings()


def job_record(connection: sa.Connection, job_id: int, index: int | None) -> JobRecord | None:
    """As `Store.job`."""
    row = connection.execute(sa.select(tables.job).where(_j.job_id == job_id)).mappings().first()
    return records(connection, [rows.job_value(row)], index=index)[0] if row is not None else None


def task_page(
    connection: sa.Connection,
    job_id: int,
    *,
    states: Collection[JobState],
    after: int,
    limit: int,
) -> JobRecord:
    """As `Store.tasks`; a job that there is not has none."""
    row = connection.execute(sa.select(tables.job).where(_j.job_id == job_id)).mappings().one()
    query = sa.select(tables.task).where(_t.job_id == job_id, _t.task_index > after)
    if states:
        query = query.where(_t.state.in_([state.value for state in states]))
    found = [
        rows.task_value(each)
        for each in _all(connection, query.order_by(_t.task_index).limit(limit))
    ]
    last = {(task.job_id, task.index): task.attempts for task in found}
    indexes = [task.index for task in found]
    attempts, leases = [], {}
    for i in range(0, len(indexes), CHUNK):
        some = indexes[i : i + CHUNK]
        of: dict[Any, list[Lease]] = defaultdict(list)
        here = sa.select(tables.lease).where(_l.job_id == job_id, _l.task_index.in_(some))
        for each in _all(connection, here.order_by("lease_id")):
            lease = rows.lease_value(each)
            of[lease.attempt_key].append(lease)
        tried = sa.select(tables.attempt).where(_a.job_id == job_id, _a.task_index.in_(some))
        for each in _all(connection, tried):
            key = (job_id, each["task_index"], each["number"])
            if last[key[:2]] == key[2]:
                attempts.append(rows.attempt_value(each, of[key], ()))
                leases.update({lease.lease_id: lease for lease in of[key]})
    return JobRecord(
        job=rows.job_value(row), tasks=tuple(found), attempts=tuple(attempts), leases=leases
    )


def records(
    connection: sa.Connection, jobs: Sequence[Job], *, full: bool = True, index: int | None = None
) -> list[JobRecord]:
    """Jobs with all that became of them; of arrays nothing without an `index`, which then is that
    of the one task that is told of."""
    wanted = [job for job in jobs if full and (index is not None or len(job.tasks) == 1)]
    parts: dict[int, JobRecord] = {}
    for i in range(0, len(wanted), CHUNK):
        some = wanted[i : i + CHUNK]
        found = _parts(connection, [job.job_id for job in some], index)
        for job in some:
            parts[job.job_id] = _record(job, found)
    return [
        parts.get(job.job_id) or JobRecord(job=job, tasks=(), attempts=(), leases={})
        for job in jobs
    ]


Parts = dict[str, dict[int, list[Any]]]


def _parts(connection: sa.Connection, ids: Sequence[int], index: int | None) -> Parts:
    """Rows and values of jobs, by kind and job."""
    found: Parts = defaultdict(lambda: defaultdict(list))
    for table, order in (
        (tables.task, ("job_id", "task_index")),
        (tables.attempt, ("job_id", "task_index", "number")),
        (tables.lease, ("lease_id",)),
        (tables.worker, ("job_id", "task_index", "attempt", "rank")),
    ):
        query = sa.select(table).where(table.c.job_id.in_(ids)).order_by(*order)
        if index is not None:
            query = query.where(table.c.task_index == index)
        for row in _all(connection, query):
            found[table.name][row["job_id"]].append(row)
    for usage in sqlusage.of_jobs(connection, ids, index):
        found["usage"][usage.job_id].append(usage)
    for progress in sqlprogress.of_jobs(connection, ids, index):
        found["progress"][progress.job_id].append(progress)
    return found


def _record(job: Job, parts: Parts) -> JobRecord:
    tasks, attempts, leases, workers, usages, told = (
        parts[kind][job.job_id]
        for kind in ("task", "attempt", "lease", "worker", "usage", "progress")
    )
    by_attempt: dict[tuple[int, int, int], list[Lease]] = defaultdict(list)
    for row in leases:
        lease = rows.lease_value(row)
        by_attempt[lease.attempt_key].append(lease)
    of_attempt: Mapping[Any, list[Any]] = defaultdict(list)
    for row in workers:
        key = (row["job_id"], row["task_index"], row["attempt"])
        of_attempt[key].append(rows.worker_value(row))
    values = []
    for row in attempts:
        key = (row["job_id"], row["task_index"], row["number"])
        values.append(rows.attempt_value(row, by_attempt[key], of_attempt[key]))
    return JobRecord(
        job=job,
        tasks=tuple(rows.task_value(row) for row in tasks),
        attempts=tuple(values),
        leases={lease.lease_id: lease for each in by_attempt.values() for lease in each},
        usages={usage.key: usage for usage in usages},
        progress={progress.key: progress for progress in told},
    )


def events(connection: sa.Connection, resource: str, after: int, limit: int) -> list[Event]:
    """As `Store.events`."""
    c = tables.event.c
    query = sa.select(tables.event).where(c.seq > after).order_by(c.seq).limit(limit)
    if resource:
        # '0' follows '/': every name that begins with `resource/`, by the index.
        parts = sa.and_(c.resource >= f"{resource}/", c.resource < f"{resource}0")
        query = query.where(sa.or_(c.resource == resource, parts))
    return [rows.event_value(row) for row in _all(connection, query)]


def where(which: JobFilter) -> sa.Select[Any]:
    """The jobs that a filter takes, but for their labels."""
    query = sa.select(tables.job)
    if which.states:
        query = query.where(_j.state.in_([state.value for state in which.states]))
    if which.owner:
        query = query.where(_j.owner == which.owner)
    if which.account:
        query = query.where(_j.account == which.account)
    if which.sight is not None:
        mine = _j.owner == which.sight.owner
        query = query.where(sa.or_(mine, _j.account.in_(sorted(which.sight.accounts))))
    if which.name_pattern:
        query = query.where(_j.name.like(_like(which.name_pattern), escape="\\"))
    if which.created_from_us is not None:
        query = query.where(_j.created_us >= which.created_from_us)
    if which.created_before_us is not None:
        query = query.where(_j.created_us < which.created_before_us)
    return query


def _like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")
