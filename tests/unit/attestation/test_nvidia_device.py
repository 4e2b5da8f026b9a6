"""What is remembered of NVIDIA's devices changes no verdict: warm equals cold, whatever came before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from attestation.nvgpu.abi import Mode
from attestation.nvgpu.endorsements import NvGpuAnchors
from attestation.nvgpu.verify import NvGpuReference, verify
from attestation.simulator.nvgpu import Architecture, GpuDefect, SimulatedGpu, SimulatedGpuVendor
from attestation.simulator.ocsp import OcspDefect, SimulatedOcsp
from attestation.simulator.rim import RimDefect, SimulatedRimAuthority
from attestation.types import Collateral, DeviceResult

NOW = 1_790_000_000
DAY = 24 * 3600
NONCE = b"\xa5" * 32
VENDOR = SimulatedGpuVendor(b"\x01" * 32)
OTHER_VENDOR = SimulatedGpuVendor(b"\x02" * 32)
RIMS = SimulatedRimAuthority(vendor=VENDOR, not_before=NOW - 300 * DAY)
OCSP = SimulatedOcsp(vendor=VENDOR)
GPUS = tuple(VENDOR.gpu(pdi, architecture=architecture) for architecture in Architecture for pdi in (7, 8))
REFERENCE = NvGpuReference(
    products=frozenset({"GH100", "GB100"}), modes=frozenset(Mode), drivers=None, vbios=None, measurements={}
)


def judge(
    gpu: SimulatedGpu,
    anchors: NvGpuAnchors,
    *,
    defects: Sequence[GpuDefect] = (),
    reference: NvGpuReference = REFERENCE,
    collateral: Collateral | None = None,
    nonce: bytes = NONCE,
    now: int = NOW,
) -> DeviceResult:
    return verify(
        gpu.evidence("gpu0", nonce, defects=defects),
        anchors=anchors,
        reference=reference,
        expected_nonce=nonce,
        now=now,
        collateral=collateral,
    )


def codes(result: DeviceResult) -> set[str]:
    return {finding.code for finding in result.findings if finding.severity == "fail"}


def collaterals(gpu: SimulatedGpu) -> tuple[Collateral, ...]:
    rims = (RIMS.driver(gpu), RIMS.vbios(gpu))
    good = OCSP.responses(gpu.certificates(), this_update=NOW - 60, first=1)
    signers = OCSP.responses(RIMS.certificates(), this_update=NOW - 60)
    revoked = OCSP.responses(gpu.certificates(), this_update=NOW - 30, first=1, revoked=[1])
    return (
        Collateral(),
        Collateral(rims=rims),
        Collateral(rims=rims, ocsp=good + signers),
        Collateral(rims=(RIMS.driver(gpu, defects=[RimDefect.ALTERED]),), ocsp=good),
        Collateral(rims=rims, ocsp=good + revoked),
        Collateral(ocsp=OCSP.responses(gpu.certificates(), this_update=NOW - 60, first=1, nonce=b"n" * 32)),
        Collateral(
            ocsp=OCSP.responses(gpu.certificates(), this_update=NOW - 60, first=1, nonce=b"n" * 32),
            ocsp_nonce=b"m" * 32,
        ),
    )


def test_warm_equals_cold_whatever_came_before() -> None:
    warm = VENDOR.anchors()
    defects: list[tuple[GpuDefect, ...]] = [(), (GpuDefect.OTHER_FIRMWARE,), (GpuDefect.ALTERED_MEASUREMENT,)]
    defects += [(GpuDefect.WRONG_FWID,), (GpuDefect.MISSING_FWID,), (GpuDefect.WRONG_NONCE,), (GpuDefect.OTHER_CHIP,)]
    given = [(gpu, collateral) for gpu in (GPUS[0], GPUS[2]) for collateral in collaterals(gpu)]
    cases = [(gpu, collateral, (), now) for gpu, collateral in given for now in (NOW, NOW + DAY, NOW + 800 * DAY)]
    cases += [(gpu, given[1][1], wrong, NOW) for gpu in (GPUS[0], GPUS[1]) for wrong in defects]
    seen = set()
    for gpu, collateral, wrong, now in cases + cases:
        result = judge(gpu, warm, defects=wrong, collateral=collateral, now=now)
        assert result == judge(gpu, VENDOR.anchors(), defects=wrong, collateral=collateral, now=now)
        seen |= codes(result)
    assert len(warm.appraised) > 4
    assert len(warm.statements) > 4
    assert seen >= {"RIM_MEASUREMENT", "RIM_DIGEST", "RIM_SIGNER_VALIDITY", "OCSP_WINDOW", "OCSP_STATUS", "NVGPU_FWID"}
    assert "OCSP_NONCE" in seen


def test_devices_of_one_software_are_judged_once() -> None:
    anchors = VENDOR.anchors()
    collateral = collaterals(GPUS[0])[2]
    results = [
        judge(gpu, anchors, collateral=replace(collateral, ocsp=()), nonce=bytes([index] * 32))
        for index, gpu in enumerate((GPUS[0], GPUS[1], GPUS[0]))
    ]
    assert (len(anchors.statements), len(anchors.appraised)) == (1, 1)
    assert [result.identity for result in results] == [GPUS[0].identity, GPUS[1].identity, GPUS[0].identity]
    assert [result.claims["nonce"] for result in results] == ["00" * 32, "01" * 32, "02" * 32]
    assert not any(codes(result) for result in results)


def test_other_reference_values_are_other_values() -> None:
    anchors = VENDOR.anchors()
    pinned = {8: frozenset({bytes(48)})}
    strict = replace(REFERENCE, measurements=pinned, modes=frozenset({Mode.PROTECTED_PCIE}))
    for reference, expected in (
        (REFERENCE, set()),
        (strict, {"NVGPU_MEASUREMENT", "NVGPU_MODE"}),
        (REFERENCE, set()),
        (replace(strict, modes=REFERENCE.modes), {"NVGPU_MEASUREMENT"}),
    ):
        assert codes(judge(GPUS[0], anchors, reference=reference)) == expected
    # Whoever made them cannot change them afterwards.
    pinned[8] = frozenset({GPUS[0].measurements[8]})
    assert "NVGPU_MEASUREMENT" in codes(judge(GPUS[0], anchors, reference=strict))
    assert strict.measurements == {8: frozenset({bytes(48)})}
    assert strict == replace(strict)


def test_other_roots_of_manifests_are_other_roots() -> None:
    anchors = VENDOR.anchors()
    collateral = Collateral(rims=(RIMS.driver(GPUS[0]),))
    assert codes(judge(GPUS[0], anchors, collateral=collateral)) == set()
    others = SimulatedRimAuthority(vendor=OTHER_VENDOR, not_before=NOW - DAY).anchors()
    assert {"RIM_CHAIN"} < codes(judge(GPUS[0], anchors.with_rims(others), collateral=collateral))
    assert codes(judge(GPUS[0], anchors, collateral=collateral)) == set()


@pytest.mark.parametrize("defect", [GpuDefect.BAD_SIGNATURE, GpuDefect.OTHER_ROOT, GpuDefect.ALTERED_MEASUREMENT])
def test_nothing_is_remembered_of_evidence_that_is_not_authentic(defect: GpuDefect) -> None:
    anchors = VENDOR.anchors()
    assert codes(judge(GPUS[0], anchors, defects=[defect]))
    assert (len(anchors.statements), len(anchors.appraised), len(anchors.chains)) in {(0, 0, 0), (0, 0, 1)}


def test_a_response_is_held_to_its_window_however_often_it_was_used() -> None:
    anchors = VENDOR.anchors()
    responses = OCSP.responses(GPUS[0].certificates(), this_update=NOW - 60, first=1)
    collateral = Collateral(ocsp=responses)
    for now, expected in (
        (NOW, set()),
        (NOW, set()),
        (NOW - 61, {"OCSP_WINDOW"}),
        (NOW - 60, set()),
        (NOW - 60 + DAY - 1, set()),
        (NOW - 60 + DAY, {"OCSP_WINDOW"}),
        (NOW, set()),
    ):
        result = judge(GPUS[0], anchors, collateral=collateral, now=now)
        assert codes(result) == expected
        ages = {age for name, age in result.collateral_age.items() if name.startswith("ocsp ")}
        assert ages == (set() if expected else {now - (NOW - 60)})
    aged = replace(REFERENCE, ocsp_max_age=2 * DAY)
    assert codes(judge(GPUS[0], anchors, collateral=collateral, now=NOW + DAY, reference=aged)) == set()
    assert codes(judge(GPUS[0], anchors, collateral=collateral, now=NOW + DAY)) == {"OCSP_WINDOW"}


def test_a_newer_response_is_heard_though_an_older_one_was_found_sound() -> None:
    anchors = VENDOR.anchors()
    good = OCSP.responses(GPUS[0].certificates(), this_update=NOW - 60, first=1)
    assert codes(judge(GPUS[0], anchors, collateral=Collateral(ocsp=good))) == set()
    revoked = OCSP.responses(GPUS[0].certificates(), this_update=NOW - 30, first=1, revoked=[1])[:1]
    assert codes(judge(GPUS[0], anchors, collateral=Collateral(ocsp=good + revoked))) == {"OCSP_STATUS"}
    assert codes(judge(GPUS[0], anchors, collateral=Collateral(ocsp=good))) == set()


def test_a_responder_that_nobody_appointed_is_refused_beside_one_that_was() -> None:
    anchors = VENDOR.anchors()
    good = OCSP.responses(GPUS[0].certificates(), this_update=NOW - 60, first=1)
    assert codes(judge(GPUS[0], anchors, collateral=Collateral(ocsp=good))) == set()
    for defect in (OcspDefect.OTHER_ISSUER, OcspDefect.NOT_FOR_OCSP, OcspDefect.BAD_SIGNATURE):
        bad = OCSP.responses(GPUS[0].certificates(), this_update=NOW - 50, first=1, defects=[defect])
        assert codes(judge(GPUS[0], anchors, collateral=Collateral(ocsp=bad))) == {"OCSP_AUTHENTIC"}, defect
