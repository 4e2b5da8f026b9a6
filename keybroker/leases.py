"""How leases end: returned by the node, revoked by a decision, or expired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, select

from audit.log import append, append_many
from audit.receipt import Receipt
from audit.records import Actor, Kind, Record, Result
from audit.tables import AUDIT_ENTRY
from keybroker import requests
from keybroker.broker import Broker, actor
from keybroker.errors import InvalidRequestError, StateConflictError
from keybroker.principals import Principal
from keybroker.refusals import BROKER_ACTOR
from keybroker.store import leases
from keybroker.store.leases import Holding, LeaseRow
from keybroker.store.schema import LeaseState
from keystead.binding import lease_return_message

REVOKED_AT_ONCE: Final = 100
"""Leases that one transaction revokes: other calls wait for no more than that."""


def give_back(broker: Broker, *, lease_id: str, zeroised: bool, signature: bytes, caller: Principal) -> Receipt:
    """End a lease at its node's word, signed by the attested key. Giving it back again gets the same receipt.

    Raises:
        NotFoundError: no such lease.
        InvalidRequestError: not signed by the key that the lease was granted to.
        StateConflictError: it ended in another way before.
    """
    now = broker.clock()
    with broker.read() as connection:
        lease = leases.get(connection, requests.identifier(lease_id, "lease_id"))
    message = lease_return_message(lease_id=lease_id, zeroised=zeroised)
    try:
        Ed25519PublicKey.from_public_bytes(lease.signing_key).verify(signature, message)
    except InvalidSignature:
        raise InvalidRequestError("signature", "not made by the key that the lease was granted to") from None

    def unit(connection: Connection) -> tuple[bytes, int]:
        current = leases.get(connection, lease_id, lock=True)
        if current.state is LeaseState.RETURNED:
            return _returned_entry(connection, lease_id)
        if current.state is not LeaseState.LIVE:
            raise StateConflictError("lease", lease_id, state=current.state, expected=LeaseState.LIVE)
        # A node that did not erase the keys holds them still: no second of what it was charged for comes back.
        leases.end(connection, lease_id, state=LeaseState.RETURNED, now=now, give_back=zeroised)
        record = end_record(Kind.LEASE_RETURNED, current, who=actor(caller), detail={"zeroised": zeroised}, now=now)
        return append(connection, record).entry_hash, now

    entry_hash, committed = broker.commit(unit, order=lease.grant_id)
    return broker.receipt(entry_hash=entry_hash, at=committed)


def expire(connection: Connection, *, now: int) -> int:
    """End leases whose time is over and record it; a unit of work. Returns how many."""
    expired = leases.expire_due(connection, now=now)
    append_many(
        connection, [end_record(Kind.LEASE_EXPIRED, lease, who=BROKER_ACTOR, detail={}, now=now) for lease in expired]
    )
    return len(expired)


def expire_one(connection: Connection, lease_id: str, *, now: int) -> None:
    """End a lease whose time is over, unless it has ended, and record it; a unit of work.

    Whoever sees that a lease's time is over ends it, so that a clock that is set back cannot bring it to life again.
    """
    lease = leases.get(connection, lease_id, lock=True)
    if lease.state is LeaseState.LIVE and lease.expires_at <= now:
        ended = leases.end(connection, lease_id, state=LeaseState.EXPIRED, now=now)
        append(connection, end_record(Kind.LEASE_EXPIRED, ended, who=BROKER_ACTOR, detail={}, now=now))


def sweep(connection: Connection, *, now: int) -> int:
    """End leases whose time is over, and those that outlived their job, node or site; a unit of work. Returns how many.

    Where a replica stopped between the end of a job, or a quarantine, and the revocation of its leases, that is done
    here.
    """
    orphans = leases.end_orphans(connection, now=now, limit=REVOKED_AT_ONCE)
    append_many(
        connection,
        [
            end_record(Kind.LEASE_REVOKED, lease, who=BROKER_ACTOR, detail={"because": "LEFT_BEHIND"}, now=now)
            for lease in orphans
        ],
    )
    return len(orphans) + expire(connection, now=now)


def revoke_held(
    broker: Broker,
    which: Holding,
    *,
    caller: Principal,
    because: str,
    now: int,
    still: Callable[[Connection], bool] = lambda _: True,
) -> int:
    """Revoke every lease of `which`, a bounded number in each transaction; returns how many once all are revoked.

    What keeps new leases from being granted must be committed before: then none can be missed, for whoever is granting
    one meanwhile either commits first, and it is found here, or finds what changed. Where that may be undone, `still`
    says, in each transaction, whether it holds; what is granted afterwards is left alone.

    Raises:
        StoreError: it could not be finished; call again, or leave what outlived its job to the sweep.
    """

    def some(connection: Connection) -> int:
        if not still(connection):
            return 0
        revoked = leases.end_some(connection, which, state=LeaseState.REVOKED, now=now, limit=REVOKED_AT_ONCE)
        record_revoked(connection, revoked, caller=caller, because=because, now=now)
        return len(revoked)

    total = 0
    while count := broker.commit(some):
        total += count
    return total


def revoke_all(connection: Connection, held: Sequence[LeaseRow], *, caller: Principal, because: str, now: int) -> None:
    """End live leases and record each; part of a unit of work."""
    for lease in held:
        leases.end(connection, lease.lease_id, state=LeaseState.REVOKED, now=now)
    record_revoked(connection, held, caller=caller, because=because, now=now)


def record_revoked(
    connection: Connection, revoked: Sequence[LeaseRow], *, caller: Principal, because: str, now: int
) -> None:
    """Record leases that were revoked; part of the unit of work that revokes them."""
    append_many(
        connection,
        [
            end_record(Kind.LEASE_REVOKED, lease, who=actor(caller), detail={"because": because}, now=now)
            for lease in revoked
        ],
    )


def end_record(kind: Kind, lease: LeaseRow, *, who: Actor, detail: dict[str, str | int | bool], now: int) -> Record:
    """The record of a lease's end."""
    return Record.build(
        kind=kind,
        time=now,
        actor=who,
        tenant=lease.tenant,
        job=lease.job_uid,
        node=lease.node_id,
        assets=lease.assets,
        policy_digest=lease.policy_digest.hex(),
        result=Result.RECORDED,
        lease=lease.lease_id,
        detail=detail,
    )


def _returned_entry(connection: Connection, lease_id: str) -> tuple[bytes, int]:
    row = connection.execute(
        select(AUDIT_ENTRY.c.leaf_hash, AUDIT_ENTRY.c.time).where(
            AUDIT_ENTRY.c.lease == lease_id, AUDIT_ENTRY.c.kind == Kind.LEASE_RETURNED.value
        )
    ).first()
    if row is None:
        raise StateConflictError("lease", lease_id, state="returned, its record erased", expected="live")
    return bytes(row.leaf_hash), row.time
