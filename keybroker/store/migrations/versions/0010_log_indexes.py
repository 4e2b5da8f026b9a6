"""Indexes by which a page of the log is read in one go, and how long a lease lasts, to find those alive at an instant.

The log's old indexes had the entries of one value in no order, and an append wrote to all of them. The new ones are of
sequenced entries alone. The new column repeats what payloads say already, so existing entries get it from their other
columns.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_BATCH = 10_000
_OLD = ("job", "node", "lease", "tenant", "time", "actor_name", "expires_at", "job_user")
_BY_VALUE = ("actor_name", "job", "job_user", "jurisdiction", "kind", "node", "policy_digest", "site", "tenant")


def upgrade() -> None:
    for name in _OLD:
        op.drop_index(f"ix_audit_entry_{name}", "audit_entry")
    op.add_column("audit_entry", sa.Column("lifetime_bits", sa.SmallInteger(), nullable=True))
    _fill(op.get_bind())
    op.create_index("ix_audit_entry_lease", "audit_entry", ["lease", "kind", "leaf_index", "time"])
    for name in _BY_VALUE:
        _create(name, name, "leaf_index", "time", where=f"{name} IS NOT NULL")
    _create("time", "time", "leaf_index", where="time IS NOT NULL")
    _create("refused", "leaf_index", "time", where="result = 'denied'")
    _create("policy_refused", "policy_digest", "leaf_index", "time", where="result = 'denied'")
    _create("alive", "lifetime_bits", "time", "expires_at", where="lifetime_bits IS NOT NULL")


def _create(name: str, *columns: str, where: str) -> None:
    condition = sa.text(f"leaf_index IS NOT NULL AND {where}")
    op.create_index(
        f"ix_audit_entry_{name}", "audit_entry", list(columns), sqlite_where=condition, postgresql_where=condition
    )


def _fill(connection: sa.Connection) -> None:
    """Write the column; batches keep the memory of a large log small."""
    names = ("id", "kind", "time", "lease", "expires_at", "lifetime_bits")
    entry = sa.table("audit_entry", *(sa.column(name) for name in names))
    last = -1
    while True:
        rows = connection.execute(
            sa.select(entry.c.id, entry.c.time, entry.c.expires_at)
            .where(
                entry.c.id > last,
                entry.c.kind.in_(("lease.granted", "lease.renewed")),
                entry.c.lease.is_not(None),
                entry.c.expires_at > entry.c.time,
            )
            .order_by(entry.c.id)
            .limit(_BATCH)
        ).all()
        if not rows:
            return
        last = rows[-1].id
        connection.execute(
            sa.update(entry).where(entry.c.id == sa.bindparam("of")).values(lifetime_bits=sa.bindparam("bits")),
            [{"of": row.id, "bits": (row.expires_at - row.time).bit_length()} for row in rows],
        )
