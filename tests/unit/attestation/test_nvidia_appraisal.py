"""Measurements against manifests: what is compared, what must fail, what nobody appraised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.conformance import load_manifest
from attestation.findings import Severity
from attestation.nvgpu import conformance
from attestation.nvgpu.abi import Mode
from attestation.nvgpu.endorsements import NvGpuAnchors
from attestation.nvgpu.verify import NvGpuReference, verify
from attestation.pem import certificates_from_pem
from attestation.profile import STRICT, Profile
from attestation.rim.comparison import Coverage, ranges
from attestation.simulator.nvgpu import Architecture, GpuDefect, SimulatedGpu, SimulatedGpuVendor
from attestation.simulator.ocsp import OcspDefect, SimulatedOcsp
from attestation.simulator.rim import DRIVER_INDICES, VBIOS_INDICES, RimDefect, SimulatedRimAuthority
from attestation.types import Collateral, DeviceResult, Evidence

NOW = 1_790_000_000
DAY = 24 * 3600
NONCE = b"\xa5" * 32
VENDOR = SimulatedGpuVendor(b"\x01" * 32)
RIMS = SimulatedRimAuthority(vendor=VENDOR, not_before=NOW - 300 * DAY)
OCSP = SimulatedOcsp(vendor=VENDOR)
HOPPER = VENDOR.gpu(0x1D480FE5E87274AA)
BLACKWELL = VENDOR.gpu(0xE6DE55C3BDC14277, architecture=Architecture.BLACKWELL)
REFERENCE = NvGpuReference(
    products=frozenset({"GH100", "GB100"}), modes=frozenset(Mode), drivers=None, vbios=None, measurements={}
)
UNJUDGED = {"NVGPU_VERSIONS_NOT_APPRAISED", "NVGPU_MEASUREMENTS_NOT_APPRAISED"}


def judge(
    *,
    rims: Sequence[bytes] = (),
    ocsp: Sequence[bytes] = (),
    ocsp_nonce: bytes | None = None,
    gpu: SimulatedGpu = HOPPER,
    defects: Sequence[GpuDefect] = (),
    reference: NvGpuReference = REFERENCE,
    now: int = NOW,
    profile: Profile = STRICT,
    anchors: NvGpuAnchors | None = None,
) -> DeviceResult:
    return verify(
        gpu.evidence("gpu0", NONCE, defects=defects),
        anchors=anchors or VENDOR.anchors(),
        reference=reference,
        expected_nonce=NONCE,
        now=now,
        collateral=Collateral(rims=tuple(rims), ocsp=tuple(ocsp), ocsp_nonce=ocsp_nonce),
        profile=profile,
    )


def failing(result: DeviceResult) -> set[str]:
    return {finding.code for finding in result.findings if finding.severity is Severity.FAIL}


def informing(result: DeviceResult) -> set[str]:
    return {finding.code for finding in result.findings if finding.severity is Severity.INFORM}


@pytest.mark.parametrize("gpu", [HOPPER, BLACKWELL], ids=["hopper", "blackwell"])
def test_a_device_that_its_manifests_describe_passes(gpu: SimulatedGpu) -> None:
    result = judge(rims=[RIMS.driver(gpu), RIMS.vbios(gpu)], gpu=gpu)
    assert failing(result) == set()
    assert informing(result) == UNJUDGED | {"NVGPU_REVOCATION_NOT_CHECKED"}
    coverage = result.claims["measurement_coverage"]
    assert coverage == {
        "driver_rim": sorted(index + 1 for index in DRIVER_INDICES - {35}),
        "vbios_rim": sorted(index + 1 for index in VBIOS_INDICES),
        "skipped": [36],
        "not_appraised": [14, *range(15, 22), 36, *range(42, 65)],
    }
    manifests = result.claims["reference_manifests"]
    assert manifests["driver"]["version"] == gpu.configuration.driver_version
    assert manifests["vbios"]["active"] == len(VBIOS_INDICES)
    assert result.collateral_age[f"rim {gpu.architecture.value} 580.95.05"] == 300 * DAY
    (finding,) = [each for each in result.findings if each.code == "NVGPU_MEASUREMENTS_NOT_APPRAISED"]
    assert finding.actual == "32 of 64; not 14 to 21, 36, 42 to 64"


def test_operators_pin_the_rest() -> None:
    pins = {
        index: frozenset({value})
        for index, value in HOPPER.measurements.items()
        if index - 1 not in DRIVER_INDICES | VBIOS_INDICES or index == 36
    }
    rims = [RIMS.driver(HOPPER), RIMS.vbios(HOPPER)]
    result = judge(rims=rims, reference=replace(REFERENCE, measurements=pins))
    assert failing(result) == set()
    assert "NVGPU_MEASUREMENTS_NOT_APPRAISED" not in informing(result)
    assert result.claims["measurement_coverage"]["pinned"] == sorted(pins)
    pins[64] = frozenset({b"\xff" * 48})
    assert failing(judge(rims=rims, reference=replace(REFERENCE, measurements=pins))) == {"NVGPU_MEASUREMENT"}


def test_other_firmware_differs_from_its_manifest() -> None:
    rims = [RIMS.driver(HOPPER), RIMS.vbios(HOPPER)]
    result = judge(rims=rims, defects=[GpuDefect.OTHER_FIRMWARE])
    assert failing(result) == {"RIM_MEASUREMENT"}
    (finding,) = [each for each in result.findings if each.code == "RIM_MEASUREMENT"]
    assert finding.field == "MeasurementRecord [8] (Measurement_7 of the driver RIM)"
    assert HOPPER.measurements[8].hex() in finding.expected
    absent = judge(rims=rims, defects=[GpuDefect.ONE_MEASUREMENT])
    assert "RIM_MEASUREMENT" in failing(absent)
    assert {each.actual for each in absent.findings if each.code == "RIM_MEASUREMENT"} == {"absent"}


def _driver(values: dict[int, tuple[bytes, ...]], *, version: str = "580.95.05", product: str = "GH100") -> bytes:
    return RIMS.manifest(product=product, edition="GPU", version=version, values=values)


def test_any_alternative_will_do() -> None:
    right, other = HOPPER.measurements[8], bytes(48)
    assert failing(judge(rims=[_driver({7: (other, right)})])) == set()
    assert failing(judge(rims=[_driver({7: (other, b"\x01" * 48)})])) == {"RIM_MEASUREMENT"}


def test_the_decoder_is_skipped_only_where_it_is_off() -> None:
    rim = _driver({35: (bytes(48),), 7: (HOPPER.measurements[8],)})
    assert failing(judge(rims=[rim])) == set(), "NVDEC0 is disabled"
    rim = _driver({34: (bytes(48),), 7: (HOPPER.measurements[8],)})
    assert failing(judge(rims=[rim])) == {"RIM_MEASUREMENT"}
    # The decoder of this genuine record's kind is enabled: nothing is skipped.
    enabled = replace(HOPPER)
    evidence = enabled.evidence("gpu0", NONCE)
    data = bytearray(evidence.data)
    data[data.index(bytes.fromhex("0b000100")) + 4] = 0xAA
    result = verify(
        Evidence("gpu0", "nvgpu", bytes(data), evidence.certificates),
        anchors=VENDOR.anchors(),
        reference=REFERENCE,
        expected_nonce=NONCE,
        now=NOW,
        collateral=Collateral(rims=(_driver({35: (bytes(48),)}),)),
    )
    assert failing(result) == {"NVGPU_SIGNATURE", "RIM_MEASUREMENT"}


def test_of_several_manifests_one_is_met_whatever_it_says_of_a_unit_that_is_off() -> None:
    wrong = _driver({7: (bytes(48),)})
    right = _driver({35: (bytes(48),), 7: (HOPPER.measurements[8],)})
    assert failing(judge(rims=[wrong, right])) == failing(judge(rims=[right, wrong])) == set()


def test_an_index_active_in_two_manifests_conflicts() -> None:
    both = [_driver({3: (HOPPER.measurements[4],)}), RIMS.vbios(HOPPER)]
    assert failing(judge(rims=both)) == {"RIM_CONFLICT"}


def test_a_version_that_no_given_manifest_is_for_fails() -> None:
    other = _driver({7: (HOPPER.measurements[8],)}, version="580.95.06")
    result = judge(rims=[other])
    assert failing(result) == {"RIM_VERSION"}
    (finding,) = [each for each in result.findings if each.code == "RIM_VERSION"]
    assert (finding.expected, finding.actual) == ("NV_GPU_DRIVER_GH100_580.95.05", "GH100 580.95.06")
    assert failing(judge(rims=[other, RIMS.driver(HOPPER)])) == set(), "one of several will do"
    vbios = RIMS.manifest(
        product="GH100", edition="GPU", version="96.00.cf.00.02", values={1: (HOPPER.measurements[2],)}
    )
    assert failing(judge(rims=[vbios])) == set(), "hex digits are compared without case"


def test_several_boards_of_one_version() -> None:
    wrong = _driver({7: (bytes(48),)})
    assert failing(judge(rims=[wrong, RIMS.driver(HOPPER)])) == set()
    assert failing(judge(rims=[wrong])) == {"RIM_MEASUREMENT"}


def test_manifests_of_other_devices_are_passed_over_and_named() -> None:
    rims = [RIMS.driver(HOPPER), RIMS.driver(BLACKWELL)]
    result = judge(rims=rims)
    assert failing(result) == set()
    (finding,) = [each for each in result.findings if each.code == "RIM_OTHER_DEVICE"]
    assert finding.actual == "GB100 580.95.05"
    assert failing(judge(rims=rims, profile=conformance.PROFILE)) == {"RIM_OTHER_DEVICE"}


@pytest.mark.parametrize("defect", [RimDefect.ALTERED, RimDefect.OTHER_SIGNER, RimDefect.DOCTYPE])
def test_a_manifest_that_does_not_verify_fails_and_compares_nothing(defect: RimDefect) -> None:
    result = judge(rims=[RIMS.driver(HOPPER, defects=[defect])])
    assert failing(result) in ({"RIM_DIGEST"}, {"RIM_SIGNATURE"}, {"RIM_DOCUMENT"})
    assert result.claims["reference_manifests"] == {}
    assert len(result.claims["measurement_coverage"]["not_appraised"]) == 64


def test_a_manifest_whose_signer_is_not_valid_yet_has_no_age() -> None:
    early = RIMS.not_before - 1
    result = judge(rims=[RIMS.driver(HOPPER)], now=early)
    assert "RIM_SIGNER_VALIDITY" in failing(result)
    assert not [name for name in result.collateral_age if name.startswith("rim ")]
    assert judge(rims=[RIMS.driver(HOPPER)], now=early + 1).collateral_age


def test_the_signers_expiry_and_its_grace() -> None:
    late = RIMS.not_after + 3 * DAY
    assert failing(judge(rims=[RIMS.driver(HOPPER)], now=late)) == {"RIM_SIGNER_VALIDITY"}
    patient = replace(REFERENCE, rim_grace=3 * DAY)
    result = judge(rims=[RIMS.driver(HOPPER)], now=late, reference=patient)
    assert failing(result) == set()
    assert "RIM_SIGNER_GRACE" in informing(result)
    other = _driver({7: (bytes(48),)}, product="GB100")
    assert failing(judge(rims=[other], now=late)) == set(), "a signer of another device's manifest does not matter"


def test_manifests_of_another_root_are_refused() -> None:
    assert {"RIM_CHAIN"} < failing(judge(rims=[RIMS.driver(HOPPER, defects=[RimDefect.OTHER_ROOT])]))


def _responses(chain: tuple[bytes, ...] | None = None, *, first: int = 1, **options: object) -> list[bytes]:
    this_update = options.pop("this_update", NOW - 60)
    return list(OCSP.responses(chain or HOPPER.certificates(), this_update=this_update, first=first, **options))


def test_what_is_said_of_manifests_that_hold() -> None:
    def said(*rims: bytes) -> dict[str, str]:
        result = judge(rims=rims)
        return {each.code: each.value for each in result.passed if each.code in {"RIM_MEASUREMENT", "RIM_CONFLICT"}}

    assert said() == {}, "nothing, where there is none"
    assert said(RIMS.driver(HOPPER)) == {"RIM_MEASUREMENT": "20 as the manifests say", "RIM_CONFLICT": "each is"}
    other = {index: (bytes(48),) for index in DRIVER_INDICES}
    version = HOPPER.configuration.driver_version
    assert said(RIMS.manifest(product="GH100", edition="GPU", version=version, values=other)) == {
        "RIM_CONFLICT": "each is"
    }
    assert not any(each.code == "RIM_OTHER_DEVICE" for each in judge().passed)


def test_a_coverage_of_everything_names_nothing() -> None:
    whole = Coverage(total=(1, 2), by_source={"pinned": (1, 2)}, skipped=())
    assert str(whole) == "2 of 2"
    assert str(replace(whole, by_source={"pinned": (1,)})) == "1 of 2; not 2"
    assert str(replace(whole, by_source={})) == "0 of 2"


@pytest.mark.parametrize(
    ("pinned", "passed"),
    [
        ({}, []),
        ({1: frozenset({HOPPER.measurements[1]}), 2: frozenset({HOPPER.measurements[2], bytes(48)})}, ["2 as pinned"]),
        ({1: frozenset({HOPPER.measurements[1]}), 2: frozenset({bytes(48)})}, []),
    ],
    ids=["none", "met", "one is not met"],
)
def test_pinned_measurements_are_said_to_be_met_where_all_are(
    pinned: dict[int, frozenset[bytes]], passed: list[str]
) -> None:
    result = judge(reference=replace(REFERENCE, measurements=pinned))
    assert [each.value for each in result.passed if each.code == "NVGPU_MEASUREMENT"] == passed


def test_responses_for_device_and_signers() -> None:
    rims = [RIMS.driver(HOPPER), RIMS.vbios(HOPPER)]
    result = judge(rims=rims, ocsp=_responses() + _responses(RIMS.certificates(), first=0))
    assert failing(result) == set()
    assert informing(result) == UNJUDGED
    ages = {name: age for name, age in result.collateral_age.items() if name.startswith("ocsp ")}
    assert set(ages.values()) == {60}
    assert len(ages) == 6
    judged = [each.field for each in result.passed if each.code == "OCSP_STATUS"]
    assert len(judged) == len(set(judged)), "authorities that the manifests share are judged once"
    partly = judge(rims=rims, ocsp=_responses())
    assert informing(partly) == UNJUDGED | {"OCSP_NOT_GIVEN"}


@pytest.mark.parametrize("position", [1, 2, 3])
def test_a_revoked_certificate_of_the_device_fails(position: int) -> None:
    assert failing(judge(ocsp=_responses(revoked=[position]))) == {"OCSP_STATUS"}
    past = _responses(revoked=[position], this_update=NOW - 3 * DAY)
    assert failing(judge(ocsp=past)) == {"OCSP_PAST_STATUS", "OCSP_WINDOW"}
    assert failing(judge(ocsp=past, profile=conformance.PROFILE)) == set()


def test_a_revoked_signer_fails() -> None:
    responses = _responses() + _responses(RIMS.certificates(), first=0, revoked=[0])
    assert failing(judge(rims=[RIMS.driver(HOPPER)], ocsp=responses)) == {"OCSP_STATUS"}
    assert failing(judge(ocsp=responses)) == set(), "its manifest is not used"


@pytest.mark.parametrize("defect", [each for each in OcspDefect if each is not OcspDefect.EXPIRED_RESPONDER])
def test_responses_that_are_not_the_issuers_fail(defect: OcspDefect) -> None:
    assert failing(judge(ocsp=_responses(defects=[defect], revoked=[2]))) == {"OCSP_AUTHENTIC"}


def test_an_expired_responder_fails_while_its_response_is_current() -> None:
    assert failing(judge(ocsp=_responses(defects=[OcspDefect.EXPIRED_RESPONDER]))) == {"OCSP_AUTHENTIC"}
    old = _responses(defects=[OcspDefect.EXPIRED_RESPONDER], this_update=NOW - 3 * DAY)
    assert failing(judge(ocsp=old)) == {"OCSP_WINDOW"}


@pytest.mark.parametrize(
    ("this_update", "lifetime", "max_age", "ok"),
    [
        (NOW, DAY, None, True),
        (NOW + 1, DAY, None, False),
        (NOW - DAY + 1, DAY, None, True),
        (NOW - DAY, DAY, None, False),
        (NOW - 7 * DAY, DAY, 7 * DAY + 1, True),
        (NOW - 7 * DAY, DAY, 7 * DAY, False),
        (NOW - 1, None, None, False),
        (NOW - 1, None, 2, True),
        (NOW - 1, DAY, 0, True),
    ],
)
def test_the_window_of_a_response(this_update: int, lifetime: int | None, max_age: int | None, ok: bool) -> None:
    responses = _responses(this_update=this_update, lifetime=lifetime)
    result = judge(ocsp=responses, reference=replace(REFERENCE, ocsp_max_age=max_age))
    assert failing(result) == (set() if ok else {"OCSP_WINDOW"})


def test_a_nonce_must_be_the_one_that_was_sent() -> None:
    responses = _responses(nonce=b"n" * 32)
    assert failing(judge(ocsp=responses)) == set(), "nobody says what was sent"
    assert failing(judge(ocsp=responses, ocsp_nonce=b"n" * 32)) == set()
    assert failing(judge(ocsp=responses, ocsp_nonce=b"m" * 32)) == {"OCSP_NONCE"}
    assert failing(judge(ocsp=_responses(), ocsp_nonce=b"m" * 32)) == set(), "NVIDIA's responses carry none"


def test_the_newest_response_counts() -> None:
    old, new = _responses(revoked=[1, 2, 3], this_update=NOW - 120), _responses(this_update=NOW - 60)
    assert failing(judge(ocsp=old + new)) == set()
    old, new = _responses(this_update=NOW - 120), _responses(revoked=[1, 2, 3], this_update=NOW - 60)
    assert failing(judge(ocsp=old + new)) == {"OCSP_STATUS"}


def test_of_two_words_of_one_instant_revocation_counts_warm_or_cold() -> None:
    anchors = VENDOR.anchors()
    good, revoked = _responses(), _responses(revoked=[1, 2, 3])
    for responses in (good + revoked, revoked + good, good, good + revoked):
        expected = set() if responses is good else {"OCSP_STATUS"}
        assert failing(judge(ocsp=responses, anchors=anchors)) == expected


def test_responses_for_others_inform_that_there_is_none() -> None:
    other = VENDOR.gpu(5)
    result = judge(ocsp=_responses(other.certificates())[:1])
    assert informing(result) == UNJUDGED | {"OCSP_NOT_GIVEN"}
    (finding,) = [each for each in result.findings if each.code == "OCSP_NOT_GIVEN"]
    assert finding.actual.count("[") == 3


def test_ranges_and_coverage_read_well() -> None:
    assert ranges([]) == "none"
    assert ranges([1, 2, 3, 5, 7, 8]) == "1 to 3, 5, 7 to 8"
    coverage = Coverage(total=(1, 2, 3), by_source={"pinned": (2, 9)}, skipped=())
    assert str(coverage) == "1 of 3; not 1, 3"
    assert coverage.appraised == (2,)
    assert str(Coverage(total=(1,), by_source={}, skipped=())) == "0 of 1"


@pytest.mark.vectors
def test_the_published_hopper_with_everything(vectors: Path) -> None:
    """In the window of its responses: chain, manifests, comparison and revocation hold under the strict profile."""
    (case,) = [each for each in load_manifest(vectors / "manifest.json", {"nvidia"}) if len(each.files) > 10]
    collateral = Collateral(
        rims=tuple(data for role, data in case.files.items() if role in {"driver_rim", "vbios_rim"}),
        ocsp=tuple(data for role, data in case.files.items() if "certificate" in role and role.startswith("ocsp")),
    )
    result = verify(
        Evidence("gpu0", "nvgpu", case.files["report"], certificates_from_pem(case.files["cert_chain"])),
        anchors=NvGpuAnchors.nvidia(),
        reference=REFERENCE,
        expected_nonce=bytes.fromhex(str(case.expected["nonce"])),
        now=1_755_790_000,
        collateral=collateral,
    )
    assert result.ok, result.findings
    assert not result.simulated
    assert {passed.code for passed in result.passed} >= {"RIM_MEASUREMENT", "OCSP_STATUS", "OCSP_AUTHENTIC"}
    assert len(result.claims["measurement_coverage"]["not_appraised"]) == 32
