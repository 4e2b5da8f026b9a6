"""The estate: signed site records, where in a site a node stands, in whose hands, and partitions of hosts.

Every site and node stays. A site that was enrolled before records were signed is suspended: who operates and controls
it under whose law is not known, and nobody has signed for it. `keystead site renew` with a signed record reinstates it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_CUSTODY = "custody IN ('in-transit', 'installed', 'maintenance', 'decommissioned')"


def upgrade() -> None:
    for column in (
        sa.Column("serial", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("valid_from", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("exposures", sa.Text(), server_default="[]", nullable=False),
        sa.Column("certifications", sa.Text(), server_default="[]", nullable=False),
        sa.Column("network_zone", sa.String(length=255), server_default=sa.text("''"), nullable=False),
    ):
        op.add_column("site", column)
    op.execute("UPDATE site SET valid_from = created_at")
    op.execute("UPDATE site SET state = 'suspended' WHERE state = 'active'")
    op.create_table(
        "site_record",
        sa.Column("site_id", sa.String(length=255), nullable=False),
        sa.Column("serial", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("signatures", sa.Text(), nullable=False),
        sa.Column("signers", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("serial > 0", name=op.f("ck_site_record_serial")),
        sa.ForeignKeyConstraint(["site_id"], ["site.site_id"], name=op.f("fk_site_record_site_id")),
        sa.PrimaryKeyConstraint("site_id", "serial", name=op.f("pk_site_record")),
    )
    for column in (
        sa.Column("partition", sa.String(length=64), server_default=sa.text("''"), nullable=False),
        sa.Column(
            "custody",
            sa.String(length=16),
            sa.CheckConstraint(_CUSTODY, name=op.f("ck_node_custody")),
            server_default="installed",
            nullable=False,
        ),
        sa.Column("rack", sa.String(length=255), server_default=sa.text("''"), nullable=False),
        sa.Column("power_zone", sa.String(length=255), server_default=sa.text("''"), nullable=False),
        sa.Column("cooling_zone", sa.String(length=255), server_default=sa.text("''"), nullable=False),
        sa.Column("network_zone", sa.String(length=255), server_default=sa.text("''"), nullable=False),
    ):
        op.add_column("node", column)
    op.create_table(
        "host",
        sa.Column("identity", sa.String(length=512), nullable=False),
        sa.Column("partitioned", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("identity", name=op.f("pk_host")),
    )
    op.execute(
        "INSERT INTO host (identity, partitioned) SELECT identity, (1 = 0) FROM node_identity WHERE slot = 'cpu0'"
    )
    # Its primary key changes, which SQLite cannot: the rows step aside while the table is made anew.
    op.execute("CREATE TABLE node_identity_aside AS SELECT identity, node_id, slot FROM node_identity")
    op.drop_table("node_identity")
    op.create_table(
        "node_identity",
        sa.Column("identity", sa.String(length=512), nullable=False),
        sa.Column("partition", sa.String(length=64), nullable=False),
        sa.Column("node_id", sa.String(length=255), nullable=False),
        sa.Column("slot", sa.String(length=32), nullable=True),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("(slot IS NULL) = (retired_at IS NOT NULL)", name=op.f("ck_node_identity_retired")),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_node_identity_node_id")),
        sa.PrimaryKeyConstraint("identity", "partition", name=op.f("pk_node_identity")),
        sa.UniqueConstraint("node_id", "slot", name=op.f("uq_node_identity_node_id_slot")),
    )
    op.execute(
        "INSERT INTO node_identity (identity, partition, node_id, slot) "
        "SELECT identity, '', node_id, slot FROM node_identity_aside"
    )
    op.execute("DROP TABLE node_identity_aside")
