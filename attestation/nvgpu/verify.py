"""Is an NVIDIA GPU's evidence authentic, fresh and what the reference values ask for?

Measurements are compared with NVIDIA's reference manifests (RIM) for the driver and the VBIOS that the evidence states,
and with what the operator pinned; what neither covers is reported as not appraised. Revocation is judged where OCSP
responses are given. What GPUs have in common with switches is in `attestation.nvidia.device`.

Developer mode of the GPU is not a field of the evidence. It shows as measurements that differ from their reference
values, and on Blackwell also in the leaf's DiceTcbInfo flags. Without manifests or pinned measurements a Hopper GPU in
developer mode is therefore not told from one that is not; `NVGPU_MEASUREMENTS_NOT_APPRAISED` is the finding that says
so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from attestation.findings import CheckLog
from attestation.nvgpu import checks
from attestation.nvgpu.abi import NVDEC0_DISABLED, GpuEvidence, Mode
from attestation.nvgpu.claims import driver_rim_id, statement_claims
from attestation.nvgpu.endorsements import DeviceEndorsement, NvGpuAnchors
from attestation.nvidia.appraisal import one_of
from attestation.nvidia.checks import DeviceChecks
from attestation.nvidia.device import Authenticated, authenticate_device, verify_device
from attestation.nvidia.statement import DeviceReference, Statement
from attestation.profile import STRICT, Profile
from attestation.rim.comparison import WantedRim
from attestation.rim.document import RimKind
from attestation.types import Collateral, DeviceResult, Evidence

SCHEME: Final = "nvgpu"
IDENTITY_KIND: Final = "nvidia-gpu"
NVDEC0_RIM_INDEX: Final = 35
"""Manifest index of the video decoder's firmware, which is not loaded where NVDEC0 is disabled (NVIDIA attestation SDK
1.x)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NvGpuReference(DeviceReference):
    """Reference values for GPUs. What is not to be compared is said with None, in writing; only strict values default.

    Attributes:
        modes: confidential-computing modes that are accepted.
        drivers: driver versions that are accepted; None accepts any and says so in the result.
        vbios: VBIOS versions that are accepted; None accepts any and says so in the result.
    """

    modes: frozenset[Mode]
    drivers: frozenset[str] | None
    vbios: frozenset[str] | None


class GpuRules:
    """What is a GPU's own (`attestation.nvidia.device.DeviceRules`)."""

    identity_kind: Final = IDENTITY_KIND
    serial_number: Final = "41 and 16 hex digits"
    checks: Final = DeviceChecks(
        signature=checks.SIGNATURE,
        trailing_byte=checks.TRAILING_BYTE,
        nonce=checks.NONCE,
        nonce_not_compared=checks.NONCE_NOT_COMPARED,
        operation=checks.OPERATION,
        fwid=checks.FWID,
        device_key=checks.DEVICE_KEY,
        firmware_state=checks.FIRMWARE_STATE,
        identity=checks.IDENTITY,
        pdi=None,
        product=checks.PRODUCT,
        measurement=checks.MEASUREMENT,
        measurements_not_appraised=checks.MEASUREMENTS_NOT_APPRAISED,
        revocation_not_checked=checks.REVOCATION_NOT_CHECKED,
    )

    def parse(self, data: bytes, *, allow_trailing_byte: bool) -> GpuEvidence:
        """See `attestation.nvidia.device.DeviceRules.parse`."""
        return GpuEvidence.parse(data, allow_trailing_byte=allow_trailing_byte)

    def judge_statement(
        self, device: GpuEvidence, endorsement: DeviceEndorsement, reference: NvGpuReference, log: CheckLog
    ) -> Statement:
        """See `attestation.nvidia.device.DeviceRules.judge_statement`: firmware identity, chip, mode and versions."""
        firmware, fwid = endorsement.firmware, device.fwid
        log.require(
            checks.FWID_PRESENT,
            ok=firmware is not None and fwid is not None,
            expected="in the evidence and in the leaf",
            actual=f"evidence: {'present' if fwid else 'absent'}, leaf: {'present' if firmware else 'absent'}",
        )
        names = dict.fromkeys(endorsement.products if device.chip is None else (*endorsement.products, device.chip))
        log.require(checks.PRODUCT_NAMES, ok=len(names) == 1, expected="one name", actual=", ".join(names))
        _check_mode(device, reference, log)
        _check_versions(device, reference, log)
        return Statement(
            wanted=_wanted_rims(device, endorsement),
            skipped=frozenset({NVDEC0_RIM_INDEX}) if device.nvdec0 == NVDEC0_DISABLED else frozenset(),
            claims=statement_claims(device, endorsement),
        )


GPU_RULES: Final = GpuRules()


def authenticate(
    evidence: Evidence, *, anchors: NvGpuAnchors, now: int, log: CheckLog, allow_trailing_byte: bool = False
) -> Authenticated[GpuEvidence]:
    """Parse the evidence and check who signed it: chain, validity and signature, and nothing else.

    Args:
        evidence: request ‖ response, and the chain as DER, leaf first, root last.
        anchors: pinned roots.
        now: time of the appraisal, seconds since the epoch.
        log: receives the outcome of every rule.
        allow_trailing_byte: see `GpuEvidence.parse`; for conformance only.

    Raises:
        MalformedError: evidence or certificates are not what they should be.
        UnsupportedError: an SPDM version other than 1.1.
    """
    return authenticate_device(
        GPU_RULES, evidence, anchors=anchors, now=now, log=log, allow_trailing_byte=allow_trailing_byte
    )


def verify(
    evidence: Evidence,
    *,
    anchors: NvGpuAnchors,
    reference: NvGpuReference,
    expected_nonce: bytes | None,
    now: int,
    collateral: Collateral | None = None,
    profile: Profile = STRICT,
    allow_trailing_byte: bool = False,
) -> DeviceResult:
    """Verify one GPU's evidence and certificate chain.

    Args:
        evidence: request ‖ response, and the chain as DER, leaf first, root last.
        anchors: pinned roots.
        reference: what the GPU must be and run.
        expected_nonce: the 32 bytes that were sent to the device; None where freshness is not to be judged, which the
            result says.
        now: time of the appraisal, seconds since the epoch.
        collateral: manifests and OCSP responses; the same set may serve other devices too.
        profile: what each finding does to the verdict.
        allow_trailing_byte: see `GpuEvidence.parse`; for conformance only.

    Raises:
        MalformedError: evidence, certificates or OCSP responses are not what they should be, so that nothing can be
            decided, or `expected_nonce` is not 32 bytes.
        UnsupportedError: an SPDM version other than 1.1.
    """
    return verify_device(
        GPU_RULES,
        evidence,
        anchors=anchors,
        reference=reference,
        expected_nonce=expected_nonce,
        now=now,
        collateral=collateral or Collateral(),
        profile=profile,
        allow_trailing_byte=allow_trailing_byte,
    )


def _check_mode(gpu: GpuEvidence, reference: NvGpuReference, log: CheckLog) -> None:
    """The confidential-computing mode, and the switches that protected PCIe needs."""
    mode = gpu.mode
    stated = f"feature flag {gpu.feature_flag}, protected-PCIe status {gpu.protected_pcie}"
    if not log.require(checks.MODE_KNOWN, ok=mode is not None, expected="a known mode", actual=stated) or mode is None:
        return
    modes = frozenset(mode.value for mode in reference.modes)
    log.require(
        checks.MODE,
        ok=mode in reference.modes,
        expected=one_of(modes),
        actual=mode.value,
        reference=reference.origin,
    )
    if mode is Mode.PROTECTED_PCIE:
        switches = {pdi.hex() for pdi in gpu.switch_pdis or () if any(pdi)}
        log.require(
            checks.SWITCHES,
            ok=bool(switches),
            expected="at least one PDI",
            actual=", ".join(sorted(switches)) or "none",
        )


def _check_versions(gpu: GpuEvidence, reference: NvGpuReference, log: CheckLog) -> None:
    """Driver and VBIOS versions, or that they were compared with nothing."""
    unjudged = []
    for check, allowed, actual in (
        (checks.DRIVER, reference.drivers, gpu.driver_version),
        (checks.VBIOS, reference.vbios, gpu.vbios_version),
    ):
        if allowed is None:
            unjudged.append(f"{check.field} {actual or 'absent'}")
        else:
            log.require(
                check,
                ok=actual in allowed,
                expected=one_of(allowed),
                actual=actual or "absent",
                reference=reference.origin,
            )
    if unjudged:
        log.require(checks.VERSIONS_NOT_APPRAISED, ok=False, expected="allowed versions", actual=", ".join(unjudged))


def _wanted_rims(gpu: GpuEvidence, endorsement: DeviceEndorsement) -> tuple[WantedRim, ...]:
    """The manifests of the driver and the VBIOS that the evidence states."""
    product, driver, vbios = endorsement.products[0], gpu.driver_version, gpu.vbios_version
    return (
        WantedRim(
            kind=RimKind.DRIVER,
            name="driver",
            identifier=None if driver is None else driver_rim_id(product, driver),
            product=product,
            version=driver,
        ),
        WantedRim(kind=RimKind.FIRMWARE, name="vbios", identifier=gpu.vbios_rim_id, product=product, version=vbios),
    )
