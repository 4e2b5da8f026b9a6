"""The demo, chapters 2 and 3: an owner seals a model, a sound node opens it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.binding import hpke_seal, owner_key_info
from keystead.cli.connection import request_id
from keystead.cli.demo.factory import GOOD, Recorder
from keystead.cli.demo.model import FILE_NAME, make_tensors, write_model
from keystead.cli.demo.safetensors import Tensor, read
from keystead.cli.demo.stage import MODEL, PURPOSE, Stage, ref_message
from keystead.cli.seal import create_data_key
from keystead.v1 import asset_service_pb2, constraints_pb2
from sealed.asset import collect_sources, seal_asset

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SealedModel:
    """A model that was sealed.

    Attributes:
        folder: its sealed files.
        tensors: what was sealed.
    """

    folder: Path
    tensors: Mapping[str, Tensor]


def seal(stage: Stage) -> SealedModel:
    """Chapter 2: make a model, seal it and register it."""
    owner, tell = stage.owner, stage.narrator
    tell.chapter(2, "An owner seals a model, for the EU only")
    tensors = make_tensors()
    plain = stage.folder / FILE_NAME
    size = write_model(plain, tensors)
    tell.says("owner", f"makes a model on the spot: {len(tensors)} tensors, {size / _MIB:.0f} MiB, no meaning")
    key = create_data_key(stage.folder / "model.key")
    sealed = stage.folder / "sealed"
    manifest = seal_asset(
        collect_sources((plain,)), sealed, ref=MODEL, key=key, signing_key=Ed25519PrivateKey.generate()
    )
    plain.unlink()
    tell.says(
        "owner",
        "seals it under a key of its own (AES-256-GCM, Tink's streaming format), signs the manifest, deletes the "
        "plaintext",
    )
    owner.call(
        owner.assets.RegisterAsset,
        asset_service_pb2.RegisterAssetRequest(
            request_id=request_id(),
            asset=MODEL.asset,
            kind=asset_service_pb2.ASSET_KIND_MODEL,
            constraints=constraints_pb2.Constraints(
                classification=4,
                purposes=constraints_pb2.NameSet(names=[PURPOSE]),
                residency=constraints_pb2.Areas(allowed=[constraints_pb2.AreaClause(areas=["EU"])]),
            ),
        ),
    )
    wrapping = owner.call(owner.assets.GetWrappingKey, asset_service_pb2.GetWrappingKeyRequest())
    info = owner_key_info(broker=wrapping.broker, ref=MODEL, key_id=manifest.key_id)
    owner.call(
        owner.assets.AddAssetVersion,
        asset_service_pb2.AddAssetVersionRequest(
            request_id=request_id(),
            ref=ref_message(MODEL),
            key_id=manifest.key_id,
            manifest_digest=manifest.digest(),
            wrapped_key=hpke_seal(key, public_key=wrapping.hpke_key, info=info),
        ),
    )
    tell.says(
        "owner",
        f"registers {MODEL.asset}: only in the EU, only for {PURPOSE}; its key travels wrapped (HPKE, ML-KEM-768 + "
        "X25519)",
    )
    return SealedModel(sealed, tensors)


def use(stage: Stage, model: SealedModel) -> Recorder:
    """Chapter 3: a sound node opens it; returns who recorded its evidence."""
    tell = stage.narrator
    tell.chapter(3, "A sound node opens it")
    job = stage.authorize("slurm:4711")
    tell.says("scheduler", f"opens job {job.job_uid} for {PURPOSE}; the broker decides and signs a grant")
    recorder = Recorder(stage.factory.machines[GOOD])
    before = time.monotonic()
    with stage.acquire(recorder, job, GOOD) as lease:
        took = time.monotonic() - before
        tell.says(
            GOOD,
            f"attests its CPU and {len(recorder.machine.gpus)} GPUs and gets lease and key in one round trip: "
            f"{took * 1_000:.0f} ms",
        )
        with lease.open(MODEL, model.folder) as reader, reader.file() as file:
            opened = read(file)
        same = opened == model.tensors
        tell.outcome(
            "sound-node-opens-the-model",
            expected="tensors equal",
            actual="tensors equal" if same else "tensors differ",
            text=f"{len(opened)} tensors opened in memory, equal to the original bit for bit",
        )
    tell.says(GOOD, "erases the key from memory and returns the lease, signed by its attested key")
    return recorder
