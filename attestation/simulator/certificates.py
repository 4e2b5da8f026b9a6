"""Certificates of the shape that NVIDIA's have, for simulators: P-384, SHA-384, signed deterministically (RFC 6979)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

NOT_BEFORE: Final = datetime(2020, 10, 17, tzinfo=UTC)
NOT_AFTER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Subject:
    """What one certificate is to certify."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    serial: int
    authority: bool = True
    not_before: datetime = NOT_BEFORE
    not_after: datetime = NOT_AFTER
    extensions: tuple[x509.ExtensionType, ...] = ()


def issue(subject: Subject, *, issuer: x509.Name, issuer_key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A certificate with the extensions that NVIDIA's have."""
    usage = x509.KeyUsage(
        digital_signature=not subject.authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=subject.authority,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject.name)
        .issuer_name(issuer)
        .public_key(subject.key.public_key())
        .serial_number(subject.serial)
        .not_valid_before(subject.not_before)
        .not_valid_after(subject.not_after)
    )
    if subject.authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = (
        builder.add_extension(usage, critical=True)
        .add_extension(key_identifier(subject.key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    for extension in subject.extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA384(), ecdsa_deterministic=True)


def distinguished_name(*attributes: tuple[str, str]) -> x509.Name:
    """A name with NVIDIA's string types: PrintableString for C and serialNumber, UTF8String for the others."""
    oids = {
        "C": NameOID.COUNTRY_NAME,
        "CN": NameOID.COMMON_NAME,
        "O": NameOID.ORGANIZATION_NAME,
        "SERIAL": NameOID.SERIAL_NUMBER,
    }
    return x509.Name([x509.NameAttribute(oids[kind], value) for kind, value in attributes])


def key_identifier(key: ec.EllipticCurvePrivateKey) -> x509.SubjectKeyIdentifier:
    """SubjectKeyIdentifier, method 1 of RFC 5280, section 4.2.1.2."""
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """X9.62 uncompressed point of the key."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def serial_number(seed: bytes, *labels: str) -> int:
    """A positive certificate serial number of at most 127 bits."""
    return int.from_bytes(hashlib.sha256(seed + "/".join(labels).encode()).digest()[:16], "big") >> 1 | 1


def digest(*labels: str) -> bytes:
    """SHA-384 of what is simulated."""
    return hashlib.sha384("/".join(("keystead simulator", *labels)).encode()).digest()
