"""The agent's hand on its spawner."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

CLOSE_S = 0.5
"""A spawner without supervisors is gone by then; another one stays as long as it has some."""
_PAUSE_S = 0.01
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder from which this package is imported."""


class Spawner:
    """Starts supervisors through a spawner process, and starts that anew when it died."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self.pid = 0
        """Process id of the spawner; 0 when there is none."""
        self._pipe = -1

    def start(self) -> None:
        """Start the spawner, unless it runs."""
        if self._runs():
            return
        if self._pipe >= 0:
            log.warning("the spawner died; supervisors live on, and a new one is started")
            self._hang_up()
        words, self._pipe = os.pipe()
        try:
            # Not by `subprocess`, which minds a child that outlives us: this one may.
            self.pid = os.posix_spawn(
                sys.executable,
                # Without site packages, which it needs none of: each fork of it costs less.
                [sys.executable, "-S", "-m", "nodeagent.spawner"],
                {**os.environ, "PYTHONPATH": _ROOT},
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, words, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                ),
                setsid=True,
                setsigmask=(),
            )
        finally:
            os.close(words)

    def spawn(self, folder: Path) -> None:
        """Have a supervisor started for the lease in `folder`. OSError when no spawner can be
        started."""
        line = os.fsencode(folder.absolute()) + b"\n"
        self.start()
        try:
            self._write(line)
        except BrokenPipeError:
            self._gone_within(CLOSE_S)
            self.start()
            self._write(line)

    def close(self) -> None:
        """Ask for no more supervisors; those there are live on, and the spawner with them."""
        if self._pipe >= 0:
            self._hang_up()
            self._gone_within(CLOSE_S)
            self.pid = 0

    def _write(self, line: bytes) -> None:
        # A line is shorter than PIPE_BUF, so that it is written whole.
        os.write(self._pipe, line)

    def _runs(self) -> bool:
        if self.pid:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                    return True
            self.pid = 0
        return False

    def _gone_within(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._runs() and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)

    def _hang_up(self) -> None:
        os.close(self._pipe)
        self._pipe = -1
