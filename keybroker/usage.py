"""Reports of what a lease used, by the attested node that holds it.

The counters are the node's word, signed by the key that its evidence vouched for: they are worth what the attested
software is worth, which is why an asset's constraints may demand a measurement. They only ever rise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection

from audit.log import append
from audit.records import Kind, Record, Result
from keybroker import requests
from keybroker.broker import Broker, actor
from keybroker.errors import InvalidRequestError, StateConflictError
from keybroker.principals import Principal
from keybroker.store import budgets, leases
from keybroker.store.budgets import MAX_COUNTER, REPORTED
from keybroker.store.leases import LeaseRow
from keybroker.store.schema import LeaseState
from keystead.binding import AssetRef, AssetUse, BindingError, sha256, usage_report_message


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """What a node says that a lease used since it was granted.

    Attributes:
        lease_id: the lease.
        sequence: 1 for its first report, then higher each time.
        uses: of each of its assets.
        signature: Ed25519, by the key that the lease was granted to.
    """

    lease_id: str
    sequence: int
    uses: tuple[AssetUse, ...]
    signature: bytes


_ENDED: Final = frozenset({LeaseState.RETURNED})


def take(broker: Broker, report: UsageReport, *, caller: Principal) -> int:
    """Count what a lease used; returns the number of the last report that counts. Repeating a report changes nothing.

    A report of a lease that expired or was revoked still counts: it can only say that more was used.

    Raises:
        NotFoundError: no such lease.
        InvalidRequestError: not signed by the key that the lease was granted to, not of its assets, or a number went
            down or is too large.
        StateConflictError: the lease is not asked to report, was returned, or a later report was taken.
    """
    now = broker.clock()
    counters = _counters(report.uses)
    if not 1 <= report.sequence <= MAX_COUNTER:
        raise InvalidRequestError("sequence", f"{report.sequence}: reports count from 1")
    with broker.read() as connection:
        lease = leases.get(connection, requests.identifier(report.lease_id, "lease_id"))
    try:
        message = usage_report_message(lease_id=lease.lease_id, sequence=report.sequence, uses=report.uses)
    except BindingError as error:
        raise InvalidRequestError("uses", str(error)) from None
    try:
        Ed25519PublicKey.from_public_bytes(lease.signing_key).verify(report.signature, message)
    except InvalidSignature:
        raise InvalidRequestError("signature", "not made by the key that the lease was granted to") from None

    def unit(connection: Connection) -> int:
        current = leases.get(connection, lease.lease_id, lock=True)
        taken = False
        if current.state not in _ENDED:
            taken = budgets.report(
                connection,
                lease_id=lease.lease_id,
                job=lease.grant_id,
                sequence=report.sequence,
                digest=sha256(message),
                counters=counters,
                now=now,
            )
        elif not _repeated(connection, lease, report.sequence, sha256(message)):
            raise StateConflictError("lease", lease.lease_id, state=current.state, expected="not returned")
        if taken:
            append(connection, _record(lease, report, caller=caller, now=now))
        return report.sequence

    return broker.commit(unit, order=lease.grant_id)


def _repeated(connection: Connection, lease: LeaseRow, sequence: int, digest: bytes) -> bool:
    meter = budgets.meter(connection, lease.lease_id)
    return meter is not None and (meter.sequence, meter.report_digest) == (sequence, digest)


def _counters(uses: Sequence[AssetUse]) -> dict[AssetRef, dict[str, int]]:
    for use in uses:
        for name in REPORTED:
            if not 0 <= getattr(use, name) <= MAX_COUNTER:
                raise InvalidRequestError(f"uses.{name}", f"{getattr(use, name)}: 0 to {MAX_COUNTER}")
    return {use.ref: {name: getattr(use, name) for name in REPORTED} for use in uses}


def _record(lease: LeaseRow, report: UsageReport, *, caller: Principal, now: int) -> Record:
    detail: dict[str, str | int | bool | tuple[str, ...]] = {"sequence": report.sequence}
    for name in REPORTED:
        detail[name] = tuple(f"{use.ref}={getattr(use, name)}" for use in sorted(report.uses))
    return Record.build(
        kind=Kind.USAGE_REPORTED,
        time=now,
        actor=actor(caller),
        tenant=lease.tenant,
        job=lease.job_uid,
        node=lease.node_id,
        assets=lease.assets,
        result=Result.RECORDED,
        lease=lease.lease_id,
        detail=detail,
    )
