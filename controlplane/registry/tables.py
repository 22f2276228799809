"""The tables, as SQLAlchemy Core declares them. Migrations must add up to exactly this.

Times are UTC in integer microseconds. What people see is never protobuf bytes: values without
columns of their own are JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine


class Words(TypeDecorator[str]):
    """Any text. PostgreSQL takes no U+0000, and gets U+FFFD in its place: no change is refused for
    what a program wrote to its stderr."""

    impl: type[String] = Text
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Any:
        """What is done to each value on its way into the database."""
        return without_nul if dialect.name == "postgresql" else None


class Name(Words):
    """A text that is looked for and ordered by its bytes, in every database.

    Its length is what may be expected: SQLite does not look at it, and PostgreSQL is not told, so
    that no change is refused for it.
    """

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The type of a dialect."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(String(collation="C"))
        return super().load_dialect_impl(dialect)


def without_nul(text: str | None) -> str | None:
    """A text as PostgreSQL can keep it."""
    return text.replace("\0", "\ufffd") if text is not None else None


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
    }
)

cluster = Table(
    "cluster",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="always 1"),
    Column("uuid", Name(36), nullable=False),
    Column("secret", Name(64), nullable=False, comment="from which gangs' secrets are derived"),
    Column("epoch", BigInteger, nullable=False, comment="grows with every start"),
    Column("seq", BigInteger, nullable=False, comment="number of the last event"),
    Column("last_job_id", BigInteger, nullable=False),
    Column("last_lease_id", BigInteger, nullable=False),
    Column(
        "jobs_removed_us",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="jobs that ended before may have been removed",
    ),
    Column("logs_removed_us", BigInteger, nullable=False, server_default="0"),
    Column("usage_removed_us", BigInteger, nullable=False, server_default="0"),
    Column(
        "events_removed_seq",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="events up to this number may have been removed",
    ),
)

job = Table(
    "job",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Name(200), nullable=False, comment="the user's name for it"),
    Column("spec", Words, nullable=False, comment="canonical JSON, never changed"),
    Column("spec_sha256", Name(64), nullable=False),
    Column("owner", Name(255), nullable=False),
    Column("account", Name(63), nullable=False),
    Column("priority", BigInteger, nullable=False),
    Column("state", Name(16), nullable=False),
    Column("reason", Words, nullable=False),
    Column("cancelled_by", Name(255), nullable=False),
    Column("exit_code", Integer),
    Column("created_us", BigInteger, nullable=False),
    Column("started_us", BigInteger),
    Column("ended_us", BigInteger),
    Column("revision", BigInteger, nullable=False, comment="event that changed it last"),
    Column("submitted_seq", BigInteger, nullable=False, comment="event that tells of its submit"),
    Column("priority_class", Name(63), nullable=False, comment="empty: as in spec"),
    Column("time_limit_us", BigInteger, comment="null: none"),
    Column("held_by", Name(255), nullable=False),
    Column("promised_us", BigInteger, comment="null: no start is promised"),
    Column("begun", Integer, nullable=False, comment="tasks, in order, that were placed or ended"),
    Column("skipped", Words, nullable=False, comment="JSON list: later ones that were cancelled"),
    Column("running", Integer, nullable=False, comment="tasks of which an attempt lives"),
    Column("succeeded", Integer, nullable=False, comment="tasks"),
    Column("failed", Integer, nullable=False, comment="tasks"),
    Column("cancelled", Integer, nullable=False, comment="tasks"),
    Column("blob_sha256", Name(64), comment="its working directory, if that travels; as in spec"),
    Column(
        "waits_for",
        Words,
        nullable=False,
        server_default="[]",
        comment="JSON list: dependencies that have not come yet",
    ),
    Column("doomed", Words, nullable=False, server_default="", comment="why it can never run"),
    Index("ix_job_state_job_id", "state", "job_id"),
    Index("ix_job_owner_job_id", "owner", "job_id"),
    Index("ix_job_created_us", "created_us"),
    Index("ix_job_ended_us_job_id", "ended_us", "job_id"),
    Index("ix_job_blob_sha256", "blob_sha256"),
)

task = Table(
    "task",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_index", Integer, primary_key=True, autoincrement=False),
    Column("state", Name(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("application_faults", Integer, nullable=False),
    Column("infrastructure_faults", Integer, nullable=False),
    Column("quick_requeues", Integer, nullable=False),
    Column("not_before_us", BigInteger, nullable=False),
    Column("released_us", BigInteger, comment="when its last attempt gave its leases back"),
    ForeignKeyConstraint(["job_id"], ["job.job_id"]),
)

attempt = Table(
    "attempt",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_index", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", Name(16), nullable=False),
    Column("outcome", Name(16)),
    Column("cause", Words, comment="JSON; null while nothing has gone wrong"),
    Column("created_us", BigInteger, nullable=False),
    Column("started_us", BigInteger),
    Column("running_us", BigInteger),
    Column("stopped_us", BigInteger),
    Column("ended_us", BigInteger),
    Column("warned_us", BigInteger),
    Column("signals", Words, nullable=False, comment="JSON list"),
    Column("requeue", Integer, nullable=False, comment="1: ended so that its task starts again"),
    ForeignKeyConstraint(["job_id", "task_index"], ["task.job_id", "task.task_index"]),
)

lease = Table(
    "lease",
    metadata,
    Column("lease_id", BigInteger, primary_key=True, autoincrement=False),
    Column("token", BigInteger, nullable=False),
    Column("job_id", BigInteger, nullable=False),
    Column("task_index", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("node_uuid", Name(36), nullable=False),
    Column("first_rank", Integer, nullable=False),
    Column("workers", Integer, nullable=False),
    Column("device_ids", Words, nullable=False, comment="JSON list"),
    Column("cpu_ids", Words, nullable=False, comment="JSON list"),
    Column("cpu_millicores", BigInteger, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("ports", Words, nullable=False, comment="JSON list"),
    Column("added_us", BigInteger, nullable=False),
    Column("removed_us", BigInteger),
    Column("acknowledged", Integer, nullable=False, comment="1 once its node has reported it"),
    Column("phase", Name(16), nullable=False),
    Column("end_kind", Name(16), nullable=False),
    Column("message", Words, nullable=False),
    Column("signals_done", Integer, nullable=False, comment="number of the last one sent"),
    Column("job_dir", Words, nullable=False, comment="on the node; empty until it was reported"),
    Column("output_fault", Words, nullable=False, comment="what is missing in files of output"),
    ForeignKeyConstraint(
        ["job_id", "task_index", "attempt"],
        ["attempt.job_id", "attempt.task_index", "attempt.number"],
    ),
    ForeignKeyConstraint(["node_uuid"], ["node.uuid"]),
    Index("ix_lease_job_id", "job_id"),
)

worker = Table(
    "worker",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_index", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("rank", Integer, primary_key=True, autoincrement=False),
    Column("local_rank", Integer, nullable=False),
    Column("state", Name(16), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("started_us", BigInteger),
    Column("ended_us", BigInteger),
    Column("stderr_tail", Words, nullable=False),
    Column("stdout_bytes", BigInteger, nullable=False),
    Column("stderr_bytes", BigInteger, nullable=False),
    Column("peak_memory_bytes", BigInteger, comment="null where it is not known"),
    Column("oom_limit_bytes", BigInteger, comment="null where memory did not run out"),
    Column("oom_peak_bytes", BigInteger),
    ForeignKeyConstraint(
        ["job_id", "task_index", "attempt"],
        ["attempt.job_id", "attempt.task_index", "attempt.number"],
    ),
)

# What ended attempts used: amounts that were leased from one moment until another. Products with
# time are left to the reader, who cuts the time at a window; owner and account are the job's, so
# that sums over a window need no other table but `usage_device`. Rows may outlive their job, so no
# foreign key leads there.
usage = Table(
    "usage",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_index", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("owner", Name(255), nullable=False),
    Column("account", Name(63), nullable=False),
    Column("state", Name(16), nullable=False, comment="how it ended"),
    Column("seq", BigInteger, nullable=False, comment="event that ended it"),
    Column("from_us", BigInteger, nullable=False, comment="when its leases were added"),
    Column("until_us", BigInteger, nullable=False, comment="when they were removed"),
    Column("cpu_millicores", BigInteger, nullable=False, comment="leased"),
    Column("memory_bytes", BigInteger, nullable=False, comment="leased"),
    Column("peak_memory_bytes", BigInteger, comment="of one worker; null where it is not known"),
    Column("stdout_bytes", BigInteger, nullable=False),
    Column("stderr_bytes", BigInteger, nullable=False),
    Column("waiting_us", BigInteger, nullable=False),
    Column("staging_us", BigInteger, nullable=False),
    Column("starting_us", BigInteger, nullable=False),
    Column("running_us", BigInteger, nullable=False),
    Column("stopping_us", BigInteger, nullable=False),
    Index("ix_usage_until_us", "until_us"),
)

usage_device = Table(
    "usage_device",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_index", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("model", Name(128), primary_key=True),
    Column("devices", Integer, nullable=False, comment="how many of this model were leased"),
    ForeignKeyConstraint(
        ["job_id", "task_index", "attempt"],
        ["usage.job_id", "usage.task_index", "usage.attempt"],
    ),
)

# What workers said of their progress, one row for each attempt that did. Written again some times a
# minute, so it is small and apart from the attempt; the series lies in files.
progress = Table(
    "progress",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_index", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False, comment="counts its changes"),
    Column(
        "body", Words, nullable=False, comment="JSON: newest values, checkpoint, history, faults"
    ),
    ForeignKeyConstraint(
        ["job_id", "task_index", "attempt"],
        ["attempt.job_id", "attempt.task_index", "attempt.number"],
    ),
)

node = Table(
    "node",
    metadata,
    Column("uuid", Name(36), primary_key=True),
    Column("display_name", Name(255), nullable=False),
    Column("facts", Words, nullable=False, comment="JSON, without the devices"),
    Column("boot_id", Name(64), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("drain_reason", Words),
    Column("silent_since_us", BigInteger),
    Column(
        "enrolled_by",
        Name(255),
        nullable=False,
        server_default="",
        comment="principal of its agent; empty: whose agent calls next",
    ),
    Column(
        "quick_failures",
        Words,
        nullable=False,
        server_default="[]",
        comment="JSON: attempts that failed there within seconds, in a row",
    ),
    Column(
        "given_labels",
        Words,
        nullable=False,
        server_default="[]",
        comment="JSON: an operator's, which override the agent's",
    ),
)

user = Table(
    "user_account",
    metadata,
    Column("name", Name(100), primary_key=True),
    Column("role", Name(16), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Name(255), nullable=False),
    Column("barred_us", BigInteger),
)

token = Table(
    "token",
    metadata,
    Column("sha256", Name(64), primary_key=True, comment="of its secret, which nobody keeps"),
    Column("user_name", Name(100), nullable=False),
    Column("label", Name(200), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Name(255), nullable=False),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
    ForeignKeyConstraint(["user_name"], ["user_account.name"]),
)

join_token = Table(
    "join_token",
    metadata,
    Column("sha256", Name(64), primary_key=True, comment="of its secret, which nobody keeps"),
    Column("node_uuid", Name(36), nullable=False, comment="empty: a new node"),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Name(255), nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("used_by", Name(36), nullable=False, comment="UUID of a node"),
    Column("key_sha256", Name(64), nullable=False, comment="of the public key that joined"),
    Column("generation", BigInteger, nullable=False, comment="of the certificates it gave"),
    Column("revoked_us", BigInteger),
)

admission = Table(
    "admission",
    metadata,
    Column("node_uuid", Name(36), primary_key=True),
    Column("generation", BigInteger, nullable=False, comment="certificates of lower ones are void"),
    Column("admitted_us", BigInteger, nullable=False),
    Column("admitted_by", Name(255), nullable=False, comment="name of the join token"),
)

account = Table(
    "account",
    metadata,
    Column("name", Name(63), primary_key=True),
    Column("parent", Name(63), nullable=False, comment="empty: at the top"),
    Column("description", Words, nullable=False),
    Column("shares", Integer, nullable=False),
    Column("limits", Words, nullable=False, comment="JSON"),
    Column("qos", Integer, nullable=False),
    Column("open", Integer, nullable=False, comment="1: everybody may submit to it"),
    Column("members_may", Name(16), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Name(255), nullable=False),
    Column("revision", BigInteger, nullable=False, comment="event that changed it last"),
)

account_member = Table(
    "account_member",
    metadata,
    Column("account", Name(63), primary_key=True),
    Column("user_name", Name(255), primary_key=True),
    Column("shares", Integer, nullable=False),
    Column("limits", Words, nullable=False, comment="JSON"),
    Column("coordinator", Integer, nullable=False),
    Column("is_default", Integer, nullable=False, comment="1: pays for jobs that name none"),
    Column("revision", BigInteger, nullable=False, comment="event that changed it last"),
    ForeignKeyConstraint(["account"], ["account.name"]),
)

# What users have used in accounts' names, so that no start needs to read all that ever was. Members
# or not: whoever left has used it.
account_usage = Table(
    "account_usage",
    metadata,
    Column("account", Name(63), primary_key=True),
    Column("user_name", Name(255), primary_key=True),
    Column("usage_us", BigInteger, nullable=False, comment="weighted GPU time, decayed"),
    Column("as_of_us", BigInteger, nullable=False, comment="when it was that much"),
    Column("days", Words, nullable=False, comment="JSON: day since 1970, GPU time on it"),
)

priority_class = Table(
    "priority_class",
    metadata,
    Column("name", Name(63), primary_key=True),
    Column("value", BigInteger, nullable=False, comment="the higher goes first"),
    Column("global_default", Integer, nullable=False, comment="1: of jobs that name none"),
    Column("preemption", Name(16), nullable=False, comment="whether its jobs end others"),
    Column("description", Words, nullable=False),
)

queue = Table(
    "queue",
    metadata,
    Column("name", Name(63), primary_key=True),
    Column("selector", Words, nullable=False, comment="its nodes; empty: all"),
    Column("default_limit_us", BigInteger),
    Column("max_limit_us", BigInteger),
    Column("max_workers", Integer),
    Column("max_gpus", Integer),
    Column("accounts", Words, nullable=False, comment="JSON list"),
    Column("users", Words, nullable=False, comment="JSON list"),
    Column("priority", BigInteger, nullable=False),
    Column("closed", Words, nullable=False, comment="why nothing starts; empty: it may"),
    Column("description", Words, nullable=False),
)

reservation = Table(
    "reservation",
    metadata,
    Column("name", Name(63), primary_key=True),
    Column("begin_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("node_uuids", Words, nullable=False, comment="JSON list; empty: by selector"),
    Column("selector", Words, nullable=False),
    Column("accounts", Words, nullable=False, comment="JSON list; with no users: maintenance"),
    Column("users", Words, nullable=False, comment="JSON list"),
    Column("description", Words, nullable=False),
)

device = Table(
    "device",
    metadata,
    Column("node_uuid", Name(36), primary_key=True),
    Column("device_id", Name(64), primary_key=True),
    Column("kind", Name(16), nullable=False),
    Column("model", Name(128), nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("device_index", Integer, nullable=False),
    Column("pci_bus_id", Name(32), nullable=False),
    Column("numa_node", Integer),
    Column("nvlinks", Integer, nullable=False),
    Column("fault", Words, nullable=False),
    ForeignKeyConstraint(["node_uuid"], ["node.uuid"]),
)

event = Table(
    "event",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("time_us", BigInteger, nullable=False),
    Column("kind", Name(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("principal", Name(255), nullable=False),
    Column("peer", Name(255), nullable=False),
    Column("resource", Name(255), nullable=False),
    Column("changed", Words, nullable=False, comment="JSON"),
    Index("ix_event_resource_seq", "resource", "seq"),
)

request = Table(
    "request",
    metadata,
    Column("principal", Name(255), primary_key=True),
    Column("request_id", Name(128), primary_key=True),
    Column("content_hash", Name(64), nullable=False),
    Column("answer", Words, nullable=False, comment="canonical JSON"),
    Column("created_us", BigInteger, nullable=False),
    Index("ix_request_created_us", "created_us"),
)
