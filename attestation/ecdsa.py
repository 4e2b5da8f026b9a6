"""The product's one ECDSA verification backend: AWS-LC through `awscrt` (docs/adr/0003-ecdsa-backend.md)."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple, Self

from awscrt.crypto import EC
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation.errors import UnsupportedError

P384_COORDINATE_SIZE: Final = 48
_HASHES: Final = {"secp256r1": hashlib.sha256, "secp384r1": hashlib.sha384}
_PREFIXES: Final = {
    bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"): ("secp256r1", 65),
    bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200"): ("secp384r1", 97),
}
"""What stands before the point in a SubjectPublicKeyInfo (RFC 5480, section 2), by curve, and the point's size."""
_POINT_SIZES: Final = dict(_PREFIXES.values())
_UNCOMPRESSED: Final = 4
"""First byte of a point with both coordinates (SEC 1, section 2.3.3)."""


class _Encoded(NamedTuple):
    """A public key as it is encoded: curve, SubjectPublicKeyInfo, and the X9.62 uncompressed point in it."""

    curve: str
    spki: bytes
    point: bytes


class EcdsaKey:
    """A public key ready to verify many signatures; P-256 with SHA-256, P-384 with SHA-384, nothing else.

    Attributes:
        curve: name of the curve (SEC 2).
        point: the key's point, X9.62 uncompressed.
    """

    __slots__ = ("_hash", "_key", "curve", "point")

    def __init__(self, public_key: ec.EllipticCurvePublicKey | _Encoded) -> None:
        """Prepare `public_key`.

        Raises:
            UnsupportedError: another curve.
        """
        encoded = public_key if isinstance(public_key, _Encoded) else _encode(public_key)
        self.curve, spki, self.point = encoded
        self._hash = _HASHES[self.curve]
        self._key = EC.new_key_from_der_data(spki)

    @classmethod
    def from_spki(cls, der: bytes) -> Self | None:
        """The key in a SubjectPublicKeyInfo; None where it is not plainly an uncompressed P-256 or P-384 key.

        This is a shortcut for the form that every vendor uses: what it does not take may be a key all the same.
        """
        for prefix, (curve, size) in _PREFIXES.items():
            if der.startswith(prefix) and len(der) == len(prefix) + size and der[len(prefix)] == _UNCOMPRESSED:
                try:
                    return cls(_Encoded(curve, der, der[len(prefix) :]))
                except RuntimeError:
                    # AWS-LC refuses points that are not on the curve.
                    return None
        return None

    def verify_der(self, signature: bytes, message: bytes) -> bool:
        """Does the DER-encoded ECDSA-Sig-Value `signature` over `message` verify?"""
        return bool(self._key.verify(self._hash(message).digest(), signature))

    def verify_raw(self, r: int, s: int, message: bytes) -> bool:
        """Does the signature (`r`, `s`) over `message` verify?"""
        return self.verify_der(der_signature(r, s), message)


def _encode(public_key: ec.EllipticCurvePublicKey) -> _Encoded:
    curve = public_key.curve.name
    if curve not in _HASHES:
        raise UnsupportedError(f"ECDSA curve {curve}: only P-256 and P-384 are verified")
    spki = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return _Encoded(curve, spki, spki[-_POINT_SIZES[curve] :])


def der_signature(r: int, s: int) -> bytes:
    """ECDSA-Sig-Value (RFC 3279, section 2.2.3): SEQUENCE of two INTEGERs, each in the fewest bytes."""
    first = r.to_bytes(r.bit_length() // 8 + 1, "big")
    second = s.to_bytes(s.bit_length() // 8 + 1, "big")
    first_size, second_size = len(first), len(second)
    return b"".join(
        (bytes((0x30, first_size + second_size + 4, 2, first_size)), first, bytes((2, second_size)), second)
    )
