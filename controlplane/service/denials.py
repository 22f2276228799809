"""How often a denial becomes an event, so that a flood of them cannot fill the database."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_US = 3600 * 1_000_000
WRITTEN_PER_WINDOW = 10
"""Events of one principal in a window; further denials are counted, and the next event of the
principal tells how many these were."""


@dataclass(slots=True)
class _Count:
    began_us: int
    written: int = 0
    passed_over: int = 0


class Denials:
    """Counts denials by principal. Holds an entry for each that has a token, and one for all who
    have none."""

    def __init__(self) -> None:
        """Nobody was denied anything yet."""
        self._counts: dict[str, _Count] = {}

    def note(self, principal: str, boot_us: int) -> int | None:
        """Count a denial. Whether it is to be written: how many were passed over since the last one
        that was, or None when this one is passed over too."""
        count = self._counts.setdefault(principal, _Count(began_us=boot_us))
        if boot_us - count.began_us >= WINDOW_US:
            count.began_us, count.written = boot_us, 0
        if count.written >= WRITTEN_PER_WINDOW:
            count.passed_over += 1
            return None
        count.written += 1
        passed_over, count.passed_over = count.passed_over, 0
        return passed_over
