"""Being connected with a step: this terminal's bytes, size and Ctrl-C go to it, and its output
comes here."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.failures import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.cli.app import App
    from controlplane.client.steps import Step

CHUNK_BYTES = 128 << 10
LARGEST_SIDE = 10_000
"""Rows or columns of a terminal."""
_USUAL = (24, 80)
"""Rows and columns where there is no terminal to ask."""


def window_size() -> tuple[int, int]:
    """Rows and columns of this terminal. BadParameter when it tells none."""
    for fd in (0, 1, 2):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(fd)
            if not (size.lines and size.columns):
                raise click.UsageError(
                    f"Your terminal says that it has {size.lines} rows and {size.columns} columns;"
                    " mend that with `stty rows 24 columns 80`."
                )
            return size.lines, size.columns
    return _USUAL


def check_size(text: str) -> tuple[int, int]:
    """Read `24x80`. BadParameter for what no terminal has."""
    rows, cross, columns = text.lower().partition("x")
    with contextlib.suppress(ValueError):
        size = int(rows), int(columns)
        if cross and all(1 <= side <= LARGEST_SIDE for side in size):
            return size
    raise click.BadParameter(
        f"{text!r} is no size of a terminal; write rows and columns from 1 to {LARGEST_SIDE},"
        " such as 24x80.",
        param_hint="'--size'",
    )


def attach(
    app: App,
    step: Step,
    *,
    terminal: bool,
    stdin: bool,
    follow_size: bool,
    own_ctrl_c: bool = True,
    hung_up: str = "Hung up: the step gets SIGHUP; its job goes on.",
) -> int:
    """Hand on what goes and comes until the step ends; its exit code.

    `own_ctrl_c`: Ctrl-C is the step's; else who called has its own ways with it. `hung_up`: what is
    told when the connection is given up.
    """
    from controlplane.client.steps import exit_code

    wake, woken = os.pipe()
    feeder = threading.Thread(target=_feed, args=(step, stdin, wake), daemon=True)
    ctrl_c = 0

    def interrupted(*_: Any) -> None:
        nonlocal ctrl_c
        ctrl_c += 1
        if ctrl_c > 1:
            raise KeyboardInterrupt
        # Not here: a signal's handler must not wait for the step.
        threading.Thread(target=step.signal, args=("INT",), daemon=True).start()

    def resized(*_: Any) -> None:
        with contextlib.suppress(click.UsageError):
            size = window_size()
            threading.Thread(target=step.resize, args=size, daemon=True).start()

    previous: dict[int, Any] = {}
    try:
        with _raw(terminal and stdin):
            if own_ctrl_c:
                previous[signal.SIGINT] = signal.signal(signal.SIGINT, interrupted)
            if terminal and follow_size:
                previous[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resized)
            feeder.start()
            for output in step:
                kind = output.WhichOneof("kind")
                if kind == "stdout":
                    _write(1, output.stdout)
                elif kind == "stderr":
                    _write(2, output.stderr)
                elif kind == "ended":
                    break
            else:
                return 1
    except KeyboardInterrupt:
        app.note(f"\n{hung_up}")
        return INTERRUPTED
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.write(woken, b"x")
        step.close()
        feeder.join(0.2)
    if output.ended.message:
        app.note(f"The step was ended: {output.ended.message}.")
    return exit_code(output.ended)


def _feed(step: Step, stdin: bool, wake: int) -> None:
    """Send what comes on standard input, up to its end or until the step has ended."""
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    try:
        if stdin:
            poll.register(0, select.POLLIN)
            while True:
                ready = poll.poll()
                if any(fd == wake for fd, _ in ready):
                    return
                data = os.read(0, CHUNK_BYTES)
                if not data:
                    break
                step.send(data)
        step.end_input()
    except OSError:  # No terminal may be read from any more, or no file.
        step.end_input()


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """Have this terminal hand on every byte as it is, and give it back as it was."""
    if not (wanted and sys.stdin.isatty()):
        yield
        return
    before = termios.tcgetattr(0)
    ends = {n: signal.signal(n, _leave) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        for number, handler in ends.items():
            signal.signal(number, handler)


def _leave(number: int, _: Any) -> None:
    # As an exception, so that the terminal is given back on the way.
    raise SystemExit(128 + number)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
