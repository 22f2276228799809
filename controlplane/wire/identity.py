"""Users and tokens on the wire. Hashes stay at home."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.v1 import identity_service_pb2 as pb
from controlplane.wire.basics import timestamp

if TYPE_CHECKING:
    from controlplane.model.identity import JoinToken, Token, User


def user_message(user: User) -> pb.User:
    """A user."""
    return pb.User(
        name=f"users/{user.name}",
        role=user.role.value,
        create_time=timestamp(user.created_us),
        created_by=user.created_by,
        barred_time=timestamp(user.barred_us),
    )


def token_message(token: Token) -> pb.Token:
    """A token."""
    return pb.Token(
        name=f"tokens/{token.token_id}",
        user=f"users/{token.user}",
        label=token.label,
        create_time=timestamp(token.created_us),
        created_by=token.created_by,
        expire_time=timestamp(token.expires_us),
        revoke_time=timestamp(token.revoked_us),
    )


def join_token_message(token: JoinToken) -> pb.JoinToken:
    """A join token."""
    return pb.JoinToken(
        name=f"joinTokens/{token.token_id}",
        node=f"nodes/{token.node_uuid}" if token.node_uuid else "",
        create_time=timestamp(token.created_us),
        created_by=token.created_by,
        expire_time=timestamp(token.expires_us),
        used_by=f"nodes/{token.used_by}" if token.used_by else "",
        revoke_time=timestamp(token.revoked_us),
    )
