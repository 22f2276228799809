"""Where a server may be, and that a token never travels in the open."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.client import Client, InvalidInput
from controlplane.client.transport import Address, parse_address


@pytest.mark.parametrize(
    ("server", "has_ca", "target", "tls"),
    [
        ("127.0.0.1:7600", False, "127.0.0.1:7600", False),
        ("localhost", False, "localhost:7600", False),
        ("[::1]:80", False, "[::1]:80", False),
        ("[::1]", False, "[::1]:7600", False),
        ("unix:/run/cc.sock", False, "unix:/run/cc.sock", False),
        ("http://127.0.0.1:7600", True, "127.0.0.1:7600", False),
        ("127.0.0.1:7600", True, "127.0.0.1:7600", True),
        ("https://127.0.0.1:7600", False, "127.0.0.1:7600", True),
        ("cc.example.org:7600", False, "cc.example.org:7600", True),
        ("https://cc.example.org/", False, "cc.example.org:7600", True),
        ("10.0.0.1", False, "10.0.0.1:7600", True),
        ("localhost.example.org", False, "localhost.example.org:7600", True),
    ],
)
def test_only_loopback_and_sockets_are_plaintext(
    server: str, has_ca: bool, target: str, tls: bool
) -> None:
    assert parse_address(server, has_ca=has_ca) == Address(target=target, tls=tls)


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("http://cc.example.org:7600", "would be reached without encryption"),
        ("http://0.0.0.0:7600", "would be reached without encryption"),
        ("ftp://x", "is no address"),
        ("", "is no address"),
        (":7600", "is no address"),
        ("host:0", "port from 1 to 65535"),
        ("host:65536", "port from 1 to 65535"),
        ("host:http", "is no address"),
        ("host:٣", "is no address"),
        ("::1", "IPv6 address as"),
        ("me@host:1", "is no address"),
        ("127.0.0.1/evil:1", "is no address"),
        ("unix:", "is no address"),
    ],
)
def test_what_is_no_address_is_a_fault(server: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        parse_address(server, has_ca=False)
    assert caught.value.faults[0].field == "server"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("token", ["", "two words", "line\nfeed", "grün"])
def test_a_token_that_cannot_travel_is_a_fault_that_does_not_tell_it(token: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Client(token=token)
    assert caught.value.faults[0].field == "token"
    assert not token or token not in str(caught.value)


def test_a_ca_file_must_hold_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="can't be read: No such file"):
        Client(ca_file=tmp_path / "none.pem")
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(InvalidInput, match="holds no PEM certificate"):
        Client(ca_file=tmp_path / "ca.pem")
