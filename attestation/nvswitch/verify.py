"""Is an NVSwitch's evidence authentic, fresh and what the reference values ask for?

Every rule is applied, whatever the ones before it said, so that a denial carries every reason at once. A switch signs
its own PDI, so that the certified identity and the evidence are held together; which GPUs it serves is signed too, and
joined with their evidence where a node is verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from attestation.errors import MalformedError
from attestation.findings import THIS_SESSION, CheckLog
from attestation.nvidia.appraisal import CollateralRules, appraise_collateral
from attestation.nvidia.endorsements import DeviceEndorsement
from attestation.nvswitch import checks
from attestation.nvswitch.abi import SwitchEvidence
from attestation.nvswitch.claims import bios_rim_id, claims
from attestation.nvswitch.endorsements import NvSwitchAnchors
from attestation.profile import STRICT, Profile
from attestation.rim.comparison import Coverage, WantedRim
from attestation.rim.document import RimKind
from attestation.spdm.abi import NONCE_SIZE, OPERATION_ALL_MEASUREMENTS, RAW_BIT_STREAM, MeasurementBlock
from attestation.types import Collateral, DeviceResult, Evidence, HardwareIdentity

SCHEME: Final = "nvswitch"
IDENTITY_KIND: Final = "nvidia-nvswitch"
DIGEST_SIZE: Final = 48
LOCKED: Final = 1
"""LOCK_STATUS of a switch whose configuration is locked."""
FORBIDDEN_FIRMWARE_FLAGS: Final = frozenset({"not_secure", "recovery", "debug"})
"""DiceTcbInfo flags that no production firmware sets; LS10 leaves have no DiceTcbInfo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NvSwitchReference:
    """Reference values for switches. What is not to be compared is said with None, in writing; strict values default.

    Attributes:
        products: chips that are accepted, for example ``LS_10``.
        bios: BIOS versions that are accepted; None accepts any and says so in the result.
        measurements: accepted digests by measurement index, beside those of manifests; what neither lists is reported
            as not appraised.
        rim_grace: seconds for which a manifest is still accepted after its signer's certificate expired.
        ocsp_max_age: seconds after thisUpdate for which an OCSP response is still accepted though it has expired; None
            holds every response to its own window.
        origin: where these values come from, for findings.
    """

    products: frozenset[str]
    bios: frozenset[str] | None
    measurements: Mapping[int, frozenset[bytes]]
    rim_grace: int = 0
    ocsp_max_age: int | None = None
    origin: str = "reference values"


def verify(
    evidence: Evidence,
    *,
    anchors: NvSwitchAnchors,
    reference: NvSwitchReference,
    expected_nonce: bytes | None,
    now: int,
    collateral: Collateral | None = None,
    profile: Profile = STRICT,
    allow_trailing_byte: bool = False,
) -> DeviceResult:
    """Verify one switch's evidence and certificate chain.

    Args:
        evidence: request ‖ response, and the chain as DER, leaf first, root last.
        anchors: pinned roots.
        reference: what the switch must be and run.
        expected_nonce: the 32 bytes that were sent to the device; None where freshness is not to be judged, which the
            result says.
        now: time of the appraisal, seconds since the epoch.
        collateral: manifests and OCSP responses; the same set may serve other devices too.
        profile: what each finding does to the verdict.
        allow_trailing_byte: see `SwitchEvidence.parse`; for conformance only.

    Raises:
        MalformedError: evidence, certificates or OCSP responses are not what they should be, so that nothing can be
            decided, or `expected_nonce` is not 32 bytes.
        UnsupportedError: an SPDM version other than 1.1.
    """
    if expected_nonce is not None and len(expected_nonce) != NONCE_SIZE:
        raise MalformedError("expected nonce", f"{len(expected_nonce)} bytes, expected {NONCE_SIZE}")
    log = CheckLog()
    collateral = collateral or Collateral()
    switch = SwitchEvidence.parse(evidence.data, allow_trailing_byte=allow_trailing_byte)
    chain = anchors.chains.verify(evidence.certificates, now=now, log=log)
    endorsement, key, signed = chain.derived, chain.chain.leaf_key, switch.measurements
    # SPDM 1.1, section 10.11.2: the signature covers request and response but itself.
    verifies = key is not None and key.verify_raw(signed.r, signed.s, signed.signed)
    log.require(
        checks.SIGNATURE,
        ok=verifies,
        expected="verifies with the leaf's key",
        actual="verifies" if verifies else "does not verify",
    )
    log.require(
        checks.TRAILING_BYTE,
        ok=not switch.trailing,
        expected="no bytes",
        actual=f"{len(switch.trailing)} byte after it",
    )
    _check_request(switch, expected_nonce, log)
    blocks = signed.response.blocks
    measurements = {number: value for number, _, value in blocks}
    _check_digests(switch, blocks, log)
    _check_firmware(switch, endorsement, log)
    identified = _check_identity(switch, endorsement, reference, log)
    _check_fabric(switch, log)
    _check_version(switch, reference, log)
    version = switch.bios_version
    appraisal = appraise_collateral(
        measurements,
        pinned=reference.measurements.keys(),
        wanted=(
            WantedRim(
                kind=RimKind.FIRMWARE,
                name="bios",
                identifier=None if version is None else bios_rim_id(version),
                product=endorsement.products[0],
                version=version,
            ),
        ),
        skipped=(),
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
    serial = endorsement.serial_number
    proven = chain.trusted and verifies and identified and serial is not None
    return DeviceResult(
        slot=evidence.slot,
        scheme=evidence.scheme,
        claims=claims(
            switch,
            endorsement,
            measurements=measurements,
            manifests=appraisal.rims.claims(),
            coverage=appraisal.coverage.to_json(),
        ),
        identity=HardwareIdentity(IDENTITY_KIND, serial) if proven and serial is not None else None,
        findings=profile.apply(log.findings),
        passed=tuple(log.passed),
        simulated=chain.chain.root_sha256 in anchors.simulated_roots or appraisal.simulated,
        collateral_age=appraisal.ages,
    )


def _check_request(switch: SwitchEvidence, expected_nonce: bytes | None, log: CheckLog) -> None:
    """The caller's nonce, never one that came with the evidence."""
    actual = switch.nonce.hex()
    if expected_nonce is None:
        log.require(checks.NONCE_NOT_COMPARED, ok=False, expected="a nonce to compare with", actual=actual)
    else:
        log.require(
            checks.NONCE,
            ok=switch.nonce == expected_nonce,
            expected=expected_nonce.hex(),
            actual=actual,
            reference=THIS_SESSION,
        )


def _check_digests(switch: SwitchEvidence, blocks: tuple[MeasurementBlock, ...], log: CheckLog) -> None:
    """All measurements were asked for, at least one came, and each is a SHA-384 digest."""
    operation = switch.measurements.request.operation
    odd = [number for number, kind, value in blocks if len(value) != DIGEST_SIZE or kind & RAW_BIT_STREAM]
    log.require(
        checks.OPERATION,
        ok=operation == OPERATION_ALL_MEASUREMENTS and bool(blocks) and not odd,
        expected=f"operation {OPERATION_ALL_MEASUREMENTS:#04x}, digests of {DIGEST_SIZE} bytes",
        actual=f"operation {operation:#04x}, {len(blocks)} blocks, other than digests: {odd or 'none'}",
    )


def _check_firmware(switch: SwitchEvidence, endorsement: DeviceEndorsement, log: CheckLog) -> None:
    """The firmware that signed is the firmware that the leaf was made for, on the device that made the leaf."""
    firmware, fwid = endorsement.firmware, switch.fwid
    stated = log.require(
        checks.LEAF_FWID,
        ok=firmware is not None,
        expected="in the leaf",
        actual="absent" if firmware is None else firmware.fwid.hex(),
    )
    reported = log.require(
        checks.FWID_NOT_REPORTED,
        ok=fwid is not None,
        expected="in the evidence",
        actual="absent" if fwid is None else fwid.hex(),
    )
    if not stated or firmware is None:
        return
    if reported and fwid is not None:
        log.require(checks.FWID, ok=fwid == firmware.fwid, expected=firmware.fwid.hex(), actual=fwid.hex())
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


def _check_identity(
    switch: SwitchEvidence, endorsement: DeviceEndorsement, reference: NvSwitchReference, log: CheckLog
) -> bool:
    """Which switch, which chip; True where certificates and evidence name exactly one switch."""
    identified = log.require(
        checks.IDENTITY,
        ok=endorsement.serial_number is not None,
        expected="50 and 16 hex digits",
        actual=endorsement.stated_serial_number,
    )
    pdi = switch.pdi
    same = log.require(
        checks.PDI,
        ok=pdi is not None and pdi.hex() == endorsement.pdi,
        expected=endorsement.pdi or "the PDI that the BROM certificate names",
        actual="absent" if pdi is None else pdi.hex(),
    )
    names = endorsement.products
    log.require(checks.PRODUCT_NAMES, ok=len(names) == 1, expected="one name", actual=", ".join(names))
    log.require(
        checks.PRODUCT,
        ok=names[0] in reference.products,
        expected=_one_of(reference.products),
        actual=names[0],
        reference=reference.origin,
    )
    return identified and same


def _check_fabric(switch: SwitchEvidence, log: CheckLog) -> None:
    """The configuration is locked, and leads to GPUs."""
    lock = switch.lock_status
    log.require(checks.LOCKED, ok=lock == LOCKED, expected=str(LOCKED), actual="absent" if lock is None else str(lock))
    gpus = {each for each in switch.gpu_pdi_by_port or () if each is not None}
    log.require(
        checks.GPUS,
        ok=bool(gpus),
        expected="at least one GPU",
        actual=", ".join(sorted(each.hex() for each in gpus)) or "none",
    )


def _check_version(switch: SwitchEvidence, reference: NvSwitchReference, log: CheckLog) -> None:
    """The BIOS version, or that it was compared with nothing."""
    actual = switch.bios_version or "absent"
    if reference.bios is None:
        log.require(checks.VERSIONS_NOT_APPRAISED, ok=False, expected="allowed versions", actual=actual)
    else:
        log.require(
            checks.BIOS,
            ok=actual in reference.bios,
            expected=_one_of(reference.bios),
            actual=actual,
            reference=reference.origin,
        )


def _check_measurements(
    measurements: Mapping[int, bytes], reference: NvSwitchReference, coverage: Coverage, log: CheckLog
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
