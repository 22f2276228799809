"""The authority, its certificates, and the lines by which they are handed over."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from controlplane.kit import pki
from controlplane.kit.credential import Credential, hash_of, new_secret, read_credential

NOW = 1_800_000_000_000_000
DAY = 86_400_000_000
UUID = "11111111-1111-4111-8111-111111111111"


@pytest.fixture(scope="module")
def authority() -> pki.Authority:
    return pki.Authority(pki.make_authority("a test", NOW))


def node(authority: pki.Authority, now_us: int = NOW, days: int = 30) -> bytes:
    return authority.node(pki.make_request(pki.new_key(), "who knows"), UUID, 3, now_us, days)


def verified(folder: Path, authority: pki.Authority, certificate: bytes, purpose: str) -> str:
    """What openssl, which shares no code with us, says of a certificate."""
    (folder / "ca").write_bytes(authority.certificate)
    (folder / "leaf").write_bytes(certificate)
    at = str(NOW // 1_000_000 + 3600)
    command = ["openssl", "verify", "-x509_strict", "-attime", at, "-purpose", purpose]
    done = subprocess.run(
        [*command, "-CAfile", folder / "ca", folder / "leaf"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout + done.stderr


def test_openssl_takes_a_nodes_certificate_for_a_client_and_nothing_else(
    tmp_path: Path, authority: pki.Authority
) -> None:
    made = node(authority)
    assert verified(tmp_path, authority, made, "sslclient").endswith(": OK\n")
    assert "unsuitable certificate purpose" in verified(tmp_path, authority, made, "sslserver")
    other = pki.Authority(pki.make_authority("a test", NOW))
    assert "verification failed" in verified(tmp_path, other, made, "sslclient")


def test_openssl_takes_the_servers_certificate_under_each_of_its_names(
    tmp_path: Path, authority: pki.Authority
) -> None:
    pair = authority.server(["head.example", "192.0.2.7", "::1"], NOW, 365)
    pki.check_pair(pair)
    assert verified(tmp_path, authority, pair.certificate, "sslserver").endswith(": OK\n")
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName"],
        input=pair.certificate,
        capture_output=True,
        timeout=30,
        check=True,
    ).stdout.decode()
    assert "DNS:head.example, IP Address:192.0.2.7, IP Address:0:0:0:0:0:0:0:1" in shown


def test_a_nodes_certificate_tells_node_and_generation(
    authority: pki.Authority,
) -> None:
    told = pki.read_certificate(node(authority))
    assert told.node_uuid == UUID
    assert told.generation == 3
    assert told.until_us == NOW + 30 * DAY
    own = pki.read_certificate(authority.certificate)
    assert (own.node_uuid, own.generation) == ("", 0)


def test_a_certificate_is_due_when_a_third_of_its_time_is_left(authority: pki.Authority) -> None:
    told = pki.read_certificate(node(authority))
    assert not told.due(NOW + 19 * DAY)
    assert told.due(NOW + 21 * DAY)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"", "no certificate request"),
        (b"\xff\x00", "no certificate request"),
        (
            b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            "no certificate request",
        ),
    ],
)
def test_what_is_no_request_is_told_as_that(
    authority: pki.Authority, request_: bytes, words: str
) -> None:
    with pytest.raises(pki.PkiError, match=words):
        authority.node(request_, UUID, 1, NOW, 30)


def test_a_request_of_another_kind_of_key_is_refused(authority: pki.Authority) -> None:
    request = subprocess.run(
        [
            *("openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"),
            *("-keyout", "/dev/null"),
        ],
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout
    with pytest.raises(pki.PkiError, match="must be P-256"):
        authority.node(request, UUID, 1, NOW, 30)


def test_a_key_that_is_anothers_makes_no_authority(authority: pki.Authority) -> None:
    with pytest.raises(pki.PkiError, match="not that of the certificate"):
        pki.Authority(pki.KeyPair(certificate=authority.certificate, key=pki.new_key()))


def test_a_credential_is_what_it_was(authority: pki.Authority) -> None:
    made = Credential(
        kind="join",
        server="head.example:7600",
        authority=authority.certificate,
        secret=new_secret("ccjoin"),
    )
    line = made.write()
    assert read_credential(f"  {line}\n", "join") == made
    assert "\n" not in line
    assert made.secret not in line


def test_a_line_that_is_none_is_refused_without_being_repeated(authority: pki.Authority) -> None:
    made = Credential(kind="login", server="h:1", authority=authority.certificate, secret="s3cret")
    line = made.write()
    for wrong, words in (
        ("", "holds no line that begins with ccjoin_"),
        (line, "is for `ccctl login`"),
        ("ccjoin_" + line[8:50], "is damaged; was all of it copied?"),
        ("ccjoin_W10", "is damaged"),
        ("ccjoin_" + "A" * 70_000, "holds no line"),
    ):
        with pytest.raises(ValueError, match=words) as told:
            read_credential(wrong, "join")
        assert line[8:40] not in str(told.value)


def test_secrets_are_long_and_never_the_same() -> None:
    seen = {new_secret("cc") for _ in range(100)}
    assert len(seen) == 100
    assert all(len(secret) == 46 and secret.startswith("cc_") for secret in seen)
    assert hash_of("abc").startswith("ba7816bf")
