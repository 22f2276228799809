"""Users and tokens as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.cli import text
from controlplane.cli.jobtables import cell, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.console import Console

    from controlplane.v1 import identity_service_pb2 as pb


def draw_users(console: Console, users: Iterable[pb.User]) -> None:
    """One line for each."""
    made = table("NAME", "ROLE", "STATE", "MADE", "BY")
    for user in users:
        barred = user.HasField("barred_time")
        made.add_row(
            cell(user.name.removeprefix("users/")),
            cell(user.role),
            cell(f"barred since {_moment(user.barred_time)}" if barred else "may speak"),
            cell(_moment(user.create_time)),
            cell(user.created_by),
        )
    console.print(made)


def draw_tokens(console: Console, tokens: Iterable[pb.Token], now_us: int) -> None:
    """One line for each."""
    made = table("ID", "USER", "LABEL", "STATE", "MADE", "BY")
    for token in tokens:
        made.add_row(
            cell(token.name.removeprefix("tokens/")),
            cell(token.user.removeprefix("users/")),
            cell(token.label),
            cell(_state(token, now_us)),
            cell(_moment(token.create_time)),
            cell(token.created_by),
        )
    console.print(made)


def draw_join_tokens(console: Console, tokens: Iterable[pb.JoinToken], now_us: int) -> None:
    """One line for each."""
    made = table("ID", "FOR", "STATE", "USED BY", "MADE", "BY")
    for token in tokens:
        made.add_row(
            cell(token.name.removeprefix("joinTokens/")),
            cell(token.node or "a new node"),
            cell(_state(token, now_us)),
            cell(token.used_by),
            cell(_moment(token.create_time)),
            cell(token.created_by),
        )
    console.print(made)


def _state(token: pb.Token | pb.JoinToken, now_us: int) -> str:
    if token.HasField("revoke_time"):
        return f"revoked {_moment(token.revoke_time)}"
    if not token.HasField("expire_time"):
        return "until it is revoked"
    ends = text.micros(token.expire_time)
    return f"{'ended' if ends <= now_us else 'until'} {text.local_time(ends)}"


def _moment(moment: Timestamp) -> str:
    return text.local_time(text.micros(moment))
