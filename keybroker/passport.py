"""The passport model of RFC 9334: a fresh Attestation Result and proof of the key that it names, not evidence."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection

from attestation import ear
from attestation.errors import ResultError
from keybroker import challenge
from keybroker.broker import Broker
from keybroker.denial import Reason, ordered
from keybroker.errors import ChallengeError, InvalidRequestError
from keybroker.proof import Basis, Proof, assurance, check_hpke_key, nonce_reason
from keybroker.standing import resolve
from keybroker.store import appraisals
from keystead.binding import passport_message, sha256
from policy.inputs import AttestationInput


@dataclass(frozen=True, slots=True)
class Passport:
    """An Attestation Result with the node's signature for one use of it (docs/protocol.md, passport)."""

    result: str
    hpke_key: bytes
    signature: bytes
    nonce: bytes


def present(
    broker: Broker, connection: Connection, *, passport: Passport, grant: bytes, assets: bytes, now: int
) -> Proof:
    """Judge a passport.

    Args:
        broker: the running broker, who must have made the result.
        connection: to read enrolments from.
        passport: what the node presents.
        grant: digest of the grant that it is used for.
        assets: digest of the asset list that it is used for.
        now: integer seconds since the Unix epoch.

    Raises:
        InvalidRequestError: not a current result of this broker, or not presented by the key that it names.
    """
    check_hpke_key(passport.hpke_key, "passport.hpke_key")
    key = broker.keys.result
    try:
        claims = ear.verify(passport.result, keys={key.key_id: key.public_key}, issuer=broker.name, now=now)
    except ResultError as error:
        raise InvalidRequestError("passport.attestation_result", str(error)) from None
    message = passport_message(
        ear=passport.result, nonce=passport.nonce, grant=grant, assets=assets, hpke_key=passport.hpke_key
    )
    try:
        Ed25519PublicKey.from_public_bytes(claims.signing_key).verify(passport.signature, message)
    except InvalidSignature:
        raise InvalidRequestError(
            "passport.signature", "not made by the key in the result's cnf claim over this nonce, grant and asset list"
        ) from None
    slots = sorted(claims.identities, key=lambda slot: (slot != "cpu0", slot))
    standing = resolve(connection, identities=[claims.identities[slot] for slot in slots], slots=slots)
    reasons: list[Reason] = [*standing.reasons]
    current = True
    if claims.policy_id != broker.policies.appraisal.digest:
        reasons.append(
            Reason(
                "APPRAISAL_POLICY_CHANGED",
                "passport.attestation_result",
                broker.policies.appraisal.digest,
                claims.policy_id,
                "An Attestation Result holds under the policy that made it",
                "ask Appraise for a new Attestation Result",
            )
        )
    try:
        challenge.check(broker.epochs, passport.nonce, grant=grant, broker=broker.name, now=now)
    except ChallengeError as error:
        current = False
        reasons.append(nonce_reason(error, passport.nonce))
    return Proof(
        nonce=passport.nonce,
        grant=grant,
        # A result names no node: what it proves are identities, and those name the node.
        claimed_node_id="" if standing.node is None else standing.node.node_id,
        hpke_key=passport.hpke_key,
        signing_key=claims.signing_key,
        assets=assets,
        lease_id="",
        transcript=sha256(message),
        standing=standing,
        present=standing.node is not None and current,
        attestation=AttestationInput(
            allow=not claims.codes,
            status=int(claims.status),
            simulated=claims.simulated,
            policy_digest=claims.policy_id,
            codes=claims.codes,
            age=now - claims.issued_at,
            assurance=assurance(binding_level=claims.binding_level, simulated=claims.simulated).label,
            # A result does not repeat what was launched: an asset that asks needs evidence.
            host_data="",
        ),
        # The result was made of evidence that is kept with the decision that it was made for.
        basis=Basis(
            document=b"",
            appraisal=appraisals.find_by_result(connection, sha256(passport.result.encode("ascii"))) or b"",
        ),
        reasons=ordered(reasons),
        result=passport.result,
    )
