"""Is an NVSwitch's evidence authentic, fresh and what the reference values ask for?

A switch signs its own PDI, so that the certified identity and the evidence are held together; which GPUs it serves is
signed too, and joined with their evidence where a node is verified. What switches have in common with GPUs is in
`attestation.nvidia.device`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from attestation.findings import CheckLog
from attestation.nvidia.appraisal import one_of
from attestation.nvidia.checks import DeviceChecks
from attestation.nvidia.device import verify_device
from attestation.nvidia.endorsements import DeviceEndorsement
from attestation.nvidia.statement import DeviceReference, Statement
from attestation.nvswitch import checks
from attestation.nvswitch.abi import SwitchEvidence
from attestation.nvswitch.claims import bios_rim_id, statement_claims
from attestation.nvswitch.endorsements import NvSwitchAnchors
from attestation.profile import STRICT, Profile
from attestation.rim.comparison import WantedRim
from attestation.rim.document import RimKind
from attestation.types import Collateral, DeviceResult, Evidence

SCHEME: Final = "nvswitch"
IDENTITY_KIND: Final = "nvidia-nvswitch"
LOCKED: Final = 1
"""LOCK_STATUS of a switch whose configuration is locked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NvSwitchReference(DeviceReference):
    """Reference values for switches. What is not to be compared is said with None, in writing; strict values default.

    Attributes:
        bios: BIOS versions that are accepted; None accepts any and says so in the result.
    """

    bios: frozenset[str] | None


class SwitchRules:
    """What is a switch's own (`attestation.nvidia.device.DeviceRules`)."""

    identity_kind: Final = IDENTITY_KIND
    serial_number: Final = "50 and 16 hex digits"
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
        pdi=checks.PDI,
        product=checks.PRODUCT,
        measurement=checks.MEASUREMENT,
        measurements_not_appraised=checks.MEASUREMENTS_NOT_APPRAISED,
        revocation_not_checked=checks.REVOCATION_NOT_CHECKED,
    )

    def parse(self, data: bytes, *, allow_trailing_byte: bool) -> SwitchEvidence:
        """See `attestation.nvidia.device.DeviceRules.parse`."""
        return SwitchEvidence.parse(data, allow_trailing_byte=allow_trailing_byte)

    def judge_statement(
        self, device: SwitchEvidence, endorsement: DeviceEndorsement, reference: NvSwitchReference, log: CheckLog
    ) -> Statement:
        """See `attestation.nvidia.device.DeviceRules.judge_statement`: firmware identity, chip, fabric and version."""
        firmware, fwid = endorsement.firmware, device.fwid
        log.require(
            checks.LEAF_FWID,
            ok=firmware is not None,
            expected="in the leaf",
            actual="absent" if firmware is None else firmware.fwid.hex(),
        )
        log.require(
            checks.FWID_NOT_REPORTED,
            ok=fwid is not None,
            expected="in the evidence",
            actual="absent" if fwid is None else fwid.hex(),
        )
        names = endorsement.products
        log.require(checks.PRODUCT_NAMES, ok=len(names) == 1, expected="one name", actual=", ".join(names))
        _check_fabric(device, log)
        _check_version(device, reference, log)
        version, pdi = device.bios_version, device.pdi
        return Statement(
            pdi=None if pdi is None else pdi.hex(),
            wanted=(
                WantedRim(
                    kind=RimKind.FIRMWARE,
                    name="bios",
                    identifier=None if version is None else bios_rim_id(version),
                    product=names[0],
                    version=version,
                ),
            ),
            claims=statement_claims(device, endorsement),
        )


SWITCH_RULES: Final = SwitchRules()


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
    return verify_device(
        SWITCH_RULES,
        evidence,
        anchors=anchors,
        reference=reference,
        expected_nonce=expected_nonce,
        now=now,
        collateral=collateral or Collateral(),
        profile=profile,
        allow_trailing_byte=allow_trailing_byte,
    )


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
            expected=one_of(reference.bios),
            actual=actual,
            reference=reference.origin,
        )
