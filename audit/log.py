"""Appending to the log, inside the transaction of whatever is being recorded.

An append inserts an *unsequenced* entry: it is durable with the caller's commit and gone with the caller's
rollback. The sequencer gives it its place later. The entry hash is known at once, so a receipt can promise it.

Payloads are sealed under the keys that the connection's engine is bound to (`audit.keyring.bind`); a log that has keys
takes none in the clear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, delete, select, update

from audit.envelope import Leaf, new_salt
from audit.errors import EntryNotFoundError, RecordError
from audit.insert import BulkInsert, insert_entries
from audit.keyring import LiveKey, keyring_of, refuse_clear, scope_of
from audit.payload import seal
from audit.records import MAX_ITEMS, Actor, Kind, Record, Result, asset_ref
from audit.tables import AUDIT_ENTRY, AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE, AUDIT_ENTRY_REASON

T = TypeVar("T")

LEASE_BEGINS: Final = (Kind.LEASE_GRANTED, Kind.LEASE_RENEWED)
"""Records from which on a lease is alive, until the instant that they name."""

ERASED_INDEXES: Final = "leaf_indexes"
"""The detail of an ``audit.erased`` record that lists what was erased."""


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """An entry that waits for its place in the log.

    Attributes:
        id: its row, which has nothing to do with its later index.
        entry_hash: RFC 9162 hash of its leaf; a receipt promises it.
    """

    id: int
    entry_hash: bytes


def projections(record: Record) -> dict[str, Any]:
    """The record's fields as columns of `AUDIT_ENTRY`, for queries."""
    return {
        "kind": record.kind.value,
        "time": record.time,
        "actor_role": record.actor.role,
        "actor_name": record.actor.name,
        "actor_tenant": record.actor.tenant,
        "tenant": record.tenant,
        "job": record.job,
        "node": record.node,
        "site": record.site,
        "jurisdiction": record.jurisdiction,
        "policy_digest": record.policy_digest,
        "input_digest": record.input_digest,
        "result": record.result.value,
        "lease": record.lease,
        "job_user": _detail(record, "user", str),
        "expires_at": _detail(record, "expires_at", int),
        "lifetime_bits": _lifetime_bits(record),
    }


def _lifetime_bits(record: Record) -> int | None:
    """The binary length of the seconds that a lease lasts by this record; None where none begins to.

    Leases alive at an instant began no longer before it than they last. With leases grouped by this length that is a
    span of time for each group, however long a few of them last.
    """
    expires_at = _detail(record, "expires_at", int)
    if record.kind not in LEASE_BEGINS or record.lease is None or expires_at is None or expires_at <= record.time:
        return None
    return (expires_at - record.time).bit_length()


def _detail(record: Record, name: str, of: type[T]) -> T | None:
    value = record.detail.get(name)
    return value if isinstance(value, of) and not isinstance(value, bool) else None


PROJECTED: Final = (
    "kind",
    "time",
    "actor_role",
    "actor_name",
    "actor_tenant",
    "tenant",
    "job",
    "node",
    "site",
    "jurisdiction",
    "policy_digest",
    "input_digest",
    "result",
    "lease",
    "job_user",
    "expires_at",
    "lifetime_bits",
)
"""The columns of `AUDIT_ENTRY` that repeat the payload for queries, and are erased with it."""


_INSERT_ASSETS: Final = BulkInsert(AUDIT_ENTRY_ASSET, "entry_id", "asset", "version")
_INSERT_HARDWARE: Final = BulkInsert(AUDIT_ENTRY_HARDWARE, "entry_id", "hardware")
_INSERT_REASONS: Final = BulkInsert(AUDIT_ENTRY_REASON, "entry_id", "reason")


def append(connection: Connection, record: Record) -> PendingEntry:
    """Insert one unsequenced entry in the caller's transaction.

    Raises:
        RecordError: the record is too large.
        KeysNeededError: the log's payloads are sealed, and `connection` has no keys.
        KeyringError, MalformedError: the keys cannot be used.
    """
    return append_many(connection, [record])[0]


def append_many(connection: Connection, records: Sequence[Record]) -> tuple[PendingEntry, ...]:
    """Insert unsequenced entries, in this order, in the caller's transaction.

    Raises:
        RecordError: a record is too large; nothing was inserted.
        KeysNeededError, KeyringError, MalformedError: as for `append`.
    """
    if not records:
        return ()
    payloads = [record.payload() for record in records]
    ring = keyring_of(connection)
    if ring is None:
        refuse_clear(connection)
        rows = [_row(record, payload, None) for record, payload in zip(records, payloads, strict=True)]
    else:
        scopes = [scope_of(record) for record in records]
        keys = ring.live_keys(connection, set(scopes), max(record.time for record in records))
        rows = [
            _row(record, payload, keys[scope]) for record, payload, scope in zip(records, payloads, scopes, strict=True)
        ]
    ids = insert_entries(connection, rows)
    assets: list[tuple[int | str, ...]] = []
    hardware: list[tuple[int | str, ...]] = []
    reasons: list[tuple[int | str, ...]] = []
    for entry_id, record in zip(ids, records, strict=True):
        refs = [asset_ref(text) for text in record.assets]
        assets += [(entry_id, ref.asset, ref.version) for ref in refs]
        hardware += [(entry_id, text) for text in record.hardware]
        reasons += [(entry_id, text) for text in record.reasons]
    _INSERT_ASSETS(connection, assets)
    _INSERT_HARDWARE(connection, hardware)
    _INSERT_REASONS(connection, reasons)
    return tuple(PendingEntry(entry_id, row["leaf_hash"]) for entry_id, row in zip(ids, rows, strict=True))


def _row(record: Record, payload: bytes, key: LiveKey | None) -> dict[str, Any]:
    """The row of a new entry, sealed where there is a key."""
    salt = new_salt()
    leaf = Leaf.commit(salt=salt, payload=payload)
    entry_hash = leaf.entry_hash()
    row = projections(record)
    row["digest"], row["leaf_hash"] = leaf.digest, entry_hash
    if key is None:
        row["salt"], row["payload"] = salt, payload
    else:
        row["sealed"] = seal(key.cipher, key_id=key.id, entry_hash=entry_hash, salt=salt, payload=payload)
        row["key_id"] = key.id
    return row


def erase(connection: Connection, *, indexes: Sequence[int], actor: Actor, time: int) -> PendingEntry:
    """Erase payload, salt and projections of some sequenced entries, and record who did it, in one transaction.

    All of a tenant's or user's entries are erased by destroying their keys (`audit.erasure`); this is for single ones.
    Their leaves stay, so every proof still verifies. The ``audit.erased`` record names the indexes; a full
    verification reports an erased entry that no such record names. That record itself can not be erased.

    Raises:
        RecordError: no index, too many, or an ``audit.erased`` record among them.
        EntryNotFoundError: an index is not in the log, or erased already.
    """
    wanted = sorted(set(indexes))
    if not 1 <= len(wanted) <= MAX_ITEMS:
        raise RecordError(f"erase: {len(wanted)} entries, 1 to {MAX_ITEMS} can be erased at once")
    found = connection.execute(
        select(
            AUDIT_ENTRY.c.id,
            AUDIT_ENTRY.c.leaf_index,
            AUDIT_ENTRY.c.kind,
            AUDIT_ENTRY.c.payload.is_(None) & AUDIT_ENTRY.c.sealed.is_(None),
        ).where(AUDIT_ENTRY.c.leaf_index.in_(wanted))
    ).all()
    present = {index for _, index, _, erased in found if not erased}
    missing = [index for index in wanted if index not in present]
    if missing:
        raise EntryNotFoundError(f"erase: entry {missing[0]} is not in the log, or was erased already")
    for _, index, kind, _ in found:
        if kind == Kind.AUDIT_ERASED.value:
            raise RecordError(f"erase: entry {index} records an erasure and is kept")
    ids = [row_id for row_id, _, _, _ in found]
    connection.execute(
        update(AUDIT_ENTRY)
        .where(AUDIT_ENTRY.c.id.in_(ids))
        .values(salt=None, payload=None, sealed=None, key_id=None, **dict.fromkeys(PROJECTED))
    )
    for table in (AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE, AUDIT_ENTRY_REASON):
        connection.execute(delete(table).where(table.c.entry_id.in_(ids)))
    record = Record.build(
        kind=Kind.AUDIT_ERASED,
        time=time,
        actor=actor,
        result=Result.RECORDED,
        detail={ERASED_INDEXES: tuple(str(index) for index in wanted)},
    )
    return append(connection, record)
