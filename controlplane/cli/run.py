"""`ccctl run`: a job from a command line, followed to its end."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from controlplane.cli.app import App, ProgramCommand, pass_app
from controlplane.cli.arguments import variable
from controlplane.cli.failures import Failure, fault_list


@click.command(
    "run",
    cls=ProgramCommand,
    examples="""
    ccctl run -- hostname                       as soon as there is room for it
    ccctl run --gpus 1 --cpus 8 --memory 64GiB --time-limit 2h -- python train.py
    ccctl run --ship . -- make test             in a copy of this folder
    ccctl run --gpus 1 --pty -- bash            a shell with a terminal, in a job of its own
    ccctl run -- gzip <data >data.gz            standard input goes along
    ccctl run --set queue=short --set max_attempts=3 -- ./flaky
    """,
)
@click.option("--gpus", metavar="N", help="GPUs; none by default.")
@click.option("--cpus", metavar="N", help="Cores, such as 4 or 0.5.")
@click.option("--memory", metavar="SIZE", help="Memory: 8GiB.")
@click.option("--time-limit", metavar="TIME", help="End it after so long: 30m, 2h.")
@click.option("--name", metavar="NAME", help="Its display name.")
@click.option(
    "--env", "-e", "variables", multiple=True, type=variable, metavar="NAME=VALUE",
    help="Set a variable for it; may be given several times.",
)  # fmt: skip
@click.option("--working-dir", metavar="PATH", help="The folder on the node to run in.")
@click.option("--ship", metavar="FOLDER", help="Run in a copy of this folder of yours.")
@click.option(
    "--set", "overrides", multiple=True, metavar="FIELD=VALUE",
    help="Any other field of job.json; may be given several times.",
)  # fmt: skip
@click.option("--pty", "-t", is_flag=True, help="Give it a terminal; the job ends with it.")
@click.option("--no-stdin", "-n", is_flag=True, help="Give it no standard input.")
@click.argument("command", nargs=-1, required=True)
@pass_app
def run_(
    app: App,
    command: tuple[str, ...],
    gpus: str | None,
    cpus: str | None,
    memory: str | None,
    time_limit: str | None,
    name: str | None,
    variables: tuple[tuple[str, str], ...],
    working_dir: str | None,
    ship: str | None,
    overrides: tuple[str, ...],
    pty: bool,
    no_stdin: bool,
) -> None:
    """Submit COMMAND as a job, follow it to its end, and exit with its exit code.

    Its states are told on stderr, and its output comes as it is written. Ctrl-C asks what is meant:
    a second one cancels the job, a third leaves it to its end. To work inside it meanwhile, see
    `ccctl exec` and `ccctl shell`.

    With --pty, or with a pipe or a file on standard input, COMMAND is connected with you: then its
    output is yours alone and not kept, and the job is over when you are gone.
    """
    from controlplane.cli import attended
    from controlplane.cli.follow import Interrupts, follow
    from controlplane.client import InvalidInput
    from controlplane.client.shipping import check_document
    from controlplane.model.spec import InvalidSpec, apply_overrides

    if working_dir is not None and ship is not None:
        raise click.UsageError("Give --working-dir or --ship, not both.")
    if pty and no_stdin:
        raise click.UsageError("Give --pty or --no-stdin, not both: a terminal is typed into.")
    document: dict[str, object] = {"launcher": "command", "command": list(command)}
    if name is not None:
        document["name"] = name
    if variables:
        document["env"] = dict(variables)
    if working_dir is not None:
        document["working_dir"] = working_dir
    if ship is not None:
        document["working_dir"] = {"ship": ship}
    flags = {
        "resources.gpus": gpus,
        "resources.cpus": cpus,
        "resources.memory": memory,
        "time_limit": time_limit,
    }
    given = [f"{field}={value}" for field, value in flags.items() if value is not None]
    try:
        document = apply_overrides(document, [*given, *overrides])
        check_document(document)
        if pty and (why := attended.unfit(document)):
            raise click.UsageError(f"--pty: nobody can be at this job: {why}.")
        at_it = pty or (not no_stdin and attended.wants_input() and not attended.unfit(document))
        with app.client() as client:
            if at_it:
                code = attended.attend(app, client, document, tty=pty)
            else:
                job = client.submit(document, base=Path())
                app.note(f"Submitted {job.name}.")
                with Interrupts(app, client, job.name):
                    code = follow(app, client, job, apart=True)
    except InvalidSpec as error:
        lines = "\n".join(f"  {fault}" for fault in error.faults)
        raise Failure(f"--set can't be applied:\n{lines}") from None
    except InvalidInput as error:
        if not error.faults:
            raise
        raise Failure(fault_list("The job", error.faults)) from None
    sys.exit(code)
