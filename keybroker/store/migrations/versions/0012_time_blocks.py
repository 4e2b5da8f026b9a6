"""Times of the log by blocks of its entries instead of an index over them all, and the place of each reason.

Blocks and places repeat what entries say already, so those that are there get them from their columns. The indexes of
refusals get the result as a column, so that SQLite takes them before others. A log of ten million entries takes some
minutes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_REFUSED = {
    "ix_audit_entry_refused": ["result", "leaf_index", "time"],
    "ix_audit_entry_policy_refused": ["policy_digest", "result", "leaf_index", "time"],
}


def upgrade() -> None:
    op.create_table(
        "audit_time_block",
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("earliest", sa.BigInteger(), nullable=False),
        sa.Column("latest", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("earliest <= latest", name="ck_audit_time_block_order"),
        sa.PrimaryKeyConstraint("block"),
    )
    op.execute(
        "INSERT INTO audit_time_block (block, earliest, latest) "
        "SELECT leaf_index / 4096, min(time), max(time) FROM audit_entry "
        "WHERE leaf_index IS NOT NULL AND time IS NOT NULL GROUP BY leaf_index / 4096"
    )
    op.drop_index("ix_audit_entry_time", "audit_entry")
    for name, columns in _REFUSED.items():
        op.drop_index(name, "audit_entry")
        _create(name, "audit_entry", columns, "leaf_index IS NOT NULL AND result = 'denied'")
    op.add_column("audit_entry_reason", sa.Column("leaf_index", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE audit_entry_reason SET leaf_index = "
        "(SELECT leaf_index FROM audit_entry WHERE audit_entry.id = audit_entry_reason.entry_id)"
    )
    op.drop_index("ix_audit_entry_reason_reason", "audit_entry_reason")
    _create("ix_audit_entry_reason_reason", "audit_entry_reason", ["reason", "leaf_index"], "leaf_index IS NOT NULL")


def _create(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
