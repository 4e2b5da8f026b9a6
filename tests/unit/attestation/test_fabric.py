"""One mode, and a topology proven from certified identities: 8 GPUs behind 4 switches, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from attestation.composite import NodeResult, verify_node
from attestation.fabric import FabricTopology
from attestation.nvgpu.abi import Mode
from attestation.reference.values import parse_reference_values
from attestation.simulator.node import SimulatedNode, SimulatedVendors
from attestation.simulator.nvgpu import GpuConfiguration, GpuDefect
from attestation.simulator.nvswitch import SwitchDefect
from keystead.binding import HPKE_PUBLIC_KEY_SIZE, NONCE_SIZE, RuntimeData

NOW = 1_790_000_000
NONCE = b"\x07" * 32
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
DGX = FabricTopology(gpus=8, switches=4)


@pytest.fixture(scope="module")
def node(vendors: SimulatedVendors) -> SimulatedNode:
    return vendors.node("dgx", now=NOW, gpus=8, switches=4)


@pytest.fixture(scope="module")
def arguments(vendors: SimulatedVendors) -> dict[str, Any]:
    return {
        "device_nonce": NONCE,
        "anchors": vendors.anchors(),
        "reference": vendors.reference(fabric=DGX),
        "collateral": vendors.collateral(this_update=NOW - 60),
        "now": NOW,
    }


def judge(node: SimulatedNode, arguments: dict[str, Any]) -> NodeResult:
    evidence, runtime = node.attest(RUNTIME, device_nonce=NONCE)
    return verify_node(evidence, runtime_data=runtime, **arguments)


def codes(result: NodeResult) -> set[str]:
    return {finding.code for finding in result.findings}


def test_a_whole_node_is_proven(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    result = judge(node, arguments)
    assert result.ok, [device.findings for device in result.devices if not device.ok]
    assert result.findings == ()
    assert {device.slot: device.identity for device in result.devices} == node.identities()
    assert len(result.devices) == 13
    passed = [each for each in result.passed if each.code.startswith("NODE_FABRIC_")]
    assert len(passed) == 2 + 8 + 4


def test_without_a_declaration_the_topology_is_not_proven(
    node: SimulatedNode, vendors: SimulatedVendors, arguments: dict[str, Any]
) -> None:
    result = judge(node, {**arguments, "reference": vendors.reference()})
    assert result.ok
    assert codes(result) == {"NODE_FABRIC_DECLARED"}


def test_a_missing_device_fails(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    seven = replace(node, gpus=node.gpus[:7])
    assert codes(judge(seven, arguments)) == {"NODE_FABRIC_COUNT", "NODE_FABRIC_GPUS"}
    three = replace(node, switches=node.switches[:3])
    assert codes(judge(three, arguments)) == {"NODE_FABRIC_COUNT", "NODE_FABRIC_SWITCHES"}
    none = replace(node, switches=())
    assert codes(judge(none, arguments)) == {"NODE_FABRIC_COUNT", "NODE_FABRIC_SWITCHES"}


def test_a_device_of_another_node_fails(
    node: SimulatedNode, vendors: SimulatedVendors, arguments: dict[str, Any]
) -> None:
    other = vendors.node("other", now=NOW, gpus=8, switches=4)
    assert codes(judge(replace(node, gpus=(*node.gpus[:7], other.gpus[0])), arguments)) == {
        "NODE_FABRIC_SWITCHES",
        "NODE_FABRIC_GPUS",
    }
    assert codes(judge(replace(node, switches=(*node.switches[:3], other.switches[0])), arguments)) == {
        "NODE_FABRIC_SWITCHES",
        "NODE_FABRIC_GPUS",
    }


def test_the_same_device_twice_fails(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    twice = replace(node, gpus=(*node.gpus[:7], node.gpus[0]))
    assert codes(judge(twice, arguments)) == {"NODE_IDENTITY_UNIQUE", "NODE_FABRIC_COUNT", "NODE_FABRIC_GPUS"}
    twice = replace(node, switches=(*node.switches[:3], node.switches[0]))
    assert codes(judge(twice, arguments)) == {"NODE_IDENTITY_UNIQUE", "NODE_FABRIC_COUNT", "NODE_FABRIC_SWITCHES"}


def test_an_identity_that_is_not_proven_does_not_count(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    broken = node.with_defects(gpus={"gpu3": [GpuDefect.BAD_SIGNATURE]}, switches={"nvswitch1": [SwitchDefect.NO_GPUS]})
    result = judge(broken, arguments)
    assert codes(result) == {"NODE_FABRIC_COUNT", "NODE_FABRIC_GPUS"}
    assert {device.slot for device in result.devices if not device.ok} == {"gpu3", "nvswitch1"}


def test_mixed_modes_fail(vendors: SimulatedVendors, arguments: dict[str, Any]) -> None:
    single = vendors.node("mixed", now=NOW, gpus=2)
    multi = vendors.node("mixed", now=NOW, gpus=2, configuration=GpuConfiguration(mode=Mode.MULTI_GPU))
    mixed = replace(single, gpus=(single.gpus[0], multi.gpus[1]))
    assert codes(judge(single, arguments)) == set()
    assert codes(judge(multi, arguments)) == set()
    result = judge(mixed, arguments)
    assert codes(result) == {"NODE_GPU_MODE"}
    assert not result.ok


def test_switches_are_a_fabric_whatever_mode_gpus_state(
    node: SimulatedNode, vendors: SimulatedVendors, arguments: dict[str, Any]
) -> None:
    single = replace(node, gpus=vendors.node("dgx", now=NOW, gpus=8).gpus)
    assert codes(judge(single, arguments)) == {"NODE_FABRIC_SWITCHES"}
    undeclared = judge(single, {**arguments, "reference": vendors.reference()})
    assert codes(undeclared) == {"NODE_FABRIC_DECLARED"}


def test_a_fabric_of_no_switches_is_none(vendors: SimulatedVendors, arguments: dict[str, Any]) -> None:
    alone = vendors.node("alone", now=NOW, gpus=1, configuration=GpuConfiguration(mode=Mode.PROTECTED_PCIE))
    reference = vendors.reference(fabric=FabricTopology(gpus=1, switches=0))
    assert codes(judge(alone, {**arguments, "reference": reference})) == {"NODE_FABRIC_SWITCHES"}


def test_the_declaration_is_a_section_of_the_reference_values() -> None:
    values = parse_reference_values(
        b"[fabric]\ngpus = 8\nswitches = 4\n[nvswitch]\nproducts = ['LS_10']\nocsp_max_age = 604800\n"
        b"[nvgpu]\nproducts = ['GH100']\nmodes = ['ppcie']\nrim_grace = 60\n",
        name="test",
    )
    assert values.fabric == replace(DGX, origin="test, unsigned")
    assert values.nvswitch is not None
    assert values.nvswitch.ocsp_max_age == 604800
    assert values.nvgpu is not None
    assert (values.nvgpu.rim_grace, values.nvgpu.ocsp_max_age) == (60, None)
