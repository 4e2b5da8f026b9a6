"""The one path for a key out of the broker.

    grant + evidence → verify → resolve the node → decide → ONE transaction (lease, nonce, record) → wrap

Nothing is unwrapped before the transaction is on stable storage. What the policy was told is checked again inside the
transaction; where it no longer holds, the decision is taken again on what holds now.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from attestation.composite import NodeEvidence
from audit.receipt import Receipt
from audit.records import Kind
from keybroker import challenge
from keybroker.broker import Broker
from keybroker.decision import (
    DECISIONS,
    MAX_ASSETS,
    Snapshot,
    Verdict,
    charge,
    decide,
    recheck,
    take_snapshot,
)
from keybroker.denial import Reason, ordered
from keybroker.errors import DecisionStaleError, InvalidRequestError, NonceSpentError, StateConflictError
from keybroker.grants import SignedGrant, open_grant
from keybroker.obligations import lifetime, obligations_text, parse_obligations
from keybroker.passport import Passport, present
from keybroker.principals import Principal
from keybroker.proof import Proof, appraise
from keybroker.release_log import denied, put_record, release_record
from keybroker.session import not_live, scope_reasons, spent_reason
from keybroker.store import assets, budgets, leases
from keybroker.store.assets import AssetVersionRow
from keybroker.store.leases import LeaseRow
from keybroker.store.schema import LeaseState
from keystead.binding import (
    AssetRef,
    JobGrant,
    asset_list_digest,
    grant_digest,
    hpke_info,
    hpke_seal,
)
from policy.decision import Obligation


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key, HPKE-wrapped to the attested key."""

    ref: AssetRef
    key_id: str
    ciphertext: bytes
    manifest_digest: bytes


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease as it stands, with what a node needs to use it."""

    lease: LeaseRow
    obligations: tuple[Obligation, ...]
    attestation_result: str
    receipt: Receipt
    next_nonce: bytes
    keys: tuple[WrappedKey, ...] = ()


def acquire(
    broker: Broker,
    *,
    signed: SignedGrant,
    refs: Sequence[AssetRef],
    evidence: NodeEvidence | None,
    runtime_data: bytes,
    passport: Passport | None,
    caller: Principal,
) -> Granted:
    """Release data keys for a granted job to an attested node, on a lease.

    Args:
        broker: the running broker.
        signed: the job grant as the scheduler got it.
        refs: the asset versions to open.
        evidence: of the node; or None where there is a passport.
        runtime_data: what the CPU evidence vouches for.
        passport: an Attestation Result instead of evidence.
        caller: whose certificate made the call; transport only.

    Raises:
        DeniedError: no; it has every reason.
        InvalidRequestError, GrantInvalidError, AttestationError: the request cannot be judged.
        StoreError: it could not be committed; nothing was released.
    """
    now = broker.clock()
    wanted = _checked(refs)
    grant = open_grant(
        signed, key_id=broker.keys.grant.key_id, public_key=broker.keys.grant.public_key, broker=broker.name
    )
    digest = grant_digest(signed.grant)
    with broker.read() as connection:
        if passport is not None:
            proof = present(
                broker, connection, passport=passport, grant=digest, assets=asset_list_digest(wanted), now=now
            )
        elif evidence is not None:
            proof = appraise(broker, connection, evidence=evidence, runtime_data=runtime_data, grant=digest, now=now)
        else:
            raise InvalidRequestError("proof", "neither evidence nor passport")
        repeated = _repeated(connection, proof, now=now)
        snapshot = None
        if repeated is None:
            snapshot = take_snapshot(connection, signed=signed, grant=grant, refs=wanted, proof=proof, now=now)
    reasons = [*proof.reasons, *scope_reasons(proof, assets=asset_list_digest(wanted), lease_id="")]
    if repeated is not None:
        lease, because = repeated
        if because is None and not reasons:
            return _answer(broker, lease, versions={})
        reasons += [] if because is None else [because]
    for _ in range(DECISIONS):
        if snapshot is None:
            with broker.read() as connection:
                snapshot = take_snapshot(
                    connection, signed=signed, grant=grant, refs=wanted, proof=proof, now=now, again=True
                )
        verdict = decide(broker, stage="acquire", grant=grant, refs=wanted, proof=proof, snapshot=snapshot, now=now)
        refused = ordered([*reasons, *verdict.reasons])
        if refused:
            break
        try:
            lease = _commit_lease(
                broker,
                grant=grant,
                digest=digest,
                refs=wanted,
                proof=proof,
                snapshot=snapshot,
                verdict=verdict,
                caller=caller,
                now=now,
            )
        except DecisionStaleError:
            snapshot = None
            continue
        except NonceSpentError as error:
            refused = (spent_reason(error),)
            break
        return _answer(broker, lease, versions={ref: version for ref, (_, version) in snapshot.assets.items()})
    else:
        raise StateConflictError("job", grant.job_uid, state="changing", expected="at rest for a moment")
    raise denied(
        broker,
        kind=Kind.LEASE_REFUSED,
        grant=grant,
        refs=wanted,
        proof=proof,
        verdict=verdict,
        reasons=refused,
        lease_id=None,
        caller=caller,
        now=now,
    )


def _checked(refs: Sequence[AssetRef]) -> tuple[AssetRef, ...]:
    if not 1 <= len(refs) <= MAX_ASSETS:
        raise InvalidRequestError("assets", f"{len(refs)} assets, 1 to {MAX_ASSETS} can be asked for at once")
    if len(set(refs)) != len(refs):
        raise InvalidRequestError("assets", "an asset is there twice")
    return tuple(sorted(refs))


def _repeated(connection: Connection, proof: Proof, *, now: int) -> tuple[LeaseRow, Reason | None] | None:
    """The lease that this nonce was used for, and why it cannot be given again, if it cannot."""
    if proof.standing.node is None:
        return None
    spent = leases.find_spent(connection, nonce=proof.nonce, node_id=proof.standing.node.node_id)
    if spent is None:
        return None
    lease = leases.get(connection, spent.lease_id)
    if spent.transcript != proof.transcript or lease.nonce != proof.nonce:
        return lease, spent_reason(
            NonceSpentError(
                nonce=proof.nonce, node_id=spent.node_id, lease_id=spent.lease_id, transcript=spent.transcript
            )
        )
    # A lease whose time was seen to be over stays over, though the clock be set back.
    if lease.state is not LeaseState.LIVE or lease.expires_at <= max(now, budgets.latest(connection)):
        return lease, not_live(lease)
    return lease, None


def _commit_lease(
    broker: Broker,
    *,
    grant: JobGrant,
    digest: bytes,
    refs: tuple[AssetRef, ...],
    proof: Proof,
    snapshot: Snapshot,
    verdict: Verdict,
    caller: Principal,
    now: int,
) -> LeaseRow:
    lease_id = f"lease-{secrets.token_hex(16)}"
    next_nonce = challenge.issue(broker.epochs, grant=digest, broker=broker.name, now=now).nonce
    expires_at = min(now + lifetime(broker, verdict.obligations), grant.not_after)
    node, site = snapshot.node, snapshot.site
    if node is None or site is None:
        raise DecisionStaleError

    record = release_record(
        broker,
        kind=Kind.LEASE_GRANTED,
        grant=grant,
        refs=refs,
        proof=proof,
        verdict=verdict,
        reasons=(),
        lease_id=lease_id,
        caller=caller,
        expires_at=expires_at,
        now=now,
    )

    def unit(connection: Connection) -> LeaseRow:
        seconds = recheck(connection, snapshot, grant=grant, refs=refs, expires_at=expires_at, now=now)
        repeated = _repeated(connection, proof, now=now)
        if repeated is not None:
            lease, because = repeated
            if because is None:
                return lease
            raise NonceSpentError(
                nonce=proof.nonce, node_id=node.node_id, lease_id=lease.lease_id, transcript=lease.transcript
            )
        row = LeaseRow(
            lease_id=lease_id,
            nonce=proof.nonce,
            node_id=node.node_id,
            grant_id=snapshot.job.grant_id,
            job_uid=grant.job_uid,
            tenant=grant.tenant,
            transcript=proof.transcript,
            hpke_key=proof.hpke_key,
            signing_key=proof.signing_key,
            assets=tuple(sorted(str(ref) for ref in refs)),
            policy_digest=bytes.fromhex(broker.policies.of(grant.tenant).digest),
            state=LeaseState.LIVE,
            granted_at=now,
            expires_at=expires_at,
            ended_at=None,
            renewed_count=0,
            next_nonce=next_nonce,
            entry_hash=put_record(connection, record, proof=proof, verdict=verdict, now=now),
            attestation_result=proof.result,
            obligations=obligations_text(verdict.obligations),
        )
        leases.insert(connection, row)
        charge(
            connection,
            snapshot,
            lease_id=lease_id,
            refs=refs,
            obligations=verdict.obligations,
            seconds=seconds,
            now=now,
        )
        return row

    return broker.commit(unit, order=snapshot.job.grant_id)


def _answer(broker: Broker, lease: LeaseRow, *, versions: Mapping[AssetRef, AssetVersionRow]) -> Granted:
    """Wrap the keys of a lease that is on stable storage; nothing before this line has touched one.

    Args:
        broker: the running broker.
        lease: the lease.
        versions: those of its asset versions that its own transaction has read; others are read now.
    """
    keys = []
    with broker.read() as connection:
        for text in lease.assets:
            ref = AssetRef.parse(text)
            version = versions.get(ref) or assets.get_version(connection, ref)
            data_key = broker.hierarchy.unwrap_data_key(
                connection, version.wrapped_key, tenant=lease.tenant, ref=version.ref, key_id=version.key_id
            )
            info = hpke_info(
                transcript=lease.transcript,
                lease_id=lease.lease_id,
                ref=version.ref,
                key_id=version.key_id,
                policy_digest=lease.policy_digest,
            )
            ciphertext = hpke_seal(data_key, public_key=lease.hpke_key, info=info)
            keys.append(WrappedKey(version.ref, version.key_id, ciphertext, version.manifest_digest))
    return Granted(
        lease=lease,
        obligations=parse_obligations(lease.obligations),
        attestation_result=lease.attestation_result,
        receipt=broker.receipt(entry_hash=lease.entry_hash, at=lease.granted_at),
        next_nonce=lease.next_nonce,
        keys=tuple(keys),
    )
