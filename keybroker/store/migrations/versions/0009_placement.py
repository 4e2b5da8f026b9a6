"""What every node's last evidence came to, so that placement can be planned without asking the nodes.

The table begins empty: a node is in it from the next time that it attests.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "node_attestation",
        sa.Column("node_id", sa.String(length=255), nullable=False),
        sa.Column("appraised_at", sa.BigInteger(), nullable=False),
        sa.Column("allow", sa.Boolean(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("assurance", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=255), nullable=True),
        sa.Column("host_data", sa.Text(), nullable=False),
        sa.Column("claimed_node_id", sa.String(length=255), nullable=False),
        sa.Column("matches", sa.Boolean(), nullable=False),
        sa.Column("policy_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("document", sa.LargeBinary(length=32), nullable=False),
        sa.Column("codes", sa.Text(), nullable=False),
        sa.Column("reason_codes", sa.Text(), nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_node_attestation_node_id")),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_node_attestation")),
    )
