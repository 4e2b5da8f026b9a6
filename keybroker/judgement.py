"""What a node's evidence is worth: one pure function, which the broker and every replay of an appraisal call.

Nothing here reads a clock, a database or a configuration. The same evidence, trust, policy and time give the same
claims to the byte (`attestation.ear`), today and for an auditor years later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from attestation import ear
from attestation.composite import NodeEvidence, NodeResult, verify_node
from attestation.findings import Finding
from attestation.profile import STRICT, Profile
from attestation.types import Json
from keybroker.trust import Trust
from keystead.binding import RuntimeData, device_nonce
from policy.decision import Decision
from policy.documents import encode_document
from policy.engine import PolicyEngine
from policy.inputs import AppraisalInput, DeviceInput, FindingInput

PROFILE: Final[Profile] = STRICT
"""The only profile that a broker judges under."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What verification established and what the appraisal policy made of it.

    Attributes:
        result: of verification.
        document: the appraisal policy's canonical input.
        decision: the policy's.
        claims: of the Attestation Result.
    """

    result: NodeResult
    document: bytes
    decision: Decision
    claims: dict[str, Json]

    @property
    def allow(self) -> bool:
        """A policy may ask for more than verification does, never for less (ADR 0010)."""
        return self.decision.allow and self.result.ok


def judge(
    evidence: NodeEvidence,
    *,
    runtime: RuntimeData,
    trust: Trust,
    policy: PolicyEngine,
    verifier: str,
    lifetime: int,
    now: int,
) -> Judgement:
    """Verify a node's evidence, appraise it, and say so in the claims of an Attestation Result.

    Args:
        evidence: of the CPU and the devices.
        runtime: what the CPU evidence must vouch for; the devices' nonce follows from it.
        trust: anchors, reference values and collateral.
        policy: the appraisal pack with its settings.
        verifier: name of the logical verifier.
        lifetime: seconds until the result expires.
        now: the appraisal's time, integer seconds since the Unix epoch.

    Raises:
        AttestationError: evidence that cannot be judged.
        PolicyError: the policy could not decide.
    """
    result = verify_node(
        evidence,
        runtime_data=runtime,
        device_nonce=device_nonce(
            nonce=runtime.nonce,
            grant=runtime.grant,
            node_id=runtime.node_id,
            hpke_key=runtime.hpke_key,
            signing_key=runtime.signing_key,
        ),
        anchors=trust.anchors,
        reference=trust.reference,
        collateral=trust.collateral,
        now=now,
        profile=PROFILE,
    )
    document = _appraisal_input(result, now=now)
    decision = policy.evaluate_bytes(document)
    claims = ear.build_claims(
        result,
        trust_vectors=decision.trust_vectors,
        policy_id=policy.digest,
        verifier=verifier,
        nonce=runtime.nonce,
        signing_key=Ed25519PublicKey.from_public_bytes(runtime.signing_key),
        now=now,
        lifetime=lifetime,
    )
    return Judgement(result=result, document=document, decision=decision, claims=claims)


def _finding_input(finding: Finding) -> FindingInput:
    return FindingInput.model_validate(finding.to_json())


def _appraisal_input(result: NodeResult, *, now: int) -> bytes:
    document = AppraisalInput(
        now=now,
        binding_level=result.binding_level,
        node_findings=tuple(_finding_input(finding) for finding in result.findings),
        devices=tuple(
            DeviceInput(
                slot=device.slot,
                scheme=device.scheme,
                simulated=device.simulated,
                identity=None if device.identity is None else str(device.identity),
                claims={},
                findings=tuple(_finding_input(finding) for finding in device.findings),
                collateral_age=dict(device.collateral_age),
            )
            for device in result.devices
        ),
    )
    # Claims may be any JSON, which is what the encoding checks: to check and copy them in the model too costs more than
    # all else about this document.
    devices = [
        {**checked.to_input(), "claims": device.claims}
        for checked, device in zip(document.devices, result.devices, strict=True)
    ]
    rest = document.model_dump(mode="json", exclude={"devices"})
    return encode_document({**rest, "devices": devices}, what=type(document).__name__)
