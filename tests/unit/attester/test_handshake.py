"""What a node sends passes the verifier's own checks of freshness and binding, and nothing else does."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.composite import BINDING_KEY_AND_DEVICES, NodeEvidence, verify_node
from attestation.simulator.node import SimulatedVendors
from attestation.types import Evidence
from attester.collect.simulated import SimulatedCollector
from attester.errors import CredentialError
from attester.handshake import SignedGrant, collect_evidence
from keystead.binding import NONCE_SIZE, HpkePrivateKey, RuntimeData, device_nonce, grant_digest, sha256
from keystead.v1 import evidence_pb2
from keystead.v1 import job_service_pb2 as job_pb
from tests.unit.attester.fake_broker import BROKER, NODE, REF

NOW = 1_790_000_000
NONCE = bytes(range(NONCE_SIZE))
HPKE_KEY = HpkePrivateKey.generate().public_key
SIGNING_KEY = Ed25519PrivateKey.generate().public_key().public_bytes_raw()


@pytest.fixture(scope="session")
def vendors() -> SimulatedVendors:
    return SimulatedVendors.generate(now=NOW, seed=hashlib.sha256(b"attester tests").digest())


def from_proto(message: evidence_pb2.DeviceEvidence) -> Evidence:
    return Evidence(message.slot, message.scheme, message.data, tuple(message.certificates))


def test_simulated_node_passes_the_verifier(vendors: SimulatedVendors, grant: SignedGrant) -> None:
    node = vendors.node(NODE, now=NOW, gpus=2)
    collected = collect_evidence(
        SimulatedCollector(node),
        hpke_key=HPKE_KEY,
        signing_key=SIGNING_KEY,
        broker=BROKER,
        nonce=NONCE,
        grant=grant.grant,
        node_id=NODE,
        assets=(REF,),
    )
    assert collected.transcript == sha256(collected.message.runtime_data)
    assert RuntimeData.parse(collected.message.runtime_data) == collected.runtime_data
    evidence = NodeEvidence(
        from_proto(collected.message.cpu), tuple(from_proto(each) for each in collected.message.devices)
    )
    nonce = device_nonce(
        nonce=NONCE, grant=grant_digest(grant.grant), node_id=NODE, hpke_key=HPKE_KEY, signing_key=SIGNING_KEY
    )

    def binding(runtime_data: RuntimeData, device: bytes) -> str:
        return verify_node(
            evidence,
            runtime_data=runtime_data,
            device_nonce=device,
            anchors=vendors.anchors(),
            reference=vendors.reference(),
            collateral=vendors.collateral(this_update=NOW - 60),
            now=NOW,
        ).binding_level

    assert binding(collected.runtime_data, nonce) == BINDING_KEY_AND_DEVICES
    for other in (
        replace(collected.runtime_data, node_id="ber1-n02"),
        replace(collected.runtime_data, hpke_key=HpkePrivateKey.generate().public_key),
        replace(collected.runtime_data, signing_key=bytes(32)),
        replace(collected.runtime_data, nonce=bytes(NONCE_SIZE)),
        replace(collected.runtime_data, lease_id="lease-1"),
    ):
        assert binding(other, nonce) != BINDING_KEY_AND_DEVICES
    assert binding(collected.runtime_data, bytes(32)) != BINDING_KEY_AND_DEVICES


def test_evidence_without_a_grant_names_the_tagged_empty_one(vendors: SimulatedVendors) -> None:
    collected = collect_evidence(
        SimulatedCollector(vendors.node(NODE, now=NOW, gpus=0)),
        hpke_key=HPKE_KEY,
        signing_key=SIGNING_KEY,
        broker=BROKER,
        nonce=NONCE,
        grant=None,
        node_id=NODE,
    )
    assert collected.runtime_data.grant == grant_digest(None)
    assert collected.runtime_data.devices == ()


def test_grant_round_trip_and_refusal(grant: SignedGrant) -> None:
    assert SignedGrant.from_proto(grant.to_proto()) == grant
    for data in (b"", grant.grant[:-1], grant.grant + b"\0"):
        with pytest.raises(CredentialError, match="job grant"):
            SignedGrant.from_proto(job_pb.JobGrant(grant=data))
