"""TLS: only a server whose certificate a trusted CA has signed, for its name, gets the token."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from controlplane.client import Client, Unreachable
from tests.cli.fake_server import FakeServer, World
from tests.support.tls import certificate

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")


# By number: a name may stand for several addresses, and gRPC tells only of the last one's fault.
HERE, ELSEWHERE = "IP:127.0.0.1", "DNS:elsewhere"


@contextmanager
def secured(folder: Path, name: str) -> Iterator[tuple[Path, str, World]]:
    """A server that has a certificate for `name`; gives that, its address, and its world."""
    made, key = certificate(folder, name)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), made.read_bytes())])
    world = World(token="secret")
    with FakeServer(world, credentials=credentials) as server:
        yield made, server.address, world


def test_the_named_ca_is_trusted(tmp_path: Path) -> None:
    with (
        secured(tmp_path, HERE) as (made, address, _),
        Client(address, token="secret", ca_file=made) as client,
    ):
        assert client.server_info().principal == "ada"


@pytest.mark.parametrize(
    ("name", "trusted", "words"),
    [
        (HERE, "none", "no CA that you trust signed its certificate"),
        (HERE, "other", "no CA that you trust signed its certificate"),
        (ELSEWHERE, "its own", "its certificate is for another host name"),
    ],
)
def test_no_other_server_is_spoken_with(
    tmp_path: Path, name: str, trusted: str, words: str
) -> None:
    with secured(tmp_path, name) as (made, address, world):
        other, _ = certificate(tmp_path, "DNS:other")
        ca_file = {"none": None, "other": other, "its own": made}[trusted]
        with (
            Client(f"https://{address}", token="secret", ca_file=ca_file, timeout_s=1) as client,
            pytest.raises(Unreachable, match=words),
        ):
            client.server_info()
    assert world.calls.total() == 0


def test_plaintext_and_tls_that_meet_are_told_apart(tmp_path: Path) -> None:
    with (
        secured(tmp_path, HERE) as (made, address, world),
        Client(address, token="secret", timeout_s=1) as client,
        pytest.raises(Unreachable),
    ):
        client.server_info()
    assert world.calls.total() == 0
    with (
        FakeServer(World()) as plain,
        Client(f"https://{plain.address}", ca_file=made, timeout_s=1) as client,
        pytest.raises(Unreachable, match="what listens there does not speak TLS"),
    ):
        client.server_info()
