"""A throw-away PostgreSQL: a cluster of its own from the system's package, that ends with the test.

Names are ordered by a language's rules there, as in most installations: where we need bytes, we
have to ask for them.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa

from controlplane.registry.migrate import upgrade
from controlplane.registry.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGURATION = """
listen_addresses = ''
fsync = off
full_page_writes = off
max_connections = 200
shared_buffers = 32MB
"""


def programs() -> Path:
    """The folder of the server's programs. Skips the test where there are none, unless they must be
    there: `.ci/run` installs them."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        lacking = "needs PostgreSQL's server: apt-get install postgresql"
        if os.environ.get("POSTGRESQL") == "required":
            raise AssertionError(lacking)
        pytest.skip(lacking)
    return found[-1].parent if found else Path(str(on_path)).parent


class Postgres:
    """A server on a socket in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._bin = folder, programs()
        self._names = (f"test{number}" for number in itertools.count(1))
        self._free: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        done = subprocess.run(
            [
                *self._command("initdb"),
                *("-D", folder / "data", "-U", "postgres", "--auth=trust", "--no-sync"),
                *("-E", "UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.write(f"{CONFIGURATION}unix_socket_directories = '{folder}'\n")
        self.start()

    def _command(self, program: str) -> list[str | Path]:
        # The server refuses to be root; and it must not outlive us.
        drop = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        return ["setpriv", *drop, "--pdeathsig=QUIT", self._bin / program]

    def start(self) -> None:
        """Start, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command("postgres"), "-D", self.folder / "data"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    log_text = (self.folder / "log").read_text(errors="replace")
                    raise AssertionError(f"{error}\n{log_text[-2000:]}") from None
                time.sleep(0.02)

    def stop(self, number: int = signal.SIGQUIT) -> None:
        """End it; SIGQUIT is `pg_ctl stop -m immediate`: no word to anybody, no checkpoint."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement; its rows."""
        where = f"host={self.folder} user=postgres dbname={database}"
        with psycopg.connect(where, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def url(self, database: str) -> str:
        """A database as we name it."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def empty(self) -> str:
        """The URL of a new database without anything."""
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def fresh(self) -> str:
        """The URL of a new database with the schema."""
        if not self.execute("SELECT 1 FROM pg_database WHERE datname = 'schema'"):
            self.execute("CREATE DATABASE schema")
            upgrade(self.url("schema"))
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name} TEMPLATE schema")
        return self.url(name)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a database with the schema and nothing in it, used again after the block: a
        new one is 7 MiB to copy."""
        url = self._free.pop() if self._free else self.fresh()
        yield url
        # Sooner done than TRUNCATE, which makes new files.
        emptied = "; ".join(f'DELETE FROM "{table}"' for table in reversed(metadata.sorted_tables))
        self.execute(emptied, database=str(sa.make_url(url).database))
        self._free.append(url)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server until the end of the block."""
    # The path of a socket is short, so not in a test's own folder.
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder:
        made = Postgres(Path(folder))
        try:
            yield made
        finally:
            made.stop()
