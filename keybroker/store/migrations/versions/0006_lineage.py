"""Lineage and declassification: what was derived from what, who may approve, what was approved.

Versions that are there already have no parents: what they were made of was not recorded. An owner can declare it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_lease_tenant_job_uid"), "lease", ["tenant", "job_uid"], unique=False)
    op.create_table(
        "lineage_edge",
        sa.Column("child_asset", sa.String(length=255), nullable=False),
        sa.Column("child_version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("parent_asset", sa.String(length=255), nullable=False),
        sa.Column("parent_version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("grant_id", sa.String(length=255), nullable=True),
        sa.Column("lease_id", sa.String(length=255), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "child_asset <> parent_asset OR child_version <> parent_version", name=op.f("ck_lineage_edge_not_itself")
        ),
        sa.CheckConstraint("(grant_id IS NULL) = (lease_id IS NULL)", name=op.f("ck_lineage_edge_granted")),
        sa.ForeignKeyConstraint(["grant_id"], ["job.grant_id"], name=op.f("fk_lineage_edge_grant_id")),
        sa.ForeignKeyConstraint(["lease_id"], ["lease.lease_id"], name=op.f("fk_lineage_edge_lease_id")),
        sa.ForeignKeyConstraint(
            ["child_asset", "child_version"],
            ["asset_version.asset", "asset_version.version"],
            name=op.f("fk_lineage_edge_child_asset_child_version"),
        ),
        sa.ForeignKeyConstraint(
            ["parent_asset", "parent_version"],
            ["asset_version.asset", "asset_version.version"],
            name=op.f("fk_lineage_edge_parent_asset_parent_version"),
        ),
        sa.PrimaryKeyConstraint(
            "child_asset", "child_version", "parent_asset", "parent_version", name=op.f("pk_lineage_edge")
        ),
    )
    op.create_index(
        op.f("ix_lineage_edge_parent_asset_parent_version"),
        "lineage_edge",
        ["parent_asset", "parent_version"],
        unique=False,
    )
    op.create_table(
        "approver_set",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("serial", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("signatures", sa.Text(), nullable=False),
        sa.Column("signers", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("serial > 0", name=op.f("ck_approver_set_serial")),
        sa.PrimaryKeyConstraint("tenant", "serial", name=op.f("pk_approver_set")),
    )
    op.create_table(
        "declassification",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("asset", sa.String(length=255), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.String(length=255), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("signatures", sa.Text(), nullable=False),
        sa.Column("signers", sa.Text(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("proposed_at", sa.BigInteger(), nullable=False),
        sa.Column("applied_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("serial > 0", name=op.f("ck_declassification_serial")),
        sa.ForeignKeyConstraint(
            ["asset", "version"],
            ["asset_version.asset", "asset_version.version"],
            name=op.f("fk_declassification_asset_version"),
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_declassification")),
    )
    op.create_index(op.f("ix_declassification_asset_version"), "declassification", ["asset", "version"], unique=False)
    op.create_index(
        op.f("ix_declassification_tenant_proposed_at"), "declassification", ["tenant", "proposed_at"], unique=False
    )
