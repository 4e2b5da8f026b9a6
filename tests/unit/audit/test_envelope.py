"""The leaf's encoding is fixed, and it hides what it commits to."""

from __future__ import annotations

import hashlib

import pytest

from audit.envelope import LABEL_LEAF, SALT_SIZE, Leaf, new_salt
from audit.errors import MalformedError


def test_known_leaf() -> None:
    salt, payload = bytes(range(32)), b"{}"
    leaf = Leaf.commit(salt=salt, payload=payload)
    assert leaf.digest == hashlib.sha256(salt + payload).digest()
    encoded = b"\x00\x16keystead/v1/audit-leaf" + b"\x00\x01" + b"\x00\x00\x00\x20" + leaf.digest
    assert LABEL_LEAF == "keystead/v1/audit-leaf"
    assert leaf.to_bytes() == encoded
    assert leaf.entry_hash() == hashlib.sha256(b"\x00" + leaf.to_bytes()).digest()
    assert Leaf.parse(leaf.to_bytes()) == leaf


def test_salts_are_fresh() -> None:
    assert len({new_salt() for _ in range(100)}) == 100
    assert len(new_salt()) == SALT_SIZE


def test_salt_and_payload_cannot_trade_bytes() -> None:
    for salt in (b"", bytes(31), bytes(33)):
        with pytest.raises(MalformedError, match="salt"):
            Leaf.commit(salt=salt, payload=b"{}")


def test_what_is_no_leaf() -> None:
    data = Leaf(bytes(32)).to_bytes()
    for bad in (b"", data[:-1], data + b"\0", data.replace(b"v1", b"v2")):
        with pytest.raises(MalformedError):
            Leaf.parse(bad)
    with pytest.raises(MalformedError):
        Leaf(bytes(31))
