"""Looks at folders that may not answer, as on a network file system whose server is gone.

Each runs in a thread of its own and has a deadline. One that hangs keeps its thread until the
kernel lets it go, and holds up nothing else: not the agent's loop, not its other threads, and not
its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nodeagent.launchers import LaunchError, LaunchRefused

T = TypeVar("T")

DEADLINE_S = 20.0
"""A folder that has not answered by then is told as hanging."""
MOST_HANGING = 4
"""Looks of one owner that hang; beyond them none is begun, for each holds a thread."""
NODE = "this node"
"""On whose behalf the agent looks for itself."""


@dataclass(slots=True)
class Place:
    """Where a look is at: told when it does not come back."""

    folder: Path = Path()
    """Which folder it asks."""
    fault: type[LaunchError] = LaunchError
    """Who is to blame when that one does not answer."""


class Looks:
    """Those of one agent. Lives in the event loop's thread."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        """Begin with none."""
        self._deadline_s = deadline_s
        self._hanging: Counter[str] = Counter()

    def hanging(self, whose: str) -> int:
        """How many of somebody's are waited for no longer, and go on."""
        return self._hanging[whose]

    async def within(self, whose: str, look: Callable[[Place], T]) -> T:
        """What a look gives, or raises. LaunchError when it does not come back in time."""
        if (count := self.hanging(whose)) >= MOST_HANGING:
            raise LaunchRefused(
                f"{count} looks at folders for {whose} still hang: mend the file system that does"
                " not answer, or unmount it"
            )
        loop = asyncio.get_running_loop()
        over: asyncio.Future[T] = loop.create_future()
        place = Place()
        late = False

        def settle(found: T | None, error: BaseException | None) -> None:
            if late:
                self._hanging[whose] -= 1
            elif not over.done() and error is not None:
                over.set_exception(error)
            elif not over.done():
                over.set_result(found)  # type: ignore[arg-type]  # a T where there is no error

        def work() -> None:
            found, error = None, None
            try:
                found = look(place)
            except Exception as raised:  # Handed over to who waits.
                error = raised
            with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
                loop.call_soon_threadsafe(settle, found, error)

        threading.Thread(target=work, name="look", daemon=True).start()
        try:
            async with asyncio.timeout(self._deadline_s):
                return await over
        except TimeoutError:
            raise place.fault(
                f"{place.folder} did not answer within {self._deadline_s:g} s: see to its file"
                " system, and to the server that it is mounted from"
            ) from None
        finally:
            if not over.done() or over.cancelled():
                late = True
                self._hanging[whose] += 1
