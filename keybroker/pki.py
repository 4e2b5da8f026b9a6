"""The installation's own certificate authority: mutual TLS for the broker and one client certificate per role.

A node's certificate is transport only; what it may have follows from its evidence. For everyone else the certificate's
SPIFFE ID is the authority (`keybroker.principals`).
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keybroker.errors import AlreadyInitialisedError, ConfigError, SigningKeyError
from keybroker.keys.files import read_secret, write_secret
from keybroker.principals import Principal

_CA_DAYS = 3_650
_LEAF_DAYS = 397
_MAX_PEM = 64 << 10


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def write(self, certificate_path: Path, key_path: Path) -> None:
        """Write both as PEM; the key is readable by its owner only and nothing is overwritten.

        Raises:
            SigningKeyError, AlreadyInitialisedError: a file is there already.
        """
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_secret(key_path, pem, error=SigningKeyError)
        write_new(certificate_path, self.certificate.public_bytes(Encoding.PEM))


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet.

    Raises:
        AlreadyInitialisedError: it is there.
    """
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise AlreadyInitialisedError(f"{path} is there already; nothing was overwritten") from None


def create_ca(name: str, *, now: int) -> Issued:
    """A new certificate authority, valid for ten years from `now`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} CA")])
    builder = (
        _builder(subject, subject, key.public_key(), now=now, days=_CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Issued(builder.sign(key, hashes.SHA256()), key)


def load_ca(certificate_path: Path, key_path: Path) -> Issued:
    """Read the certificate authority back.

    Raises:
        ConfigError: a file is not what it should be, or the certificate is missing.
        SigningKeyError: the key is missing, or others may read it.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = load_pem_private_key(read_secret(key_path, limit=_MAX_PEM, error=SigningKeyError), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        raise ConfigError(f"certificate authority: {error!s:.200}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{key_path}: not an EC private key")
    return Issued(certificate, key)


def load_certificate(path: Path) -> x509.Certificate:
    """Read a certificate in PEM.

    Raises:
        ConfigError: the file is missing or is not what it should be.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None


def hosts(certificate: x509.Certificate) -> list[str]:
    """The names and addresses of a server certificate, in its order.

    Raises:
        ConfigError: it has none.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    found = [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]
    if not found:
        raise ConfigError("the broker's certificate names no host")
    return found


def issue_server(ca: Issued, name: str, *, hosts: Sequence[str], now: int) -> Issued:
    """A server certificate for `hosts` (DNS names and IP addresses)."""
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return _issue(ca, name, names, ExtendedKeyUsageOID.SERVER_AUTH, now=now)


def issue_client(ca: Issued, principal: Principal, *, trust_domain: str, now: int) -> Issued:
    """A client certificate whose only URI SAN is the principal's SPIFFE ID."""
    uri = x509.UniformResourceIdentifier(principal.spiffe_id(trust_domain))
    return _issue(ca, principal.key[:64], [uri], ExtendedKeyUsageOID.CLIENT_AUTH, now=now)


def _issue(ca: Issued, name: str, names: list[x509.GeneralName], usage: x509.ObjectIdentifier, *, now: int) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(subject, ca.certificate.subject, key.public_key(), now=now, days=_LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()),
            critical=False,
        )
    )
    return Issued(builder.sign(ca.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, now: int, days: int
) -> x509.CertificateBuilder:
    start = dt.datetime.fromtimestamp(now, tz=dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - dt.timedelta(minutes=5))
        .not_valid_after(start + dt.timedelta(days=days))
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
