"""Columns by which the log is asked whom a job ran for, and which leases were alive at an instant.

Both repeat what payloads say already, so existing entries get them from their payloads.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_BATCH = 1_000


def upgrade() -> None:
    op.add_column("audit_entry", sa.Column("job_user", sa.String(length=600), nullable=True))
    op.add_column("audit_entry", sa.Column("expires_at", sa.BigInteger(), nullable=True))
    _fill(op.get_bind())
    for name, columns in (
        ("ix_audit_entry_actor_name", ["actor_name"]),
        ("ix_audit_entry_expires_at", ["expires_at"]),
        ("ix_audit_entry_job_user", ["job_user"]),
    ):
        op.create_index(name, "audit_entry", columns)


def _fill(connection: sa.Connection) -> None:
    entry = sa.table(
        "audit_entry",
        sa.column("id", sa.BigInteger()),
        sa.column("payload", sa.LargeBinary()),
        sa.column("job_user", sa.String()),
        sa.column("expires_at", sa.BigInteger()),
    )
    last = -1
    while True:
        rows = connection.execute(
            sa.select(entry.c.id, entry.c.payload).where(entry.c.id > last).order_by(entry.c.id).limit(_BATCH)
        ).all()
        if not rows:
            return
        last = rows[-1].id
        found = []
        for row in rows:
            detail = {} if row.payload is None else json.loads(row.payload)["detail"]
            user, expires_at = detail.get("user"), detail.get("expires_at")
            values = {
                "of": row.id,
                "user": user if isinstance(user, str) else None,
                "until": expires_at if type(expires_at) is int else None,
            }
            if values["user"] is not None or values["until"] is not None:
                found.append(values)
        if found:
            connection.execute(
                sa.update(entry)
                .where(entry.c.id == sa.bindparam("of"))
                .values(job_user=sa.bindparam("user"), expires_at=sa.bindparam("until")),
                found,
            )
