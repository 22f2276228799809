"""What must be there before the workers start, each in a child of its own, so that the supervisor
never waits for it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from nodeagent.supervision import kernel
from nodeagent.supervision.worker import reset_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from nodeagent.plan import RendezvousPlan

READY = b"\x06"
"""What a helper says when its work is done or its service is up; anything else are words of
failure."""

_CONNECT_S = 1.0
_PAUSE_S = 0.05


class Helper(NamedTuple):
    """A child that runs one function."""

    name: str
    """What it is for, in words."""
    pid: int
    """Its process id."""
    pipe: int
    """Where it says READY or what is wrong; non-blocking."""
    serves: bool
    """Whether it is needed as long as the workers run, and not only before their start."""


def fork_helper(name: str, work: Callable[[Callable[[], None]], None], *, serves: bool) -> Helper:
    """Run ``work(ready)`` in a child that lives no longer than this process."""
    parent = os.getpid()
    pipe, said = os.pipe()
    os.set_blocking(pipe, False)
    pid = os.fork()
    if pid == 0:
        try:
            reset_signals()
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            kernel.die_with(parent)
            # The lease's lock among them: it must be free the moment its supervisor is gone.
            os.closerange(3, said)
            os.closerange(said + 1, 1 << 20)
            work(lambda: _say(said, READY))
        except TimeoutError as error:
            _say(said, f"{name} {error}".encode())
        except OSError as error:
            _say(said, f"{name}: {error.strerror or error}".encode())
        except Exception as error:
            _say(said, f"{name}: {type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(said)
    return Helper(name, pid, pipe, serves)


def serve_rendezvous(plan: RendezvousPlan) -> Helper:
    """Serve the gang's store until the supervisor ends it."""

    def work(ready: Callable[[], None]) -> None:
        from nodeagent.launchers import rendezvous

        rendezvous.serve(plan.host, plan.port, plan.scopes, plan.secret, ready)

    return fork_helper(f"the rendezvous store at {plan.host}:{plan.port}", work, serves=True)


def wait_for(host: str, port: int, wait_ms: int) -> Helper:
    """Knock at an address until it answers, for so long at most."""

    def work(ready: Callable[[], None]) -> None:
        until = time.monotonic() + wait_ms / 1000
        while (left := until - time.monotonic()) > 0:
            try:
                socket.create_connection((host, port), timeout=min(_CONNECT_S, left)).close()
            except OSError:
                time.sleep(min(_PAUSE_S, left))
            else:
                ready()
                return
        raise TimeoutError(f"did not answer within {wait_ms / 1000:g} s")

    return fork_helper(f"rank 0's rendezvous at {host}:{port}", work, serves=False)


def _say(pipe: int, words: bytes) -> None:
    # Nobody may listen: then the supervisor is gone, and so are we in a moment.
    with contextlib.suppress(OSError):
        os.write(pipe, words[:4096])
