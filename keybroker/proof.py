"""From a node's evidence to who it is and what that is worth: verify, resolve, appraise, and sign the result.

Nothing here releases anything. Every shortcoming becomes a reason, so that a refusal can name all of them at once; an
exception means that the evidence could not be judged at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from attestation import ear
from attestation.composite import BINDING_KEY, BINDING_KEY_AND_DEVICES, BINDING_NONE, NodeEvidence, NodeResult
from keybroker import challenge
from keybroker.archive import Kept, check_size
from keybroker.broker import Broker
from keybroker.constraints import Assurance
from keybroker.denial import Reason, from_denials, from_findings, ordered
from keybroker.errors import ChallengeError, InvalidRequestError
from keybroker.judgement import judge
from keybroker.standing import Standing, resolve
from keybroker.store import documents
from keystead.binding import BindingError, RuntimeData, check_hpke_public_key, sha256
from policy.inputs import AttestationInput


@dataclass(frozen=True, slots=True)
class Basis:
    """What a decision about a node rests on, as it is kept for auditors.

    Attributes:
        document: the appraisal policy's canonical input; empty where a passport was presented.
        appraisal: digest of the appraisal's record; empty where none is kept.
        kept: the record, to be stored with the decision; None where it is stored already, or not kept.
    """

    document: bytes
    appraisal: bytes
    kept: Kept | None = None

    def index(self, release: Sequence[bytes]) -> bytes:
        """The document that names all that a decision rests on (`keybroker.store.documents`)."""
        return documents.decision_index(appraisal=self.document, release=release, evidence=self.appraisal)

    def put(self, connection: Connection, release: Sequence[bytes], *, now: int) -> None:
        """Store all of it in the transaction that records the decision."""
        if self.kept is not None:
            self.kept.put(connection)
        documents.put_decision(connection, appraisal=self.document, release=release, evidence=self.appraisal, now=now)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a node has proven about itself, by evidence or by an Attestation Result.

    Attributes:
        nonce: the challenge that it answers.
        grant: digest of the grant that it is for.
        claimed_node_id: what the node says its name is.
        hpke_key: the attested HPKE public key.
        signing_key: the attested Ed25519 public key.
        assets: digest of the asset list that it is for.
        lease_id: the lease that it is to renew, or empty.
        transcript: SHA-256 of the runtime data or the passport message.
        standing: who the node is.
        present: an enrolled node made this for this session: whoever sends it is, or speaks for, that node. Evidence
            that was recorded elsewhere proves identities too.
        attestation: what the appraisal decided, as the release policy sees it.
        basis: what an auditor needs to judge it again.
        reasons: everything that speaks against the node; empty where nothing does.
        result: the Attestation Result, a signed EAR.
    """

    nonce: bytes
    grant: bytes
    claimed_node_id: str
    hpke_key: bytes
    signing_key: bytes
    assets: bytes
    lease_id: str
    transcript: bytes
    standing: Standing
    present: bool
    attestation: AttestationInput
    basis: Basis
    reasons: tuple[Reason, ...]
    result: str

    @property
    def matches(self) -> bool:
        """The proven identities are exactly the enrolled set of the node."""
        return self.standing.matches

    @property
    def document(self) -> bytes:
        """The appraisal policy's canonical input; empty where a passport was presented."""
        return self.basis.document


def appraise(
    broker: Broker, connection: Connection, *, evidence: NodeEvidence, runtime_data: bytes, grant: bytes, now: int
) -> Proof:
    """Judge a node's evidence.

    Args:
        broker: the running broker.
        connection: to read enrolments from.
        evidence: of the CPU and the devices.
        runtime_data: in their canonical encoding.
        grant: `keystead.binding.grant_digest` of the grant that the evidence must be for.
        now: integer seconds since the Unix epoch.

    Raises:
        InvalidRequestError: the runtime data are malformed.
        AttestationError: evidence that cannot be judged.
        PolicyError: the policy could not decide.
    """
    try:
        runtime = RuntimeData.parse(runtime_data)
    except BindingError as error:
        raise InvalidRequestError("evidence.runtime_data", str(error)) from None
    check_size(evidence, runtime_data)
    session = _session_reasons(broker, runtime, grant=grant, now=now)
    check_hpke_key(runtime.hpke_key, "evidence.runtime_data")
    lifetime = broker.config.attestation.result_seconds
    judgement = judge(
        evidence,
        runtime=runtime,
        trust=broker.trust,
        policy=broker.policies.appraisal,
        verifier=broker.name,
        lifetime=lifetime,
        now=now,
    )
    result, decision = judgement.result, judgement.decision
    standing = resolve(connection, identities=proven_identities(result), slots=_slots(result))
    reasons = [*session, *standing.reasons, *from_denials(decision.deny)]
    if not result.ok and decision.allow:
        # A policy may ask for more than verification does, never for less (ADR 0010).
        reasons += _finding_reasons(result)
    present = standing.node is not None and result.binding_level != BINDING_NONE and not session
    token = ear.sign(judgement.claims, broker.keys.result.private_key, key_id=broker.keys.result.key_id)
    kept = broker.archive.keep(
        connection,
        evidence=evidence,
        runtime_data=runtime_data,
        judgement=judgement,
        result=token,
        lifetime=lifetime,
        now=now,
        stranger=not present,
    )
    return Proof(
        nonce=runtime.nonce,
        grant=runtime.grant,
        claimed_node_id=runtime.node_id,
        hpke_key=runtime.hpke_key,
        signing_key=runtime.signing_key,
        assets=runtime.assets,
        lease_id=runtime.lease_id,
        transcript=sha256(runtime_data),
        standing=standing,
        present=present,
        attestation=AttestationInput(
            allow=judgement.allow,
            status=int(ear.worst_status(judgement.claims)),
            simulated=result.simulated,
            policy_digest=broker.policies.appraisal.digest,
            codes=tuple(sorted({denial.code for denial in decision.deny})),
            age=0,
            assurance=assurance(binding_level=result.binding_level, simulated=result.simulated).label,
            host_data=_host_data(result),
        ),
        basis=Basis(document=judgement.document, appraisal=b"" if kept is None else kept.digest, kept=kept),
        reasons=ordered(reasons),
        result=token,
    )


def assurance(*, binding_level: str, simulated: bool) -> Assurance:
    """How well a node has proven what it is, by what its CPU TEE vouches for (`attestation.composite`)."""
    if simulated:
        return Assurance.SIMULATED
    levels = {BINDING_KEY: Assurance.CPU, BINDING_KEY_AND_DEVICES: Assurance.CPU_AND_DEVICES}
    return levels.get(binding_level, Assurance.SIMULATED)


def _host_data(result: NodeResult) -> str:
    """What the host bound to the CPU TEE at launch, in hex; empty where there is none or the CPU is not proven."""
    claims = result.devices[0].claims
    value = claims.get("host_data")
    return value if isinstance(value, str) and claims.get("authentic") is True else ""


def check_hpke_key(public_key: bytes, field: str) -> None:
    """Check, before anything is decided, that a key can be wrapped to `public_key`.

    Raises:
        InvalidRequestError: it cannot.
    """
    try:
        check_hpke_public_key(public_key)
    except BindingError as error:
        raise InvalidRequestError(field, str(error)) from None


def proven_identities(result: NodeResult) -> list[str]:
    """Each device's certified identity as ``kind:value``, empty where it is not proven; the CPU's first."""
    return ["" if device.identity is None else str(device.identity) for device in result.devices]


def _slots(result: NodeResult) -> list[str]:
    return [device.slot for device in result.devices]


def _session_reasons(broker: Broker, runtime: RuntimeData, *, grant: bytes, now: int) -> list[Reason]:
    reasons: list[Reason] = []
    if runtime.broker != broker.name:
        reasons.append(
            Reason(
                "BROKER_MISMATCH",
                "runtime_data.broker",
                broker.name,
                runtime.broker,
                "Evidence must be made for this broker",
                "collect evidence with the broker's name that came with the nonce",
            )
        )
    if runtime.grant != grant:
        reasons.append(
            Reason(
                "GRANT_MISMATCH",
                "runtime_data.grant",
                grant.hex(),
                runtime.grant.hex(),
                "Evidence must be made for the grant it is presented with",
                "collect fresh evidence for this grant",
            )
        )
    try:
        challenge.check(broker.epochs, runtime.nonce, grant=grant, broker=broker.name, now=now)
    except ChallengeError as error:
        reasons.append(nonce_reason(error, runtime.nonce))
    return reasons


def nonce_reason(error: ChallengeError, nonce: bytes) -> Reason:
    """The reason for a nonce that this broker does not accept."""
    return Reason(
        error.code,
        "nonce",
        "a nonce that this broker issued for this grant and that has not expired",
        f"{nonce[:12].hex()}…",
        str(error),
        "ask GetChallenge for a nonce and collect fresh evidence",
    )


def _finding_reasons(result: NodeResult) -> list[Reason]:
    reasons = from_findings(result.findings, slot="node")
    for device in result.devices:
        reasons += from_findings(device.findings, slot=device.slot)
    return reasons
