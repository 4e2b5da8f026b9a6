"""Carrying declassifications out: approvers are set, a proposal is kept, and enough signatures apply it.

Everything is decided and recorded in the transaction that changes the constraints: who approved, that the author is
none of them, that the constraints are still those that the statement starts from, that it is in time and not applied
before. What was derived from the version keeps its constraints: it needs a declassification of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from audit.log import append
from audit.records import Kind, Record, Result
from keybroker import approvers, declassification
from keybroker import assets as registry
from keybroker.approvers import ApproverSet
from keybroker.broker import Broker, actor
from keybroker.constraints import Constraints, Jurisdictions, conflicts
from keybroker.declassification import Declassification
from keybroker.errors import (
    DeclassificationStaleError,
    InvalidRequestError,
    NotFoundError,
    StateConflictError,
    StatementError,
    StatementExpiredError,
)
from keybroker.principals import Principal
from keybroker.statements import Authorities, Statement, verify
from keybroker.store import assets, declassifications, documents
from keybroker.store.assets import AssetVersionRow
from keybroker.store.declassifications import ApproverSetRow, DeclassificationRow
from keystead.binding import sha256

LONGEST: Final = 90 * 86_400
"""Seconds that a proposal may wait for its signatures."""

MAX_OPEN: Final = 64
"""Proposals of one version that may wait at a time."""

_REFUSALS: Final = (StatementError, StatementExpiredError, DeclassificationStaleError, StateConflictError)
"""What speaks against a statement that is well-formed enough to be somebody's; such attempts are recorded."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A declassification that was carried out, and the version as it is now."""

    row: DeclassificationRow
    version: AssetVersionRow


def set_approvers(
    connection: Connection, *, caller: Principal, statement: bytes, signatures: Sequence[str], now: int
) -> ApproverSetRow:
    """Put a set of approvers in the place of the present one; a unit of work.

    Raises:
        StatementError: not such a statement, another tenant's, not the next serial, or a signature is wrong.
        SignaturesMissingError: too few of the present approvers have signed.
        StatementExpiredError: its time is over, or too far ahead.
        AlreadyExistsError: another set was set meanwhile.
    """
    tenant = caller.require_tenant()
    parsed = Statement.parse(statement)
    wanted = ApproverSet.of(parsed)
    if wanted.tenant != tenant:
        raise StatementError("tenant", f"{wanted.tenant!r:.80}, this certificate acts for {tenant!r}")
    _check_time(wanted.not_after, now=now)
    present = declassifications.present_approvers(connection, tenant)
    following = 1 if present is None else present.serial + 1
    if wanted.serial != following:
        raise StatementError("serial", f"{wanted.serial}: the next set of approvers is {following}")
    signers: tuple[str, ...] = ()
    if present is not None:
        _, signers = verify(
            statement, signatures, kind=approvers.KIND, authorities=_authorities(present), author_counts=True
        )
    elif signatures:
        raise StatementError("signatures", "the first set has none: there is nobody yet whose they could be")
    row = ApproverSetRow(
        tenant=tenant,
        serial=wanted.serial,
        digest=parsed.digest,
        statement=statement,
        signatures=tuple(signatures),
        signers=signers,
        created_at=now,
    )
    declassifications.insert_approvers(connection, row)
    documents.put(connection, statement, now=now)
    append(
        connection,
        Record.build(
            kind=Kind.APPROVERS_SET,
            time=now,
            actor=actor(caller),
            tenant=tenant,
            result=Result.RECORDED,
            detail={
                "serial": wanted.serial,
                "threshold": wanted.threshold,
                "approvers": tuple(sorted(wanted.keys)),
                "approver_keys_digest": tuple(sha256(wanted.keys[name]).hex() for name in sorted(wanted.keys)),
                "author": parsed.author,
                "signers": signers,
                "statement_digest": parsed.digest.hex(),
            },
        ),
    )
    return row


def propose(
    connection: Connection, *, broker: Broker, caller: Principal, statement: bytes, now: int
) -> DeclassificationRow:
    """Put a declassification before the approvers; a unit of work.

    Raises:
        StatementError: not such a statement, or its author is not the caller.
        NotFoundError: this tenant has no such version.
        DeclassificationStaleError: the constraints, or the serial, are not the version's present ones.
        StatementExpiredError: its time is over, or too far ahead.
        InvalidRequestError: nothing satisfies the new constraints, or an area in them is unknown.
        AlreadyExistsError: it was proposed before.
        StateConflictError: the tenant has no approvers, or too many proposals wait.
    """
    parsed = Statement.parse(statement)
    wanted = Declassification.of(parsed)
    if parsed.author != caller.name:
        raise StatementError("author", f"{parsed.author!r:.80}: the caller, {caller.name!r}, is who proposes it")
    _check_time(wanted.not_after, now=now)
    _version(connection, caller, wanted)
    _check_constraints(wanted, broker.policies.jurisdictions)
    if declassifications.present_approvers(connection, caller.require_tenant()) is None:
        raise StateConflictError("tenant", wanted.tenant, state="without approvers", expected="with a set of them")
    if declassifications.count_open(connection, wanted.ref, now=now) >= MAX_OPEN:
        raise StateConflictError("proposals", str(wanted.ref), state=f"{MAX_OPEN} already", expected="fewer")
    row = DeclassificationRow(
        digest=parsed.digest,
        tenant=wanted.tenant,
        asset=wanted.ref.asset,
        version=wanted.ref.version,
        serial=wanted.serial,
        author=parsed.author,
        statement=statement,
        signatures=(),
        signers=(),
        not_after=wanted.not_after,
        proposed_at=now,
        applied_at=None,
    )
    declassifications.insert(connection, row)
    documents.put(connection, statement, now=now)
    append(connection, _record(Kind.ASSET_DECLASSIFICATION_PROPOSED, parsed, wanted, caller=caller, now=now))
    return row


def apply(
    connection: Connection,
    *,
    broker: Broker,
    caller: Principal,
    statement: bytes,
    signatures: Sequence[str],
    now: int,
) -> Applied:
    """Change a version's constraints as enough approvers have signed; a unit of work.

    Raises:
        StatementError: not such a statement, or a signature is wrong, twice there, or its author's.
        SignaturesMissingError: too few approvers have signed.
        NotFoundError: this tenant has no such version, or it was not proposed.
        StateConflictError: it was applied before.
        DeclassificationStaleError: the version's constraints changed meanwhile.
        StatementExpiredError: its time is over.
        InvalidRequestError: nothing satisfies the new constraints.
    """
    tenant = caller.require_tenant()
    digest = Statement.parse(statement).digest
    proposed = declassifications.get(connection, digest, tenant=tenant, lock=True)
    if proposed.applied_at is not None:
        raise StateConflictError("declassification", digest.hex(), state="applied", expected="proposed")
    present = declassifications.present_approvers(connection, tenant)
    if present is None:
        raise StateConflictError("tenant", tenant, state="without approvers", expected="with a set of them")
    parsed, signers = verify(
        statement, signatures, kind=declassification.KIND, authorities=_authorities(present), author_counts=False
    )
    wanted = Declassification.of(parsed)
    _check_time(wanted.not_after, now=now)
    _version(connection, caller, wanted)
    _check_constraints(wanted, broker.policies.jurisdictions)
    text = wanted.after.to_json()
    assets.set_version_constraints(connection, wanted.ref, text)
    declassifications.mark_applied(connection, digest, signatures=tuple(signatures), signers=signers, now=now)
    documents.put(connection, text.encode("utf-8"), now=now)
    append(
        connection,
        _record(
            Kind.ASSET_DECLASSIFIED,
            parsed,
            wanted,
            caller=caller,
            now=now,
            more={"signers": signers, "approver_set": present.serial, "threshold": _authorities(present).threshold},
        ),
    )
    return Applied(declassifications.get(connection, digest, tenant=tenant), assets.get_version(connection, wanted.ref))


@contextmanager
def refusals_recorded(broker: Broker, *, kind: Kind, caller: Principal, statement: bytes, now: int) -> Iterator[None]:
    """Within the block, an attempt that a statement or its signatures do not carry is recorded before it is refused."""
    try:
        yield
    except _REFUSALS as error:
        record = Record.build(
            kind=kind,
            time=now,
            actor=actor(caller),
            tenant=caller.require_tenant(),
            result=Result.DENIED,
            reasons=(error.code,),
            detail={"statement_digest": sha256(statement).hex()},
        )
        broker.commit(lambda connection: append(connection, record))
        raise


def page(
    connection: Connection, *, caller: Principal, asset: str, version: int, token: str, limit: int
) -> list[DeclassificationRow]:
    """The tenant's declassifications, newest first; of one asset or version where they are named.

    Raises:
        NotFoundError: this tenant has no such asset.
        InvalidRequestError: `token` is not the digest of one of them.
    """
    tenant = caller.require_tenant()
    if asset:
        registry.get_own(connection, caller, asset, lock=False)
    before = None
    if token:
        try:
            before = declassifications.get(connection, bytes.fromhex(token), tenant=tenant)
        except (ValueError, NotFoundError):
            raise InvalidRequestError("page_token", "not where a page ended") from None
    return declassifications.page(connection, tenant=tenant, asset=asset, version=version, before=before, limit=limit)


def _version(connection: Connection, caller: Principal, wanted: Declassification) -> AssetVersionRow:
    """The version, locked, where its constraints are still those that the statement starts from."""
    registry.get_own(connection, caller, wanted.ref.asset, lock=True)
    row = assets.get_version(connection, wanted.ref)
    if row.constraints != wanted.before.to_json():
        raise DeclassificationStaleError(
            f"{wanted.ref}: its constraints changed since this was written; propose it anew on what holds now"
        )
    following = declassifications.applied(connection, wanted.ref) + 1
    if wanted.serial != following:
        raise DeclassificationStaleError(
            f"{wanted.ref}: serial {wanted.serial}, its next declassification is {following}"
        )
    return row


def _check_constraints(wanted: Declassification, jurisdictions: Jurisdictions) -> None:
    changed = {change.field for change in wanted.changes}
    after = wanted.after
    if not after.purposes:
        raise InvalidRequestError("purposes", "at least one is needed: without a purpose nothing may be done")
    if not after.residency.allowed:
        raise InvalidRequestError("residency.allowed", "name jurisdictions or groups, or * for anywhere")
    registry.check_areas(
        Constraints(**{name: getattr(after, name) for name in ("residency", "exposure") if name in changed}),
        jurisdictions,
    )
    for conflict in conflicts(after, jurisdictions):
        raise InvalidRequestError(conflict.field, conflict.why)


def _check_time(not_after: int, *, now: int) -> None:
    if not_after <= now:
        raise StatementExpiredError(f"not_after: {not_after} has passed, it is {now}; write it anew")
    if not_after > now + LONGEST:
        raise StatementExpiredError(f"not_after: {not_after} is more than {LONGEST} seconds ahead")


def _authorities(row: ApproverSetRow) -> Authorities:
    return ApproverSet.of(Statement.parse(row.statement)).authorities()


def _record(
    kind: Kind,
    statement: Statement,
    wanted: Declassification,
    *,
    caller: Principal,
    now: int,
    more: dict[str, int | tuple[str, ...]] | None = None,
) -> Record:
    return Record.build(
        kind=kind,
        time=now,
        actor=actor(caller),
        tenant=wanted.tenant,
        assets=(str(wanted.ref),),
        result=Result.RECORDED,
        detail={
            "author": statement.author,
            "serial": wanted.serial,
            "statement_digest": statement.digest.hex(),
            "from_constraints_digest": sha256(wanted.before.to_json().encode("utf-8")).hex(),
            "to_constraints_digest": sha256(wanted.after.to_json().encode("utf-8")).hex(),
            "relaxes": tuple(change.field for change in wanted.changes),
            "reason": wanted.reason,
            "not_after": wanted.not_after,
            **(more or {}),
        },
    )
