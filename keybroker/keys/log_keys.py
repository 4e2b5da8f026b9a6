"""The log's payload keys under the root: what `audit.keyring` asks of its host."""

from __future__ import annotations

from typing import Final

from audit.errors import KeyringError, MalformedError
from audit.keyring import Keyring
from keybroker.errors import KeyUnwrapError, RootKeyError
from keybroker.keys.root import RootKey
from keystead.binding import LABEL_PREFIX, encode

LABEL_LOG_KEY: Final = LABEL_PREFIX + "log-key"


class LogKeyCustody:
    """Wraps and opens the log's payload keys with a root key, under a label of their own."""

    __slots__ = ("_root",)

    def __init__(self, root: RootKey) -> None:
        self._root = root

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Wrap a payload key; only the same `context` opens it again.

        Raises:
            KeyringError: the root cannot be used now.
        """
        try:
            return self._root.wrap(key, encode(LABEL_LOG_KEY, context))
        except RootKeyError as error:
            raise KeyringError(f"log keys: {error}") from error

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Open what `wrap` made.

        Raises:
            MalformedError: it was made with another root or context, or was altered.
            KeyringError: the root cannot be used now.
        """
        try:
            return self._root.unwrap(wrapped, encode(LABEL_LOG_KEY, context))
        except KeyUnwrapError as error:
            raise MalformedError("payload key", str(error)) from error
        except RootKeyError as error:
            raise KeyringError(f"log keys: {error}") from error


def log_keyring(root: RootKey, *, origin: str) -> Keyring:
    """The keys of the log `origin` under `root`."""
    return Keyring(LogKeyCustody(root), origin=origin)
