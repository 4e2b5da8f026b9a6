"""What an NVSwitch's evidence claims, as JSON under stable names; believable only where the evidence is authentic."""

from __future__ import annotations

from typing import Final

from attestation.nvidia.device import common_claims
from attestation.nvidia.endorsements import DeviceEndorsement
from attestation.nvswitch.abi import OpaqueType, SwitchEvidence
from attestation.types import Json

LS10_BIOS_RIM: Final = "NV_SWITCH_BIOS_5612_0002_890_"
"""Project, SKU and chip SKU of every LS10; the evidence does not state them (NVIDIA attestation SDK 1.x)."""
_OPAQUE_NAMES: Final = {kind.value: kind.name.lower() for kind in OpaqueType}


def statement_claims(evidence: SwitchEvidence, endorsement: DeviceEndorsement) -> dict[str, Json]:
    """What the opaque data of `evidence` claim, beside the firmware that its certificates name.

    Raises:
        MalformedError: an opaque field that is named in `OpaqueType` has another size or encoding than it should.
    """
    pdi, version, gpus, ports = evidence.pdi, evidence.bios_version, evidence.gpu_pdis, evidence.gpu_pdi_by_port
    return {
        "stated_pdi": None if pdi is None else pdi.hex(),
        "bios_version": version,
        "bios_rim_id": None if version is None else bios_rim_id(version),
        "position": evidence.position,
        "lock_status": evidence.lock_status,
        "disabled_ports": evidence.disabled_ports,
        "gpu_pdis": None if gpus is None else [each.hex() for each in gpus],
        "gpu_pdi_by_port": None if ports is None else [None if each is None else each.hex() for each in ports],
        **common_claims(evidence, endorsement, _OPAQUE_NAMES),
    }


def bios_rim_id(version: str) -> str:
    """Identifier of an LS10's reference values: ``NV_SWITCH_BIOS_<project>_<SKU>_<chip SKU>_<version>``."""
    return LS10_BIOS_RIM + version.replace(".", "").upper()
