"""SEV-SNP evidence: is it authentic, and is what it says what the reference values ask for?

`verify` is a function of evidence, collateral, anchors, reference values and time; it reads no clock and no network.
Its steps, each of which is a `Check` of `attestation.snp.checks`:

1. Parse the report; the report alone says which kind of key signed it.
2. Chain: leaf, ASK or ASVK, ARK; the ARK equals a pin; names, signatures, CA bits, validity at `now`; CRL.
3. Signature over the report's raw bytes with the leaf's key.
4. The leaf was issued for this chip (HWID) and this TCB, and for the product line that CPUID names.
5. TCB and firmware: order, committed, minima. Committed is the anti-rollback value and is gated on like reported.
6. Guest policy, platform, the two against each other, mitigation vectors.
7. Privilege level, REPORT_DATA, and the pins.

A violated rule never hides a later one: a denial carries every reason at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from attestation.errors import MalformedError
from attestation.findings import Check, CheckLog
from attestation.profile import STRICT, Profile
from attestation.snp import checks
from attestation.snp.abi import (
    PLATFORM_INFO_BITS,
    REPORT_DATA_SIZE,
    SIGNATURE_ALGO_ECDSA_P384_SHA384,
    SIGNED_SIZE,
    AttestationReport,
    FirmwareVersion,
    GuestPolicy,
    PlatformInfo,
    Product,
    TcbVersion,
)
from attestation.snp.claims import report_claims
from attestation.snp.endorsements import TURIN_HWID_SIZE, Endorsement, SnpAnchors, VekKind, vek_kind_of
from attestation.types import Collateral, DeviceResult, Evidence, HardwareIdentity

SCHEME: Final = "snp"
IDENTITY_KIND: Final = "amd-chip-id"
_SESSION: Final = "this session"
"""Whose word the expected REPORT_DATA is."""

_NO_FIRMWARE_MINIMUM: Final = FirmwareVersion(0, 0, 0)

_REQUIREMENTS: Final[Mapping[str, int]] = {
    "SINGLE_SOCKET": GuestPolicy.SINGLE_SOCKET,
    "MEM_AES_256_XTS": GuestPolicy.MEM_AES_256_XTS,
    "RAPL_DIS": GuestPolicy.RAPL_DIS,
    "CIPHERTEXT_HIDING_DRAM": GuestPolicy.CIPHERTEXT_HIDING_DRAM,
    "PAGE_SWAP_DISABLE": GuestPolicy.PAGE_SWAP_DISABLE,
}
"""Guest policy bits that demand something of the platform; the others permit something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpProductReference:
    """What is asked of one product line besides what holds for all; the names are those of `SnpReference`."""

    platform_required: int = 0
    platform_forbidden: int = 0
    mitigations: int = 0


_NOTHING_MORE: Final = SnpProductReference()


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpReference:
    """Reference values for SEV-SNP. Only the minimum TCB has no default; the other defaults are the strict ones.

    Attributes:
        minimum_tcb: per product line; a line that is not named is refused.
        versions: report versions that are accepted; version 2 carries no CPUID and is not, unless named.
        vmpls: virtual machine privilege levels that are accepted.
        policy_allowed: which permitting bits of POLICY may be set (`GuestPolicy.SMT`, `MIGRATE_MA`, `DEBUG`, `CXL`).
        policy_required: which demanding bits of POLICY must be set (`GuestPolicy.SINGLE_SOCKET` and the like).
        minimum_abi: the guest policy's ABI version, major and minor.
        migration_agents: approved REPORT_ID_MA values, for guests that a migration agent may move.
        platform_required: which bits of PLATFORM_INFO must be set; ALIAS_CHECK_COMPLETE by default (BadRAM).
        platform_forbidden: which must not be.
        platform_tolerated: bits that this verifier does not know and that may be set all the same.
        minimum_firmware: the committed SNP firmware.
        mitigations: bits that LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR must both have.
        allow_masked_chip_id: accept evidence that does not name its chip; it proves no hardware identity.
        measurements, host_data, id_key_digests, author_key_digests, family_ids, image_ids: approved values; None
            leaves the field to the appraisal policy, an empty set refuses every value.
        minimum_guest_svn: the guest's security version.
        crl_number_floor: per product line, the highest CRL number ever used; an older list is refused.
        by_product: per product line, what is asked of it besides.
        origin: where these values come from, for findings.
    """

    minimum_tcb: Mapping[Product, TcbVersion]
    versions: frozenset[int] = frozenset({3, 4, 5})
    vmpls: frozenset[int] = frozenset({0})
    policy_allowed: int = 0
    policy_required: int = 0
    minimum_abi: tuple[int, int] = (0, 0)
    migration_agents: frozenset[bytes] = frozenset()
    platform_required: int = PlatformInfo.ALIAS_CHECK_COMPLETE
    platform_forbidden: int = 0
    platform_tolerated: int = 0
    minimum_firmware: FirmwareVersion = _NO_FIRMWARE_MINIMUM
    mitigations: int = 0
    allow_masked_chip_id: bool = False
    measurements: frozenset[bytes] | None = None
    host_data: frozenset[bytes] | None = None
    id_key_digests: frozenset[bytes] | None = None
    author_key_digests: frozenset[bytes] | None = None
    family_ids: frozenset[bytes] | None = None
    image_ids: frozenset[bytes] | None = None
    minimum_guest_svn: int = 0
    crl_number_floor: Mapping[Product, int] = field(default_factory=lambda: MappingProxyType({}))
    by_product: Mapping[Product, SnpProductReference] = field(default_factory=lambda: MappingProxyType({}))
    origin: str = "reference values"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticated:
    """A report whose origin has been judged.

    Attributes:
        report: the parsed report.
        endorsement: what its certificates amount to.
        authentic: the chain is trusted and valid, the leaf is of the kind that signed, and the signature verifies.
    """

    report: AttestationReport
    endorsement: Endorsement
    authentic: bool


def authenticate(evidence: Evidence, *, anchors: SnpAnchors, now: int, log: CheckLog) -> Authenticated:
    """Parse the report and check who signed it: chain, validity and signature, and nothing else.

    Raises:
        MalformedError: report or certificates cannot be decoded.
        UnsupportedError: a report version that this verifier does not know.
    """
    report = AttestationReport.parse(evidence.data)
    endorsement = anchors.verify_chain(evidence.certificates, log)
    valid = endorsement.check_validity(log, now)
    vek = endorsement.vek
    signing_key = report.signing_key
    kind = vek_kind_of(signing_key)
    log.require(
        checks.SIGNING_KEY,
        ok=kind is not None,
        expected="VCEK or VLEK",
        actual="a reserved value" if signing_key is None else signing_key.name,
    )
    algorithm = log.require(
        checks.SIGNATURE_ALGORITHM,
        ok=report.signature_algo == SIGNATURE_ALGO_ECDSA_P384_SHA384,
        expected="1 (ECDSA P-384 with SHA-384)",
        actual=str(report.signature_algo),
    )
    if vek is None:
        return Authenticated(report=report, endorsement=endorsement, authentic=False)
    same_kind = kind is None or log.require(checks.VEK_KIND, ok=vek.kind is kind, expected=kind, actual=vek.kind.value)
    signed = log.require(
        checks.SIGNATURE,
        ok=vek.key.verify_raw(report.r, report.s, evidence.data[:SIGNED_SIZE]),
        expected="signed by the leaf's key",
        actual="ECDSA signature over bytes 0x0 to 0x29f",
    )
    return Authenticated(
        report=report,
        endorsement=endorsement,
        authentic=endorsement.trusted and valid and kind is not None and same_kind and algorithm and signed,
    )


def verify(
    evidence: Evidence,
    *,
    collateral: Collateral,
    anchors: SnpAnchors,
    reference: SnpReference,
    expected_report_data: bytes | None,
    now: int,
    profile: Profile = STRICT,
    report_data_check: Check = checks.REPORT_DATA,
) -> DeviceResult:
    """Verify one CPU's evidence.

    Args:
        evidence: the report, and leaf, ASK or ASVK, and ARK as DER.
        collateral: AMD's revocation lists.
        anchors: the pinned roots.
        reference: what the report must say.
        expected_report_data: the 64 bytes that REPORT_DATA must be; None leaves freshness unproven, which a finding
            says.
        now: the appraisal's time, seconds since the epoch.
        profile: what each finding does to the verdict.
        report_data_check: the rule that another REPORT_DATA breaks; an envelope whose data REPORT_DATA binds has one
            of its own.

    Raises:
        MalformedError: report, certificate or CRL cannot be decoded, or `expected_report_data` is not 64 bytes.
        UnsupportedError: a report version that this verifier does not know.
    """
    if expected_report_data is not None and len(expected_report_data) != REPORT_DATA_SIZE:
        raise MalformedError("expected REPORT_DATA", f"{len(expected_report_data)} bytes, expected {REPORT_DATA_SIZE}")
    log = CheckLog()
    authenticated = authenticate(evidence, anchors=anchors, now=now, log=log)
    report, endorsement = authenticated.report, authenticated.endorsement
    vek = endorsement.vek
    product = report.product if report.version > 2 else None if vek is None else vek.product
    ages: dict[str, int] = {}
    if endorsement.trusted and endorsement.ask is not None and endorsement.ark is not None and vek is not None:
        crl = anchors.check_revocation(
            ask=endorsement.ask,
            ark=endorsement.ark,
            crls=collateral.crls,
            number_floor=reference.crl_number_floor.get(vek.product, 0),
            floor_origin=reference.origin,
            now=now,
            log=log,
        )
        if crl is not None and crl.this_update <= now:
            ages["amd-crl"] = now - crl.this_update
    _check_origin(report, endorsement=endorsement, product=product, reference=reference, log=log)
    if product is not None:
        _check_tcb(report, product=product, reference=reference, log=log)
    _check_policy(report, reference, log)
    _check_platform(report, product=product, reference=reference, log=log)
    _check_pins(
        report,
        reference=reference,
        expected_report_data=expected_report_data,
        report_data_check=report_data_check,
        log=log,
    )
    return DeviceResult(
        slot=evidence.slot,
        scheme=SCHEME,
        claims=report_claims(report, product=product, vek=vek, authentic=authenticated.authentic),
        identity=_identity(authenticated),
        findings=profile.apply(log.findings),
        passed=tuple(log.passed),
        simulated=endorsement.simulated,
        collateral_age=ages,
        bound_data=report.report_data if authenticated.authentic else b"",
    )


def _identity(authenticated: Authenticated) -> HardwareIdentity | None:
    """The certified HWID: of an authentic report that a VCEK signed and that names the same chip."""
    vek = authenticated.endorsement.vek
    if not authenticated.authentic or vek is None or vek.hwid is None:
        return None
    chip_id = authenticated.report.chip_id
    if chip_id[: len(vek.hwid)] != vek.hwid or any(chip_id[len(vek.hwid) :]):
        return None
    return HardwareIdentity(IDENTITY_KIND, vek.hwid.hex())


def _check_origin(
    report: AttestationReport,
    *,
    endorsement: Endorsement,
    product: Product | None,
    reference: SnpReference,
    log: CheckLog,
) -> None:
    """The version, and that the leaf was issued for this product line, TCB and chip."""
    log.require(
        checks.VERSION,
        ok=report.version in reference.versions,
        expected=" or ".join(map(str, sorted(reference.versions))),
        actual=str(report.version),
        reference=reference.origin,
    )
    vek = endorsement.vek
    if report.version > 2:
        log.require(
            checks.PRODUCT,
            ok=product is not None and (vek is None or product is vek.product),
            expected="a known product line" if vek is None else vek.product.value,
            actual=f"CPUID {report.cpuid_fam_id:02x}h/{report.cpuid_mod_id:02x}h",
            where="of the report",
        )
    masked = report.chip_id_masked
    log.require(
        checks.CHIP_ID_MASKED,
        ok=not masked or reference.allow_masked_chip_id,
        expected="a chip id",
        actual="all zero" if masked else report.chip_id.hex(),
        reference=reference.origin,
    )
    if vek is None:
        return
    if product is vek.product:
        reported = TcbVersion.parse(report.reported_tcb, product)
        log.require(checks.CERT_TCB, ok=reported == vek.tcb, expected=str(vek.tcb), actual=str(reported))
    if vek.kind is VekKind.VCEK and vek.hwid is not None and not masked:
        padded = vek.hwid + bytes(len(report.chip_id) - len(vek.hwid))
        log.require(checks.HWID, ok=report.chip_id == padded, expected=padded.hex(), actual=report.chip_id.hex())
    elif vek.kind is VekKind.VLEK and not masked and product is Product.TURIN:
        log.require(
            checks.HWID,
            ok=not any(report.chip_id[TURIN_HWID_SIZE:]),
            expected=f"{TURIN_HWID_SIZE} bytes, then zeros",
            actual=report.chip_id.hex(),
        )


def _check_tcb(report: AttestationReport, *, product: Product, reference: SnpReference, log: CheckLog) -> None:
    """Order, commitment and minima of the four TCB versions and the firmware."""
    # The four are equal on a settled platform, so each distinct value is parsed and written out once.
    raws = {report.current_tcb, report.reported_tcb, report.committed_tcb, report.launch_tcb}
    tcbs = {raw: TcbVersion.parse(raw, product) for raw in raws}
    texts = {raw: str(tcb) for raw, tcb in tcbs.items()}
    current, current_text = tcbs[report.current_tcb], texts[report.current_tcb]
    committed = tcbs[report.committed_tcb]
    for name, raw in (("REPORTED_TCB", report.reported_tcb), ("COMMITTED_TCB", report.committed_tcb)):
        log.require(
            checks.TCB_ORDER,
            ok=current.at_least(tcbs[raw]),
            expected=f"at most {current_text}",
            actual=texts[raw],
            where=name,
        )
    log.require(checks.PROVISIONAL, ok=committed == current, expected=current_text, actual=texts[report.committed_tcb])
    log.require(
        checks.PROVISIONAL,
        ok=report.committed_firmware == report.current_firmware,
        expected=str(report.current_firmware),
        actual=str(report.committed_firmware),
        where="and version",
    )
    log.require(
        checks.FIRMWARE_MINIMUM,
        ok=report.committed_firmware >= reference.minimum_firmware,
        expected=f"at least {reference.minimum_firmware}",
        actual=str(report.committed_firmware),
        reference=reference.origin,
    )
    minimum = reference.minimum_tcb.get(product)
    log.require(
        checks.NO_REFERENCE_TCB,
        ok=minimum is not None,
        expected=" or ".join(sorted(reference.minimum_tcb)) or "no product line is accepted",
        actual=product.value,
        reference=reference.origin,
    )
    if minimum is not None:
        expected = f"at least {minimum}"
        for name, raw in (
            ("REPORTED_TCB", report.reported_tcb),
            ("COMMITTED_TCB", report.committed_tcb),
            ("LAUNCH_TCB", report.launch_tcb),
        ):
            log.require(
                checks.TCB_MINIMUM,
                ok=tcbs[raw].at_least(minimum),
                expected=expected,
                actual=texts[raw],
                where=name,
                reference=reference.origin,
            )


def _check_policy(report: AttestationReport, reference: SnpReference, log: CheckLog) -> None:
    """POLICY: reserved bits, what it permits, what it demands."""
    policy = GuestPolicy(report.policy)
    allowed = reference.policy_allowed
    shown = f"{report.policy:#x}"
    log.require(checks.POLICY_RESERVED, ok=policy.reserved_ok, expected="bit 17 one, bits 26 to 63 zero", actual=shown)
    for check, bit in ((checks.DEBUG, policy.DEBUG), (checks.SMT, policy.SMT), (checks.CXL, policy.CXL)):
        is_set = policy.has(bit)
        log.require(
            check,
            ok=not is_set or bool(allowed & bit),
            expected="off",
            actual="on" if is_set else "off",
            reference=reference.origin,
        )
    migratable = policy.has(policy.MIGRATE_MA)
    log.require(
        checks.MIGRATE_MA,
        ok=not migratable or (bool(allowed & policy.MIGRATE_MA) and report.report_id_ma in reference.migration_agents),
        expected="off, or an approved REPORT_ID_MA",
        actual=f"on, agent {report.report_id_ma.hex()}" if migratable else "off",
        reference=reference.origin,
    )
    for name, bit in _REQUIREMENTS.items():
        if reference.policy_required & bit:
            log.require(
                checks.POLICY_REQUIRED,
                ok=policy.has(bit),
                expected="on",
                actual="on" if policy.has(bit) else "off",
                where=name,
                reference=reference.origin,
            )
    major, minor = policy.abi
    log.require(
        checks.ABI_MINIMUM,
        ok=policy.abi >= reference.minimum_abi,
        expected=f"at least {reference.minimum_abi[0]}.{reference.minimum_abi[1]}",
        actual=f"{major}.{minor}",
        reference=reference.origin,
    )


def _check_platform(
    report: AttestationReport, *, product: Product | None, reference: SnpReference, log: CheckLog
) -> None:
    """PLATFORM_INFO, its agreement with POLICY, and the mitigation vectors."""
    more = _NOTHING_MORE if product is None else reference.by_product.get(product, _NOTHING_MORE)
    required = reference.platform_required | more.platform_required
    forbidden = reference.platform_forbidden | more.platform_forbidden
    mitigations = reference.mitigations | more.mitigations
    platform, policy = PlatformInfo(report.platform_info), GuestPolicy(report.policy)
    for name, holds in (
        ("SMT", policy.has(policy.SMT) or not platform.has(platform.SMT_EN)),
        ("RAPL_DIS", not policy.has(policy.RAPL_DIS) or platform.has(platform.RAPL_DIS)),
        (
            "CIPHERTEXT_HIDING_DRAM",
            not policy.has(policy.CIPHERTEXT_HIDING_DRAM) or platform.has(platform.CIPHERTEXT_HIDING_DRAM_EN),
        ),
    ):
        log.require(
            checks.POLICY_PLATFORM,
            ok=holds,
            expected="as the guest's policy demands",
            actual=f"POLICY {report.policy:#x}, PLATFORM_INFO {report.platform_info:#x}",
            where=name,
        )
    for name, bit in PLATFORM_INFO_BITS.items():
        shown = "on" if platform.has(bit) else "off"
        if required & bit:
            check = checks.ALIAS_CHECK if bit == PlatformInfo.ALIAS_CHECK_COMPLETE else checks.PLATFORM_REQUIRED
            log.require(
                check, ok=platform.has(bit), expected="on", actual=shown, where=name.upper(), reference=reference.origin
            )
        if forbidden & bit:
            log.require(
                checks.PLATFORM_FORBIDDEN,
                ok=not platform.has(bit),
                expected="off",
                actual=shown,
                where=name.upper(),
                reference=reference.origin,
            )
    unknown = platform.unknown & ~reference.platform_tolerated
    log.require(
        checks.PLATFORM_UNKNOWN,
        ok=not unknown,
        expected="no unknown bit",
        actual=f"{unknown:#x}",
        reference=reference.origin,
    )
    if mitigations:
        for name, vector in (("LAUNCH", report.launch_mit_vector), ("CURRENT", report.current_mit_vector)):
            log.require(
                checks.MITIGATION,
                ok=vector & mitigations == mitigations,
                expected=f"all of {mitigations:#x}",
                actual=f"{vector:#x}",
                where=f"({name})",
                reference=reference.origin,
            )


def _check_pins(
    report: AttestationReport,
    *,
    reference: SnpReference,
    expected_report_data: bytes | None,
    report_data_check: Check,
    log: CheckLog,
) -> None:
    """The privilege level, REPORT_DATA, and everything that the reference values pin."""
    log.require(
        checks.VMPL,
        ok=report.vmpl in reference.vmpls,
        expected=" or ".join(map(str, sorted(reference.vmpls))),
        actual=str(report.vmpl),
        reference=reference.origin,
    )
    if expected_report_data is None:
        log.require(
            checks.REPORT_DATA_UNCHECKED,
            ok=False,
            expected="an expected value",
            actual=report.report_data.hex(),
            reference=_SESSION,
        )
    else:
        log.require(
            report_data_check,
            ok=report.report_data == expected_report_data,
            expected=expected_report_data.hex(),
            actual=report.report_data.hex(),
            reference=_SESSION if report_data_check is checks.REPORT_DATA else "",
        )
    log.require(
        checks.GUEST_SVN,
        ok=report.guest_svn >= reference.minimum_guest_svn,
        expected=f"at least {reference.minimum_guest_svn}",
        actual=str(report.guest_svn),
        reference=reference.origin,
    )
    pins: tuple[tuple[Check, frozenset[bytes] | None, bytes], ...] = (
        (checks.MEASUREMENT, reference.measurements, report.measurement),
        (checks.HOST_DATA, reference.host_data, report.host_data),
        (checks.ID_KEY, reference.id_key_digests, report.id_key_digest),
        (checks.AUTHOR_KEY, reference.author_key_digests, report.author_key_digest),
        (checks.FAMILY_ID, reference.family_ids, report.family_id),
        (checks.IMAGE_ID, reference.image_ids, report.image_id),
    )
    for check, approved, actual in pins:
        if approved is not None:
            log.require(
                check,
                ok=actual in approved,
                expected=" or ".join(sorted(value.hex() for value in approved)) or "no value is approved",
                actual=actual.hex(),
                reference=reference.origin,
            )
