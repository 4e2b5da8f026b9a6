"""Every check of SEV-SNP, each by evidence that violates it and nothing that it does not have to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.errors import MalformedError
from attestation.findings import CheckLog, Severity
from attestation.profile import STRICT, Deviation, Profile
from attestation.simulator.node import SimulatedVendors
from attestation.simulator.pki import YEAR, SimulatedAmdPki
from attestation.simulator.snp import (
    CPUID,
    CURRENT_TCB,
    DEFAULT_MEASUREMENT,
    DEFAULT_POLICY,
    STALE_TCB,
    SimulatedSnp,
    SnpDefect,
)
from attestation.snp import checks
from attestation.snp import endorsements as amd
from attestation.snp.abi import FirmwareVersion, GuestPolicy, PlatformInfo, Product, TcbVersion
from attestation.snp.endorsements import SnpAnchors
from attestation.snp.verify import SnpReference, authenticate, verify
from attestation.types import Collateral, DeviceResult, Evidence, HardwareIdentity

NOW = 1_790_000_000
DAY = 24 * 3600
REPORT_DATA = bytes(range(64))
REFERENCE = SnpReference(minimum_tcb=CURRENT_TCB)
PLATFORM = PlatformInfo.ECC_EN | PlatformInfo.ALIAS_CHECK_COMPLETE


@pytest.fixture(scope="session")
def pki(vendors: SimulatedVendors) -> SimulatedAmdPki:
    return vendors.amd


@pytest.fixture(scope="session")
def other_pki() -> SimulatedAmdPki:
    return SimulatedAmdPki.generate(now=NOW)


def _chip(pki: SimulatedAmdPki, product: Product = Product.GENOA, **options: Any) -> SimulatedSnp:
    return SimulatedSnp(pki, product=product, seed=b"chip", now=NOW, **options)


def _verify(evidence: Evidence, pki: SimulatedAmdPki, **changes: Any) -> DeviceResult:
    crls = tuple(pki.crl(product, this_update=NOW - DAY, number=4) for product in Product)
    arguments: dict[str, Any] = {
        "collateral": Collateral(crls=crls),
        "anchors": pki.anchors(),
        "reference": REFERENCE,
        "expected_report_data": REPORT_DATA,
        "now": NOW,
        **changes,
    }
    return verify(evidence, **arguments)


def _codes(result: DeviceResult) -> set[str]:
    return {finding.code for finding in result.findings}


@pytest.mark.parametrize("product", Product)
@pytest.mark.parametrize("version", [3, 4, 5])
def test_sound_evidence_passes(pki: SimulatedAmdPki, product: Product, version: int) -> None:
    chip = _chip(pki, product)
    result = _verify(chip.evidence(REPORT_DATA, version=version), pki)
    assert result.findings == ()
    assert result.ok
    assert result.identity == HardwareIdentity("amd-chip-id", chip.hwid.hex())
    assert len(chip.hwid) == (8 if product is Product.TURIN else 64)
    assert result.simulated
    assert result.collateral_age == {"amd-crl": DAY}
    assert result.claims["authentic"] is True
    assert result.claims["product"] == product.value
    assert result.claims["report_data"] == REPORT_DATA.hex()
    assert result.claims["measurement"] == DEFAULT_MEASUREMENT.hex()
    assert result.claims["reported_tcb"] == {"fmc": None, **CURRENT_TCB[product].components()}
    assert {passed.code for passed in result.passed} >= {"SNP_SIGNATURE", "SNP_HWID", "SNP_CERT_TCB", "SNP_REPORT_DATA"}


@pytest.mark.parametrize("product", Product)
def test_a_vlek_authenticates_but_proves_no_hardware(pki: SimulatedAmdPki, product: Product) -> None:
    result = _verify(_chip(pki, product, csp_id="CN=provider.example").evidence(REPORT_DATA), pki)
    assert result.ok
    assert result.identity is None
    assert result.claims["vek"]["csp_id"] == "CN=provider.example"


def test_the_same_inputs_give_the_same_result_from_a_cold_and_a_warm_cache(pki: SimulatedAmdPki) -> None:
    evidence, anchors = _chip(pki).evidence(REPORT_DATA), pki.anchors()
    crls = Collateral(crls=tuple(pki.crl(product, this_update=NOW - DAY) for product in Product))
    cold = _verify(evidence, pki, anchors=anchors, collateral=crls)
    warm = _verify(evidence, pki, anchors=anchors, collateral=crls)
    assert cold == warm
    assert cold.passed == warm.passed


@dataclass(frozen=True)
class Case:
    """Evidence or circumstances with one thing wrong, and every code that must follow."""

    codes: set[str]
    fields: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)
    defects: frozenset[SnpDefect] = frozenset()
    version: int = 5
    product: Product = Product.GENOA
    chip: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    evidence: Callable[[Evidence, SimulatedAmdPki, SimulatedAmdPki], Evidence] | None = None
    crls: Callable[[SimulatedAmdPki, SimulatedAmdPki], tuple[bytes, ...]] | None = None
    anchors: Callable[[SimulatedAmdPki, SimulatedAmdPki], SnpAnchors] | None = None


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def _certificates(change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> Any:
    return lambda evidence, _pki, _other: replace(evidence, certificates=change(evidence.certificates))


def _tampered_ask(evidence: Evidence, _pki: SimulatedAmdPki, _other: SimulatedAmdPki) -> Evidence:
    leaf, ask, ark = evidence.certificates
    return replace(evidence, certificates=(leaf, _flip(ask, len(ask) - 1), ark))


def _foreign_root(evidence: Evidence, _pki: SimulatedAmdPki, other: SimulatedAmdPki) -> Evidence:
    leaf, ask, _ark = evidence.certificates
    return replace(evidence, certificates=(leaf, ask, other.certificates[Product.GENOA].ark))


def _asvk_for_ask(evidence: Evidence, pki: SimulatedAmdPki, _other: SimulatedAmdPki) -> Evidence:
    leaf, _ask, ark = evidence.certificates
    return replace(evidence, certificates=(leaf, pki.certificates[Product.GENOA].asvk, ark))


def _other_line(evidence: Evidence, pki: SimulatedAmdPki, _other: SimulatedAmdPki) -> Evidence:
    """The leaf under another product line's authorities, which have the same keys here."""
    leaf, _ask, _ark = evidence.certificates
    milan = pki.certificates[Product.MILAN]
    return replace(evidence, certificates=(leaf, milan.ask, milan.ark))


def _leaf_as_ask(evidence: Evidence, _pki: SimulatedAmdPki, _other: SimulatedAmdPki) -> Evidence:
    """An ASK that is no CA: a VCEK in its place."""
    leaf, _ask, ark = evidence.certificates
    return replace(evidence, certificates=(leaf, leaf, ark))


STALE = STALE_TCB[Product.GENOA].to_bytes(Product.GENOA)
NEWER = TcbVersion(bl=11, tee=0, snp=23, ucode=84).to_bytes(Product.GENOA)
OLDER_LEAF = TcbVersion(bl=10, tee=0, snp=23, ucode=83)
GENOA_TCB = CURRENT_TCB[Product.GENOA]
FIRMWARE = FirmwareVersion(1, 55, 49)

CASES: dict[str, Case] = {
    "version 2": Case({"SNP_REPORT_VERSION"}, version=2),
    "unsigned": Case({"SNP_SIGNING_KEY"}, fields={"signer_info": 7 << 2}),
    "a reserved signing key": Case({"SNP_SIGNING_KEY"}, fields={"signer_info": 3 << 2}),
    "signed by a VLEK, it says": Case({"SNP_VEK_KIND"}, fields={"signer_info": 1 << 2}),
    "a VLEK for a report by a VCEK": Case({"SNP_VEK_KIND"}, fields={"signer_info": 0}, chip={"csp_id": "CN=x"}),
    "no certificate": Case({"SNP_CHAIN_SHAPE"}, evidence=_certificates(lambda _: ())),
    "leaf alone": Case({"SNP_CHAIN_SHAPE"}, evidence=_certificates(lambda each: each[:1])),
    "four certificates": Case({"SNP_CHAIN_SHAPE"}, evidence=_certificates(lambda each: (*each, each[2]))),
    "a root that is not pinned": Case(
        {"SNP_ROOT_NOT_PINNED"}, anchors=lambda _pki, other: other.anchors(), crls=lambda _pki, _other: ()
    ),
    "AMD's roots alone": Case({"SNP_ROOT_NOT_PINNED"}, anchors=lambda _pki, _other: SnpAnchors.amd()),
    "a look-alike root": Case({"SNP_ROOT_NOT_PINNED", "SNP_CHAIN_SIGNATURE"}, evidence=_foreign_root),
    "an ASK with another signature": Case({"SNP_CHAIN_SIGNATURE"}, evidence=_tampered_ask),
    "ASVK over a VCEK": Case({"SNP_CHAIN_NAMES"}, evidence=_asvk_for_ask),
    "another product line's authorities": Case({"SNP_CHAIN_NAMES", "SNP_PRODUCT"}, evidence=_other_line),
    "a leaf in the ASK's place": Case(
        {"SNP_CHAIN_CA", "SNP_CHAIN_NAMES", "SNP_CHAIN_SIGNATURE"}, evidence=_leaf_as_ask
    ),
    "an expired leaf": Case({"SNP_CHAIN_VALIDITY"}, defects=frozenset({SnpDefect.EXPIRED_VEK})),
    "before the leaf": Case({"SNP_CHAIN_VALIDITY", "SNP_CRL_WINDOW"}, changes={"now": NOW - 2 * DAY}),
    "after everything": Case({"SNP_CHAIN_VALIDITY", "SNP_CRL_WINDOW"}, changes={"now": NOW + 30 * YEAR}),
    "CPUID of another product line": Case(
        {"SNP_PRODUCT"},
        fields=dict(zip(("cpuid_fam_id", "cpuid_mod_id"), CPUID[Product.MILAN], strict=False)),
        reference={"minimum_tcb": {Product.MILAN: CURRENT_TCB[Product.GENOA]}},
    ),
    "CPUID and TCB of another product line, which are not compared with the leaf's TCB": Case(
        {"SNP_PRODUCT"},
        fields={
            **dict(zip(("cpuid_fam_id", "cpuid_mod_id"), CPUID[Product.MILAN], strict=False)),
            **dict.fromkeys(("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"), NEWER),
        },
        reference={"minimum_tcb": {Product.MILAN: CURRENT_TCB[Product.GENOA]}},
    ),
    "CPUID of no known product": Case({"SNP_PRODUCT"}, fields={"cpuid_fam_id": 0x17}),
    "an old TCB in version 2, which names no product": Case(
        {"SNP_TCB_BELOW_MINIMUM"},
        version=2,
        defects=frozenset({SnpDefect.STALE_TCB}),
        reference={"versions": frozenset({2})},
    ),
    "CPUID of another product line in version 3": Case(
        {"SNP_PRODUCT"},
        version=3,
        fields=dict(zip(("cpuid_fam_id", "cpuid_mod_id"), CPUID[Product.MILAN], strict=False)),
        reference={"minimum_tcb": {Product.MILAN: CURRENT_TCB[Product.GENOA]}},
    ),
    "CPUID of no known product, and no certificates": Case(
        {"SNP_PRODUCT", "SNP_CHAIN_SHAPE"}, fields={"cpuid_fam_id": 0x17}, evidence=_certificates(lambda _chain: ())
    ),
    "version 2, which names no product, and no certificates": Case(
        {"SNP_REPORT_VERSION", "SNP_CHAIN_SHAPE"}, version=2, evidence=_certificates(lambda _chain: ())
    ),
    "no CRL": Case({"SNP_CRL_MISSING"}, crls=lambda _pki, _other: ()),
    "CRLs of other lines": Case(
        {"SNP_CRL_MISSING"}, crls=lambda pki, _other: (pki.crl(Product.MILAN, this_update=NOW - DAY),)
    ),
    "a CRL by another root": Case(
        {"SNP_CRL_SIGNATURE", "SNP_CRL_MISSING"},
        crls=lambda _pki, other: (other.crl(Product.GENOA, this_update=NOW - DAY),),
    ),
    "an old CRL": Case(
        {"SNP_CRL_WINDOW"}, crls=lambda pki, _other: (pki.crl(Product.GENOA, this_update=NOW - 2 * YEAR),)
    ),
    "a CRL that ends this second": Case(
        {"SNP_CRL_WINDOW"},
        crls=lambda pki, _other: (pki.crl(Product.GENOA, this_update=NOW - DAY, next_update=NOW),),
    ),
    "a CRL from the future": Case(
        {"SNP_CRL_WINDOW"}, crls=lambda pki, _other: (pki.crl(Product.GENOA, this_update=NOW + 1),)
    ),
    "a CRL older than one seen": Case({"SNP_CRL_ROLLBACK"}, reference={"crl_number_floor": {Product.GENOA: 5}}),
    "a revoked ASK": Case(
        {"SNP_REVOKED"},
        crls=lambda pki, _other: (
            pki.crl(Product.GENOA, this_update=NOW - DAY, revoked_serials=(pki.ask_serial(Product.GENOA),)),
        ),
    ),
    "revoked in the newer of two CRLs": Case(
        {"SNP_REVOKED"},
        crls=lambda pki, _other: (
            pki.crl(Product.GENOA, this_update=NOW - DAY, number=2, revoked_serials=(pki.ask_serial(Product.GENOA),)),
            pki.crl(Product.GENOA, this_update=NOW - DAY, number=1),
        ),
    ),
    "another signature algorithm": Case({"SNP_SIGNATURE_ALGORITHM"}, fields={"signature_algo": 2}),
    "an altered report": Case({"SNP_SIGNATURE"}, defects=frozenset({SnpDefect.BAD_SIGNATURE})),
    "r = 0": Case({"SNP_SIGNATURE"}, fields={"signature_r": bytes(48)}),
    "s = 0": Case({"SNP_SIGNATURE"}, fields={"signature_s": bytes(48)}),
    "r beyond the group's order": Case({"SNP_SIGNATURE"}, fields={"signature_r": b"\xff" * 48}),
    "a leaf for an older TCB": Case(
        {"SNP_CERT_TCB"},
        fields={"reported_tcb": OLDER_LEAF.to_bytes(Product.GENOA)},
        reference={"minimum_tcb": {Product.GENOA: OLDER_LEAF}},
    ),
    "another chip's leaf": Case({"SNP_HWID"}, defects=frozenset({SnpDefect.OTHER_CHIP})),
    "another Turin chip's leaf": Case({"SNP_HWID"}, defects=frozenset({SnpDefect.OTHER_CHIP}), product=Product.TURIN),
    "a Turin chip id with a tail": Case({"SNP_HWID"}, product=Product.TURIN, fields={"chip_id": b"\x01" * 64}),
    "a Turin chip id with a tail, by a VLEK": Case(
        {"SNP_HWID"}, product=Product.TURIN, fields={"chip_id": b"\x01" * 64}, chip={"csp_id": "CN=x"}
    ),
    "a masked chip id": Case({"SNP_CHIP_ID_MASKED"}, defects=frozenset({SnpDefect.MASKED_CHIP_ID})),
    "reported above current": Case(
        {"SNP_TCB_ORDER", "SNP_PROVISIONAL_FIRMWARE", "SNP_CERT_TCB"},
        fields={"reported_tcb": NEWER, "committed_tcb": NEWER},
    ),
    "committed above current": Case({"SNP_TCB_ORDER", "SNP_PROVISIONAL_FIRMWARE"}, fields={"committed_tcb": NEWER}),
    "provisional TCB": Case({"SNP_PROVISIONAL_FIRMWARE"}, fields={"current_tcb": NEWER}),
    "provisional firmware": Case({"SNP_PROVISIONAL_FIRMWARE"}, fields={"current_firmware": FirmwareVersion(1, 55, 50)}),
    "a product line without a minimum": Case(
        {"SNP_NO_REFERENCE_TCB"}, reference={"minimum_tcb": {Product.MILAN: CURRENT_TCB[Product.MILAN]}}
    ),
    "no product line at all": Case({"SNP_NO_REFERENCE_TCB"}, reference={"minimum_tcb": {}}),
    "an old TCB": Case({"SNP_TCB_BELOW_MINIMUM"}, defects=frozenset({SnpDefect.STALE_TCB})),
    "launched on an old TCB": Case({"SNP_TCB_BELOW_MINIMUM"}, fields={"launch_tcb": STALE}),
    "committed to an old TCB": Case(
        {"SNP_TCB_BELOW_MINIMUM", "SNP_PROVISIONAL_FIRMWARE"},
        defects=frozenset({SnpDefect.PROVISIONAL_FIRMWARE}),
    ),
    "old firmware": Case({"SNP_FIRMWARE_BELOW_MINIMUM"}, reference={"minimum_firmware": FirmwareVersion(1, 55, 50)}),
    "policy bit 17 off": Case({"SNP_POLICY_RESERVED"}, fields={"policy": 0x1F}),
    "policy bit 26 on": Case({"SNP_POLICY_RESERVED"}, fields={"policy": DEFAULT_POLICY | 1 << 26}),
    "debug": Case({"SNP_DEBUG_ALLOWED"}, defects=frozenset({SnpDefect.DEBUG})),
    "a migration agent": Case({"SNP_MIGRATE_MA_ALLOWED"}, defects=frozenset({SnpDefect.MIGRATE_MA})),
    "an allowed migration agent that is not approved": Case(
        {"SNP_MIGRATE_MA_ALLOWED"},
        defects=frozenset({SnpDefect.MIGRATE_MA}),
        reference={"policy_allowed": GuestPolicy.MIGRATE_MA, "migration_agents": frozenset({b"\x01" * 32})},
    ),
    "an approved migration agent where no migration is allowed": Case(
        {"SNP_MIGRATE_MA_ALLOWED"},
        fields={"policy": DEFAULT_POLICY | GuestPolicy.MIGRATE_MA, "report_id_ma": b"\x07" * 32},
        reference={"migration_agents": frozenset({b"\x07" * 32})},
    ),
    "SMT": Case({"SNP_SMT_ALLOWED"}, fields={"policy": DEFAULT_POLICY | GuestPolicy.SMT}),
    "CXL": Case({"SNP_CXL_ALLOWED"}, fields={"policy": DEFAULT_POLICY | GuestPolicy.CXL}),
    "no single socket": Case({"SNP_POLICY_REQUIREMENT"}, reference={"policy_required": GuestPolicy.SINGLE_SOCKET}),
    "an old ABI": Case({"SNP_POLICY_ABI"}, reference={"minimum_abi": (0, 0x20)}),
    "SMT against the policy": Case({"SNP_POLICY_PLATFORM"}, fields={"platform_info": PLATFORM | PlatformInfo.SMT_EN}),
    "RAPL against the policy": Case({"SNP_POLICY_PLATFORM"}, fields={"policy": DEFAULT_POLICY | GuestPolicy.RAPL_DIS}),
    "no ciphertext hiding against the policy": Case(
        {"SNP_POLICY_PLATFORM"}, fields={"policy": DEFAULT_POLICY | GuestPolicy.CIPHERTEXT_HIDING_DRAM}
    ),
    "no alias check": Case({"SNP_ALIAS_CHECK"}, defects=frozenset({SnpDefect.NO_ALIAS_CHECK})),
    "no TSME": Case({"SNP_PLATFORM_REQUIREMENT"}, reference={"platform_required": PlatformInfo.TSME_EN}),
    "TIO": Case(
        {"SNP_PLATFORM_FORBIDDEN"},
        fields={"platform_info": PLATFORM | PlatformInfo.TIO_EN},
        reference={"platform_forbidden": PlatformInfo.TIO_EN},
    ),
    "platform bit 6": Case({"SNP_PLATFORM_UNKNOWN"}, fields={"platform_info": PLATFORM | 1 << 6}),
    "platform bit 63": Case({"SNP_PLATFORM_UNKNOWN"}, fields={"platform_info": PLATFORM | 1 << 63}),
    "a mitigation that was off at launch": Case(
        {"SNP_MITIGATION_VECTOR"}, fields={"launch_mit_vector": 0x09}, reference={"mitigations": 0x0B}
    ),
    "a mitigation that is off now": Case(
        {"SNP_MITIGATION_VECTOR"}, fields={"current_mit_vector": 0x0A}, reference={"mitigations": 0x0B}
    ),
    "a report without mitigation vectors": Case({"SNP_MITIGATION_VECTOR"}, version=3, reference={"mitigations": 1}),
    "VMPL 1": Case({"SNP_VMPL"}, defects=frozenset({SnpDefect.VMPL_1})),
    "other report data": Case({"SNP_REPORT_DATA"}, defects=frozenset({SnpDefect.WRONG_REPORT_DATA})),
    "nothing expected": Case({"SNP_REPORT_DATA_UNCHECKED"}, changes={"expected_report_data": None}),
    "another measurement": Case({"SNP_MEASUREMENT"}, reference={"measurements": frozenset({bytes(48)})}),
    "no measurement is approved": Case({"SNP_MEASUREMENT"}, reference={"measurements": frozenset()}),
    "other host data": Case({"SNP_HOST_DATA"}, reference={"host_data": frozenset({b"\x01" * 32})}),
    "another identity key": Case({"SNP_ID_KEY_DIGEST"}, reference={"id_key_digests": frozenset({b"\x01" * 48})}),
    "another author": Case({"SNP_AUTHOR_KEY_DIGEST"}, reference={"author_key_digests": frozenset({b"\x01" * 48})}),
    "another family": Case({"SNP_FAMILY_ID"}, reference={"family_ids": frozenset({b"\x01" * 16})}),
    "another image": Case({"SNP_IMAGE_ID"}, reference={"image_ids": frozenset({b"\x01" * 16})}),
    "an old guest": Case({"SNP_GUEST_SVN"}, reference={"minimum_guest_svn": 2}),
}
INFORM_ONLY = {"nothing expected"}
AUTHENTICITY = {
    "SNP_SIGNING_KEY",
    "SNP_VEK_KIND",
    "SNP_CHAIN_SHAPE",
    "SNP_ROOT_NOT_PINNED",
    "SNP_CHAIN_SIGNATURE",
    "SNP_CHAIN_NAMES",
    "SNP_CHAIN_CA",
    "SNP_CHAIN_VALIDITY",
    "SNP_SIGNATURE",
    "SNP_SIGNATURE_ALGORITHM",
}


ORIGIN = "accepted.toml, serial 7, signed by KEY"
OPERATORS = {
    check.code
    for check in (
        checks.VERSION,
        checks.CRL_ROLLBACK,
        checks.CHIP_ID_MASKED,
        checks.NO_REFERENCE_TCB,
        checks.TCB_MINIMUM,
        checks.FIRMWARE_MINIMUM,
        checks.DEBUG,
        checks.MIGRATE_MA,
        checks.SMT,
        checks.CXL,
        checks.POLICY_REQUIRED,
        checks.ABI_MINIMUM,
        checks.ALIAS_CHECK,
        checks.PLATFORM_REQUIRED,
        checks.PLATFORM_FORBIDDEN,
        checks.PLATFORM_UNKNOWN,
        checks.MITIGATION,
        checks.VMPL,
        checks.GUEST_SVN,
        checks.MEASUREMENT,
        checks.HOST_DATA,
        checks.ID_KEY,
        checks.AUTHOR_KEY,
        checks.FAMILY_ID,
        checks.IMAGE_ID,
    )
}
"""Checks against an operator's value; the others are against a specification, a certificate or this session."""


@pytest.mark.parametrize("name", CASES)
def test_one_thing_wrong(name: str, pki: SimulatedAmdPki, other_pki: SimulatedAmdPki) -> None:
    case = CASES[name]
    chip = _chip(pki, case.product, **case.chip)
    evidence = chip.evidence(REPORT_DATA, version=case.version, defects=case.defects, fields=case.fields)
    if case.evidence is not None:
        evidence = case.evidence(evidence, pki, other_pki)
    changes: dict[str, Any] = {"reference": replace(REFERENCE, origin=ORIGIN, **case.reference), **case.changes}
    if case.crls is not None:
        changes["collateral"] = Collateral(crls=case.crls(pki, other_pki))
    if case.anchors is not None:
        changes["anchors"] = case.anchors(pki, other_pki)
    result = _verify(evidence, pki, **changes)
    assert _codes(result) == case.codes
    assert result.ok is (name in INFORM_ONLY)
    if case.codes & AUTHENTICITY:
        assert result.claims["authentic"] is False
        assert result.identity is None
    for finding in result.findings:
        assert finding.expected
        assert finding.actual
        assert finding.remedy
        assert finding.reference == whose_word(finding.code)
    assert list(result.findings) == sorted(result.findings)


def whose_word(code: str) -> str:
    """Who says what a check expects: the operator, this session, or the specification."""
    if code in {"SNP_REPORT_DATA", "SNP_REPORT_DATA_UNCHECKED"}:
        return "this session"
    return ORIGIN if code in OPERATORS else next(check.source for check in checks.CHECKS if check.code == code)


def test_every_check_has_a_case_that_violates_it() -> None:
    assert {check.code for check in checks.CHECKS} == set().union(*(case.codes for case in CASES.values()))


def test_a_denial_carries_every_reason_at_once(pki: SimulatedAmdPki) -> None:
    evidence = _chip(pki).evidence(
        REPORT_DATA, defects=frozenset({SnpDefect.DEBUG, SnpDefect.STALE_TCB, SnpDefect.BAD_SIGNATURE})
    )
    assert _codes(_verify(evidence, pki)) == {"SNP_DEBUG_ALLOWED", "SNP_TCB_BELOW_MINIMUM", "SNP_SIGNATURE"}


def test_what_the_reference_values_allow_passes(pki: SimulatedAmdPki) -> None:
    agent = b"\x07" * 32
    allowed = GuestPolicy.SMT | GuestPolicy.CXL | GuestPolicy.DEBUG | GuestPolicy.MIGRATE_MA
    required = (
        GuestPolicy.SINGLE_SOCKET
        | GuestPolicy.MEM_AES_256_XTS
        | GuestPolicy.RAPL_DIS
        | GuestPolicy.CIPHERTEXT_HIDING_DRAM
        | GuestPolicy.PAGE_SWAP_DISABLE
    )
    fields = {
        "policy": DEFAULT_POLICY | allowed | required,
        "platform_info": 0xFF,
        "report_id_ma": agent,
        "vmpl": 2,
        "host_data": b"\x01" * 32,
        "chip_id": bytes(64),
        "guest_svn": 7,
    }
    reference = replace(
        REFERENCE,
        versions=frozenset({5}),
        vmpls=frozenset({2}),
        policy_allowed=allowed,
        policy_required=required,
        minimum_abi=(0, 31),
        migration_agents=frozenset({agent}),
        platform_required=0xBF,
        platform_tolerated=1 << 6,
        minimum_firmware=FIRMWARE,
        mitigations=0x0B,
        allow_masked_chip_id=True,
        measurements=frozenset({DEFAULT_MEASUREMENT}),
        host_data=frozenset({b"\x01" * 32}),
        id_key_digests=frozenset({bytes(48)}),
        author_key_digests=frozenset({bytes(48)}),
        family_ids=frozenset({bytes(16)}),
        image_ids=frozenset({bytes(16)}),
        minimum_guest_svn=7,
        crl_number_floor={Product.GENOA: 4},
    )
    result = _verify(_chip(pki).evidence(REPORT_DATA, fields=fields), pki, reference=reference)
    assert result.findings == ()
    assert result.identity is None, "a masked chip proves no identity"


@pytest.mark.parametrize("csp_id", [None, "CN=x"])
def test_a_masked_chip_id_is_not_said_to_be_the_leafs(pki: SimulatedAmdPki, csp_id: str | None) -> None:
    evidence = _chip(pki, Product.TURIN, csp_id=csp_id).evidence(REPORT_DATA, fields={"chip_id": bytes(64)})
    result = _verify(evidence, pki, reference=replace(REFERENCE, allow_masked_chip_id=True))
    assert result.findings == ()
    assert "SNP_HWID" not in {each.code for each in result.passed}


def test_defaults_are_strict() -> None:
    assert REFERENCE.policy_allowed == 0
    assert REFERENCE.versions == {3, 4, 5}
    assert REFERENCE.vmpls == {0}
    assert REFERENCE.platform_required & PlatformInfo.ALIAS_CHECK_COMPLETE
    assert not REFERENCE.allow_masked_chip_id
    failing = {check.code for check in checks.CHECKS if check.severity is Severity.FAIL}
    assert {check.code for check in checks.CHECKS} - failing == {"SNP_REPORT_DATA_UNCHECKED"}


def test_a_profile_changes_severities_and_nothing_else(pki: SimulatedAmdPki) -> None:
    evidence = _chip(pki).evidence(REPORT_DATA, defects=frozenset({SnpDefect.DEBUG, SnpDefect.VMPL_1}))
    lax = Profile("test", {"SNP_DEBUG_ALLOWED": Deviation(Severity.INFORM, "for this test")})
    strict, judged = _verify(evidence, pki, profile=STRICT), _verify(evidence, pki, profile=lax)
    assert _codes(strict) == _codes(judged) == {"SNP_DEBUG_ALLOWED", "SNP_VMPL"}
    assert {finding.code: finding.severity for finding in judged.findings} == {
        "SNP_DEBUG_ALLOWED": Severity.INFORM,
        "SNP_VMPL": Severity.FAIL,
    }


def test_a_cached_chain_still_expires(pki: SimulatedAmdPki) -> None:
    evidence, anchors = _chip(pki).evidence(REPORT_DATA), pki.anchors()
    assert _verify(evidence, pki, anchors=anchors).ok
    later = NOW + 8 * YEAR
    crls = Collateral(crls=(pki.crl(Product.GENOA, this_update=later - DAY),))
    assert _codes(_verify(evidence, pki, anchors=anchors, now=later, collateral=crls)) == {"SNP_CHAIN_VALIDITY"}


def test_any_crl_number_is_new_where_none_was_used(pki: SimulatedAmdPki) -> None:
    first = Collateral(crls=(pki.crl(Product.GENOA, this_update=NOW - DAY, number=0),))
    assert _verify(_chip(pki).evidence(REPORT_DATA), pki, collateral=first).ok


def test_a_cached_crl_still_expires_and_a_rejected_chain_is_not_cached(
    pki: SimulatedAmdPki, other_pki: SimulatedAmdPki
) -> None:
    evidence, anchors = _chip(pki).evidence(REPORT_DATA), pki.anchors()
    crls = Collateral(crls=(pki.crl(Product.GENOA, this_update=NOW - DAY, next_update=NOW + DAY),))
    assert _verify(evidence, pki, anchors=anchors, collateral=crls).ok
    assert _codes(_verify(evidence, pki, anchors=anchors, collateral=crls, now=NOW + DAY)) == {"SNP_CRL_WINDOW"}
    broken = _foreign_root(evidence, pki, other_pki)
    first, second = (_verify(broken, pki, anchors=anchors) for _ in range(2))
    assert first == second
    assert not second.ok


def test_a_list_of_this_second_is_new(pki: SimulatedAmdPki) -> None:
    crls = Collateral(crls=(pki.crl(Product.GENOA, this_update=NOW),))
    result = _verify(_chip(pki).evidence(REPORT_DATA), pki, collateral=crls)
    assert result.ok
    assert result.collateral_age == {"amd-crl": 0}


def test_a_list_from_the_future_has_a_finding_and_no_age(pki: SimulatedAmdPki) -> None:
    crls = Collateral(crls=(pki.crl(Product.GENOA, this_update=NOW + DAY),))
    result = _verify(_chip(pki).evidence(REPORT_DATA), pki, collateral=crls)
    assert _codes(result) == {"SNP_CRL_WINDOW"}
    assert result.collateral_age == {}
    assert not result.ok


def test_authorities_seen_before_change_no_verdict_on_another_chip(
    pki: SimulatedAmdPki, other_pki: SimulatedAmdPki
) -> None:
    seen = pki.anchors()
    assert _verify(_chip(pki).evidence(REPORT_DATA), pki, anchors=seen).ok
    chip = SimulatedSnp(pki, product=Product.GENOA, seed=b"another chip", now=NOW)
    sound = chip.evidence(REPORT_DATA)
    stranger = SimulatedSnp(other_pki, product=Product.GENOA, seed=b"another chip", now=NOW).evidence(REPORT_DATA)
    for evidence, codes in (
        (sound, set()),
        # The leaf is of others, the authorities are the ones seen before: its own signature and the report's fail.
        (
            replace(sound, certificates=(stranger.certificates[0], *sound.certificates[1:])),
            {"SNP_CHAIN_SIGNATURE", "SNP_SIGNATURE"},
        ),
        (_tampered_ask(sound, pki, other_pki), None),
    ):
        warm = _verify(evidence, pki, anchors=seen)
        assert warm == _verify(evidence, pki, anchors=pki.anchors())
        assert codes is None or _codes(warm) >= codes
        assert warm.ok is (codes == set())


def test_one_bit_of_any_certificate_breaks_the_chain(pki: SimulatedAmdPki) -> None:
    evidence, anchors = _chip(pki).evidence(REPORT_DATA), pki.anchors()
    assert _verify(evidence, pki, anchors=anchors).ok
    for which, der in enumerate(evidence.certificates):
        for at in (30, len(der) // 2, len(der) - 1):
            certificates = tuple(
                _flip(each, at) if index == which else each for index, each in enumerate(evidence.certificates)
            )
            try:
                assert not _verify(replace(evidence, certificates=certificates), pki, anchors=anchors).ok
            except MalformedError:
                continue


def test_every_signed_byte_counts(pki: SimulatedAmdPki) -> None:
    evidence, anchors = _chip(pki).evidence(REPORT_DATA), pki.anchors()
    for at in range(0, 0x2A0, 13):
        try:
            result = _verify(replace(evidence, data=_flip(evidence.data, at)), pki, anchors=anchors)
        except MalformedError:
            continue
        assert "SNP_SIGNATURE" in _codes(result)
        assert result.identity is None


def test_expected_report_data_of_another_length_is_not_padded(pki: SimulatedAmdPki) -> None:
    evidence = _chip(pki).evidence(bytes(64))
    for size in (0, 32, 63, 65):
        with pytest.raises(MalformedError, match=f"{size} bytes"):
            _verify(evidence, pki, expected_report_data=bytes(size))


def test_a_tcb_with_reserved_bytes_cannot_be_judged(pki: SimulatedAmdPki) -> None:
    evidence = _chip(pki).evidence(REPORT_DATA, fields={"current_tcb": b"\x0a\x00\x01\x00\x00\x00\x17\x54"})
    with pytest.raises(MalformedError, match="reserved"):
        _verify(evidence, pki)


@pytest.mark.parametrize("at", [8, 63])
def test_a_turin_that_states_more_than_its_hwid_proves_no_identity(pki: SimulatedAmdPki, at: int) -> None:
    chip = _chip(pki, Product.TURIN)
    stated = bytearray(chip.hwid.ljust(64, b"\0"))
    assert _verify(chip.evidence(REPORT_DATA, fields={"chip_id": bytes(stated)}), pki).identity is not None
    stated[at] = 1
    result = _verify(chip.evidence(REPORT_DATA, fields={"chip_id": bytes(stated)}), pki)
    assert _codes(result) == {"SNP_HWID"}
    assert result.identity is None


def test_authenticate_checks_origin_alone(pki: SimulatedAmdPki) -> None:
    log = CheckLog()
    evidence = _chip(pki).evidence(REPORT_DATA, defects=frozenset({SnpDefect.DEBUG}))
    assert authenticate(evidence, anchors=pki.anchors(), now=NOW, log=log).authentic
    assert log.findings == []


LEAF_DEFECTS: dict[str, tuple[Product, Mapping[str, bytes | None]]] = {
    "no structVersion": (Product.GENOA, {amd.OID_STRUCT_VERSION: None}),
    "structVersion of Turin": (Product.GENOA, {amd.OID_STRUCT_VERSION: asn1.encode_der(1)}),
    "structVersion of Genoa": (Product.TURIN, {amd.OID_STRUCT_VERSION: asn1.encode_der(0)}),
    "no productName": (Product.GENOA, {amd.OID_PRODUCT_NAME: None}),
    "productName as UTF8String": (Product.GENOA, {amd.OID_PRODUCT_NAME: asn1.encode_der("Genoa")}),
    "an unknown productName": (Product.GENOA, {amd.OID_PRODUCT_NAME: asn1.encode_der(asn1.IA5String("Venice"))}),
    "no bootloader level": (Product.GENOA, {amd.OID_BL: None}),
    "no TEE level": (Product.GENOA, {amd.OID_TEE: None}),
    "no SNP level": (Product.GENOA, {amd.OID_SNP: None}),
    "no microcode level": (Product.GENOA, {amd.OID_UCODE: None}),
    "no FMC level": (Product.TURIN, {amd.OID_FMC: None}),
    "an FMC level before Turin": (Product.GENOA, {amd.OID_FMC: asn1.encode_der(0)}),
    "a spare level": (Product.GENOA, {amd.OIDS_SPARE[0]: asn1.encode_der(1)}),
    "a negative level": (Product.GENOA, {amd.OID_UCODE: b"\x02\x01\x80"}),
    "a level above 255": (Product.GENOA, {amd.OID_UCODE: b"\x02\x02\x01\x00"}),
    "a level in more bytes than it needs": (Product.GENOA, {amd.OID_BL: b"\x02\x02\x00\x0a"}),
    "a level with bytes after it": (Product.GENOA, {amd.OID_BL: b"\x02\x01\x0a\x00"}),
    "a level of another type": (Product.GENOA, {amd.OID_BL: b"\x04\x01\x0a"}),
    "no HWID": (Product.GENOA, {amd.OID_HWID: None}),
    "a HWID of Turin's length": (Product.GENOA, {amd.OID_HWID: bytes(8)}),
    "a HWID of Genoa's length": (Product.TURIN, {amd.OID_HWID: bytes(64)}),
    "a CSP_ID in a VCEK": (Product.GENOA, {amd.OID_CSP_ID: asn1.encode_der(asn1.IA5String("CN=x"))}),
    "an unknown AMD extension": (Product.GENOA, {"1.3.6.1.4.1.3704.1.3.10": asn1.encode_der(0)}),
}


@pytest.mark.parametrize("name", LEAF_DEFECTS)
def test_a_malformed_leaf_cannot_be_judged(name: str, pki: SimulatedAmdPki) -> None:
    product, overrides = LEAF_DEFECTS[name]
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    arguments: dict[str, Any] = {
        "product": product,
        "public_key": key,
        "tcb": CURRENT_TCB[product],
        "hwid": bytes(8 if product is Product.TURIN else 64),
        "not_before": NOW,
    }
    assert amd.VekCertificate.parse(pki.issue_vcek(**arguments)).kind == "VCEK"
    with pytest.raises(MalformedError):
        amd.VekCertificate.parse(pki.issue_vcek(**arguments, overrides=overrides))


@pytest.mark.parametrize(
    "overrides", [{amd.OID_CSP_ID: None}, {amd.OID_HWID: bytes(64)}, {amd.OID_CSP_ID: b"\x0c\x04CN=x"}]
)
def test_a_malformed_vlek_cannot_be_judged(pki: SimulatedAmdPki, overrides: Mapping[str, bytes | None]) -> None:
    arguments: dict[str, Any] = {
        "product": Product.MILAN,
        "public_key": ec.generate_private_key(ec.SECP384R1()).public_key(),
        "tcb": CURRENT_TCB[Product.MILAN],
        "csp_id": "CN=x",
        "not_before": NOW,
    }
    assert amd.VekCertificate.parse(pki.issue_vlek(**arguments)).kind == "VLEK"
    with pytest.raises(MalformedError):
        amd.VekCertificate.parse(pki.issue_vlek(**arguments, overrides=overrides))


def test_a_leaf_on_another_curve_cannot_be_judged(pki: SimulatedAmdPki) -> None:
    leaf = pki.issue_vcek(
        product=Product.GENOA,
        public_key=ec.generate_private_key(ec.SECP256R1()).public_key(),
        tcb=GENOA_TCB,
        hwid=bytes(64),
        not_before=NOW,
    )
    with pytest.raises(MalformedError, match="P-384"):
        amd.VekCertificate.parse(leaf)


def test_an_authority_is_not_a_leaf(pki: SimulatedAmdPki) -> None:
    with pytest.raises(MalformedError, match="common name"):
        amd.VekCertificate.parse(pki.certificates[Product.GENOA].ask)


def test_a_certificate_bomb_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(MalformedError, match="at most"):
        amd.VekCertificate.parse(b"\x30\x84\x7f\xff\xff\xff" + bytes(10_000))
