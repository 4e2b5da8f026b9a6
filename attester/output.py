"""What a job made becomes an asset version: its key goes to the broker, what it was derived from is known there.

::

    output = attester.register_output(lease, ref, data_key=key, manifest_digest=manifest.digest(), kind="checkpoint")

The broker gives the version every constraint of everything that the job was granted; the node cannot say otherwise.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from attester.errors import CredentialError
from attester.lease import Lease
from keystead.binding import AssetRef, BindingError, hpke_seal, owner_key_info
from keystead.v1 import asset_service_pb2 as asset_pb
from keystead.v1 import lineage_service_pb2 as pb
from sealed.format import key_id

KINDS: Final = MappingProxyType(
    {
        "model": asset_pb.ASSET_KIND_MODEL,
        "checkpoint": asset_pb.ASSET_KIND_CHECKPOINT,
        "adapter": asset_pb.ASSET_KIND_ADAPTER,
        "preprocessed": asset_pb.ASSET_KIND_PREPROCESSED,
        "features": asset_pb.ASSET_KIND_FEATURES,
        "evaluation-set": asset_pb.ASSET_KIND_EVALUATION_SET,
    }
)
"""What a job can make; raw data are no job's output."""


@dataclass(frozen=True, slots=True)
class Output:
    """A registered output.

    Attributes:
        ref: the asset version that it is.
        parents: every asset version that it was derived from.
    """

    ref: AssetRef
    parents: tuple[AssetRef, ...]


def register_output(
    lease: Lease,
    ref: AssetRef | str,
    *,
    data_key: bytes,
    manifest_digest: bytes,
    kind: str = "",
    constraints: str = "",
) -> Output:
    """Register what a job made, in the job's name, as the next version of an asset.

    Args:
        lease: a live lease of the job.
        ref: the version; the next one of its asset.
        data_key: that it was sealed with, 32 bytes.
        manifest_digest: SHA-256 of its sealed manifest.
        kind: one of `KINDS`, where the asset is to be registered, too; else empty.
        constraints: what the new asset is to demand besides what it inherits, in canonical JSON (docs/concepts.md);
            empty for just that.

    Raises:
        LeaseEndedError: the lease speaks for the job no longer.
        CredentialError: an argument is malformed.
        BrokerError: see its subclasses; `AccessDeniedError` where nothing satisfies all that it inherits.
    """
    if kind and kind not in KINDS:
        raise CredentialError(f"kind {kind!r:.40}: a job can make {', '.join(KINDS)}")
    try:
        ref = AssetRef.parse(ref) if isinstance(ref, str) else ref
    except BindingError as error:
        raise CredentialError(str(error)) from None
    wrapping = lease.client.get_wrapping_key()
    name = key_id(data_key)
    info = owner_key_info(broker=wrapping.broker, ref=ref, key_id=name)
    wrapped = hpke_seal(data_key, public_key=wrapping.hpke_key, info=info)
    signature = lease.sign_output(
        ref=ref,
        key_id=name,
        manifest_digest=manifest_digest,
        wrapped_key=wrapped,
        kind=kind,
        constraints=constraints,
    )
    request = pb.RegisterOutputRequest(
        request_id=str(uuid.uuid4()),
        lease=pb.LeaseSignature(lease_id=lease.lease_id, signature=signature),
        key_id=name,
        manifest_digest=manifest_digest,
        wrapped_key=wrapped,
    )
    request.ref.asset, request.ref.version = ref.asset, ref.version
    if kind:
        request.new_asset.kind = KINDS[kind]
        request.new_asset.constraints = constraints
    answer = lease.client.register_output(request)
    return Output(ref, tuple(AssetRef(each.asset, each.version) for each in answer.parents))
