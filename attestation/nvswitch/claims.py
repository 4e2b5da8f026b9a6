"""What an NVSwitch's evidence claims, as JSON under stable names; believable only where the evidence is authentic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attestation.nvidia.endorsements import DeviceEndorsement
from attestation.nvswitch.abi import OpaqueType, SwitchEvidence
from attestation.types import Json

LS10_BIOS_RIM: Final = "NV_SWITCH_BIOS_5612_0002_890_"
"""Project, SKU and chip SKU of every LS10; the evidence does not state them (NVIDIA attestation SDK 1.x)."""
_OPAQUE_NAMES: Final = {kind.value: kind.name.lower() for kind in OpaqueType}


def claims(
    evidence: SwitchEvidence,
    endorsement: DeviceEndorsement,
    *,
    measurements: Mapping[int, bytes],
    manifests: Mapping[str, Json],
    coverage: Mapping[str, Json],
) -> dict[str, Json]:
    """Every claim of `evidence`, whose `measurements` by index the caller has at hand, and of its certificates.

    Byte strings are lower-case hex. ``reference_manifests`` are the `manifests` that measurements were compared with,
    ``measurement_coverage`` says which measurement was compared with whose reference value.

    Raises:
        MalformedError: an opaque field that is named in `OpaqueType` has another size or encoding than it should.
    """
    request, response = evidence.measurements.request, evidence.measurements.response
    firmware, fwid, pdi = endorsement.firmware, evidence.fwid, evidence.pdi
    version, gpus, ports, counts = (
        evidence.bios_version,
        evidence.gpu_pdis,
        evidence.gpu_pdi_by_port,
        evidence.measurement_counts,
    )
    return {
        "product": endorsement.products[0],
        "device_info": endorsement.device_info,
        "certified_serial_number": endorsement.stated_serial_number.lower(),
        "pdi": endorsement.pdi,
        "stated_pdi": None if pdi is None else pdi.hex(),
        "spdm_version": "1.1",
        "slot_id": request.slot_id,
        "nonce": request.nonce.hex(),
        "response_nonce": response.nonce.hex(),
        "bios_version": version,
        "bios_rim_id": None if version is None else bios_rim_id(version),
        "position": evidence.position,
        "lock_status": evidence.lock_status,
        "disabled_ports": evidence.disabled_ports,
        "gpu_pdis": None if gpus is None else [each.hex() for each in gpus],
        "gpu_pdi_by_port": None if ports is None else [None if each is None else each.hex() for each in ports],
        "fwid": None if fwid is None else fwid.hex(),
        "fwid_len": None if fwid is None else len(fwid),
        "fwid_in_leaf": None if fwid is None else firmware is not None and fwid == firmware.fwid,
        "leaf_fwid": None if firmware is None else firmware.fwid.hex(),
        "firmware_flags": [] if firmware is None else list(firmware.flags),
        "measurement_blocks": response.block_count,
        "measurements": {str(index): value.hex() for index, value in measurements.items()},
        "reference_manifests": manifests,
        "measurement_coverage": coverage,
        "measurement_counts": None if counts is None else list(counts),
        "opaque_tags": sorted(evidence.opaque),
        "opaque": {_OPAQUE_NAMES.get(kind, str(kind)): value.hex() for kind, value in evidence.opaque.items()},
        "trailing_bytes_after_signature": len(evidence.trailing),
    }


def bios_rim_id(version: str) -> str:
    """Identifier of an LS10's reference values: ``NV_SWITCH_BIOS_<project>_<SKU>_<chip SKU>_<version>``."""
    return LS10_BIOS_RIM + version.replace(".", "").upper()
