"""The log's tables, alike on SQLite and PostgreSQL; a host's migrations include `METADATA`.

Life of an entry: a caller's transaction inserts it *unsequenced* (`audit.log`): `leaf_index` is NULL. The
sequencer (`audit.sequencer`) gives it its index, adds its hash to the tiles and signs a checkpoint.
`leaf_hash` and `digest` are never erased, so that every proof outlives the payload; what holds the payload and all
projections can be.

A payload is kept in one of two ways. *Sealed*, in a log whose host gave it keys (`audit.keyring`): `sealed` holds
nonce and ciphertext of salt and payload under the key that `key_id` names; `salt` and `payload` are NULL. *Clear*, in a
log without keys, and in one from before it had them until `audit.sealing` has come to the entry: `salt` and `payload`
are there, `sealed` and `key_id` NULL. Where neither is there, or the key is destroyed, the payload is *erased*.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

METADATA: Final = MetaData()
"""Every table of the log and nothing else."""

_ROW_ID: Final = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER is SQLite's row id
_NAME: Final = 255
_LABEL: Final = 600

AUDIT_ERASURE: Final = Table(
    "audit_erasure",
    METADATA,
    Column("id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("tenant", String(_NAME), nullable=False),
    Column("subject", String(_LABEL), nullable=False),
    Column("actor_role", String(64), nullable=False),
    Column("actor_name", String(_NAME), nullable=False),
    Column("actor_tenant", String(_NAME), nullable=True),
    Column("reason", String(512), nullable=False),
    Column("requested_at", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=True),
    Column("entry_hash", LargeBinary(32), nullable=True),
    Column("entries", BigInteger, nullable=True),
    Column("cleared_at", BigInteger, nullable=True),
)
"""Erasures and how far they are (`audit.erasure`); `subject` is emptied when the erasure is recorded."""

AUDIT_KEY: Final = Table(
    "audit_key",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(_NAME), nullable=False),
    Column("subject", String(_LABEL), nullable=False),
    Column("wrapped", LargeBinary, nullable=True),
    Column("created_at", BigInteger, nullable=False),
    Column("retired_at", BigInteger, nullable=True),
    Column("destroyed_at", BigInteger, nullable=True),
    Column("erasure_id", _ROW_ID, ForeignKey("audit_erasure.id"), nullable=True),
    Index("ix_audit_key_erasure_id", "erasure_id"),
)
"""Keys of payloads, wrapped by the host; `wrapped` is NULL, and `subject` empty, once a key is destroyed."""

Index(
    "uq_audit_key_live",
    AUDIT_KEY.c.tenant,
    AUDIT_KEY.c.subject,
    unique=True,
    sqlite_where=AUDIT_KEY.c.retired_at.is_(None),
    postgresql_where=AUDIT_KEY.c.retired_at.is_(None),
)

AUDIT_ENTRY: Final = Table(
    "audit_entry",
    METADATA,
    Column("id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("leaf_index", BigInteger, nullable=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("leaf_hash", LargeBinary(32), nullable=False),
    Column("salt", LargeBinary(32), nullable=True),
    Column("payload", LargeBinary, nullable=True),
    Column("kind", String(64), nullable=True),
    Column("time", BigInteger, nullable=True),
    Column("actor_role", String(64), nullable=True),
    Column("actor_name", String(_NAME), nullable=True),
    Column("actor_tenant", String(_NAME), nullable=True),
    Column("tenant", String(_NAME), nullable=True),
    Column("job", String(_NAME), nullable=True),
    Column("node", String(_NAME), nullable=True),
    Column("site", String(_NAME), nullable=True),
    Column("jurisdiction", String(16), nullable=True),
    Column("policy_digest", String(64), nullable=True),
    Column("input_digest", String(64), nullable=True),
    Column("result", String(16), nullable=True),
    Column("lease", String(_NAME), nullable=True),
    Column("job_user", String(_LABEL), nullable=True),
    Column("expires_at", BigInteger, nullable=True),
    Column("lifetime_bits", SmallInteger, nullable=True),
    Column("sealed", LargeBinary, nullable=True),
    Column("key_id", String(32), ForeignKey("audit_key.id"), nullable=True),
    CheckConstraint("(salt IS NULL) = (payload IS NULL)", name="ck_audit_entry_erased_whole"),
    CheckConstraint("leaf_index IS NULL OR leaf_index >= 0", name="ck_audit_entry_leaf_index"),
    Index("uq_audit_entry_leaf_index", "leaf_index", unique=True),
    Index("uq_audit_entry_leaf_hash", "leaf_hash", unique=True),
    Index("ix_audit_entry_lease", "lease", "kind", "leaf_index", "time"),
)
"""One entry: its hashes, its erasable payload, and the payload's fields as erasable columns for queries."""


def _index(name: str, *columns: str, where: str) -> None:
    condition = text(where)
    named = (AUDIT_ENTRY.c[column] for column in columns)
    Index(f"ix_audit_entry_{name}", *named, sqlite_where=condition, postgresql_where=condition)


_index("unsequenced", "id", where="leaf_index IS NULL")

# Questions are about sequenced entries alone, so that an append, which somebody waits for, writes to none of the
# indexes below. Each has the entries of one value in the order of the log, so that a page of them is read in one go
# from wherever the last one ended; with the time beside it, those of another time are passed over without their rows.
for _column in ("actor_name", "job", "job_user", "jurisdiction", "kind", "node", "policy_digest", "site", "tenant"):
    _index(_column, _column, "leaf_index", "time", where=f"leaf_index IS NOT NULL AND {_column} IS NOT NULL")
# The result stands in these though all entries in them have the same: SQLite takes an index of two equal columns before
# one of one, and which of two indexes of one otherwise is chance.
_REFUSED: Final = "leaf_index IS NOT NULL AND result = 'denied'"
_index("refused", "result", "leaf_index", "time", where=_REFUSED)
_index("policy_refused", "policy_digest", "result", "leaf_index", "time", where=_REFUSED)
_index("alive", "lifetime_bits", "time", "expires_at", where="leaf_index IS NOT NULL AND lifetime_bits IS NOT NULL")

Index(
    "ix_audit_entry_key_id",
    AUDIT_ENTRY.c.key_id,
    sqlite_where=AUDIT_ENTRY.c.sealed.is_not(None),
    postgresql_where=AUDIT_ENTRY.c.sealed.is_not(None),
)
Index(
    "ix_audit_entry_clear",
    AUDIT_ENTRY.c.id,
    sqlite_where=AUDIT_ENTRY.c.payload.is_not(None),
    postgresql_where=AUDIT_ENTRY.c.payload.is_not(None),
)

AUDIT_ENTRY_ASSET: Final = Table(
    "audit_entry_asset",
    METADATA,
    Column("entry_id", _ROW_ID, ForeignKey("audit_entry.id", name="fk_audit_entry_asset_entry"), primary_key=True),
    Column("asset", String(_NAME), primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("counter", BigInteger, nullable=True),
    CheckConstraint("counter IS NULL OR counter > 0", name="ck_audit_entry_asset_counter"),
    Index("uq_audit_entry_asset_counter", "asset", "counter", unique=True),
)
"""Which asset versions an entry names; `counter` numbers an asset's entries from 1 in the log's order."""

AUDIT_ENTRY_HARDWARE: Final = Table(
    "audit_entry_hardware",
    METADATA,
    Column("entry_id", _ROW_ID, ForeignKey("audit_entry.id", name="fk_audit_entry_hardware_entry"), primary_key=True),
    Column("hardware", String(_LABEL), primary_key=True),
    Index("ix_audit_entry_hardware_hardware", "hardware"),
)
"""Which hardware identities an entry names."""

AUDIT_ENTRY_REASON: Final = Table(
    "audit_entry_reason",
    METADATA,
    Column("entry_id", _ROW_ID, ForeignKey("audit_entry.id", name="fk_audit_entry_reason_entry"), primary_key=True),
    Column("reason", String(64), primary_key=True),
    Column("leaf_index", BigInteger, nullable=True),
)
"""The codes that say why an entry's request was denied or ended; `leaf_index` repeats its place."""

_PLACED: Final = AUDIT_ENTRY_REASON.c.leaf_index.is_not(None)
Index(
    "ix_audit_entry_reason_reason",
    AUDIT_ENTRY_REASON.c.reason,
    AUDIT_ENTRY_REASON.c.leaf_index,
    sqlite_where=_PLACED,
    postgresql_where=_PLACED,
)

AUDIT_TIME_BLOCK: Final = Table(
    "audit_time_block",
    METADATA,
    Column("block", BigInteger, primary_key=True, autoincrement=False),
    Column("earliest", BigInteger, nullable=False),
    Column("latest", BigInteger, nullable=False),
    CheckConstraint("earliest <= latest", name="ck_audit_time_block_order"),
)
"""Between which times the entries of each block of the log lie (`audit.times`); erasing leaves them as they are."""

AUDIT_ASSET_COUNTER: Final = Table(
    "audit_asset_counter",
    METADATA,
    Column("asset", String(_NAME), primary_key=True),
    Column("counter", BigInteger, nullable=False),
)
"""How many entries of each asset are sequenced; it outlives the erasure of the entries themselves."""

AUDIT_TILE: Final = Table(
    "audit_tile",
    METADATA,
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("tile_index", BigInteger, primary_key=True, autoincrement=False),
    Column("width", SmallInteger, nullable=False),
    Column("hashes", LargeBinary(8192), nullable=False),
    CheckConstraint("width BETWEEN 1 AND 256", name="ck_audit_tile_width"),
)
"""C2SP tlog-tiles of height 8; a narrower partial tile is a prefix of the one that is stored."""

AUDIT_CHECKPOINT: Final = Table(
    "audit_checkpoint",
    METADATA,
    Column("tree_size", BigInteger, primary_key=True, autoincrement=False),
    Column("root_hash", LargeBinary(32), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
)
"""Every checkpoint that was signed, as its C2SP signed note."""

AUDIT_STATE: Final = Table(
    "audit_state",
    METADATA,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("origin", String(_NAME), nullable=False),
    Column("tree_size", BigInteger, nullable=False),
    Column("frontier", LargeBinary(2048), nullable=False),
    CheckConstraint("id = 1", name="ck_audit_state_single_row"),
    CheckConstraint("tree_size >= 0", name="ck_audit_state_tree_size"),
)
"""The one row that sequencers lock: how far the log is sequenced, and its Merkle frontier."""
