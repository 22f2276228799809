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

from controlplane.model.account import DEFAULT, Account
from controlplane.model.errors import StaleControlPlane, StoreUnavailable
from controlplane.registry import (
    rows,
    sqlaccounts,
    sqljobs,
    sqlprogress,
    sqlremoval,
    sqlsite,
    sqlusage,
    tables,
)
from controlplane.registry.bulk import Bulk
from controlplane.registry.database import connect, name_of, reading, writing
from controlplane.registry.facts import Cluster, Facts
from controlplane.registry.store import (
    Answer,
    Ended,
    EventPage,
    JobFilter,
    JobRecord,
    RequestKey,
    Whose,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from controlplane.model.event import Event
    from controlplane.model.job import Job, JobState
    from controlplane.model.lease import Lease
    from controlplane.model.usage import Key, UsageFilter, UsageGroup, UsageSum
    from controlplane.registry.draft import Draft

_MOVE_JOB = (
    tables.job.update()
    .where(tables.job.c.job_id == sa.bindparam("of"))
    .values({name: sa.bindparam(name) for name in rows.JOB_CHANGES})
)
_MOVE_CLUSTER = (
    tables.cluster.update()
    .where(
        tables.cluster.c.epoch == sa.bindparam("of_epoch"),
        tables.cluster.c.seq == sa.bindparam("of_seq"),
    )
    .values({name: sa.bindparam(name) for name in rows.CLUSTER_CHANGES})
)
_NEW_JOB, _NEW_EVENT, _NEW_REQUEST = (
    table.insert() for table in (tables.job, tables.event, tables.request)
)
_ANSWER = json.JSONEncoder(separators=(",", ":"), sort_keys=True)
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
                tables.account,
                tables.account_member,
                tables.account_usage,
                tables.priority_class,
                tables.queue,
                tables.reservation,
            )
        }
        self._bulk = Bulk(self._engine)
        self._epoch = 0

    # --- writing -------------------------------------------------------------------------------

    def open(self) -> Facts:
        """Take the next epoch, and load what lives."""
        new = Cluster(uuid=str(uuid.uuid4()), secret=secrets.token_hex(32), epoch=0)
        with writing(self._engine) as connection:
            first = self._insert(tables.cluster).on_conflict_do_nothing()
            connection.execute(first, rows.cluster_row(new))
            always = self._insert(tables.account).on_conflict_do_nothing()
            connection.execute(always, rows.account_row(Account(name=DEFAULT, open=True)))
            # Of two that open at once, the other one waits here.
            only = sa.select(tables.cluster).with_for_update()
            cluster = rows.cluster_value(connection.execute(only).mappings().one())
            cluster = replace(cluster, epoch=cluster.epoch + 1)
            connection.execute(tables.cluster.update().values(epoch=cluster.epoch))
            sqlsite.begin(connection)
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
            sqlaccounts.load(connection, facts)
            sqlsite.load(connection, facts)
            sqljobs.load_live(connection, facts)
        return facts

    def commit(self, draft: Draft, answers: Mapping[RequestKey, Answer]) -> None:
        """One transaction for the whole draft."""
        with writing(self._engine) as connection:
            c = draft.cluster
            made_at = c.seq - len(draft.events)
            guarded = {**rows.cluster_changes(c), "of_epoch": self._epoch, "of_seq": made_at}
            if self._bulk.change(connection, _MOVE_CLUSTER, guarded) != 1:
                self._refuse(connection, made_at)
            self._put(connection, tables.user, [rows.user_row(u) for u in _new(draft.users)])
            self._put(connection, tables.token, [rows.token_row(t) for t in _new(draft.tokens)])
            joining = [rows.join_token_row(t) for t in _new(draft.join_tokens)]
            self._put(connection, tables.join_token, joining)
            admitted = [rows.admission_row(a) for a in _new(draft.admissions)]
            self._put(connection, tables.admission, admitted)
            sqlaccounts.remove(connection, draft)
            books = [rows.account_row(a) for a in _new(draft.accounts)]
            self._put(connection, tables.account, books)
            members = [rows.member_row(m) for m in _new(draft.members)]
            self._put(connection, tables.account_member, members)
            spent = [rows.spending_row(s) for s in _new(draft.spendings)]
            self._put(connection, tables.account_usage, spent)
            for table, overlay, row in sqlsite.tables_of(draft):
                self._put(connection, table, [row(value) for value in _new(overlay)])
                sqlsite.remove(connection, table, overlay)
            self._put(connection, tables.node, [rows.node_row(n) for n in _new(draft.nodes)])
            for node in _new(draft.nodes):
                connection.execute(
                    tables.device.delete().where(tables.device.c.node_uuid == node.uuid)
                )
                self._put(connection, tables.device, rows.device_rows(node))
            jobs = _new(draft.jobs)
            texts = draft.spec_texts
            fresh = [
                rows.job_row(j, texts.get(j.job_id, ""))
                for j in jobs
                if draft.jobs.before(j.job_id) is None
            ]
            moved = [rows.job_changes(j) for j in jobs if draft.jobs.before(j.job_id) is not None]
            self._bulk.run(connection, _NEW_JOB, fresh)
            self._bulk.run(connection, _MOVE_JOB, moved)
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
            self._bulk.run(connection, _NEW_EVENT, [rows.event_row(e) for e in draft.events])
            # Last of all: late words on a job that is removed go with it.
            sqlremoval.remove(connection, draft.removed)
            answered = [_answer_row(k, a) for k, a in answers.items()]
            self._bulk.run(connection, _NEW_REQUEST, answered)

    def _refuse(self, connection: sa.Connection, seq: int) -> NoReturn:
        found = connection.execute(sa.select(tables.cluster)).mappings().one()
        if found["epoch"] != self._epoch:
            raise _stale(self._epoch)
        raise StoreUnavailable(
            f"the database {name_of(self._engine)} is at event {found['seq']}, and this change was"
            f" made at event {seq}; it is read again"
        )

    def _put(self, connection: sa.Connection, table: sa.Table, values: list[rows.Row]) -> None:
        self._bulk.run(connection, self._upserts[table], values)

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

    def job(self, job_id: int, index: int | None = None) -> JobRecord | None:
        """One job, or one task of it."""
        with reading(self._engine) as connection:
            return sqljobs.job_record(connection, job_id, index)

    def tasks(
        self, job_id: int, *, states: Collection[JobState], after: int, limit: int
    ) -> JobRecord:
        """A page of a job's tasks."""
        with reading(self._engine) as connection:
            return sqljobs.task_page(connection, job_id, states=states, after=after, limit=limit)

    def jobs(
        self, which: JobFilter, *, before: int | None, limit: int, full: bool
    ) -> Sequence[JobRecord]:
        """A page of jobs."""
        query = sqljobs.where(which).order_by(tables.job.c.job_id.desc())
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
            return sqljobs.records(connection, found, full=full)

    def jobs_of(self, job_ids: Sequence[int]) -> Mapping[int, Job]:
        """Jobs by number."""
        found: dict[int, Job] = {}
        with reading(self._engine) as connection:
            for i in range(0, len(job_ids), _CHUNK):
                numbers = job_ids[i : i + _CHUNK]
                query = sa.select(tables.job).where(tables.job.c.job_id.in_(numbers))
                for row in connection.execute(query).mappings():
                    found[row["job_id"]] = rows.job_value(row)
        return found

    def owners(self, job_ids: Sequence[int]) -> Mapping[int, Whose]:
        """Whose jobs are."""
        c = tables.job.c
        found: dict[int, Whose] = {}
        with reading(self._engine) as connection:
            for i in range(0, len(job_ids), _CHUNK):
                query = sa.select(c.job_id, c.owner, c.account)
                query = query.where(c.job_id.in_(job_ids[i : i + _CHUNK]))
                for job_id, owner, account in connection.execute(query):
                    found[job_id] = Whose(owner, account)
        return found

    def lease(self, lease_id: int) -> Lease | None:
        """One lease."""
        query = sa.select(tables.lease).where(tables.lease.c.lease_id == lease_id)
        with reading(self._engine) as connection:
            row = connection.execute(query).mappings().first()
        return rows.lease_value(row) if row is not None else None

    def events(self, resource: str, *, after: int, limit: int) -> Sequence[Event]:
        """A page of events."""
        with reading(self._engine) as connection:
            return sqljobs.events(connection, resource, after, limit)

    def event_page(self, resource: str, *, after: int, limit: int) -> EventPage:
        """A page of events, and how far they go."""
        c = tables.cluster.c
        with reading(self._engine) as connection:
            events = sqljobs.events(connection, resource, after, limit)
            row = connection.execute(sa.select(c.seq, c.events_removed_seq)).one()
        return EventPage(events=events, seq=row.seq, removed_seq=row.events_removed_seq)

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
        "answer": _ANSWER.encode(answer.body),
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
