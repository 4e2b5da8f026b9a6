"""Sealing what a log from before it had keys holds in the clear, in batches, while the log is in use.

Nothing remembers how far it came: an entry that is still in the clear is found by an index that holds only those.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from audit.errors import KeysNeededError, MalformedError
from audit.keyring import FACTORY, Scope, keyring_of, scope_of
from audit.payload import seal
from audit.records import Record
from audit.tables import AUDIT_ENTRY

_ENTRY: Final = AUDIT_ENTRY.c
_CLEAR: Final = (
    select(_ENTRY.id, _ENTRY.leaf_hash, _ENTRY.salt, _ENTRY.payload)
    .where(_ENTRY.payload.is_not(None))
    .order_by(_ENTRY.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)  # another process's batch
)
_SEAL: Final = (
    update(AUDIT_ENTRY)
    .where(_ENTRY.id == bindparam("of"), _ENTRY.payload.is_not(None))
    .values(salt=None, payload=None, sealed=bindparam("ciphertext"), key_id=bindparam("under"))
)
_ANY_CLEAR: Final = select(_ENTRY.id).where(_ENTRY.payload.is_not(None)).limit(1)


def any_clear(connection: Connection) -> bool:
    """Whether any payload of the log is in the clear."""
    return connection.execute(_ANY_CLEAR).first() is not None


def seal_clear(connection: Connection, *, limit: int, now: int) -> int:
    """Seal some payloads that are in the clear; how many were, 0 where none is left.

    Nothing is judged here: a payload that was altered is sealed as it is, and verification finds it altered as before.

    Args:
        connection: in a transaction, of an engine bound to the log's keys.
        limit: how many at most.
        now: integer seconds since the Unix epoch.

    Raises:
        KeysNeededError: the engine is bound to no keys.
        KeyringError, MalformedError: the keys cannot be used.
    """
    ring = keyring_of(connection)
    if ring is None:
        raise KeysNeededError("log: no keys to seal its payloads with; use an engine bound to them")
    rows = connection.execute(_CLEAR, {"most": limit}).all()
    if not rows:
        return 0
    scopes = [_scope(bytes(row.payload)) for row in rows]
    keys = ring.live_keys(connection, set(scopes), now)
    sealed = []
    for row, scope in zip(rows, scopes, strict=True):
        key = keys[scope]
        ciphertext = seal(
            key.cipher,
            key_id=key.id,
            entry_hash=bytes(row.leaf_hash),
            salt=bytes(row.salt),
            payload=bytes(row.payload),
        )
        sealed.append({"of": row.id, "ciphertext": ciphertext, "under": key.id})
    connection.execute(_SEAL, sealed)
    return len(rows)


def _scope(payload: bytes) -> Scope:
    try:
        return scope_of(Record.parse(payload))
    except MalformedError:
        return FACTORY
