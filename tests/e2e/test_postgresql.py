"""A centre on a real PostgreSQL: its bad days, two control planes on one, and moving there."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from controlplane.client import Client
from controlplane.client.errors import Unreachable
from tests.support.cluster import BIN, Cluster, alive, cluster, until
from tests.support.postgres import Postgres, postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from controlplane.client import RetryNotice

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
CALLERS = 16
RESTARTS = 3


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as made:
        yield made


@pytest.fixture
def url(server: Postgres) -> str:
    return server.fresh()


@pytest.fixture
def centre(tmp_path: Path, url: str) -> Iterator[Cluster]:
    with cluster(tmp_path, "a", serve={"database-url": url}) as made:
        yield made


def test_a_server_that_is_restarted_under_load_loses_nothing_that_was_acknowledged(
    centre: Cluster, server: Postgres, url: str
) -> None:
    go = centre.folder / "go"
    waits = 'echo begin; while [ ! -e "$0" ]; do sleep 0.05; done; echo end'
    running = centre.submit({"command": ["sh", "-c", waits, str(go)]})
    (worker,) = centre.running(running).attempts[0].workers
    notices: list[RetryNotice] = []
    acknowledged: dict[str, str] = {}
    stop = threading.Event()

    def submit(caller: int) -> None:
        with Client(
            centre.server,
            token=centre.token_file.read_text().strip(),
            ca_file=centre.ca_file,
            timeout_s=60,
            on_retry=notices.append,
        ) as client:
            number = 0
            while not stop.is_set():
                request_id = f"{caller}-{number}"
                job = client.submit({"command": ["true"], "workers": 1000}, request_id=request_id)
                acknowledged[request_id] = job.name
                number += 1

    def so_many_more(count: int) -> None:
        goal = len(acknowledged) + count
        until(lambda: len(acknowledged) >= goal, f"{count} more to be acknowledged", 60)

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(submit, caller) for caller in range(CALLERS)]
        try:
            for _ in range(RESTARTS):
                so_many_more(2 * CALLERS)
                heard = len(notices)
                server.stop()  # as pg_ctl stop -m immediate
                until(lambda heard=heard: len(notices) > heard, "somebody to be refused")  # type: ignore[misc]
                server.start()
            so_many_more(2 * CALLERS)
        finally:
            stop.set()
        for caller in callers:
            caller.result(60)

    assert all(isinstance(notice.error, Unreachable) for notice in notices)
    words = {str(notice.error) for notice in notices}
    assert any("does not answer" in each for each in words), words
    names = list(acknowledged.values())
    assert len(set(names)) == len(names), "two requests got one job"
    kept = {job.name for job in centre.client.list()}
    assert kept == {*names, running}, "an acknowledged job is lost, or one that nobody asked for"
    database = str(sa.make_url(url).database)
    ((count, last),) = server.execute("SELECT count(*), max(seq) FROM event", database)
    assert count == last, "numbers of events have a gap"
    held = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'a control plane%'"
    until(lambda: server.execute(held), "the lock to be taken again")

    assert alive(worker.pid)
    go.touch()
    job = centre.ended(running)
    assert (job.exit_code, len(job.attempts)) == (0, 1)
    assert centre.output(running) == b"begin\nend\n"
    centre.client.cancel(names)


def test_ccctl_waits_for_a_database_that_is_away_for_a_moment(
    centre: Cluster, server: Postgres
) -> None:
    document = centre.folder / "job.json"
    document.write_text('{"command": ["true"]}')
    server.stop()
    try:
        refused = centre.ccctl("--timeout", "1", "submit", document)
        assert refused.returncode == 5, refused
        assert "does not answer" in refused.stderr
        command = [*centre.as_admin, "submit", document]
        waits = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            waits.wait(1)
    finally:
        server.start()
    out, error = waits.communicate(timeout=60)
    assert waits.returncode == 0, error
    (job,) = centre.client.list()
    assert job.name in out
    assert centre.ended(job.name).exit_code == 0


def test_a_control_plane_that_starts_before_its_database_waits_for_it(
    centre: Cluster, server: Postgres
) -> None:
    job = centre.submit({"command": ["true"], "workers": 1000})
    centre.control.kill()
    server.stop()
    try:
        centre.control.start()
        until(lambda: "it is waited for" in centre.control.log.read_text(), "it to say so")
    finally:
        server.start()
    assert until(lambda: centre.client.get(job).name, "it to answer") == job


def test_a_second_control_plane_on_the_same_database_is_refused(
    centre: Cluster, url: str, tmp_path: Path
) -> None:
    state = tmp_path / "second"
    second: list[str | Path] = [BIN / "controlplane", "serve", "--state-dir", state, "--plaintext"]
    second += ["--listen", "127.0.0.1:0", "--database-url", url]
    done = subprocess.run(second, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"is in use by a control plane, process {centre.control.pid} on " in done.stderr
    assert centre.ended(centre.submit({"command": ["true"]})).exit_code == 0, "the first goes on"
    centre.control.kill()
    centre.control.start()
    assert centre.ended(centre.submit({"command": ["true"]})).exit_code == 0


def test_a_centre_moves_to_postgresql_while_its_jobs_run(tmp_path: Path, server: Postgres) -> None:
    target = server.empty()

    def db(*words: str) -> subprocess.CompletedProcess[str]:
        state = ("--state-dir", tmp_path / "controlplane")
        command: list[str | Path] = [BIN / "controlplane", "db", *words, *state]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    with cluster(tmp_path, "a") as made:
        done = made.submit({"command": ["true"]})
        assert made.ended(done).exit_code == 0
        go = tmp_path / "go"
        waits = 'while [ ! -e "$0" ]; do sleep 0.05; done'
        runs = made.submit({"command": ["sh", "-c", waits, str(go)]})
        made.running(runs)
        refused = db("move", target)
        assert refused.returncode == 1
        assert f"is in use by a control plane, process {made.control.pid} on " in refused.stderr
        checked = db("check")
        assert (checked.returncode, checked.stderr) == (0, "")

        made.control.stop()
        moved = db("move", target)
        assert moved.returncode == 0, moved.stderr
        assert "Every row is the same on both sides." in moved.stdout
        assert db("check", target).returncode == 0
        made.control.command += ["--database-url", target]
        made.control.start()

        go.touch()
        job = made.ended(runs)
        assert (job.exit_code, len(job.attempts)) == (0, 1)
        assert made.client.get(done).exit_code == 0
        new = made.submit({"command": ["true"]})
        assert new == "jobs/3"
        assert made.ended(new).exit_code == 0
