"""Who is let in by a real control plane: people who log in, hosts that join, and all those who
should not be."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from controlplane.client import Client
from controlplane.client.errors import ClientError, Denied
from controlplane.kit import pki
from controlplane.kit.credential import Credential
from controlplane.v1 import agent_service_pb2, agent_service_pb2_grpc, node_pb2
from controlplane.wire.nodes import facts_message
from tests.support.cluster import BIN, Cluster, cluster, until
from tests.support.world import facts

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("identity"), "a") as made:
        yield made


class Desk:
    """Somebody's own configuration of ccctl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ccctl(self, *words: str | Path, said: str = "") -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("CCCTL_")}
        return subprocess.run(
            [BIN / "ccctl", *words],
            input=said,
            env={**env, "XDG_CONFIG_HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def agents_of(made: Cluster) -> str:
    document = json.loads((made.folder / "a" / "credential.json").read_text())
    return str(document["server"])


def credential(made: Cluster, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((made.folder / name / "credential.json").read_text())
    return found


def synchronize(
    server: str, credentials: grpc.ChannelCredentials | None, node_uuid: str, **metadata: str
) -> Any:
    """What a rogue agent is answered; raises grpc.RpcError."""
    request = agent_service_pb2.SynchronizeRequest(
        node_uuid=node_uuid,
        boot_id="a boot",
        agent_id=uuid.uuid4().hex,
        call_number=1,
        facts=facts_message(facts("rogue")),
        facts_digest="x",
    )
    channel = (
        grpc.insecure_channel(server)
        if credentials is None
        else grpc.secure_channel(server, credentials)
    )
    with channel:
        stub: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
        return stub.Synchronize(request, timeout=5, metadata=tuple(metadata.items()))


def refused(
    server: str, credentials: grpc.ChannelCredentials | None, node_uuid: str, **metadata: str
) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        synchronize(server, credentials, node_uuid, **metadata)
    return error.value.code(), str(error.value.details())


# --- people ---------------------------------------------------------------------------------------


def test_an_admin_lets_alice_in_and_shuts_her_out(one: Cluster, tmp_path: Path) -> None:
    admin, alice = Desk(tmp_path / "admin"), Desk(tmp_path / "alice")
    done = admin.ccctl("login", one.folder / "controlplane" / "admin.login")
    assert done.stdout == f"You are admin (admin) at {one.server}.\n"
    assert admin.ccctl("user", "create", "alice").returncode == 0
    line = tmp_path / "alice.login"
    made = admin.ccctl("token", "create", "alice", "--label", "laptop", "--out", line)
    assert made.returncode == 0, made.stderr
    assert line.stat().st_mode & 0o777 == 0o600

    assert alice.ccctl("login", "-", said=line.read_text()).returncode == 0
    assert alice.ccctl("whoami").stdout == f"alice (user) at {one.server}\n"
    kept = tmp_path / "alice" / "ccctl"
    assert (kept / "token").stat().st_mode & 0o777 == 0o600
    assert (kept / "config.toml").stat().st_mode & 0o777 == 0o600
    job = tmp_path / "job.json"
    job.write_text('{"command": ["true"]}')
    assert alice.ccctl("submit", job, "--follow").returncode == 0
    assert next(iter(one.client.list())).owner == "alice"
    assert alice.ccctl("user", "list").returncode == 4
    assert alice.ccctl("token", "create", "admin").returncode == 4

    assert admin.ccctl("user", "bar", "alice").returncode == 0
    assert "the user alice is barred" in alice.ccctl("list").stderr
    assert admin.ccctl("user", "unbar", "alice").returncode == 0
    assert alice.ccctl("list").returncode == 0
    (token,) = json.loads(alice.ccctl("token", "list", "-o", "json").stdout)["tokens"]
    assert token["label"] == "laptop"
    assert alice.ccctl("token", "revoke", token["name"]).returncode == 0
    assert "the token was revoked" in alice.ccctl("list").stderr
    assert alice.ccctl("logout").returncode == 0
    assert not (kept / "token").exists()


def test_nobody_takes_the_name_of_who_has_a_token_of_the_host(one: Cluster) -> None:
    with pytest.raises(ClientError, match="has a token of the control plane's own host"):
        one.client.identities.create_user("admin", "viewer")


def test_a_token_that_nobody_got_lets_nobody_in(one: Cluster) -> None:
    before = len(list(one.client.identities.join_tokens()))
    done = subprocess.run(
        ["sh", "-c", '"$@" > /dev/full', "sh", *one.as_admin, "node", "token", "create"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    newest, *others = one.client.identities.join_tokens()
    assert len(others) == before
    assert newest.HasField("revoke_time")


def test_a_role_counts_from_the_next_call_on(one: Cluster) -> None:
    one.client.identities.create_user("olga", "user")
    _, secret = one.client.identities.create_token("olga")
    with Client(one.server, token=secret, ca_file=one.ca_file) as olga:
        with pytest.raises(Denied):
            olga.drain("nodes/a", reason="fans")
        one.client.identities.update_user("olga", role="operator")
        assert olga.drain("nodes/a", reason="fans").state == node_pb2.NODE_STATE_DRAINED
        olga.undrain("nodes/a")


def test_a_token_is_told_when_it_ends(one: Cluster) -> None:
    one.client.identities.create_user("eve", "viewer")
    shortest = 60
    made, secret = one.client.identities.create_token("eve", lifetime_s=shortest)
    left = made.expire_time.ToMicroseconds() - made.create_time.ToMicroseconds()
    assert left == shortest * 1_000_000
    with Client(one.server, token=secret, ca_file=one.ca_file) as eve:
        assert eve.server_info().principal == "eve"


def test_secrets_are_in_no_log_no_event_and_no_row(one: Cluster) -> None:
    one.client.identities.create_user("sam", "user")
    _, secret = one.client.identities.create_token("sam", label="planted")
    _, joining = one.client.identities.create_join_token(lifetime_s=600)
    with Client(one.server, token=secret, ca_file=one.ca_file) as sam:
        sam.server_info()
    admin = one.token_file.read_text().strip()
    key = credential(one, "a")["key"].splitlines()[1]
    told = json.dumps([str(event) for event in one.client.events()])
    public = [path for path in one.folder.rglob("*") if path.is_file()]
    for hidden in (secret, joining, admin, key):
        assert hidden not in told
        where = [path for path in public if hidden.encode() in path.read_bytes()]
        assert all(path.stat().st_mode & 0o077 == 0 for path in where)
        names = {path.name for path in where}
        assert names <= {"admin.token", "credential.json"}, names


def test_a_secret_of_a_job_reaches_its_program_and_nobody_else(one: Cluster) -> None:
    planted = f"planted-{uuid.uuid4().hex}"
    path = one.folder / "secret.json"
    go = one.folder / "secret-was-looked-for"
    waits = f"while ! [ -e {go} ]; do sleep 0.05; done"
    script = f'test "$KEY" = "$EXPECTED" && echo "it is there" && {waits}'
    document = {"command": ["sh", "-c", script], "pass_env": ["KEY", "EXPECTED"]}
    path.write_text(json.dumps({**document, "secret_env": ["KEY", "EXPECTED"]}))
    done = subprocess.run(
        [*one.as_admin, "submit", path, "-o", "json"],
        env={**os.environ, "KEY": planted, "EXPECTED": planted},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    name = json.loads(done.stdout)["name"]
    one.running(name)
    for said in (
        done.stdout + done.stderr,
        one.ccctl("show", name, "-o", "json").stdout,
        one.ccctl("history", name, "-o", "json").stdout,
        subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout,
    ):
        assert planted not in said
    go.touch()
    assert one.ended(name).exit_code == 0
    assert one.output(name) == b"it is there\n"
    for found in (path for path in one.folder.rglob("*") if path.is_file()):
        # A lease's files may go at any moment now.
        with contextlib.suppress(FileNotFoundError):
            if planted.encode() in found.read_bytes():
                assert found.stat().st_mode & 0o077 == 0, found
                assert found.name.startswith(("controlplane.db", "plan.json", "staged.json")), found


# --- hosts ----------------------------------------------------------------------------------------


def test_a_join_token_lets_one_host_in_once(one: Cluster, tmp_path: Path) -> None:
    made = one.ccctl("node", "token", "create", "--out", tmp_path / "t")
    assert made.returncode == 0, made.stderr
    join: list[str | Path] = [BIN / "nodeagent", "join", tmp_path / "t", "--state-dir"]

    def joined(folder: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*join, tmp_path / folder], capture_output=True, text=True, timeout=60, check=False
        )

    first = joined("n1")
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "n1" / "credential.json").stat().st_mode & 0o777 == 0o600
    second = joined("n2")
    assert second.returncode == 1
    assert "the join token was spent by nodes/" in second.stderr


def test_a_host_that_has_joined_joins_again_only_by_a_token_for_it(one: Cluster) -> None:
    refusal = one.join(one.folder / "a")
    assert "another agent already runs on" in refusal.stderr
    one.agents["a"].stop()
    refusal = one.join(one.folder / "a")
    assert "has joined already" in refusal.stderr
    node = one.client.node("nodes/a")
    before = credential(one, "a")
    again = one.join(one.folder / "a", node=node.name)
    assert again.returncode == 0, again.stderr
    assert credential(one, "a")["key"] != before["key"]
    one.agents["a"].start()
    until(lambda: one.node("a"), "it to be ready again")


def test_a_rogue_agent_gets_nothing(one: Cluster) -> None:
    server, own = agents_of(one), credential(one, "a")
    trust = own["authority"].encode()
    node_uuid = one.client.node("nodes/a").name.removeprefix("nodes/")
    admin = f"Bearer {one.token_file.read_text().strip()}"
    away = grpc.StatusCode.UNAVAILABLE
    # Without a certificate, by whatever token, and in plaintext: no connection at all.
    bare = grpc.ssl_channel_credentials(trust)
    assert refused(server, bare, node_uuid)[0] is away
    assert refused(server, bare, node_uuid, authorization=admin)[0] is away
    assert refused(server, None, node_uuid)[0] is away
    # By a certificate that names the right node, of another authority.
    now = int(time.time() * 1_000_000)
    rogue = pki.Authority(pki.make_authority("control plane", now))
    key = pki.new_key()
    forged = rogue.node(pki.make_request(key, node_uuid), node_uuid, 9, now, 30)
    assert refused(server, grpc.ssl_channel_credentials(trust, key, forged), node_uuid)[0] is away
    # At people's door a certificate is not asked for, and an admin's token is none of an agent's.
    code, words = refused(one.server, bare, node_uuid, authorization=admin)
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "admin has the role admin, which may not call AgentService/Synchronize" in words


def test_a_node_speaks_for_itself_alone(one: Cluster, tmp_path: Path) -> None:
    assert one.join(tmp_path / "other").returncode == 0
    other = json.loads((tmp_path / "other" / "credential.json").read_text())
    proof = grpc.ssl_channel_credentials(
        other["authority"].encode(), other["key"].encode(), other["certificate"].encode()
    )
    victim = one.client.node("nodes/a").name.removeprefix("nodes/")
    for node_uuid in (victim, str(uuid.uuid4())):
        code, words = refused(other["server"], proof, node_uuid)
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert f"may not speak for nodes/{node_uuid}" in words
    kinds = [event.kind for event in one.client.events("principals")]
    assert "access.denied" in kinds


def test_a_revoked_node_gets_nothing_until_it_joins_again(tmp_path: Path) -> None:
    serve = {"node-lease-s": "3", "node-lease-margin-s": "1", "hold-s": "0.3"}
    with cluster(tmp_path, "a", serve=serve) as made:
        stolen = credential(made, "a")
        node = made.client.node("nodes/a")
        assert made.ccctl("node", "revoke", "a", "--yes").returncode == 0
        until(lambda: made.node("a") is None, "the node to fall silent", 20)
        proof = grpc.ssl_channel_credentials(
            stolen["authority"].encode(), stolen["key"].encode(), stolen["certificate"].encode()
        )
        code, words = refused(stolen["server"], proof, node.name.removeprefix("nodes/"))
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "was revoked; an admin lets the host in again" in words
        made.agents["a"].stop()
        assert made.join(tmp_path / "a", node=node.name).returncode == 0
        made.agents["a"].start()
        until(lambda: made.node("a"), "it to be ready again")


def test_a_join_whose_answer_was_lost_is_done_again_with_the_same_token(
    one: Cluster, tmp_path: Path
) -> None:
    """Here because the answer found no room; the key was kept from before the call."""
    _, secret = one.client.identities.create_join_token(lifetime_s=600)
    assert one.ca_file is not None
    line = Credential(
        kind="join", server=one.server, authority=one.ca_file.read_bytes(), secret=secret
    ).write()
    state = tmp_path / "n"
    (state / "credential.json.new").mkdir(parents=True)  # in the way of the answer
    join: list[str | Path] = [BIN / "nodeagent", "join", "-", "--state-dir", state]

    def joined() -> int:
        return subprocess.run(
            join, input=line, text=True, capture_output=True, timeout=60
        ).returncode

    assert joined() == 1
    assert not (state / "credential.json").exists()
    (state / "credential.json.new").rmdir()
    assert joined() == 0
    assert not (state / "joining.json").exists()


def test_a_revocation_cannot_be_outrun_or_undone(one: Cluster, tmp_path: Path) -> None:
    """Neither by renewing meanwhile, nor by the spent token once more, nor by an unspent one."""
    state = tmp_path / "n"
    assert one.join(state).returncode == 0
    got = json.loads((state / "credential.json").read_text())
    node_uuid = json.loads((state / "node.json").read_text())["uuid"]
    proof = grpc.ssl_channel_credentials(
        got["authority"].encode(), got["key"].encode(), got["certificate"].encode()
    )
    unspent = one.client.identities.create_join_token(lifetime_s=600, node=node_uuid)[0]
    request = agent_service_pb2.RenewCertificateRequest(
        certificate_request=pki.make_request(got["key"].encode(), node_uuid)
    )
    with grpc.secure_channel(got["server"], proof) as channel:
        stub: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
        late = stub.RenewCertificate(request, timeout=5).certificate
        one.client.revoke(f"nodes/{node_uuid}")
        with pytest.raises(grpc.RpcError, match="was revoked"):
            stub.RenewCertificate(request, timeout=5)
    renewed = grpc.ssl_channel_credentials(got["authority"].encode(), got["key"].encode(), late)
    code, words = refused(got["server"], renewed, node_uuid)
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "was revoked" in words
    tokens = {token.name: token for token in one.client.identities.join_tokens()}
    assert tokens[unspent.name].HasField("revoke_time")
    refusal = one.join(state)
    assert "has joined already" in refusal.stderr


def test_a_host_holds_its_node_from_its_join_on(one: Cluster, tmp_path: Path) -> None:
    """Before its agent was ever heard."""
    assert one.join(tmp_path / "n").returncode == 0
    (tmp_path / "thief").mkdir()
    (tmp_path / "thief" / "node.json").write_text((tmp_path / "n" / "node.json").read_text())
    refusal = one.join(tmp_path / "thief")
    assert refusal.returncode == 1
    assert "has joined already" in refusal.stderr


def test_a_certificate_that_is_due_is_renewed_and_jobs_run_on(tmp_path: Path) -> None:
    """One that was issued long ago stands for the passing of time."""
    with cluster(tmp_path, "a") as made:
        name = made.submit({"command": ["sleep", "5"]})
        made.running(name)
        made.agents["a"].stop()
        own = credential(made, "a")
        files = tmp_path / "controlplane" / "pki"
        authority = pki.Authority(
            pki.KeyPair(
                certificate=(files / "ca.crt").read_bytes(), key=(files / "ca.key").read_bytes()
            )
        )
        node_uuid = made.client.node("nodes/a").name.removeprefix("nodes/")
        days_ago = int((time.time() - 25 * 86_400) * 1_000_000)
        old = authority.node(
            pki.make_request(own["key"].encode(), node_uuid), node_uuid, 1, days_ago, 30
        ).decode()
        path = tmp_path / "a" / "credential.json"
        path.write_text(json.dumps({**own, "certificate": old}))
        made.agents["a"].start()
        until(lambda: credential(made, "a")["certificate"] != old, "a new certificate")
        assert credential(made, "a")["key"] != own["key"]
        assert path.stat().st_mode & 0o777 == 0o600
        assert made.ended(name).exit_code == 0
        assert made.ended(made.submit({"command": ["true"]})).exit_code == 0


def test_the_servers_certificate_is_exchanged_while_it_serves(one: Cluster) -> None:
    state = one.folder / "controlplane"
    before = (state / "pki" / "server.crt").read_bytes()
    more = subprocess.run(
        [BIN / "controlplane", "init", "--state-dir", state, "--host", "elsewhere.example"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert more.returncode == 0, more.stderr
    after = (state / "pki" / "server.crt").read_bytes()
    assert before != after
    port = one.server.rpartition(":")[2]
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-alpn", "h2"],
        input=b"",
        capture_output=True,
        timeout=30,
        check=False,
    ).stdout
    assert after.decode().splitlines()[3] in shown.decode(errors="replace")
    assert one.ccctl("node", "list").returncode == 0
