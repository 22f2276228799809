"""Every error as one clear message on stderr with what to do, and an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from controlplane.cli.text import visible

if TYPE_CHECKING:
    from controlplane.client import ClientError
    from controlplane.model.errors import FieldFault

OTHER_FAILURE: Final = 1
"""Exit code when something else failed."""
BAD_INPUT: Final = 2
"""Exit code when the command line, a file or the configuration is wrong."""
INTERRUPTED: Final = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT."""

OWN_FIELDS: Final = ("server", "token", "ca_file")
"""Fields of `ccctl`'s own settings in the faults that the client finds."""

_HINTS: Final = {
    "NotFound": "`ccctl list` and `ccctl node list` show what there is.",
    "Unreachable": "Start it with `controlplane serve`, or name another with --server.",
    "DeadlinePassed": "Try again, or give it longer with --timeout.",
}

_IS_THERE: Final = ("certificate", "gRPC", "TLS", "resolved")
"""In the words on a server that cannot be reached: starting it would not help."""


class Failure(click.ClickException):
    """A command can't do what it should; the text says why, and what to do."""

    exit_code = BAD_INPUT


def tell(message: str) -> None:
    """Write an error."""
    click.echo(f"Error: {visible(message)}", err=True)


def tell_client_error(error: ClientError, *, has_token: bool) -> int:
    """Write a failed call, and give the exit code."""
    hint = _HINTS.get(type(error).__name__, "")
    if type(error).__name__ == "Unreachable" and any(word in error.message for word in _IS_THERE):
        hint = "`ccctl config show` tells where --server and --ca-file come from."
    if type(error).__name__ == "Denied" and not has_token and "--token-file" not in error.message:
        hint = "No token was given: name its file with --token-file or CCCTL_TOKEN_FILE."
    if error.reason == "NOT_ALLOWED":
        hint = "`ccctl version --remote` tells whom the server takes you for."
    if error.faults:
        own = error.faults[0].field in OWN_FIELDS
        tell(fault_list("The configuration" if own else "The request", error.faults))
    else:
        sentence = error.message if error.message.endswith((".", "!", "?")) else f"{error.message}."
        tell(f"{sentence} {hint}".rstrip())
    return error.exit_code


def fault_list(what: str, faults: tuple[FieldFault, ...]) -> str:
    """Say how many faults something has, and each on a line of its own."""
    lines = [": ".join(filter(None, (fault.field, fault.description))) for fault in faults]
    count = "a fault" if len(lines) == 1 else f"{len(lines)} faults"
    return f"{what} has {count}:\n" + "\n".join(f"  {line}" for line in lines)
