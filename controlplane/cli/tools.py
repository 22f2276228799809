"""The commands about `ccctl` itself: version, schema, completion, configuration."""

from __future__ import annotations

import json

import click

from controlplane import __version__
from controlplane.cli.app import App, Command, Group, pass_app

API_VERSION = "v1"


@click.command(
    cls=Command,
    examples="""
    ccctl version
    ccctl version --remote                      and the control plane's, and who you are there
    """,
)
@click.option("--remote", is_flag=True, help="Ask the control plane for its version too.")
@pass_app
def version(app: App, remote: bool) -> None:
    """Tell the version of ccctl, and of the API that it speaks."""
    # Without --remote no configuration is read: this works, and quickly, whatever else is broken.
    output = str(app.flags.get("output", "table"))
    client_part = {"version": __version__, "api_version": API_VERSION}
    if not remote and output == "table":
        click.echo(f"ccctl {__version__} (API {API_VERSION})")
        return
    if not remote:
        from controlplane.cli.render import write

        click.echo(write({"client": client_part}, output))
        return
    from controlplane.cli.render import plain

    with app.client() as client:
        info = client.server_info()
    app.emit(
        lambda: {"client": client_part, "server": plain(info)},
        lambda console: console.print(
            f"ccctl {__version__} (API {API_VERSION})\n"
            f"control plane {info.version} at {app.settings.server}: cluster {info.cluster_uuid}, "
            f"epoch {info.epoch}; you are {info.principal} ({info.role})"
        ),
    )


@click.command(cls=Command, examples="ccctl schema > job.schema.json")
def schema() -> None:
    """Print the JSON Schema of job.json.

    With it editors complete and check the file.
    """
    from controlplane.model.spec import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@click.command(
    cls=Command,
    examples="""
    eval "$(ccctl completion bash)"             in ~/.bashrc
    eval "$(ccctl completion zsh)"              in ~/.zshrc
    ccctl completion fish > ~/.config/fish/completions/ccctl.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete ccctl."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    maker = found(ctx.find_root().command, {}, "ccctl", "_CCCTL_COMPLETE")
    click.echo(maker.source_template % maker.source_vars())


@click.group("config", cls=Group, examples="ccctl config show")
def config() -> None:
    """Show how ccctl is configured."""


@config.command("show", examples="ccctl config show")
@pass_app
def show_config(app: App) -> None:
    """Show the effective settings, and where each came from.

    Options win over the environment (CCCTL_SERVER, CCCTL_TOKEN_FILE, CCCTL_CA_FILE, CCCTL_TIMEOUT,
    CCCTL_OUTPUT), which wins over $XDG_CONFIG_HOME/ccctl/config.toml. The token is never shown.
    """
    from dataclasses import asdict

    values = {
        name: str(value) if name.endswith("_file") and value is not None else value
        for name, value in asdict(app.settings).items()
    }
    sources = app.loaded.sources

    def draw(console: object) -> None:
        from rich.console import Console

        from controlplane.cli.jobtables import cell, table

        assert isinstance(console, Console)
        made = table("SETTING", "VALUE", "FROM")
        for name, value in values.items():
            made.add_row(cell(name), cell("" if value is None else value), cell(sources[name]))
        console.print(made)

    app.emit(lambda: {"settings": values, "sources": dict(sources)}, draw)
