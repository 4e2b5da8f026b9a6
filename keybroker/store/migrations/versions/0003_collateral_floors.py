"""The newest collateral that was ever used, by source: what is older is refused.

A migration is frozen: it says what the tables were, whatever `keybroker.store.schema` says today.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "collateral_floor",
        sa.Column("source", sa.String(length=512), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("number >= 0", name=op.f("ck_collateral_floor_number")),
        sa.PrimaryKeyConstraint("source", name=op.f("pk_collateral_floor")),
    )
