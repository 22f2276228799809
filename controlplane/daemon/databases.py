"""`controlplane db`: looks at the registry's database, brings it up to date, and moves it."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import sqlalchemy as sa

from controlplane.daemon import starting
from controlplane.daemon.options import config_option, load_settings, told
from controlplane.daemon.settings import Settings
from controlplane.kit.options import settings_options
from controlplane.kit.private import as_owner_of
from controlplane.model.errors import WrongState
from controlplane.registry import inspecting, migrate, moving
from controlplane.registry.database import connect, reading
from controlplane.registry.holding import holding

if TYPE_CHECKING:
    from collections.abc import Iterator

url_argument = click.argument("url", required=False)


@click.group()
def db() -> None:
    """Look at the registry's database, bring it up to date, or move it to another one.

    The database is that of the settings, unless a URL is named.
    """


@db.command()
@url_argument
@config_option
@settings_options(Settings)
def check(url: str | None, config: Path | None, flags: dict[str, Any]) -> None:
    """Look a database through, and say what it is and what is wrong with it.

    Changes nothing, and may be done while a control plane runs. Ends with code 1 if anything is
    wrong.
    """
    url, setting = _named(url, config, flags)
    with told(), _opened(url, setting):
        found = inspecting.inspect(url)
    width = max(map(len, found.told))
    for name, words in found.told.items():
        click.echo(f"{name:<{width}}  {words}")
    if found.rows:
        rows = ", ".join(f"{name} {count}" for name, count in sorted(found.rows.items()))
        click.echo(f"{'rows':<{width}}  {rows}")
    for fault in found.faults:
        click.echo(f"controlplane: {fault}", err=True)
    if found.faults:
        sys.exit(1)
    click.echo(f"{'faults':<{width}}  none")


@db.command()
@url_argument
@config_option
@settings_options(Settings)
def upgrade(url: str | None, config: Path | None, flags: dict[str, Any]) -> None:
    """Bring a database's schema up to date, or make it in a new one.

    A start of the control plane does the same. Refused while one runs.
    """
    url, setting = _named(url, config, flags)
    with told(), _opened(url, setting, new=True), holding(url, "an upgrade"):
        before = _schema(url)
        after = migrate.upgrade(url)
    if before == after:
        click.echo(f"schema {after}: was up to date")
    else:
        click.echo(f"schema {after}: was {before or 'not there'}")


@db.command()
@click.argument("url")
@config_option
@settings_options(Settings)
def move(url: str, config: Path | None, flags: dict[str, Any]) -> None:
    """Copy the registry into the empty database URL, and verify every row on both sides.

    Refused while a control plane runs on either. The old database stays as it is.
    """
    source = load_settings(config, flags).value.database
    with told():
        with starting.told_of_database("URL"):
            connect(url).dispose()  # is it one at all?
        with _opened(source, ""):
            moved = moving.move(source, url, lambda words: click.echo(words, err=True))
    width = max(len(each.table) for each in moved)
    click.echo(f"{'TABLE':<{width}}  {'ROWS':>10}  SHA-256")
    for each in moved:
        click.echo(f"{each.table:<{width}}  {each.rows:>10}  {each.digest}")
    click.echo(
        "Every row is the same on both sides. Set database_url, start the control plane, and start"
        " none on the old database again: it would give out the same numbers."
    )


def _named(url: str | None, config: Path | None, flags: dict[str, Any]) -> tuple[str, str]:
    """A database, and what named it."""
    if url is not None:
        return url, "URL"
    return load_settings(config, flags).value.database, "database_url"


def _schema(url: str) -> str | None:
    engine = connect(url)
    try:
        with reading(engine) as connection:
            return migrate.present(connection)
    finally:
        engine.dispose()


@contextmanager
def _opened(url: str, setting: str, *, new: bool = False) -> Iterator[None]:
    """Faults of a database are told, and a file of SQLite's is worked on as its folder's owner.

    WrongState when the file is not there, unless it may be `new`.
    """
    with starting.told_of_database(setting), ExitStack() as stack:
        known = sa.make_url(url)
        if known.get_backend_name() == "sqlite" and known.database:
            path = Path(known.database)
            if not path.parent.is_dir() or not (new or path.exists()):
                raise WrongState(f"there is no database {path}; name another, or its state_dir")
            stack.enter_context(as_owner_of(path.parent))
        yield
