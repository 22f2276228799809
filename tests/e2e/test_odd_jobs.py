"""Jobs that are odd and allowed: names of every plane of Unicode, and the largest there may be."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.words import EVERY_PLANE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
WORD = "x" * 100_000


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("one"), "a") as made:
        yield made


def test_a_name_is_told_everywhere_as_it_is(one: Cluster) -> None:
    path = one.folder / "job.json"
    script = 'printf "%s\n" "$CC_JOB_NAME"'
    path.write_text(json.dumps({"name": EVERY_PLANE, "command": ["sh", "-c", script]}))
    submitted = json.loads(one.ccctl("--output", "json", "submit", path).stdout)
    name = submitted["name"]
    assert one.ended(name).exit_code == 0
    assert one.output(name).decode() == f"{EVERY_PLANE}\n"
    for words in (["show", name], ["list"], ["events", name], ["history", name]):
        told = one.ccctl("--output", "json", *words)
        assert told.returncode == 0, told.stderr
        assert EVERY_PLANE in _texts(told.stdout), words
    for language in ("C", "C.UTF-8"):
        for words in (["show", name], ["list"], ["events", name], ["history", name]):
            command = ["env", f"LC_ALL={language}", *one.as_admin, *words]
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
            assert (done.returncode, done.stderr) == (0, b""), (words, done.stderr)


def _texts(text: str) -> set[str]:
    """All strings in JSON documents, one after the other."""
    found: set[str] = set()
    decoder, at = json.JSONDecoder(), 0

    def walk(value: object) -> None:
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, dict):
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    while at < len(text.rstrip()):
        value, at = decoder.raw_decode(text, at)
        walk(value)
        while at < len(text) and text[at].isspace():
            at += 1
    return found


def test_half_a_character_is_refused_with_its_place(one: Cluster) -> None:
    path = one.folder / "half.json"
    path.write_text('{"name": "a\\ud800b", "command": ["true"]}')
    told = one.ccctl("submit", path)
    assert told.returncode == 2
    assert "name" in told.stderr
    assert "must be valid Unicode; it contains a lone surrogate" in told.stderr


def test_the_largest_job_runs_and_a_larger_one_is_refused_with_the_limit(one: Cluster) -> None:
    script = 'printf "%s %s\n" "$#" "${#V9}"'
    command = ["sh", "-c", script, "sh", *[WORD] * 10]
    env = {f"V{number}": WORD for number in range(10)}
    path = one.folder / "large.json"
    path.write_text(json.dumps({"command": command, "env": env}))
    submitted = json.loads(one.ccctl("--output", "json", "submit", path).stdout)
    job = one.ended(submitted["name"])
    assert job.exit_code == 0, job.reason
    assert one.output(job.name) == b"10 100000\n"
    path.write_text(json.dumps({"command": ["true"], "comment": "x" * (4 << 20)}))
    told = one.ccctl("submit", path)
    assert told.returncode != 0
    assert "large.json is no job.json: it has more than 4 MiB" in told.stderr
    path.write_text(json.dumps({"command": ["true"], "comment": "x" * ((4 << 20) - 100)}))
    told = one.ccctl("submit", path)
    assert told.returncode == 2
    assert "comment" in told.stderr
    assert "must have at most 4096 characters" in told.stderr
