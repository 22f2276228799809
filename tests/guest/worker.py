"""A worker that says what becomes of it: `worker.py NAME SECONDS EXIT_CODE`. At its job's second
attempt it ends at once."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time


def main(name: str, seconds: str, code: str) -> int:
    said = os.open("/dev/ttyS1", os.O_WRONLY | os.O_NOCTTY)
    attempt = int(os.environ["CC_ATTEMPT"].rpartition("/")[2])

    def say(what: str) -> None:
        line = json.dumps({what: name, "attempt": attempt}) + "\n"
        os.write(said, line.encode())

    lock = os.open(f"/run/lock/{name}", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("twice")
    say("began")
    print(f"the words of {name}", flush=True)
    time.sleep(float(seconds) if attempt == 1 else 0)
    say("ended")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
