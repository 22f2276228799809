"""Many rows in one statement. For each row SQLAlchemy looks at every value, which costs more than
SQLite takes to write it."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

    from controlplane.registry.rows import Row


class Bulk:
    """Runs statements of one database, each compiled once."""

    def __init__(self, engine: sa.Engine) -> None:
        """`engine`: of the database."""
        self._dialect = engine.dialect
        self._known: dict[Any, tuple[str, itemgetter[Any]]] = {}

    def run(self, connection: sa.Connection, statement: Any, rows: Sequence[Row]) -> None:
        """Run a statement for each row; all of them have the same columns, more than one."""
        if not rows:
            return
        if self._dialect.name != "sqlite":  # where values are converted on their way
            connection.execute(statement, rows)
            return
        known = self._known.get(statement)
        if known is None:
            compiled = statement.compile(dialect=self._dialect, column_keys=list(rows[0]))
            known = self._known[statement] = str(compiled), itemgetter(*compiled.positiontup)
        text, values = known
        connection.exec_driver_sql(text, [values(row) for row in rows])
