"""Accounts, their members and the fair-share tree as tables; and what happened to them, in
sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from controlplane.cli import text
from controlplane.cli.jobtables import cell, table
from controlplane.cli.render import enum_word
from controlplane.v1 import account_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

_HOUR_US = 3_600_000_000
MAY: Final = {
    "own": "see and stop their own jobs alone",
    "see": "see each other's jobs",
    "read": "see each other's jobs, and read their output",
    "stop": "see and stop each other's jobs, and read their output",
}


def draw_accounts(console: Console, accounts: Sequence[account_pb2.Account]) -> None:
    """One line for each, indented as they are below one another."""
    made = table("ACCOUNT", "SHARES", "OPEN", "RUNNING", "WAITING", "GPUS", "GPU-HOURS")
    depths: dict[str, int] = {}
    for one in accounts:
        depths[one.name] = depth = depths.get(one.parent, -1) + 1
        made.add_row(
            cell("  " * depth + one.name.removeprefix("accounts/")),
            cell(one.shares),
            cell("yes" if one.open else "no"),
            *_use(one.quota, one.use),
        )
    console.print(made)


def draw_members(console: Console, members: Iterable[account_pb2.Member]) -> None:
    """One line for each."""
    made = table("USER", "SHARES", "ROLE", "DEFAULT", "RUNNING", "WAITING", "GPUS", "GPU-HOURS")
    for one in members:
        made.add_row(
            cell(one.user.removeprefix("users/")),
            cell(one.shares),
            cell("coordinator" if one.coordinator else "member"),
            cell("yes" if one.default_account else "no"),
            *_use(one.quota, one.use),
        )
    console.print(made)


def _use(quota: account_pb2.Limits, use: account_pb2.AccountUse) -> list[Any]:
    hours = f"{quota.gpu_hours} in {quota.window_days} d" if quota.HasField("gpu_hours") else ""
    return [
        cell(_of(use.running, quota, "running")),
        cell(_of(use.queued, quota, "queued")),
        cell(_of(use.gpus, quota, "gpus")),
        cell(hours),
    ]


def _of(now: int, quota: account_pb2.Limits, field: str) -> str:
    """What there is, and how much there may be."""
    return f"{now} of {getattr(quota, field)}" if quota.HasField(field) else str(now)  # type: ignore[arg-type]


def draw_account(console: Console, one: account_pb2.Account) -> None:
    """All about one."""
    from rich.table import Table

    console.print(cell(one.name), style="bold")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    word = enum_word(account_pb2.MembersMay.DESCRIPTOR, one.members_may)
    borrowed = {0: "none", -1: "all that siblings leave idle"}
    quota = one.quota
    told = [
        ("Parent", one.parent.removeprefix("accounts/") or "none"),
        ("Description", one.description),
        ("Shares", str(one.shares)),
        ("Quality of service", str(one.qos) if one.qos else ""),
        ("Who may submit", "everybody" if one.open else "its members"),
        ("Members may", MAY.get(word, word)),
        ("Tasks that run", _of(one.use.running, quota, "running")),
        ("Tasks that wait", _of(one.use.queued, quota, "queued")),
        ("GPUs", _of(one.use.gpus, quota, "gpus")),
    ]
    if quota.HasField("gpus"):
        told.append(("GPUs to borrow", borrowed.get(quota.borrow_gpus, str(quota.borrow_gpus))))
    if quota.HasField("gpu_hours"):
        told.append(("GPU-hours", f"{quota.gpu_hours} within {quota.window_days} days"))
    if one.HasField("create_time"):
        made = text.local_time(text.micros(one.create_time))
        told.append(("Made", f"{made} by {one.created_by}"))
    for name, value in told:
        if value:
            facts.add_row(name, cell(value))
    console.print(facts)


def draw_shares(console: Console, rows: Iterable[account_pb2.Share]) -> None:
    """The tree, as `sshare` of Slurm shows it."""
    made = table(
        *("ACCOUNT", "USER", "SHARES", "NORM SHARES", "USAGE GPU-H", "EFFECTV USAGE"),
        *("LEVEL FS", "FACTOR"),
    )
    for row in rows:
        depth = row.depth - 1 if row.user else row.depth
        level = "inf" if not row.HasField("level") else _parts(row.level)
        made.add_row(
            cell("  " * depth + row.account.removeprefix("accounts/")),
            cell(row.user.removeprefix("users/")),
            cell(row.shares),
            cell(_parts(row.norm_shares)),
            cell(f"{row.usage_us / _HOUR_US:.1f}"),
            cell(_parts(row.effective_usage)),
            cell(level),
            cell(_parts(row.factor) if row.HasField("factor") else ""),
        )
    console.print(made)


def _parts(millionths: int) -> str:
    return f"{millionths / 1_000_000:.6f}"
