"""TLS: only a server whose certificate a trusted CA has signed, for its name, gets the token."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from controlplane.client import Client, Unreachable
from tests.cli.fake_server import FakeServer, World

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for a host name that signs itself, and its key."""
    made, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *(
                "-nodes",
                "-days",
                "2",
                "-subj",
                f"/CN={name}",
                "-addext",
                f"subjectAltName=DNS:{name}",
            ),
            *("-keyout", str(key), "-out", str(made)),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return made, key


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Path, str, World]]:
    made, key = certificate(tmp_path, "localhost")
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), made.read_bytes())])
    world = World(token="secret")
    with FakeServer(world, credentials=credentials) as server:
        yield made, server.address.rpartition(":")[2], world


def test_the_named_ca_is_trusted(secure: tuple[Path, str, World]) -> None:
    made, port, _ = secure
    with Client(f"localhost:{port}", token="secret", ca_file=made) as client:
        assert client.server_info().principal == "ada"


def test_no_other_server_is_spoken_with(tmp_path: Path, secure: tuple[Path, str, World]) -> None:
    made, port, world = secure
    other, _ = certificate(tmp_path, "other")
    for server, ca_file, words in (
        (f"https://localhost:{port}", None, "no CA that you trust signed its certificate"),
        (f"localhost:{port}", other, "no CA that you trust signed its certificate"),
        (f"127.0.0.1:{port}", made, "its certificate is for another host name"),
    ):
        with (
            Client(server, token="secret", ca_file=ca_file, timeout_s=0.5) as client,
            pytest.raises(Unreachable, match=words),
        ):
            client.server_info()
    assert world.calls.total() == 0


def test_plaintext_and_tls_that_meet_are_told_apart(secure: tuple[Path, str, World]) -> None:
    made, port, _ = secure
    refused = pytest.raises(Unreachable)
    with Client(f"127.0.0.1:{port}", timeout_s=0.5) as client, refused:
        client.server_info()
    with (
        FakeServer(World()) as plain,
        Client(f"https://{plain.address}", ca_file=made, timeout_s=0.5) as client,
        pytest.raises(Unreachable, match="what listens there does not speak TLS"),
    ):
        client.server_info()
