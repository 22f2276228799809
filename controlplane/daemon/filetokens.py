"""Tokens that are made or removed on this host without the daemon: it writes down what it finds.

What was written down is known from the events themselves; one whose event is kept no longer is
told anew at the next start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.kit.loop import Duty
from controlplane.model.errors import WrongState
from controlplane.model.event import CONTROL_PLANE
from controlplane.registry import audit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.registry.registry import Registry
    from controlplane.registry.store import Store
    from controlplane.service.auth import TokenFile

PERIOD_S = 2.0
PAGE = 1000
COMMIT_S = 60.0
"""The longest to wait for a commit."""


def duty(file: TokenFile, registry: Registry) -> Duty:
    """The duty."""
    known: dict[str, audit.FileToken] | None = None

    def look() -> None:
        nonlocal known
        try:
            found = listed(file)
        except (OSError, ValueError, KeyError, TypeError, WrongState):
            return  # damaged, which whoever shows a token brings into the log
        if known is None:
            known = written_down(registry.store)
        if found != known:
            before = known
            registry.submit(
                lambda draft: audit.file_tokens(draft, before, found), CONTROL_PLANE
            ).result(COMMIT_S)
            known = found

    return Duty(name="tokens", run=look, period_s=PERIOD_S)


def listed(file: TokenFile) -> dict[str, audit.FileToken]:
    """What the file holds, by what the events call each token."""
    return {
        f"{audit.FILE_TOKENS}/{entry['sha256'][:16]}": audit.FileToken(
            principal=entry["principal"], role=entry["role"], made_by=entry.get("made_by", "")
        )
        for entry in file.entries()
    }


def written_down(store: Store) -> dict[str, audit.FileToken]:
    """What the events say that it holds."""
    known: dict[str, audit.FileToken] = {}
    after = 0
    while page := store.events(audit.FILE_TOKENS, after=after, limit=PAGE):
        for event in page:
            told: Mapping[str, object] = event.changed
            if event.kind == "file_token.found":
                known[event.resource] = audit.FileToken(
                    **{name: str(told.get(name, "")) for name in ("principal", "role", "made_by")}
                )
            else:
                known.pop(event.resource, None)
        after = page[-1].seq
    return known
