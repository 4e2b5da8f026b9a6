"""Certificates and revocation lists that are not in AMD's one shape."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import NameOID

from attestation.errors import MalformedError
from attestation.simulator.node import SimulatedVendors
from attestation.simulator.pki import SimulatedAmdPki
from attestation.snp.abi import Product
from attestation.snp.certificate import (
    MAX_CERTIFICATE_SIZE,
    PSS_SHA384_ALGORITHM,
    PSS_SHA384_ALGORITHM_DEFAULT_TRAILER,
    AmdCertificate,
    verify_pss_sha384,
)
from attestation.snp.endorsements import MAX_CRL_SIZE, crl_content, load_crl

NOW = datetime(2026, 9, 1, tzinfo=UTC)
SHA384 = hashes.SHA384()
PSS = padding.PSS(mgf=padding.MGF1(SHA384), salt_length=48)


@pytest.fixture(scope="module")
def pki(vendors: SimulatedVendors) -> SimulatedAmdPki:
    return vendors.amd


def _builder(pki: SimulatedAmdPki, *, name: x509.Name | None = None, key: Any = None) -> x509.CertificateBuilder:
    subject = name or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key or pki._ask_key.public_key())
        .serial_number(5)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )


def _sign(pki: SimulatedAmdPki, builder: x509.CertificateBuilder, algorithm: Any = SHA384, pss: Any = PSS) -> bytes:
    return builder.sign(pki._ask_key, algorithm, rsa_padding=pss).public_bytes(Encoding.DER)


def _parse(der: bytes) -> AmdCertificate:
    return AmdCertificate.parse(der, what="certificate")


def test_the_one_shape_is_read(pki: SimulatedAmdPki) -> None:
    der = _sign(pki, _builder(pki))
    certificate = _parse(der)
    assert certificate.serial == 5
    assert certificate.common_name == certificate.issuer_common_name == "x"
    assert not certificate.is_amd_name
    assert certificate.may_sign_certificates
    assert certificate.not_after - certificate.not_before == 24 * 3600
    assert certificate.is_signed_by(certificate)
    assert PSS_SHA384_ALGORITHM_DEFAULT_TRAILER in der


@pytest.mark.parametrize(
    ("algorithm", "pss"),
    [
        (SHA384, padding.PKCS1v15()),
        (hashes.SHA256(), padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)),
        (SHA384, padding.PSS(mgf=padding.MGF1(SHA384), salt_length=32)),
        (SHA384, padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=48)),
    ],
)
def test_other_signature_parameters(pki: SimulatedAmdPki, algorithm: Any, pss: Any) -> None:
    with pytest.raises(MalformedError, match="signature algorithm"):
        _parse(_sign(pki, _builder(pki), algorithm, pss))


def test_the_longest_certificate_is_decoded() -> None:
    with pytest.raises(MalformedError, match="not a DER"):
        _parse(bytes(MAX_CERTIFICATE_SIZE))
    with pytest.raises(MalformedError, match="at most"):
        _parse(bytes(MAX_CERTIFICATE_SIZE + 1))


def test_another_version(pki: SimulatedAmdPki) -> None:
    der = _sign(pki, _builder(pki))
    assert der.count(b"\xa0\x03\x02\x01\x02") == 1
    with pytest.raises(MalformedError, match="version"):
        _parse(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01"))


def test_an_outer_algorithm_that_was_not_signed(pki: SimulatedAmdPki) -> None:
    certificate = x509.load_der_x509_certificate(_sign(pki, _builder(pki)))
    signature = b"\x03\x82\x02\x01\x00" + certificate.signature
    body = certificate.tbs_certificate_bytes + PSS_SHA384_ALGORITHM + signature
    with pytest.raises(MalformedError, match="differs from the outer one"):
        _parse(b"\x30\x82" + len(body).to_bytes(2, "big") + body)


def test_a_signature_with_unused_bits(pki: SimulatedAmdPki) -> None:
    der = next(each for each in (_sign(pki, _builder(pki)) for _ in range(100)) if each[-1] & 1 == 0)
    whole = b"\x03\x82\x02\x01\x00"
    assert der[-517:-512] == whole
    with pytest.raises(MalformedError, match="unused bits"):
        _parse(der[:-513] + b"\x01" + der[-512:])


def test_a_critical_extension_that_is_not_understood(pki: SimulatedAmdPki) -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    assert _parse(_sign(pki, _builder(pki).add_extension(extension, critical=False)))
    with pytest.raises(MalformedError, match="is not understood"):
        _parse(_sign(pki, _builder(pki).add_extension(extension, critical=True)))


def test_a_name_with_an_attribute_twice(pki: SimulatedAmdPki) -> None:
    twice = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in ("SEV-Genoa", "ARK-Genoa")])
    with pytest.raises(MalformedError, match="twice"):
        _parse(_sign(pki, _builder(pki, name=twice)))


def test_another_kind_of_key(pki: SimulatedAmdPki) -> None:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    with pytest.raises(MalformedError, match="public key"):
        _parse(_sign(pki, _builder(pki, key=key)))


def test_an_extension_twice(pki: SimulatedAmdPki) -> None:
    first, second = x509.ObjectIdentifier("1.2.3.4"), x509.ObjectIdentifier("1.2.3.5")
    builder = _builder(pki)
    for oid in (first, second):
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, b"\x05\x00"), critical=False)
    der = _sign(pki, builder)
    assert _parse(der).extensions["1.2.3.5"] == b"\x05\x00"
    with pytest.raises(MalformedError, match="twice"):
        _parse(der.replace(b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04"))


def test_bytes_after_the_certificate(pki: SimulatedAmdPki) -> None:
    with pytest.raises(MalformedError, match="DER"):
        _parse(_sign(pki, _builder(pki)) + b"\x00")


@pytest.mark.parametrize(
    ("key_cert_sign", "expected"),
    [(True, True), (False, False)],
)
def test_key_usage_decides_where_it_is_there(pki: SimulatedAmdPki, *, key_cert_sign: bool, expected: bool) -> None:
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = _parse(_sign(pki, _builder(pki).add_extension(usage, critical=True)))
    assert certificate.may_sign_certificates is expected


def test_a_constraint_that_cannot_be_decoded(pki: SimulatedAmdPki) -> None:
    der = _sign(pki, _builder(pki))
    broken = der.replace(b"\x04\x05\x30\x03\x01\x01\xff", b"\x04\x05\x30\x03\x01\x01\x01")
    assert broken != der
    with pytest.raises(MalformedError, match="basicConstraints"):
        assert _parse(broken).may_sign_certificates


def test_only_rsa_4096_verifies(pki: SimulatedAmdPki) -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    signature = small.sign(b"message", PSS, SHA384)
    assert not verify_pss_sha384(small.public_key(), signature=signature, message=b"message")
    own = pki._ask_key.sign(b"message", PSS, SHA384)
    assert verify_pss_sha384(pki._ask_key.public_key(), signature=own, message=b"message")
    assert not verify_pss_sha384(pki._ask_key.public_key(), signature=own, message=b"other")


def _crl(
    pki: SimulatedAmdPki, *extensions: tuple[x509.ExtensionType, bool], issuer: tuple[str, ...] = ("ARK-Genoa",)
) -> bytes:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in issuer]
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "AMD"), *names]))
        .last_update(NOW)
        .next_update(NOW + timedelta(days=1))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(pki._ark_key, SHA384, rsa_padding=PSS).public_bytes(Encoding.DER)


def test_revocation_lists_of_another_shape(pki: SimulatedAmdPki) -> None:
    number = x509.CRLNumber(3)
    sound = crl_content(_crl(pki, (number, False)))
    assert (sound.number, sound.issuer_common_name, sound.revoked_serials) == (3, "ARK-Genoa", frozenset())
    with pytest.raises(MalformedError, match="CRL"):
        crl_content(_crl(pki))
    with pytest.raises(MalformedError, match="critical"):
        crl_content(_crl(pki, (number, False), (x509.DeltaCRLIndicator(1), True)))
    with pytest.raises(MalformedError, match="DER"):
        load_crl(bytes(MAX_CRL_SIZE))
    with pytest.raises(MalformedError, match="at most"):
        load_crl(bytes(MAX_CRL_SIZE + 1))
    with pytest.raises(MalformedError, match="DER"):
        load_crl(pki.certificates[Product.GENOA].ark)


@pytest.mark.parametrize("issuer", [(), ("ARK-Genoa", "ARK-Milan")])
def test_a_revocation_list_of_none_or_several_issuers_is_nobodys(pki: SimulatedAmdPki, issuer: tuple[str, ...]) -> None:
    assert crl_content(_crl(pki, (x509.CRLNumber(3), False), issuer=issuer)).issuer_common_name == ""


def test_a_revocation_list_that_never_ends_is_refused(pki: SimulatedAmdPki) -> None:
    sound = _crl(pki, (x509.CRLNumber(3), False))
    instant = b"\x17\x0d" + (NOW + timedelta(days=1)).strftime("%y%m%d%H%M%SZ").encode()
    at = sound.index(instant)
    endless = bytearray(sound[:at] + sound[at + len(instant) :])
    assert (endless[1], endless[5]) == (0x82, 0x81), "lengths of two bytes and of one"
    endless[2:4] = (int.from_bytes(endless[2:4], "big") - len(instant)).to_bytes(2, "big")
    endless[6] -= len(instant)
    with pytest.raises(MalformedError, match="no nextUpdate"):
        crl_content(bytes(endless))


def test_keys_that_the_library_does_not_know(pki: SimulatedAmdPki) -> None:
    der = _sign(pki, _builder(pki))
    rsa_oid = bytes.fromhex("06092a864886f70d010101")
    assert der.count(rsa_oid) == 1
    with pytest.raises(MalformedError, match="Unknown key type"):
        _parse(der.replace(rsa_oid, bytes.fromhex("06092a864886f70d01017f")))


def test_revocation_lists_whose_parts_cannot_be_read(pki: SimulatedAmdPki) -> None:
    """The library decodes the version and the issuer late, each with an error of its own."""
    sound = _crl(pki, (x509.CRLNumber(3), False))
    name = b"\x0c\x09ARK-Genoa"
    assert sound.count(name) == 1
    with pytest.raises(MalformedError, match="issuer"):
        crl_content(sound.replace(name, b"\x0e\x09ARK-Genoa"))
    version = b"\x02\x01\x01\x30"
    with pytest.raises(MalformedError, match="version"):
        load_crl(sound.replace(version, b"\x02\x01\x30\x30", 1))
