"""A place for control groups beside the agent's own unit, of systemd's making.

With version 2 only leaves hold processes, and the agent's unit holds the agent. So the leases'
groups lie in a transient scope (systemd.scope(5)) that is delegated to the agent
(systemd.resource-control(5), `Delegate=`; https://systemd.io/CGROUP_DELEGATION). A process that
only sleeps keeps it there, over all restarts of the agent.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

KEEPER = "keeper"
"""The scope's group for the process that keeps it."""
WITHIN_S = 10.0
"""systemd makes the scope within so long."""
_PAUSE_S = 0.01
_RUNNING = Path("/run/systemd/system")
"""There where systemd is the init of this host (sd_booted(3))."""


def kept_scope(name: str, mounted: str) -> str:
    """The folder of the scope `name`, which is made where there is none. `mounted`: where the tree
    of version 2 is. OSError, in words, when systemd does not make it.
    """
    command = shutil.which("systemd-run")
    if command is None or not _RUNNING.is_dir():
        raise OSError(0, "systemd, which would make a place for them, is not running here")
    if os.geteuid() != 0:
        raise OSError(0, "only root gets a place for them from systemd")
    folder = f"{mounted}/system.slice/{name}.scope"
    if not os.path.isdir(f"{folder}/{KEEPER}"):
        _make(command, name, folder)
    return folder


def _make(command: str, name: str, folder: str) -> None:
    words = [command, "--scope", "--quiet", "--collect", f"--unit={name}", "--slice=system.slice"]
    about = ["--description=Jobs of the node agent", "--property=Delegate=yes"]
    sleeper = [shutil.which("sleep") or "/bin/sleep", "infinity"]
    heard, said = os.pipe()
    try:
        # Not by `subprocess`, which minds a child that outlives us: this one does.
        pid = os.posix_spawn(
            command,
            [*words, *about, *sleeper],
            os.environ,
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, said, 2),
            ),
            setsid=True,
            setsigmask=(),
        )
        os.close(said)
        _wait_for(pid, folder, heard)
    finally:
        os.close(heard)
    os.mkdir(f"{folder}/{KEEPER}")
    Path(folder, KEEPER, "cgroup.procs").write_text(str(pid))


def _wait_for(pid: int, folder: str, heard: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while str(pid) not in _members(folder):
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            words = os.read(heard, 4096).decode(errors="replace").strip()
            raise OSError(0, f"systemd-run: {words or 'it failed without a word'}")
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise OSError(0, f"systemd has made no scope within {WITHIN_S:g} s")
        time.sleep(_PAUSE_S)


def release(folder: str) -> None:
    """Let the scope go: it ends with the process that keeps it."""
    for pid in _members(f"{folder}/{KEEPER}"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGTERM)


def _members(folder: str) -> list[str]:
    try:
        return Path(folder, "cgroup.procs").read_text().split()
    except OSError:
        return []
