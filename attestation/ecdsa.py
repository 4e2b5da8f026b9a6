"""The product's one ECDSA verification backend: AWS-LC through `awscrt` (docs/adr/0003-ecdsa-backend.md)."""

from __future__ import annotations

import hashlib
from typing import Final

from awscrt.crypto import EC
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation.errors import UnsupportedError

P384_COORDINATE_SIZE: Final = 48
_HASHES: Final = {"secp256r1": hashlib.sha256, "secp384r1": hashlib.sha384}


class EcdsaKey:
    """A public key ready to verify many signatures; P-256 with SHA-256, P-384 with SHA-384, nothing else."""

    __slots__ = ("_hash", "_key", "curve")

    def __init__(self, public_key: ec.EllipticCurvePublicKey) -> None:
        """Prepare `public_key`.

        Raises:
            UnsupportedError: another curve.
        """
        self.curve = public_key.curve.name
        if self.curve not in _HASHES:
            raise UnsupportedError(f"ECDSA curve {self.curve}: only P-256 and P-384 are verified")
        self._hash = _HASHES[self.curve]
        self._key = EC.new_key_from_der_data(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    def verify_der(self, signature: bytes, message: bytes) -> bool:
        """Does the DER-encoded ECDSA-Sig-Value `signature` over `message` verify?"""
        return bool(self._key.verify(self._hash(message).digest(), signature))

    def verify_raw(self, r: int, s: int, message: bytes) -> bool:
        """Does the signature (`r`, `s`) over `message` verify?"""
        return self.verify_der(der_signature(r, s), message)


def der_signature(r: int, s: int) -> bytes:
    """ECDSA-Sig-Value (RFC 3279, section 2.2.3): SEQUENCE of two INTEGERs, each in the fewest bytes."""
    first = r.to_bytes(r.bit_length() // 8 + 1, "big")
    second = s.to_bytes(s.bit_length() // 8 + 1, "big")
    first_size, second_size = len(first), len(second)
    return b"".join(
        (bytes((0x30, first_size + second_size + 4, 2, first_size)), first, bytes((2, second_size)), second)
    )
