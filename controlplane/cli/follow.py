"""Following a job: its states on stderr, its output on stdout, until it ends."""

from __future__ import annotations

import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, TextIO

from controlplane.cli import text
from controlplane.cli.failures import INTERRUPTED, OTHER_FAILURE
from controlplane.cli.logprinter import LogPrinter
from controlplane.cli.render import struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from controlplane.cli.app import App
    from controlplane.client import Client, LogPiece
    from controlplane.v1.job_pb2 import Job
    from controlplane.v1.progress_pb2 import Progress

_WAITING_LIMIT: Final = 64
PROGRESS_US: Final = 5_000_000
"""Progress of a job that is followed is told so often at most."""


class StateLines:
    """Tells each state of a job once, as a line on stderr."""

    def __init__(self, app: App) -> None:
        """Begin with nothing told."""
        self._app = app
        self._told = ""
        self._told_progress, self._next_us = "", 0

    def tell(self, job: Job) -> None:
        """Write a line if it says something new."""
        from controlplane.cli.jobtables import attempt_state, job_state

        word = job_state(job)
        if word == "active" and job.attempts:
            last = job.attempts[-1]
            word = attempt_state(last)
            if last.number > 1:
                word += f", attempt {last.number}"
        line = f"{job.name}  {word}" + (f": {job.reason}" if job.reason else "")
        if line != self._told:
            self._told = line
            now = text.clock_time(self._app.clock.now_us())
            self._app.note(text.visible_line(f"{now}  {line}"))
        if job.attempts and job.attempts[-1].HasField("progress"):
            self._tell_progress(job.attempts[-1].progress, ended=job.HasField("exit_code"))

    def _tell_progress(self, progress: Progress, *, ended: bool) -> None:
        """Write how far it is when that has changed, not too often; and once at the end."""
        from controlplane.cli.progresswords import checkpoint_words, progress_words

        now_us, boot_us = self._app.clock.now_us(), self._app.clock.boot_us()
        line = progress_words(progress, now_us)
        if progress.HasField("checkpoint"):
            line += f"; checkpoint {checkpoint_words(progress)}"
        if line != self._told_progress and (ended or boot_us >= self._next_us):
            self._told_progress, self._next_us = line, boot_us + PROGRESS_US
            self._app.note(f"{text.clock_time(now_us)}  {line}")


def follow(app: App, client: Client, job: Job, *, apart: bool = False) -> int:
    """Show a job's states and output until it ends; give the job's exit code.

    Ctrl-C ends the following, not the job. `apart`: the job's standard error goes to ours.
    """
    lines, printer = StateLines(app), printer_for(job, ())
    errors = printer_for(job, (), sys.stderr) if apart else printer
    last = job
    try:
        for item in _merged(
            lambda: client.watch(job.name), lambda: client.logs(job.name, follow=True)
        ):
            if hasattr(item, "etag"):
                last = item
                lines.tell(item)
            else:
                tell_missing(app, item)
                (errors if item.stream == "stderr" else printer).write(item)
    except KeyboardInterrupt:
        number = job.job_id
        app.note(
            f"\n{job.name} runs on. Go on watching: ccctl watch {number}; its output: "
            f"ccctl logs -f {number}; end it: ccctl cancel {number}"
        )
        return INTERRUPTED
    finally:
        printer.close()
        if errors is not printer:
            errors.close()
    return exit_code(last)


class Interrupts:
    """Counts Ctrl-C: warns, cancels, then interrupts as ever."""

    def __init__(self, app: App, client: Client, name: str) -> None:
        """`name`: the job that goes on."""
        self._app, self._client, self._name = app, client, name
        self._count = 0
        self._before: Any = None

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, self._on_signal)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, *_: object) -> None:
        self._count += 1
        if self._count == 1:
            self._app.note(f"\n{self._name} goes on. Ctrl-C once more cancels it.")
        elif self._count == 2:
            self._app.note(f"\nCancelling {self._name}. Ctrl-C once more leaves it to its end.")
            # Not here: a signal's handler must not wait for the server.
            threading.Thread(target=self._cancel, daemon=True).start()
        else:
            raise KeyboardInterrupt

    def _cancel(self) -> None:
        from controlplane.client import ClientError

        try:
            self._client.cancel([self._name])
        except ClientError as error:
            self._app.note(f"{self._name} could not be cancelled: {error}")


def exit_code(job: Job) -> int:
    """What `ccctl` exits with for a job that has ended."""
    return job.exit_code if job.HasField("exit_code") else OTHER_FAILURE


def printer_for(job: Job, ranks: tuple[int, ...], to: TextIO | None = None) -> LogPrinter:
    """A printer for a job's output: with ranks before lines when more than one worker may write."""
    several = struct(job.spec).get("workers", 1) > 1 and len(ranks) != 1
    out = to or sys.stdout
    return LogPrinter(out.buffer, prefixed=several, terminal=out.isatty())


def tell_missing(app: App, piece: LogPiece) -> None:
    """Say so when bytes before a piece are gone."""
    if not piece.missing_bytes:
        return
    much, whose = text.size(piece.missing_bytes), f"rank {piece.rank}'s {piece.stream}"
    if piece.missing_bytes == piece.offset:
        app.note(f"… the first {much} of {whose} are gone: only the newest output is kept …")
    else:
        app.note(f"… {much} of {whose} are gone: printed faster than they could be kept …")


def tell_nothing(app: App, job: Job, number: int | None, ranks: tuple[int, ...]) -> None:
    """Say so when nothing is there of what an attempt, the last by default, has printed."""
    for attempt in job.attempts[-1:] if number is None else job.attempts:
        if number not in (None, attempt.number):
            continue
        workers = [each for each in attempt.workers if not ranks or each.rank in ranks]
        printed = sum(each.stdout_bytes + each.stderr_bytes for each in workers)
        if printed:
            app.note(
                f"… nothing is here of the {text.size(printed)} that attempt {attempt.number} has"
                " printed: no longer kept, or not handed over by its node …"
            )


def _merged(*sources: Callable[[], Iterable[Any]]) -> Iterable[Any]:
    """Yield what several blocking sources give, as it comes; raise what any of them raises."""
    items: queue.Queue[tuple[bool, Any]] = queue.Queue(_WAITING_LIMIT)

    def pump(source: Callable[[], Iterable[Any]]) -> None:
        try:
            for item in source():
                items.put((True, item))
            items.put((False, None))
        except Exception as error:
            items.put((False, error))

    for source in sources:
        # Daemons: closing the client ends what they wait for.
        threading.Thread(target=pump, args=(source,), daemon=True).start()
    left = len(sources)
    while left:
        more, item = items.get()
        if more:
            yield item
        elif item is not None:
            raise item
        else:
            left -= 1
