"""Detached signatures over operators' files: one defect each, and nothing but the exact form is taken."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import ManifestError, ReferenceSignatureError
from attestation.reference.signature import (
    ADVISORIES_TYPE,
    MAX_SIGNATURES,
    REFERENCE_VALUES_TYPE,
    key_id,
    load_private_key,
    load_public_key,
    private_pem,
    public_pem,
    sign_detached,
    verify_detached,
)

ALICE, BOB, MALLORY = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2, 3))
FILE = b"[snp]\n"


def signed(*keys: Ed25519PrivateKey, data: bytes = FILE, kind: str = REFERENCE_VALUES_TYPE) -> bytes:
    """A signature file by `keys`."""
    return "".join(f"{sign_detached(data, key=key, kind=kind)}\n" for key in keys).encode()


def verify(signatures: bytes, data: bytes = FILE, *, by: tuple[Ed25519PrivateKey, ...] = (ALICE, BOB), **changes: Any):
    """Who of `by` has signed."""
    arguments = {"kind": REFERENCE_VALUES_TYPE, "threshold": 1, "name": "values.toml", **changes}
    return verify_detached(signatures, data, signers=[key.public_key() for key in by], **arguments)


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def with_header(**changes: Any) -> bytes:
    """A signature by Alice, authentic over a header that is changed."""
    header = {"alg": "EdDSA", "b64": False, "crit": ["b64"], "kid": key_id(ALICE.public_key())}
    header |= {"typ": REFERENCE_VALUES_TYPE, **changes}
    protected = encode(json.dumps({k: v for k, v in header.items() if v is not ...}).encode())
    return f"{protected}..{encode(ALICE.sign(protected.encode() + b'.' + FILE))}".encode()


def test_the_helper_makes_what_the_product_takes() -> None:
    assert verify(with_header()) == (key_id(ALICE.public_key()),)


def test_a_signature_verifies_and_names_its_signer() -> None:
    assert verify(signed(ALICE)) == (key_id(ALICE.public_key()),)
    assert verify(signed(MALLORY, BOB)) == (key_id(BOB.public_key()),)


def test_the_key_id_is_the_thumbprint_of_rfc_8037() -> None:
    # RFC 8037, appendix A.3: the thumbprint of the key of appendix A.2.
    x = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(bytes.fromhex("302a300506032b6570032100") + x)
    key = load_public_key(pem + b"\n-----END PUBLIC KEY-----\n", name="rfc")
    assert key_id(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_threshold_counts_different_signers() -> None:
    both = tuple(sorted(key_id(key.public_key()) for key in (ALICE, BOB)))
    assert verify(signed(ALICE, BOB), threshold=2) == both
    for signatures in (signed(ALICE), signed(ALICE, ALICE), signed(ALICE, MALLORY)):
        with pytest.raises(ReferenceSignatureError, match="2 must have"):
            verify(signatures, threshold=2)


@pytest.mark.parametrize("threshold", [0, 3])
def test_a_threshold_that_cannot_be_met_is_no_threshold(threshold: int) -> None:
    with pytest.raises(ReferenceSignatureError, match="are known"):
        verify(signed(ALICE, BOB), threshold=threshold)


@pytest.mark.parametrize(
    ("signatures", "data", "named"),
    [
        (b"", FILE, "found none"),
        (signed(MALLORY), FILE, "must have"),
        (signed(ALICE), FILE + b" ", "does not verify"),
        (signed(ALICE, data=b"x") + signed(BOB), FILE, "does not verify"),
        (signed(ALICE, kind=ADVISORIES_TYPE), FILE, "keystead-advisories"),
        (signed(ALICE) * (MAX_SIGNATURES + 1), FILE, "at most"),
        (b"\n" * 100_000, FILE, "longer"),
        (b"\n" + signed(ALICE), FILE, "not a detached JWS"),
        (signed(ALICE).strip() + b"A" * 1024, FILE, "not a detached JWS"),
        (signed(ALICE).replace(b"..", b".W3NucF0K."), FILE, "not a detached JWS"),
        (signed(ALICE).replace(b"..", b"."), FILE, "not a detached JWS"),
        (signed(ALICE).strip() + b"=", FILE, "not base64url"),
        (signed(ALICE).partition(b"..")[0] + b".." + encode(bytes(63)).encode(), FILE, "64 bytes"),
        (with_header(alg="none"), FILE, "not EdDSA"),
        (with_header(alg="HS256"), FILE, "not EdDSA"),
        (with_header(alg="Ed25519"), FILE, "not EdDSA"),
        (with_header(b64=True), FILE, "not EdDSA"),
        (with_header(b64=0), FILE, "not EdDSA"),
        (with_header(crit=["b64", "exp"]), FILE, "not EdDSA"),
        (with_header(crit=[]), FILE, "not EdDSA"),
        (with_header(crit=...), FILE, "exactly"),
        (with_header(typ=...), FILE, "exactly"),
        (with_header(typ="JWT"), FILE, "'JWT'"),
        (with_header(jwk={}), FILE, "exactly"),
        (with_header(kid=7), FILE, "kid"),
        (with_header(kid="abc"), FILE, "values.toml"),
        (f"{encode(b'[]')}..{encode(bytes(64))}".encode(), FILE, "object"),
        (f"{encode(b'nonsense')}..{encode(bytes(64))}".encode(), FILE, "JSON"),
        (f"{encode(b'{}' + bytes([255]))}..{encode(bytes(64))}".encode(), FILE, "JSON"),
        (b"eyJhIjoxLCJhIjoxfQ.." + encode(bytes(64)).encode(), FILE, "twice"),
    ],
)
def test_one_thing_wrong(signatures: bytes, data: bytes, named: str) -> None:
    with pytest.raises(ReferenceSignatureError, match=r"^values\.toml: ") as caught:
        verify(signatures, data)
    assert named in str(caught.value)


def test_one_bit_of_the_file_or_of_the_signature_breaks_it() -> None:
    data, signature = b"[snp]\nserial = 1\n" * 3, bytearray(signed(ALICE, data=b"[snp]\nserial = 1\n" * 3).strip())
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 1
        with pytest.raises(ReferenceSignatureError):
            verify(bytes(signature), bytes(broken))
    for position in range(len(signature)):
        broken = bytearray(signature)
        broken[position] ^= 1
        with pytest.raises(ReferenceSignatureError):
            verify(bytes(broken), data)


def test_keys_come_and_go_as_pem() -> None:
    assert key_id(load_public_key(public_pem(ALICE.public_key()), name="a")) == key_id(ALICE.public_key())
    assert load_private_key(private_pem(ALICE), name="a").sign(FILE) == ALICE.sign(FILE)
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for load, data in ((load_private_key, pem), (load_public_key, public)):
        with pytest.raises(ManifestError, match=r"^a\.pem: not an Ed25519 key"):
            load(data, name="a.pem")
        with pytest.raises(ManifestError, match=r"^a\.pem: no "):
            load(b"junk", name="a.pem")


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_the_one_error(signatures: bytes) -> None:
    with pytest.raises(ReferenceSignatureError):
        verify(signatures)


@given(st.binary(max_size=300))
def test_any_file_can_be_signed(data: bytes) -> None:
    assert verify(signed(ALICE, data=data), data) == (key_id(ALICE.public_key()),)
