"""The commands that show jobs, follow them and end them."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import click
from click.core import ParameterSource

from controlplane.cli.app import App, Command, pass_app
from controlplane.cli.arguments import (
    LIVING_STATES,
    Wanted,
    byte_size,
    filter_options,
    job_name,
    moment,
    signal_name,
)
from controlplane.cli.failures import INTERRUPTED, Failure


@click.command(
    "list",
    cls=Command,
    examples="""
    ccctl list                                  the newest 100 jobs
    ccctl list --state pending --state active   what waits and what runs
    ccctl list --owner ada --since 1d           what ada submitted in the last day
    ccctl list --name 'bert-*' --label team=nlp
    ccctl list --all -o json                    everything, for a program
    ccctl list --watch --state active           and a line for each change, until Ctrl-C
    """,
)
@filter_options
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True, metavar="N",
    help="At most so many.",
)  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="All of them, however many.")
@click.option(
    "--watch", "-w", "watch_", is_flag=True,
    help="A line for each, and then one for each that changes, until Ctrl-C.",
)  # fmt: skip
@pass_app
@click.pass_context
def list_jobs(
    ctx: click.Context, app: App, /, limit: int, everything: bool, watch_: bool, **wanted: Any
) -> None:
    """List jobs, newest first."""
    if watch_:
        from controlplane.cli.joblines import watch_list

        if everything or ctx.get_parameter_source("limit") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--watch tells all that match: leave out --limit and --all.")
        watch_list(app, Wanted(**wanted))
    from controlplane.cli.jobtables import draw_jobs
    from controlplane.cli.render import plain

    with app.client() as client:
        page = 1000 if everything else min(limit + 1, 1000)
        found = client.list(Wanted(**wanted).filter(), page_size=page)
        jobs = list(found if everything else itertools.islice(found, limit + 1))
    more = not everything and len(jobs) > limit
    del jobs[limit if more else len(jobs) :]

    def document() -> object:
        # The list comes without attempts: an empty list of them would say something else.
        shown = [plain(job) for job in jobs]
        for job in shown:
            del job["attempts"]
        return {"jobs": shown, "more": more}

    app.emit(document, lambda console: draw_jobs(console, jobs, app.clock.now_us()))
    if more and app.settings.output == "table":
        app.note(f"The newest {limit} are shown; there are more: --all shows all.")


@click.command(
    cls=Command,
    examples="""
    ccctl show 123
    ccctl show jobs/123 -o json
    """,
)
@click.argument("job", type=job_name)
@pass_app
def show(app: App, job: str) -> None:
    """Show all about JOB.

    What it asked for, why it waits or how it ended, its attempts and their workers.
    """
    from controlplane.cli.jobtables import draw_job
    from controlplane.cli.render import plain

    with app.client() as client:
        found = client.get(job)
    app.emit(lambda: plain(found), lambda console: draw_job(console, found, app.clock.now_us()))


@click.command(
    cls=Command,
    examples="""
    ccctl logs 123                              all that its workers wrote in the last attempt
    ccctl logs -f 123                           and on until it ends, attempt after attempt
    ccctl logs 123 --since 10m                  of the last ten minutes, whichever attempt
    ccctl logs 123 --since 2026-03-01T14:00 --until 2026-03-01T14:05
    ccctl logs 123 --rank 0 --stderr --tail 4KiB
    ccctl logs 123 --rank 0 --stdout > out.bin  the very bytes
    """,
)
@click.argument("job", type=job_name)
@click.option(
    "--follow", "-f", is_flag=True,
    help="Go on until the job ends, attempt after attempt; with --attempt until that one does.",
)  # fmt: skip
@click.option(
    "--rank", "ranks", multiple=True, type=click.IntRange(0, 2**31 - 1), metavar="N",
    help="Only this worker; may be given several times.",
)  # fmt: skip
@click.option("--stdout", "only_stdout", is_flag=True, help="Only standard output.")
@click.option("--stderr", "only_stderr", is_flag=True, help="Only standard error.")
@click.option(
    "--attempt", type=click.IntRange(1, 2**31 - 1), metavar="N",
    help="This attempt; the last one by default, and all of them with --since or --until.",
)  # fmt: skip
@click.option(
    "--since", "since_us", type=moment, metavar="TIME",
    help="Only what was printed since: 10m, 1d12h, or a date.",
)  # fmt: skip
@click.option(
    "--until", "until_us", type=moment, metavar="TIME",
    help="Only what was printed before that time.",
)  # fmt: skip
@click.option(
    "--tail", type=byte_size, metavar="SIZE",
    help="Only so many last bytes of each worker's stream: 4KiB.",
)  # fmt: skip
@click.option(
    "--step", type=click.IntRange(1, 2**63 - 1), metavar="N",
    help="Instead of the workers' output, that of this detached step.",
)  # fmt: skip
@pass_app
def logs(
    app: App,
    job: str,
    follow: bool,
    ranks: tuple[int, ...],
    only_stdout: bool,
    only_stderr: bool,
    attempt: int | None,
    since_us: int | None,
    until_us: int | None,
    tail: int | None,
    step: int | None,
) -> None:
    """Show what the workers of JOB wrote.

    With several workers each line begins with its worker's rank. On a terminal control characters
    are made visible; a pipe or a file gets the bytes of a single worker unchanged.

    --since and --until ask for a time, whichever attempt printed then; --attempt names one of them.
    Times are those of the worker's node, kept for each second or so of output: up to a second's
    more is shown, and lines that are cut there are shown whole.
    """
    from controlplane.cli.follow import printer_for, tell_missing, tell_nothing

    if only_stdout and only_stderr:
        raise click.UsageError("Give --stdout or --stderr; without either both are shown.")
    if follow and until_us is not None:
        raise click.UsageError("--until says where to end, and --follow goes on: leave one out.")
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise click.UsageError("--since is not before --until: nothing lies between them.")
    with app.client() as client:
        found, shown = client.get(job), False
        printer = printer_for(found, (0,) if step else ranks)

        def begin(number: int) -> None:
            printer.close()
            app.note(f"… attempt {number} of {job} …")

        try:
            for piece in client.logs(
                job,
                attempt=attempt or 0,
                ranks=ranks,
                stream="stdout" if only_stdout else "stderr" if only_stderr else None,
                follow=follow,
                tail_bytes=tail or 0,
                since_us=since_us,
                until_us=until_us,
                step=step or 0,
                on_attempt=begin,
            ):
                shown = True
                tell_missing(app, piece)
                printer.write(piece)
        finally:
            printer.close()
    chosen = only_stdout or only_stderr or step or since_us is not None or until_us is not None
    if not (shown or chosen):
        tell_nothing(app, found, attempt, ranks)


@click.command(
    cls=Command,
    examples="""
    ccctl watch 123                             a line for each change; exits with the job's code
    ccctl watch 123 -o json                     one JSON object per line
    """,
)
@click.argument("job", type=job_name)
@pass_app
def watch(app: App, job: str) -> None:
    """Tell each change of JOB until it ends.

    Exits with the job's exit code.
    """
    import json

    from controlplane.cli.follow import StateLines, exit_code
    from controlplane.cli.render import plain, write

    lines, last, output = StateLines(app), None, app.settings.output
    with app.client() as client:
        try:
            for last in client.watch(job):
                if output == "json":
                    click.echo(json.dumps(plain(last)))
                elif output == "yaml":
                    click.echo(f"---\n{write(plain(last), output)}")
                else:
                    lines.tell(last)
        except KeyboardInterrupt:
            app.note(f"\n{job} runs on. `ccctl watch {job}` goes on watching.")
            sys.exit(INTERRUPTED)
    sys.exit(exit_code(last) if last is not None else 0)


@click.command(
    cls=Command,
    examples="""
    ccctl cancel 123 124
    ccctl cancel --owner ada --state pending    asks first
    ccctl cancel --name 'sweep-*' --yes
    """,
)
@click.argument("jobs", nargs=-1, type=job_name)
@filter_options
@click.option("--yes", "-y", is_flag=True, help="Do not ask before cancelling by filter.")
@pass_app
def cancel(app: App, /, jobs: tuple[str, ...], yes: bool, **wanted: Any) -> None:
    """End JOBS, or every job that matches a filter.

    Waiting jobs end at once. Running ones get SIGTERM, and SIGKILL after their grace period.
    Jobs that have ended are left as they are.
    """
    from controlplane.cli.render import plain

    which = Wanted(**wanted)
    if jobs and not which.everything:
        raise click.UsageError("Name jobs or give a filter, not both.")
    if not jobs and which.everything:
        raise click.UsageError("Name the jobs to cancel, or give a filter such as --owner.")
    with app.client() as client:
        if not jobs:
            which = Wanted(**{**wanted, "state": which.state or LIVING_STATES})
            if not yes:
                _confirm(sum(1 for _ in client.list(which.filter(), page_size=1000)))
        answer = client.cancel(jobs, filter=None if jobs else which.filter())

    def table(console: Any) -> None:
        for name in answer.cancelled:
            console.print(f"{name} is being cancelled.")
        for name in answer.already_ended:
            console.print(f"{name} had ended before.")
        if not answer.cancelled and not answer.already_ended:
            console.print("No job matches.")

    app.emit(lambda: plain(answer), table)


def _confirm(count: int) -> None:
    if not count:
        return
    if not sys.stdin.isatty():
        raise Failure(f"This would cancel {count} jobs; add --yes where nobody can be asked.")
    jobs = "1 job" if count == 1 else f"{count} jobs"
    click.confirm(f"Cancel {jobs}?", abort=True, err=True)


@click.command(
    cls=Command,
    examples="""
    ccctl signal 123 USR1                       to every worker of job 123
    ccctl signal 123 USR2 --rank 0 --rank 3
    """,
)
@click.argument("job", type=job_name)
@click.argument("signal", type=signal_name)
@click.option(
    "--rank", "ranks", multiple=True, type=click.IntRange(0, 2**31 - 1), metavar="N",
    help="Only to this worker; may be given several times.",
)  # fmt: skip
@pass_app
def signal(app: App, job: str, signal: str, ranks: tuple[int, ...]) -> None:
    """Send SIGNAL to the workers of JOB.

    Each worker that runs gets it once, with its process group. What it does with it is the
    program's own affair: one that does not handle it is ended by most signals. KILL and STOP,
    which no program can handle, are refused; to end a job, cancel it.
    """
    from controlplane.cli.render import plain

    with app.client() as client:
        answer = client.signal(job, signal, ranks=ranks)
    whom = f"rank {answer.ranks[0]}" if len(answer.ranks) == 1 else f"{len(answer.ranks)} workers"
    app.emit(
        lambda: plain(answer),
        lambda console: console.print(f"{answer.signal} is being sent to {whom} of {job}."),
    )
