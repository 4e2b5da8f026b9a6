"""GPU verification on simulated evidence: each defect gives its finding, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

import pytest

from attestation.errors import MalformedError, TrustAnchorError
from attestation.findings import Severity
from attestation.nvgpu import checks, conformance
from attestation.nvgpu.abi import Mode
from attestation.nvgpu.claims import driver_rim_id
from attestation.nvgpu.endorsements import NVIDIA_DEVICE_IDENTITY_CA_SHA256, NvGpuAnchors
from attestation.nvgpu.verify import NvGpuReference, verify
from attestation.profile import STRICT, Profile
from attestation.simulator.nvgpu import Architecture, GpuConfiguration, GpuDefect, SimulatedGpu, SimulatedGpuVendor
from attestation.types import DeviceResult, Evidence

NOW = 1_790_000_000
NONCE = b"\xa5" * 32
VENDOR = SimulatedGpuVendor(b"\x01" * 32)
ANCHORS = VENDOR.anchors()
SWITCHES = (bytes.fromhex("203eb31ad9ed0008"), bytes.fromhex("9fc9768ce6436f2b"))
PPCIE = GpuConfiguration(mode=Mode.PROTECTED_PCIE, switch_pdis=SWITCHES)
HOPPER = VENDOR.gpu(0x1D480FE5E87274AA, configuration=PPCIE)
BLACKWELL = VENDOR.gpu(0xE6DE55C3BDC14277, architecture=Architecture.BLACKWELL, configuration=PPCIE)
GPUS = pytest.mark.parametrize("gpu", [HOPPER, BLACKWELL], ids=["hopper", "blackwell"])


def reference_for(gpu: SimulatedGpu) -> NvGpuReference:
    """Reference values that this GPU meets in full."""
    return NvGpuReference(
        products=frozenset({gpu.architecture.value}),
        modes=frozenset({gpu.configuration.mode}),
        drivers=frozenset({gpu.configuration.driver_version}),
        vbios=frozenset({gpu.configuration.vbios_version}),
        measurements={index: frozenset({value}) for index, value in gpu.measurements.items()},
    )


def judge(
    evidence: Evidence,
    gpu: SimulatedGpu = HOPPER,
    *,
    anchors: NvGpuAnchors = ANCHORS,
    reference: NvGpuReference | None = None,
    nonce: bytes | None = NONCE,
    now: int = NOW,
    profile: Profile = STRICT,
    allow_trailing_byte: bool = False,
) -> DeviceResult:
    return verify(
        evidence,
        anchors=anchors,
        reference=reference or reference_for(gpu),
        expected_nonce=nonce,
        now=now,
        profile=profile,
        allow_trailing_byte=allow_trailing_byte,
    )


def codes(result: DeviceResult, severity: Severity) -> set[str]:
    return {finding.code for finding in result.findings if finding.severity is severity}


@GPUS
def test_sound_evidence_passes_every_rule(gpu: SimulatedGpu) -> None:
    result = judge(gpu.evidence("gpu3", NONCE), gpu)
    assert result.ok
    assert result.simulated
    assert (result.slot, result.scheme) == ("gpu3", "nvgpu")
    assert result.identity == gpu.identity
    assert codes(result, Severity.INFORM) == {"NVGPU_REVOCATION_NOT_CHECKED"}
    own = {check.code for check in checks.CHECKS if not check.code.startswith(("RIM_", "OCSP_"))}
    unseen = own - {passed.code for passed in result.passed}
    not_of_this = {"NVGPU_DEVICE_KEY"} if gpu is BLACKWELL else set()
    not_reached = {"NVGPU_NONCE_NOT_COMPARED", "NVGPU_VERSIONS_NOT_APPRAISED", "NVGPU_REVOCATION_NOT_CHECKED"}
    assert unseen == not_reached | not_of_this


DEFECTS = {
    GpuDefect.WRONG_NONCE: {"NVGPU_NONCE"},
    GpuDefect.BAD_SIGNATURE: {"NVGPU_SIGNATURE"},
    GpuDefect.ALTERED_MEASUREMENT: {"NVGPU_SIGNATURE", "NVGPU_MEASUREMENT"},
    GpuDefect.OTHER_FIRMWARE: {"NVGPU_MEASUREMENT"},
    GpuDefect.WRONG_FWID: {"NVGPU_FWID"},
    GpuDefect.MISSING_FWID: {"NVGPU_FWID_PRESENT"},
    GpuDefect.OTHER_CHAIN: {"NVGPU_SIGNATURE"},
    GpuDefect.OTHER_ROOT: {"X509_ROOT_PINNED", "NVGPU_SIGNATURE"},
    GpuDefect.EXPIRED_LEAF: {"X509_VALIDITY"},
    GpuDefect.SWITCH_SERIAL: {"NVGPU_IDENTITY"},
    GpuDefect.OTHER_CHIP: {"NVGPU_PRODUCT_NAMES"},
    GpuDefect.CONTRADICTORY_MODE: {"NVGPU_MODE_KNOWN"},
    GpuDefect.NO_SWITCHES: {"NVGPU_SWITCHES"},
    GpuDefect.ONE_MEASUREMENT: {"NVGPU_ALL_MEASUREMENTS", "NVGPU_MEASUREMENT"},
}


@GPUS
@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_gives_its_finding_and_no_other(gpu: SimulatedGpu, defect: GpuDefect) -> None:
    result = judge(gpu.evidence("gpu0", NONCE, defects=[defect]), gpu)
    assert not result.ok
    assert codes(result, Severity.FAIL) == DEFECTS[defect]
    for finding in result.findings:
        assert finding.expected != finding.actual
        assert finding.remedy


def test_leaf_of_another_device_is_found() -> None:
    result = judge(HOPPER.evidence("gpu0", NONCE, defects=[GpuDefect.WRONG_DEVICE_KEY]))
    assert codes(result, Severity.FAIL) == {"NVGPU_DEVICE_KEY"}


def test_developer_mode_shows_in_measurements_and_on_blackwell_in_the_leaf() -> None:
    hopper = judge(HOPPER.evidence("gpu0", NONCE, defects=[GpuDefect.DEVELOPER_MODE]))
    assert codes(hopper, Severity.FAIL) == {"NVGPU_MEASUREMENT"}
    blackwell = judge(BLACKWELL.evidence("gpu0", NONCE, defects=[GpuDefect.DEVELOPER_MODE]), BLACKWELL)
    assert codes(blackwell, Severity.FAIL) == {"NVGPU_MEASUREMENT", "NVGPU_FIRMWARE_STATE"}


@pytest.mark.parametrize("defect", [GpuDefect.DUPLICATE_OPAQUE, GpuDefect.TRAILING_BYTE])
def test_malformed_evidence_is_not_decided(defect: GpuDefect) -> None:
    with pytest.raises(MalformedError):
        judge(HOPPER.evidence("gpu0", NONCE, defects=[defect]))


def test_several_defects_are_all_named() -> None:
    defects = [GpuDefect.WRONG_NONCE, GpuDefect.WRONG_FWID, GpuDefect.EXPIRED_LEAF, GpuDefect.OTHER_FIRMWARE]
    result = judge(HOPPER.evidence("gpu0", NONCE, defects=defects))
    assert codes(result, Severity.FAIL) == {"NVGPU_NONCE", "NVGPU_FWID", "X509_VALIDITY", "NVGPU_MEASUREMENT"}


def test_another_vendor_with_the_same_names_is_refused() -> None:
    impostor = SimulatedGpuVendor(b"\x02" * 32).gpu(HOPPER.pdi, configuration=PPCIE)
    result = judge(impostor.evidence("gpu0", NONCE))
    assert codes(result, Severity.FAIL) == {"X509_ROOT_PINNED"}
    assert result.identity is None
    assert not result.simulated


@pytest.mark.parametrize(
    "defect",
    [GpuDefect.BAD_SIGNATURE, GpuDefect.OTHER_CHAIN, GpuDefect.EXPIRED_LEAF, GpuDefect.SWITCH_SERIAL],
)
def test_identity_is_proven_or_absent(defect: GpuDefect) -> None:
    assert judge(HOPPER.evidence("gpu0", NONCE, defects=[defect])).identity is None


def test_chain_of_a_bare_leaf_is_malformed() -> None:
    evidence = HOPPER.evidence("gpu0", NONCE)
    with pytest.raises(MalformedError, match="no BROM certificate"):
        judge(replace(evidence, certificates=evidence.certificates[:1]))


def test_a_shorter_chain_is_found() -> None:
    evidence = HOPPER.evidence("gpu0", NONCE)
    short = replace(evidence, certificates=(*evidence.certificates[:3], evidence.certificates[4]))
    assert "X509_CHAIN_LENGTH" in codes(judge(short), Severity.FAIL)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"products": frozenset({"GB100"})}, "NVGPU_PRODUCT"),
        ({"products": frozenset()}, "NVGPU_PRODUCT"),
        ({"modes": frozenset({Mode.SINGLE_GPU, Mode.MULTI_GPU})}, "NVGPU_MODE"),
        ({"modes": frozenset()}, "NVGPU_MODE"),
        ({"drivers": frozenset({"590.12"})}, "NVGPU_DRIVER"),
        ({"drivers": frozenset()}, "NVGPU_DRIVER"),
        ({"vbios": frozenset({"96.00.CF.00.01"})}, "NVGPU_VBIOS"),
        ({"vbios": frozenset()}, "NVGPU_VBIOS"),
        ({"measurements": {7: frozenset({bytes(48)})}}, "NVGPU_MEASUREMENT"),
        ({"measurements": {7: frozenset()}}, "NVGPU_MEASUREMENT"),
        ({"measurements": {65: frozenset({bytes(48)})}}, "NVGPU_MEASUREMENT"),
    ],
)
def test_reference_values_that_are_not_met_are_found(changes: dict[str, object], code: str) -> None:
    reference = replace(reference_for(HOPPER), **changes)  # type: ignore[arg-type]
    result = judge(HOPPER.evidence("gpu0", NONCE), reference=reference)
    assert codes(result, Severity.FAIL) == {code}


def test_what_is_not_compared_is_said() -> None:
    reference = replace(
        reference_for(HOPPER), drivers=None, vbios=None, measurements={8: frozenset({HOPPER.measurements[8]})}
    )
    result = judge(HOPPER.evidence("gpu0", NONCE), reference=reference, nonce=None)
    assert result.ok
    assert codes(result, Severity.INFORM) == {
        "NVGPU_REVOCATION_NOT_CHECKED",
        "NVGPU_VERSIONS_NOT_APPRAISED",
        "NVGPU_MEASUREMENTS_NOT_APPRAISED",
        "NVGPU_NONCE_NOT_COMPARED",
    }
    actual = {finding.code: finding.actual for finding in result.findings}
    assert actual["NVGPU_MEASUREMENTS_NOT_APPRAISED"] == "1 of 64; not 1 to 7, 9 to 64"
    assert actual["NVGPU_VERSIONS_NOT_APPRAISED"] == "DRIVER_VERSION 580.95.05, VBIOS_VERSION 96.00.CF.00.02"


def test_nonce_of_another_size_is_wrong_use() -> None:
    with pytest.raises(MalformedError, match="5 bytes, expected 32"):
        judge(HOPPER.evidence("gpu0", NONCE), nonce=b"short")


def test_production_anchors_do_not_trust_simulators() -> None:
    result = judge(HOPPER.evidence("gpu0", NONCE), anchors=NvGpuAnchors.nvidia())
    assert codes(result, Severity.FAIL) == {"X509_ROOT_PINNED"}
    assert not result.simulated


def test_anchors_may_trust_both_and_say_which() -> None:
    anchors = NvGpuAnchors.nvidia().with_simulated(VENDOR.root_der)
    assert anchors.roots == {NVIDIA_DEVICE_IDENTITY_CA_SHA256}
    result = judge(HOPPER.evidence("gpu0", NONCE), anchors=anchors)
    assert result.ok
    assert result.simulated


def test_no_root_is_no_anchor() -> None:
    with pytest.raises(TrustAnchorError):
        NvGpuAnchors.simulated()


def test_second_verification_uses_the_cached_chain_and_says_the_same() -> None:
    anchors = VENDOR.anchors()
    evidence = HOPPER.evidence("gpu0", NONCE)
    first, second = judge(evidence, anchors=anchors), judge(evidence, anchors=anchors)
    assert len(anchors.chains) == 1
    assert sorted(first.passed, key=repr) == sorted(second.passed, key=repr)
    assert replace(first, passed=()) == replace(second, passed=())
    later = judge(evidence, anchors=anchors, now=1_000_000_000)
    assert codes(later, Severity.FAIL) == {"X509_VALIDITY"}


def test_claims_are_json_without_floats() -> None:
    claims = judge(BLACKWELL.evidence("gpu0", NONCE), BLACKWELL).claims
    assert json.loads(json.dumps(claims)) == claims
    assert claims["product"] == claims["chip"] == "GB100"
    assert claims["mode"] == "ppcie"
    assert claims["nonce"] == NONCE.hex()
    assert claims["driver_rim_id"] == "NV_GPU_CC_DRIVER_GB100_580.95.05"
    assert claims["switch_pdis"] == sorted(pdi.hex() for pdi in SWITCHES)
    assert claims["measurements"] == {str(index): value.hex() for index, value in BLACKWELL.measurements.items()}
    assert claims["pdi"] == "e6de55c3bdc14277"
    assert claims["fwid_in_leaf"] is True
    assert claims["firmware_flags"] == ["not_configured"]


def test_unknown_opaque_types_are_claims_under_their_number() -> None:
    claims = judge(HOPPER.evidence("gpu0", NONCE)).claims
    opaque = claims["opaque"]
    assert isinstance(opaque, dict)
    assert opaque["driver_version"] == b"580.95.05\0".hex()
    assert set(opaque) >= {"fwid", "msrscnt", "feature_flag"}


def test_driver_rim_ids() -> None:
    assert driver_rim_id("GH100", "550.90.07") == "NV_GPU_DRIVER_GH100_550.90.07"
    assert driver_rim_id("GB100", "590.12") == "NV_GPU_CC_DRIVER_GB100_590.12"


def test_conformance_profile_informs_where_published_evidence_lacks_a_field() -> None:
    defects = [GpuDefect.MISSING_FWID, GpuDefect.TRAILING_BYTE]
    result = judge(
        HOPPER.evidence("gpu0", NONCE, defects=defects),
        reference=conformance.REFERENCE,
        profile=conformance.PROFILE,
        allow_trailing_byte=True,
    )
    assert result.ok
    assert codes(result, Severity.INFORM) >= {"NVGPU_FWID_PRESENT", "NVGPU_TRAILING_BYTE"}
    assert conformance.conformance_fields(result)["trailing_bytes_after_signature"] == 1


@pytest.mark.parametrize(
    "defect", [GpuDefect.WRONG_NONCE, GpuDefect.BAD_SIGNATURE, GpuDefect.WRONG_FWID, GpuDefect.OTHER_ROOT]
)
def test_conformance_profile_still_refuses(defect: GpuDefect) -> None:
    result = judge(
        HOPPER.evidence("gpu0", NONCE, defects=[defect]), reference=conformance.REFERENCE, profile=conformance.PROFILE
    )
    assert not result.ok


def test_conformance_profile_names_existing_checks_with_reasons() -> None:
    known = {check.code for check in checks.CHECKS}
    assert isinstance(conformance.PROFILE.deviations, MappingProxyType)
    for code, deviation in conformance.PROFILE.deviations.items():
        assert code in known
        assert deviation.reason


def test_checks_have_unique_codes() -> None:
    assert len({check.code for check in checks.CHECKS}) == len(checks.CHECKS)
