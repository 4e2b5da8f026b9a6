"""Constraints instead of single rules: one canonical JSON text per asset and per version; holders of keys by asset.

What stood in classification, purposes, residency and max_nodes becomes the asset's constraints, and those of each of
its versions. The keys of live leases become rows of ``held_key``.
"""

from __future__ import annotations

import json
from typing import Any

import rfc8785
import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KINDS = "kind IN ('model', 'dataset', 'checkpoint', 'adapter', 'preprocessed', 'features', 'evaluation-set')"
_STATES = "state IN ('active', 'revoked')"


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        _rebuild(connection)
    else:
        _alter(connection)
    op.create_table(
        "held_key",
        sa.Column("lease_id", sa.String(length=255), nullable=False),
        sa.Column("asset", sa.String(length=255), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["lease_id"], ["lease.lease_id"], name=op.f("fk_held_key_lease_id")),
        sa.PrimaryKeyConstraint("lease_id", "asset", "version", name=op.f("pk_held_key")),
    )
    op.create_index(op.f("ix_held_key_asset"), "held_key", ["asset"], unique=False)
    held = []
    for lease_id, text in connection.execute(sa.text("SELECT lease_id, assets FROM lease WHERE state = 'live'")):
        for ref in json.loads(text):
            asset, _, version = ref.rpartition("@")
            held.append({"lease_id": lease_id, "asset": asset, "version": int(version)})
    if held:
        insert = "INSERT INTO held_key (lease_id, asset, version) VALUES (:lease_id, :asset, :version)"
        connection.execute(sa.text(insert), held)


def _alter(connection: sa.Connection) -> None:
    op.add_column("asset", sa.Column("constraints", sa.Text(), nullable=True))
    op.add_column("asset_version", sa.Column("constraints", sa.Text(), nullable=True))
    for row in list(connection.execute(sa.text("SELECT * FROM asset")).mappings()):
        values = {"asset": row["asset"], "constraints": _constraints(row)}
        connection.execute(sa.text("UPDATE asset SET constraints = :constraints WHERE asset = :asset"), values)
        connection.execute(sa.text("UPDATE asset_version SET constraints = :constraints WHERE asset = :asset"), values)
    op.alter_column("asset", "constraints", nullable=False)
    op.alter_column("asset_version", "constraints", nullable=False)
    for name in ("ck_asset_kind", "ck_asset_classification", "ck_asset_max_nodes"):
        op.drop_constraint(op.f(name), "asset", type_="check")
    for name in ("classification", "purposes", "residency_allowed", "residency_forbidden", "max_nodes"):
        op.drop_column("asset", name)
    op.create_check_constraint(op.f("ck_asset_kind"), "asset", sa.text(_KINDS))


def _rebuild(connection: sa.Connection) -> None:
    # SQLite cannot change a CHECK, nor drop a column that one names; and dropping a table whose rows others refer to
    # needs foreign keys to be off, which cannot be done within a transaction. So both tables are made anew.
    op.drop_index("ix_asset_tenant_asset", table_name="asset")
    op.rename_table("asset", "asset_before")
    op.rename_table("asset_version", "asset_version_before")
    op.create_table(
        "asset",
        sa.Column("asset", sa.String(length=255), nullable=False),
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("constraints", sa.Text(), nullable=False),
        sa.CheckConstraint(_KINDS, name=op.f("ck_asset_kind")),
        sa.CheckConstraint(_STATES, name=op.f("ck_asset_state")),
        sa.PrimaryKeyConstraint("asset", name=op.f("pk_asset")),
    )
    op.create_index(op.f("ix_asset_tenant_asset"), "asset", ["tenant", "asset"], unique=False)
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
        sa.Column("constraints", sa.Text(), nullable=False),
        sa.CheckConstraint(_STATES, name=op.f("ck_asset_version_state")),
        sa.CheckConstraint("version > 0", name=op.f("ck_asset_version_version")),
        sa.ForeignKeyConstraint(["asset"], ["asset.asset"], name=op.f("fk_asset_version_asset")),
        sa.PrimaryKeyConstraint("asset", "version", name=op.f("pk_asset_version")),
    )
    for row in list(connection.execute(sa.text("SELECT * FROM asset_before")).mappings()):
        values = {"asset": row["asset"], "constraints": _constraints(row)}
        connection.execute(
            sa.text(
                "INSERT INTO asset (asset, tenant, kind, state, created_at, constraints) "
                "SELECT asset, tenant, kind, state, created_at, :constraints FROM asset_before WHERE asset = :asset"
            ),
            values,
        )
        connection.execute(
            sa.text(
                "INSERT INTO asset_version (asset, version, key_id, wrapped_key, manifest_digest, manifest, state, "
                "created_at, constraints) "
                "SELECT asset, version, key_id, wrapped_key, manifest_digest, manifest, state, created_at, "
                ":constraints FROM asset_version_before WHERE asset = :asset"
            ),
            values,
        )
    op.drop_table("asset_version_before")
    op.drop_table("asset_before")


def _constraints(row: sa.RowMapping) -> str:
    """The canonical text of what the columns said; what demands nothing is left out of it."""
    allowed, forbidden = json.loads(row["residency_allowed"]), json.loads(row["residency_forbidden"])
    document: dict[str, Any] = {"purposes": sorted(json.loads(row["purposes"]))}
    if row["classification"]:
        document["classification"] = row["classification"]
    document["residency"] = {"allowed": [["*"] if "*" in allowed else sorted(allowed)]}
    if forbidden:
        document["residency"]["forbidden"] = ["*"] if "*" in forbidden else sorted(forbidden)
    if row["max_nodes"] is not None:
        document["node_ceiling"] = row["max_nodes"]
    return rfc8785.dumps(document).decode("utf-8")
