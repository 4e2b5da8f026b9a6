"""Renewing a lease: fresh evidence of the same node with the same keys extends it. No key leaves here."""

from __future__ import annotations

from sqlalchemy import Connection

from attestation.composite import NodeEvidence
from audit.records import Kind
from keybroker import challenge, requests
from keybroker.broker import Broker
from keybroker.decision import (
    DECISIONS,
    Snapshot,
    Verdict,
    charge,
    decide,
    recheck,
    take_snapshot,
)
from keybroker.denial import Reason, ordered
from keybroker.errors import DecisionStaleError, NonceSpentError, StateConflictError
from keybroker.leases import expire_one
from keybroker.obligations import lifetime, obligations_text, parse_obligations
from keybroker.principals import Principal
from keybroker.proof import Proof, appraise
from keybroker.release import Granted
from keybroker.release_log import denied, put_record, release_record
from keybroker.session import lease_reasons, scope_reasons, spent_reason
from keybroker.store import jobs, leases
from keybroker.store.jobs import JobRow
from keybroker.store.leases import LeaseRow, RenewalRow
from keybroker.store.schema import LeaseState
from keystead.binding import (
    AssetRef,
    BindingError,
    JobGrant,
    RuntimeData,
    asset_list_digest,
    grant_digest,
)


def renew(broker: Broker, *, lease_id: str, evidence: NodeEvidence, runtime_data: bytes, caller: Principal) -> Granted:
    """Extend a live lease on fresh evidence of the same node with the same keys.

    Raises:
        DeniedError: no; it has every reason.
        NotFoundError: no such lease.
        InvalidRequestError, AttestationError: the request cannot be judged.
        StoreError: it could not be committed; the lease ends when it did before.
    """
    now = broker.clock()
    requests.identifier(lease_id, "lease_id")
    for _ in range(DECISIONS):
        with broker.read() as connection:
            lease = leases.get(connection, lease_id)
            job = jobs.get(connection, lease.grant_id)
            grant = JobGrant.parse(job.grant)
            proof = appraise(
                broker,
                connection,
                evidence=evidence,
                runtime_data=runtime_data,
                grant=_presented(connection, job, runtime_data),
                now=now,
            )
            refs = tuple(AssetRef.parse(text) for text in lease.assets)
            repeated = _repeated_renewal(connection, proof, lease=lease)
            snapshot = take_snapshot(connection, signed=None, grant=grant, refs=refs, proof=proof, now=now, lease=lease)
            # A lease whose time was seen to be over stays over, though the clock be set back.
            seen = snapshot.seen
        reasons = [
            *proof.reasons,
            *scope_reasons(proof, assets=asset_list_digest(refs), lease_id=lease_id),
            *lease_reasons(proof, lease=lease, now=seen),
        ]
        if isinstance(repeated, RenewalRow) and not reasons:
            return _renewed(broker, lease, repeated)
        if isinstance(repeated, Reason):
            reasons.append(repeated)
        verdict = decide(
            broker, stage="renew", grant=grant, refs=refs, proof=proof, snapshot=snapshot, now=now, lease_id=lease_id
        )
        refused = ordered([*reasons, *verdict.reasons])
        if refused:
            break
        try:
            renewal, lease = _commit_renewal(
                broker,
                lease=lease,
                grant=grant,
                refs=refs,
                proof=proof,
                snapshot=snapshot,
                verdict=verdict,
                caller=caller,
                now=now,
            )
        except (DecisionStaleError, StateConflictError):
            continue
        except NonceSpentError as error:
            refused = (spent_reason(error),)
            break
        return _renewed(broker, lease, renewal)
    else:
        raise StateConflictError("lease", lease_id, state="changing", expected="at rest for a moment")
    if lease.state is LeaseState.LIVE and lease.expires_at <= seen:
        broker.commit(lambda connection: expire_one(connection, lease_id, now=seen))
    raise denied(
        broker,
        kind=Kind.LEASE_RENEWAL_REFUSED,
        grant=grant,
        refs=refs,
        proof=proof,
        verdict=verdict,
        reasons=refused,
        lease_id=lease_id,
        caller=caller,
        now=now,
    )


def _presented(connection: Connection, job: JobRow, runtime_data: bytes) -> bytes:
    """The digest of the grant that the evidence must be for: any of the job's present attempt, or its present one."""
    present = grant_digest(job.grant)
    try:
        claimed = RuntimeData.parse(runtime_data).grant
    except BindingError:
        return present  # `appraise` says what is wrong with them
    issued = jobs.find_issued_by_digest(connection, job=job.grant_id, digest=claimed)
    # The keeper of a lease goes on with the grant that it began with.
    return claimed if issued is not None and issued.attempt == job.attempt else present


def _repeated_renewal(connection: Connection, proof: Proof, *, lease: LeaseRow) -> RenewalRow | Reason | None:
    if proof.standing.node is None:
        return None
    node_id = proof.standing.node.node_id
    spent = leases.find_spent(connection, nonce=proof.nonce, node_id=node_id)
    if spent is None:
        return None
    renewal = leases.find_renewal(connection, nonce=proof.nonce, node_id=node_id)
    if renewal is None or renewal.lease_id != lease.lease_id or renewal.transcript != proof.transcript:
        return spent_reason(
            NonceSpentError(nonce=proof.nonce, node_id=node_id, lease_id=spent.lease_id, transcript=spent.transcript)
        )
    return renewal


def _commit_renewal(
    broker: Broker,
    *,
    lease: LeaseRow,
    grant: JobGrant,
    refs: tuple[AssetRef, ...],
    proof: Proof,
    snapshot: Snapshot,
    verdict: Verdict,
    caller: Principal,
    now: int,
) -> tuple[RenewalRow, LeaseRow]:
    next_nonce = challenge.issue(broker.epochs, grant=proof.grant, broker=broker.name, now=now).nonce
    expires_at = min(now + lifetime(broker, verdict.obligations), grant.not_after)

    record = release_record(
        broker,
        kind=Kind.LEASE_RENEWED,
        grant=grant,
        refs=refs,
        proof=proof,
        verdict=verdict,
        reasons=(),
        lease_id=lease.lease_id,
        caller=caller,
        expires_at=expires_at,
        now=now,
    )

    def unit(connection: Connection) -> tuple[RenewalRow, LeaseRow]:
        seconds = recheck(
            connection, snapshot, grant=grant, refs=refs, expires_at=expires_at, now=now, lease_id=lease.lease_id
        )
        repeated = _repeated_renewal(connection, proof, lease=lease)
        if isinstance(repeated, RenewalRow):
            return repeated, leases.get(connection, lease.lease_id)
        row = RenewalRow(
            nonce=proof.nonce,
            node_id=lease.node_id,
            lease_id=lease.lease_id,
            sequence=lease.renewed_count + 1,
            transcript=proof.transcript,
            hpke_key=proof.hpke_key,
            signing_key=proof.signing_key,
            policy_digest=bytes.fromhex(broker.policies.of(grant.tenant).digest),
            renewed_at=now,
            expires_at=expires_at,
            next_nonce=next_nonce,
            entry_hash=put_record(connection, record, proof=proof, verdict=verdict, now=now),
            attestation_result=proof.result,
            obligations=obligations_text(verdict.obligations),
        )
        renewed = leases.renew(connection, row)
        charge(
            connection,
            snapshot,
            lease_id=lease.lease_id,
            refs=refs,
            obligations=verdict.obligations,
            seconds=seconds,
            now=now,
        )
        return row, renewed

    return broker.commit(unit, order=snapshot.job.grant_id)


def _renewed(broker: Broker, lease: LeaseRow, renewal: RenewalRow) -> Granted:
    return Granted(
        lease=lease,
        obligations=parse_obligations(renewal.obligations),
        attestation_result=renewal.attestation_result,
        receipt=broker.receipt(entry_hash=renewal.entry_hash, at=renewal.renewed_at),
        next_nonce=renewal.next_nonce,
    )
