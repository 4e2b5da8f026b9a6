"""The root of the key hierarchy: the one secret that is not in the database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol, Self

from keybroker.errors import RootKeyError
from keybroker.keys.files import read_secret, write_secret
from keybroker.keys.wrap import KEY_SIZE, fingerprint, unwrap, wrap

_PREFIX: Final = "root."


class RootKey(Protocol):
    """What holds the root: a file, an HSM, a transit engine. The key itself never comes out."""

    @property
    def key_id(self) -> str:
        """Names the key; stands in everything it wraps."""

    def wrap(self, plaintext: bytes, context: bytes) -> bytes:
        """Wrap `plaintext`; only the same `context` opens it again.

        Raises:
            RootKeyError: the root cannot be used now.
        """

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Open what `wrap` made.

        Raises:
            KeyUnwrapError: it was made with another key or context, or was altered.
            RootKeyError: the root cannot be used now.
        """


class FileRootKey:
    """A root of 32 random bytes in a file that only this user may read (mode 0600)."""

    __slots__ = ("_key", "key_id")

    key_id: str
    """``root.`` and the key's fingerprint."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise RootKeyError(f"a root key has {KEY_SIZE} bytes, not {len(key)}: restore it from its backup")
        self._key = key
        self.key_id = _PREFIX + fingerprint(key)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Draw a new root and store it at `path`.

        Raises:
            RootKeyError: the file exists already or cannot be written.
        """
        key = os.urandom(KEY_SIZE)
        write_secret(path, key, error=RootKeyError)
        return cls(key)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load the root from `path`.

        Raises:
            RootKeyError: there is no such file, it is a link, others may access it, or it is not 32 bytes long.
        """
        key = read_secret(path, limit=KEY_SIZE, error=RootKeyError)
        if len(key) != KEY_SIZE:
            raise RootKeyError(f"{path}: {len(key)} bytes, a root key has {KEY_SIZE}: restore it from its backup")
        return cls(key)

    def wrap(self, plaintext: bytes, context: bytes) -> bytes:
        """Wrap `plaintext`; only the same `context` opens it again."""
        return wrap(plaintext, key=self._key, key_id=self.key_id, context=context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Open what `wrap` made.

        Raises:
            KeyUnwrapError: it was made with another key or context, or was altered.
        """
        return unwrap(wrapped, key=self._key, key_id=self.key_id, context=context)
