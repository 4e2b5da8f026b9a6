"""The keys that payloads are sealed under: one random key for each tenant and each of its users.

A *scope* is a tenant and, where a record names for whom a job ran, that user; the factory's own records have a scope of
their own. The host keeps the key above all of them and lends its use through `KeyCustody`; without a host's custody a
log is kept in the clear. Destroying the wrapped keys of a scope erases its payloads wherever copies of the rows are.

A key is live until it is retired: by age (`KEY_SECONDS`), or by an erasure. An appending transaction holds each key
that it uses locked against retirement (``SELECT … FOR SHARE``; SQLite has one writer at a time), so that no entry is
ever added under a key that is retired, whatever another process has in memory.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Engine, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from audit.errors import KeyringError, KeysNeededError, MalformedError
from audit.records import Kind, Record
from audit.tables import AUDIT_KEY
from keystead.binding import LABEL_PREFIX, encode

LABEL_KEY: Final = LABEL_PREFIX + "audit-key"
KEY_SIZE: Final = 32

KEY_SECONDS: Final = 30 * 86_400
"""How long a key seals new payloads. Nonces are random, so a key is good for 2**32 of them (NIST SP 800-38D, section
8.3): 1,600 records of one scope every second for so long."""

CACHED_KEYS: Final = 4_096
"""Opened keys that are held in memory; others are unwrapped again when they are needed."""

_OPTION: Final = "keystead_audit_keyring"
_ID_SIZE: Final = 16


class KeyCustody(Protocol):
    """What a host lends a log: the use of its key-encryption key, which itself never comes out."""

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Wrap the 32 bytes of a payload key; only the same `context` opens it again.

        Raises:
            KeyringError: the key-encryption key cannot be used now.
        """
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Open what `wrap` made.

        Raises:
            MalformedError: it was made with another key or context, or was altered.
            KeyringError: the key-encryption key cannot be used now.
        """
        ...


class Scope(NamedTuple):
    """Whose records share keys.

    Attributes:
        tenant: whose; empty for the factory's own.
        subject: the user that a job ran for; empty where a record names none.
    """

    tenant: str
    subject: str


FACTORY: Final = Scope("", "")
"""The scope of what belongs to no tenant; its keys are never destroyed."""


def scope_of(record: Record) -> Scope:
    """The scope whose keys seal `record`. A record of an erasure is the factory's, so that none erases it."""
    if record.tenant is None or record.kind is Kind.AUDIT_ERASED:
        return FACTORY
    user = record.detail.get("user")
    return Scope(record.tenant, user if isinstance(user, str) else "")


class StoredKey(NamedTuple):
    """A row of `AUDIT_KEY`.

    Attributes:
        id: its name, 32 hexadecimal digits.
        tenant, subject: its scope.
        wrapped: the key as its custody wrapped it; None once destroyed.
        created_at: integer seconds since the Unix epoch.
    """

    id: str
    tenant: str
    subject: str
    wrapped: bytes | None
    created_at: int


_STORED: Final = (
    AUDIT_KEY.c.id,
    AUDIT_KEY.c.tenant,
    AUDIT_KEY.c.subject,
    AUDIT_KEY.c.wrapped,
    AUDIT_KEY.c.created_at,
)
_BY_IDS: Final = select(*_STORED).where(AUDIT_KEY.c.id.in_(bindparam("ids", expanding=True)))
_CONFIRM: Final = (
    select(AUDIT_KEY.c.id)
    .where(AUDIT_KEY.c.id.in_(bindparam("ids", expanding=True)), AUDIT_KEY.c.retired_at.is_(None))
    .order_by(AUDIT_KEY.c.id)  # so that two transactions lock keys in one order
    .with_for_update(read=True)
)
_CONFIRM_ONE: Final = (  # a list in a statement is written out anew each time, which costs more than asking
    select(AUDIT_KEY.c.id)
    .where(AUDIT_KEY.c.id == bindparam("of"), AUDIT_KEY.c.retired_at.is_(None))
    .with_for_update(read=True)
)
_LIVE: Final = (
    select(*_STORED)
    .where(
        AUDIT_KEY.c.tenant == bindparam("of_tenant"),
        AUDIT_KEY.c.subject == bindparam("of_subject"),
        AUDIT_KEY.c.retired_at.is_(None),
    )
    .with_for_update(read=True)
)
_RETIRE: Final = (
    update(AUDIT_KEY)
    .where(AUDIT_KEY.c.id == bindparam("of"), AUDIT_KEY.c.retired_at.is_(None))
    .values(retired_at=bindparam("now"))
)
_INSERT_POSTGRESQL: Final = postgresql.insert(AUDIT_KEY).on_conflict_do_nothing()
_INSERT_SQLITE: Final = sqlite.insert(AUDIT_KEY).on_conflict_do_nothing()
_ANY: Final = select(AUDIT_KEY.c.id).limit(1)


def stored_keys(connection: Connection, key_ids: Collection[str]) -> dict[str, StoredKey]:
    """The rows of `key_ids`; one that is missing is missing here too."""
    if not key_ids:
        return {}
    rows = connection.execute(_BY_IDS, {"ids": list(key_ids)})
    return {row.id: StoredKey(*row) for row in rows}


@dataclass(frozen=True, slots=True)
class LiveKey:
    """A key that new payloads are sealed under.

    Attributes:
        id: its name.
        cipher: AES-256-GCM under it.
        created_at: integer seconds since the Unix epoch.
    """

    id: str
    cipher: AESGCM
    created_at: int


class Keyring:
    """The keys of one log. Safe to share between threads; holds no more than `cached_keys` opened keys."""

    __slots__ = ("_cached_keys", "_ciphers", "_custody", "_live", "_lock", "origin")

    origin: Final[str]
    """The log that the keys belong to."""

    def __init__(self, custody: KeyCustody, *, origin: str, cached_keys: int = CACHED_KEYS) -> None:
        """The keys of the log `origin`, wrapped by `custody`."""
        self.origin = origin
        self._custody = custody
        self._cached_keys = cached_keys
        # By id, each with the wrapped bytes that it was opened from: what was swapped in the table is opened anew.
        self._ciphers: OrderedDict[str, tuple[bytes, AESGCM]] = OrderedDict()
        self._live: OrderedDict[Scope, LiveKey] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Keyring({self.origin!r})"

    def cipher(self, key: StoredKey) -> AESGCM:
        """The cipher of a stored key that is not destroyed.

        Raises:
            MalformedError: its row was altered or is another key's, or it is destroyed.
            KeyringError: the custody cannot be used now.
        """
        if key.wrapped is None:
            raise MalformedError("payload key", f"{key.id} is destroyed")
        wrapped = bytes(key.wrapped)
        with self._lock:
            known = self._ciphers.get(key.id)
            if known is not None and known[0] == wrapped:
                self._ciphers.move_to_end(key.id)
                return known[1]
        raw = self._custody.unwrap(wrapped, self._context(key.id, Scope(key.tenant, key.subject)))
        if len(raw) != KEY_SIZE:
            raise MalformedError("payload key", f"{key.id} has {len(raw)} bytes, not {KEY_SIZE}")
        cipher = AESGCM(raw)
        with self._lock:
            self._ciphers[key.id] = (wrapped, cipher)
            while len(self._ciphers) > self._cached_keys:
                self._ciphers.popitem(last=False)
        return cipher

    def live_keys(self, connection: Connection, scopes: Collection[Scope], now: int) -> dict[Scope, LiveKey]:
        """The live key of each scope, drawn where there is none, held live until `connection`'s transaction ends.

        Args:
            connection: in the transaction that will add entries under them.
            scopes: whose.
            now: integer seconds since the Unix epoch; older keys than `KEY_SECONDS` are retired.

        Raises:
            MalformedError: a key's row was altered.
            KeyringError: the custody cannot be used now.
        """
        with self._lock:
            found = {scope: key for scope in scopes if (key := self._live.get(scope)) is not None}
        confirmed = _confirm(connection, [key.id for key in found.values()])
        keys: dict[Scope, LiveKey] = {}
        for scope in sorted(scopes):
            key = found.get(scope)
            if key is None or key.id not in confirmed or now - key.created_at >= KEY_SECONDS:
                key = self._take(connection, scope, now)
                with self._lock:
                    self._live[scope] = key
                    self._live.move_to_end(scope)
                    while len(self._live) > self._cached_keys:
                        self._live.popitem(last=False)
            keys[scope] = key
        return keys

    def _take(self, connection: Connection, scope: Scope, now: int) -> LiveKey:
        asked = {"of_tenant": scope.tenant, "of_subject": scope.subject}
        row = connection.execute(_LIVE, asked).one_or_none()
        if row is not None and now - row.created_at >= KEY_SECONDS:
            connection.execute(_RETIRE, {"of": row.id, "now": now})
            row = None
        if row is None:
            key_id = os.urandom(_ID_SIZE).hex()
            drawn = {
                "id": key_id,
                "tenant": scope.tenant,
                "subject": scope.subject,
                "wrapped": self._custody.wrap(AESGCM.generate_key(8 * KEY_SIZE), self._context(key_id, scope)),
                "created_at": now,
            }
            # Another process may be first: what stands in the table is what counts.
            connection.execute(_INSERT_POSTGRESQL if _is_postgresql(connection) else _INSERT_SQLITE, drawn)
            row = connection.execute(_LIVE, asked).one_or_none()
            if row is None:
                raise KeyringError(
                    f"log {self.origin}: the new key of a scope was retired while it was drawn; try again"
                )
        stored = StoredKey(*row)
        return LiveKey(stored.id, self.cipher(stored), stored.created_at)

    def _context(self, key_id: str, scope: Scope) -> bytes:
        parts = (self.origin, scope.tenant, scope.subject, key_id)
        return encode(LABEL_KEY, *(part.encode("utf-8") for part in parts))

    def forget_destroyed(self, connection: Connection) -> int:
        """Drop opened keys that are destroyed, here or by another process; how many were."""
        with self._lock:
            held = sorted({*self._ciphers, *(key.id for key in self._live.values())})
        kept: set[str] = set()
        for start in range(0, len(held), 500):
            rows = stored_keys(connection, held[start : start + 500]).values()
            kept |= {row.id for row in rows if row.wrapped is not None}
        gone = [key_id for key_id in held if key_id not in kept]
        self.forget(gone)
        return len(gone)

    def forget(self, key_ids: Collection[str]) -> None:
        """Drop these keys from memory."""
        gone = set(key_ids)
        with self._lock:
            for key_id in gone:
                self._ciphers.pop(key_id, None)
            for scope in [scope for scope, key in self._live.items() if key.id in gone]:
                del self._live[scope]


def _confirm(connection: Connection, key_ids: Sequence[str]) -> set[str]:
    """Those of the keys that are live, held so until the transaction ends."""
    if not key_ids:
        return set()
    if len(key_ids) == 1:
        return set(connection.execute(_CONFIRM_ONE, {"of": key_ids[0]}).scalars())
    return set(connection.execute(_CONFIRM, {"ids": key_ids}).scalars())


def bind(engine: Engine, ring: Keyring) -> Engine:
    """The same engine, over the same connections, whose log is sealed and opened with `ring`."""
    return engine.execution_options(**{_OPTION: ring})


def keyring_of(connection: Connection) -> Keyring | None:
    """The keys that `connection`'s engine was bound to; None where it was bound to none."""
    ring = connection.get_execution_options().get(_OPTION)
    return ring if isinstance(ring, Keyring) else None


def refuse_clear(connection: Connection) -> None:
    """Refuse to append in the clear to a log that has keys.

    Raises:
        KeysNeededError: it has.
    """
    if connection.execute(_ANY).first() is not None:
        raise KeysNeededError("log: its payloads are sealed; append through an engine bound to its keys")


def _is_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"
