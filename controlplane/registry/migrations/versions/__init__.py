"""Alembic migrations of the registry's schema, oldest first. Their sum is what `registry.tables`
declares."""
