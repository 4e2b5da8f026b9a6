"""Leases: which node may hold which keys until when, and the nonces that were spent on them.

What a lease was granted on never changes, so that a repeated request gets the same answer; a renewal is a row of its
own and moves only the lease's end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, bindparam, delete, func, or_, select, update

from keybroker.errors import AlreadyExistsError, NonceSpentError, NotFoundError, StateConflictError
from keybroker.store import budgets
from keybroker.store.rows import (
    find_all,
    find_one,
    insert_all_if_absent,
    insert_if_absent,
    page_size,
    references,
    values,
)
from keybroker.store.schema import (
    HELD_KEY,
    JOB,
    LEASE,
    LEASE_RENEWAL,
    NODE,
    SITE,
    SPENT_NONCE,
    Custody,
    JobState,
    LeaseState,
    NodeState,
    SiteState,
)
from keystead.binding import AssetRef, u64

_BY_ID: Final = select(LEASE).where(LEASE.c.lease_id == bindparam("lease_id"))
_BY_ID_LOCKED: Final = _BY_ID.with_for_update()
_SPENT: Final = select(SPENT_NONCE).where(
    SPENT_NONCE.c.nonce == bindparam("nonce"), SPENT_NONCE.c.node_id == bindparam("node_id")
)
_LIVE_NODES: Final = (
    select(LEASE.c.node_id)
    .where(
        LEASE.c.grant_id == bindparam("grant_id"),
        LEASE.c.state == LeaseState.LIVE,
        LEASE.c.expires_at > bindparam("now"),
    )
    .distinct()
    .order_by(LEASE.c.node_id)
)
_HOLDERS: Final = (
    select(LEASE.c.lease_id, LEASE.c.node_id)
    .join(HELD_KEY, HELD_KEY.c.lease_id == LEASE.c.lease_id)
    .where(
        HELD_KEY.c.asset == bindparam("asset"),
        LEASE.c.state == LeaseState.LIVE,
        LEASE.c.expires_at > bindparam("now"),
    )
    .distinct()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """One lease.

    Attributes:
        lease_id: its id.
        nonce: the challenge that the evidence answered.
        node_id: the enrolled node.
        grant_id: the job, by its first grant (`JobRow.grant_id`).
        job_uid: the scheduler's id of the job.
        tenant: who runs the job.
        transcript: SHA-256 of the runtime data or passport message.
        hpke_key: the attested HPKE public key that keys are wrapped to.
        signing_key: the attested Ed25519 public key that the return is signed with.
        assets: the asset versions whose keys it covers, ``tenant/name@version``, sorted.
        policy_digest: digest of the release policy that allowed it.
        state: what became of it.
        granted_at: when it was granted.
        expires_at: when it ends unless it is renewed (exclusive).
        ended_at: when it stopped being live, or None.
        renewed_count: how often it was renewed.
        next_nonce: the nonce that was handed out with it.
        entry_hash: RFC 9162 hash of its audit entry.
        attestation_result: the EAR that the decision rests on.
        obligations: the duties that travel with it, in canonical JSON.
    """

    lease_id: str
    nonce: bytes
    node_id: str
    grant_id: str
    job_uid: str
    tenant: str
    transcript: bytes
    hpke_key: bytes
    signing_key: bytes
    assets: tuple[str, ...]
    policy_digest: bytes
    state: LeaseState
    granted_at: int
    expires_at: int
    ended_at: int | None
    renewed_count: int
    next_nonce: bytes
    entry_hash: bytes
    attestation_result: str
    obligations: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRow:
    """One renewal of a lease.

    Attributes:
        nonce: the challenge that the evidence answered.
        node_id: the enrolled node.
        lease_id: the lease.
        sequence: 1 for its first renewal.
        transcript: SHA-256 of the runtime data.
        hpke_key: the HPKE public key in it.
        signing_key: the Ed25519 public key in it.
        policy_digest: digest of the release policy that allowed it.
        renewed_at: when it was granted.
        expires_at: the lease's new end (exclusive).
        next_nonce: the nonce that was handed out with it.
        entry_hash: RFC 9162 hash of its audit entry.
        attestation_result: the EAR that the decision rests on.
        obligations: the duties that travel with it, in canonical JSON.
    """

    nonce: bytes
    node_id: str
    lease_id: str
    sequence: int
    transcript: bytes
    hpke_key: bytes
    signing_key: bytes
    policy_digest: bytes
    renewed_at: int
    expires_at: int
    next_nonce: bytes
    entry_hash: bytes
    attestation_result: str
    obligations: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentNonceRow:
    """A nonce that a node has used.

    Attributes:
        nonce: the nonce.
        node_id: the node.
        lease_id: the lease that it was used for, to acquire or to renew it.
        transcript: SHA-256 of what the node's evidence bound it to.
        spent_at: when.
    """

    nonce: bytes
    node_id: str
    lease_id: str
    transcript: bytes
    spent_at: int


def insert(connection: Connection, row: LeaseRow) -> None:
    """Grant a lease and spend its nonce. After an error the transaction must be rolled back.

    Raises:
        NonceSpentError: the node used the nonce before, for this lease or another; its `transcript` tells a
            repetition from a replay.
        AlreadyExistsError: the lease's id is taken.
        NotFoundError: there is no such node or job.
    """
    with references("node or job", f"{row.node_id}, {row.grant_id}"):
        inserted = insert_if_absent(connection, LEASE, values(row))
    if not inserted:
        _refuse_spent(connection, row.nonce, row.node_id)
        raise AlreadyExistsError("lease", row.lease_id)
    _spend(connection, row.nonce, row.node_id, lease_id=row.lease_id, transcript=row.transcript, now=row.granted_at)
    insert_all_if_absent(
        connection,
        HELD_KEY,
        [
            {"lease_id": row.lease_id, "asset": ref.asset, "version": ref.version}
            for ref in map(AssetRef.parse, row.assets)
        ],
    )


def get(connection: Connection, lease_id: str, *, lock: bool = False) -> LeaseRow:
    """Read a lease; with `lock`, no other transaction locks or changes it before this one ends.

    Raises:
        NotFoundError: there is none.
    """
    row = find_one(connection, _BY_ID_LOCKED if lock else _BY_ID, LeaseRow, {"lease_id": lease_id})
    if row is None:
        raise NotFoundError("lease", lease_id)
    return row


def find_by_nonce(connection: Connection, *, nonce: bytes, node_id: str) -> LeaseRow | None:
    """The lease that `node_id` acquired with `nonce`, or None."""
    statement = select(LEASE).where(LEASE.c.nonce == nonce, LEASE.c.node_id == node_id)
    return find_one(connection, statement, LeaseRow)


def find_spent(connection: Connection, *, nonce: bytes, node_id: str) -> SpentNonceRow | None:
    """What `node_id` used `nonce` for, be it a new lease or a renewal, or None if it did not."""
    return find_one(connection, _SPENT, SpentNonceRow, {"nonce": nonce, "node_id": node_id})


def find_renewal(connection: Connection, *, nonce: bytes, node_id: str) -> RenewalRow | None:
    """The renewal that `node_id` got with `nonce`, or None."""
    statement = select(LEASE_RENEWAL).where(LEASE_RENEWAL.c.nonce == nonce, LEASE_RENEWAL.c.node_id == node_id)
    return find_one(connection, statement, RenewalRow)


def renewals(connection: Connection, lease_id: str) -> list[RenewalRow]:
    """Every renewal of a lease, oldest first."""
    statement = select(LEASE_RENEWAL).where(LEASE_RENEWAL.c.lease_id == lease_id).order_by(LEASE_RENEWAL.c.sequence)
    return find_all(connection, statement, RenewalRow)


def renew(connection: Connection, row: RenewalRow) -> LeaseRow:
    """Renew a live lease and spend the nonce; returns the lease as it is now.

    `row.sequence` must be the lease's `renewed_count` plus one: a renewal is decided on what the lease was, and is
    refused if that has changed. After an error the transaction must be rolled back.

    Raises:
        NonceSpentError: the node used the nonce before.
        StateConflictError: the lease is not live any more, is another node's or was renewed in the meantime.
        NotFoundError: there is no such lease.
    """
    lease = get(connection, row.lease_id, lock=True)
    if lease.state is not LeaseState.LIVE or lease.node_id != row.node_id or lease.renewed_count + 1 != row.sequence:
        raise StateConflictError(
            "lease",
            row.lease_id,
            state=f"{lease.state} and renewed {lease.renewed_count} times",
            expected=f"live, renewed {row.sequence - 1} times and held by the node that renews it",
        )
    _spend(connection, row.nonce, row.node_id, lease_id=row.lease_id, transcript=row.transcript, now=row.renewed_at)
    if not insert_if_absent(connection, LEASE_RENEWAL, values(row)):
        raise AlreadyExistsError("renewal", f"{row.lease_id}/{row.sequence}", remedy="read the lease again")
    connection.execute(
        update(LEASE)
        .where(LEASE.c.lease_id == row.lease_id)
        .values(expires_at=row.expires_at, renewed_count=row.sequence)
    )
    return get(connection, row.lease_id)


def end(connection: Connection, lease_id: str, *, state: LeaseState, now: int, give_back: bool = True) -> LeaseRow:
    """End a live lease; returns it as it is now.

    Without `give_back`, seconds that were charged for and are left stay charged.

    Raises:
        StateConflictError: it has ended already.
        NotFoundError: there is none.
        ValueError: `state` is live.
    """
    lease = get(connection, lease_id, lock=True)
    if lease.state is not LeaseState.LIVE:
        raise StateConflictError("lease", lease_id, state=lease.state, expected=LeaseState.LIVE)
    _end(connection, [lease_id], state=state, now=now, give_back=give_back)
    return get(connection, lease_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Which leases: those of a job, on a node, at a site, or that cover an asset; exactly one of them is given.

    Attributes:
        job: `JobRow.grant_id` of the job.
        node_id: the node.
        site_id: the site that the node stands at.
        asset: the asset, any version of it.
        version: of `asset`; None for any.
    """

    job: str | None = None
    node_id: str | None = None
    site_id: str | None = None
    asset: str | None = None
    version: int | None = None

    def condition(self) -> ColumnElement[bool]:
        """In SQL, of `LEASE`.

        Raises:
            ValueError: not exactly one of them.
        """
        found: list[ColumnElement[bool]] = []
        if self.job is not None:
            found.append(LEASE.c.grant_id == self.job)
        if self.node_id is not None:
            found.append(LEASE.c.node_id == self.node_id)
        if self.site_id is not None:
            found.append(LEASE.c.node_id.in_(select(NODE.c.node_id).where(NODE.c.site_id == self.site_id)))
        if self.asset is not None:
            held = select(HELD_KEY.c.lease_id).where(HELD_KEY.c.asset == self.asset)
            if self.version is not None:
                held = held.where(HELD_KEY.c.version == self.version)
            found.append(LEASE.c.lease_id.in_(held))
        if len(found) != 1:
            raise ValueError("leases are those of a job, of a node, of a site, or of an asset")
        return found[0]


def end_some(connection: Connection, which: Holding, *, state: LeaseState, now: int, limit: int) -> list[LeaseRow]:
    """End up to `limit` live leases; returns them as they are now, by id. None are left when it returns none.

    Raises:
        ValueError: `state` is live.
    """
    live = select(LEASE).where(which.condition(), LEASE.c.state == LeaseState.LIVE)
    some = live.order_by(LEASE.c.lease_id).limit(page_size(limit))
    return _end_selected(connection, some, state=state, now=now)


def end_orphans(connection: Connection, *, now: int, limit: int) -> list[LeaseRow]:
    """Revoke up to `limit` live leases whose job was stopped, or whose node or site may hold no key; returns them."""
    stopped = select(JOB.c.grant_id).where(or_(JOB.c.state != JobState.OPEN, JOB.c.preempted_at.is_not(None)))
    barred = (
        select(NODE.c.node_id)
        .join(SITE, SITE.c.site_id == NODE.c.site_id)
        .where(
            or_(
                NODE.c.state != NodeState.ACTIVE,
                NODE.c.custody != Custody.INSTALLED,
                SITE.c.state != SiteState.ACTIVE,
            )
        )
    )
    live = select(LEASE).where(
        LEASE.c.state == LeaseState.LIVE, or_(LEASE.c.grant_id.in_(stopped), LEASE.c.node_id.in_(barred))
    )
    some = live.order_by(LEASE.c.lease_id).limit(page_size(limit))
    return _end_selected(connection, some, state=LeaseState.REVOKED, now=now, skip_locked=True)


def count_held(connection: Connection, which: Holding) -> int:
    """How many leases have not ended, whatever the clock says of them."""
    statement = select(func.count()).select_from(LEASE).where(which.condition(), LEASE.c.state == LeaseState.LIVE)
    return connection.execute(statement).scalar_one()


def expire_due(connection: Connection, *, now: int, limit: int = 100) -> list[LeaseRow]:
    """Mark up to `limit` live leases as expired whose end has come; returns them as they are now, by id.

    Leases that another replica is working on are left for the next time.
    """
    due = select(LEASE).where(LEASE.c.state == LeaseState.LIVE, LEASE.c.expires_at <= now)
    oldest = due.order_by(LEASE.c.expires_at, LEASE.c.lease_id).limit(page_size(limit))
    return _end_selected(connection, oldest, state=LeaseState.EXPIRED, now=now, skip_locked=True)


def live(connection: Connection, grant_id: str, *, now: int) -> list[LeaseRow]:
    """A job's leases that are live and whose end has not come, by id."""
    statement = select(LEASE).where(*_live(grant_id, now)).order_by(LEASE.c.lease_id)
    return find_all(connection, statement, LeaseRow)


def live_nodes(connection: Connection, grant_id: str, *, now: int) -> tuple[str, ...]:
    """The nodes that hold a live lease of a job, sorted. Exact only under the job's lock (`jobs.get`)."""
    return tuple(connection.execute(_LIVE_NODES, {"grant_id": grant_id, "now": now}).scalars())


def holders(connection: Connection, asset: str, *, now: int) -> dict[str, str]:
    """The live leases, of any job, that cover a version of `asset`, each with its node.

    Exact only under the asset's lock (`keybroker.store.assets.find_with_versions`).
    """
    return {row.lease_id: row.node_id for row in connection.execute(_HOLDERS, {"asset": asset, "now": now})}


def count_live(connection: Connection, grant_id: str, *, now: int) -> int:
    """How many leases of a job are live. Exact only under the job's lock (`jobs.get`)."""
    return connection.execute(select(func.count()).select_from(LEASE).where(*_live(grant_id, now))).scalar_one()


def of_job(connection: Connection, *, tenant: str, job_uid: str) -> list[LeaseRow]:
    """Every lease that a job was ever granted, whatever became of it, oldest first.

    Exact only under the job's lock (`jobs.find_by_uid`). A renewal never changes what a lease covers.
    """
    statement = select(LEASE).where(LEASE.c.tenant == tenant, LEASE.c.job_uid == job_uid)
    return find_all(connection, statement.order_by(LEASE.c.granted_at, LEASE.c.lease_id), LeaseRow)


def live_covering(connection: Connection, names: Iterable[str], *, now: int) -> list[LeaseRow]:
    """The live leases of any job that cover a version of one of the assets `names`, oldest first.

    Exact only under the assets' locks (`keybroker.store.assets.lock_all`).
    """
    covering = select(HELD_KEY.c.lease_id).where(HELD_KEY.c.asset.in_(sorted(set(names))))
    statement = select(LEASE).where(
        LEASE.c.lease_id.in_(covering), LEASE.c.state == LeaseState.LIVE, LEASE.c.expires_at > now
    )
    return find_all(connection, statement.order_by(LEASE.c.granted_at, LEASE.c.lease_id), LeaseRow)


def live_of_node(connection: Connection, node_id: str, *, now: int) -> list[LeaseRow]:
    """The live leases that a node holds, by id."""
    statement = select(LEASE).where(
        LEASE.c.node_id == node_id, LEASE.c.state == LeaseState.LIVE, LEASE.c.expires_at > now
    )
    return find_all(connection, statement.order_by(LEASE.c.lease_id), LeaseRow)


def live_at_site(connection: Connection, site_id: str, *, now: int) -> list[LeaseRow]:
    """The live leases of a site's nodes, by lease id."""
    at_site = select(NODE.c.node_id).where(NODE.c.site_id == site_id)
    statement = select(LEASE).where(
        LEASE.c.node_id.in_(at_site), LEASE.c.state == LeaseState.LIVE, LEASE.c.expires_at > now
    )
    return find_all(connection, statement.order_by(LEASE.c.lease_id), LeaseRow)


def live_of_tenant(connection: Connection, tenant: str, *, now: int) -> list[LeaseRow]:
    """The live leases of a tenant's jobs, by id."""
    statement = select(LEASE).where(
        LEASE.c.tenant == tenant, LEASE.c.state == LeaseState.LIVE, LEASE.c.expires_at > now
    )
    return find_all(connection, statement.order_by(LEASE.c.lease_id), LeaseRow)


def _live(grant_id: str, now: int) -> tuple[Any, ...]:
    return (LEASE.c.grant_id == grant_id, LEASE.c.state == LeaseState.LIVE, LEASE.c.expires_at > now)


def _end_selected(
    connection: Connection, statement: Select[Any], *, state: LeaseState, now: int, skip_locked: bool = False
) -> list[LeaseRow]:
    locked = statement.with_for_update(skip_locked=skip_locked)
    ended = [row.lease_id for row in find_all(connection, locked, LeaseRow)]
    if not ended:
        return []
    _end(connection, ended, state=state, now=now)
    return find_all(connection, select(LEASE).where(LEASE.c.lease_id.in_(ended)).order_by(LEASE.c.lease_id), LeaseRow)


def _end(connection: Connection, lease_ids: list[str], *, state: LeaseState, now: int, give_back: bool = True) -> None:
    if state is LeaseState.LIVE:
        raise ValueError("a lease ends by being returned, expired or revoked")
    if give_back:
        budgets.give_back(connection, lease_ids, now=now)
    connection.execute(update(LEASE).where(LEASE.c.lease_id.in_(lease_ids)).values(state=state, ended_at=now))
    connection.execute(delete(HELD_KEY).where(HELD_KEY.c.lease_id.in_(lease_ids)))


def forget_spent(connection: Connection, *, epoch: int) -> int:
    """Remove the nonces that were issued before `epoch`, when none of them is accepted any more; returns how many.

    A nonce begins with its epoch, big-endian (`keybroker.challenge`), so their order is the order of their epochs.
    """
    return connection.execute(delete(SPENT_NONCE).where(SPENT_NONCE.c.nonce < u64(epoch))).rowcount


def _spend(connection: Connection, nonce: bytes, node_id: str, *, lease_id: str, transcript: bytes, now: int) -> None:
    row = SpentNonceRow(nonce=nonce, node_id=node_id, lease_id=lease_id, transcript=transcript, spent_at=now)
    if not insert_if_absent(connection, SPENT_NONCE, values(row)):
        _refuse_spent(connection, nonce, node_id)


def _refuse_spent(connection: Connection, nonce: bytes, node_id: str) -> None:
    spent = find_spent(connection, nonce=nonce, node_id=node_id)
    if spent is not None:
        raise NonceSpentError(nonce=nonce, node_id=node_id, lease_id=spent.lease_id, transcript=spent.transcript)
