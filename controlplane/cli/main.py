"""The entry point of `ccctl`: all commands, and what becomes of every error."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Final

import click

from controlplane.cli import (
    accounts,
    changes,
    denials,
    events,
    explain,
    identity,
    jobs,
    login,
    metrics,
    nodes,
    priorityclasses,
    queues,
    replay,
    reservations,
    simulate,
    steps,
    submit,
    tools,
    usage,
)
from controlplane.cli import run as runs
from controlplane.cli.app import App, Group
from controlplane.cli.failures import (
    BAD_INPUT,
    INTERRUPTED,
    OTHER_FAILURE,
    tell,
    tell_client_error,
)
from controlplane.kit.clock import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH: Final = 100


@click.group(
    cls=Group,
    shared=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDTH},
    examples="""
    ccctl submit job.json --follow      submit a job and follow it to its end
    ccctl list --state active           what runs now
    ccctl show 123                      all about a job
    ccctl run --gpus 1 -- python x.py   a job from a command line, followed to its end
    ccctl shell 123                     a shell inside a running job
    ccctl node list                     the hosts, and how much of each is leased
    """,
    epilog="Exit codes: 0 done; 1 failed; 2 wrong input; 3 not found; 4 denied; 5 server "
    "unreachable; 6 out of time; 130 interrupted. `submit --follow`, `run` and `watch` exit with "
    "the job's own code, `exec` and `shell` with the command's. Configuration: `ccctl config show "
    "--help`.",
)
def ccctl() -> None:
    """Submit jobs to the control plane, follow them and end them."""


for command in (
    submit.submit,
    runs.run_,
    jobs.list_jobs,
    jobs.show,
    jobs.logs,
    jobs.watch,
    jobs.cancel,
    jobs.signal,
    changes.hold,
    changes.release,
    changes.requeue,
    changes.update,
    changes.tasks,
    explain.explain,
    explain.priority,
    events.history,
    events.events_,
    steps.exec_,
    steps.shell,
    metrics.metrics,
    usage.usage,
    simulate.simulate,
    replay.replay,
    replay.policy,
    nodes.node,
    explain.dump,
    queues.queue,
    priorityclasses.priority_class,
    reservations.reservation,
    denials.denials,
    accounts.account,
    identity.user,
    identity.token,
    login.login,
    login.logout,
    login.whoami,
    tools.version,
    tools.schema,
    tools.completion,
    tools.config,
):
    ccctl.add_command(command)


def run(arguments: Sequence[str], *, clock: Clock) -> int:
    """Run one command; give the exit code. Every error is told on stderr, none is raised."""
    app = App(clock=clock)
    try:
        ccctl.main(list(arguments), prog_name="ccctl", obj=app, standalone_mode=False)
        sys.stdout.flush()  # what was printed may find no room only now
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else OTHER_FAILURE
    except click.exceptions.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:  # who read it has gone away, and knows
        _discard_output()
        return OTHER_FAILURE
    except Exception as error:
        return _tell_other(app, error)
    return 0


def _tell_other(app: App, error: Exception) -> int:
    from controlplane.cli.settings import TokenFileError
    from controlplane.client import ClientError
    from controlplane.kit.config import ConfigError

    if isinstance(error, ConfigError):
        tell("\n  ".join(["The configuration has faults:", *error.lines]))
        return BAD_INPUT
    if isinstance(error, TokenFileError):
        tell(str(error))
        return BAD_INPUT
    if isinstance(error, ClientError):
        return tell_client_error(error, has_token=app.settings.token_file is not None)
    if isinstance(error, UnicodeEncodeError):
        tell(f"{error.object!r} is not UTF-8, as every word that is sent must be.")
        return BAD_INPUT
    if isinstance(error, OSError) and error.strerror:
        _discard_output()
        what = error.filename or "The output, or a temporary file,"
        tell(f"{what} can't be written: {error.strerror}.")
        return OTHER_FAILURE
    tell(f"This is a fault of ccctl itself: {type(error).__name__}: {error}. Please report it.")
    return OTHER_FAILURE


def _discard_output() -> None:
    """Have what is held back of the output go nowhere: Python would try it again at its end."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def main() -> None:
    """Run `ccctl` with the arguments of this process, and exit."""
    # gRPC writes about broken connections by itself; what matters is told as an error here.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _fill_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:], clock=SystemClock()))


def _fill_closed_streams() -> None:
    """Open what our caller has closed (`>&-`), in this order, or a connection would take its
    number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
