"""Runs in a guest (`guest.py`): takes commands on one serial line and answers on it, a JSON
document a line. Needs nothing but Python."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import tty

COMMANDS, SAY = "/dev/ttyS0", "/dev/ttyS1"


def raw(path: str) -> int:
    """A serial line that hands on bytes as they are."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(fd)
    return fd


def main() -> None:
    """Serve until the power goes."""
    _kept = raw(SAY)  # open, so that it stays as it was set
    os.chmod(SAY, 0o666)  # workers are somebody else
    line = raw(COMMANDS)
    lock = threading.Lock()

    def answer(**told: object) -> None:
        with lock:
            view = memoryview(json.dumps(told).encode() + b"\n")
            while view:
                view = view[os.write(line, view) :]

    def serve(order: dict[str, object]) -> None:
        code, printed = run(order["command"], order["timeout_s"])  # type: ignore[arg-type]
        answer(id=order["id"], code=code, printed=printed)

    answer(id=0)
    with os.fdopen(os.dup(line), "rb") as orders:
        for order in orders:
            threading.Thread(target=serve, args=(json.loads(order),), daemon=True).start()


def run(command: list[str], timeout_s: float) -> tuple[int, str]:
    """A command's exit code, and what it printed."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 255, str(error)
    return done.returncode, done.stdout.decode(errors="replace")


if __name__ == "__main__":
    main()
