"""One lease, as the agent holds it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus

if TYPE_CHECKING:
    from nodeagent.folders import LeaseKey
    from nodeagent.found import Found
    from nodeagent.plan import StepPlan
    from nodeagent.progress import LeaseReports
    from nodeagent.status import StatusReader, StepEnd
    from nodeagent.streams import Stream


@dataclass(slots=True)
class Held:
    """One lease that this node holds."""

    key: LeaseKey
    """Names it, and its folders."""
    status: LeaseStatus
    """As last read."""
    reader: StatusReader | None = None
    """Reads its supervisor's word, once there is a supervisor."""
    staging: asyncio.Task[None] | None = None
    """Fetches what it needs."""
    found: dict[tuple[int, Stream, int], Found] = field(default_factory=dict)
    """Of each stream what has been handed over, and what was found. `shipping` has it."""
    plan: StepPlan | None = None
    """What its supervisor was told, once there is one."""
    closing: asyncio.Task[None] | None = None
    """Runs the site's epilog, after which its end is reported."""
    reports: LeaseReports | None = None
    """What its workers report of their progress, once there may be any."""
    heard_steps: set[int] = field(default_factory=set)
    """Detached steps whose end the control plane has written down."""
    damaged: bool = False
    """Its plan cannot be read any more, so that it is being ended."""
    forgotten: bool = False
    """The control plane knows all about it; only output may still have to be handed over."""

    def ended_steps(self) -> dict[int, StepEnd]:
        """Ends of detached steps that are to be told."""
        steps = self.reader.steps.items() if self.reader is not None else ()
        return {n: end for n, end in steps if end is not None and n not in self.heard_steps}


def ended_status(key: LeaseKey, end: LeaseEnd, message: str) -> LeaseStatus:
    """The status of a lease that has ended without a supervisor."""
    return LeaseStatus(
        lease_id=key.lease_id, token=key.token, phase=LeasePhase.ENDED, end=end, message=message
    )
