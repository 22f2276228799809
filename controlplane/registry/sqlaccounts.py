"""Accounts in SQL: loaded, and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from controlplane.registry import rows, tables

if TYPE_CHECKING:
    from controlplane.registry.draft import Draft
    from controlplane.registry.facts import Facts

_m, _u = tables.account_member.c, tables.account_usage.c


def load(connection: sa.Connection, facts: Facts) -> None:
    """Put accounts, members and what was used in their names into the facts."""
    for row in connection.execute(sa.select(tables.account)).mappings():
        facts.accounts[row["name"]] = rows.account_value(row)
    for row in connection.execute(sa.select(tables.account_member)).mappings():
        member = rows.member_value(row)
        facts.members[member.key] = member
    for row in connection.execute(sa.select(tables.account_usage)).mappings():
        spending = rows.spending_value(row)
        facts.spendings[spending.key] = spending


def remove(connection: sa.Connection, draft: Draft) -> None:
    """Remove what a draft removes, members before their accounts."""
    for table, columns, changed in (
        (tables.account_member, _m, draft.members.changed),
        (tables.account_usage, _u, draft.spendings.changed),
    ):
        for (account, user), value in changed.items():
            if value is None:
                here = sa.and_(columns.account == account, columns.user_name == user)
                connection.execute(table.delete().where(here))
    for name, gone in draft.accounts.changed.items():
        if gone is None:
            connection.execute(tables.account.delete().where(tables.account.c.name == name))
