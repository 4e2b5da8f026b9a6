"""What is in the store: tables, the states that their rows can have, and who refers to whom.

All instants are integer seconds since the Unix epoch. Lists of names are JSON arrays of text in sorted order.
Digests are SHA-256 (32 bytes). `audit.tables.METADATA` has the log's tables; both live in one database, because a
release and its record are one transaction.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

METADATA: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

ID_LENGTH: Final = 255
"""Longest identifier (`keystead.binding.check_id`)."""


COUNTERS: Final = ("key_seconds", "opens", "bytes_opened", "tokens_served", "bytes_served")
"""What is counted of an asset version's use; `keybroker.constraints.BUDGETS` may limit each."""


class SiteState(StrEnum):
    """Whether nodes of a site may receive keys."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    RETIRED = "retired"


class NodeState(StrEnum):
    """Whether a node may receive keys."""

    ACTIVE = "active"
    QUARANTINED = "quarantined"
    RETIRED = "retired"


class Custody(StrEnum):
    """In whose hands a node's hardware is; only one that is installed may receive keys."""

    IN_TRANSIT = "in-transit"
    INSTALLED = "installed"
    MAINTENANCE = "maintenance"
    DECOMMISSIONED = "decommissioned"


class AssetKind(StrEnum):
    """What an asset is."""

    MODEL = "model"
    # Raw data; what is made of them has a kind of its own.
    DATASET = "dataset"
    CHECKPOINT = "checkpoint"
    ADAPTER = "adapter"
    PREPROCESSED = "preprocessed"
    FEATURES = "features"
    EVALUATION_SET = "evaluation-set"


class AssetState(StrEnum):
    """Whether keys of an asset, or of one version of it, may be released."""

    ACTIVE = "active"
    REVOKED = "revoked"


class JobState(StrEnum):
    """Whether leases of a job may be acquired."""

    OPEN = "open"
    CLOSED = "closed"


class LeaseState(StrEnum):
    """What became of a lease; only a live one is answered again or renewed."""

    LIVE = "live"
    RETURNED = "returned"
    EXPIRED = "expired"
    REVOKED = "revoked"


class TextTuple(TypeDecorator[tuple[str, ...]]):
    """A tuple of text as a JSON array; it is written as it is, so its owner keeps it sorted."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str | None:
        """Encode on the way in."""
        del dialect
        return None if value is None else json.dumps(list(value), ensure_ascii=True, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...] | None:
        """Decode on the way out."""
        del dialect
        return None if value is None else tuple(json.loads(value))


def _state(states: type[StrEnum], name: str = "state") -> Enum:
    return Enum(
        states,
        name=name,
        native_enum=False,
        create_constraint=False,  # `_one_of` names it, so that migrations can
        validate_strings=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


def _one_of(states: type[StrEnum], name: str = "state") -> CheckConstraint:
    values = ", ".join(f"'{member.value}'" for member in states)
    return CheckConstraint(f"{name} IN ({values})", name=name)


def _id(length: int = ID_LENGTH) -> String:
    return String(length)


SITE: Final = Table(
    "site",
    METADATA,
    Column("site_id", _id(), primary_key=True),
    Column("jurisdiction", String(16), nullable=False),
    Column("facility", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("state", _state(SiteState), nullable=False),
    Column("valid_until", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # What follows repeats the newest of the site's records; serial 0 is a site that nobody has signed for yet.
    Column("serial", BigInteger, nullable=False, server_default="0"),
    Column("valid_from", BigInteger, nullable=False, server_default="0"),
    Column("exposures", TextTuple, nullable=False, server_default="[]"),
    Column("certifications", TextTuple, nullable=False, server_default="[]"),
    Column("network_zone", _id(), nullable=False, server_default=text("''")),
    _one_of(SiteState),
)

SITE_RECORD: Final = Table(
    "site_record",
    METADATA,
    Column("site_id", _id(), ForeignKey("site.site_id"), primary_key=True),
    # 1 or more; each record of a site has a higher one than the record that it takes the place of.
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("signatures", TextTuple, nullable=False),
    Column("signers", TextTuple, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    CheckConstraint("serial > 0", name="serial"),
)

NODE: Final = Table(
    "node",
    METADATA,
    Column("node_id", _id(), primary_key=True),
    Column("site_id", _id(), ForeignKey("site.site_id"), nullable=False, index=True),
    Column("state", _state(NodeState), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # The confidential VM partition of its host that the node is; empty where it is the whole host.
    Column("partition", String(64), nullable=False, server_default=text("''")),
    Column("custody", _state(Custody, "custody"), nullable=False, server_default="installed"),
    Column("rack", _id(), nullable=False, server_default=text("''")),
    Column("power_zone", _id(), nullable=False, server_default=text("''")),
    Column("cooling_zone", _id(), nullable=False, server_default=text("''")),
    Column("network_zone", _id(), nullable=False, server_default=text("''")),
    _one_of(NodeState),
    _one_of(Custody, "custody"),
)

HOST: Final = Table(
    "host",
    METADATA,
    # A CPU's identity. Whether it is one node or several is settled by its first enrolment, for ever.
    Column("identity", String(512), primary_key=True),
    Column("partitioned", Boolean, nullable=False),
)

NODE_IDENTITY: Final = Table(
    "node_identity",
    METADATA,
    # KIND:VALUE. One device belongs to one node, for ever: retired nodes keep theirs, and nodes what was taken out of
    # them. Only the CPU of a host with partitions is there once for each of them.
    Column("identity", String(512), primary_key=True),
    Column("partition", String(64), primary_key=True),
    Column("node_id", _id(), ForeignKey("node.node_id"), nullable=False),
    # NULL once the device was taken out, at `retired_at`.
    Column("slot", String(32)),
    Column("retired_at", BigInteger),
    UniqueConstraint("node_id", "slot"),
    CheckConstraint("(slot IS NULL) = (retired_at IS NOT NULL)", name="retired"),
)

NODE_ATTESTATION: Final = Table(
    "node_attestation",
    METADATA,
    # What a node's last evidence came to, whether it was accepted or not; written with whatever it was sent for.
    Column("node_id", _id(), ForeignKey("node.node_id"), primary_key=True),
    Column("appraised_at", BigInteger, nullable=False),
    Column("allow", Boolean, nullable=False),
    Column("status", BigInteger, nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("assurance", String(32), nullable=False),
    # NULL where the evidence was for no job.
    Column("tenant", _id()),
    Column("host_data", Text, nullable=False),
    Column("claimed_node_id", _id(), nullable=False),
    Column("matches", Boolean, nullable=False),
    # Of the appraisal policy, and of its canonical input (`document`).
    Column("policy_digest", LargeBinary(32), nullable=False),
    Column("document", LargeBinary(32), nullable=False),
    Column("codes", TextTuple, nullable=False),
    # What speaks against the node by itself: codes for counting, and all of it in canonical JSON.
    Column("reason_codes", TextTuple, nullable=False),
    Column("reasons", Text, nullable=False),
)

ASSET: Final = Table(
    "asset",
    METADATA,
    Column("asset", _id(), primary_key=True),
    Column("tenant", _id(), nullable=False),
    Column("kind", _state(AssetKind, "kind"), nullable=False),
    Column("state", _state(AssetState), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # What must hold for every version, in canonical JSON (`keybroker.constraints`).
    Column("constraints", Text, nullable=False),
    Index(None, "tenant", "asset"),
    _one_of(AssetKind, "kind"),
    _one_of(AssetState),
)

ASSET_VERSION: Final = Table(
    "asset_version",
    METADATA,
    Column("asset", _id(), ForeignKey("asset.asset"), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", _id(), nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("manifest_digest", LargeBinary(32), nullable=False),
    Column("manifest", Text),
    Column("state", _state(AssetState), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # What must hold for this version: the asset's constraints, joined with those of what it was derived from.
    Column("constraints", Text, nullable=False),
    CheckConstraint("version > 0", name="version"),
    _one_of(AssetState),
)

JOB: Final = Table(
    "job",
    METADATA,
    Column("grant_id", _id(), primary_key=True),
    Column("tenant", _id(), nullable=False),
    Column("job_uid", _id(), nullable=False),
    Column("scheduler", _id(), nullable=False),
    Column("grant", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("signing_key_id", _id(), nullable=False),
    Column("state", _state(JobState), nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("node_ceiling", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # 1 for the first run; requeueing a job begins the next, and grants of former ones are worth nothing.
    Column("attempt", BigInteger, nullable=False, server_default=text("1")),
    # Since when no lease is given until the job is requeued; null where it runs.
    Column("preempted_at", BigInteger),
    # What the job may use of each of its assets, canonical JSON (`keybroker.constraints.BUDGETS`).
    Column("budgets", Text, nullable=False, server_default=text("'{}'")),
    UniqueConstraint("tenant", "job_uid"),
    CheckConstraint("node_ceiling > 0", name="node_ceiling"),
    _one_of(JobState),
)

JOB_GRANT: Final = Table(
    "job_grant",
    METADATA,
    # The grant's own id; the job keeps that of its first one.
    Column("grant_id", _id(), primary_key=True),
    Column("job", _id(), ForeignKey("job.grant_id"), nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("issued_at", BigInteger, nullable=False),
    UniqueConstraint("job", "digest"),
    CheckConstraint("attempt > 0", name="attempt"),
)

LEASE: Final = Table(
    "lease",
    METADATA,
    Column("lease_id", _id(), primary_key=True),
    Column("nonce", LargeBinary, nullable=False),
    Column("node_id", _id(), ForeignKey("node.node_id"), nullable=False),
    Column("grant_id", _id(), ForeignKey("job.grant_id"), nullable=False),
    Column("job_uid", _id(), nullable=False),
    Column("tenant", _id(), nullable=False),
    Column("transcript", LargeBinary(32), nullable=False),
    Column("hpke_key", LargeBinary, nullable=False),
    Column("signing_key", LargeBinary, nullable=False),
    Column("assets", TextTuple, nullable=False),
    Column("policy_digest", LargeBinary(32), nullable=False),
    Column("state", _state(LeaseState), nullable=False),
    Column("granted_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("renewed_count", BigInteger, nullable=False),
    Column("next_nonce", LargeBinary, nullable=False),
    Column("entry_hash", LargeBinary(32), nullable=False),
    Column("attestation_result", Text, nullable=False),
    Column("obligations", Text, nullable=False),
    UniqueConstraint("nonce", "node_id"),
    Index(None, "grant_id", "state"),
    # What a job was granted, whatever became of it, is what its outputs are derived from.
    Index(None, "tenant", "job_uid"),
    Index(None, "node_id", "state"),
    Index(None, "expires_at", "state"),
    _one_of(LeaseState),
)

LINEAGE_EDGE: Final = Table(
    "lineage_edge",
    METADATA,
    # One step: this version was derived from that one. Steps are added, never changed or removed.
    Column("child_asset", _id(), primary_key=True),
    Column("child_version", BigInteger, primary_key=True, autoincrement=False),
    Column("parent_asset", _id(), primary_key=True),
    Column("parent_version", BigInteger, primary_key=True, autoincrement=False),
    # By which the job held the parent; both NULL where an owner declared the step.
    Column("grant_id", _id(), ForeignKey("job.grant_id")),
    Column("lease_id", _id(), ForeignKey("lease.lease_id")),
    Column("created_at", BigInteger, nullable=False),
    ForeignKeyConstraint(["child_asset", "child_version"], ["asset_version.asset", "asset_version.version"]),
    ForeignKeyConstraint(["parent_asset", "parent_version"], ["asset_version.asset", "asset_version.version"]),
    Index(None, "parent_asset", "parent_version"),
    CheckConstraint("child_asset <> parent_asset OR child_version <> parent_version", name="not_itself"),
    CheckConstraint("(grant_id IS NULL) = (lease_id IS NULL)", name="granted"),
)

APPROVER_SET: Final = Table(
    "approver_set",
    METADATA,
    Column("tenant", _id(), primary_key=True),
    # 1 for the tenant's first set; the one with the highest serial holds, and nobody changes another.
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("signatures", TextTuple, nullable=False),
    Column("signers", TextTuple, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    CheckConstraint("serial > 0", name="serial"),
)

DECLASSIFICATION: Final = Table(
    "declassification",
    METADATA,
    # Of the statement, so that one and the same is proposed, and applied, at most once.
    Column("digest", LargeBinary(32), primary_key=True),
    Column("tenant", _id(), nullable=False),
    Column("asset", _id(), nullable=False),
    Column("version", BigInteger, nullable=False),
    # 1 for the first that is applied to the version; several proposals may compete for one.
    Column("serial", BigInteger, nullable=False),
    Column("author", _id(), nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("signatures", TextTuple, nullable=False),
    Column("signers", TextTuple, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("proposed_at", BigInteger, nullable=False),
    # NULL until it is applied.
    Column("applied_at", BigInteger),
    ForeignKeyConstraint(["asset", "version"], ["asset_version.asset", "asset_version.version"]),
    Index(None, "tenant", "proposed_at"),
    Index(None, "asset", "version"),
    CheckConstraint("serial > 0", name="serial"),
)

HELD_KEY: Final = Table(
    "held_key",
    METADATA,
    # Which asset versions a live lease covers; it ends with the lease, so that counting holders reads only live ones.
    Column("lease_id", _id(), ForeignKey("lease.lease_id"), primary_key=True),
    Column("asset", _id(), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Index(None, "asset"),
)

BUDGET_USE: Final = Table(
    "budget_use",
    METADATA,
    # What was used of one asset version by one job; over all jobs where `job` is empty.
    Column("asset", _id(), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("job", _id(), primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in COUNTERS),
)

LEASE_METER: Final = Table(
    "lease_meter",
    METADATA,
    # A lease whose use is counted. It outlives the lease: a report may come late.
    Column("lease_id", _id(), ForeignKey("lease.lease_id"), primary_key=True),
    # The latest instant that was seen while it was live: nothing before it is given back.
    Column("seen_at", BigInteger, nullable=False),
    # Seconds between reports of its use; null where none are asked for.
    Column("report_every", BigInteger),
    # When the last report came, or the lease was first told to report.
    Column("reported_at", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("report_digest", LargeBinary(32)),
)

LEASE_USE: Final = Table(
    "lease_use",
    METADATA,
    # What one lease used of one asset version: seconds that are charged for, and what its node reported.
    Column("lease_id", _id(), ForeignKey("lease.lease_id"), primary_key=True),
    Column("asset", _id(), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    *(Column(name, BigInteger, nullable=False) for name in COUNTERS if name != "opens"),
)

CLOCK_MARK: Final = Table(
    "clock_mark",
    METADATA,
    # The latest instant that any replica has seen, to within a sweep.
    Column("name", _id(), primary_key=True),
    Column("at", BigInteger, nullable=False),
)

LEASE_RENEWAL: Final = Table(
    "lease_renewal",
    METADATA,
    Column("nonce", LargeBinary, primary_key=True),
    Column("node_id", _id(), ForeignKey("node.node_id"), primary_key=True),
    Column("lease_id", _id(), ForeignKey("lease.lease_id"), nullable=False),
    # 1 for the first renewal; unique per lease, so that two renewals of one state cannot both commit.
    Column("sequence", BigInteger, nullable=False),
    Column("transcript", LargeBinary(32), nullable=False),
    Column("hpke_key", LargeBinary, nullable=False),
    Column("signing_key", LargeBinary, nullable=False),
    Column("policy_digest", LargeBinary(32), nullable=False),
    Column("renewed_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("next_nonce", LargeBinary, nullable=False),
    Column("entry_hash", LargeBinary(32), nullable=False),
    Column("attestation_result", Text, nullable=False),
    Column("obligations", Text, nullable=False),
    UniqueConstraint("lease_id", "sequence"),
    CheckConstraint("sequence > 0", name="sequence"),
)

SPENT_NONCE: Final = Table(
    "spent_nonce",
    METADATA,
    # One nonce serves one node once, be it for a new lease or for a renewal: the two share this key.
    Column("nonce", LargeBinary, primary_key=True),
    Column("node_id", _id(), ForeignKey("node.node_id"), primary_key=True),
    Column("lease_id", _id(), ForeignKey("lease.lease_id"), nullable=False),
    Column("transcript", LargeBinary(32), nullable=False),
    Column("spent_at", BigInteger, nullable=False),
)

IDEMPOTENCY: Final = Table(
    "idempotency",
    METADATA,
    Column("principal", _id(), primary_key=True),
    Column("request_id", _id(), primary_key=True),
    Column("method", _id(), nullable=False),
    Column("request_digest", LargeBinary(32), nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
)

DOCUMENT: Final = Table(
    "document",
    METADATA,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

APPRAISAL: Final = Table(
    "appraisal",
    METADATA,
    # Of the record's canonical bytes, which `content` has compressed.
    Column("digest", LargeBinary(32), primary_key=True),
    Column("content", LargeBinary, nullable=False),
    # SHA-256 of the Attestation Result, by which a passport leads back to its appraisal.
    Column("result_digest", LargeBinary(32), nullable=False, index=True),
    Column("appraised_at", BigInteger, nullable=False, index=True),
)

APPRAISAL_DOCUMENT: Final = Table(
    "appraisal_document",
    METADATA,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("content", LargeBinary, nullable=False),
    # Start of the period in which an appraisal last used it; what no kept appraisal can have used is forgotten.
    Column("used_at", BigInteger, nullable=False, index=True),
)

TENANT_KEY: Final = Table(
    "tenant_key",
    METADATA,
    Column("tenant", _id(), primary_key=True),
    # 1 for the first key; a rotation adds the next, and data keys name the one that wraps them.
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    CheckConstraint("generation > 0", name="generation"),
)

BROKER_KEY: Final = Table(
    "broker_key",
    METADATA,
    # Keys that all replicas share, for example the HPKE key that owners wrap data keys to.
    Column("name", _id(), primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

EPOCH_KEY: Final = Table(
    "epoch_key",
    METADATA,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

COLLATERAL_FLOOR: Final = Table(
    "collateral_floor",
    METADATA,
    # Whose number it is: a CRL's issuer, the reference values, a table of advisories.
    Column("source", String(512), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    CheckConstraint("number >= 0", name="number"),
)
