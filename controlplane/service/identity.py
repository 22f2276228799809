"""IdentityService: users, tokens, and hosts that join."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from controlplane.model.errors import (
    AlreadyExists,
    FieldFault,
    InvalidRequest,
    NotFound,
    WrongState,
)
from controlplane.model.event import CONTROL_PLANE
from controlplane.model.identity import PEOPLE, SHA256_HEX, USER_NAME, Role
from controlplane.registry import identity as commands
from controlplane.registry.nodes import LONGEST_TOLD, find
from controlplane.service.asked import page_size
from controlplane.service.auth import CALLER
from controlplane.service.context import once_for
from controlplane.service.errors import answers
from controlplane.service.issuing import fingerprint
from controlplane.service.permissions import RPC, may, refusal
from controlplane.v1 import identity_service_pb2 as pb
from controlplane.v1.identity_service_pb2_grpc import IdentityServiceServicer
from controlplane.wire.basics import MICRO, from_duration
from controlplane.wire.identity import join_token_message, token_message, user_message

if TYPE_CHECKING:
    from controlplane.model.identity import JoinToken, Token
    from controlplane.registry.draft import Draft
    from controlplane.service.context import House

T = TypeVar("T")

LONGEST_LABEL = 200
"""Characters of a token's label."""
SHORTEST_S, LONGEST_S = 60, 366 * 86_400
"""How long a user's token may last."""
LONGEST_JOIN_S = 30 * 86_400
"""How long a join token may last at most."""


class IdentityService(IdentityServiceServicer):
    """Keeps who may speak."""

    def __init__(self, house: House) -> None:
        """`house`: the rooms to speak to."""
        self._house = house

    # --- users ---------------------------------------------------------------------------------

    @answers
    async def CreateUser(self, request: pb.CreateUserRequest, context: Any) -> pb.User:
        """Make a user."""
        name, role = request.user_id, _role(request.role)
        if not USER_NAME.fullmatch(name) or name == CONTROL_PLANE.principal:
            raise _fault(
                "user_id",
                f"{name[:LONGEST_TOLD]!r}: must be 1 to 100 of A-Z, a-z, 0-9 and . _ @ -,"
                f" and not {CONTROL_PLANE.principal!r}",
            )
        if self._house.door.knows(name):
            raise AlreadyExists(
                f"users/{name}: has a token of the control plane's own host, and would be taken for"
                " its holder; choose another name, or take it out of tokens.json"
            )
        await self._change(lambda draft: commands.create_user(draft, name, role), request, context)
        return self._shown(name)

    @answers
    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        """List users by name."""
        page, token = _page(self._house.registry.users(), request, lambda user: user.name)
        return pb.ListUsersResponse(users=map(user_message, page), next_page_token=token)

    @answers
    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Any) -> pb.User:
        """Change a user."""
        name = _named(request.name, "users")
        role = _role(request.role) if request.role else None
        barred = request.barred if request.HasField("barred") else None
        await self._change(
            lambda draft: commands.update_user(draft, name, role, barred), request, context
        )
        return self._shown(name)

    def _shown(self, name: str) -> pb.User:
        user = self._house.registry.user(name)
        if user is None:
            raise NotFound(f"users/{name[:LONGEST_TOLD]}: there is no such user")
        return user_message(user)

    # --- tokens --------------------------------------------------------------------------------

    @answers
    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.Token:
        """Make a token."""
        user = _named(request.user, "users") if request.user else CALLER.get().name
        self._asked(user)
        _hash(request.sha256)
        if len(request.label) > LONGEST_LABEL:
            raise _fault("label", f"has {len(request.label)} characters; at most {LONGEST_LABEL}")
        lifetime = _lifetime(request, LONGEST_S) if request.HasField("lifetime") else None
        made = await self._house.write(
            lambda draft: commands.create_token(
                draft, user, request.sha256, request.label, lifetime
            ),
            self._house.actor(context),
        )
        return token_message(made)

    @answers
    async def ListTokens(
        self, request: pb.ListTokensRequest, context: Any
    ) -> pb.ListTokensResponse:
        """List tokens, newest first."""
        wanted = _named(request.user, "users") if request.user else ""
        if wanted:
            self._asked(wanted)
        tokens = [
            token
            for token in self._house.registry.tokens()
            if self._sees(token.user) and wanted in ("", token.user)
        ]
        page, token = _page(tokens, request, _place)
        return pb.ListTokensResponse(tokens=map(token_message, page), next_page_token=token)

    @answers
    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> pb.Token:
        """Make a token void."""
        known = _found(self._house.registry.tokens(), request.name, "tokens")
        self._asked(known.user, request.name)
        made = await self._house.write(
            lambda draft: commands.revoke_token(draft, known), self._house.actor(context)
        )
        return token_message(made)

    # --- joining -------------------------------------------------------------------------------

    @answers
    async def CreateJoinToken(
        self, request: pb.CreateJoinTokenRequest, context: Any
    ) -> pb.JoinToken:
        """Make a token for a host."""
        self._issuer()
        _hash(request.sha256)
        lifetime = _lifetime(request, LONGEST_JOIN_S)
        node_uuid = self._known_node(request.node) if request.node else ""
        made = await self._house.write(
            lambda draft: commands.create_join_token(draft, request.sha256, lifetime, node_uuid),
            self._house.actor(context),
        )
        return join_token_message(made)

    @answers
    async def ListJoinTokens(
        self, request: pb.ListJoinTokensRequest, context: Any
    ) -> pb.ListJoinTokensResponse:
        """List join tokens, newest first."""
        page, token = _page(self._house.registry.join_tokens(), request, _place)
        return pb.ListJoinTokensResponse(
            join_tokens=map(join_token_message, page), next_page_token=token
        )

    @answers
    async def RevokeJoinToken(
        self, request: pb.RevokeJoinTokenRequest, context: Any
    ) -> pb.JoinToken:
        """Make a join token void."""
        known = _found(self._house.registry.join_tokens(), request.name, "joinTokens")
        made = await self._house.write(
            lambda draft: commands.revoke_join_token(draft, known), self._house.actor(context)
        )
        return join_token_message(made)

    @answers
    async def JoinNode(self, request: pb.JoinNodeRequest, context: Any) -> pb.JoinNodeResponse:
        """Let a host be a node."""
        issuer = self._issuer()
        check_uuid(request.node_uuid)
        key = fingerprint(request.certificate_request)
        secret = CALLER.get().credential
        generation = await self._house.write(
            lambda draft: commands.join(draft, secret, request.node_uuid, key),
            self._house.actor(context),
        )
        return pb.JoinNodeResponse(
            certificate=issuer.issue(request.certificate_request, request.node_uuid, generation),
            authority=issuer.certificate,
            agent_server=issuer.agent_server,
        )

    def _known_node(self, name: str) -> str:
        """The UUID of a node that has joined, though it may never have been heard."""
        wanted = name.removeprefix("nodes/")
        if self._house.registry.admission(wanted) is not None:
            return wanted
        return find((node for node, _ in self._house.registry.nodes()), name).uuid

    def _issuer(self) -> Any:
        issuer = self._house.issuer
        if issuer is None:
            raise WrongState(
                "this control plane has no certificate authority; `controlplane init` makes one"
            )
        return issuer

    # --- all -----------------------------------------------------------------------------------

    def _sees(self, user: str) -> bool:
        return may(CALLER.get(), RPC.get(), user)

    def _asked(self, user: str, resource: str = "") -> None:
        """NotAllowed unless the caller may do that for this user."""
        if not self._sees(user):
            raise refusal(CALLER.get(), RPC.get(), resource or f"users/{user}")

    async def _change(self, command: Callable[[Draft], Any], request: Any, context: Any) -> None:
        actor = self._house.actor(context)

        def answered(draft: Draft) -> dict[str, object]:
            command(draft)
            return {}

        await self._house.write(answered, actor, once_for(actor.principal, request))


def check_uuid(text: str) -> None:
    """InvalidRequest when it is no UUID in its canonical form."""
    try:
        if str(uuid.UUID(text)) != text:
            raise ValueError
    except ValueError:
        words = f"{text[:80]!r} is no UUID in its canonical form"
        raise _fault("node_uuid", words) from None


def _fault(field: str, words: str) -> InvalidRequest:
    return InvalidRequest(FieldFault(field=field, description=words))


def _role(text: str) -> Role:
    roles = [role.value for role in PEOPLE]
    if text not in roles:
        raise _fault("role", f"{text[:40]!r}: must be one of {', '.join(roles)}")
    return Role(text)


def _named(name: str, collection: str) -> str:
    found = name.removeprefix(f"{collection}/")
    if not found or "/" in found:
        raise _fault("name", f"{name[:LONGEST_TOLD]!r}: must be {collection}/<name>")
    return found


def _hash(text: str) -> None:
    if not SHA256_HEX.fullmatch(text):
        raise _fault("sha256", "must be 64 hex digits, lower case: the hash of the secret")


def _lifetime(request: Any, longest_s: int) -> int:
    lifetime_us = from_duration(request.lifetime)
    if not SHORTEST_S * MICRO <= lifetime_us <= longest_s * MICRO:
        words = f"{lifetime_us / MICRO:g} s: must be {SHORTEST_S} s to {longest_s // 86_400} days"
        raise _fault("lifetime", words)
    return lifetime_us


Kept = TypeVar("Kept", "Token", "JoinToken")


def _found(tokens: Sequence[Kept], name: str, collection: str) -> Kept:
    wanted = _named(name, collection)
    for token in tokens:
        if token.token_id == wanted:
            return token
    raise NotFound(f"{collection}/{wanted[:LONGEST_TOLD]}: there is no such token")


def _place(token: Token | JoinToken) -> str:
    """Where a token stands in a list, newest first."""
    return f"{(1 << 62) - token.created_us:020}{token.token_id}"


def _page(items: Sequence[T], request: Any, place: Callable[[T], str]) -> tuple[list[T], str]:
    """A page of what is ordered by `place`, and the token of the next one."""
    limit = page_size(request.page_size)
    left = [item for item in items if place(item) > request.page_token]
    page = left[:limit]
    return page, place(page[-1]) if len(left) > limit else ""
