"""What the bytes of a sealed file say: Tink's streaming AEAD with the parameters ``AES256_GCM_HKDF_1MB``.

::

    file      = segment 0 ‖ segment 1 ‖ … ‖ segment n-1          each 1,048,576 bytes, the last one shorter
    segment 0 = header ‖ ciphertext ‖ tag 16                     at most 1,048,520 bytes of plaintext
    segment i = ciphertext ‖ tag 16                              at most 1,048,560 bytes of plaintext
    header    = 0x28 ‖ salt 32 ‖ nonce prefix 7                  0x28 = 40 is the header's own size
    key       = HKDF-SHA256(ikm = data key, salt = salt, info = context), 32 bytes
    nonce     = nonce prefix 7 ‖ u32 big-endian index ‖ 0x01 for the last segment, else 0x00

Every segment but the last is full, and the last one holds at least one byte unless the whole file is empty: one
plaintext size has one sealed size and the other way round. Source: Tink wire format, "Streaming AEAD,
AES-GCM-HKDF" (developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming) and the key template of that name.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.utils import Buffer

from keystead.binding import LABEL_PREFIX
from sealed.errors import KeyMaterialError, NotAuthenticError, SealingError

CIPHER: Final = "AES256_GCM_HKDF_1MB"
"""The name of Tink's key template whose wire format this is."""

KEY_SIZE: Final = 32
SALT_SIZE: Final = 32
NONCE_PREFIX_SIZE: Final = 7
HEADER_SIZE: Final = 1 + SALT_SIZE + NONCE_PREFIX_SIZE
TAG_SIZE: Final = 16
SEGMENT_SIZE: Final = 1 << 20
"""Bytes of the file that one segment takes, header and tag included."""

SEGMENT_PLAINTEXT: Final = SEGMENT_SIZE - TAG_SIZE
FIRST_PLAINTEXT: Final = SEGMENT_PLAINTEXT - HEADER_SIZE
MAX_SEGMENTS: Final = 1 << 32
MAX_PLAINTEXT: Final = FIRST_PLAINTEXT + (MAX_SEGMENTS - 1) * SEGMENT_PLAINTEXT

_LABEL_KEY_ID: Final = LABEL_PREFIX + "key-id"
_KEY_ID_SIZE: Final = 8


def check_key(key: Buffer) -> None:
    """Check that `key` is 32 bytes.

    Raises:
        KeyMaterialError: it is not.
    """
    size = memoryview(key).nbytes
    if size != KEY_SIZE:
        raise KeyMaterialError(f"data key: {size} bytes, {CIPHER} needs {KEY_SIZE}")


def key_id(key: Buffer) -> str:
    """The public name of a data key: 16 hex digits.

    They are HKDF-SHA256 (RFC 5869) of the key under ``keystead/v1/key-id``, so that the name says which key it is
    and nothing about the key, nor about the segment keys that are derived from it under other inputs.

    Raises:
        KeyMaterialError: the key is not 32 bytes.
    """
    check_key(key)
    return HKDF(SHA256(), _KEY_ID_SIZE, None, _LABEL_KEY_ID.encode("ascii")).derive(key).hex()


@dataclass(frozen=True, slots=True)
class Header:
    """The first 40 bytes of a sealed file.

    Attributes:
        salt: 32 random bytes, the salt of HKDF.
        nonce_prefix: 7 random bytes, the first of every nonce.
    """

    salt: bytes
    nonce_prefix: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a header.

        Raises:
            NotAuthenticError: another length, or the first byte is not the header's size.
        """
        if len(data) != HEADER_SIZE or data[0] != HEADER_SIZE:
            raise NotAuthenticError(f"not a sealed file: no {CIPHER} header")
        return cls(data[1 : 1 + SALT_SIZE], data[1 + SALT_SIZE :])

    def to_bytes(self) -> bytes:
        """The 40 bytes that `parse` reads."""
        return bytes((HEADER_SIZE,)) + self.salt + self.nonce_prefix

    def cipher(self, *, key: Buffer, context: bytes) -> AESGCM:
        """The AES-256-GCM key of this file's segments, derived from the data key and the associated data.

        Raises:
            KeyMaterialError: the key is not 32 bytes.
        """
        check_key(key)
        derived = bytearray(KEY_SIZE)
        try:
            HKDF(SHA256(), KEY_SIZE, self.salt, context).derive_into(key, derived)
            return AESGCM(derived)
        finally:
            derived[:] = bytes(KEY_SIZE)

    def nonce(self, index: int, *, last: bool) -> bytes:
        """The nonce of segment `index`; the last segment's differs, so that none can be taken for another."""
        return self.nonce_prefix + struct.pack(">I?", index, last)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the segments of one sealed file lie; sizes and offsets are bytes.

    Attributes:
        size: plaintext bytes.
        sealed_size: bytes of the file.
        segments: how many segments it has, at least 1.
    """

    size: int
    sealed_size: int
    segments: int

    @classmethod
    def of_size(cls, size: int) -> Self:
        """The layout of `size` bytes of plaintext.

        Raises:
            SealingError: negative, or more than `MAX_PLAINTEXT`.
        """
        if not 0 <= size <= MAX_PLAINTEXT:
            raise SealingError(f"{size} bytes cannot be sealed in one file, at most {MAX_PLAINTEXT} can")
        rest = max(0, size - FIRST_PLAINTEXT)
        segments = 1 + -(-rest // SEGMENT_PLAINTEXT)
        return cls(size, HEADER_SIZE + size + segments * TAG_SIZE, segments)

    @classmethod
    def of_sealed_size(cls, sealed_size: int) -> Self:
        """The layout of a file of `sealed_size` bytes.

        Raises:
            NotAuthenticError: no plaintext size gives that length.
        """
        segments = -(-sealed_size // SEGMENT_SIZE)
        size = sealed_size - HEADER_SIZE - segments * TAG_SIZE
        if not 0 <= size <= MAX_PLAINTEXT or cls.of_size(size).sealed_size != sealed_size:
            raise NotAuthenticError(f"not a sealed file, or cut short: no plaintext seals to {sealed_size} bytes")
        return cls(size, sealed_size, segments)

    def plaintext_start(self, index: int) -> int:
        """The offset in the plaintext of segment `index`'s first byte."""
        return 0 if index == 0 else FIRST_PLAINTEXT + (index - 1) * SEGMENT_PLAINTEXT

    def plaintext_size(self, index: int) -> int:
        """How many bytes of plaintext segment `index` holds."""
        return (
            self.plaintext_start(index + 1) - self.plaintext_start(index)
            if not self.is_last(index)
            else (self.size - self.plaintext_start(index))
        )

    def ciphertext_start(self, index: int) -> int:
        """The offset in the file of segment `index`'s ciphertext, behind the header in segment 0."""
        return HEADER_SIZE if index == 0 else index * SEGMENT_SIZE

    def segment_at(self, offset: int) -> int:
        """The index of the segment that holds plaintext byte `offset`."""
        return 0 if offset < FIRST_PLAINTEXT else 1 + (offset - FIRST_PLAINTEXT) // SEGMENT_PLAINTEXT

    def is_last(self, index: int) -> bool:
        """Whether segment `index` is the last."""
        return index == self.segments - 1
