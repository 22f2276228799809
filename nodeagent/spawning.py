"""The agent's hand on its spawner."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

CLOSE_S = 0.5
"""A spawner without supervisors is gone by then; another one stays as long as it has some."""


class Spawner:
    """Starts supervisors through a spawner process, and starts that anew when it died."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the spawner, unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        if self._process is not None:
            log.warning("the spawner died; supervisors live on, and a new one is started")
            self._close_pipe(self._process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nodeagent.spawner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def spawn(self, folder: Path) -> None:
        """Have a supervisor started for the lease in `folder`. OSError when no spawner can be
        started."""
        line = os.fsencode(folder.absolute()) + b"\n"
        self.start()
        assert self._process is not None
        try:
            self._write(line)
        except BrokenPipeError:
            self._process.wait(CLOSE_S)
            self.start()
            self._write(line)

    def _write(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # A line is shorter than PIPE_BUF, so that it is written whole.
        os.write(self._process.stdin.fileno(), line)

    def close(self) -> None:
        """Ask for no more supervisors; those there are live on, and the spawner with them."""
        if self._process is not None:
            self._close_pipe(self._process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_S)
            self._process = None

    @staticmethod
    def _close_pipe(process: subprocess.Popen[bytes]) -> None:
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
