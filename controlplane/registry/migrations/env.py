"""Runs migrations over the connection that `registry.migrate` hands in."""

from __future__ import annotations

from alembic import context

from controlplane.registry.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,  # also of SQLite: an upgrade is whole or has not been
)
with context.begin_transaction():
    context.run_migrations()
