"""Payloads of the log sealed under keys of their tenants and users, and erasures that destroy these keys.

Entries that are there stay as they are: a running broker seals them, batch by batch. No table is rebuilt.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit_erasure",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=600), nullable=False),
        sa.Column("actor_role", sa.String(length=64), nullable=False),
        sa.Column("actor_name", sa.String(length=255), nullable=False),
        sa.Column("actor_tenant", sa.String(length=255), nullable=True),
        sa.Column("reason", sa.String(length=512), nullable=False),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.Column("entry_hash", sa.LargeBinary(length=32), nullable=True),
        sa.Column("entries", sa.BigInteger(), nullable=True),
        sa.Column("cleared_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "audit_key",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=600), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.Column("destroyed_at", sa.BigInteger(), nullable=True),
        sa.Column("erasure_id", _ROW_ID, nullable=True),
        sa.ForeignKeyConstraint(["erasure_id"], ["audit_erasure.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_audit_key_erasure_id", "audit_key", ["erasure_id"])
    _partial("uq_audit_key_live", "audit_key", ["tenant", "subject"], "retired_at IS NULL", unique=True)
    op.add_column("audit_entry", sa.Column("sealed", sa.LargeBinary(), nullable=True))
    # Alembic adds a foreign key by a statement of its own, which SQLite does not know.
    op.execute("ALTER TABLE audit_entry ADD COLUMN key_id VARCHAR(32) REFERENCES audit_key (id)")
    _partial("ix_audit_entry_key_id", "audit_entry", ["key_id"], "sealed IS NOT NULL")
    _partial("ix_audit_entry_clear", "audit_entry", ["id"], "payload IS NOT NULL")


def _partial(name: str, table: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)
