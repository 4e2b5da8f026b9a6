"""Crypto-erasure: destroying the keys of a tenant, or of one of its users, so that their payloads are gone everywhere.

Three steps, each a transaction of its own, so that a process that is killed between two of them loses nothing and any
other goes on:

1. `begin` retires the keys: what is recorded from now on has new ones.
2. `record`, once everything under the retired keys has its place in the log (`measure` says so), destroys them and
   appends the ``audit.erased`` record. It names each key, how many entries were under it and a digest of their indexes,
   and not the user: verification takes no other entries for erased than these.
3. `clear` removes ciphertexts and query columns, in batches.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from audit.errors import EntryNotFoundError, ErasureError
from audit.keyring import keyring_of
from audit.log import PROJECTED, PendingEntry, append_many
from audit.records import Actor, Kind, Record, Result
from audit.sealing import any_clear
from audit.tables import (
    AUDIT_ENTRY,
    AUDIT_ENTRY_ASSET,
    AUDIT_ENTRY_HARDWARE,
    AUDIT_ENTRY_REASON,
    AUDIT_ERASURE,
    AUDIT_KEY,
)
from keystead.binding import u64

ERASED_KEYS: Final = "keys_digest"
"""The detail of an ``audit.erased`` record that says what was under each destroyed key, ``KEY COUNT DIGEST``."""

KEYS_IN_RECORD: Final = 256
"""Keys that one record names; an erasure of more makes several."""

_ERASED_KEY: Final = re.compile(r"([0-9a-f]{32}) (0|[1-9][0-9]{0,15}) ([0-9a-f]{64})")
_READ_AT_ONCE: Final = 10_000


@dataclass(frozen=True, slots=True)
class ErasedKey:
    """What was under a destroyed key.

    Attributes:
        id: the key.
        count: how many sequenced entries.
        digest: SHA-256 over their indexes, each as 8 bytes, big-endian, in the order of the log.
    """

    id: str
    count: int
    digest: bytes

    def __str__(self) -> str:
        return f"{self.id} {self.count} {self.digest.hex()}"


def erased_keys(record: Record) -> tuple[ErasedKey, ...]:
    """What an ``audit.erased`` record says of keys; nothing where it names none."""
    listed = record.detail.get(ERASED_KEYS)
    matches = (_ERASED_KEY.fullmatch(text) for text in (listed if isinstance(listed, tuple) else ()))
    return tuple(ErasedKey(found[1], int(found[2]), bytes.fromhex(found[3])) for found in matches if found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """An erasure and how far it is.

    Attributes:
        id: its number.
        tenant: whose payloads.
        keys: how many keys.
        entries: how many entries were erased; None before it is recorded.
        entry_hash: RFC 9162 hash of the (first) ``audit.erased`` entry; None before it is recorded.
        cleared: ciphertexts and query columns are gone too.
    """

    id: int
    tenant: str
    keys: int
    entries: int | None
    entry_hash: bytes | None
    cleared: bool

    @property
    def recorded(self) -> bool:
        """Whether the keys are destroyed."""
        return self.entry_hash is not None


def begin(connection: Connection, *, tenant: str, subject: str, actor: Actor, reason: str, now: int) -> int:
    """Retire the keys of a tenant or of one of its users; the erasure's number.

    Where everything there is to erase is being erased already by the same request, its number.

    Args:
        connection: in a transaction.
        tenant: whose.
        subject: one user of the tenant; all of the tenant where empty.
        actor: who erases.
        reason: one line; it is kept for ever, so it must not name the user.
        now: integer seconds since the Unix epoch.

    Raises:
        ErasureError: there is nothing to erase, or some payloads are still in the clear.
        RecordError: the actor or reason cannot be recorded.
    """
    if not tenant:
        raise ErasureError("erase: whose records? the factory's own are never erased")
    _record(tenant=tenant, of_subject=bool(subject), actor=actor, reason=reason, now=now, detail={})
    if any_clear(connection):
        raise ErasureError("erase: some records are not sealed yet, as after an upgrade; try again in a while")
    of_scope = [AUDIT_KEY.c.tenant == tenant, AUDIT_KEY.c.destroyed_at.is_(None)]
    if subject:
        of_scope.append(AUDIT_KEY.c.subject == subject)
    erasure_id: int = connection.execute(
        insert(AUDIT_ERASURE)
        .values(
            tenant=tenant,
            subject=subject,
            actor_role=actor.role,
            actor_name=actor.name,
            actor_tenant=actor.tenant,
            reason=reason,
            requested_at=now,
        )
        .returning(AUDIT_ERASURE.c.id)
    ).scalar_one()
    # Waits for transactions that are adding entries under these keys; in their order (`audit.keyring`), so that the two
    # do not wait for each other.
    free = [*of_scope, AUDIT_KEY.c.erasure_id.is_(None)]
    connection.execute(select(AUDIT_KEY.c.id).where(*free).order_by(AUDIT_KEY.c.id).with_for_update()).all()
    retired = connection.execute(
        update(AUDIT_KEY)
        .where(*free)
        .values(retired_at=func.coalesce(AUDIT_KEY.c.retired_at, now), erasure_id=erasure_id)
    )
    if retired.rowcount:
        return erasure_id
    connection.execute(delete(AUDIT_ERASURE).where(AUDIT_ERASURE.c.id == erasure_id))
    under_way = connection.execute(
        select(AUDIT_ERASURE.c.id)
        .where(
            AUDIT_ERASURE.c.tenant == tenant,
            AUDIT_ERASURE.c.subject == subject,
            AUDIT_ERASURE.c.recorded_at.is_(None),
        )
        .order_by(AUDIT_ERASURE.c.id)
        .limit(1)
    ).scalar_one_or_none()
    if under_way is None:
        whose = f"tenant {tenant!r}" if not subject else f"this user of tenant {tenant!r}"
        raise ErasureError(f"erase: the log holds no record of {whose} that is not erased, or being erased, already")
    return int(under_way)


def measure(connection: Connection, erasure_id: int) -> tuple[ErasedKey, ...] | None:
    """What is under the keys of an erasure; None while some of it waits for its place in the log.

    It only reads. No more is added under a retired key, so what it finds stays true.
    """
    keys = connection.execute(
        select(AUDIT_KEY.c.id).where(AUDIT_KEY.c.erasure_id == erasure_id).order_by(AUDIT_KEY.c.id)
    ).scalars()
    measured = []
    for key_id in keys.all():
        # The condition on `sealed` is that of the index.
        of_key = (AUDIT_ENTRY.c.key_id == key_id, AUDIT_ENTRY.c.sealed.is_not(None))
        if connection.execute(
            select(AUDIT_ENTRY.c.id).where(*of_key, AUDIT_ENTRY.c.leaf_index.is_(None)).limit(1)
        ).first():
            return None
        indexes = select(AUDIT_ENTRY.c.leaf_index).where(*of_key).order_by(AUDIT_ENTRY.c.leaf_index)
        count, digest = 0, hashlib.sha256()
        with connection.execute(indexes.execution_options(yield_per=_READ_AT_ONCE)) as found:
            for index in found.scalars():
                count += 1
                digest.update(u64(index))
        measured.append(ErasedKey(key_id, count, digest.digest()))
    return tuple(measured)


def record(
    connection: Connection, erasure_id: int, measured: Sequence[ErasedKey], *, now: int
) -> tuple[PendingEntry, ...]:
    """Destroy an erasure's keys and append its record, in one transaction; nothing where that is done already.

    Args:
        connection: in a transaction, of an engine bound to the log's keys.
        erasure_id: what `begin` returned.
        measured: what `measure` found.
        now: integer seconds since the Unix epoch.

    Raises:
        EntryNotFoundError: there is no such erasure.
        ErasureError: `measured` is not of its keys.
    """
    erasure = connection.execute(
        select(AUDIT_ERASURE).where(AUDIT_ERASURE.c.id == erasure_id).with_for_update()
    ).one_or_none()
    if erasure is None:
        raise EntryNotFoundError(f"erasure {erasure_id}: there is none")
    if erasure.recorded_at is not None:
        return ()
    of_erasure = AUDIT_KEY.c.erasure_id == erasure_id
    if set(connection.execute(select(AUDIT_KEY.c.id).where(of_erasure)).scalars()) != {key.id for key in measured}:
        raise ErasureError(f"erasure {erasure_id}: measured other keys than it has; measure again")
    entries = sum(key.count for key in measured)
    records = [
        _record(
            tenant=erasure.tenant,
            of_subject=bool(erasure.subject),
            actor=Actor(role=erasure.actor_role, name=erasure.actor_name, tenant=erasure.actor_tenant),
            reason=erasure.reason,
            now=now,
            detail={"entries": sum(key.count for key in part), ERASED_KEYS: tuple(str(key) for key in part)},
        )
        for part in (measured[at : at + KEYS_IN_RECORD] for at in range(0, len(measured), KEYS_IN_RECORD))
    ]
    pending = append_many(connection, records)
    connection.execute(update(AUDIT_KEY).where(of_erasure).values(wrapped=None, subject="", destroyed_at=now))
    connection.execute(
        update(AUDIT_ERASURE)
        .where(AUDIT_ERASURE.c.id == erasure_id)
        .values(recorded_at=now, subject="", entries=entries, entry_hash=pending[0].entry_hash)
    )
    ring = keyring_of(connection)
    if ring is not None:
        ring.forget([key.id for key in measured])
    return pending


def _record(*, tenant: str, of_subject: bool, actor: Actor, reason: str, now: int, detail: dict[str, Any]) -> Record:
    scope = {"scope": "user" if of_subject else "tenant", "reason": reason}
    return Record.build(
        kind=Kind.AUDIT_ERASED, time=now, actor=actor, tenant=tenant, result=Result.RECORDED, detail=scope | detail
    )


def clear(connection: Connection, erasure_id: int, *, limit: int, now: int) -> bool:
    """Remove ciphertexts and query columns of some entries of a recorded erasure; whether all are gone.

    Args:
        connection: in a transaction.
        erasure_id: what `begin` returned.
        limit: how many entries at most.
        now: integer seconds since the Unix epoch.
    """
    destroyed = select(AUDIT_KEY.c.id).where(AUDIT_KEY.c.erasure_id == erasure_id, AUDIT_KEY.c.wrapped.is_(None))
    ids = (
        connection.execute(
            select(AUDIT_ENTRY.c.id)
            .where(AUDIT_ENTRY.c.key_id.in_(destroyed), AUDIT_ENTRY.c.sealed.is_not(None))
            .limit(limit)
            .with_for_update()
        )
        .scalars()
        .all()
    )
    if ids:
        connection.execute(
            update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.id.in_(ids)).values(sealed=None, **dict.fromkeys(PROJECTED))
        )
        for table in (AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE, AUDIT_ENTRY_REASON):
            connection.execute(delete(table).where(table.c.entry_id.in_(ids)))
    if len(ids) == limit:
        return False
    connection.execute(
        update(AUDIT_ERASURE)
        .where(AUDIT_ERASURE.c.id == erasure_id, AUDIT_ERASURE.c.recorded_at.is_not(None))
        .values(cleared_at=now)
    )
    return True


def get(connection: Connection, erasure_id: int) -> Erasure:
    """An erasure and how far it is.

    Raises:
        EntryNotFoundError: there is none of this number.
    """
    row = connection.execute(select(AUDIT_ERASURE).where(AUDIT_ERASURE.c.id == erasure_id)).one_or_none()
    if row is None:
        raise EntryNotFoundError(f"erasure {erasure_id}: there is none")
    return _erasure(connection, row)


def unfinished(connection: Connection) -> tuple[Erasure, ...]:
    """Erasures that something is left to do for, the oldest first."""
    rows = connection.execute(
        select(AUDIT_ERASURE).where(AUDIT_ERASURE.c.cleared_at.is_(None)).order_by(AUDIT_ERASURE.c.id)
    ).all()
    return tuple(_erasure(connection, row) for row in rows)


def _erasure(connection: Connection, row: Row[Any]) -> Erasure:
    keys = select(func.count()).select_from(AUDIT_KEY).where(AUDIT_KEY.c.erasure_id == row.id)
    return Erasure(
        id=row.id,
        tenant=row.tenant,
        keys=connection.execute(keys).scalar_one(),
        entries=row.entries,
        entry_hash=None if row.entry_hash is None else bytes(row.entry_hash),
        cleared=row.cleared_at is not None,
    )
