"""`Appraise`: an Attestation Result for a node, to be used as a passport while it is fresh."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from attestation.composite import NodeEvidence
from audit.log import append
from audit.records import Kind, Record, Result
from keybroker import challenge, last_appraisal
from keybroker.broker import Broker, actor
from keybroker.clones import raise_cloned
from keybroker.denial import DeniedError, Reason, ordered
from keybroker.principals import Principal
from keybroker.proof import Proof, appraise
from keybroker.store.schema import Custody, NodeState
from keystead.binding import BindingError, JobGrant, grant_digest, sha256


@dataclass(frozen=True, slots=True)
class Appraisal:
    """The answer."""

    result: str
    expires_at: int
    node_id: str
    next_nonce: bytes


def appraise_node(
    broker: Broker, *, caller: Principal, evidence: NodeEvidence, runtime_data: bytes, grant: bytes | None
) -> Appraisal:
    """Appraise a node and record it.

    Args:
        broker: the running broker.
        caller: whose certificate made the call.
        evidence: of the node.
        runtime_data: what the CPU evidence vouches for.
        grant: the grant's bytes where the runtime data name one.

    Raises:
        DeniedError: the evidence does not satisfy; it has every reason.
        InvalidRequestError, AttestationError: the request cannot be judged.
    """
    now = broker.clock()
    digest = grant_digest(grant)
    with broker.read() as connection:
        proof = appraise(broker, connection, evidence=evidence, runtime_data=runtime_data, grant=digest, now=now)
    node = proof.standing.node
    tenant = _tenant(grant)
    reasons = [*proof.reasons]
    if node is not None and node.state is not NodeState.ACTIVE:
        reasons.append(
            Reason(
                "NODE_NOT_ACTIVE",
                "node.state",
                NodeState.ACTIVE.value,
                node.state.value,
                "Only active nodes are vouched for",
                "have an operator release the node",
            )
        )
    if node is not None and node.custody is not Custody.INSTALLED:
        reasons.append(
            Reason(
                "NODE_CUSTODY",
                "node.custody",
                Custody.INSTALLED.value,
                node.custody.value,
                "Only installed nodes are vouched for",
                "have an operator say that the node is installed: keystead node custody",
            )
        )
    refused = ordered(reasons)
    if node is None or refused:
        raise_cloned(broker, standing=proof.standing, present=proof.present, caller=caller, now=now)
        codes = sorted({reason.code for reason in refused})
        admitted = proof.present or broker.refusals.admit(Kind.APPRAISAL, caller=caller, codes=codes, now=now)
        entry = b""
        if admitted:
            entry = _remember(broker, proof=proof, caller=caller, reasons=refused, tenant=tenant, now=now)
        raise DeniedError(refused, record_hash=entry)
    _remember(broker, proof=proof, caller=caller, reasons=(), tenant=tenant, now=now)
    return Appraisal(
        result=proof.result,
        expires_at=now + broker.config.attestation.result_seconds,
        node_id=node.node_id,
        next_nonce=challenge.issue(broker.epochs, grant=digest, broker=broker.name, now=now).nonce,
    )


def _tenant(grant: bytes | None) -> str | None:
    """Whose job the node was started for, as the grant says that the evidence names; empty where it is no grant."""
    if grant is None:
        return None
    try:
        return JobGrant.parse(grant).tenant
    except BindingError:
        return ""


def _remember(
    broker: Broker,
    *,
    proof: Proof,
    caller: Principal,
    reasons: tuple[Reason, ...],
    tenant: str | None,
    now: int,
) -> bytes:
    node, site = proof.standing.node, proof.standing.site
    record = Record.build(
        kind=Kind.APPRAISAL,
        time=now,
        actor=actor(caller),
        node=None if node is None else node.node_id,
        hardware=proof.standing.hardware,
        site=None if site is None else site.site_id,
        jurisdiction=None if site is None else site.jurisdiction,
        policy_digest=broker.policies.appraisal.digest,
        input_digest=sha256(proof.basis.index(())).hex(),
        result=Result.DENIED if reasons else Result.ALLOWED,
        reasons=tuple(sorted({reason.code for reason in reasons})),
        detail={"simulated": proof.attestation.simulated, "transcript_digest": proof.transcript.hex()},
    )

    def unit(connection: Connection) -> bytes:
        proof.basis.put(connection, (), now=now)
        last_appraisal.remember(connection, proof, tenant=tenant, now=now)
        return append(connection, record).entry_hash

    return broker.commit(unit)
