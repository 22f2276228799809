"""Priority classes, queues, reservations and labels by `ccctl`, with a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from controlplane.model.identity import Role
from tests.cli.golden import check
from tests.support.centre import Centre, centre

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Ccctl

NODES = tuple(f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2))


@pytest.fixture
def made(ccctl: Ccctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Centre]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    with centre(tmp_path) as found:
        for number, uuid in enumerate(NODES):
            found.join(uuid, "an-agent", f"gpu-{number}")
        token = tmp_path / "token"
        token.write_text(found.token("olga", Role.ADMIN))
        token.chmod(0o600)
        monkeypatch.setenv("CCCTL_SERVER", found.address)
        monkeypatch.setenv("CCCTL_TOKEN_FILE", str(token))
        yield found


def lines(ccctl: Ccctl, *commands: str) -> str:
    pages = []
    for words in commands:
        told = ccctl(*_split(words))
        code = f"[exit code {told.code}]\n" if told.code else ""
        pages.append(f"$ ccctl {words}\n{told.out}{told.err}{code}")
    return "\n".join(pages)


def _split(words: str) -> list[str]:
    import shlex

    return shlex.split(words)


def test_all_that_can_be_done_word_for_word(made: Centre, ccctl: Ccctl) -> None:
    first = made.submit("ada", queue="default")
    assert first == 1
    check(
        "queues.txt",
        lines(
            ccctl,
            "priority-class list",
            "priority-class create idle --value 0 --preemption never --description 'at night'",
            "priority-class create usual --value 2000 --default",
            "priority-class create usual --value 7",
            "priority-class list",
            "priority-class show idle",
            "priority-class delete usual",
            "priority-class delete normal",
            "priority-class delete nothing",
            "node label gpu-0 tier=prod rack=r1",
            "node label gpu-0 rack- fast=",
            "node label gpu-0 nothing-",
            "node label gpu-0 nothing",
            "node list --selector tier=prod",
            "node list --selector tier",
            "node list --selector 'tier in prod'",
            "queue create night --selector tier=prod --max-time 2h --account vision --user bob",
            "queue create Night",
            "queue create day --default-time 3h --max-time 2h",
            "queue list",
            "queue update night --default-time 1h --max-gpus 8 --priority 5 --user ''",
            "queue update night --close 'the cooling is mended'",
            "queue show night",
            "queue update night --open --max-time none --max-gpus none",
            "queue show night",
            "queue update night",
            "queue delete default",
            "queue delete night",
            "queue show night",
            "reservation create demo --from 2036-03-01T18:00 --for 4h --nodes gpu-0 --user ada",
            "reservation create power --from 2036-03-02T00:00 --to 2036-03-02T12:00"
            " --selector tier=prod --maintenance --description 'new cables'",
            "reservation create other --from 2036-03-01T20:00 --for 4h --nodes gpu-0 --user eve",
            "reservation create other --from 2036-03-01T20:00 --for 4h --nodes gpu-0",
            "reservation create other --from 2036-03-01T20:00 --for 4h --nodes gpu-9 --user ada",
            "reservation create other --from 2036-03-05 --for 4h --selector tier=none"
            " --maintenance",
            "reservation create other --from 2006-03-01 --for 4h --nodes gpu-0 --user ada",
            "reservation create other --nodes gpu-0 --user ada",
            "reservation list",
            "reservation show power",
            "reservation delete demo",
            "reservation list",
        ),
    )


def test_programs_read_all_of_it(made: Centre, ccctl: Ccctl) -> None:
    assert ccctl(*_split("queue create night --max-time 2h --max-gpus 0")).code == 0
    found = json.loads(ccctl(*_split("queue list -o json")).out)["queues"]
    assert [one["name"] for one in found] == ["queues/default", "queues/night"]
    assert (found[1]["max_time_limit"], found[1]["max_gpus"]) == (7200.0, 0)
    assert (found[1]["max_workers"], found[0]["max_gpus"]) == (None, None)
    classes = json.loads(ccctl(*_split("priority-class list -o json")).out)["priority_classes"]
    assert [(one["value"], one["preemption"]) for one in classes] == [
        (10000, "lower"),
        (1000, "lower"),
        (100, "lower"),
    ]


def test_a_submit_hears_what_its_queue_allows(made: Centre, ccctl: Ccctl, tmp_path: Path) -> None:
    rules = "--max-time 2h --max-workers 2 --max-gpus 4 --account vision"
    assert ccctl(*_split(f"queue create night {rules}")).code == 0
    file = tmp_path / "job.json"
    document = {"command": ["true"], "queue": "night", "workers": 3, "time_limit": "3h"}
    file.write_text(json.dumps({**document, "resources": {"gpus": 2}}))
    told = ccctl("submit", str(file))
    assert (told.code, told.err.splitlines()[1:]) == (
        2,
        [
            '  queue: "night": is for account vision, and not for olga',
            '  time_limit: "3h": the queue "night" allows 2h at most',
            '  workers: 3: the queue "night" allows 2 workers at most',
            '  resources.gpus: 6 GPUs in all: the queue "night" allows 4 GPUs at most',
        ],
    )
    file.write_text(json.dumps({"command": ["true"], "queue": "nigth"}))
    assert 'there is no such queue; did you mean "night"?' in ccctl("submit", str(file)).err
    file.write_text(json.dumps({"command": ["true"], "priority_class": "huge"}))
    assert "there are: high, low, normal" in ccctl("submit", str(file)).err
