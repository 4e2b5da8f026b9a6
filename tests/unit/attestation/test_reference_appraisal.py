"""What all schemes share: the values' window, lists of devices, advisories; each check fires, and holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attestation.errors import ManifestError
from attestation.findings import CheckLog, Severity
from attestation.profile import STRICT, Deviation, Profile
from attestation.reference import checks
from attestation.reference.advisories import dump_advisories, parse_advisories
from attestation.reference.appraisal import appraise_reference
from attestation.reference.shipped import shipped_advisories
from attestation.reference.values import parse_reference_values
from attestation.scheme import ReferenceValues
from attestation.simulator.node import SimulatedVendors
from attestation.simulator.snp import CURRENT_TCB, STALE_TCB, SimulatedSnp, SnpDefect
from attestation.snp.abi import PlatformInfo, Product
from attestation.types import DeviceResult, HardwareIdentity
from attestation.verifier import verify_evidence

NOW = 1_790_000_000
REPORT_DATA = bytes(64)
ABOUT = {"issuer": "ACME", "serial": 7, "issued": "2026-01-01T00:00:00Z"}
TABLE = {"issuer": "ACME", "serial": 3, "issued": "2026-01-01T00:00:00Z", "next_update": "2027-01-01T00:00:00Z"}
SERIAL = "41" + "0" * 15 + "7"


def advisory(**changes: Any) -> dict[str, Any]:
    """One advisory about every SEV-SNP product."""
    base = {"id": "AMD-SB-1", "title": "a flaw", "products": ["Milan", "Genoa", "Turin"], "basis": "a test"}
    return base | changes


def table(*advisories: Mapping[str, Any], signers: tuple[str, ...] = ("KEY",), **about: Any):
    """A table called ``table.json``."""
    data = json.dumps({"about": TABLE | about, "advisory": list(advisories)}).encode()
    return parse_advisories(data, name="table.json", signers=signers)


def values(**sections: Any) -> ReferenceValues:
    """Reference values that sound simulated chips meet, from a file called ``values.json``, signed."""
    minimum = {product.value: dict(tcb.components()) for product, tcb in CURRENT_TCB.items()}
    tables = sections.pop("tables", ())
    document = {"about": ABOUT, "snp": {"minimum_tcb": minimum}} | sections
    return parse_reference_values(
        json.dumps(document).encode(), name="values.json", signers=("KEY",), advisories=tables
    )


def judge(vendors: SimulatedVendors, reference: ReferenceValues, **options: Any) -> DeviceResult:
    """The verifier's result for one simulated chip."""
    product = options.pop("product", Product.GENOA)
    fields, defects = options.pop("fields", {}), options.pop("defects", ())
    now, profile = options.pop("now", NOW), options.pop("profile", STRICT)
    chip = SimulatedSnp(vendors.amd, product=product, seed=b"chip", now=NOW, **options)
    return verify_evidence(
        chip.evidence(REPORT_DATA, defects=frozenset(defects), fields=fields),
        expected=REPORT_DATA,
        anchors=vendors.anchors(),
        reference=reference,
        collateral=vendors.collateral(this_update=NOW - 60),
        now=now,
        profile=profile,
    )


def appraise(claims: Mapping[str, Any], reference: ReferenceValues, *, scheme: str = "snp", **fields: Any) -> CheckLog:
    """The shared checks alone, on claims as a scheme would have left them."""
    log = CheckLog()
    result = DeviceResult(slot="cpu0", scheme=scheme, claims=claims, identity=fields.pop("identity", None), findings=())
    appraise_reference(result, reference=reference, now=fields.pop("now", NOW), log=log)
    return log


def codes(log: CheckLog | DeviceResult) -> set[str]:
    return {finding.code for finding in log.findings}


def test_a_sound_chip_meets_a_sound_table(vendors: SimulatedVendors) -> None:
    flaw = advisory(platform_required=["ALIAS_CHECK_COMPLETE"], minimum_tcb={"snp": 4})
    result = judge(vendors, values(tables=[table(flaw)]))
    assert result.findings == ()
    assert {passed.code for passed in result.passed} >= {
        "REFERENCE_VALUES_WINDOW",
        "SNP_ADVISORIES_STALE",
        "SNP_ADVISORY_UNMET",
    }
    assert list(result.appraised_by) == [
        "values.json, serial 7, signed by KEY",
        "table.json of 2026-01-01, serial 3, signed by KEY",
    ]
    assert all(len(digest) == 64 for digest in result.appraised_by.values())


def test_no_table_is_said_and_does_not_fail(vendors: SimulatedVendors) -> None:
    result = judge(vendors, values())
    assert codes(result) == {"SNP_ADVISORIES_NONE"}
    assert result.ok
    assert codes(appraise({"product": "GH100"}, values(), scheme="nvgpu")) == set()
    nvidia = table(advisory(products=["GH100"], minimum_driver=["570.1"]))
    assert codes(judge(vendors, values(tables=[nvidia]))) == {"SNP_ADVISORIES_NONE"}, "a table about others is none"


@pytest.mark.parametrize(
    ("about", "ok"),
    [
        ({}, True),
        ({"expires": "2027-01-01T00:00:00Z"}, True),
        ({"expires": "2026-09-21T14:13:20Z"}, False),
        ({"expires": "2026-09-21T14:13:21Z"}, True),
        ({"issued": "2026-09-21T14:13:20Z"}, True),
        ({"issued": "2026-09-21T14:13:21Z"}, False),
    ],
)
def test_reference_values_hold_from_issued_to_expires(about: dict[str, str], ok: bool) -> None:
    log = appraise({"product": "Genoa"}, values(about=ABOUT | about))
    assert ("REFERENCE_VALUES_WINDOW" not in codes(log)) is ok


@pytest.mark.parametrize(
    ("about", "grace", "ok"),
    [
        ({"next_update": "2026-09-21T14:13:20Z"}, 0, False),
        ({"next_update": "2026-09-21T14:13:21Z"}, 0, True),
        ({"next_update": "2026-09-21T14:13:10Z"}, 10, False),
        ({"next_update": "2026-09-21T14:13:10Z"}, 11, True),
        ({"issued": "2026-09-21T14:13:21Z"}, 0, False),
    ],
)
@pytest.mark.parametrize("scheme", ["snp", "nvgpu"])
def test_a_stale_table_fails_after_its_grace(scheme: str, about: dict[str, str], grace: int, ok: bool) -> None:
    flaw = advisory(minimum_tcb={"snp": 0}) if scheme == "snp" else advisory(products=["GH100"], minimum_driver=["1.0"])
    log = appraise(
        {"product": "none of them"}, values(tables=[table(flaw, **about)], advisories_grace=grace), scheme=scheme
    )
    code = "SNP_ADVISORIES_STALE" if scheme == "snp" else "NVIDIA_ADVISORIES_STALE"
    assert codes(log) == (set() if ok else {code})
    assert all(finding.severity is Severity.FAIL for finding in log.findings)


SOUND = {
    "product": "Genoa",
    "cpuid": "191101",
    "reported_tcb": {"bl": 10, "tee": 0, "snp": 23, "ucode": 84, "fmc": None},
    "committed_tcb": {"bl": 10, "tee": 0, "snp": 23, "ucode": 84, "fmc": None},
    "launch_tcb": {"bl": 10, "tee": 0, "snp": 23, "ucode": 84, "fmc": None},
    "committed_firmware": "1.55.40",
    "platform_info": "0x0000000000000025",
    "policy": "0x000000000003001f",
    "launch_mit_vector": "0x000000000000000b",
    "current_mit_vector": "0x000000000000000b",
}


@pytest.mark.parametrize(
    ("asked", "claims", "expected", "actual"),
    [
        ({"minimum_tcb": {"snp": 24}}, {}, "REPORTED_TCB snp at least 24", "COMMITTED_TCB snp 23"),
        ({"minimum_tcb": {"ucode": 85}}, {}, "LAUNCH_TCB ucode at least 85", "LAUNCH_TCB ucode 84"),
        ({"minimum_tcb": {"bl": 11}}, {}, "bl at least 11", "bl 10"),
        ({"minimum_tcb": {"tee": 1}}, {}, "tee at least 1", "tee 0"),
        ({"minimum_tcb": {"snp": 1}}, {"launch_tcb": None}, "LAUNCH_TCB snp", "LAUNCH_TCB snp not stated"),
        ({"minimum_tcb": {"snp": 23}}, {"committed_tcb": {"snp": 22}}, "COMMITTED_TCB snp at least 23", "snp 22"),
        ({"minimum_firmware": [1, 55, 41]}, {}, "COMMITTED_VERSION at least 1.55.41", "COMMITTED_VERSION 1.55.40"),
        ({"minimum_firmware": [1, 0, 0]}, {"committed_firmware": None}, "at least 1.0.0", "not stated"),
        ({"platform_required": ["CIPHERTEXT_HIDING_DRAM_EN"]}, {}, "CIPHERTEXT_HIDING_DRAM_EN on", "_DRAM_EN off"),
        ({"platform_required": ["ECC_EN"]}, {"platform_info": None}, "ECC_EN on", "ECC_EN not stated"),
        ({"platform_forbidden": ["SMT_EN"]}, {}, "PLATFORM_INFO.SMT_EN off", "PLATFORM_INFO.SMT_EN on"),
        ({"policy_required": ["PAGE_SWAP_DISABLE"]}, {}, "POLICY.PAGE_SWAP_DISABLE on", "PAGE_SWAP_DISABLE off"),
        ({"policy_forbidden": ["SMT"]}, {}, "POLICY.SMT off", "POLICY.SMT on"),
        ({"policy_forbidden": ["DEBUG"]}, {"policy": None}, "DEBUG off", "DEBUG not stated"),
        ({"mitigations": 4}, {}, "LAUNCH_MIT_VECTOR with 0x4", "CURRENT_MIT_VECTOR 0xb"),
        ({"mitigations": 1}, {"current_mit_vector": "0x0"}, "CURRENT_MIT_VECTOR with 0x1", "CURRENT_MIT_VECTOR 0x0"),
        ({"mitigations": 1}, {"launch_mit_vector": None}, "LAUNCH_MIT_VECTOR", "not stated"),
    ],
)
def test_an_advisory_that_is_not_met(asked: Any, claims: Any, expected: str, actual: str) -> None:
    stated = {name: value for name, value in (SOUND | claims).items() if value is not None}
    log = appraise(stated, values(tables=[table(advisory(**asked))]))
    assert codes(log) == {"SNP_ADVISORY_UNMET"}
    (finding,) = log.findings
    assert finding.field == "advisory AMD-SB-1"
    assert expected in finding.expected
    assert actual in finding.actual
    assert finding.reference == "AMD-SB-1 in table.json of 2026-01-01, serial 3, signed by KEY"
    assert finding.severity is Severity.FAIL
    # The same, not enforced, informs; and it is about no other product and no other stepping.
    informs = appraise(stated, values(tables=[table(advisory(**asked, enforced=False))]))
    assert [(each.code, each.severity) for each in informs.findings] == [("SNP_ADVISORY_NOT_ENFORCED", Severity.INFORM)]
    assert codes(appraise(stated, values(tables=[table(advisory(**asked, products=["Milan"]))]))) == set()
    assert codes(appraise(stated, values(tables=[table(advisory(**asked, cpuids=["191102"]))]))) == set()
    assert codes(appraise(stated, values(tables=[table(advisory(**asked, cpuids=["191101"]))]))) == {
        "SNP_ADVISORY_UNMET"
    }
    no_stepping = {name: value for name, value in stated.items() if name != "cpuid"}
    assert codes(appraise(no_stepping, values(tables=[table(advisory(**asked, cpuids=["191102"]))]))) == {
        "SNP_ADVISORY_UNMET"
    }
    no_product = {name: value for name, value in stated.items() if name != "product"}
    assert codes(appraise(no_product, values(tables=[table(advisory(**asked))]))) == {"SNP_ADVISORY_UNMET"}


@pytest.mark.parametrize(
    "asked",
    [
        {"minimum_tcb": {"snp": 23, "ucode": 84, "bl": 10, "tee": 0}},
        {"minimum_firmware": [1, 55, 40]},
        {"platform_required": ["ALIAS_CHECK_COMPLETE", "ECC_EN"], "platform_forbidden": ["TSME_EN"]},
        {"policy_required": ["SMT"], "policy_forbidden": ["DEBUG"]},
        {"mitigations": 0b1011},
    ],
)
def test_an_advisory_that_is_met(asked: Any) -> None:
    log = appraise(SOUND, values(tables=[table(advisory(**asked))]))
    assert log.findings == []
    assert "SNP_ADVISORY_UNMET" in {passed.code for passed in log.passed}


def test_every_unmet_advisory_is_a_finding_of_its_own() -> None:
    flaws = [advisory(id=f"A-{number}", minimum_tcb={"snp": 30}) for number in range(3)]
    log = appraise(SOUND, values(tables=[table(*flaws[:2]), table(flaws[2])]))
    assert [finding.field for finding in log.findings] == ["advisory A-0", "advisory A-1", "advisory A-2"]


@pytest.mark.parametrize(
    ("claims", "asked", "ok"),
    [
        ({"driver_version": "570.124.06"}, {"minimum_driver": ["570.124.06"]}, True),
        ({"driver_version": "570.124.05"}, {"minimum_driver": ["570.124.06"]}, False),
        ({"driver_version": "580.1"}, {"minimum_driver": ["550.144", "570.124.06"]}, True),
        ({"driver_version": "550.150"}, {"minimum_driver": ["550.144", "570.124.06"]}, True),
        ({"driver_version": "550.143"}, {"minimum_driver": ["550.144", "570.124.06"]}, False),
        ({"driver_version": "560.99"}, {"minimum_driver": ["550.144", "570.124.06"]}, False),
        ({"driver_version": "r570"}, {"minimum_driver": ["570.124.06"]}, False),
        ({}, {"minimum_driver": ["570.124.06"]}, False),
        ({"vbios_version": "96.00.AF.00.01"}, {"minimum_vbios": "96.00.AF.00.01"}, True),
        ({"vbios_version": "96.00.9F.00.01"}, {"minimum_vbios": "96.00.AF.00.01"}, False),
        ({"vbios_version": "96.00.b0.00.00"}, {"minimum_vbios": "96.00.AF.00.01"}, True),
        ({"bios_version": "96.10.00.00.00"}, {"minimum_vbios": "96.10.6d.00.01"}, False),
        ({"vbios_version": "zz"}, {"minimum_vbios": "96.00.AF.00.01"}, False),
        ({}, {"minimum_vbios": "96.00.AF.00.01"}, False),
    ],
)
def test_nvidias_devices_are_held_to_drivers_and_firmware(claims: Any, asked: Any, ok: bool) -> None:
    reference = values(tables=[table(advisory(products=["GH100"], **asked))])
    log = appraise({"product": "GH100"} | claims, reference, scheme="nvgpu")
    assert codes(log) == (set() if ok else {"NVIDIA_ADVISORY_UNMET"})
    quiet = values(tables=[table(advisory(products=["GH100"], enforced=False, **asked))])
    informs = appraise({"product": "GH100"} | claims, quiet, scheme="nvgpu")
    assert codes(informs) == (set() if ok else {"NVIDIA_ADVISORY_NOT_ENFORCED"})
    assert codes(appraise({"product": "GB100"} | claims, reference, scheme="nvgpu")) == set()


def test_a_distrusted_product_passes_with_a_trusted_chip_alone(vendors: SimulatedVendors) -> None:
    tables = [table(advisory(products=["Milan"], distrust=True))]
    refused = judge(vendors, values(tables=tables), product=Product.MILAN)
    assert codes(refused) == {"SNP_PRODUCT_DISTRUSTED"}
    assert not refused.ok
    trusted = {"trusted_chips": [str(refused.identity)]}
    assert judge(vendors, values(tables=tables, devices=trusted), product=Product.MILAN).findings == ()
    other = {"trusted_chips": [f"amd-chip-id:{'ab' * 64}"]}
    assert codes(judge(vendors, values(tables=tables, devices=other), product=Product.MILAN)) == codes(refused)
    vlek = judge(vendors, values(tables=tables, devices=trusted), product=Product.MILAN, csp_id="CN=provider")
    assert codes(vlek) == codes(refused), "a VLEK proves no chip"
    assert judge(vendors, values(tables=tables)).findings == (), "another product"
    nvidia = values(tables=[table(advisory(products=["GH100"], distrust=True))])
    assert codes(appraise({"product": "GH100"}, nvidia, scheme="nvgpu")) == {"NVIDIA_PRODUCT_DISTRUSTED"}


@pytest.mark.parametrize("product", Product)
@pytest.mark.parametrize("csp_id", [None, "CN=provider.example"])
def test_a_denied_chip_never_passes(vendors: SimulatedVendors, product: Product, csp_id: str | None) -> None:
    chip = SimulatedSnp(vendors.amd, product=product, seed=b"chip", now=NOW)
    flaw = [table(advisory(minimum_tcb={"snp": 0}))]
    for form in {chip.hwid.hex(), chip.chip_id.hex()}:
        denied = {"denied": [{"identity": f"amd-chip-id:{form}", "reason": "stolen in March"}]}
        result = judge(vendors, values(devices=denied, tables=flaw), product=product, csp_id=csp_id)
        assert codes(result) == {"IDENTITY_DENIED"}
        assert not result.ok
        assert "stolen in March" in result.findings[0].actual
        assert result.findings[0].reference == "values.json, serial 7, signed by KEY"
    other = {"denied": [{"identity": f"amd-chip-id:{'ab' * 64}", "reason": "stolen"}]}
    assert judge(vendors, values(devices=other, tables=flaw), product=product, csp_id=csp_id).findings == ()


def test_a_chip_that_hides_its_identity_may_be_a_denied_one(vendors: SimulatedVendors) -> None:
    minimum = {product.value: dict(tcb.components()) for product, tcb in CURRENT_TCB.items()}
    masked = {"snp": {"minimum_tcb": minimum, "allow_masked_chip_id": True}, "tables": [table(advisory(mitigations=1))]}
    options = {"csp_id": "CN=provider", "defects": [SnpDefect.MASKED_CHIP_ID]}
    denied = {"denied": [{"identity": f"amd-chip-id:{'ab' * 64}", "reason": "stolen"}]}
    assert judge(vendors, values(**masked), **options).findings == ()
    result = judge(vendors, values(**masked, devices=denied), **options)
    assert codes(result) == {"IDENTITY_HIDDEN"}
    assert not result.ok


def test_an_allow_list_takes_proven_identities_alone(vendors: SimulatedVendors) -> None:
    flaw = [table(advisory(minimum_tcb={"snp": 0}))]
    identity = str(judge(vendors, values(tables=flaw)).identity)
    assert judge(vendors, values(devices={"allowed": [identity]}, tables=flaw)).findings == ()
    for allowed in ([], [f"amd-chip-id:{'ab' * 64}"]):
        result = judge(vendors, values(devices={"allowed": allowed}, tables=flaw))
        assert codes(result) == {"IDENTITY_NOT_ALLOWED"}
        assert not result.ok
    unproven = judge(vendors, values(devices={"allowed": [identity]}, tables=flaw), csp_id="CN=provider")
    assert codes(unproven) == {"IDENTITY_NOT_ALLOWED"}


def test_lists_hold_for_other_schemes_too() -> None:
    identity = HardwareIdentity("nvidia-gpu", SERIAL)
    denied = values(devices={"denied": [{"identity": str(identity), "reason": "borrowed"}]})
    assert codes(appraise({"product": "GH100"}, denied, scheme="nvgpu", identity=identity)) == {"IDENTITY_DENIED"}
    allowed = values(devices={"allowed": [str(identity)]})
    assert codes(appraise({"product": "GH100"}, allowed, scheme="nvgpu", identity=identity)) == set()
    assert codes(appraise({"product": "GH100"}, allowed, scheme="nvgpu")) == {"IDENTITY_NOT_ALLOWED"}


def test_a_profile_decides_what_the_shared_checks_do(vendors: SimulatedVendors) -> None:
    lax = Profile("lax", {"SNP_ADVISORY_UNMET": Deviation(Severity.INFORM, "a test")})
    reference = values(tables=[table(advisory(minimum_tcb={"snp": 99}))])
    assert not judge(vendors, reference).ok
    assert judge(vendors, reference, profile=lax).ok


def test_every_shared_check_is_violated_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert {check.code for check in checks.CHECKS if f'"{check.code}"' not in source} == set()


OWN_WORD = {
    "SNP_REPORT_VERSION": ({"snp": {"versions": [4]}}, {}),
    "SNP_CHIP_ID_MASKED": ({}, {"defects": [SnpDefect.MASKED_CHIP_ID], "csp_id": "CN=provider"}),
    "SNP_CRL_ROLLBACK": ({"snp": {"crl_number_floor": {"Genoa": 99}}}, {}),
    "SNP_FIRMWARE_BELOW_MINIMUM": ({"snp": {"minimum_firmware": [9, 0, 0]}}, {}),
    "SNP_NO_REFERENCE_TCB": ({"snp": {"minimum_tcb": {}}}, {}),
    "SNP_TCB_BELOW_MINIMUM": ({}, {"tcb": STALE_TCB[Product.GENOA]}),
    "SNP_DEBUG_ALLOWED": ({}, {"defects": [SnpDefect.DEBUG]}),
    "SNP_MIGRATE_MA_ALLOWED": ({}, {"defects": [SnpDefect.MIGRATE_MA]}),
    "SNP_SMT_ALLOWED": ({}, {"fields": {"policy": 0x3001F}}),
    "SNP_CXL_ALLOWED": ({}, {"fields": {"policy": 0x22001F}}),
    "SNP_POLICY_REQUIREMENT": ({"snp": {"policy_required": ["SINGLE_SOCKET"]}}, {}),
    "SNP_POLICY_ABI": ({"snp": {"minimum_abi": [9, 0]}}, {}),
    "SNP_ALIAS_CHECK": ({}, {"defects": [SnpDefect.NO_ALIAS_CHECK]}),
    "SNP_PLATFORM_REQUIREMENT": ({"snp": {"platform_required": ["TSME_EN"]}}, {}),
    "SNP_PLATFORM_FORBIDDEN": ({"snp": {"platform_forbidden": ["ECC_EN"]}}, {}),
    "SNP_PLATFORM_UNKNOWN": ({}, {"fields": {"platform_info": 0x24 | 1 << 40}}),
    "SNP_MITIGATION_VECTOR": ({"snp": {"mitigations": 64}}, {}),
    "SNP_VMPL": ({}, {"defects": [SnpDefect.VMPL_1]}),
    "SNP_MEASUREMENT": ({"snp": {"measurements": ["ab" * 48]}}, {}),
    "SNP_HOST_DATA": ({"snp": {"host_data": ["ab" * 32]}}, {}),
    "SNP_ID_KEY_DIGEST": ({"snp": {"id_key_digests": ["ab" * 48]}}, {}),
    "SNP_AUTHOR_KEY_DIGEST": ({"snp": {"author_key_digests": ["ab" * 48]}}, {}),
    "SNP_GUEST_SVN": ({"snp": {"minimum_guest_svn": 9}}, {}),
}
"""By code: reference values and a chip that do not go together; whose word was expected is the operator's."""


@pytest.mark.parametrize("code", OWN_WORD)
def test_whose_word_is_the_operators(vendors: SimulatedVendors, code: str) -> None:
    sections, options = OWN_WORD[code]
    minimum = {product.value: dict(tcb.components()) for product, tcb in CURRENT_TCB.items()}
    snp = {"minimum_tcb": minimum} | sections.get("snp", {})
    result = judge(vendors, values(snp=snp), **options)
    found = [finding for finding in result.findings if finding.code == code]
    assert found
    assert {finding.reference for finding in found} == {"values.json, serial 7, signed by KEY"}


def test_whose_word_is_this_sessions_and_whose_the_specifications(vendors: SimulatedVendors) -> None:
    wrong = judge(vendors, values(), defects=[SnpDefect.WRONG_REPORT_DATA, SnpDefect.BAD_SIGNATURE])
    words = {finding.code: finding.reference for finding in wrong.findings}
    assert words["SNP_REPORT_DATA"] == "this session"
    assert words["SNP_SIGNATURE"].startswith("AMD 56860")
    other = judge(vendors, values(), defects=[SnpDefect.OTHER_CHIP])
    assert {f.code: f.reference for f in other.findings}["SNP_HWID"].startswith("AMD 57230")


def test_what_is_asked_of_one_product_line_is_asked_of_no_other(vendors: SimulatedVendors) -> None:
    minimum = {product.value: dict(tcb.components()) for product, tcb in CURRENT_TCB.items()}
    flaw = [table(advisory(minimum_tcb={"snp": 0}))]
    for more, code in (
        ({"platform_required": ["TSME_EN"]}, "SNP_PLATFORM_REQUIREMENT"),
        ({"platform_forbidden": ["ECC_EN"]}, "SNP_PLATFORM_FORBIDDEN"),
        ({"mitigations": 64}, "SNP_MITIGATION_VECTOR"),
    ):
        reference = values(snp={"minimum_tcb": minimum, "by_product": {"Genoa": more}}, tables=flaw)
        assert codes(judge(vendors, reference)) == {code}
        assert judge(vendors, reference, product=Product.MILAN).findings == ()
    both = values(snp={"minimum_tcb": minimum, "by_product": {"Genoa": {"platform_required": ["ECC_EN"]}}})
    assert both.snp is not None
    assert "SNP_ALIAS_CHECK" in codes(judge(vendors, both, defects=[SnpDefect.NO_ALIAS_CHECK])), "adds, never replaces"
    assert both.snp.platform_required == PlatformInfo.ALIAS_CHECK_COMPLETE


def test_the_shipped_table_is_sound_and_enforces_what_was_read_alone(vendors: SimulatedVendors) -> None:
    name, data = shipped_advisories()
    shipped = parse_advisories(data, name=name)
    assert "shipped with Keystead" in str(shipped)
    assert str(shipped).endswith("unsigned")
    assert [each.id for each in shipped.advisories if each.enforced] == ["AMD-SB-3015"]
    for each in shipped.advisories:
        assert each.enforced or not each.minimum_tcb or "unverified" in each.basis
    assert parse_advisories(dump_advisories(shipped), name=name).advisories == shipped.advisories
    for product in Product:
        reference = values(tables=[shipped], advisories_grace=10**9)
        early = replace(shipped, about=replace(shipped.about, issued=0))
        sound = judge(vendors, replace(reference, advisories=(early,)), product=product)
        assert sound.ok
        assert {finding.code for finding in sound.findings} <= {"SNP_ADVISORY_NOT_ENFORCED"}
        alias = judge(
            vendors, replace(reference, advisories=(early,)), product=product, defects=[SnpDefect.NO_ALIAS_CHECK]
        )
        assert "SNP_ADVISORY_UNMET" in codes(alias)


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"about": TABLE, "advisory": []}, "advisory"),
        ({"advisory": [advisory(distrust=True)]}, "about"),
        ({"about": ABOUT, "advisory": [advisory(distrust=True)]}, "next_update"),
        ({"about": TABLE | {"next_update": TABLE["issued"]}, "advisory": [advisory(distrust=True)]}, "not after"),
        ({"about": TABLE | {"issued": "2026-02-30T00:00:00Z"}, "advisory": [advisory(distrust=True)]}, "issued"),
        ({"about": TABLE | {"serial": -1}, "advisory": [advisory(distrust=True)]}, "serial"),
        ({"about": TABLE | {"serial": 1 << 63}, "advisory": [advisory(distrust=True)]}, "serial"),
        ({"about": TABLE | {"issuer": "a\nb"}, "advisory": [advisory(distrust=True)]}, "issuer"),
        ({"about": TABLE, "advisory": [advisory(distrust=True), advisory(distrust=True)]}, "twice"),
        ({"about": TABLE, "advisory": [advisory()]}, "asks for nothing"),
        ({"about": TABLE, "advisory": [advisory(cpuids=["191101"], minimum_tcb={})]}, "asks for nothing"),
        ({"about": TABLE, "advisory": [advisory(products=["Naples"], distrust=True)]}, "products"),
        ({"about": TABLE, "advisory": [advisory(products=["Milan", "GH100"], distrust=True)]}, "products"),
        ({"about": TABLE, "advisory": [advisory(products=[], distrust=True)]}, "products"),
        ({"about": TABLE, "advisory": [advisory(minimum_driver=["570.1"])]}, "minimum_driver does not go"),
        ({"about": TABLE, "advisory": [advisory(products=["GH100"], minimum_tcb={"snp": 1})]}, "minimum_tcb does not"),
        ({"about": TABLE, "advisory": [advisory(minimum_tcb={"fmc": 1})]}, "Turin only"),
        ({"about": TABLE, "advisory": [advisory(minimum_tcb={"snp": 256})]}, "snp"),
        ({"about": TABLE, "advisory": [advisory(platform_required=["NOTHING"])]}, "platform_required"),
        ({"about": TABLE, "advisory": [advisory(policy_forbidden=["RESERVED_ONE"])]}, "policy_forbidden"),
        ({"about": TABLE, "advisory": [advisory(products=["GH100"], minimum_driver=["new"])]}, "minimum_driver"),
        ({"about": TABLE, "advisory": [advisory(products=["GH100"], minimum_driver=["5.1", "5.2"])]}, "one branch"),
        ({"about": TABLE, "advisory": [advisory(products=["GH100"], minimum_vbios="96")]}, "minimum_vbios"),
        ({"about": TABLE, "advisory": [advisory(distrust=True, extra=1)]}, "extra"),
    ],
)
def test_a_table_that_cannot_be_used_names_the_place(document: Any, named: str) -> None:
    with pytest.raises(ManifestError, match=r"^table\.json: ") as caught:
        parse_advisories(json.dumps(document).encode(), name="table.json")
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("devices", "named"),
    [
        ({"denied": [{"identity": "amd-chip-id:AB", "reason": "x"}]}, "is no identity"),
        ({"denied": [{"identity": "amd-chip-id:abcd", "reason": "x"}]}, "has 2"),
        ({"denied": [{"identity": f"amd-chip-id:{'ab' * 64}"}]}, "reason"),
        ({"denied": [{"identity": "nvidia-gpu:ab", "reason": "x"}] * 2}, "twice"),
        ({"allowed": ["no identity"]}, "is no identity"),
        ({"allowed": ["nvidia-gpu:ab"], "denied": [{"identity": "nvidia-gpu:ab", "reason": "x"}]}, "decide"),
        ({"trusted_chips": ["nvidia-gpu:ab"], "denied": [{"identity": "nvidia-gpu:ab", "reason": "x"}]}, "decide"),
        (
            {
                "allowed": [f"amd-chip-id:{'ab' * 8}"],
                "denied": [{"identity": f"amd-chip-id:{'ab' * 8}{'00' * 56}", "reason": "x"}],
            },
            "decide",
        ),
    ],
)
def test_lists_that_cannot_be_used_name_the_place(devices: Any, named: str) -> None:
    with pytest.raises(ManifestError, match=r"^values\.json: ") as caught:
        values(devices=devices)
    assert named in str(caught.value)


def test_a_signed_file_says_whose_it_is() -> None:
    with pytest.raises(ManifestError, match="about: missing"):
        parse_reference_values(b"{}", name="values.json", signers=("KEY",))
    assert parse_reference_values(b"{}", name="values.json").origin == "values.json, unsigned"
    both = parse_reference_values(json.dumps({"about": ABOUT}).encode(), name="v", signers=("B", "A"))
    assert both.origin == "v, serial 7, signed by A and B"
