"""Receipts: signed promises that nothing else can be mistaken for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from audit.envelope import Leaf
from audit.errors import MalformedError, NoteSignatureError
from audit.note import NoteSigner
from audit.receipt import Receipt

HASH = bytes(range(32))


@pytest.fixture(scope="module")
def key() -> NoteSigner:
    return NoteSigner.generate("log.example")


def test_issue_encode_verify(key: NoteSigner) -> None:
    receipt = Receipt.issue(entry_hash=HASH, time=1_800_000_000, signer=key)
    parsed = Receipt.parse(receipt.to_bytes())
    assert parsed == receipt
    parsed.verify(key.verifier)


def test_any_altered_field_is_found(key: NoteSigner) -> None:
    receipt = Receipt.issue(entry_hash=HASH, time=7, signer=key)
    for altered in (
        replace(receipt, entry_hash=bytes(32)),
        replace(receipt, time=8),
        replace(receipt, signature=bytes(64)),
        replace(receipt, origin="other.example"),
        replace(receipt, key_id=bytes(4)),
    ):
        with pytest.raises(NoteSignatureError):
            altered.verify(key.verifier)


def test_another_key_of_the_same_name(key: NoteSigner) -> None:
    receipt = Receipt.issue(entry_hash=HASH, time=7, signer=key)
    with pytest.raises(NoteSignatureError, match="made by"):
        receipt.verify(NoteSigner.generate("log.example").verifier)


def test_the_signed_bytes_are_never_a_note() -> None:
    message = Receipt.message(origin="log.example", entry_hash=HASH, time=7)
    assert message[0] == 0  # notes hold no control character but newline


def test_what_is_no_receipt(key: NoteSigner) -> None:
    data = Receipt.issue(entry_hash=HASH, time=7, signer=key).to_bytes()
    for bad in (b"", data[:-1], data + b"\0", data.replace(b"audit-receipt", b"audit-receipu"), Leaf(HASH).to_bytes()):
        with pytest.raises(MalformedError):
            Receipt.parse(bad)
    with pytest.raises(MalformedError):
        Receipt.parse(data.replace(b"log.example", b"log example"))
    with pytest.raises(MalformedError):
        Receipt.parse(data.replace(b"log.example", b"log.\xffxample"))


def test_what_is_not_promised(key: NoteSigner) -> None:
    for entry_hash, time in ((HASH[:-1], 7), (HASH, -1), (HASH, 1 << 53)):
        with pytest.raises(MalformedError):
            Receipt.issue(entry_hash=entry_hash, time=time, signer=key)
