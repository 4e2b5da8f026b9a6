"""The node's side of the handshake up to the request: keys, device nonce, evidence, runtime data (docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from attestation.types import Evidence
from attester.collect.collector import Collector
from attester.errors import CollectionError, CredentialError
from keystead.binding import (
    NONCE_SIZE,
    AssetRef,
    BindingError,
    JobGrant,
    RuntimeData,
    asset_list_digest,
    device_evidence_digest,
    device_nonce,
    grant_digest,
    sha256,
)
from keystead.v1 import evidence_pb2 as evidence_pb
from keystead.v1 import job_service_pb2 as job_pb


@dataclass(frozen=True, slots=True)
class SignedGrant:
    """A grant as a scheduler passed it on. The broker, not the node, checks its signature.

    Attributes:
        grant: the canonical encoding that the broker signed.
        signature: the broker's signature.
        key_id: which of the broker's keys signed.
        content: what the grant says.
    """

    grant: bytes
    signature: bytes
    key_id: str
    content: JobGrant

    @classmethod
    def from_proto(cls, message: job_pb.JobGrant) -> Self:
        """Take the grant from `AuthorizeJob`'s answer.

        Raises:
            CredentialError: the grant is not in its canonical encoding.
        """
        try:
            content = JobGrant.parse(message.grant)
        except BindingError as error:
            raise CredentialError(f"job grant: {error}") from None
        return cls(message.grant, message.signature, message.key_id, content)

    def to_proto(self) -> job_pb.JobGrant:
        """The message that `from_proto` reads."""
        return job_pb.JobGrant(grant=self.grant, signature=self.signature, key_id=self.key_id)


@dataclass(frozen=True, slots=True)
class CollectedEvidence:
    """Evidence that was collected for one request.

    Attributes:
        message: the evidence as the request carries it.
        runtime_data: what the CPU TEE vouches for.
    """

    message: evidence_pb.NodeEvidence
    runtime_data: RuntimeData

    @property
    def transcript(self) -> bytes:
        """SHA-256 of the runtime data, as it stands in the HPKE `info` of every key that answers."""
        return sha256(self.message.runtime_data)


def collect_evidence(
    collector: Collector,
    *,
    hpke_key: bytes,
    signing_key: bytes,
    broker: str,
    nonce: bytes,
    grant: bytes | None,
    node_id: str,
    assets: Sequence[AssetRef] = (),
    lease_id: str = "",
) -> CollectedEvidence:
    """Collect the node's evidence, bound to one nonce, grant, node id, list of assets and two public keys.

    The devices sign first, over a nonce that names the keys; the CPU TEE signs last, over everything.

    Args:
        collector: the node's.
        hpke_key: the public key that data keys are wrapped to.
        signing_key: the public key that the node signs the lease's return with.
        broker: the broker's logical name.
        nonce: the broker's, 56 bytes.
        grant: the signed grant's bytes, or None.
        node_id: who the node says it is; the broker compares it with what the hardware resolves to.
        assets: what is asked for.
        lease_id: the lease that is renewed; empty for others.

    Raises:
        CollectionError: a device gives no evidence, or two claim one slot.
        CredentialError: the nonce, the broker's name or the node's is malformed.
    """
    if len(nonce) != NONCE_SIZE:
        raise CredentialError(f"nonce: {len(nonce)} bytes, the broker's have {NONCE_SIZE}")
    digest = grant_digest(grant)
    devices = collector.devices(
        device_nonce(nonce=nonce, grant=digest, node_id=node_id, hpke_key=hpke_key, signing_key=signing_key)
    )
    runtime_data = RuntimeData(
        broker=broker,
        nonce=nonce,
        grant=digest,
        node_id=node_id,
        hpke_key=hpke_key,
        signing_key=signing_key,
        assets=asset_list_digest(assets),
        lease_id=lease_id,
        devices=tuple(
            device_evidence_digest(slot=each.slot, scheme=each.scheme, data=each.data, certificates=each.certificates)
            for each in devices
        ),
    )
    try:
        encoded = runtime_data.to_bytes()
    except BindingError as error:
        raise CredentialError(str(error)) from None
    cpu = collector.cpu(runtime_data.report_data())
    slots = [cpu.slot, *(each.slot for each in devices)]
    if len(set(slots)) != len(slots):
        raise CollectionError(f"two devices claim one slot: {', '.join(slots)}")
    message = evidence_pb.NodeEvidence(
        cpu=_to_proto(cpu), devices=[_to_proto(each) for each in devices], runtime_data=encoded
    )
    return CollectedEvidence(message, runtime_data)


def _to_proto(evidence: Evidence) -> evidence_pb.DeviceEvidence:
    return evidence_pb.DeviceEvidence(
        slot=evidence.slot, scheme=evidence.scheme, data=evidence.data, certificates=evidence.certificates
    )
