"""Endorsements of switches: NVIDIA's certificates (`attestation.nvidia.endorsements`) whose BROM names an NVSwitch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attestation.nvidia.endorsements import DeviceAnchors, DeviceKind


@dataclass(frozen=True, slots=True, eq=False)
class NvSwitchAnchors(DeviceAnchors):
    """Which roots switch evidence and its manifests may end in; see `DeviceAnchors`."""

    KIND: ClassVar[DeviceKind] = DeviceKind.NVSWITCH
