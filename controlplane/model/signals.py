"""Signals by name: those that a program can handle, which are all that it may be sent."""

from __future__ import annotations

import difflib
import signal
from typing import Final

NAMES: Final = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "CHLD", "CONT", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM",
    "PROF", "WINCH", "IO", "PWR", "SYS",
)  # fmt: skip
"""Names without `SIG`, by number. A list of our own, so that a client on another system knows the
signals of the nodes."""
NOT_HANDLED: Final = ("KILL", "STOP")
"""What no program can handle, and so nobody is sent."""
HANDED_ON_BY_MPIRUN: Final = ("USR1", "USR2")
"""What `mpirun` hands on to every rank; by others it would be ended itself."""


def parse_signal(text: str) -> str:
    """The name of a signal, with or without `SIG`, without it. ValueError in words for any other
    text."""
    name = text.removeprefix("SIG")
    if name in NAMES:
        return name
    if name in NOT_HANDLED:
        raise ValueError(
            f"no program can handle {name}; name a signal that yours handles, such as USR1 or USR2"
        )
    near = difflib.get_close_matches(name.upper().removeprefix("SIG")[:16], NAMES, n=1)
    hint = f"did you mean {near[0]}?" if near else "known are " + ", ".join(NAMES)
    raise ValueError(f"is not the name of a signal; {hint}")


def signal_number(name: str) -> int:
    """The number on this host of a signal in `NAMES`."""
    return signal.Signals[f"SIG{name}"].value
