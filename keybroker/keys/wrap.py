"""The one format of a key at rest: AES-256-GCM (NIST SP 800-38D), naming the key that wraps it.

``encode("keystead/v1/wrapped-key", wrapping key's id, 12-byte nonce, ciphertext ‖ 16-byte tag)``; the associated data
is ``encode("keystead/v1/wrapped-key", wrapping key's id, context)``. The context says what is wrapped and for whom
(`keystead.binding.data_key_context` and the like), so that no wrapped key can stand in for another. Nonces are random:
a wrapping key is good for 2**32 of them (section 8.3), far more than there are keys.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from keybroker.errors import KeyUnwrapError
from keystead.binding import LABEL_PREFIX, BindingError, check_id, decode, encode

LABEL_WRAPPED_KEY: Final = LABEL_PREFIX + "wrapped-key"
LABEL_KEY_ID: Final = LABEL_PREFIX + "key-id"

KEY_SIZE: Final = 32
"""Bytes in a wrapping key."""

_NONCE_SIZE: Final = 12


def fingerprint(key: bytes) -> str:
    """16 hexadecimal digits that name a secret key of full entropy without giving anything of it away.

    HKDF-Expand (RFC 5869) under a label of its own, so that it is no hash used anywhere else.
    """
    return HKDFExpand(SHA256(), length=8, info=encode(LABEL_KEY_ID)).derive(key).hex()


def wrap(plaintext: bytes, *, key: bytes, key_id: str, context: bytes) -> bytes:
    """Wrap `plaintext` under `key`; only the same `key_id` and `context` open it again.

    Raises:
        BindingError: `key_id` is not an identifier.
        ValueError: `key` is not 32 bytes long.
    """
    cipher = _cipher(key)
    nonce = os.urandom(_NONCE_SIZE)
    name = check_id(key_id, "key id").encode("ascii")
    return encode(LABEL_WRAPPED_KEY, name, nonce, cipher.encrypt(nonce, plaintext, _associated(name, context)))


def wrapping_key_id(wrapped: bytes) -> str:
    """The id of the key that `wrapped` says it is wrapped under; unwrapping proves it.

    Raises:
        KeyUnwrapError: not a wrapped key.
    """
    return _parse(wrapped)[0].decode("ascii")


def unwrap(wrapped: bytes, *, key: bytes, key_id: str, context: bytes) -> bytes:
    """Open what `wrap` made with the same `key`, `key_id` and `context`.

    Raises:
        KeyUnwrapError: it was made with another key or context, or was altered.
        ValueError: `key` is not 32 bytes long.
    """
    cipher = _cipher(key)
    name, nonce, ciphertext = _parse(wrapped)
    if name != key_id.encode("ascii"):
        raise KeyUnwrapError(f"wrapped under key {name.decode('ascii')!r:.80}, not {key_id!r}: give it that key")
    try:
        return cipher.decrypt(nonce, ciphertext, _associated(name, context))
    except InvalidTag:
        raise KeyUnwrapError(
            f"does not open under key {key_id!r}: it belongs to something else, or was altered; restore the database"
        ) from None


def _cipher(key: bytes) -> AESGCM:
    if len(key) != KEY_SIZE:
        raise ValueError(f"a wrapping key has {KEY_SIZE} bytes, not {len(key)}")
    return AESGCM(key)


def _associated(name: bytes, context: bytes) -> bytes:
    return encode(LABEL_WRAPPED_KEY, name, context)


def _parse(wrapped: bytes) -> tuple[bytes, bytes, bytes]:
    try:
        name, nonce, ciphertext = decode(LABEL_WRAPPED_KEY, wrapped, 3)
        check_id(name.decode("ascii"), "key id")
    except (BindingError, UnicodeDecodeError) as error:
        raise KeyUnwrapError(f"not a wrapped key: {error}") from None
    if len(nonce) != _NONCE_SIZE:
        raise KeyUnwrapError(f"not a wrapped key: nonce of {len(nonce)} bytes, expected {_NONCE_SIZE}")
    return name, nonce, ciphertext
