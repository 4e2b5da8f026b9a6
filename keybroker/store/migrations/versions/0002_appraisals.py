"""Appraisals that can be run again: each with its evidence, and the documents that many of them share.

A migration is frozen: it says what the tables were, whatever `keybroker.store.schema` says today.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "appraisal",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("result_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("appraised_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_appraisal")),
    )
    op.create_index(op.f("ix_appraisal_result_digest"), "appraisal", ["result_digest"], unique=False)
    op.create_index(op.f("ix_appraisal_appraised_at"), "appraisal", ["appraised_at"], unique=False)
    op.create_table(
        "appraisal_document",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_appraisal_document")),
    )
    op.create_index(op.f("ix_appraisal_document_used_at"), "appraisal_document", ["used_at"], unique=False)
