"""The records of releases and refusals."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from audit.log import append
from audit.records import Kind, Record, Result
from keybroker.broker import Broker, actor
from keybroker.clones import raise_cloned
from keybroker.decision import (
    Verdict,
)
from keybroker.denial import DeniedError, Reason
from keybroker.last_appraisal import remember
from keybroker.principals import Principal
from keybroker.proof import Proof
from keystead.binding import (
    AssetRef,
    JobGrant,
    sha256,
)


def release_record(
    broker: Broker,
    *,
    kind: Kind,
    grant: JobGrant,
    refs: Sequence[AssetRef],
    proof: Proof,
    verdict: Verdict,
    reasons: Sequence[Reason],
    lease_id: str | None,
    caller: Principal,
    expires_at: int | None,
    now: int,
) -> Record:
    """The record of a release, or of its refusal where there are `reasons`; `put_record` writes it."""
    node, site = proof.standing.node, proof.standing.site
    policies = broker.policies.of(grant.tenant)
    detail: dict[str, str | int | bool | tuple[str, ...]] = {
        "grant": grant.grant_id,
        "purposes": grant.purposes,
        "simulated": proof.attestation.simulated,
        "transcript_digest": proof.transcript.hex(),
        "appraisal_policy_digest": broker.policies.appraisal.digest,
        "scheduler": grant.scheduler,
        **policies.detail(),
    }
    if grant.user:
        detail["user"] = grant.user
    if expires_at is not None:
        detail["expires_at"] = expires_at
    return Record.build(
        kind=kind,
        time=now,
        actor=actor(caller),
        tenant=grant.tenant,
        job=grant.job_uid,
        node=None if node is None else node.node_id,
        hardware=proof.standing.hardware,
        site=None if site is None else site.site_id,
        jurisdiction=None if site is None else site.jurisdiction,
        # Who asks for another tenant's assets leaves no trace beside them.
        assets=tuple(str(ref) for ref in refs if ref.asset.partition("/")[0] == grant.tenant),
        policy_digest=policies.digest,
        input_digest=sha256(proof.basis.index(verdict.documents)).hex(),
        result=Result.DENIED if reasons else Result.ALLOWED,
        reasons=tuple(sorted({reason.code for reason in reasons})),
        lease=lease_id,
        detail=detail,
    )


def put_record(connection: Connection, record: Record, *, proof: Proof, verdict: Verdict, now: int) -> bytes:
    """Store a record and what it was decided on; the entry's hash."""
    proof.basis.put(connection, verdict.documents, now=now)
    remember(connection, proof, tenant=record.tenant, now=now)
    return append(connection, record).entry_hash


def denied(
    broker: Broker,
    *,
    kind: Kind,
    grant: JobGrant,
    refs: Sequence[AssetRef],
    proof: Proof,
    verdict: Verdict,
    reasons: Sequence[Reason],
    lease_id: str | None,
    caller: Principal,
    now: int,
) -> DeniedError:
    """Remember a refusal, then return it.

    Evidence that proves no enrolled node, or was not made for this session, is anybody's to send: past a limit such
    refusals are counted, not recorded one by one.
    """
    raise_cloned(broker, standing=proof.standing, present=proof.present, caller=caller, now=now)
    codes = sorted({reason.code for reason in reasons})
    if not proof.present and not broker.refusals.admit(kind, caller=caller, codes=codes, now=now):
        return DeniedError(reasons)

    record = release_record(
        broker,
        kind=kind,
        grant=grant,
        refs=refs,
        proof=proof,
        verdict=verdict,
        reasons=reasons,
        lease_id=lease_id,
        caller=caller,
        expires_at=None,
        now=now,
    )

    def unit(connection: Connection) -> bytes:
        return put_record(connection, record, proof=proof, verdict=verdict, now=now)

    return DeniedError(reasons, record_hash=broker.commit(unit))
