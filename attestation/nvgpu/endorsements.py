"""Endorsements of GPUs: NVIDIA's certificates (`attestation.nvidia.endorsements`) whose BROM names a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attestation.nvidia.endorsements import (
    BROM,
    CHAIN_LENGTH,
    LEAF,
    NVIDIA_DEVICE_IDENTITY_CA_SHA256,
    OID_SPDM_DEVICE_INFO,
    DeviceAnchors,
    DeviceEndorsement,
    DeviceKind,
)

__all__ = [
    "BROM",
    "CHAIN_LENGTH",
    "LEAF",
    "NVIDIA_DEVICE_IDENTITY_CA_SHA256",
    "OID_SPDM_DEVICE_INFO",
    "DeviceEndorsement",
    "NvGpuAnchors",
]


@dataclass(frozen=True, slots=True, eq=False)
class NvGpuAnchors(DeviceAnchors):
    """Which roots GPU evidence and its manifests may end in; see `DeviceAnchors`."""

    KIND: ClassVar[DeviceKind] = DeviceKind.GPU
