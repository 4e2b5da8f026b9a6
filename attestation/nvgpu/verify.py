"""Is an NVIDIA GPU's evidence authentic, fresh and what the reference values ask for?

Every rule is applied, whatever the ones before it said, so that a denial carries every reason at once. Measurements are
compared with NVIDIA's reference manifests (RIM) for the driver and the VBIOS that the evidence states, and with what
the operator pinned; what neither covers is reported as not appraised. Revocation is judged where OCSP responses are
given.

Developer mode of the GPU is not a field of the evidence. It shows as measurements that differ from their reference
values, and on Blackwell also in the leaf's DiceTcbInfo flags. Without manifests or pinned measurements a Hopper GPU in
developer mode is therefore not told from one that is not; `NVGPU_MEASUREMENTS_NOT_APPRAISED` is the finding that says
so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from attestation.errors import MalformedError
from attestation.findings import THIS_SESSION, CheckLog
from attestation.nvgpu import checks
from attestation.nvgpu.abi import NVDEC0_DISABLED, GpuEvidence, Mode
from attestation.nvgpu.claims import claims, driver_rim_id
from attestation.nvgpu.endorsements import DeviceEndorsement, NvGpuAnchors
from attestation.nvidia.appraisal import CollateralRules, appraise_collateral
from attestation.profile import STRICT, Profile
from attestation.rim.comparison import Coverage, WantedRim
from attestation.rim.document import RimKind
from attestation.spdm.abi import NONCE_SIZE, OPERATION_ALL_MEASUREMENTS, RAW_BIT_STREAM, MeasurementBlock
from attestation.types import Collateral, DeviceResult, Evidence, HardwareIdentity
from attestation.x509 import ChainResult

SCHEME: Final = "nvgpu"
IDENTITY_KIND: Final = "nvidia-gpu"
DIGEST_SIZE: Final = 48
FORBIDDEN_FIRMWARE_FLAGS: Final = frozenset({"not_secure", "recovery", "debug"})
"""DiceTcbInfo flags that no production firmware sets; published Blackwell leaves set ``not_configured``."""

NVDEC0_RIM_INDEX: Final = 35
"""Manifest index of the video decoder's firmware, which is not loaded where NVDEC0 is disabled (NVIDIA attestation SDK
1.x)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NvGpuReference:
    """Reference values for GPUs. What is not to be compared is said with None, in writing; only strict values default.

    Attributes:
        products: chips that are accepted, for example ``GH100``.
        modes: confidential-computing modes that are accepted.
        drivers: driver versions that are accepted; None accepts any and says so in the result.
        vbios: VBIOS versions that are accepted; None accepts any and says so in the result.
        measurements: accepted digests by measurement index (1 to 64), beside those of manifests; what neither lists is
            reported as not appraised.
        rim_grace: seconds for which a manifest is still accepted after its signer's certificate expired.
        ocsp_max_age: seconds after thisUpdate for which an OCSP response is still accepted though it has expired; None
            holds every response to its own window.
        origin: where these values come from, for findings.
    """

    products: frozenset[str]
    modes: frozenset[Mode]
    drivers: frozenset[str] | None
    vbios: frozenset[str] | None
    measurements: Mapping[int, frozenset[bytes]]
    rim_grace: int = 0
    ocsp_max_age: int | None = None
    origin: str = "reference values"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticated:
    """Evidence whose origin has been judged.

    Attributes:
        gpu: the parsed evidence.
        chain: the certificates, and what they endorse.
        authentic: the chain is trusted and valid, and its leaf's key made the signature.
    """

    gpu: GpuEvidence
    chain: ChainResult[DeviceEndorsement]
    authentic: bool


def authenticate(
    evidence: Evidence, *, anchors: NvGpuAnchors, now: int, log: CheckLog, allow_trailing_byte: bool = False
) -> Authenticated:
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
    gpu = GpuEvidence.parse(evidence.data, allow_trailing_byte=allow_trailing_byte)
    chain = anchors.chains.verify(evidence.certificates, now=now, log=log)
    key, measurements = chain.chain.leaf_key, gpu.measurements
    # SPDM 1.1, section 10.11.2: the signature covers request and response but itself.
    verifies = key is not None and key.verify_raw(measurements.r, measurements.s, measurements.signed)
    signed = log.require(
        checks.SIGNATURE,
        ok=verifies,
        expected="verifies with the leaf's key",
        actual="verifies" if verifies else "does not verify",
    )
    return Authenticated(gpu=gpu, chain=chain, authentic=chain.trusted and signed)


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
    if expected_nonce is not None and len(expected_nonce) != NONCE_SIZE:
        raise MalformedError("expected nonce", f"{len(expected_nonce)} bytes, expected {NONCE_SIZE}")
    log = CheckLog()
    origin = authenticate(evidence, anchors=anchors, now=now, log=log, allow_trailing_byte=allow_trailing_byte)
    gpu, chain = origin.gpu, origin.chain
    log.require(
        checks.TRAILING_BYTE, ok=not gpu.trailing, expected="no bytes", actual=f"{len(gpu.trailing)} byte after it"
    )
    _check_request(gpu, expected_nonce, log)
    blocks = gpu.measurements.response.blocks
    measurements = {number: value for number, _, value in blocks}
    _check_digests(gpu, blocks, log)
    _check_firmware(gpu, chain.derived, log)
    identified = _check_product(gpu, chain.derived, reference, log)
    _check_mode(gpu, reference, log)
    _check_versions(gpu, reference, log)
    collateral = collateral or Collateral()
    appraisal = appraise_collateral(
        measurements,
        pinned=reference.measurements.keys(),
        wanted=_wanted_rims(gpu, chain.derived),
        skipped={NVDEC0_RIM_INDEX} if gpu.nvdec0 == NVDEC0_DISABLED else (),
        chain=chain.chain,
        collateral=collateral,
        rules=CollateralRules(rim_grace=reference.rim_grace, ocsp_max_age=reference.ocsp_max_age),
        anchors=anchors,
        now=now,
        log=log,
    )
    _check_measurements(measurements, reference, appraisal.coverage, log)
    log.require(
        checks.REVOCATION_NOT_CHECKED,
        ok=bool(collateral.ocsp),
        expected="OCSP responses",
        actual=f"{len(collateral.ocsp)} are given" if collateral.ocsp else "none is given",
    )
    serial = chain.derived.serial_number
    return DeviceResult(
        slot=evidence.slot,
        scheme=evidence.scheme,
        claims=claims(
            gpu,
            chain.derived,
            measurements=measurements,
            manifests=appraisal.rims.claims(),
            coverage=appraisal.coverage.to_json(),
        ),
        identity=HardwareIdentity(IDENTITY_KIND, serial)
        if origin.authentic and identified and serial is not None
        else None,
        findings=profile.apply(log.findings),
        passed=tuple(log.passed),
        simulated=chain.chain.root_sha256 in anchors.simulated_roots or appraisal.simulated,
        collateral_age=appraisal.ages,
    )


def _check_request(gpu: GpuEvidence, expected_nonce: bytes | None, log: CheckLog) -> None:
    """The caller's nonce, never one that came with the evidence."""
    actual = gpu.nonce.hex()
    if expected_nonce is None:
        log.require(checks.NONCE_NOT_COMPARED, ok=False, expected="a nonce to compare with", actual=actual)
    else:
        log.require(
            checks.NONCE,
            ok=gpu.nonce == expected_nonce,
            expected=expected_nonce.hex(),
            actual=actual,
            reference=THIS_SESSION,
        )


def _check_digests(gpu: GpuEvidence, blocks: tuple[MeasurementBlock, ...], log: CheckLog) -> None:
    """All measurements were asked for, at least one came, and each is a SHA-384 digest."""
    operation = gpu.measurements.request.operation
    odd = [number for number, kind, value in blocks if len(value) != DIGEST_SIZE or kind & RAW_BIT_STREAM]
    log.require(
        checks.OPERATION,
        ok=operation == OPERATION_ALL_MEASUREMENTS and bool(blocks) and not odd,
        expected=f"operation {OPERATION_ALL_MEASUREMENTS:#04x}, digests of {DIGEST_SIZE} bytes",
        actual=f"operation {operation:#04x}, {len(blocks)} blocks, other than digests: {odd or 'none'}",
    )


def _check_firmware(gpu: GpuEvidence, endorsement: DeviceEndorsement, log: CheckLog) -> None:
    """The firmware that signed is the firmware that the leaf was made for, on the device that made the leaf."""
    firmware, fwid = endorsement.firmware, gpu.fwid
    present = log.require(
        checks.FWID_PRESENT,
        ok=firmware is not None and fwid is not None,
        expected="in the evidence and in the leaf",
        actual=f"evidence: {'present' if fwid else 'absent'}, leaf: {'present' if firmware else 'absent'}",
    )
    if present and firmware is not None and fwid is not None:
        log.require(checks.FWID, ok=fwid == firmware.fwid, expected=firmware.fwid.hex(), actual=fwid.hex())
    if firmware is None:
        return
    if firmware.device_key is not None:
        log.require(
            checks.DEVICE_KEY,
            ok=firmware.device_key == endorsement.device_key,
            expected=endorsement.device_key.hex(),
            actual=firmware.device_key.hex(),
        )
    forbidden = [flag for flag in firmware.flags if flag in FORBIDDEN_FIRMWARE_FLAGS]
    log.require(
        checks.FIRMWARE_STATE,
        ok=not forbidden,
        expected="none of " + ", ".join(sorted(FORBIDDEN_FIRMWARE_FLAGS)),
        actual=", ".join(firmware.flags) or "no flags",
    )


def _check_product(gpu: GpuEvidence, endorsement: DeviceEndorsement, reference: NvGpuReference, log: CheckLog) -> bool:
    """Which GPU, which chip; True where the certificates name exactly one GPU."""
    identified = log.require(
        checks.IDENTITY,
        ok=endorsement.serial_number is not None,
        expected="41 and 16 hex digits",
        actual=endorsement.stated_serial_number,
    )
    names = dict.fromkeys(endorsement.products if gpu.chip is None else (*endorsement.products, gpu.chip))
    log.require(checks.PRODUCT_NAMES, ok=len(names) == 1, expected="one name", actual=", ".join(names))
    log.require(
        checks.PRODUCT,
        ok=endorsement.products[0] in reference.products,
        expected=_one_of(reference.products),
        actual=endorsement.products[0],
        reference=reference.origin,
    )
    return identified


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
        expected=_one_of(modes),
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
                expected=_one_of(allowed),
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


def _check_measurements(
    measurements: Mapping[int, bytes], reference: NvGpuReference, coverage: Coverage, log: CheckLog
) -> None:
    """Pinned measurements, and how many are compared with nothing at all."""
    pinned = reference.measurements
    wrong = [index for index, accepted in pinned.items() if measurements.get(index) not in accepted]
    for index in wrong:
        value = measurements.get(index)
        log.require(
            checks.MEASUREMENT,
            ok=False,
            expected=_one_of(frozenset(digest.hex() for digest in pinned[index])),
            actual="absent" if value is None else value.hex(),
            where=f"[{index}]",
            reference=reference.origin,
        )
    if pinned and not wrong:
        met = f"{len(pinned)} as pinned"
        log.require(checks.MEASUREMENT, ok=True, expected=met, actual=met)
    log.require(
        checks.MEASUREMENTS_NOT_APPRAISED,
        ok=not coverage.not_appraised,
        expected=f"{len(measurements)} of {len(measurements)} compared with reference values",
        actual=str(coverage),
    )


def _one_of(values: frozenset[str]) -> str:
    """`values` as a person reads them."""
    return "one of " + ", ".join(sorted(values)) if values else "none is allowed"
