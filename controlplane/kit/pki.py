"""A small certificate authority: what the control plane issues, and what nodes ask for.

Keys are P-256 (FIPS 186-5), certificates X.509 (RFC 5280), requests PKCS #10 (RFC 2986), all in
PEM. A node's certificate names its UUID in the common name and, as an URI, in the subject's
alternative names; its serial number begins with its generation, a count that its node's revocation
moves on: so all of a node's certificates are revoked at once, no clock has a say in it, and none of
them needs to be kept.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence

AUTHORITY_DAYS = 3650
"""An authority's certificate lasts so long."""
BACKDATED_US = 7_200_000_000
"""Certificates are valid from so long before their issue: clocks of hosts differ, and may be set
back by an hour."""
RENEW_PART = 3
"""A certificate is due for renewal when one part in so many of its time is left."""
_RANDOM_BITS = 64
_DAY_US = 86_400_000_000
_ORGANIZATION = "controlplane"
_NODE_URI = "urn:controlplane:node:"


class PkiError(ValueError):
    """A certificate, a key or a request is not what it should be; the text says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and its private key."""

    certificate: bytes
    """PEM."""
    key: bytes
    """PEM, PKCS #8, without a password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a certificate says, as far as we ask."""

    node_uuid: str
    """The node that it was issued to; empty: it is no node's."""
    generation: int
    """Of its node's certificates; 0: it is no node's."""
    from_us: int
    """Valid from."""
    until_us: int
    """Valid until."""

    def due(self, now_us: int) -> bool:
        """Whether it should be renewed."""
        return self.until_us - now_us < (self.until_us - self.from_us) // RENEW_PART


class Authority:
    """Signs certificates with its key."""

    def __init__(self, own: KeyPair) -> None:
        """PkiError when the two are not an authority's certificate and key."""
        self._certificate = _certificate(own.certificate)
        key = _key(own.key)
        check_pair(own)
        self._key = key
        self.certificate = own.certificate

    def server(self, hosts: Sequence[str], now_us: int, days: int) -> KeyPair:
        """A certificate for a server that is reached under these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_host(name) for name in hosts])
        made = self._sign(key.public_key(), hosts[0], names, now_us, days, server=True)
        return KeyPair(certificate=made, key=_private(key))

    def node(
        self, request: bytes, node_uuid: str, generation: int, now_us: int, days: int
    ) -> bytes:
        """A certificate for a node's own key, as PEM. PkiError when `request` is none.

        What the request says of itself is passed over: the caller knows whose it is.
        """
        public = public_key_of(request)
        names = x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(f"{_NODE_URI}{node_uuid}")]
        )
        return self._sign(
            public, node_uuid, names, now_us, days, server=False, generation=generation
        )

    def _sign(
        self,
        public: ec.EllipticCurvePublicKey,
        name: str,
        names: x509.SubjectAlternativeName,
        now_us: int,
        days: int,
        *,
        server: bool,
        generation: int = 0,
    ) -> bytes:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        authority = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        made = (
            _builder(name, self._certificate.subject, public, now_us, days, generation)
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority.value),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)


def check_node(pair: KeyPair, node_uuid: str) -> None:
    """PkiError when it is not this node's certificate, or its key another one's."""
    check_pair(pair)
    if read_certificate(pair.certificate).node_uuid != node_uuid:
        raise PkiError("the certificate is another node's")


def names_of(certificate: bytes) -> list[str]:
    """Names and addresses that a server's certificate is good for. PkiError when it is none."""
    found = _certificate(certificate)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(each) for each in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def check_pair(pair: KeyPair) -> None:
    """PkiError when the key is not that of the certificate."""
    key = serialization.load_pem_private_key(pair.key, password=None)
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    own, other = key.public_key(), _certificate(pair.certificate).public_key()
    if own.public_bytes(*form) != other.public_bytes(*form):
        raise PkiError("the key is not that of the certificate")


def make_authority(name: str, now_us: int) -> KeyPair:
    """A new authority, which vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    made = (
        _builder(name, _name(name), public, now_us, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate=made.public_bytes(serialization.Encoding.PEM), key=_private(key))


def new_key() -> bytes:
    """A new private key."""
    return _private(ec.generate_private_key(ec.SECP256R1()))


def make_request(key: bytes, name: str) -> bytes:
    """A request for a certificate of this key. PkiError when it is no key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(name))
    return builder.sign(_key(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def public_key_of(request: bytes) -> ec.EllipticCurvePublicKey:
    """The key of a request, which its holder has proved to have. PkiError when it is none, or its
    key is not P-256."""
    try:
        parsed = x509.load_pem_x509_csr(request)
        signed = parsed.is_signature_valid
    except (ValueError, InvalidSignature) as error:
        raise PkiError("is no certificate request in PEM form") from error
    public = parsed.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise PkiError("the key of the request must be P-256")
    if not signed:
        raise PkiError("the request is not signed by its own key")
    return public


def key_fingerprint(request: bytes) -> str:
    """SHA-256 of a request's public key. PkiError as `public_key_of`."""
    return hashlib.sha256(_spki(public_key_of(request))).hexdigest()


def read_certificate(pem: bytes) -> Certificate:
    """What a certificate says. Whoever asks must know that its signature was checked. PkiError when
    it is none."""
    found = _certificate(pem)
    uuid = ""
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        pass
    else:
        for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
            if uri.startswith(_NODE_URI):
                uuid = uri.removeprefix(_NODE_URI)
    return Certificate(
        node_uuid=uuid,
        generation=found.serial_number >> _RANDOM_BITS if uuid else 0,
        from_us=_micros(found.not_valid_before_utc),
        until_us=_micros(found.not_valid_after_utc),
    )


def pack(certificate: bytes) -> str:
    """A certificate in one line of base64. PkiError when it is none."""
    der = _certificate(certificate).public_bytes(serialization.Encoding.DER)
    return base64.b64encode(der).decode()


def unpack(line: str) -> bytes:
    """The PEM of what `pack` made. PkiError when it is none."""
    try:
        found = x509.load_der_x509_certificate(base64.b64decode(line, validate=True))
    except ValueError as error:
        raise PkiError("holds no certificate") from error
    return found.public_bytes(serialization.Encoding.PEM)


def _builder(
    name: str,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now_us: int,
    days: int,
    generation: int = 0,
) -> x509.CertificateBuilder:
    # RFC 5280 wants it positive, and 64 random bits make it one that nobody foresees.
    serial = generation << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS) | 1
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(_moment(now_us - BACKDATED_US))
        .not_valid_after(_moment(now_us + days * _DAY_US))
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common[:64]),
        ]
    )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise PkiError("is no certificate in PEM form") from error


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise PkiError("is no private key in PEM form without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError("must be a P-256 key")
    return key


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _spki(public: object) -> bytes:
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _moment(us: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(us // 1_000_000, datetime.UTC)


def _micros(moment: datetime.datetime) -> int:
    return int(moment.timestamp()) * 1_000_000
