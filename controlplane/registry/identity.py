"""Commands of admins and of hosts that join: users, tokens, and who speaks for a node."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from controlplane.model.errors import AlreadyExists, NotAllowed, NotFound, WrongState
from controlplane.model.identity import Admission, JoinToken, Role, Token, User, principal_of_node
from controlplane.registry import nodes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.registry.draft import Draft


def create_user(draft: Draft, name: str, role: Role) -> User:
    """Make a user. AlreadyExists when the name is taken."""
    if draft.users.get(name) is not None:
        raise AlreadyExists(f"users/{name}: is there already; `ccctl user list` tells its role")
    made = User(name=name, role=role, created_us=draft.now_us, created_by=draft.actor.principal)
    draft.emit("user.created", f"users/{name}", {"role": role.value})
    draft.users[name] = made
    return made


def update_user(draft: Draft, name: str, role: Role | None, barred: bool | None) -> User:
    """Change a user's role, bar it or let it in again. NotFound when there is none."""
    before = user = known_user(draft, name)
    changed: dict[str, object] = {}
    if role is not None and role is not user.role:
        changed["role"] = [user.role.value, role.value]
        user = replace(user, role=role)
    if barred is not None and barred != (user.barred_us is not None):
        changed["barred"] = [not barred, barred]
        user = replace(user, barred_us=draft.now_us if barred else None)
    if user != before:
        draft.emit("user.changed", f"users/{name}", changed)
        draft.users[name] = user
    return user


def known_user(draft: Draft, name: str) -> User:
    """A user. NotFound when there is none."""
    user = draft.users.get(name)
    if user is None:
        raise NotFound(f"users/{name}: there is no such user; `ccctl user create {name}` makes one")
    return user


def create_token(
    draft: Draft, user: str, sha256: str, label: str, lifetime_us: int | None
) -> Token:
    """Make a token for a user. The same hash again changes nothing, and is refused for another."""
    known_user(draft, user)
    known = draft.tokens.get(sha256)
    if known is not None:
        if known.user != user:
            raise WrongState("sha256: this token is another user's")
        return known
    made = Token(
        sha256=sha256,
        user=user,
        label=label,
        created_us=draft.now_us,
        created_by=draft.actor.principal,
        expires_us=None if lifetime_us is None else draft.now_us + lifetime_us,
    )
    told = {"user": user, "label": label, "expires_us": made.expires_us}
    draft.emit("token.created", f"tokens/{made.token_id}", told)
    draft.tokens[sha256] = made
    return made


def revoke_token(draft: Draft, token: Token) -> Token:
    """Make a token void."""
    found = draft.tokens[token.sha256]
    if found.revoked_us is None:
        found = replace(found, revoked_us=draft.now_us)
        draft.emit("token.revoked", f"tokens/{found.token_id}", {"user": found.user})
        draft.tokens[found.sha256] = found
    return found


def create_join_token(draft: Draft, sha256: str, lifetime_us: int, node_uuid: str) -> JoinToken:
    """Make a token by which one host joins; with `node_uuid` as that node, which is known."""
    known = draft.join_tokens.get(sha256)
    if known is not None:
        return known
    made = JoinToken(
        sha256=sha256,
        node_uuid=node_uuid,
        created_us=draft.now_us,
        created_by=draft.actor.principal,
        expires_us=draft.now_us + lifetime_us,
    )
    told: dict[str, object] = {"expires_us": made.expires_us}
    if node_uuid:
        told["node"] = f"nodes/{node_uuid}"
    draft.emit("join_token.created", f"joinTokens/{made.token_id}", told)
    draft.join_tokens[sha256] = made
    return made


def revoke_join_token(draft: Draft, token: JoinToken) -> JoinToken:
    """Make a join token void."""
    found = draft.join_tokens[token.sha256]
    if found.revoked_us is None:
        found = replace(found, revoked_us=draft.now_us)
        draft.emit("join_token.revoked", f"joinTokens/{found.token_id}", {})
        draft.join_tokens[found.sha256] = found
    return found


def join(draft: Draft, sha256: str, node_uuid: str, key_sha256: str) -> int:
    """Let a host have a certificate for a node, and spend the token on it; the generation of that
    certificate. A join of a node that is known makes its older certificates void.

    NotAllowed when the token is void or spent on another key, or when the node is another's.
    """
    token = draft.join_tokens.get(sha256)
    why = "is not known here" if token is None else token.why_void(draft.now_us)
    if token is None or why:
        raise NotAllowed(f"the join token {why}; ask an admin for another one")
    admission = draft.admissions.get(node_uuid)
    if (token.used_by, token.key_sha256) == (node_uuid, key_sha256):
        if admission is None or admission.generation != token.generation:
            raise NotAllowed(
                "the join token was spent, and what it gave was revoked since; ask an admin for"
                " another one"
            )
        return token.generation
    if token.used_by:
        raise NotAllowed(
            f"the join token was spent by nodes/{token.used_by}; each lets one host in,"
            " so ask an admin for another one"
        )
    if token.node_uuid not in ("", node_uuid):
        raise NotAllowed(
            f"the join token is for nodes/{token.node_uuid}, and this host is {node_uuid}"
            " by its node.json"
        )
    principal = principal_of_node(node_uuid)
    node = draft.nodes.get(node_uuid)
    taken = admission is not None or (node is not None and node.enrolled_by)
    if taken and not token.node_uuid:
        raise NotAllowed(
            f"{principal} has joined already; if this is that host, an admin makes a token for it"
            f" with `ccctl node token create --node {node_uuid}`; if it is a copy of it, remove"
            " node.json here",
            principal,
        )
    generation = admission.generation + 1 if admission is not None else 1
    told: dict[str, object] = {
        "join_token": token.token_id,
        "generation": [admission.generation if admission is not None else None, generation],
    }
    if node is not None and node.enrolled_by != principal:
        told["enrolled_by"] = [node.enrolled_by, principal]
    draft.emit("node.admitted", principal, told)
    draft.join_tokens[sha256] = replace(
        token, used_by=node_uuid, key_sha256=key_sha256, generation=generation
    )
    draft.admissions[node_uuid] = Admission(
        node_uuid=node_uuid,
        generation=generation,
        admitted_us=draft.now_us,
        admitted_by=f"joinTokens/{token.token_id}",
    )
    if node is not None:
        draft.nodes[node_uuid] = replace(node, enrolled_by=principal)
    return generation


def revoke(draft: Draft, node_uuid: str, unspent: Iterable[str]) -> None:
    """Make void what certificates a node was issued until now, and the join tokens that name it.
    What a silent one has is taken for lost: nobody waits for it any more.

    `unspent`: hashes of those. NotFound when no host has joined as this node.
    """
    admission = draft.admissions.get(node_uuid)
    if admission is None:
        raise NotFound(f"nodes/{node_uuid}: no host has joined as this node")
    generation = admission.generation + 1
    tokens = [draft.join_tokens[sha256] for sha256 in unspent]
    void = [token for token in tokens if token.revoked_us is None and not token.used_by]
    told: dict[str, object] = {"generation": [admission.generation, generation]}
    if void:
        told["join_tokens"] = [token.token_id for token in void]
    draft.emit("node.revoked", principal_of_node(node_uuid), told)
    draft.admissions[node_uuid] = replace(admission, generation=generation)
    nodes.give_up(draft, node_uuid)
    for token in void:
        draft.join_tokens[token.sha256] = replace(token, revoked_us=draft.now_us)
