"""The log's payload keys under the root: bound to their context, under a label of their own, errors of the log."""

from __future__ import annotations

import os

import pytest

from audit.errors import KeyringError, MalformedError
from keybroker.errors import KeyUnwrapError, RootKeyError
from keybroker.keys.log_keys import LogKeyCustody, log_keyring
from keybroker.keys.root import FileRootKey

KEY = os.urandom(32)


class AwayRoot:
    """A root whose module does not answer."""

    key_id = "root.away"

    def wrap(self, plaintext: bytes, context: bytes) -> bytes:
        """Fail."""
        raise RootKeyError("the module does not answer")

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Fail."""
        raise RootKeyError("the module does not answer")


def test_a_key_opens_in_its_own_context_under_its_own_root_only() -> None:
    root = FileRootKey(bytes(32))
    custody = LogKeyCustody(root)
    wrapped = custody.wrap(KEY, b"context")
    assert KEY not in wrapped
    assert custody.unwrap(wrapped, b"context") == KEY
    altered = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
    for other, data, context in (
        (custody, wrapped, b"other"),
        (custody, altered, b"context"),
        (custody, b"", b"context"),
        (LogKeyCustody(FileRootKey(bytes([1]) * 32)), wrapped, b"context"),
    ):
        with pytest.raises(MalformedError, match="payload key"):
            other.unwrap(data, context)


def test_no_other_wrapped_key_passes_for_one_of_the_logs() -> None:
    root = FileRootKey(bytes(32))
    with pytest.raises(MalformedError):
        LogKeyCustody(root).unwrap(root.wrap(KEY, b"context"), b"context")
    with pytest.raises(KeyUnwrapError):
        root.unwrap(LogKeyCustody(root).wrap(KEY, b"context"), b"context")


def test_a_root_that_is_away_is_not_a_key_that_was_altered() -> None:
    custody = LogKeyCustody(AwayRoot())
    with pytest.raises(KeyringError, match="does not answer"):
        custody.wrap(KEY, b"")
    with pytest.raises(KeyringError, match="does not answer"):
        custody.unwrap(b"", b"")
    assert log_keyring(AwayRoot(), origin="a/log").origin == "a/log"
