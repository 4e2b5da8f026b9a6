"""The installation's own certificates: what they say, how long, and how their keys lie on disk."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from keybroker import pki
from keybroker.errors import AlreadyInitialisedError, ConfigError, SigningKeyError
from keybroker.principals import Principal, Role

NOW = 1_790_000_000
OWNER = Principal(Role.OWNER, "alice", "acme")


@pytest.fixture(scope="module")
def ca() -> pki.Issued:
    """A certificate authority."""
    return pki.create_ca("keys", now=NOW)


def instant(seconds: int) -> dt.datetime:
    """Seconds since the epoch as certificates have them."""
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC)


def test_the_authority_signs_leaves_and_nothing_else(ca: pki.Issued) -> None:
    constraints = ca.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    usage = ca.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.digital_signature) == (True, False)


def test_a_client_certificate_says_who_and_for_how_long(ca: pki.Issued) -> None:
    issued = pki.issue_client(ca, OWNER, trust_domain="factory.test", now=NOW)
    certificate = issued.certificate
    certificate.verify_directly_issued_by(ca.certificate)
    names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    assert names == [x509.UniformResourceIdentifier("spiffe://factory.test/tenant/acme/owner/alice")]
    usage = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usage == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert certificate.not_valid_before_utc == instant(NOW - 300)
    assert certificate.not_valid_after_utc == instant(NOW + 397 * 86_400)
    assert issued.key.public_key() == certificate.public_key()


def test_a_server_certificate_names_its_hosts(ca: pki.Issued) -> None:
    certificate = pki.issue_server(ca, "keys", hosts=["localhost", "127.0.0.1", "::1"], now=NOW).certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    usage = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usage == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_serial_numbers_and_keys_are_never_used_twice(ca: pki.Issued) -> None:
    made = [pki.issue_client(ca, OWNER, trust_domain="factory.test", now=NOW) for _ in range(3)]
    assert len({issued.certificate.serial_number for issued in made}) == 3
    assert len({issued.certificate.fingerprint(issued.certificate.signature_hash_algorithm) for issued in made}) == 3  # type: ignore[arg-type]


def test_keys_are_written_for_their_owner_and_read_back(ca: pki.Issued, tmp_path: Path) -> None:
    certificate, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    umask = os.umask(0)
    try:
        ca.write(certificate, key)
    finally:
        os.umask(umask)
    assert key.stat().st_mode & 0o777 == 0o600
    again = pki.load_ca(certificate, key)
    assert again.certificate == ca.certificate
    assert again.key.private_numbers() == ca.key.private_numbers()
    with pytest.raises(SigningKeyError):
        ca.write(tmp_path / "other.pem", key)
    with pytest.raises(AlreadyInitialisedError):
        ca.write(certificate, tmp_path / "other.key")
    assert certificate.read_bytes() == ca.certificate.public_bytes(Encoding.PEM)


def test_an_authority_that_others_can_read_signs_nothing(ca: pki.Issued, tmp_path: Path) -> None:
    certificate, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    ca.write(certificate, key)
    key.chmod(0o640)
    with pytest.raises(SigningKeyError, match="0640"):
        pki.load_ca(certificate, key)
    key.chmod(0o600)
    link = tmp_path / "link.key"
    link.symlink_to(key)
    with pytest.raises(SigningKeyError):
        pki.load_ca(certificate, link)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"-----BEGIN PRIVATE " + b"KEY-----\nAAAA\n-----END PRIVATE " + b"KEY-----\n"]
)
def test_files_that_are_no_authority(ca: pki.Issued, tmp_path: Path, content: bytes) -> None:
    certificate, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    ca.write(certificate, key)
    key.unlink()
    with pytest.raises(SigningKeyError):
        pki.load_ca(certificate, key)
    key.write_bytes(content)
    key.chmod(0o600)
    with pytest.raises(ConfigError):
        pki.load_ca(certificate, key)
    with pytest.raises(ConfigError):
        pki.load_ca(tmp_path / "none.pem", key)
