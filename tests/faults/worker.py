"""A worker that leaves its own account of what became of it, in a file that all workers append to.

    worker.py FOLDER SECONDS CODE [UNTIL]

It holds a lock of its own while it or anything that it started lives. So a worker finds out
whether one of another attempt of its task still runs, however that came about. It runs for so long,
or until the file UNTIL is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time

PAUSE_S = 0.02
LINES = "workers.jsonl"
LOCKS = "locks"


def main(folder: str, seconds: str, code: str, until: str = "") -> int:
    job, task, attempt, rank = (
        int(os.environ[f"CC_{name}"]) for name in ("JOB_ID", "TASK_INDEX", "ATTEMPT", "RANK")
    )
    out = os.open(f"{folder}/{LINES}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def say(what: str, **more: object) -> None:
        place = {"job": job, "task": task, "attempt": attempt, "rank": rank, "pid": os.getpid()}
        os.write(out, json.dumps({"what": what, **place, **more}).encode() + b"\n")
        print(what, rank, flush=True)

    prefix = f"{job}.{task}."
    mine = f"{prefix}{attempt}."
    own = os.open(f"{folder}/{LOCKS}/{mine}{rank}", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(own, fcntl.LOCK_EX)
    # Whatever it leaves behind holds the lock on: that must be gone as well.
    left = subprocess.Popen(["sleep", "3600"], pass_fds=(own,), stdin=subprocess.DEVNULL)
    say("begin", size=int(os.environ["CC_WORLD_SIZE"]), node=os.environ["CC_NODE_NAME"])
    names = [name for name in os.listdir(f"{folder}/{LOCKS}") if name.startswith(prefix)]
    for name in names:
        if not name.startswith(mine) and is_held(f"{folder}/{LOCKS}/{name}"):
            say("twice", other=name)
    deadline = time.monotonic() + float(seconds)
    while time.monotonic() < deadline and not (until and os.path.exists(until)):
        time.sleep(PAUSE_S)
    if int(code) == 0:
        left.kill()
        left.wait()
    say("end", code=int(code))
    return int(code)


def is_held(path: str) -> bool:
    """Whether a living process holds the lock of another worker."""
    other = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(other)
    return False


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(*sys.argv[1:]))
