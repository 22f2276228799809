"""What ended attempts used, in SQL: rows in, sums out.

Sums are exact. Databases add in 64 bits, which the product of millicores and microseconds would
leave after some hundred core-years: it is added as whole seconds and what is left of them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from controlplane.model.job import AttemptState
from controlplane.model.usage import NOT_FAILED, Usage, UsageGroup, UsageSum
from controlplane.registry import tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from controlplane.model.usage import Key, UsageFilter
    from controlplane.registry import rows

SECOND_US = 1_000_000
_KEPT = tuple(one.name for one in fields(Usage) if one.name != "devices")
_KEY = ("job_id", "task_index", "attempt")
_u, _d = tables.usage.c, tables.usage_device.c
_SAME = sa.and_(*(_d[name] == _u[name] for name in _KEY))


def insert(connection: sa.Connection, usages: Sequence[Usage]) -> None:
    """Write down what attempts that have ended used."""
    if not usages:
        return
    connection.execute(tables.usage.insert(), [_row(usage) for usage in usages])
    devices = [
        {**{name: getattr(usage, name) for name in _KEY}, "model": model, "devices": count}
        for usage in usages
        for model, count in usage.devices
    ]
    if devices:
        connection.execute(tables.usage_device.insert(), devices)


def _row(usage: Usage) -> rows.Row:
    return {name: getattr(usage, name) for name in _KEPT} | {"state": usage.state.value}


def of_jobs(connection: sa.Connection, job_ids: Sequence[int]) -> Iterator[Usage]:
    """What the attempts of some jobs used."""
    devices: dict[tuple[int, ...], list[tuple[str, int]]] = defaultdict(list)
    query = sa.select(tables.usage_device).where(_d.job_id.in_(job_ids))
    for row in connection.execute(query).mappings():
        devices[tuple(row[name] for name in _KEY)].append((row["model"], row["devices"]))
    query = sa.select(tables.usage).where(_u.job_id.in_(job_ids))
    for row in connection.execute(query).mappings():
        kept = {name: row[name] for name in _KEPT} | {"state": AttemptState(row["state"])}
        of = tuple(row[name] for name in _KEY)
        yield Usage(**kept, devices=tuple(sorted(devices[of])))


def sums(
    connection: sa.Connection,
    which: UsageFilter,
    by: UsageGroup | None,
    *,
    seq: int,
    after: Key | None,
    limit: int,
) -> dict[Key, UsageSum]:
    """As `Store.usage_sums`."""
    key = _key(by)
    cut = _cut_us(which)
    query = sa.select(
        key.label("key"),
        sa.func.sum(_u.cpu_millicores * (cut // SECOND_US)),
        sa.func.sum(_u.cpu_millicores * (cut % SECOND_US)),
        sa.func.count(sa.distinct(_u.job_id)),
        sa.func.count(),
        sa.func.sum(sa.case((_u.state.in_([s.value for s in NOT_FAILED]), 0), else_=1)),
        sa.func.max(_u.peak_memory_bytes),
    ).where(_takes(which), _u.seq <= seq)
    query = query.select_from(_joined(by))
    if by is not None:
        query = query.group_by(key).order_by(key).limit(limit)
    if after is not None:
        query = query.where(key > after)
    found = {
        of: UsageSum(
            core_ns=int(seconds) * SECOND_US + int(rest),
            jobs=jobs,
            attempts=attempts,
            failed_attempts=int(failed),
            peak_memory_bytes=peak,
        )
        for of, seconds, rest, jobs, attempts, failed, peak in connection.execute(query)
        if attempts
    }
    times = _device_us(connection, which, by, seq=seq, keys=list(found))
    return {of: replace(one, device_us=times[of]) for of, one in found.items()}


def _device_us(
    connection: sa.Connection,
    which: UsageFilter,
    by: UsageGroup | None,
    *,
    seq: int,
    keys: Sequence[Key],
) -> dict[Key, dict[str, int]]:
    times: dict[Key, dict[str, int]] = defaultdict(dict)
    if not keys:
        return times
    key = _key(by)
    query = (
        sa.select(key, _d.model, sa.func.sum(_d.devices * _cut_us(which)))
        .select_from(tables.usage.join(tables.usage_device, _SAME))
        .where(_takes(which), _u.seq <= seq)
    )
    if by is None:
        query = query.group_by(_d.model)
    else:
        # The keys of a page follow one another without a gap.
        query = query.where(key >= keys[0], key <= keys[-1]).group_by(key, _d.model)
    for of, model, time_us in connection.execute(query):
        times[of][model] = int(time_us)
    return times


def met(
    connection: sa.Connection,
    which: UsageFilter,
    by: UsageGroup | None,
    *,
    seq: int,
    job_ids: Collection[int],
) -> frozenset[tuple[Key, int]]:
    """As `Store.usage_met`."""
    # Written into the statement: the number of a statement's parameters has a limit.
    wanted: sa.BindParameter[list[int]] = sa.bindparam(
        "job_ids", list(job_ids), expanding=True, literal_execute=True
    )
    query = (
        sa.select(_key(by), _u.job_id)
        .distinct()
        .select_from(_joined(by))
        .where(_takes(which), _u.seq <= seq, _u.job_id.in_(wanted))
    )
    return frozenset((key, job_id) for key, job_id in connection.execute(query))


def _joined(by: UsageGroup | None) -> sa.FromClause:
    if by is not UsageGroup.MODEL:
        return tables.usage
    return tables.usage.outerjoin(tables.usage_device, _SAME)


def _key(by: UsageGroup | None) -> sa.ColumnElement[Any]:
    """In the order of bytes, as names are: the order of pages is the one that we merge by."""
    if by is None:
        return sa.literal_column("''", sa.String)
    if by is UsageGroup.JOB:
        return _u.job_id
    if by is UsageGroup.MODEL:
        return sa.func.coalesce(_d.model, sa.literal_column("''", sa.String))
    return {UsageGroup.USER: _u.owner, UsageGroup.ACCOUNT: _u.account}[by]


def _takes(which: UsageFilter) -> sa.ColumnElement[bool]:
    """As `UsageFilter.takes`."""
    wanted = [
        _u.from_us < which.to_us,
        sa.or_(_u.until_us > which.from_us, _u.from_us >= which.from_us),
        # Says no more than the line above, but an index can say it.
        _u.until_us >= which.from_us,
    ]
    if which.owner:
        wanted.append(_u.owner == which.owner)
    if which.account:
        wanted.append(_u.account == which.account)
    return sa.and_(*wanted)


def _cut_us(which: UsageFilter) -> sa.ColumnElement[int]:
    """As `UsageFilter.cut_us`, for rows that the filter takes."""
    to_us, from_us = (sa.literal(us, sa.BigInteger) for us in (which.to_us, which.from_us))
    end = sa.case((_u.until_us < to_us, _u.until_us), else_=to_us)
    begin = sa.case((_u.from_us > from_us, _u.from_us), else_=from_us)
    return end - begin
