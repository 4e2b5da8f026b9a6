"""Forms of certificates that the library neither makes nor refuses as it should: cut, changed and signed anew."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from attestation.errors import MalformedError
from attestation.findings import CheckLog
from attestation.x509 import (
    MAX_CERTIFICATE_SIZE,
    MAX_CHAIN_LENGTH,
    MAX_EXTENSIONS,
    ChainCache,
    ChainRules,
    EcAlgorithm,
    contents,
    verify_chain,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2027, 1, 1, tzinfo=UTC)
NOW = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp())
ROOT_KEY, LEAF_KEY = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
P256 = ec.generate_private_key(ec.SECP256R1())


def name(*attributes: x509.NameAttribute) -> x509.Name:
    """A name with each attribute in a place of its own; ``root`` where none is given."""
    return x509.Name(attributes or (x509.NameAttribute(NameOID.COMMON_NAME, "root"),))


def certificate(
    *,
    subject: x509.Name | None = None,
    key: Any = ROOT_KEY,
    signer: Any = ROOT_KEY,
    authority: bool = True,
    algorithm: hashes.HashAlgorithm | None = None,
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> bytes:
    """A certificate by ``root``: its own, or a leaf's."""
    usage = x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject or name())
        .issuer_name(name())
        .public_key(key.public_key())
        .serial_number((1 << 159) - 1)
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .add_extension(usage, critical=True)
    )
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    edwards = isinstance(signer, ed25519.Ed25519PrivateKey)
    return builder.sign(signer, None if edwards else algorithm or hashes.SHA384()).public_bytes(Encoding.DER)


def leaf(**options: Any) -> bytes:
    """A leaf by ``root``."""
    subject = name(x509.NameAttribute(NameOID.COMMON_NAME, "leaf"))
    return certificate(**{"subject": subject, "key": LEAF_KEY, "authority": False, **options})


ROOT = certificate()


def element(tag: int, inside: bytes) -> bytes:
    """A DER element."""
    size = len(inside)
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (digits if size < 0x80 else bytes([0x80 | len(digits)]) + digits) + inside


def changed(der: bytes, old: bytes, new: bytes, *, signer: ec.EllipticCurvePrivateKey = ROOT_KEY) -> bytes:
    """`der` with the one `old` in what is signed replaced by `new`, of any length, and signed anew."""
    start, _ = contents(der, 0)
    begin, end = contents(der, start)
    signed = der[begin:end]
    assert signed.count(old) == 1
    signed = element(0x30, signed.replace(old, new))
    _, after = contents(der, end)
    signature = b"\0" + signer.sign(signed, ec.ECDSA(hashes.SHA384()))
    return element(0x30, signed + der[end:after] + element(3, signature))


def codes(*chain: bytes, pinned: bytes = ROOT) -> set[str]:
    """Findings about a chain under the rules for P-384."""
    log = CheckLog()
    verify_chain(chain, rules=rules(len(chain), pinned), now=NOW, log=log)
    return {finding.code for finding in log.findings}


def rules(length: int, pinned: bytes = ROOT) -> ChainRules:
    """P-384, one pinned root."""
    pins = frozenset({hashlib.sha256(pinned).digest()})
    return ChainRules(length=length, algorithm=EcAlgorithm.P384_SHA384, pinned_roots=pins)


def test_what_is_signed_anew_verifies() -> None:
    assert codes(leaf(), ROOT) == set()
    assert codes(changed(leaf(), b"\x0c\x04leaf", b"\x0c\x04feal"), ROOT) == set()
    assert codes(changed(leaf(), b"\x0c\x04leaf", b"\x0c\x04leaf", signer=LEAF_KEY), ROOT) == {"X509_SIGNATURES"}


def test_the_longest_serial_number() -> None:
    """RFC 5280, section 4.1.2.2: 20 bytes, of which the first bit is the sign's."""
    longest = b"\x02\x14\x7f" + b"\xff" * 19
    assert codes(leaf(), ROOT) == set()
    for serial in (b"\x02\x15\x00\x80" + bytes(19), b"\x02\x15\x00\xff" + b"\xff" * 19):
        with pytest.raises(MalformedError, match="is not positive or too long"):
            codes(changed(leaf(), longest, serial), ROOT)


def test_a_compressed_point_is_a_key_like_any_other() -> None:
    def info(key: ec.EllipticCurvePrivateKey, form: PublicFormat) -> bytes:
        whole = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        made = key.public_key().public_bytes(Encoding.X962, form)
        return element(0x30, whole[2 : -len(point) - 3] + element(3, b"\0" + made))

    for key, found in ((LEAF_KEY, set()), (P256, {"X509_ALGORITHM"})):
        plain, short = (info(key, form) for form in (PublicFormat.UncompressedPoint, PublicFormat.CompressedPoint))
        der = changed(leaf(key=key), plain, short)
        assert codes(der, ROOT) == found
        read = verify_chain((der, ROOT), rules=rules(2), now=NOW, log=CheckLog()).chain.leaf_key
        signature = key.sign(b"evidence", ec.ECDSA(hashes.SHA384() if key is LEAF_KEY else hashes.SHA256()))
        assert read is not None
        assert read.verify_der(signature, b"evidence")


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate(), P256],
    ids=["rsa", "ed", "p256"],
)
def test_an_issuer_with_a_key_of_another_kind_vouches_for_nothing(key: Any) -> None:
    """Though it did sign, in its own algorithm."""
    root = certificate(key=key, signer=key, algorithm=hashes.SHA256())
    chain = leaf(signer=key, algorithm=hashes.SHA256()), root
    log = CheckLog()
    verify_chain(chain, rules=rules(2, root), now=NOW, log=log)
    found = sorted((finding.code, finding.field.partition("[")[2][:1]) for finding in log.findings)
    both = [("X509_ALGORITHM", "0"), ("X509_ALGORITHM", "1"), ("X509_SIGNATURES", "0"), ("X509_SIGNATURES", "1")]
    assert found == both


def test_an_issuer_without_a_key_identifier_contradicts_nobody() -> None:
    stated = x509.AuthorityKeyIdentifier(b"\x01" * 20, None, None)
    assert codes(leaf(extensions=(stated,)), ROOT) == set()
    with_identifier = certificate(extensions=(x509.SubjectKeyIdentifier(b"\x02" * 20),))
    chain = leaf(extensions=(stated,)), with_identifier
    assert codes(*chain, pinned=with_identifier) == {"X509_KEY_IDENTIFIERS"}


def test_an_attribute_twice_in_one_place() -> None:
    def several(*values: str) -> bytes:
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, value) for value in values]
        return leaf(subject=x509.Name([x509.RelativeDistinguishedName(attributes)]))

    for values in (("aa", "ab"), ("aa", "ab", "zz")):
        assert codes(several(*values), ROOT) == set()
        with pytest.raises(MalformedError, match="has an attribute twice"):
            codes(changed(several(*values), b"\x0c\x02ab", b"\x0c\x02aa"), ROOT)


def test_a_unique_identifier_as_text() -> None:
    text = bytes.fromhex("06035504030c04") + b"leaf"
    with pytest.raises(MalformedError, match="x500UniqueIdentifier is text"):
        codes(changed(leaf(), text, bytes.fromhex("060355042d0c04") + b"leaf"), ROOT)


def test_a_name_of_an_attribute_without_a_short_form_is_labelled() -> None:
    der = leaf(subject=name(x509.NameAttribute(x509.ObjectIdentifier("1.2.3.4"), "x")))
    parsed = verify_chain((der, ROOT), rules=rules(2), now=NOW, log=CheckLog()).chain
    assert parsed.labels[0] == f"[0] {x509.load_der_x509_certificate(der).subject.rfc4514_string()}"


def test_the_limits_are_allowed() -> None:
    numbers = range(MAX_EXTENSIONS - 1)  # beside key usage
    more = tuple(x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.3.{each}"), b"\x05\x00") for each in numbers)
    assert codes(leaf(extensions=more), ROOT) == set()
    longest = verify_chain((leaf(), *[ROOT] * (MAX_CHAIN_LENGTH - 1)), rules=rules(2), now=NOW, log=CheckLog())
    assert len(longest.chain.der) == MAX_CHAIN_LENGTH
    with pytest.raises(MalformedError, match="certificate 0: cannot be read"):
        codes(bytes(MAX_CERTIFICATE_SIZE))


def test_a_cache_may_hold_one_chain() -> None:
    cache = ChainCache(rules=rules(2), derive=lambda chain, certificate: (chain, certificate), capacity=1)
    for _ in range(2):
        chain, derived = cache.verify((leaf(), ROOT), now=NOW, log=CheckLog()).derived
        assert derived.public_bytes(Encoding.DER) == chain.der[0], "the endorsement is read from the leaf"
        assert len(cache) == 1
