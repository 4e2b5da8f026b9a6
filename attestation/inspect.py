"""What is in these bytes: any evidence as a structured description, for people and for ``--json``.

Nothing is verified here and the description says so. Whether it is authentic is `attestation.verifier`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from attestation.errors import MalformedError, UnsupportedError
from attestation.nvgpu import verify as nvgpu
from attestation.nvgpu.abi import GpuEvidence, OpaqueType
from attestation.nvswitch import verify as nvswitch
from attestation.nvswitch.abi import OpaqueType as SwitchOpaqueType
from attestation.nvswitch.abi import SwitchEvidence
from attestation.snp import azure_hcl
from attestation.snp import azure_verify as snp_azure
from attestation.snp import verify as snp
from attestation.snp.abi import REPORT_SIZE, AttestationReport
from attestation.snp.cert_table import leaf_guid
from attestation.snp.claims import report_claims
from attestation.snp.endorsements import VekCertificate
from attestation.types import Json

_SPDM_1_1_GET_MEASUREMENTS: Final = b"\x11\xe0"
_OPAQUE_NAMES: Final = {kind.value: kind.name.lower() for kind in OpaqueType}
_SWITCH_OPAQUE_NAMES: Final = {kind.value: kind.name.lower() for kind in SwitchOpaqueType}


@dataclass(frozen=True, slots=True)
class Inspection:
    """What evidence says, unverified.

    Attributes:
        scheme: which scheme reads it.
        title: its specification's name.
        fields: every field by name, nested where the structure is.
    """

    scheme: str
    title: str
    fields: Mapping[str, Json]

    def to_json(self) -> dict[str, Json]:
        """As in ``--json`` output."""
        return {"scheme": self.scheme, "title": self.title, "verified": False, "fields": dict(self.fields)}


def detect_scheme(data: bytes) -> str:
    """Which scheme reads `data`, by size and first bytes, and for SPDM by what GPUs and switches alone state.

    Raises:
        MalformedError: no scheme does.
    """
    if data.startswith(_SPDM_1_1_GET_MEASUREMENTS):
        return nvswitch.SCHEME if _is_switch(data) else nvgpu.SCHEME
    if data.startswith(azure_hcl.SIGNATURE):
        return snp_azure.SCHEME
    if len(data) == REPORT_SIZE:
        return snp.SCHEME
    raise MalformedError(
        "evidence",
        f"{len(data)} bytes that begin with {data[:4].hex() or 'nothing'} are neither an SNP attestation report "
        f"({REPORT_SIZE} bytes) nor an HCL report (HCLA…) nor SPDM 1.1 GET_MEASUREMENTS (11e0…)",
    )


def inspect_evidence(data: bytes, *, certificates: tuple[bytes, ...] = (), scheme: str | None = None) -> Inspection:
    """Describe every field of `data`.

    Args:
        data: an SNP attestation report, alone or in Azure's HCL report, or an SPDM measurements request with its
            response.
        certificates: DER, leaf first; an SNP leaf's certified values are described too.
        scheme: which scheme reads it; detected where None.

    Raises:
        MalformedError: the bytes are not what the scheme says, or no scheme reads them.
        UnsupportedError: a version that is not known.
    """
    name = detect_scheme(data) if scheme is None else scheme
    if name == snp.SCHEME:
        return _inspect_snp(data, certificates)
    if name == snp_azure.SCHEME:
        return _inspect_snp_azure(data, certificates)
    if name == nvgpu.SCHEME:
        return _inspect_nvgpu(data)
    if name == nvswitch.SCHEME:
        return _inspect_nvswitch(data)
    raise MalformedError("evidence", f"scheme {name!r:.40} is not known")


def leaf_of(data: bytes, *, scheme: str) -> UUID | None:
    """Which certificate of a host's certificate table signed SEV-SNP evidence, by its GUID; None for other evidence.

    Raises:
        MalformedError: the evidence cannot be decoded.
        UnsupportedError: a report version that is not known.
    """
    if scheme == snp_azure.SCHEME:
        return leaf_guid(AttestationReport.parse(azure_hcl.HclReport.parse(data).report))
    return leaf_guid(AttestationReport.parse(data)) if scheme == snp.SCHEME else None


def _is_switch(data: bytes) -> bool:
    """Do SPDM measurements list the links of a switch, and no driver? What cannot be read is a GPU's until it is."""
    try:
        opaque = SwitchEvidence.parse(data, allow_trailing_byte=True).opaque
    except (MalformedError, UnsupportedError):
        return False
    return SwitchOpaqueType.GPU_LINK_CONN in opaque and OpaqueType.DRIVER_VERSION not in opaque


def _inspect_snp(data: bytes, certificates: tuple[bytes, ...]) -> Inspection:
    report = AttestationReport.parse(data)
    vek = VekCertificate.parse(certificates[0]) if certificates else None
    product = report.product if report.version > 2 else None if vek is None else vek.product
    fields = report_claims(report, product=product, vek=vek, authentic=False)
    del fields["authentic"]
    fields["signature"] = {"algorithm": report.signature_algo, "r": f"{report.r:096x}", "s": f"{report.s:096x}"}
    return Inspection(snp.SCHEME, "AMD SEV-SNP attestation report", fields)


def _inspect_snp_azure(data: bytes, certificates: tuple[bytes, ...]) -> Inspection:
    hcl = azure_hcl.HclReport.parse(data)
    runtime = azure_hcl.RuntimeData.parse(hcl.runtime_data)
    inner = _inspect_snp(hcl.report, certificates)
    fields = {
        **inner.fields,
        "azure": snp_azure.hcl_claims(hcl, runtime),
        "runtime_data_is_what_report_data_states": inner.fields["report_data"] == hcl.expected_report_data.hex(),
    }
    return Inspection(snp_azure.SCHEME, "AMD SEV-SNP attestation report in an Azure HCL report", fields)


def _inspect_nvgpu(data: bytes) -> Inspection:
    evidence = GpuEvidence.parse(data, allow_trailing_byte=True)
    measurements = evidence.measurements
    request, response = measurements.request, measurements.response
    mode = evidence.mode
    return Inspection(
        nvgpu.SCHEME,
        "NVIDIA GPU measurements (SPDM 1.1)",
        {
            "request": {
                "operation": request.operation,
                "slot_id": request.slot_id,
                "nonce": request.nonce.hex(),
            },
            "response_nonce": response.nonce.hex(),
            "driver_version": evidence.driver_version,
            "vbios_version": evidence.vbios_version,
            "chip": evidence.chip,
            "mode": None if mode is None else mode.value,
            "measurements": {str(block.number): block.value.hex() for block in response.blocks},
            "opaque": {_OPAQUE_NAMES.get(kind, str(kind)): value.hex() for kind, value in evidence.opaque.items()},
            "trailing_bytes_after_signature": len(evidence.trailing),
            "signature": {"r": f"{measurements.r:096x}", "s": f"{measurements.s:096x}"},
        },
    )


def _inspect_nvswitch(data: bytes) -> Inspection:
    evidence = SwitchEvidence.parse(data, allow_trailing_byte=True)
    measurements = evidence.measurements
    request, response = measurements.request, measurements.response
    pdi, gpus = evidence.pdi, evidence.gpu_pdis
    return Inspection(
        nvswitch.SCHEME,
        "NVIDIA NVSwitch measurements (SPDM 1.1)",
        {
            "request": {
                "operation": request.operation,
                "slot_id": request.slot_id,
                "nonce": request.nonce.hex(),
            },
            "response_nonce": response.nonce.hex(),
            "bios_version": evidence.bios_version,
            "pdi": None if pdi is None else pdi.hex(),
            "position": evidence.position,
            "lock_status": evidence.lock_status,
            "gpu_pdis": None if gpus is None else [each.hex() for each in gpus],
            "measurements": {str(block.number): block.value.hex() for block in response.blocks},
            "opaque": {
                _SWITCH_OPAQUE_NAMES.get(kind, str(kind)): value.hex() for kind, value in evidence.opaque.items()
            },
            "trailing_bytes_after_signature": len(evidence.trailing),
            "signature": {"r": f"{measurements.r:096x}", "s": f"{measurements.s:096x}"},
        },
    )
