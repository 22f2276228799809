"""`ccctl run` with somebody at it: its command gets their terminal or their standard input.

The job's worker only holds the lease. The command is a step beside it, whose streams go straight
through to who runs `ccctl`, and so nothing of them is kept. Holder and step share a pipe in the
job's folder: by it the holder learns the command's exit code and makes it the job's, and learns of
its end if its user's connection has broken. So nothing but the two shells below knows of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from controlplane.cli.attach import attach, window_size
from controlplane.cli.failures import INTERRUPTED
from controlplane.cli.follow import Interrupts, StateLines, exit_code

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from controlplane.cli.app import App
    from controlplane.client import Client
    from controlplane.v1.job_pb2 import Job
    from controlplane.v1.step_pb2 import StepStart

COME_S: Final = 60
"""The step must have come so soon after its job's start: its user may be gone since the submit."""
HOLD: Final = f"""\
pipe=$CC_JOB_DIR/.run.$CC_ATTEMPT
mkfifo -m 600 "$pipe" || exit 125
(sleep {COME_S}; echo late >"$pipe") &
late=$!
exec 8<"$pipe"
rm -f "$pipe"
read -r word <&8
if [ "$word" = late ]; then
  echo "ccctl run did not come for its job within {COME_S} s" >&2
  exit 1
fi
kill "$late"
if ! read -r code <&8; then
  echo "the connection with ccctl run was lost" >&2
  exit 129
fi
exit "$code"
"""
"""The worker. The command's words follow it, for people to read."""
RUN: Final = """\
pipe=$CC_JOB_DIR/.run.$CC_ATTEMPT
tries=0
until [ -p "$pipe" ]; do
  tries=$((tries + 1))
  [ "$tries" -le 100 ] || exit 125
  sleep 0.1
done
exec 9>"$pipe"
echo come >&9
trap : INT QUIT
"$@" 9>&-
code=$?
echo "$code" >&9
exit "$code"
"""
"""The step: the command, and a word on its end. What a key of the terminal's does is the command's
business: it is not ignored here, which the command would inherit, and does not end this shell."""


def wants_input() -> bool:
    """Whether something is handed to us on standard input: a pipe or a file, and no terminal."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def unfit(document: Mapping[str, object]) -> str:
    """Why nobody can be at such a job, in words; empty when somebody can."""
    if document.get("launcher", "command") != "command":
        return "another launcher than `command` starts its workers"
    if document.get("workers", 1) != 1:
        return "it has more workers than one"
    if document.get("max_attempts", 1) != 1 or document.get("requeue_exit_codes"):
        return "it may be started again, and nobody can type twice"
    return ""


def attend(app: App, client: Client, document: Mapping[str, Any], *, tty: bool) -> int:
    """Submit a job for a command, and be at it; its exit code. It is cancelled if we end first."""
    command: list[str] = document["command"]
    holds = {**document, "command": ["sh", "-c", HOLD, "ccctl-run", *command]}
    job = client.submit(holds, base=Path())
    app.note(f"Submitted {job.name}.")
    with Interrupts(app, client, job.name):
        try:
            return _attended(app, client, job, command, tty=tty)
        except KeyboardInterrupt:
            return INTERRUPTED


def _attended(app: App, client: Client, job: Job, command: Sequence[str], *, tty: bool) -> int:
    lines = StateLines(app)
    with _cancelled(client, job), _ended_by_signals():
        for last in client.watch(job.name):
            lines.tell(last)
            if _runs(last):
                step = client.start_step(_start(job, command, tty=tty))
                words = f"Hung up: {job.name} ends."
                attach(
                    app, step, terminal=tty, stdin=True, follow_size=tty, own_ctrl_c=False,
                    hung_up=words,
                )  # fmt: skip
                break
        for last in client.watch(job.name):
            if last.HasField("exit_code"):
                lines.tell(last)
    return exit_code(last)


def _runs(job: Job) -> bool:
    from controlplane.v1 import job_pb2

    return bool(job.attempts) and job.attempts[-1].state == job_pb2.ATTEMPT_STATE_RUNNING


def _start(job: Job, command: Sequence[str], *, tty: bool) -> StepStart:
    from controlplane.v1.step_pb2 import StepStart

    start = StepStart(job=job.name, rank=0, command=["sh", "-c", RUN, "ccctl-run", *command])
    if tty:
        start.terminal.size.rows, start.terminal.size.columns = window_size()
        start.terminal.term = os.environ.get("TERM", "")
    return start


@contextlib.contextmanager
def _cancelled(client: Client, job: Job) -> Iterator[None]:
    """Cancel the job if what is done with it ends by an error or a signal."""
    from controlplane.client import ClientError

    try:
        yield
    except BaseException:
        with contextlib.suppress(ClientError):
            client.cancel([job.name])
        raise


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end us as an exception, so that what we leave is put in order."""
    before = {n: signal.signal(n, _leave) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _: Any) -> None:
    raise SystemExit(128 + number)
