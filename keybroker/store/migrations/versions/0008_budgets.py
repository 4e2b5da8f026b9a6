"""Budgets and the life of jobs: what each job used of each asset version, attempts, and every grant of a job.

Jobs that are there are in their first attempt; their one grant is kept by its digest, like those to come.
"""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_REPORTED = ("bytes_opened", "tokens_served", "bytes_served")


def upgrade() -> None:
    op.add_column("job", sa.Column("attempt", sa.BigInteger(), server_default=sa.text("1"), nullable=False))
    op.add_column("job", sa.Column("preempted_at", sa.BigInteger(), nullable=True))
    op.add_column("job", sa.Column("budgets", sa.Text(), server_default=sa.text("'{}'"), nullable=False))
    op.create_table(
        "job_grant",
        sa.Column("grant_id", sa.String(length=255), nullable=False),
        sa.Column("job", sa.String(length=255), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("attempt > 0", name=op.f("ck_job_grant_attempt")),
        sa.ForeignKeyConstraint(["job"], ["job.grant_id"], name=op.f("fk_job_grant_job")),
        sa.PrimaryKeyConstraint("grant_id", name=op.f("pk_job_grant")),
        sa.UniqueConstraint("job", "digest", name=op.f("uq_job_grant_job_digest")),
    )
    op.create_table(
        "budget_use",
        sa.Column("asset", sa.String(length=255), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job", sa.String(length=255), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("key_seconds", "opens", *_REPORTED)),
        sa.PrimaryKeyConstraint("asset", "version", "job", name=op.f("pk_budget_use")),
    )
    op.create_table(
        "lease_meter",
        sa.Column("lease_id", sa.String(length=255), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("report_every", sa.BigInteger(), nullable=True),
        sa.Column("reported_at", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("report_digest", sa.LargeBinary(length=32), nullable=True),
        sa.ForeignKeyConstraint(["lease_id"], ["lease.lease_id"], name=op.f("fk_lease_meter_lease_id")),
        sa.PrimaryKeyConstraint("lease_id", name=op.f("pk_lease_meter")),
    )
    op.create_table(
        "lease_use",
        sa.Column("lease_id", sa.String(length=255), nullable=False),
        sa.Column("asset", sa.String(length=255), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("key_seconds", *_REPORTED)),
        sa.ForeignKeyConstraint(["lease_id"], ["lease.lease_id"], name=op.f("fk_lease_use_lease_id")),
        sa.PrimaryKeyConstraint("lease_id", "asset", "version", name=op.f("pk_lease_use")),
    )
    op.create_table(
        "clock_mark",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_clock_mark")),
    )
    connection = op.get_bind()
    issued = [
        {
            "grant_id": row["grant_id"],
            "digest": hashlib.sha256(row["grant"]).digest(),
            "not_after": row["not_after"],
            "issued_at": row["created_at"],
        }
        for row in connection.execute(sa.text('SELECT grant_id, "grant", not_after, created_at FROM job')).mappings()
    ]
    if issued:
        connection.execute(
            sa.text(
                "INSERT INTO job_grant (grant_id, job, attempt, digest, not_after, issued_at) "
                "VALUES (:grant_id, :grant_id, 1, :digest, :not_after, :issued_at)"
            ),
            issued,
        )
