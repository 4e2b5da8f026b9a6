"""The one ECDSA back end: curves, signature encodings, and refusal of what does not verify."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from attestation.ecdsa import EcdsaKey, der_signature
from attestation.errors import UnsupportedError

P384_ORDER = int("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16)


@given(st.integers(0, (1 << 384) - 1), st.integers(0, (1 << 384) - 1))
def test_der_signatures_are_those_of_another_library(r: int, s: int) -> None:
    assert der_signature(r, s) == encode_dss_signature(r, s)


@pytest.mark.parametrize(("curve", "digest"), [(ec.SECP256R1(), hashes.SHA256()), (ec.SECP384R1(), hashes.SHA384())])
def test_verifies_what_another_library_signed(curve: ec.EllipticCurve, digest: hashes.HashAlgorithm) -> None:
    private = ec.generate_private_key(curve)
    key = EcdsaKey(private.public_key())
    signature = private.sign(b"message", ec.ECDSA(digest))
    r, s = decode_dss_signature(signature)
    assert key.verify_der(signature, b"message")
    assert key.verify_raw(r, s, b"message")
    assert not key.verify_raw(r, s, b"another")
    assert not key.verify_raw(s, r, b"message")
    assert not EcdsaKey(ec.generate_private_key(curve).public_key()).verify_der(signature, b"message")


@pytest.mark.parametrize(("r", "s"), [(0, 0), (0, 1), (1, 0), (1, 1), (P384_ORDER, P384_ORDER), (1 << 384, 1)])
def test_degenerate_signatures_do_not_verify(r: int, s: int) -> None:
    assert not EcdsaKey(ec.generate_private_key(ec.SECP384R1()).public_key()).verify_raw(r, s, b"message")


def test_signatures_in_other_encodings_do_not_verify() -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    key = EcdsaKey(private.public_key())
    signature = private.sign(b"message", ec.ECDSA(hashes.SHA384()))
    r, s = decode_dss_signature(signature)
    padded = bytes((0x30, len(signature) - 1, 2, signature[3] + 1, 0)) + signature[4:]
    for other in (b"", signature + b"\0", signature[:-1], r.to_bytes(48, "big") + s.to_bytes(48, "big"), padded):
        assert not key.verify_der(other, b"message")


def test_other_curves_are_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="secp521r1"):
        EcdsaKey(ec.generate_private_key(ec.SECP521R1()).public_key())


SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
DER = serialization.Encoding.DER


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_a_plain_key_is_the_same_from_its_encoding(curve: ec.EllipticCurve) -> None:
    private = ec.generate_private_key(curve)
    public = private.public_key()
    read, made = EcdsaKey.from_spki(public.public_bytes(DER, SPKI)), EcdsaKey(public)
    assert read is not None
    assert (read.curve, read.point) == (made.curve, made.point)
    assert read.point == public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    digest = hashes.SHA256() if curve.key_size == 256 else hashes.SHA384()
    assert read.verify_der(private.sign(b"message", ec.ECDSA(digest)), b"message")


def test_what_is_no_plain_key_is_left_to_the_library() -> None:
    plain = ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(DER, SPKI)
    off_curve = plain[:-1] + bytes((plain[-1] ^ 1,))
    hybrid = plain[:23] + bytes((6 | plain[-1] & 1,)) + plain[24:]
    other = ec.generate_private_key(ec.SECP521R1()).public_key().public_bytes(DER, SPKI)
    for der in (off_curve, hybrid, other, plain + b"\0", plain[:-1], b""):
        assert EcdsaKey.from_spki(der) is None
