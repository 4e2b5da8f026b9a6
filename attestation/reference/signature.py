"""Detached signatures beside operators' files: JWS (RFC 7515) over the file's own bytes (RFC 7797, ``b64: false``).

One line of a signature file is one signature in the compact form ``header..signature``; several signers write several
lines. The protected header has exactly these members, and any other header is refused:

======== ==========================================================================================================
``alg``  ``EdDSA`` (RFC 8037), with an Ed25519 key
``b64``  false, and ``crit`` is exactly ``["b64"]``
``kid``  the signer's key: its JWK thumbprint (RFC 7638, SHA-256), base64url
``typ``  what kind of file was signed, so that a signature under one kind says nothing about another
======== ==========================================================================================================
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jwt
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from jwt.api_jws import PyJWS

from attestation.errors import ManifestError, ReferenceSignatureError

REFERENCE_VALUES_TYPE: Final = "keystead-reference-values+jws"
"""``typ`` of a signature over reference values."""

ADVISORIES_TYPE: Final = "keystead-advisories+jws"
"""``typ`` of a signature over a table of advisories."""

SIGNATURE_SUFFIX: Final = ".jws"
"""What is appended to a file's name for its signatures' file."""

MAX_SIGNATURES: Final = 16
MAX_SIGNATURE: Final = 1024
"""Bytes of one signature's line; a sound one has about 270."""

MAX_SIGNATURE_FILE: Final = MAX_SIGNATURES * (MAX_SIGNATURE + 2)

_ALGORITHM: Final = "EdDSA"
_MEMBERS: Final = frozenset({"alg", "b64", "crit", "kid", "typ"})
_SIGNATURE_SIZE: Final = 64
_JWS: Final = PyJWS(algorithms=[_ALGORITHM])


def key_id(key: Ed25519PublicKey) -> str:
    """A key's JWK thumbprint (RFC 7638 with RFC 8037): SHA-256, base64url without padding."""
    x = _encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
    # RFC 7638, section 3: the required members, in lexicographic order, without white space.
    return _encode(hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode("ascii")).digest())


def sign_detached(payload: bytes, *, key: Ed25519PrivateKey, kind: str) -> str:
    """One signature line over `payload`, a file of `kind` (`REFERENCE_VALUES_TYPE` or `ADVISORIES_TYPE`)."""
    return _JWS.encode(
        payload,
        key,
        algorithm=_ALGORITHM,
        headers={"typ": kind, "kid": key_id(key.public_key()), "b64": False, "crit": ["b64"]},
        is_payload_detached=True,
    )


def verify_detached(
    signatures: bytes, payload: bytes, *, kind: str, signers: Sequence[Ed25519PublicKey], threshold: int, name: str
) -> tuple[str, ...]:
    """The key ids of those `signers` who signed `payload`, sorted.

    A signature of a key that is not among the signers counts for nothing. One that claims such a key and does not
    verify is an error, whatever else is there.

    Args:
        signatures: the signature file.
        payload: the signed file's bytes.
        kind: what ``typ`` must be.
        signers: the keys that may sign.
        threshold: how many different signers must have signed; at least 1.
        name: the signed file's name, for errors.

    Raises:
        ReferenceSignatureError: malformed, of another kind, not authentic, or by too few signers.
    """
    if threshold < 1 or threshold > len(signers):
        raise ReferenceSignatureError(f"{name}: {threshold} signers are asked for and {len(signers)} are known")
    known = {key_id(signer): signer for signer in signers}
    verified: set[str] = set()
    others: set[str] = set()
    for number, (claimed, line) in enumerate(signature_lines(signatures, kind=kind, name=name), start=1):
        if claimed not in known:
            others.add(claimed)
            continue
        try:
            _JWS.decode_complete(line, known[claimed], algorithms=[_ALGORITHM], detached_payload=payload)
        except jwt.PyJWTError:
            raise ReferenceSignatureError(
                f"{name}: signature {number}: does not verify with key {claimed}: the file was changed after it was "
                f"signed, or the signature is another file's. Sign it again: keystead reference sign {name}"
            ) from None
        verified.add(claimed)
    if len(verified) < threshold:
        found = f"found {', '.join(sorted(verified | others))}" if verified or others else "found none"
        raise ReferenceSignatureError(
            f"{name}: signed by {len(verified)} of the known signers ({', '.join(sorted(known))}), {threshold} must "
            f"have; {found}. Sign it with a known key: keystead reference sign {name}"
        )
    return tuple(sorted(verified))


def signature_lines(signatures: bytes, *, kind: str, name: str) -> list[tuple[str, str]]:
    """Each well-formed signature with the key id that it claims, in order; nothing is verified.

    Raises:
        ReferenceSignatureError: too many or too long, malformed, or of another kind.
    """
    if len(signatures) > MAX_SIGNATURE_FILE:
        raise ReferenceSignatureError(f"{name}: its signatures are longer than {MAX_SIGNATURE_FILE} bytes")
    lines = signatures.splitlines()
    if len(lines) > MAX_SIGNATURES:
        raise ReferenceSignatureError(f"{name}: {len(lines)} signatures, at most {MAX_SIGNATURES} are allowed")
    return [
        (_claimed_signer(line, kind=kind, where=f"{name}: signature {number}"), line.decode("ascii"))
        for number, line in enumerate(lines, start=1)
    ]


def _claimed_signer(line: bytes, *, kind: str, where: str) -> str:
    """``kid`` of a signature whose header is exactly as it must be; nothing is verified yet."""
    parts = line.split(b".")
    if len(line) > MAX_SIGNATURE or len(parts) != 3 or parts[1]:
        raise ReferenceSignatureError(f"{where}: not a detached JWS (header..signature, at most {MAX_SIGNATURE} bytes)")
    header = _header(_decode(parts[0], where), where)
    if header.keys() != _MEMBERS:
        raise ReferenceSignatureError(f"{where}: the header has not exactly {', '.join(sorted(_MEMBERS))}")
    if header["alg"] != _ALGORITHM or header["b64"] is not False or header["crit"] != ["b64"]:
        raise ReferenceSignatureError(f"{where}: not EdDSA over the file's own bytes (alg, b64, crit)")
    if header["typ"] != kind:
        raise ReferenceSignatureError(f"{where}: signs a {header['typ']!r:.60}, expected {kind!r}")
    signer = header["kid"]
    if not isinstance(signer, str) or len(_decode(signer.encode("utf-8"), where)) != hashlib.sha256().digest_size:
        raise ReferenceSignatureError(f"{where}: kid is no JWK thumbprint")
    if len(_decode(parts[2], where)) != _SIGNATURE_SIZE:
        raise ReferenceSignatureError(f"{where}: an Ed25519 signature has {_SIGNATURE_SIZE} bytes")
    return signer


def _header(data: bytes, where: str) -> Mapping[str, Any]:
    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a member is there twice")
        return found

    try:
        header = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ReferenceSignatureError(f"{where}: the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise ReferenceSignatureError(f"{where}: the header is no JSON object")
    return header


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: bytes, where: str) -> bytes:
    """Canonical base64url without padding: every value has one encoding."""
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        data = b""
    if not data or _encode(data).encode("ascii") != text:
        raise ReferenceSignatureError(f"{where}: not base64url")
    return data


def load_public_key(pem: bytes, *, name: str) -> Ed25519PublicKey:
    """An Ed25519 public key from PEM (SubjectPublicKeyInfo).

    Raises:
        ManifestError: anything else.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ManifestError(f"{name}: no public key in PEM: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ManifestError(f"{name}: not an Ed25519 key; make one: keystead reference keygen")
    return key


def load_private_key(pem: bytes, *, name: str) -> Ed25519PrivateKey:
    """An Ed25519 private key from unencrypted PEM (PKCS #8).

    Raises:
        ManifestError: anything else.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        raise ManifestError(f"{name}: no private key in unencrypted PEM: {error!s:.200}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ManifestError(f"{name}: not an Ed25519 key; make one: keystead reference keygen")
    return key


def public_pem(key: Ed25519PublicKey) -> bytes:
    """A public key as PEM (SubjectPublicKeyInfo)."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """A private key as unencrypted PEM (PKCS #8)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
