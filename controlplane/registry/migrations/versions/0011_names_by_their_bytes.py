"""PostgreSQL compares names by their bytes, as SQLite does, and takes them at any length.

By the rules of a language "jobs/1" may come behind "jobs/10", and an upgrade of the server's system
may change the order under an index.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    known = sa.inspect(connection)
    for table in sorted(set(known.get_table_names()) - {"alembic_version"}):
        names = [
            column["name"]
            for column in known.get_columns(table)
            if isinstance(column["type"], sa.VARCHAR)
        ]
        changes = ", ".join(f'ALTER COLUMN "{name}" TYPE varchar COLLATE "C"' for name in names)
        if changes:
            op.execute(f'ALTER TABLE "{table}" {changes}')
