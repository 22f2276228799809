"""When to try again: bounded, with growing waits and jitter, so that no restart is noticed."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from controlplane.client.errors import ClientError, DeadlinePassed, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_WAIT_S: Final = 0.1
"""The first wait, in seconds; each further one is twice as long."""
LONGEST_WAIT_S: Final = 2.0
"""No wait is longer, in seconds, unless the server asks for more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryNotice:
    """A call failed and will be tried again."""

    tries: int
    """How often it failed since it last went well."""
    wait_s: float
    """Seconds until the next try."""
    left_s: float
    """Seconds after which nobody tries any more."""
    error: ClientError
    """How it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where time and chance come from, and who is told of retries."""

    on_retry: Callable[[RetryNotice], None] = lambda _: None
    """Is called before each wait."""
    clock: Callable[[], float] = time.monotonic
    """Seconds that never go back."""
    sleep: Callable[[float], None] = time.sleep
    """Waits so many seconds."""
    chance: Callable[[], float] = random.SystemRandom().random
    """A number from 0 up to 1."""


@dataclass(slots=True, kw_only=True)
class Patience:
    """One effort to get an answer: how long it may take, and how often it failed so far."""

    timing: Timing
    limit_s: float
    """Seconds that it may take in all."""
    _until: float = field(init=False)
    _tries: int = field(init=False, default=0)
    _last: Unreachable | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Begin now."""
        self._until = self.timing.clock() + self.limit_s

    @property
    def left_s(self) -> float:
        """Seconds that are left; at least a little, so that a deadline made of it is valid."""
        return max(0.001, self._until - self.timing.clock())

    def succeeded(self, limit_s: float) -> None:
        """Begin anew, with so many seconds: the server was heard."""
        self.limit_s = limit_s
        self._until = self.timing.clock() + limit_s
        self._tries, self._last = 0, None

    def wait_after(self, error: ClientError) -> None:
        """Wait before the next try, or raise when there should be none."""
        if not isinstance(error, Unreachable):
            # A try that ran out of time because the server was gone before is told as that.
            raise self._last if self._last and isinstance(error, DeadlinePassed) else error
        self._last = error
        self._tries += 1
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(self._tries - 1, 10))
        wait_s = max(wait_s * (0.5 + self.timing.chance() / 2), error.retry_after_s or 0)
        left_s = self._until - self.timing.clock()
        if wait_s >= left_s:
            raise error
        self.timing.on_retry(
            RetryNotice(tries=self._tries, wait_s=wait_s, left_s=left_s, error=error)
        )
        self.timing.sleep(wait_s)
