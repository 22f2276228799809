"""Many rows in few statements. For each row SQLAlchemy looks at every value, which costs more than
SQLite takes to write it; and for each statement its driver lets go of the interpreter's lock and
has to wait for it again, so that beside a busy thread rows in statements of their own come slowly.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

    from controlplane.registry.rows import Row

MOST_ROWS = 512
"""Rows in one statement at most; a power of 8. SQLite takes 32,766 values, and the widest row has
27. Where any number had a statement of its own, hardly one would be met again."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement as SQLite takes it."""

    head: str
    """What comes before the values of a row."""
    row: str
    """The values of one row; empty for a statement that is none of an insert."""
    tail: str
    """What comes behind."""
    values: itemgetter[Any]
    """Takes the values out of a row, in their order."""

    def of(self, rows: int) -> str:
        """The text for so many rows."""
        return self.head + ", ".join([self.row] * rows) + self.tail


class Bulk:
    """Runs statements of one database, each compiled once."""

    def __init__(self, engine: sa.Engine) -> None:
        """`engine`: of the database."""
        self._dialect = engine.dialect
        self._known: dict[Any, _Compiled] = {}
        self._texts: dict[tuple[Any, int], str] = {}

    def run(self, connection: sa.Connection, statement: Any, rows: Sequence[Row]) -> None:
        """Run a statement for each row; all of them have the same columns, more than one."""
        if not rows:
            return
        if self._dialect.name != "sqlite":  # where values are converted on their way
            connection.execute(statement, rows)
            return
        known = self._compiled(statement, rows[0])
        values = [known.values(row) for row in rows]
        if not known.row:
            connection.exec_driver_sql(known.head, values)
            return
        begin = 0
        while left := len(values) - begin:
            unit = 8 ** ((left.bit_length() - 1) // 3)
            size = min(left // unit * unit, MOST_ROWS)  # a digit of the number in base 8
            text = self._texts.get((statement, size))
            if text is None:
                text = self._texts[statement, size] = known.of(size)
            flat = tuple(chain.from_iterable(values[begin : begin + size]))
            connection.exec_driver_sql(text, flat)
            begin += size

    def change(self, connection: sa.Connection, statement: Any, row: Row) -> int:
        """Run a statement that changes what is there; how many rows it has changed."""
        if self._dialect.name != "sqlite":
            return connection.execute(statement, row).rowcount
        known = self._compiled(statement, row)
        return connection.exec_driver_sql(known.head, known.values(row)).rowcount

    def _compiled(self, statement: Any, row: Row) -> _Compiled:
        known = self._known.get(statement)
        if known is None:
            compiled = statement.compile(dialect=self._dialect, column_keys=list(row))
            names = compiled.positiontup
            one = f"({', '.join('?' * len(names))})"
            head, found, tail = str(compiled).partition(one)
            known = _Compiled(head, found, tail, itemgetter(*names))
            self._known[statement] = known
        return known
