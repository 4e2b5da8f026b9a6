"""What an NVIDIA GPU's evidence claims, as JSON under stable names; believable only where the evidence is authentic."""

from __future__ import annotations

from collections.abc import Mapping

from attestation.nvgpu.abi import GpuEvidence, OpaqueType
from attestation.nvgpu.endorsements import DeviceEndorsement
from attestation.types import Json

_OPAQUE_NAMES = {kind.value: kind.name.lower() for kind in OpaqueType}


def claims(
    evidence: GpuEvidence,
    endorsement: DeviceEndorsement,
    *,
    measurements: Mapping[int, bytes],
    manifests: Mapping[str, Json],
    coverage: Mapping[str, Json],
) -> dict[str, Json]:
    """Every claim of `evidence`, whose `measurements` by index the caller has at hand, and of its certificates.

    ``reference_manifests`` are the `manifests` that measurements were compared with, ``measurement_coverage`` says
    which measurement was compared with whose reference value.

    Byte strings are lower-case hex. ``opaque`` has every field, under its number where its name is not known.
    ``fwid_in_leaf`` is null where the evidence states no firmware identity to look for.

    Raises:
        MalformedError: an opaque field that is named in `OpaqueType` has another size or encoding than it should.
    """
    request, response = evidence.measurements.request, evidence.measurements.response
    firmware = endorsement.firmware
    fwid = evidence.fwid
    mode = evidence.mode
    switches = evidence.switch_pdis
    counts = evidence.measurement_counts
    driver = evidence.driver_version
    product = endorsement.products[0]
    return {
        "product": product,
        "device_info": endorsement.device_info,
        "certified_serial_number": endorsement.stated_serial_number.lower(),
        "pdi": endorsement.pdi,
        "spdm_version": "1.1",
        "slot_id": request.slot_id,
        "nonce": request.nonce.hex(),
        "response_nonce": response.nonce.hex(),
        "driver_version": driver,
        "driver_rim_id": None if driver is None else driver_rim_id(product, driver),
        "vbios_version": evidence.vbios_version,
        "vbios_rim_id": evidence.vbios_rim_id,
        "chip": evidence.chip,
        "mode": None if mode is None else mode.value,
        "feature_flag": evidence.feature_flag,
        "protected_pcie_status": evidence.protected_pcie,
        "nvdec0_status": evidence.nvdec0,
        "opaque_data_version": evidence.opaque_version,
        "switch_pdis": None if switches is None else sorted({pdi.hex() for pdi in switches}),
        "switch_pdi_by_link": None if switches is None else [pdi.hex() for pdi in switches],
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


def driver_rim_id(product: str, driver: str) -> str:
    """Identifier of the driver's reference values, as NVIDIA's RIM service names them.

    Args:
        product: chip name, for example ``GH100``.
        driver: driver version, for example ``570.124.06``.
    """
    return f"NV_GPU_DRIVER_{product}_{driver}" if product == "GH100" else f"NV_GPU_CC_DRIVER_{product}_{driver}"
