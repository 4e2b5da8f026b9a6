"""Every finding of NVIDIA's devices and of a node says whose word the expected value is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from attestation import node_checks, ocsp
from attestation.composite import NodeEvidence, verify_node
from attestation.fabric import FabricTopology
from attestation.findings import THIS_SESSION, Finding
from attestation.nvgpu import checks as gpu_checks
from attestation.nvgpu import verify as nvgpu
from attestation.nvgpu.abi import Mode
from attestation.nvswitch import verify as nvswitch
from attestation.simulator.certificates import digest
from attestation.simulator.node import SimulatedNode, SimulatedVendors
from attestation.simulator.nvgpu import GpuDefect, SimulatedGpuVendor
from attestation.simulator.nvswitch import SimulatedSwitch, SwitchDefect
from attestation.simulator.ocsp import SimulatedOcsp
from attestation.simulator.rim import SimulatedRimAuthority
from attestation.types import Collateral
from keystead.binding import HPKE_PUBLIC_KEY_SIZE, NONCE_SIZE, RuntimeData

NOW = 1_790_000_000
DAY = 24 * 3600
NONCE = b"\xa5" * 32
ORIGIN = "/etc/keystead/reference.toml"
VENDOR = SimulatedGpuVendor(b"\x01" * 32)
RIMS = SimulatedRimAuthority(vendor=VENDOR, not_before=NOW - 300 * DAY)
OCSP = SimulatedOcsp(vendor=VENDOR)
GPU = VENDOR.gpu(7)
SWITCH = SimulatedSwitch(vendor=VENDOR, pdi=9, gpu_pdis=(7,), position=0)
OTHER_VALUE = frozenset({bytes(48)})
GPU_REFERENCE = nvgpu.NvGpuReference(
    products=frozenset({"GB100"}),
    modes=frozenset({Mode.PROTECTED_PCIE}),
    drivers=frozenset({"1.2.3"}),
    vbios=frozenset({"1"}),
    measurements={8: OTHER_VALUE},
    origin=ORIGIN,
)
RUNTIME = RuntimeData(
    broker="broker.example",
    nonce=bytes(NONCE_SIZE),
    grant=bytes(32),
    node_id="node-1",
    hpke_key=bytes(HPKE_PUBLIC_KEY_SIZE),
    signing_key=bytes(32),
    assets=bytes(32),
    lease_id="",
    devices=(),
)


def judge_gpu(collateral: Collateral, *, ocsp_max_age: int | None = None, wrong: bool = False) -> tuple[Finding, ...]:
    return nvgpu.verify(
        GPU.evidence("gpu0", NONCE, defects=[GpuDefect.WRONG_NONCE, GpuDefect.OTHER_FIRMWARE] if wrong else []),
        anchors=VENDOR.anchors(),
        reference=replace(GPU_REFERENCE, ocsp_max_age=ocsp_max_age),
        expected_nonce=NONCE,
        now=NOW,
        collateral=collateral,
    ).findings


def references(findings: tuple[Finding, ...]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for finding in findings:
        found.setdefault(finding.code, set()).add(finding.reference)
    return found


def test_a_gpus_reference_values_are_the_operators_and_its_nonce_is_this_sessions() -> None:
    found = references(judge_gpu(Collateral(), wrong=True))
    for code in ("NVGPU_PRODUCT", "NVGPU_MODE", "NVGPU_DRIVER", "NVGPU_VBIOS", "NVGPU_MEASUREMENT"):
        assert found[code] == {ORIGIN}, code
    assert found["NVGPU_NONCE"] == {THIS_SESSION}
    # Where nobody but the rule itself says what is expected, the rule's source stands there.
    assert found["NVGPU_REVOCATION_NOT_CHECKED"] == {gpu_checks.REVOCATION_NOT_CHECKED.source}


def test_a_switchs_reference_values_are_the_operators_and_its_nonce_is_this_sessions() -> None:
    reference = nvswitch.NvSwitchReference(
        products=frozenset({"LS_11"}), bios=frozenset({"1"}), measurements={1: OTHER_VALUE}, origin=ORIGIN
    )
    result = nvswitch.verify(
        SWITCH.evidence("nvswitch0", NONCE, defects=[SwitchDefect.WRONG_NONCE]),
        anchors=SWITCH.anchors(),
        reference=reference,
        expected_nonce=NONCE,
        now=NOW,
    )
    found = references(result.findings)
    for code in ("NVSWITCH_PRODUCT", "NVSWITCH_BIOS", "NVSWITCH_MEASUREMENT"):
        assert found[code] == {ORIGIN}, code
    assert found["NVSWITCH_NONCE"] == {THIS_SESSION}


def test_a_manifests_reference_values_are_named_by_its_tag() -> None:
    found = references(judge_gpu(Collateral(rims=(RIMS.driver(GPU), RIMS.vbios(GPU))), wrong=True))
    tag = digest("RIM", GPU.architecture.value, GPU.configuration.driver_version).hex()
    assert found["RIM_MEASUREMENT"] == {f"RIM {tag}"}


def test_revocation_is_the_word_of_the_certificates_issuer() -> None:
    old = OCSP.responses(GPU.certificates(), first=1, revoked=[1], this_update=NOW - 3 * DAY)
    found = references(judge_gpu(Collateral(ocsp=old)))
    by_issuer = {reference.rpartition("CN=")[2] for reference in found["OCSP_WINDOW"]}
    assert all(reference.startswith("OCSP, on behalf of ") for reference in found["OCSP_WINDOW"])
    assert len(by_issuer) == 3
    assert len(found["OCSP_PAST_STATUS"]) == 1
    aged = references(judge_gpu(Collateral(ocsp=old), ocsp_max_age=2 * DAY))
    assert all(each.endswith(", and the maximum age in the reference values") for each in aged["OCSP_WINDOW"])
    other = OCSP.responses(GPU.certificates(), first=1, this_update=NOW - 60, nonce=b"n" * 32)
    asked = references(judge_gpu(Collateral(ocsp=other, ocsp_nonce=b"m" * 32)))
    assert asked[ocsp.NONCE.code] == {THIS_SESSION}


@pytest.fixture(scope="module")
def node(vendors: SimulatedVendors) -> SimulatedNode:
    return vendors.node("referenced", now=NOW, gpus=2, switches=1)


def test_a_nodes_devices_are_held_to_its_runtime_data_its_certificates_and_its_declaration(
    vendors: SimulatedVendors, node: SimulatedNode
) -> None:
    arguments: dict[str, Any] = {
        "device_nonce": NONCE,
        "anchors": vendors.anchors(),
        "reference": vendors.reference(fabric=FabricTopology(gpus=3, switches=1, origin=ORIGIN)),
        "collateral": vendors.collateral(this_update=NOW - 60),
        "now": NOW,
    }
    evidence, runtime = node.attest(RUNTIME, device_nonce=NONCE)
    one_gpu = NodeEvidence(evidence.cpu, (evidence.devices[1], evidence.devices[2]))
    found = references(verify_node(one_gpu, runtime_data=runtime, **arguments).findings)
    assert found["NODE_FABRIC_COUNT"] == {ORIGIN}
    assert found["NODE_FABRIC_GPUS"] == {"BROM certificates of the node's GPUs"}
    no_switch = NodeEvidence(evidence.cpu, evidence.devices[:2])
    found_without = references(verify_node(no_switch, runtime_data=runtime, **arguments).findings)
    assert found_without["NODE_FABRIC_SWITCHES"] == {"BROM certificates of the node's switches"}
    assert found["NODE_DEVICE_DIGEST"] == {"runtime data, which the CPU vouches for"}
    assert found["NODE_DEVICE_COUNT"] == {"runtime data, which the CPU vouches for"}
    other = replace(runtime, lease_id="another")
    found = references(verify_node(evidence, runtime_data=other, **arguments).findings)
    assert found[node_checks.RUNTIME_DATA.code] == {THIS_SESSION}
