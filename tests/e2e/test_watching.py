"""Those who watch see each event once, in order, over a kill and a restart of the control plane."""

from __future__ import annotations

import json
import subprocess
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.client import Client, ClientError
from controlplane.v1.job_service_pb2 import JobFilter
from tests.support.cluster import Cluster, cluster, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
CLIENTS, JOBS = 4, 25
SPEAKS = {
    "command": ["sh", "-c", "i=0; while [ ! -e go ]; do i=$((i+1)); echo line $i; sleep 0.05; done"]
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("one")) as made:
        made.agent("a", cpus=4)
        yield made


class Seen:
    """A watch in a thread of its own, with a client of its own."""

    def __init__(self, made: Cluster, watch: Callable[[Client], Iterator[Any]]) -> None:
        token = made.token_file.read_text().strip()
        self.client = Client(made.server, token=token, ca_file=made.ca_file)
        self.told: list[Any] = []
        self.error: ClientError | None = None
        self._watch = watch
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            for each in self._watch(self.client):
                self.told.append(each)
        except ClientError as error:
            self.error = error

    def has_come_to(self, seq: int) -> bool:
        return self.error is not None or bool(self.told[-1].seq >= seq)

    def close(self) -> None:
        self.client.close()
        self._thread.join(10)


class Ccctl:
    """`ccctl` as a process that goes on, with what it prints."""

    def __init__(self, made: Cluster, name: str, *words: str) -> None:
        self.out, self.err = made.folder / f"{name}.out", made.folder / f"{name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*made.as_admin, *words], stdout=out, stderr=err, stdin=subprocess.DEVNULL
            )

    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def submits(made: Cluster, number: int, begun: threading.Barrier, names: list[str]) -> None:
    """Submit jobs one after the other, through whatever becomes of the control plane."""
    token = made.token_file.read_text().strip()
    with Client(made.server, token=token, ca_file=made.ca_file, timeout_s=60) as client:
        begun.wait()
        for i in range(JOBS):
            # Too large for the node, so that they wait: what happens is what we do.
            job = client.submit({"name": f"w{number}-{i}", "command": ["true"], "workers": 500})
            names.append(job.name)
            if i % 3 == 0:
                client.cancel([job.name])


def test_watchers_see_all_of_it_once_over_a_kill_and_a_restart(one: Cluster) -> None:
    one.submit({"command": ["true"]})  # there is a past, which nobody watches
    first = until(lambda: list(one.client.events())[-1].seq, "an event")
    since_us = next(iter(one.client.events())).time.ToMicroseconds()
    watchers = [Seen(one, lambda client: client.watch_events()) for _ in range(3)]
    past = Seen(one, lambda client: client.watch_events(since_us=since_us))
    jobs = Seen(one, lambda client: client.watch_jobs(JobFilter(display_name="w*")))
    until(lambda: past.told, "the past to be told")
    mark = {"command": ["true"], "name": "mark", "workers": 500}
    until(lambda: one.submit(mark) and all(w.told for w in watchers), "all to watch")
    names: list[str] = []
    begun = threading.Barrier(CLIENTS + 1)
    writers = [
        threading.Thread(target=submits, args=(one, n, begun, names)) for n in range(CLIENTS)
    ]
    for each in writers:
        each.start()
    begun.wait()
    until(lambda: len(names) > CLIENTS * JOBS // 5, "some submits")
    one.control.kill()
    one.control.start()
    until(lambda: len(names) > CLIENTS * JOBS // 2, "submits after the kill", 60)
    assert one.control.stop() == 0
    one.control.start()
    for each in writers:
        each.join(120)
    assert len(set(names)) == CLIENTS * JOBS
    last = one.submit({"command": ["true"], "name": "w-last", "workers": 500})
    truth = list(one.client.events())
    end = next(e.seq for e in truth if e.kind == "job.submitted" and e.resource == last)
    for watcher in (*watchers, past):
        until(partial(watcher.has_come_to, end), "the last event", 60)
        assert watcher.error is None
        seen = [event.seq for event in watcher.told if event.seq <= end]
        assert seen == [event.seq for event in truth if seen[0] <= event.seq <= end]
    assert past.told[0].seq == truth[0].seq
    assert all(first < w.told[0].seq for w in watchers)

    def whole() -> bool:
        return {job.name for job in jobs.told} >= {*names, last}

    until(whole, "all jobs to be told")
    until(lambda: newest(jobs.told) == present(one), "the newest state of each job")
    assert jobs.error is None
    for watcher in (*watchers, past, jobs):
        watcher.close()
    one.client.cancel(filter=JobFilter(display_name="w*"))


def newest(told: list[Any]) -> dict[str, str]:
    return {job.name: job.etag for job in told}


def present(made: Cluster) -> dict[str, str]:
    return {job.name: job.etag for job in made.client.list(JobFilter(display_name="w*"))}


def test_what_people_follow_carries_on(one: Cluster, tmp_path: Path) -> None:
    name = one.submit({**SPEAKS, "name": "speaker", "working_dir": str(tmp_path)})
    one.running(name)
    followed = {
        "watch": Ccctl(one, "watch", "watch", name, "-o", "json"),
        "list": Ccctl(one, "list", "list", "--watch", "--name", "speaker", "-o", "json"),
        "events": Ccctl(one, "events", "events", "-f", "--kind", "job", "--since", "1d"),
        "logs": Ccctl(one, "logs", "logs", "-f", name),
    }
    try:
        for kind, each in followed.items():
            until(each.lines, f"{kind} to have begun")
        one.control.kill()
        one.control.start()
        until(one.client.server_info, "the control plane to answer")
        one.client.hold_jobs([name])
        until(lambda: any("held it" in line for line in followed["events"].lines()), "the hold")
        # Who follows one job is told how it is, not all that it was: let each see the hold.
        held = '"held_by": "admin"'
        until(lambda: any(held in line for line in followed["watch"].lines()), "its watcher to see")
        assert one.control.stop() == 0
        one.control.start()
        until(one.client.server_info, "the control plane to answer")
        one.client.release_jobs([name])
        (tmp_path / "go").touch()
        assert followed["logs"].process.wait(60) == 0, followed["logs"].err.read_text()
        assert followed["watch"].process.wait(60) == 0, followed["watch"].err.read_text()

        def ended() -> bool:
            return bool(json.loads(followed["list"].lines()[-1])["state"] == "succeeded")

        until(ended, "the list to tell the end")
        until(lambda: len(sentences(followed["events"])) == 2, "the release")
    finally:
        for each in followed.values():
            each.end()
    printed = followed["logs"].lines()
    assert printed == [f"line {n}" for n in range(1, len(printed) + 1)]
    story = [json.loads(line) for line in followed["watch"].lines()]
    assert [job["held_by"] for job in story].count("admin") >= 1
    assert story[-1]["state"] == "succeeded"
    etags = [json.loads(line)["etag"] for line in followed["list"].lines()]
    assert len(etags) == len(set(etags)), "no state is told twice"
    assert [line[21:] for line in sentences(followed["events"])] == [
        f"{name}: admin held it from 127.0.0.1",
        f"{name}: admin released it from 127.0.0.1; admin had held it",
    ]
    history = one.ccctl("history", name).stdout.splitlines()
    assert history[0].endswith("admin submitted it from 127.0.0.1")
    assert any(line.endswith("placed on a as attempt 1") for line in history)
    assert history[-1].endswith("attempt 1 succeeded")


def sentences(followed: Ccctl) -> list[str]:
    return [line for line in followed.lines() if "held it" in line]
