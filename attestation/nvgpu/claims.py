"""What an NVIDIA GPU's evidence claims, as JSON under stable names; believable only where the evidence is authentic."""

from __future__ import annotations

from attestation.nvgpu.abi import GpuEvidence, OpaqueType
from attestation.nvgpu.endorsements import DeviceEndorsement
from attestation.nvidia.device import common_claims
from attestation.types import Json

_OPAQUE_NAMES = {kind.value: kind.name.lower() for kind in OpaqueType}


def statement_claims(evidence: GpuEvidence, endorsement: DeviceEndorsement) -> dict[str, Json]:
    """What the opaque data of `evidence` claim, beside the firmware that its certificates name.

    Raises:
        MalformedError: an opaque field that is named in `OpaqueType` has another size or encoding than it should.
    """
    mode, switches, driver, product = (
        evidence.mode,
        evidence.switch_pdis,
        evidence.driver_version,
        endorsement.products[0],
    )
    return {
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
        **common_claims(evidence, endorsement, _OPAQUE_NAMES),
    }


def driver_rim_id(product: str, driver: str) -> str:
    """Identifier of the driver's reference values, as NVIDIA's RIM service names them.

    Args:
        product: chip name, for example ``GH100``.
        driver: driver version, for example ``570.124.06``.
    """
    return f"NV_GPU_DRIVER_{product}_{driver}" if product == "GH100" else f"NV_GPU_CC_DRIVER_{product}_{driver}"
