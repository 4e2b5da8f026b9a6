"""The passport model of RFC 9334 on the node: be appraised once, then present the Attestation Result, not evidence.

Useful where collecting evidence is slow and a node acquires several leases within the result's short life.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attester.client import BrokerClient
from attester.collect.collector import Collector
from attester.errors import BadAnswerError
from attester.handshake import collect_evidence
from keystead.binding import NONCE_SIZE, HpkePrivateKey
from keystead.v1 import attestation_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class Passport:
    """An Attestation Result and the key that its ``cnf`` claim names.

    Attributes:
        attestation_result: the EAR, a signed JWT.
        expires_at: seconds since the epoch.
        node_id: the enrolled node that the evidence resolved to.
        broker: the broker's logical name.
        signing_key: lives in this process's memory, inside the TEE, and nowhere else.
    """

    attestation_result: str
    expires_at: int
    node_id: str
    broker: str
    signing_key: Ed25519PrivateKey = field(repr=False)


def appraise(client: BrokerClient, collector: Collector, *, node_id: str) -> Passport:
    """Have this node appraised, for no particular job: two round trips.

    Args:
        client: the connection to the broker.
        collector: collects this node's evidence.
        node_id: who this node says it is.

    Raises:
        AccessDeniedError: the evidence does not satisfy; `reasons` has every reason.
        BrokerError: see its subclasses.
        CollectionError: this node's evidence cannot be collected.
        CredentialError: the node's id is malformed.
    """
    challenge = client.get_challenge(grant=None)
    if len(challenge.nonce) != NONCE_SIZE:
        raise BadAnswerError(f"nonce: {len(challenge.nonce)} bytes, expected {NONCE_SIZE}")
    signing_key = Ed25519PrivateKey.generate()
    evidence = collect_evidence(
        collector,
        # The evidence must bind an HPKE key; each lease gets its own, signed for by the signing key.
        hpke_key=HpkePrivateKey.generate().public_key,
        signing_key=signing_key.public_key().public_bytes_raw(),
        broker=challenge.broker,
        nonce=challenge.nonce,
        grant=None,
        node_id=node_id,
    )
    answer = client.appraise(pb.AppraiseRequest(evidence=evidence.message))
    if answer.node_id != node_id or not answer.attestation_result:
        raise BadAnswerError(f"appraised as node {answer.node_id!a:.80}, asked for {node_id}")
    return Passport(
        attestation_result=answer.attestation_result,
        expires_at=answer.expire_time.seconds,
        node_id=answer.node_id,
        broker=challenge.broker,
        signing_key=signing_key,
    )
