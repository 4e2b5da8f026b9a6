"""NVSwitch verification on simulated and published evidence: each defect gives its finding, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.conformance import load_manifest
from attestation.errors import MalformedError, ManifestError, TrustAnchorError
from attestation.findings import Severity
from attestation.inspect import detect_scheme, inspect_evidence
from attestation.nvswitch import checks, conformance
from attestation.nvswitch.abi import SwitchEvidence
from attestation.nvswitch.endorsements import NvSwitchAnchors
from attestation.nvswitch.verify import NvSwitchReference, verify
from attestation.pem import certificates_from_pem
from attestation.profile import STRICT, Profile
from attestation.scheme import ReferenceValues, TrustAnchors
from attestation.simulator.nvgpu import SimulatedGpuVendor
from attestation.simulator.nvswitch import RIM_PRODUCT, SimulatedSwitch
from attestation.simulator.nvswitch import SwitchDefect as D
from attestation.simulator.ocsp import SimulatedOcsp
from attestation.simulator.rim import SimulatedRimAuthority, switch_values
from attestation.types import Collateral, DeviceResult, Evidence
from attestation.verifier import verify_evidence

NOW = 1_790_000_000
DAY = 24 * 3600
NONCE = b"\xa5" * 32
VENDOR = SimulatedGpuVendor(b"\x01" * 32)
RIMS = SimulatedRimAuthority(vendor=VENDOR, not_before=NOW - 300 * DAY)
SWITCH = SimulatedSwitch(vendor=VENDOR, pdi=0x203EB31AD9ED0008, gpu_pdis=(1, 2, 3), position=2)
BIOS = RIMS.manifest(
    product=RIM_PRODUCT, edition="SWITCH", version=SWITCH.bios_version, values=switch_values(SWITCH.measurements)
)
REFERENCE = NvSwitchReference(
    products=frozenset({"LS_10"}),
    bios=frozenset({SWITCH.bios_version}),
    measurements={index: frozenset({value}) for index, value in SWITCH.measurements.items()},
)


def judge(
    evidence: Evidence,
    *,
    collateral: Collateral | None = None,
    reference: NvSwitchReference = REFERENCE,
    anchors: NvSwitchAnchors | None = None,
    nonce: bytes | None = NONCE,
    now: int = NOW,
    profile: Profile = STRICT,
    allow_trailing_byte: bool = False,
) -> DeviceResult:
    return verify(
        evidence,
        anchors=anchors or SWITCH.anchors(),
        reference=reference,
        expected_nonce=nonce,
        now=now,
        collateral=collateral,
        profile=profile,
        allow_trailing_byte=allow_trailing_byte,
    )


def evidence(*defects: D) -> Evidence:
    return SWITCH.evidence("nvswitch0", NONCE, defects=defects)


def failing(result: DeviceResult) -> set[str]:
    return {finding.code for finding in result.findings if finding.severity is Severity.FAIL}


def informing(result: DeviceResult) -> set[str]:
    return {finding.code for finding in result.findings if finding.severity is Severity.INFORM}


def test_sound_evidence_passes_every_rule() -> None:
    result = judge(evidence())
    assert result.ok
    assert result.simulated
    assert result.identity == SWITCH.identity
    assert str(result.identity) == "nvidia-nvswitch:50203eb31ad9ed0008"
    assert informing(result) == {"NVSWITCH_FWID_NOT_REPORTED", "NVSWITCH_REVOCATION_NOT_CHECKED"}
    own = {check.code for check in checks.CHECKS if not check.code.startswith(("RIM_", "OCSP_"))}
    unseen = own - {passed.code for passed in result.passed}
    assert unseen == {
        "NVSWITCH_FWID_NOT_REPORTED",
        "NVSWITCH_FWID",
        "NVSWITCH_NONCE_NOT_COMPARED",
        "NVSWITCH_VERSIONS_NOT_APPRAISED",
        "NVSWITCH_REVOCATION_NOT_CHECKED",
    }
    assert result.claims["gpu_pdis"] == [f"{pdi:016x}" for pdi in (1, 2, 3)]
    assert result.claims["gpu_pdi_by_port"][:5] == [f"{1:016x}"] * 4 + [f"{2:016x}"]
    assert result.claims["gpu_pdi_by_port"][-1] is None
    assert result.claims["position"] == 2
    assert result.claims["bios_rim_id"] == "NV_SWITCH_BIOS_5612_0002_890_96106D0001"
    json.dumps(result.claims)


DEFECTS = {
    D.WRONG_NONCE: {"NVSWITCH_NONCE"},
    D.BAD_SIGNATURE: {"NVSWITCH_SIGNATURE"},
    D.ALTERED_MEASUREMENT: {"NVSWITCH_SIGNATURE", "NVSWITCH_MEASUREMENT"},
    D.OTHER_FIRMWARE: {"NVSWITCH_MEASUREMENT"},
    D.WRONG_FWID: {"NVSWITCH_FWID"},
    D.NO_LEAF_FWID: {"NVSWITCH_LEAF_FWID"},
    D.WRONG_DEVICE_KEY: {"NVSWITCH_DEVICE_KEY"},
    D.OTHER_CHAIN: {"NVSWITCH_SIGNATURE", "NVSWITCH_PDI"},
    D.OTHER_ROOT: {"X509_ROOT_PINNED", "NVSWITCH_SIGNATURE"},
    D.EXPIRED_LEAF: {"X509_VALIDITY"},
    D.GPU_SERIAL: {"NVSWITCH_IDENTITY", "NVSWITCH_PDI"},
    D.OTHER_PDI: {"NVSWITCH_PDI"},
    D.NO_GPUS: {"NVSWITCH_GPUS"},
    D.ONE_MEASUREMENT: {"NVSWITCH_ALL_MEASUREMENTS", "NVSWITCH_MEASUREMENT"},
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_gives_its_finding_and_no_other(defect: D) -> None:
    result = judge(evidence(defect))
    assert failing(result) == DEFECTS[defect]
    for finding in result.findings:
        assert finding.expected != finding.actual
        assert finding.remedy


@pytest.mark.parametrize("defect", [D.BAD_SIGNATURE, D.OTHER_ROOT, D.EXPIRED_LEAF, D.GPU_SERIAL, D.OTHER_PDI])
def test_no_identity_is_proven_by_such_evidence(defect: D) -> None:
    assert judge(evidence(defect)).identity is None


def test_an_unlocked_switch_informs() -> None:
    assert "NVSWITCH_LOCKED" in informing(judge(evidence(D.UNLOCKED)))


@pytest.mark.parametrize("defect", [D.DUPLICATE_OPAQUE, D.BAD_PORT, D.TRAILING_BYTE])
def test_malformed_evidence_is_an_error(defect: D) -> None:
    with pytest.raises(MalformedError):
        judge(evidence(defect))


def test_every_defect_is_tried() -> None:
    assert set(DEFECTS) | {D.UNLOCKED, D.DUPLICATE_OPAQUE, D.BAD_PORT, D.TRAILING_BYTE} == set(D)


def test_one_byte_after_the_signature_is_for_conformance() -> None:
    result = judge(evidence(D.TRAILING_BYTE), allow_trailing_byte=True)
    assert result.ok
    assert "NVSWITCH_TRAILING_BYTE" in informing(result)


def test_what_the_reference_values_refuse() -> None:
    assert failing(judge(evidence(), reference=replace(REFERENCE, products=frozenset()))) == {"NVSWITCH_PRODUCT"}
    assert failing(judge(evidence(), reference=replace(REFERENCE, bios=frozenset({"x"})))) == {"NVSWITCH_BIOS"}
    assert "NVSWITCH_VERSIONS_NOT_APPRAISED" in informing(judge(evidence(), reference=replace(REFERENCE, bios=None)))
    assert "NVSWITCH_NONCE_NOT_COMPARED" in informing(judge(evidence(), nonce=None))
    with pytest.raises(MalformedError, match="nonce"):
        judge(evidence(), nonce=b"short")


def test_the_bios_manifest_covers_every_measurement() -> None:
    unpinned = replace(REFERENCE, measurements={})
    assert "NVSWITCH_MEASUREMENTS_NOT_APPRAISED" in informing(judge(evidence(), reference=unpinned))
    collateral = Collateral(rims=(BIOS,))
    result = judge(evidence(), reference=unpinned, collateral=collateral)
    assert result.ok
    assert "NVSWITCH_MEASUREMENTS_NOT_APPRAISED" not in informing(result)
    assert result.claims["measurement_coverage"]["bios_rim"] == list(range(1, 32))
    other = judge(evidence(D.OTHER_FIRMWARE), reference=unpinned, collateral=collateral)
    assert failing(other) == {"RIM_MEASUREMENT"}
    newer = SimulatedSwitch(vendor=VENDOR, pdi=1, gpu_pdis=(1,), bios_version="96.10.6D.00.02")
    result = judge(newer.evidence("nvswitch0", NONCE), reference=replace(unpinned, bios=None), collateral=collateral)
    assert failing(result) == {"RIM_VERSION"}
    assert any(each.expected == "NV_SWITCH_BIOS_5612_0002_890_96106D0002" for each in result.findings)


def test_manifests_of_gpus_are_passed_over() -> None:
    gpu = RIMS.driver(VENDOR.gpu(1))
    result = judge(evidence(), collateral=Collateral(rims=(gpu, BIOS)))
    assert result.ok
    assert "RIM_OTHER_DEVICE" in informing(result)
    assert failing(judge(evidence(), collateral=Collateral(rims=(gpu,)), profile=conformance.PROFILE)) == {
        "RIM_OTHER_DEVICE"
    }


def test_a_manifest_of_a_kind_that_switches_have_none_of_is_passed_over() -> None:
    driver = RIMS.manifest(product="LS_10", edition="SWITCH", version="580.95.05", values={1: (bytes(48),)})
    result = judge(evidence(), collateral=Collateral(rims=(driver, BIOS)))
    (finding,) = [each for each in result.findings if each.code == "RIM_OTHER_DEVICE"]
    assert finding.actual == "LS_10 580.95.05"


def test_revocation() -> None:
    ocsp = SimulatedOcsp(vendor=VENDOR)

    def responses(*revoked: int) -> Collateral:
        return Collateral(ocsp=ocsp.responses(SWITCH.certificates(), this_update=NOW - 60, first=1, revoked=revoked))

    result = judge(evidence(), collateral=responses())
    assert informing(result) == {"NVSWITCH_FWID_NOT_REPORTED"}
    for position in (1, 2, 3):
        assert failing(judge(evidence(), collateral=responses(position))) == {"OCSP_STATUS"}


def test_the_registry_finds_the_scheme() -> None:
    anchors = TrustAnchors(snp=None, nvgpu=None, nvswitch=SWITCH.anchors())
    assert anchors.simulated
    assert not TrustAnchors.production().simulated
    arguments = {"expected": NONCE, "collateral": Collateral(), "now": NOW}
    reference = ReferenceValues(snp=None, nvgpu=None, nvswitch=REFERENCE)
    assert verify_evidence(evidence(), anchors=anchors, reference=reference, **arguments).ok
    with pytest.raises(TrustAnchorError):
        verify_evidence(
            evidence(),
            anchors=replace(anchors, nvswitch=None),
            reference=reference,
            **arguments,
        )


def test_the_simulator_refuses_what_cannot_be() -> None:
    with pytest.raises(ManifestError):
        SWITCH.evidence("nvswitch0", b"short")
    with pytest.raises(ManifestError):
        SimulatedSwitch(vendor=VENDOR, pdi=1 << 64)
    with pytest.raises(ManifestError):
        SimulatedSwitch(vendor=VENDOR, pdi=1, gpu_pdis=tuple(range(9)))


@pytest.mark.parametrize(
    ("kind", "value"),
    [(6, b""), (6, b"\xff"), (12, b"123"), (20, b"x"), (22, b"x"), (23, b"x"), (24, b"x"), (25, b"x"), (26, b"x")],
)
def test_fields_of_another_shape_are_malformed(kind: int, value: bytes) -> None:
    parsed = SwitchEvidence.parse(evidence().data)
    odd = replace(parsed, opaque={**parsed.opaque, kind: value})
    with pytest.raises(ValueError, match="differ"):
        odd.to_bytes()
    with pytest.raises(MalformedError):
        _ = (
            odd.bios_version,
            odd.measurement_counts,
            odd.fwid,
            odd.pdi,
            odd.disabled_ports,
            odd.position,
            odd.lock_status,
            odd.gpu_pdis,
        )


def test_one_byte_after_the_signature_is_kept_as_it_came() -> None:
    data = evidence().data + b"\x07"
    parsed = SwitchEvidence.parse(data, allow_trailing_byte=True)
    assert parsed.trailing == b"\x07"
    assert parsed.to_bytes() == data
    with pytest.raises(MalformedError):
        SwitchEvidence.parse(data)


def test_a_bios_version_is_text_before_nuls() -> None:
    parsed = SwitchEvidence.parse(evidence().data)
    assert replace(parsed, opaque={6: b"96.10.55.00.01\0\0"}).bios_version == "96.10.55.00.01"
    for text in (b"\0" + b"96", b"96\x07", b"\0\0"):
        with pytest.raises(MalformedError, match="no text"):
            _ = replace(parsed, opaque={6: text}).bios_version
    bare = replace(parsed, opaque={})
    assert bare.bios_version is bare.pdi is bare.lock_status is bare.position is bare.measurement_counts is None


def test_ports_lead_to_gpus_or_nowhere() -> None:
    parsed = SwitchEvidence.parse(evidence().data)
    absent = replace(parsed, opaque={kind: value for kind, value in parsed.opaque.items() if kind != 26})
    assert absent.gpu_pdis is None
    assert absent.gpu_pdi_by_port is None
    # A port may lead to a place that no GPU has.
    places = (1).to_bytes(8, "big") + b"\xff" * 56
    half = replace(parsed, opaque={**parsed.opaque, 26: places + bytes([0, 1, 0xFF]) + b"\xff" * 61})
    assert half.gpu_pdis == ((1).to_bytes(8, "big"),)
    assert half.gpu_pdi_by_port == ((1).to_bytes(8, "big"), *[None] * 63)


def test_inspection_tells_switches_from_gpus() -> None:
    data = evidence().data
    assert detect_scheme(data) == "nvswitch"
    assert detect_scheme(VENDOR.gpu(1).evidence("gpu0", NONCE).data) == "nvgpu"
    assert detect_scheme(data[:100]) == "nvgpu", "what cannot be read is told by its first bytes"
    found = inspect_evidence(data).to_json()
    assert found["scheme"] == "nvswitch"
    assert found["verified"] is False
    json.dumps(found)


@pytest.mark.vectors
def test_genuine_switches(vectors: Path) -> None:
    good = [
        each for each in load_manifest(vectors / "manifest.json", {"nvswitch"}) if each.expected["verdict"] == "pass"
    ]
    assert len(good) >= 3
    for case in good:
        result = verify(
            Evidence("nvswitch0", "nvswitch", case.files["report"], certificates_from_pem(case.files["cert_chain"])),
            anchors=NvSwitchAnchors.nvidia(),
            reference=conformance.REFERENCE,
            expected_nonce=bytes.fromhex(str(case.expected["nonce"])),
            now=case.now or 0,
            collateral=Collateral(rims=tuple(data for role, data in case.files.items() if role == "bios_rim")),
        )
        assert result.ok, result.findings
        assert result.identity is not None
        assert result.claims["stated_pdi"] == result.claims["pdi"]
        assert SwitchEvidence.parse(case.files["report"]).to_bytes() == case.files["report"]
