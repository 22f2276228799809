"""Roles and ownership with real daemons: two people, an operator, and an agent that gets another
token."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.v1 import job_pb2, node_pb2
from tests.support.cluster import BIN, Cluster, cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    serve = {"plaintext": ""}
    with cluster(tmp_path_factory.mktemp("roles"), "a", serve=serve) as made:
        yield made


def token(made: Cluster, name: str, role: str) -> Path:
    out = made.folder / f"{name}.token"
    if not out.exists():
        command: list[str | Path] = [BIN / "controlplane", "token", "create", name]
        command += ["--role", role, "--out", out, "--state-dir", made.folder / "controlplane"]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    return out


def ccctl(made: Cluster, who: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [BIN / "ccctl", "--server", made.server, "--token-file", who]
    return subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_bob_can_neither_see_nor_end_nor_read_what_alice_runs(one: Cluster) -> None:
    alice, bob = token(one, "alice", "user"), token(one, "bob", "user")
    source = one.folder / "source"
    source.mkdir()
    (source / "job.json").write_text(
        '{"command": ["cat", "data"], "env": {"KEY": "s3cret"}, "working_dir": {"ship": "."}}'
    )
    (source / "data").write_text("for alice alone\n")
    done = ccctl(one, alice, "submit", source / "job.json", "--follow")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "for alice alone\n"
    number = next(iter(one.client.list())).name.removeprefix("jobs/")
    for words in (
        ("show", number),
        ("watch", number),
        ("logs", number),
        ("history", number),
        ("cancel", number),
        ("list", "--owner", "alice"),
    ):
        denied = ccctl(one, bob, *words)
        assert denied.returncode == 4, (words, denied.stdout, denied.stderr)
        assert "the role user may call" in denied.stderr
        assert denied.stdout == ""
    assert ccctl(one, bob, "list", "--output", "json").stdout.count('"name"') == 0
    assert ccctl(one, alice, "logs", number).stdout == "for alice alone\n"


def test_an_operator_ends_alices_job_and_does_not_read_it(one: Cluster) -> None:
    operator = token(one, "olga", "operator")
    alice = token(one, "alice", "user")
    path = one.folder / "sleep.json"
    path.write_text('{"command": ["sleep", "60"], "env": {"KEY": "s3cret"}}')
    assert ccctl(one, alice, "submit", path).returncode == 0
    number = next(iter(one.client.list())).name.removeprefix("jobs/")
    shown = ccctl(one, operator, "show", number, "--output", "json").stdout
    assert "(concealed)" in shown
    assert "s3cret" not in shown
    assert ccctl(one, operator, "logs", number).returncode == 4
    one.running(f"jobs/{number}")
    for who, name, role in (
        (operator, "olga", "operator"),
        (token(one, "bob", "user"), "bob", "user"),
    ):
        for words in (("exec", number, "--", "env"), ("shell", number)):
            denied = ccctl(one, who, *words)
            assert denied.returncode == 4, denied.stderr
            assert denied.stdout == ""
            assert f"not {name}'s own, and the role {role} may call StepService/Exec" in (
                denied.stderr
            )
    assert ccctl(one, alice, "exec", number, "--", "printenv", "KEY").stdout == "s3cret\n"
    kinds = [event.kind for event in one.client.events(f"jobs/{number}")]
    assert kinds.count("step.started") == 1
    assert ccctl(one, operator, "cancel", number).returncode == 0
    assert one.ended(f"jobs/{number}").reason == "cancelled by olga"
    drained = ccctl(one, token(one, "victor", "viewer"), "node", "drain", "a", "--reason", "x")
    assert drained.returncode == 4
    assert "may not call FleetService/DrainNode; operator and admin may" in drained.stderr
    told = until(
        lambda: (said := ccctl(one, operator, "denials").stdout).count("denied") > 1 and said,
        "the denials to be written",
    )
    assert "victor was denied FleetService/DrainNode from 127.0.0.1, with the role viewer" in told


def test_a_node_whose_agent_gets_another_token_joins_again_once_it_is_released(
    one: Cluster,
) -> None:
    name = one.submit({"command": ["sleep", "3"]})
    running = job_pb2.ATTEMPT_STATE_RUNNING
    until(lambda: [a for a in one.client.get(name).attempts if a.state == running], "it to run")
    agent = one.agents["a"]
    agent.stop()
    old = str(one.folder / "controlplane" / "agent.token")
    agent.command = [
        token(one, "agent-a", "agent") if str(word) == old else word for word in agent.command
    ]
    agent.start()
    refused = until(
        lambda: (log := agent.log.read_text()).count("was enrolled by agent, and agent-a") and log,
        "the agent to be refused",
    )
    assert "code=PERMISSION_DENIED" in refused
    released = one.ccctl("node", "release", "a")
    assert released.returncode == 0, released.stderr

    def again() -> node_pb2.Node | None:
        node = one.node("a")
        return node if node is not None and node.enrolled_by == "agent-a" else None

    until(again, "the node to be enrolled by its new token")
    assert one.ended(name).exit_code == 0
    kinds = [event.kind for event in one.client.events(one.client.node("nodes/a").name)]
    assert "node.released" in kinds
