"""The store on SQLAlchemy Core: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

import json
import secrets
import uuid
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from controlplane.model.errors import StaleControlPlane, StoreUnavailable
from controlplane.model.job import FINAL_JOB_STATES, Job
from controlplane.registry import rows, sqlprogress, sqlremoval, sqlusage, tables
from controlplane.registry.database import connect, name_of, reading, writing
from controlplane.registry.facts import Cluster, Facts
from controlplane.registry.store import Answer, Ended, JobFilter, JobRecord, RequestKey

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from controlplane.model.event import Event
    from controlplane.model.lease import Lease
    from controlplane.model.progress import Progress
    from controlplane.model.usage import Key, Usage, UsageFilter, UsageGroup, UsageSum
    from controlplane.registry.draft import Draft

_FINAL = [state.value for state in FINAL_JOB_STATES]
_MOVE_JOB = (
    tables.job.update()
    .where(tables.job.c.job_id == sa.bindparam("of"))
    .values({name: sa.bindparam(name) for name in rows.JOB_CHANGES})
)
_CHUNK = 500
"""Numbers in one IN list; SQLite allows 32,766 parameters."""


class SqlStore:
    """A store in a database whose schema is up to date (`registry.migrate`)."""

    def __init__(self, url: str) -> None:
        """`url`: as SQLAlchemy takes it, e.g. `sqlite:////var/lib/controlplane/controlplane.db`."""
        self._engine = connect(url)
        self._insert: Any = (
            sqlite_insert if self._engine.dialect.name == "sqlite" else postgresql_insert
        )
        self._upserts = {
            table: _upsert(self._insert, table)
            for table in (
                tables.task,
                tables.attempt,
                tables.lease,
                tables.worker,
                tables.node,
                tables.device,
                tables.user,
                tables.token,
                tables.join_token,
                tables.admission,
                tables.progress,
            )
        }
        self._epoch = 0

    # --- writing -------------------------------------------------------------------------------

    def open(self) -> Facts:
        """Take the next epoch, and load what lives."""
        new = Cluster(uuid=str(uuid.uuid4()), secret=secrets.token_hex(32), epoch=0)
        with writing(self._engine) as connection:
            first = self._insert(tables.cluster).on_conflict_do_nothing()
            connection.execute(first, rows.cluster_row(new))
            # Of two that open at once, the other one waits here.
            only = sa.select(tables.cluster).with_for_update()
            cluster = rows.cluster_value(connection.execute(only).mappings().one())
            cluster = replace(cluster, epoch=cluster.epoch + 1)
            connection.execute(tables.cluster.update().values(epoch=cluster.epoch))
        self._epoch = cluster.epoch
        return self.reload()

    def reload(self) -> Facts:
        """Load what lives."""
        with reading(self._engine) as connection:
            row = connection.execute(sa.select(tables.cluster)).mappings().one()
            facts = Facts(cluster=rows.cluster_value(row))
            if facts.cluster.epoch != self._epoch:
                raise _stale(self._epoch)
            _load_nodes(connection, facts)
            _load_people(connection, facts)
            live = sa.select(tables.job).where(tables.job.c.state.not_in(_FINAL))
            jobs = [
                rows.job_value(r) for r in connection.execute(live.order_by("job_id")).mappings()
            ]
            for record in _records(connection, jobs, full=True):
                _load_job(facts, record)
        return facts

    def commit(self, draft: Draft, answers: Mapping[RequestKey, Answer]) -> None:
        """One transaction for the whole draft."""
        with writing(self._engine) as connection:
            c = draft.cluster
            known = tables.cluster.c
            guard = connection.execute(
                tables.cluster.update()
                .where(known.epoch == self._epoch, known.seq == c.seq - len(draft.events))
                .values(rows.cluster_changes(c))
            )
            if guard.rowcount != 1:
                self._refuse(connection, c.seq - len(draft.events))
            self._put(connection, tables.user, [rows.user_row(u) for u in _new(draft.users)])
            self._put(connection, tables.token, [rows.token_row(t) for t in _new(draft.tokens)])
            joining = [rows.join_token_row(t) for t in _new(draft.join_tokens)]
            self._put(connection, tables.join_token, joining)
            admitted = [rows.admission_row(a) for a in _new(draft.admissions)]
            self._put(connection, tables.admission, admitted)
            self._put(connection, tables.node, [rows.node_row(n) for n in _new(draft.nodes)])
            for node in _new(draft.nodes):
                connection.execute(
                    tables.device.delete().where(tables.device.c.node_uuid == node.uuid)
                )
                self._put(connection, tables.device, rows.device_rows(node))
            jobs = _new(draft.jobs)
            fresh = [rows.job_row(j) for j in jobs if draft.jobs.before(j.job_id) is None]
            moved = [rows.job_changes(j) for j in jobs if draft.jobs.before(j.job_id) is not None]
            if fresh:
                connection.execute(tables.job.insert(), fresh)
            if moved:
                connection.execute(_MOVE_JOB, moved)
            self._put(connection, tables.task, [rows.task_row(t) for t in _new(draft.tasks)])
            attempts = _new(draft.attempts)
            self._put(connection, tables.attempt, [rows.attempt_row(a) for a in attempts])
            self._put(connection, tables.lease, [rows.lease_row(x) for x in _new(draft.leases)])
            workers = [
                row for a in attempts for row in rows.worker_rows(a, draft.attempts.before(a.key))
            ]
            self._put(connection, tables.worker, workers)
            sqlusage.insert(connection, draft.usages)
            told = [sqlprogress.row(p) for p in _new(draft.progress)]
            self._put(connection, tables.progress, told)
            if draft.events:
                events = [rows.event_row(e) for e in draft.events]
                connection.execute(tables.event.insert(), events)
            # Last of all: late words on a job that is removed go with it.
            sqlremoval.remove(connection, draft.removed)
            if answers:
                connection.execute(
                    tables.request.insert(), [_answer_row(k, a) for k, a in answers.items()]
                )

    def _refuse(self, connection: sa.Connection, seq: int) -> NoReturn:
        found = connection.execute(sa.select(tables.cluster)).mappings().one()
        if found["epoch"] != self._epoch:
            raise _stale(self._epoch)
        raise StoreUnavailable(
            f"the database {name_of(self._engine)} is at event {found['seq']}, and this change was"
            f" made at event {seq}; it is read again"
        )

    def _put(self, connection: sa.Connection, table: sa.Table, values: list[rows.Row]) -> None:
        if values:
            connection.execute(self._upserts[table], values)

    def forget_answers(self, before_us: int) -> int:
        """Drop old answers."""
        with writing(self._engine) as connection:
            c = tables.request.c.created_us
            return connection.execute(tables.request.delete().where(c < before_us)).rowcount

    # --- what is over ---------------------------------------------------------------------------

    def ended(self, before_us: int, *, limit: int) -> Sequence[Ended]:
        """Jobs that ended before this."""
        with reading(self._engine) as connection:
            return sqlremoval.ended(connection, before_us, limit)

    def ends(self, job_ids: Sequence[int]) -> Mapping[int, int | None]:
        """When jobs ended."""
        with reading(self._engine) as connection:
            return sqlremoval.ends(connection, job_ids)

    def unowned_usages(self, before_us: int, *, limit: int) -> Sequence[tuple[int, int, int]]:
        """Usages of removed jobs."""
        with reading(self._engine) as connection:
            return sqlremoval.unowned_usages(connection, before_us, limit)

    def blobs_used(self, hashes: Sequence[str]) -> frozenset[str]:
        """Blobs that jobs refer to."""
        with reading(self._engine) as connection:
            return sqlremoval.blobs_used(connection, hashes)

    # --- reading -------------------------------------------------------------------------------

    def answers(self, keys: Sequence[RequestKey]) -> Mapping[RequestKey, Answer]:
        """One query for a whole group."""
        found: dict[RequestKey, Answer] = {}
        wanted = set(keys)
        c = tables.request.c
        with reading(self._engine) as connection:
            for i in range(0, len(keys), _CHUNK):
                ids = [key.request_id for key in keys[i : i + _CHUNK]]
                for row in connection.execute(
                    sa.select(tables.request).where(c.request_id.in_(ids))
                ).mappings():
                    key = RequestKey(principal=row["principal"], request_id=row["request_id"])
                    if key not in wanted:
                        continue  # another one chose the same id
                    found[key] = Answer(
                        content_hash=row["content_hash"],
                        body=json.loads(row["answer"]),
                        created_us=row["created_us"],
                    )
        return found

    def job(self, job_id: int) -> JobRecord | None:
        """One job."""
        with reading(self._engine) as connection:
            query = sa.select(tables.job).where(tables.job.c.job_id == job_id)
            row = connection.execute(query).mappings().first()
            if row is None:
                return None
            return _records(connection, [rows.job_value(row)], full=True)[0]

    def jobs(
        self, which: JobFilter, *, before: int | None, limit: int, full: bool
    ) -> Sequence[JobRecord]:
        """A page of jobs."""
        query = _where(which).order_by(tables.job.c.job_id.desc())
        if before is not None:
            query = query.where(tables.job.c.job_id < before)
        labels = dict(which.labels)
        found: list[Job] = []
        with reading(self._engine) as connection:
            # Labels have no column of their own: they are looked for row by row.
            if not labels:
                query = query.limit(limit)
            result = connection.execute(query, execution_options={"yield_per": _CHUNK}).mappings()
            for row in result:
                if not labels or labels.items() <= json.loads(row["spec"])["labels"].items():
                    found.append(rows.job_value(row))
                if len(found) >= limit:
                    break
            result.close()
            return _records(connection, found, full=full)

    def owners(self, job_ids: Sequence[int]) -> Mapping[int, str]:
        """Owners of jobs."""
        c = tables.job.c
        found: dict[int, str] = {}
        with reading(self._engine) as connection:
            for i in range(0, len(job_ids), _CHUNK):
                query = sa.select(c.job_id, c.owner).where(c.job_id.in_(job_ids[i : i + _CHUNK]))
                found.update((row.job_id, row.owner) for row in connection.execute(query))
        return found

    def lease(self, lease_id: int) -> Lease | None:
        """One lease."""
        query = sa.select(tables.lease).where(tables.lease.c.lease_id == lease_id)
        with reading(self._engine) as connection:
            row = connection.execute(query).mappings().first()
        return rows.lease_value(row) if row is not None else None

    def events(self, resource: str, *, after: int, limit: int) -> Sequence[Event]:
        """A page of events."""
        c = tables.event.c
        query = sa.select(tables.event).where(c.seq > after).order_by(c.seq).limit(limit)
        if resource:
            # '0' follows '/': every name that begins with `resource/`, by the index.
            parts = sa.and_(c.resource >= f"{resource}/", c.resource < f"{resource}0")
            query = query.where(sa.or_(c.resource == resource, parts))
        with reading(self._engine) as connection:
            return [rows.event_value(row) for row in connection.execute(query).mappings()]

    def usage_sums(
        self,
        which: UsageFilter,
        by: UsageGroup | None,
        *,
        seq: int,
        after: Key | None,
        limit: int,
    ) -> Mapping[Key, UsageSum]:
        """A page of sums."""
        with reading(self._engine) as connection:
            return sqlusage.sums(connection, which, by, seq=seq, after=after, limit=limit)

    def usage_met(
        self,
        which: UsageFilter,
        by: UsageGroup | None,
        *,
        seq: int,
        job_ids: Collection[int],
    ) -> frozenset[tuple[Key, int]]:
        """Keys that these jobs count under."""
        with reading(self._engine) as connection:
            return sqlusage.met(connection, which, by, seq=seq, job_ids=job_ids)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _upsert(insert: Any, table: sa.Table) -> Any:
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    changed = {c.name: statement.excluded[c.name] for c in table.c if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


def _new(overlay: Any) -> list[Any]:
    return [value for value in overlay.changed.values() if value is not None]


def _stale(epoch: int) -> StaleControlPlane:
    return StaleControlPlane(
        f"another control plane has taken over since epoch {epoch}: this one writes nothing more"
    )


def _answer_row(key: RequestKey, answer: Answer) -> rows.Row:
    return {
        "principal": key.principal,
        "request_id": key.request_id,
        "content_hash": answer.content_hash,
        "answer": json.dumps(answer.body, separators=(",", ":"), sort_keys=True),
        "created_us": answer.created_us,
    }


def _load_nodes(connection: sa.Connection, facts: Facts) -> None:
    devices = defaultdict(list)
    ordered = sa.select(tables.device).order_by("node_uuid", "device_index")
    for row in connection.execute(ordered).mappings():
        devices[row["node_uuid"]].append(rows.device_value(row))
    for row in connection.execute(sa.select(tables.node).order_by("created_us", "uuid")).mappings():
        facts.nodes[row["uuid"]] = rows.node_value(row, devices[row["uuid"]])
        # Generations start anew with each epoch; the agent is told both.
        facts.generations[row["uuid"]] = max(facts.cluster.seq, 1)


def _load_people(connection: sa.Connection, facts: Facts) -> None:
    for row in connection.execute(sa.select(tables.user)).mappings():
        facts.users[row["name"]] = rows.user_value(row)
    for row in connection.execute(sa.select(tables.token)).mappings():
        facts.tokens[row["sha256"]] = rows.token_value(row)
    for row in connection.execute(sa.select(tables.join_token)).mappings():
        facts.join_tokens[row["sha256"]] = rows.join_token_value(row)
    for row in connection.execute(sa.select(tables.admission)).mappings():
        facts.admissions[row["node_uuid"]] = rows.admission_value(row)


def _load_job(facts: Facts, record: JobRecord) -> None:
    job = record.job
    facts.jobs[job.job_id] = job
    for task in record.tasks:
        facts.tasks[task.job_id, task.index] = task
    for attempt in record.attempts:
        if not attempt.state.final:
            facts.attempts[attempt.key] = attempt
            if attempt.key in record.progress:
                facts.progress[attempt.key] = record.progress[attempt.key]
    for lease in record.leases.values():
        if lease.removed_us is None:
            facts.leases[lease.lease_id] = lease
            held = facts.node_leases.get(lease.node_uuid, frozenset())
            facts.node_leases[lease.node_uuid] = held | {lease.lease_id}
    facts.index(job.job_id)


def _where(which: JobFilter) -> sa.Select[Any]:
    c = tables.job.c
    query = sa.select(tables.job)
    if which.states:
        query = query.where(c.state.in_([state.value for state in which.states]))
    if which.owner:
        query = query.where(c.owner == which.owner)
    if which.name_pattern:
        query = query.where(c.name.like(_like(which.name_pattern), escape="\\"))
    if which.created_from_us is not None:
        query = query.where(c.created_us >= which.created_from_us)
    if which.created_before_us is not None:
        query = query.where(c.created_us < which.created_before_us)
    return query


def _like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _records(connection: sa.Connection, jobs: Sequence[Job], *, full: bool) -> list[JobRecord]:
    if not full or not jobs:
        return [JobRecord(job=job, tasks=(), attempts=(), leases={}) for job in jobs]
    tasks: dict[int, list[Any]] = defaultdict(list)
    attempts: dict[int, list[Any]] = defaultdict(list)
    leases: dict[int, list[Any]] = defaultdict(list)
    workers: dict[int, list[Any]] = defaultdict(list)
    usages: dict[int, list[Usage]] = defaultdict(list)
    told: dict[int, list[Progress]] = defaultdict(list)
    for i in range(0, len(jobs), _CHUNK):
        ids = [job.job_id for job in jobs[i : i + _CHUNK]]
        for table, order, into in (
            (tables.task, ("job_id", "task_index"), tasks),
            (tables.attempt, ("job_id", "task_index", "number"), attempts),
            (tables.lease, ("lease_id",), leases),
            (tables.worker, ("job_id", "task_index", "attempt", "rank"), workers),
        ):
            query = sa.select(table).where(table.c.job_id.in_(ids)).order_by(*order)
            for row in connection.execute(query).mappings():
                into[row["job_id"]].append(row)
        for usage in sqlusage.of_jobs(connection, ids):
            usages[usage.job_id].append(usage)
        for progress in sqlprogress.of_jobs(connection, ids):
            told[progress.job_id].append(progress)
    return [
        replace(
            _record(job, *(table[job.job_id] for table in (tasks, attempts, leases, workers))),
            usages={usage.key: usage for usage in usages[job.job_id]},
            progress={progress.key: progress for progress in told[job.job_id]},
        )
        for job in jobs
    ]


def _record(job: Job, tasks: Any, attempts: Any, leases: Any, workers: Any) -> JobRecord:
    by_attempt: dict[tuple[int, int, int], list[Lease]] = defaultdict(list)
    for row in leases:
        lease = rows.lease_value(row)
        by_attempt[lease.attempt_key].append(lease)
    of_attempt = defaultdict(list)
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
    )
