"""What every command stands on: shared options, the server, and the way to the screen."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import click

from controlplane.cli.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from controlplane.cli.settings import Settings
    from controlplane.client import Client, RetryNotice
    from controlplane.kit.clock import Clock
    from controlplane.kit.config import Loaded

WIDE: Final = 10_000
"""Columns of a table that goes to a file or a pipe: nothing is cut."""

_AWAY_AGAIN_US: Final = 5_000_000


@dataclass(kw_only=True)
class App:
    """One run of `ccctl`."""

    clock: Clock
    """Tells how long ago things were."""
    flags: dict[str, object] = field(default_factory=dict)
    """Settings given as options, by name."""
    color: bool = True
    """Whether a terminal may be coloured."""

    _tell_away_us: int = 0

    @cached_property
    def loaded(self) -> Loaded[Settings]:
        """The effective settings with their sources; raises `ConfigError`."""
        from controlplane.cli.settings import load_settings

        return load_settings(os.environ, self.flags)

    @property
    def settings(self) -> Settings:
        """The effective settings; raises `ConfigError`."""
        return self.loaded.value

    def client(self) -> Client:
        """Give a client for the server, to be used in a `with`."""
        from controlplane.cli.settings import is_private, read_token
        from controlplane.client import Client

        settings = self.settings
        token = None
        if settings.token_file is not None:
            token = read_token(settings.token_file)
            if not is_private(settings.token_file):
                self.note(f"Warning: others can read your token; chmod 600 {settings.token_file}")
        return Client(
            settings.server,
            token=token,
            ca_file=settings.ca_file.expanduser() if settings.ca_file else None,
            timeout_s=settings.timeout,
            on_retry=self._tell_retry,
            on_upload=self._tell_upload,
        )

    def note(self, text: str) -> None:
        """Tell something beside the answer, on stderr."""
        click.echo(visible(text), err=True)

    def emit(self, document: Callable[[], object], table: Callable[[Console], None]) -> None:
        """Show an answer in the form that was asked for; only that form is made."""
        if self.settings.output == "table":
            self.draw(table)
        else:
            from controlplane.cli.render import write

            click.echo(write(document(), self.settings.output))

    def draw(self, table: Callable[[Console], None]) -> None:
        """Show a table: coloured and fitted to a terminal, plain and uncut elsewhere."""
        from rich.console import Console

        terminal = sys.stdout.isatty()
        console = Console(
            width=None if terminal else WIDE,
            no_color=not self.color or None,
            force_terminal=terminal,
            markup=False,
            emoji=False,
            highlight=False,
        )
        with console.capture() as capture:
            table(console)
        for line in capture.get().splitlines():
            click.echo(line.rstrip(), color=terminal)

    def _tell_retry(self, notice: RetryNotice) -> None:
        # Once per absence, though several streams may notice it.
        boot_us = self.clock.boot_us()
        if notice.tries == 1 and boot_us >= self._tell_away_us:
            self._tell_away_us = boot_us + _AWAY_AGAIN_US
            left_s = math.ceil(notice.left_s)
            self.note(f"{notice.error.message} Trying again for up to {left_s} s …")

    def _tell_upload(self, sent: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if sent == total else ""
            click.echo(
                f"\rShipping the working directory: {sent / total:4.0%}{end}", nl=False, err=True
            )


pass_app = click.make_pass_decorator(App)
"""Hands a command's function the `App`."""


def _keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
    app = ctx.find_object(App)
    if app is None or value is None or ctx.resilient_parsing:
        return
    if param.name == "no_color":
        app.color = app.color and not value
    elif param.name is not None:
        app.flags[param.name] = value


def _shared_options(*, hidden: bool) -> list[click.Parameter]:
    """The options that may stand before and after a command's name; help tells them once."""

    def option(*names: str, **more: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=_keep, hidden=hidden, **more)

    return [
        option("--server", metavar="ADDRESS", help="The control plane: host:port or unix:/path."),
        option("--token-file", metavar="FILE", help="File that holds your token."),
        option("--ca-file", metavar="FILE", help="PEM certificates to trust."),
        option("--timeout", metavar="SECONDS", help="How long a call may take; 15 by default."),
        option(
            "--output",
            "-o",
            type=click.Choice(["table", "json", "yaml"]),
            help="Table for people, JSON or YAML for programs.",
        ),
        option("--no-color", is_flag=True, default=None, help="No colours on a terminal."),
    ]


class Command(click.Command):
    """A command that shows examples in its help, and takes the shared options too."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        """`examples`: lines to type, with what they do."""
        super().__init__(*args, **kwargs)
        self.examples = examples
        # A command may have one of them as its own, such as --output with further forms.
        own = {name for param in self.params for name in param.opts}
        shared = _shared_options(hidden=True)
        self.params.extend(option for option in shared if own.isdisjoint(option.opts))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, and where the other options are told."""
        write_examples(self.examples, formatter)
        formatter.write_paragraph()
        formatter.write_text("See `ccctl --help` for the options that all commands share.")


class ProgramCommand(Command):
    """A command that ends with another program's command line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As ever; an option that is not ours may be meant for the program."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if "--" in args:
                raise
            words = f"{error.message} If it is COMMAND's, write -- before COMMAND."
            raise click.UsageError(words, ctx) from None


class Group(click.Group):
    """A group of commands."""

    command_class = Command

    def __init__(self, *args: Any, examples: str = "", shared: bool = False, **kwargs: Any) -> None:
        """`examples`: as for commands. `shared`: whether help tells the shared options here."""
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params.extend(_shared_options(hidden=not shared))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        write_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)


Group.group_class = Group


def write_examples(examples: str, formatter: click.HelpFormatter) -> None:
    """Write a section of lines to type, as they are."""
    if examples:
        with formatter.section("Examples"):
            for line in examples.strip().splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line.strip()}\n")
