"""Sets of approvers, and the declassifications that were proposed to them and applied."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, or_, select, update

from keybroker.errors import AlreadyExistsError, NotFoundError
from keybroker.store.rows import find_all, find_one, insert_if_absent, page_size, references, values
from keybroker.store.schema import APPROVER_SET, DECLASSIFICATION
from keystead.binding import AssetRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproverSetRow:
    """One set of approvers, as it was signed.

    Attributes:
        tenant: whose.
        serial: 1 for the tenant's first.
        digest: SHA-256 of `statement`.
        statement: the canonical statement (`keybroker.approvers`).
        signatures: the JWS over it by approvers of the set before.
        signers: who made them, sorted.
        created_at: when the broker took it.
    """

    tenant: str
    serial: int
    digest: bytes
    statement: bytes
    signatures: tuple[str, ...]
    signers: tuple[str, ...]
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclassificationRow:
    """One declassification.

    Attributes:
        digest: SHA-256 of `statement`.
        tenant: whose asset it is.
        asset, version: whose constraints it changes.
        serial: 1 for the version's first.
        author: who wrote and proposed it.
        statement: the canonical statement (`keybroker.declassification`).
        signatures: the JWS over it; none until it is applied.
        signers: who made them, sorted.
        not_after: until when it may be applied (exclusive).
        proposed_at: when it was proposed.
        applied_at: when it was applied, or None.
    """

    digest: bytes
    tenant: str
    asset: str
    version: int
    serial: int
    author: str
    statement: bytes
    signatures: tuple[str, ...]
    signers: tuple[str, ...]
    not_after: int
    proposed_at: int
    applied_at: int | None

    @property
    def ref(self) -> AssetRef:
        """The version whose constraints it changes."""
        return AssetRef(self.asset, self.version)


def present_approvers(connection: Connection, tenant: str) -> ApproverSetRow | None:
    """The set of approvers that holds, or None where there is none yet."""
    statement = select(APPROVER_SET).where(APPROVER_SET.c.tenant == tenant)
    return find_one(connection, statement.order_by(APPROVER_SET.c.serial.desc()).limit(1), ApproverSetRow)


def insert_approvers(connection: Connection, row: ApproverSetRow) -> None:
    """Put a set in the place of the one before.

    Raises:
        AlreadyExistsError: the tenant has a set of this serial.
    """
    if not insert_if_absent(connection, APPROVER_SET, values(row)):
        raise AlreadyExistsError("approver set", f"{row.tenant}/{row.serial}", remedy="read the present one again")


def insert(connection: Connection, row: DeclassificationRow) -> None:
    """Keep a proposal.

    Raises:
        AlreadyExistsError: it was proposed before.
        NotFoundError: there is no such version.
    """
    with references("asset version", str(row.ref)):
        inserted = insert_if_absent(connection, DECLASSIFICATION, values(row))
    if not inserted:
        raise AlreadyExistsError("declassification", row.digest.hex(), remedy="it was proposed before")


def get(connection: Connection, digest: bytes, *, tenant: str, lock: bool = False) -> DeclassificationRow:
    """Read a tenant's declassification by the statement's digest; with `lock`, no other transaction changes it.

    Raises:
        NotFoundError: the tenant has none of this digest.
    """
    found = select(DECLASSIFICATION).where(DECLASSIFICATION.c.digest == digest, DECLASSIFICATION.c.tenant == tenant)
    row = find_one(connection, found.with_for_update() if lock else found, DeclassificationRow)
    if row is None:
        raise NotFoundError("declassification", digest.hex())
    return row


def applied(connection: Connection, ref: AssetRef) -> int:
    """How many declassifications were applied to a version."""
    statement = select(func.count()).where(
        DECLASSIFICATION.c.asset == ref.asset,
        DECLASSIFICATION.c.version == ref.version,
        DECLASSIFICATION.c.applied_at.is_not(None),
    )
    return connection.execute(statement).scalar_one()


def count_open(connection: Connection, ref: AssetRef, *, now: int) -> int:
    """How many declassifications of a version are proposed, not applied, and still in time."""
    statement = select(func.count()).where(
        DECLASSIFICATION.c.asset == ref.asset,
        DECLASSIFICATION.c.version == ref.version,
        DECLASSIFICATION.c.applied_at.is_(None),
        DECLASSIFICATION.c.not_after > now,
    )
    return connection.execute(statement).scalar_one()


def mark_applied(
    connection: Connection, digest: bytes, *, signatures: tuple[str, ...], signers: tuple[str, ...], now: int
) -> None:
    """Mark a declassification, which is locked, as applied."""
    connection.execute(
        update(DECLASSIFICATION)
        .where(DECLASSIFICATION.c.digest == digest, DECLASSIFICATION.c.applied_at.is_(None))
        .values(signatures=signatures, signers=signers, applied_at=now)
    )


def page(
    connection: Connection,
    *,
    tenant: str,
    asset: str = "",
    version: int = 0,
    before: DeclassificationRow | None = None,
    limit: int = 100,
) -> list[DeclassificationRow]:
    """Up to `limit` of a tenant's declassifications, newest first: of one asset or version where they are named.

    Args:
        connection: to read with.
        tenant: whose.
        asset: of this asset only, unless empty.
        version: of this version only, unless 0.
        before: those that come after this one in the list.
        limit: most rows.
    """
    columns = DECLASSIFICATION.c
    statement = select(DECLASSIFICATION).where(columns.tenant == tenant)
    if asset:
        statement = statement.where(columns.asset == asset)
    if version:
        statement = statement.where(columns.version == version)
    if before is not None:
        older = columns.proposed_at < before.proposed_at
        beside = and_(columns.proposed_at == before.proposed_at, columns.digest > before.digest)
        statement = statement.where(or_(older, beside))
    ordered = statement.order_by(columns.proposed_at.desc(), columns.digest).limit(page_size(limit))
    return find_all(connection, ordered, DeclassificationRow)
