"""Commands that change nothing, and only write down what was asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.registry.draft import Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A call that was refused because of who made it."""

    rpc: str
    """What was called: `JobService/GetJob`."""
    role: str
    """Role of the caller; empty for one without a valid token."""
    resource: str
    """Resource names of what it was asked of, with commas between; may be empty."""
    passed_over: int
    """Denials of this caller since the last one that was written down."""


def deny(draft: Draft, denial: Denial) -> None:
    """Write a denial down. Never what was in the request: it may hold secrets."""
    principal = draft.actor.principal
    changed: dict[str, object] = {"rpc": denial.rpc, "role": denial.role}
    if denial.resource:
        changed["object"] = denial.resource
    if denial.passed_over:
        changed["passed_over"] = denial.passed_over
    draft.emit("access.denied", f"principals/{principal}" if principal else "principals", changed)


FILE_TOKENS = "fileTokens"
"""What events call the tokens that are made on the control plane's host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileToken:
    """A token that was made on the control plane's host."""

    principal: str
    """Whose."""
    role: str
    """What it may do."""
    made_by: str = ""
    """The account of that host that has made it; empty where nobody has said."""


def file_tokens(
    draft: Draft, before: Mapping[str, FileToken], found: Mapping[str, FileToken]
) -> None:
    """Write down which of these tokens have come and gone, each under its name."""
    for name, token in before.items():
        if found.get(name) != token:
            changed = {"principal": token.principal, "role": token.role}
            draft.emit("file_token.gone", name, changed)
    for name, token in found.items():
        if before.get(name) != token:
            told = {"principal": token.principal, "role": token.role}
            told |= {"made_by": token.made_by} if token.made_by else {}
            draft.emit("file_token.found", name, told)


def uploaded(draft: Draft, sha256: str, size_bytes: int) -> None:
    """Write down that somebody uploads a blob that was none of theirs: before it is kept."""
    draft.emit("blob.uploaded", f"blobs/{sha256}", {"size_bytes": size_bytes})


def renewed(draft: Draft, generation: int) -> None:
    """Write down that a node is given another certificate: before it has it."""
    draft.emit("node.renewed", draft.actor.principal, {"generation": generation})
