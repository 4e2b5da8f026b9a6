"""The verification that NVIDIA's GPUs and NVSwitches have in common; what they state differs and is each kind's own.

Every rule is applied, whatever the ones before it said, so that a denial carries every reason at once. A verdict has
three parts:

- who signed, for which nonce, and whom the certificates name: judged every time;
- what is stated and measured, against reference values and manifests (`attestation.nvidia.statement`): judged once for
  the same bytes, because nothing else is looked at;
- whether certificates, manifests and OCSP responses are current at the time of the appraisal: judged every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from attestation.errors import MalformedError
from attestation.findings import THIS_SESSION, CheckLog
from attestation.nvidia.appraisal import appraise_measurements, check_collateral, one_of
from attestation.nvidia.checks import DeviceChecks
from attestation.nvidia.endorsements import DeviceAnchors, DeviceEndorsement
from attestation.nvidia.statement import DeviceReference, Statement
from attestation.profile import Profile
from attestation.spdm.abi import NONCE_SIZE, SignedMeasurements
from attestation.types import Collateral, DeviceResult, Evidence, HardwareIdentity, Json
from attestation.x509 import ChainResult

FORBIDDEN_FIRMWARE_FLAGS: Final = frozenset({"not_secure", "recovery", "debug"})
"""DiceTcbInfo flags that no production firmware sets; published Blackwell leaves set ``not_configured``, and Hopper and
LS10 leaves have no DiceTcbInfo."""


class DeviceEvidence(Protocol):
    """Parsed evidence of any kind of device."""

    @property
    def measurements(self) -> SignedMeasurements:
        """The SPDM request and signed response."""
        ...

    @property
    def opaque(self) -> Mapping[int, bytes]:
        """Opaque fields by type."""
        ...

    @property
    def trailing(self) -> bytes:
        """What follows the signature, where that was allowed."""
        ...

    @property
    def fwid(self) -> bytes | None:
        """SHA-384 of the FMC firmware."""
        ...

    @property
    def measurement_counts(self) -> tuple[int, ...] | None:
        """MSRSCNT: how often each measurement was extended."""
        ...


EvidenceT = TypeVar("EvidenceT", bound=DeviceEvidence)
ReferenceT_contra = TypeVar("ReferenceT_contra", bound=DeviceReference, contravariant=True)


class DeviceRules(Protocol[EvidenceT, ReferenceT_contra]):
    """What is one kind of device's own."""

    @property
    def identity_kind(self) -> str:
        """Kind of the `HardwareIdentity` that is proven."""
        ...

    @property
    def serial_number(self) -> str:
        """What a certified serial number looks like, in words."""
        ...

    @property
    def checks(self) -> DeviceChecks:
        """The rules that every kind has."""
        ...

    def parse(self, data: bytes, *, allow_trailing_byte: bool) -> EvidenceT:
        """Read evidence.

        Raises:
            MalformedError: not that structure.
            UnsupportedError: an SPDM version other than 1.1.
        """
        ...

    def judge_statement(
        self, device: EvidenceT, endorsement: DeviceEndorsement, reference: ReferenceT_contra, log: CheckLog
    ) -> Statement:
        """Judge what the opaque data state.

        Nothing but `device.opaque`, the endorsement's products and firmware without its key, and `reference` may be
        read: what is recorded and returned is remembered for these.

        Raises:
            MalformedError: an opaque field of another size or encoding than it should have.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticated(Generic[EvidenceT]):
    """Evidence whose origin has been judged.

    Attributes:
        device: the parsed evidence.
        chain: the certificates, and what they endorse.
        authentic: the chain is trusted and valid, and its leaf's key made the signature.
    """

    device: EvidenceT
    chain: ChainResult[DeviceEndorsement]
    authentic: bool


def authenticate_device(
    rules: DeviceRules[EvidenceT, ReferenceT_contra],
    evidence: Evidence,
    *,
    anchors: DeviceAnchors,
    now: int,
    log: CheckLog,
    allow_trailing_byte: bool,
) -> Authenticated[EvidenceT]:
    """Parse the evidence and check who signed it: chain, validity and signature, and nothing else.

    Args:
        rules: of this kind of device.
        evidence: request ‖ response, and the chain as DER, leaf first, root last.
        anchors: pinned roots.
        now: time of the appraisal, seconds since the epoch.
        log: receives the outcome of every rule.
        allow_trailing_byte: one byte may follow the signature; for conformance only.

    Raises:
        MalformedError: evidence or certificates are not what they should be.
        UnsupportedError: an SPDM version other than 1.1.
    """
    device = rules.parse(evidence.data, allow_trailing_byte=allow_trailing_byte)
    chain = anchors.chains.verify(evidence.certificates, now=now, log=log)
    key, signed = chain.chain.leaf_key, device.measurements
    # SPDM 1.1, section 10.11.2: the signature covers request and response but itself.
    verifies = key is not None and key.verify_raw(signed.r, signed.s, signed.signed)
    log.require(
        rules.checks.signature,
        ok=verifies,
        expected="verifies with the leaf's key",
        actual="verifies" if verifies else "does not verify",
    )
    return Authenticated(device=device, chain=chain, authentic=chain.trusted and verifies)


def verify_device(
    rules: DeviceRules[EvidenceT, ReferenceT_contra],
    evidence: Evidence,
    *,
    anchors: DeviceAnchors,
    reference: ReferenceT_contra,
    expected_nonce: bytes | None,
    now: int,
    collateral: Collateral,
    profile: Profile,
    allow_trailing_byte: bool,
) -> DeviceResult:
    """Verify one device's evidence and certificate chain.

    Args:
        rules: of this kind of device.
        evidence: request ‖ response, and the chain as DER, leaf first, root last.
        anchors: pinned roots.
        reference: what the device must be and run.
        expected_nonce: the 32 bytes that were sent to the device; None where freshness is not to be judged, which the
            result says.
        now: time of the appraisal, seconds since the epoch.
        collateral: manifests and OCSP responses; the same set may serve other devices too.
        profile: what each finding does to the verdict.
        allow_trailing_byte: one byte may follow the signature; for conformance only.

    Raises:
        MalformedError: evidence, certificates or OCSP responses are not what they should be, so that nothing can be
            decided, or `expected_nonce` is not 32 bytes.
        UnsupportedError: an SPDM version other than 1.1.
    """
    if expected_nonce is not None and len(expected_nonce) != NONCE_SIZE:
        raise MalformedError("expected nonce", f"{len(expected_nonce)} bytes, expected {NONCE_SIZE}")
    log = CheckLog()
    origin = authenticate_device(
        rules, evidence, anchors=anchors, now=now, log=log, allow_trailing_byte=allow_trailing_byte
    )
    device, chain, endorsement = origin.device, origin.chain.chain, origin.chain.derived
    checks, signed, firmware = rules.checks, device.measurements, endorsement.firmware
    log.require(
        checks.trailing_byte,
        ok=not device.trailing,
        expected="no bytes",
        actual=f"{len(device.trailing)} byte after it",
    )
    _check_nonce(signed.request.nonce, expected_nonce, checks, log)
    statement = anchors.statements.judge(
        (
            signed.response.opaque,
            endorsement.products,
            None if firmware is None else (firmware.fwid, firmware.flags),
            reference.identity,
        ),
        lambda own: _judge_statement(rules, device, endorsement, reference, own),
        log=log,
        keep=origin.authentic,
    )
    identified = _check_identity(endorsement, statement, rules, log)
    appraisal = appraise_measurements(
        signed,
        statement,
        checks=checks,
        reference=reference,
        collateral=collateral,
        anchors=anchors,
        now=now,
        log=log,
        keep=origin.authentic,
    )
    ages = check_collateral(
        chain,
        appraisal.rims.applied,
        checks=checks,
        reference=reference,
        collateral=collateral,
        anchors=anchors,
        now=now,
        log=log,
    )
    serial = endorsement.serial_number
    return DeviceResult(
        slot=evidence.slot,
        scheme=evidence.scheme,
        claims={
            "product": endorsement.products[0],
            "device_info": endorsement.device_info,
            "certified_serial_number": endorsement.stated_serial_number.lower(),
            "pdi": endorsement.pdi,
            "spdm_version": "1.1",
            "slot_id": signed.request.slot_id,
            "nonce": signed.request.nonce.hex(),
            "response_nonce": signed.response.nonce.hex(),
            **statement.claims,
            **appraisal.claims,
            "trailing_bytes_after_signature": len(device.trailing),
        },
        identity=HardwareIdentity(rules.identity_kind, serial)
        if origin.authentic and identified and serial is not None
        else None,
        findings=profile.apply(log.findings),
        passed=tuple(log.passed),
        simulated=chain.root_sha256 in anchors.simulated_roots or appraisal.simulated,
        collateral_age=ages,
    )


def common_claims(
    device: DeviceEvidence, endorsement: DeviceEndorsement, opaque_names: Mapping[int, str]
) -> dict[str, Json]:
    """What every kind of device states, as claims: the firmware's identity and the opaque fields.

    Byte strings are lower-case hex. ``opaque`` has every field, under its number where it is not in `opaque_names`.
    ``fwid_in_leaf`` is null where the evidence states no firmware identity to look for.

    Raises:
        MalformedError: a field of another size than it should have.
    """
    firmware, fwid, counts = endorsement.firmware, device.fwid, device.measurement_counts
    return {
        "fwid": None if fwid is None else fwid.hex(),
        "fwid_len": None if fwid is None else len(fwid),
        "fwid_in_leaf": None if fwid is None else firmware is not None and fwid == firmware.fwid,
        "leaf_fwid": None if firmware is None else firmware.fwid.hex(),
        "firmware_flags": [] if firmware is None else list(firmware.flags),
        "measurement_counts": None if counts is None else list(counts),
        "opaque_tags": sorted(device.opaque),
        "opaque": {opaque_names.get(kind, str(kind)): value.hex() for kind, value in device.opaque.items()},
    }


def _judge_statement(
    rules: DeviceRules[EvidenceT, ReferenceT_contra],
    device: EvidenceT,
    endorsement: DeviceEndorsement,
    reference: ReferenceT_contra,
    log: CheckLog,
) -> Statement:
    """What every kind of device is held to, and then what is its own."""
    checks, firmware, fwid = rules.checks, endorsement.firmware, device.fwid
    if firmware is not None:
        if fwid is not None:
            log.require(checks.fwid, ok=fwid == firmware.fwid, expected=firmware.fwid.hex(), actual=fwid.hex())
        log.require(
            checks.firmware_state,
            ok=FORBIDDEN_FIRMWARE_FLAGS.isdisjoint(firmware.flags),
            expected="none of " + ", ".join(sorted(FORBIDDEN_FIRMWARE_FLAGS)),
            actual=", ".join(firmware.flags) or "no flags",
        )
    product = endorsement.products[0]
    log.require(
        checks.product,
        ok=product in reference.products,
        expected=one_of(reference.products),
        actual=product,
        reference=reference.origin,
    )
    return rules.judge_statement(device, endorsement, reference, log)


def _check_nonce(nonce: bytes, expected: bytes | None, checks: DeviceChecks, log: CheckLog) -> None:
    """The caller's nonce, never one that came with the evidence."""
    actual = nonce.hex()
    if expected is None:
        log.require(checks.nonce_not_compared, ok=False, expected="a nonce to compare with", actual=actual)
    else:
        log.require(checks.nonce, ok=nonce == expected, expected=expected.hex(), actual=actual, reference=THIS_SESSION)


def _check_identity(
    endorsement: DeviceEndorsement,
    statement: Statement,
    rules: DeviceRules[EvidenceT, ReferenceT_contra],
    log: CheckLog,
) -> bool:
    """Which device; True where certificates and evidence name exactly one."""
    firmware, checks = endorsement.firmware, rules.checks
    if firmware is not None and firmware.device_key is not None:
        log.require(
            checks.device_key,
            ok=firmware.device_key == endorsement.device_key,
            expected=endorsement.device_key.hex(),
            actual=firmware.device_key.hex(),
        )
    identified = log.require(
        checks.identity,
        ok=endorsement.serial_number is not None,
        expected=rules.serial_number,
        actual=endorsement.stated_serial_number,
    )
    if checks.pdi is None:
        return identified
    same = log.require(
        checks.pdi,
        ok=statement.pdi is not None and statement.pdi == endorsement.pdi,
        expected=endorsement.pdi or "the PDI that the BROM certificate names",
        actual=statement.pdi or "absent",
    )
    return identified and same
