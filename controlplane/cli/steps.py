"""The commands that work inside running jobs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from controlplane.cli.app import App, Command, ProgramCommand, pass_app
from controlplane.cli.arguments import job_name, variable

if TYPE_CHECKING:
    from controlplane.v1.step_pb2 import StepStart


@click.command(
    "exec",
    cls=ProgramCommand,
    examples="""
    ccctl exec 123 -- nvidia-smi                what rank 0's node says of the job's GPUs
    ccctl exec 123 --rank 3 -- py-spy dump --pid 4711
    ccctl exec 123 -t -- top                    with a terminal
    tar c data | ccctl exec 123 -- tar x        standard input goes along
    ccctl exec 123 --detach -- ./watch.sh       goes on alone; `ccctl logs 123 --step …` shows it
    """,
)
@click.argument("job", type=job_name)
@click.option(
    "--rank", type=click.IntRange(0, 2**31 - 1), metavar="R",
    help="Beside this worker; 0 by default.",
)  # fmt: skip
@click.option("--node", default="", metavar="N", help="Beside the first worker on this node.")
@click.option(
    "--env", "-e", "variables", multiple=True, type=variable, metavar="NAME=VALUE",
    help="Set a variable for it; may be given several times.",
)  # fmt: skip
@click.option("--tty", "-t", is_flag=True, help="Give it a terminal.")
@click.option(
    "--size", metavar="ROWSxCOLUMNS",
    help="Size of its terminal: 24x80; that of yours by default.",
)  # fmt: skip
@click.option("--no-stdin", "-n", is_flag=True, help="Give it no standard input.")
@click.option("--detach", "-d", is_flag=True, help="Let it go on alone, and print its number.")
@click.argument("command", nargs=-1, required=True)
@pass_app
def exec_(
    app: App,
    job: str,
    rank: int | None,
    node: str,
    variables: tuple[tuple[str, str], ...],
    tty: bool,
    size: str | None,
    no_stdin: bool,
    detach: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND inside the running JOB, and exit with its exit code.

    It runs as the job's owner beside one of its workers: on that worker's node and cores, with its
    devices, variables and working directory, and behind its setup lines. No shell reads COMMAND.
    Its end does not end the job; the job's end ends it. Without a terminal, the first Ctrl-C
    sends it SIGINT, and the second hangs up: then it gets SIGHUP, as after a connection that broke.
    """
    from controlplane.cli.attach import attach, check_size, window_size

    if size is not None and not tty:
        raise click.UsageError("--size is of a terminal: add --tty.")
    if detach and tty:
        raise click.UsageError("Give --tty or --detach, not both: a terminal needs somebody at it.")
    start = _start(job, rank, node, variables, command)
    start.detach = detach
    if tty:
        rows, columns = check_size(size) if size is not None else window_size()
        start.terminal.size.rows, start.terminal.size.columns = rows, columns
        start.terminal.term = os.environ.get("TERM", "")
    with app.client() as client:
        step = client.start_step(start)
        if detach:
            number = step.started.step
            click.echo(f"Started step {number} of {job} on {step.started.node_display_name}.")
            return
        code = attach(app, step, terminal=tty, stdin=not no_stdin, follow_size=size is None)
    sys.exit(code)


@click.command(
    cls=Command,
    examples="""
    ccctl shell 123                             a shell beside rank 0
    ccctl shell 123 --node gpu-07
    """,
)
@click.argument("job", type=job_name)
@click.option(
    "--rank", type=click.IntRange(0, 2**31 - 1), metavar="R",
    help="Beside this worker; 0 by default.",
)  # fmt: skip
@click.option("--node", default="", metavar="N", help="Beside the first worker on this node.")
@click.option(
    "--env", "-e", "variables", multiple=True, type=variable, metavar="NAME=VALUE",
    help="Set a variable for it; may be given several times.",
)  # fmt: skip
@pass_app
def shell(
    app: App,
    job: str,
    rank: int | None,
    node: str,
    variables: tuple[tuple[str, str], ...],
) -> None:
    """Open a shell with a terminal inside the running JOB.

    As `ccctl exec --tty`, with the shell of the account that the job runs as.
    """
    from controlplane.cli.attach import attach, window_size

    start = _start(job, rank, node, variables, ())
    start.terminal.size.rows, start.terminal.size.columns = window_size()
    start.terminal.term = os.environ.get("TERM", "")
    with app.client() as client:
        step = client.start_step(start)
        app.note(
            f"A shell beside rank {step.started.rank} of {job} on"
            f" {step.started.node_display_name}; the job goes on when it ends."
        )
        code = attach(app, step, terminal=True, stdin=True, follow_size=True)
    sys.exit(code)


def _start(
    job: str,
    rank: int | None,
    node: str,
    variables: tuple[tuple[str, str], ...],
    command: tuple[str, ...],
) -> StepStart:
    from controlplane.v1.step_pb2 import StepStart

    if rank is not None and node:
        raise click.UsageError("Give --rank or --node, not both.")
    return StepStart(
        job=job, rank=rank, node=node.removeprefix("nodes/"), command=command, env=dict(variables)
    )
