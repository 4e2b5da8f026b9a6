"""Payloads as they lie in the database: sealed, opened again, and read in one of the ways that a row can have.

A sealed payload is ``nonce (12 bytes) ‖ AES-256-GCM(salt ‖ payload)`` (NIST SP 800-38D), with the key's id and the
entry hash as associated data, so that neither another row's ciphertext nor another key's can stand in for it. The salt
is inside: beside a digest that is kept for ever, a salt in the clear would let anybody confirm a guess.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection

from audit.envelope import SALT_SIZE, Leaf
from audit.errors import LogCorruptError, MalformedError
from audit.keyring import StoredKey, keyring_of
from audit.tables import AUDIT_ENTRY, AUDIT_KEY
from keystead.binding import LABEL_PREFIX, encode

LABEL_PAYLOAD: Final = LABEL_PREFIX + "audit-payload"
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16

PAYLOAD_COLUMNS: Final = (
    AUDIT_ENTRY.c.digest,
    AUDIT_ENTRY.c.leaf_hash,
    AUDIT_ENTRY.c.salt,
    AUDIT_ENTRY.c.payload,
    AUDIT_ENTRY.c.sealed,
    AUDIT_ENTRY.c.key_id,
    AUDIT_KEY.c.id.label("stored_key"),
    AUDIT_KEY.c.tenant.label("key_tenant"),
    AUDIT_KEY.c.subject.label("key_subject"),
    AUDIT_KEY.c.wrapped.label("key_wrapped"),
    AUDIT_KEY.c.created_at.label("key_created_at"),
)
"""What of a row `PayloadReader` needs, from `KEYED_ENTRY`. Keys come with their entries, by the same statement: an
answer then takes as many statements whether it is shown or withheld."""

KEY_OF_ENTRY: Final = AUDIT_ENTRY.c.key_id == AUDIT_KEY.c.id
KEYED_ENTRY: Final = AUDIT_ENTRY.outerjoin(AUDIT_KEY, KEY_OF_ENTRY)
"""Entries, each with its key where it has one."""


def seal(cipher: AESGCM, *, key_id: str, entry_hash: bytes, salt: bytes, payload: bytes) -> bytes:
    """Seal salt and payload of the entry `entry_hash` under the key `key_id`, whose cipher is given."""
    nonce = os.urandom(NONCE_SIZE)
    return nonce + cipher.encrypt(nonce, salt + payload, _associated(key_id, entry_hash))


def unseal(cipher: AESGCM, sealed: bytes, *, key_id: str, entry_hash: bytes) -> tuple[bytes, bytes]:
    """Salt and payload that `seal` sealed.

    Raises:
        MalformedError: it was sealed for another entry or under another key, or was altered.
    """
    if len(sealed) < NONCE_SIZE + SALT_SIZE + TAG_SIZE:
        raise MalformedError("sealed payload", f"{len(sealed)} bytes, too few to hold a salt")
    try:
        opened = cipher.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], _associated(key_id, entry_hash))
    except InvalidTag:
        raise MalformedError(
            "sealed payload", f"does not open under key {key_id}: altered, or another entry's"
        ) from None
    return opened[:SALT_SIZE], opened[SALT_SIZE:]


def _associated(key_id: str, entry_hash: bytes) -> bytes:
    return encode(LABEL_PAYLOAD, key_id.encode("ascii", "backslashreplace"), entry_hash)


@dataclass(frozen=True, slots=True)
class Opened:
    """A row's payload as this reader sees it.

    Attributes:
        salt, payload: what the digest covers; both None where erased or sealed.
        sealed: it is there, but this reader has no keys.
    """

    salt: bytes | None
    payload: bytes | None
    sealed: bool = False

    @property
    def erased(self) -> bool:
        """Whether nobody can read it any more."""
        return self.payload is None and not self.sealed


ERASED: Final = Opened(None, None)
SEALED: Final = Opened(None, None, sealed=True)


class PayloadReader:
    """Opens rows with the keys that a connection's engine is bound to."""

    __slots__ = ("_ring",)

    def __init__(self, connection: Connection) -> None:
        self._ring = keyring_of(connection)

    def open(self, row: Any) -> Opened:
        """Open one row; nothing is compared with its digest here.

        Raises:
            MalformedError: what is sealed does not open, or its key is missing or was altered.
            KeyringError: the keys' custody cannot be used now.
        """
        if row.sealed is None:
            if row.payload is None or row.salt is None:
                return ERASED
            return Opened(bytes(row.salt), bytes(row.payload))
        if row.payload is not None:
            raise MalformedError("sealed payload", "stands beside one in the clear")
        if row.stored_key is None:
            raise MalformedError("sealed payload", f"its key {row.key_id} is not in the database")
        if row.key_wrapped is None:
            return ERASED
        if self._ring is None:
            return SEALED
        key = StoredKey(row.stored_key, row.key_tenant, row.key_subject, row.key_wrapped, row.key_created_at)
        cipher = self._ring.cipher(key)
        salt, payload = unseal(cipher, bytes(row.sealed), key_id=key.id, entry_hash=bytes(row.leaf_hash))
        return Opened(salt, payload)

    def open_checked(self, row: Any, name: str) -> Opened:
        """Open one row and check it against its hashes.

        Args:
            row: the row.
            name: what an error calls it.

        Raises:
            LogCorruptError: it is not what was appended.
            KeyringError: the keys' custody cannot be used now.
        """
        try:
            opened = self.open(row)
            leaf = Leaf(bytes(row.digest))
            intact = leaf.entry_hash() == bytes(row.leaf_hash)
            if opened.payload is not None and opened.salt is not None:
                intact = intact and Leaf.commit(salt=opened.salt, payload=opened.payload) == leaf
        except MalformedError as error:
            raise LogCorruptError(
                f"{name} was altered in the database ({error}); run `keystead audit verify`"
            ) from None
        if not intact:
            raise LogCorruptError(f"{name} was altered in the database; run `keystead audit verify`")
        return opened
