"""Ed25519 keys that the broker signs with (RFC 8032): grants, Attestation Results, receipts, checkpoints."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, Self

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

from keybroker.errors import SigningKeyError
from keybroker.keys.files import read_secret, write_secret

_LIMIT: Final = 4096


def key_id(public_key: Ed25519PublicKey) -> str:
    """The id of a verification key: the first 16 hexadecimal digits of SHA-256 over its SubjectPublicKeyInfo."""
    spki = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()[:16]


def parse_public_key(data: bytes, *, what: str) -> Ed25519PublicKey:
    """Read an Ed25519 public key, SubjectPublicKeyInfo in PEM.

    Args:
        data: the file's contents.
        what: the file's name, for the error.

    Raises:
        SigningKeyError: it is none.
    """
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise SigningKeyError(f"{what}: not a public key in PEM (SubjectPublicKeyInfo)") from None
    if not isinstance(key, Ed25519PublicKey):
        raise SigningKeyError(f"{what}: not an Ed25519 key")
    return key


class SigningKey:
    """An Ed25519 private key with its id."""

    __slots__ = ("key_id", "private_key", "public_key")

    private_key: Ed25519PrivateKey
    """For libraries that sign by themselves."""

    public_key: Ed25519PublicKey
    """What verifies its signatures."""

    key_id: str
    """`key_id` of the public key."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self.private_key = private_key
        self.public_key = private_key.public_key()
        self.key_id = key_id(self.public_key)

    @classmethod
    def generate(cls) -> Self:
        """A new key that is in memory only."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def create(cls, path: Path) -> Self:
        """Draw a new key and store it at `path`, PKCS#8 (RFC 5958) in PEM, mode 0600.

        Raises:
            SigningKeyError: the file exists already or cannot be written.
        """
        key = cls.generate()
        write_secret(path, key.to_pem(), error=SigningKeyError)
        return key

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load a key from `path`.

        Raises:
            SigningKeyError: there is no such file, it is a link, others may access it, or it is not an unencrypted
                Ed25519 key in PEM.
        """
        data = read_secret(path, limit=_LIMIT, error=SigningKeyError)
        try:
            private_key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
            raise SigningKeyError(f"{path}: not an unencrypted private key in PEM (PKCS#8)") from None
        if not isinstance(private_key, Ed25519PrivateKey):
            raise SigningKeyError(f"{path}: not an Ed25519 key; create one with `keystead init`")
        return cls(private_key)

    def to_pem(self) -> bytes:
        """PKCS#8 in PEM, unencrypted. Secret."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def public_pem(self) -> bytes:
        """SubjectPublicKeyInfo in PEM, for whoever verifies."""
        return self.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature over `data`."""
        return self.private_key.sign(data)
