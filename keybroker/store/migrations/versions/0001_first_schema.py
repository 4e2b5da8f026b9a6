"""The first schema: the broker's tables and the log's.

A migration is frozen: it says what the tables were, whatever `keybroker.store.schema` and `audit.tables` say today.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "asset",
        sa.Column("asset", sa.String(length=255), nullable=False),
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("classification", sa.Integer(), nullable=False),
        sa.Column("purposes", sa.Text(), nullable=False),
        sa.Column("residency_allowed", sa.Text(), nullable=False),
        sa.Column("residency_forbidden", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("max_nodes", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('model', 'dataset', 'checkpoint', 'adapter')", name=op.f("ck_asset_kind")),
        sa.CheckConstraint("state IN ('active', 'revoked')", name=op.f("ck_asset_state")),
        sa.CheckConstraint("classification BETWEEN 0 AND 4", name=op.f("ck_asset_classification")),
        sa.CheckConstraint("max_nodes > 0", name=op.f("ck_asset_max_nodes")),
        sa.PrimaryKeyConstraint("asset", name=op.f("pk_asset")),
    )
    op.create_index(op.f("ix_asset_tenant_asset"), "asset", ["tenant", "asset"], unique=False)
    op.create_table(
        "broker_key",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_broker_key")),
    )
    op.create_table(
        "document",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_document")),
    )
    op.create_table(
        "epoch_key",
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", name=op.f("pk_epoch_key")),
    )
    op.create_table(
        "idempotency",
        sa.Column("principal", sa.String(length=255), nullable=False),
        sa.Column("request_id", sa.String(length=255), nullable=False),
        sa.Column("method", sa.String(length=255), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("principal", "request_id", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"], unique=False)
    op.create_table(
        "job",
        sa.Column("grant_id", sa.String(length=255), nullable=False),
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("job_uid", sa.String(length=255), nullable=False),
        sa.Column("scheduler", sa.String(length=255), nullable=False),
        sa.Column("grant", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("signing_key_id", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("node_ceiling", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('open', 'closed')", name=op.f("ck_job_state")),
        sa.CheckConstraint("node_ceiling > 0", name=op.f("ck_job_node_ceiling")),
        sa.PrimaryKeyConstraint("grant_id", name=op.f("pk_job")),
        sa.UniqueConstraint("tenant", "job_uid", name=op.f("uq_job_tenant_job_uid")),
    )
    op.create_table(
        "site",
        sa.Column("site_id", sa.String(length=255), nullable=False),
        sa.Column("jurisdiction", sa.String(length=16), nullable=False),
        sa.Column("facility", sa.Text(), nullable=False),
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("valid_until", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('active', 'suspended', 'retired')", name=op.f("ck_site_state")),
        sa.PrimaryKeyConstraint("site_id", name=op.f("pk_site")),
    )
    op.create_table(
        "tenant_key",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("generation", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("generation > 0", name=op.f("ck_tenant_key_generation")),
        sa.PrimaryKeyConstraint("tenant", "generation", name=op.f("pk_tenant_key")),
    )
    op.create_table(
        "asset_version",
        sa.Column("asset", sa.String(length=255), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key_id", sa.String(length=255), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column("manifest_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('active', 'revoked')", name=op.f("ck_asset_version_state")),
        sa.CheckConstraint("version > 0", name=op.f("ck_asset_version_version")),
        sa.ForeignKeyConstraint(["asset"], ["asset.asset"], name=op.f("fk_asset_version_asset")),
        sa.PrimaryKeyConstraint("asset", "version", name=op.f("pk_asset_version")),
    )
    op.create_table(
        "node",
        sa.Column("node_id", sa.String(length=255), nullable=False),
        sa.Column("site_id", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('active', 'quarantined', 'retired')", name=op.f("ck_node_state")),
        sa.ForeignKeyConstraint(["site_id"], ["site.site_id"], name=op.f("fk_node_site_id")),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_node")),
    )
    op.create_index(op.f("ix_node_site_id"), "node", ["site_id"], unique=False)
    op.create_table(
        "lease",
        sa.Column("lease_id", sa.String(length=255), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("node_id", sa.String(length=255), nullable=False),
        sa.Column("grant_id", sa.String(length=255), nullable=False),
        sa.Column("job_uid", sa.String(length=255), nullable=False),
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("transcript", sa.LargeBinary(length=32), nullable=False),
        sa.Column("hpke_key", sa.LargeBinary(), nullable=False),
        sa.Column("signing_key", sa.LargeBinary(), nullable=False),
        sa.Column("assets", sa.Text(), nullable=False),
        sa.Column("policy_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("granted_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("renewed_count", sa.BigInteger(), nullable=False),
        sa.Column("next_nonce", sa.LargeBinary(), nullable=False),
        sa.Column("entry_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("attestation_result", sa.Text(), nullable=False),
        sa.Column("obligations", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('live', 'returned', 'expired', 'revoked')", name=op.f("ck_lease_state")),
        sa.ForeignKeyConstraint(["grant_id"], ["job.grant_id"], name=op.f("fk_lease_grant_id")),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_lease_node_id")),
        sa.PrimaryKeyConstraint("lease_id", name=op.f("pk_lease")),
        sa.UniqueConstraint("nonce", "node_id", name=op.f("uq_lease_nonce_node_id")),
    )
    op.create_index(op.f("ix_lease_expires_at_state"), "lease", ["expires_at", "state"], unique=False)
    op.create_index(op.f("ix_lease_grant_id_state"), "lease", ["grant_id", "state"], unique=False)
    op.create_index(op.f("ix_lease_node_id_state"), "lease", ["node_id", "state"], unique=False)
    op.create_table(
        "node_identity",
        sa.Column("identity", sa.String(length=512), nullable=False),
        sa.Column("node_id", sa.String(length=255), nullable=False),
        sa.Column("slot", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_node_identity_node_id")),
        sa.PrimaryKeyConstraint("identity", name=op.f("pk_node_identity")),
        sa.UniqueConstraint("node_id", "slot", name=op.f("uq_node_identity_node_id_slot")),
    )
    op.create_table(
        "lease_renewal",
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("node_id", sa.String(length=255), nullable=False),
        sa.Column("lease_id", sa.String(length=255), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("transcript", sa.LargeBinary(length=32), nullable=False),
        sa.Column("hpke_key", sa.LargeBinary(), nullable=False),
        sa.Column("signing_key", sa.LargeBinary(), nullable=False),
        sa.Column("policy_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("renewed_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("next_nonce", sa.LargeBinary(), nullable=False),
        sa.Column("entry_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("attestation_result", sa.Text(), nullable=False),
        sa.Column("obligations", sa.Text(), nullable=False),
        sa.CheckConstraint("sequence > 0", name=op.f("ck_lease_renewal_sequence")),
        sa.ForeignKeyConstraint(["lease_id"], ["lease.lease_id"], name=op.f("fk_lease_renewal_lease_id")),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_lease_renewal_node_id")),
        sa.PrimaryKeyConstraint("nonce", "node_id", name=op.f("pk_lease_renewal")),
        sa.UniqueConstraint("lease_id", "sequence", name=op.f("uq_lease_renewal_lease_id_sequence")),
    )
    op.create_table(
        "spent_nonce",
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("node_id", sa.String(length=255), nullable=False),
        sa.Column("lease_id", sa.String(length=255), nullable=False),
        sa.Column("transcript", sa.LargeBinary(length=32), nullable=False),
        sa.Column("spent_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["lease_id"], ["lease.lease_id"], name=op.f("fk_spent_nonce_lease_id")),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_spent_nonce_node_id")),
        sa.PrimaryKeyConstraint("nonce", "node_id", name=op.f("pk_spent_nonce")),
    )
    op.create_table(
        "audit_asset_counter",
        sa.Column("asset", sa.String(length=255), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("asset"),
    )
    op.create_table(
        "audit_checkpoint",
        sa.Column("tree_size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tree_size"),
    )
    op.create_table(
        "audit_entry",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("leaf_index", sa.BigInteger(), nullable=True),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("salt", sa.LargeBinary(length=32), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("kind", sa.String(length=64), nullable=True),
        sa.Column("time", sa.BigInteger(), nullable=True),
        sa.Column("actor_role", sa.String(length=64), nullable=True),
        sa.Column("actor_name", sa.String(length=255), nullable=True),
        sa.Column("actor_tenant", sa.String(length=255), nullable=True),
        sa.Column("tenant", sa.String(length=255), nullable=True),
        sa.Column("job", sa.String(length=255), nullable=True),
        sa.Column("node", sa.String(length=255), nullable=True),
        sa.Column("site", sa.String(length=255), nullable=True),
        sa.Column("jurisdiction", sa.String(length=16), nullable=True),
        sa.Column("policy_digest", sa.String(length=64), nullable=True),
        sa.Column("input_digest", sa.String(length=64), nullable=True),
        sa.Column("result", sa.String(length=16), nullable=True),
        sa.Column("lease", sa.String(length=255), nullable=True),
        sa.CheckConstraint("(salt IS NULL) = (payload IS NULL)", name="ck_audit_entry_erased_whole"),
        sa.CheckConstraint("leaf_index IS NULL OR leaf_index >= 0", name="ck_audit_entry_leaf_index"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_audit_entry_job", "audit_entry", ["job"], unique=False)
    op.create_index("ix_audit_entry_lease", "audit_entry", ["lease"], unique=False)
    op.create_index("ix_audit_entry_node", "audit_entry", ["node"], unique=False)
    op.create_index("ix_audit_entry_tenant", "audit_entry", ["tenant"], unique=False)
    op.create_index("ix_audit_entry_time", "audit_entry", ["time"], unique=False)
    op.create_index(
        "ix_audit_entry_unsequenced",
        "audit_entry",
        ["id"],
        unique=False,
        sqlite_where=sa.text("leaf_index IS NULL"),
        postgresql_where=sa.text("leaf_index IS NULL"),
    )
    op.create_index("uq_audit_entry_leaf_hash", "audit_entry", ["leaf_hash"], unique=True)
    op.create_index("uq_audit_entry_leaf_index", "audit_entry", ["leaf_index"], unique=True)
    op.create_table(
        "audit_state",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("origin", sa.String(length=255), nullable=False),
        sa.Column("tree_size", sa.BigInteger(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(length=2048), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_audit_state_single_row"),
        sa.CheckConstraint("tree_size >= 0", name="ck_audit_state_tree_size"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "audit_tile",
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("tile_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("width", sa.SmallInteger(), nullable=False),
        sa.Column("hashes", sa.LargeBinary(length=8192), nullable=False),
        sa.CheckConstraint("width BETWEEN 1 AND 256", name="ck_audit_tile_width"),
        sa.PrimaryKeyConstraint("level", "tile_index"),
    )
    op.create_table(
        "audit_entry_asset",
        sa.Column("entry_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("asset", sa.String(length=255), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("counter IS NULL OR counter > 0", name="ck_audit_entry_asset_counter"),
        sa.ForeignKeyConstraint(["entry_id"], ["audit_entry.id"], name="fk_audit_entry_asset_entry"),
        sa.PrimaryKeyConstraint("entry_id", "asset", "version"),
    )
    op.create_index("uq_audit_entry_asset_counter", "audit_entry_asset", ["asset", "counter"], unique=True)
    op.create_table(
        "audit_entry_hardware",
        sa.Column("entry_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("hardware", sa.String(length=600), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["audit_entry.id"], name="fk_audit_entry_hardware_entry"),
        sa.PrimaryKeyConstraint("entry_id", "hardware"),
    )
    op.create_index("ix_audit_entry_hardware_hardware", "audit_entry_hardware", ["hardware"], unique=False)
    op.create_table(
        "audit_entry_reason",
        sa.Column("entry_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["audit_entry.id"], name="fk_audit_entry_reason_entry"),
        sa.PrimaryKeyConstraint("entry_id", "reason"),
    )
    op.create_index("ix_audit_entry_reason_reason", "audit_entry_reason", ["reason"], unique=False)
