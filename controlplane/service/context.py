"""What every handler needs, in one value."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from controlplane.model.errors import FieldFault, InvalidRequest, StoreUnavailable
from controlplane.model.event import Actor
from controlplane.registry import audit
from controlplane.registry.registry import Once
from controlplane.registry.store import RequestKey
from controlplane.service.auth import CALLER
from controlplane.service.denials import Denials
from controlplane.service.permissions import short
from controlplane.service.steprelay import Relays

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.engine.schedule import Scheduler
    from controlplane.engine.upkeep import Liveness
    from controlplane.kit.clock import Clock
    from controlplane.model.errors import NotAllowed
    from controlplane.registry.draft import Draft
    from controlplane.registry.registry import Registry
    from controlplane.service.auth import Doorkeeper, Principal
    from controlplane.service.blobstore import BlobStore
    from controlplane.service.hub import Hub
    from controlplane.service.issuing import Issuer
    from controlplane.service.logstore import LogStore
    from controlplane.service.seriesstore import SeriesStore

T = TypeVar("T")

LONGEST_REQUEST_ID = 128
LONGEST_OBJECT = 200
"""Characters of an object's names in the event of a denial."""
COMMIT_DEADLINE_S = 30.0
"""A commit that takes longer is answered as an error; the same request_id finds its fate later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the site allows and sets."""

    lease_us: int
    """A node's lease."""
    hold_us: int
    """The longest that an agent's call is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """The rooms that handlers speak to."""

    registry: Registry
    """The truth."""
    clock: Clock
    """The time."""
    liveness: Liveness
    """When each node was heard."""
    hub: Hub
    """Wakes calls that wait."""
    logs: LogStore
    """Output of workers."""
    series: SeriesStore
    """What workers reported of their progress, over time."""
    blobs: BlobStore
    """Folders that travel."""
    door: Doorkeeper
    """Who is who."""
    rules: Rules
    """What the site allows."""
    scheduler: Scheduler
    """Decides what starts where, and explains it."""
    issuer: Issuer | None = None
    """Issues certificates to nodes; None where there is no authority, and no TLS."""
    denials: Denials = field(default_factory=Denials)
    """Whose denials were written down lately."""

    relays: Relays = field(default_factory=Relays)
    """Steps that are wanted or served."""

    def actor(self, context: Any) -> Actor:
        """Who calls, and from where, for the events."""
        return Actor(principal=CALLER.get().name, peer=context.peer())

    def denied(self, error: NotAllowed, rpc: str, caller: Principal | None, peer: str) -> None:
        """Have a denial written down, unless the caller had too many of late. `caller`: None for
        one without a valid token. Nobody waits for the commit."""
        name = caller.name if caller is not None else ""
        passed_over = self.denials.note(name, self.clock.boot_us())
        if passed_over is None:
            return
        denial = audit.Denial(
            rpc=short(rpc),
            role=caller.role if caller is not None else "",
            resource=error.resource[:LONGEST_OBJECT],
            passed_over=passed_over,
        )
        actor = Actor(principal=name, peer=peer)
        self.registry.submit(lambda draft: audit.deny(draft, denial), actor)

    async def write(
        self, command: Callable[[Draft], T], actor: Actor, once: Once | None = None
    ) -> T:
        """Have the registry run a command, and wait for its commit.

        StoreUnavailable when that takes too long: what became of it, a repeat under the same
        request_id finds out.
        """
        future = self.registry.submit(command, actor, once)
        try:
            return await self.hub.result(future, COMMIT_DEADLINE_S)
        except TimeoutError:
            words = f"the change was not written down within {COMMIT_DEADLINE_S:g} s"
            raise StoreUnavailable(words) from None


def once_of(principal: str, request_id: str, content_hash: str) -> Once | None:
    """What makes a mutation exactly-once; None when the caller chose no id.

    InvalidRequest when the id is too long.
    """
    if len(request_id) > LONGEST_REQUEST_ID:
        words = f"has {len(request_id)} characters; at most {LONGEST_REQUEST_ID} are allowed"
        raise InvalidRequest(FieldFault(field="request_id", description=words))
    if not request_id:
        return None
    key = RequestKey(principal=principal, request_id=request_id)
    return Once(key=key, content_hash=content_hash)


def once_for(principal: str, request: Any) -> Once | None:
    """As `once_of`, for a request whose own bytes are its content."""
    content = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
    return once_of(principal, request.request_id, content)
