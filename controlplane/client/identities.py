"""Users, tokens and hosts that join: the part of the client for admins and for one's own tokens."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from controlplane.kit.credential import hash_of, new_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from controlplane.v1 import identity_service_pb2 as pb


class Identities:
    """Asks for everything that IdentityService does. Methods raise as those of `Client`.

    Secrets are made here, and only their hashes are sent.
    """

    def __init__(self, stub: Any, call: Callable[[Any, Any], Any]) -> None:
        """`call`: makes one unary call of a stub's method."""
        self._stub, self._call = stub, call

    def create_user(self, name: str, role: str, *, request_id: str | None = None) -> pb.User:
        """Make a user."""
        from controlplane.v1 import identity_service_pb2 as pb

        request = pb.CreateUserRequest(
            user_id=name, role=role, request_id=request_id or uuid.uuid4().hex
        )
        return self._call(self._stub.CreateUser, request)  # type: ignore[no-any-return]

    def users(self) -> Iterator[pb.User]:
        """All users that one may see."""
        from controlplane.v1 import identity_service_pb2 as pb

        yield from self._pages(self._stub.ListUsers, pb.ListUsersRequest(), "users")

    def update_user(
        self,
        name: str,
        *,
        role: str = "",
        barred: bool | None = None,
        request_id: str | None = None,
    ) -> pb.User:
        """Change a user's role, bar it or let it in again."""
        from controlplane.v1 import identity_service_pb2 as pb

        request = pb.UpdateUserRequest(
            name=f"users/{name}",
            role=role,
            barred=barred,
            request_id=request_id or uuid.uuid4().hex,
        )
        return self._call(self._stub.UpdateUser, request)  # type: ignore[no-any-return]

    def create_token(
        self, user: str = "", *, label: str = "", lifetime_s: int | None = None
    ) -> tuple[pb.Token, str]:
        """Make a token, for oneself when `user` is empty; it and its secret."""
        from google.protobuf.duration_pb2 import Duration

        from controlplane.v1 import identity_service_pb2 as pb

        secret = new_secret("cc")
        request = pb.CreateTokenRequest(
            user=f"users/{user}" if user else "",
            sha256=hash_of(secret),
            label=label,
            lifetime=None if lifetime_s is None else Duration(seconds=lifetime_s),
        )
        return self._call(self._stub.CreateToken, request), secret

    def tokens(self, user: str = "") -> Iterator[pb.Token]:
        """Tokens that one may see, of one user or of all, newest first."""
        from controlplane.v1 import identity_service_pb2 as pb

        request = pb.ListTokensRequest(user=f"users/{user}" if user else "")
        yield from self._pages(self._stub.ListTokens, request, "tokens")

    def revoke_token(self, name: str) -> pb.Token:
        """Make a token void: `tokens/<id>`."""
        from controlplane.v1 import identity_service_pb2 as pb

        request = pb.RevokeTokenRequest(name=name)
        return self._call(self._stub.RevokeToken, request)  # type: ignore[no-any-return]

    def create_join_token(self, *, lifetime_s: int, node: str = "") -> tuple[pb.JoinToken, str]:
        """Make a token by which one host joins, as `node` if that is named; it and its secret."""
        from google.protobuf.duration_pb2 import Duration

        from controlplane.v1 import identity_service_pb2 as pb

        secret = new_secret("ccjoin")
        request = pb.CreateJoinTokenRequest(
            sha256=hash_of(secret), lifetime=Duration(seconds=lifetime_s), node=node
        )
        return self._call(self._stub.CreateJoinToken, request), secret

    def join_tokens(self) -> Iterator[pb.JoinToken]:
        """All join tokens, newest first."""
        from controlplane.v1 import identity_service_pb2 as pb

        yield from self._pages(self._stub.ListJoinTokens, pb.ListJoinTokensRequest(), "join_tokens")

    def revoke_join_token(self, name: str) -> pb.JoinToken:
        """Make a join token void: `joinTokens/<id>`."""
        from controlplane.v1 import identity_service_pb2 as pb

        request = pb.RevokeJoinTokenRequest(name=name)
        return self._call(self._stub.RevokeJoinToken, request)  # type: ignore[no-any-return]

    def _pages(self, method: Any, request: Any, field: str) -> Iterator[Any]:
        while True:
            page = self._call(method, request)
            yield from getattr(page, field)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
