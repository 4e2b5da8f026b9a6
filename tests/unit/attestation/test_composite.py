from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from attestation import node_checks
from attestation.composite import (
    BINDING_KEY,
    BINDING_KEY_AND_DEVICES,
    BINDING_NONE,
    MAX_DEVICES,
    NodeEvidence,
    NodeResult,
    verify_node,
)
from attestation.errors import MalformedError, TrustAnchorError, UnsupportedError
from attestation.registry import CHECKS, SCHEMES, SnpScheme
from attestation.scheme import ReferenceValues, TrustAnchors
from attestation.simulator.node import SimulatedNode, SimulatedVendors
from attestation.simulator.nvgpu import GpuDefect
from attestation.simulator.snp import SnpDefect
from attestation.types import Evidence
from attestation.verifier import verify_evidence
from keystead.binding import HPKE_PUBLIC_KEY_SIZE, NONCE_SIZE, RuntimeData, device_evidence_digest

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


@pytest.fixture(scope="module")
def node(vendors: SimulatedVendors) -> SimulatedNode:
    return vendors.node("node-1", now=NOW, gpus=2)


@pytest.fixture(scope="module")
def arguments(vendors: SimulatedVendors) -> dict[str, Any]:
    return {
        "device_nonce": NONCE,
        "anchors": vendors.anchors(),
        "reference": vendors.reference(),
        "collateral": vendors.collateral(this_update=NOW - 60),
        "now": NOW,
    }


def _codes(result: NodeResult) -> set[str]:
    return {finding.code for finding in result.findings}


def _failing(result: NodeResult) -> dict[str, set[str]]:
    return {
        device.slot: {finding.code for finding in device.findings if finding.severity == "fail"}
        for device in result.devices
        if not device.ok
    }


def test_a_sound_node_is_bound_with_its_devices(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    evidence, runtime = node.attest(RUNTIME, device_nonce=NONCE)
    result = verify_node(evidence, runtime_data=runtime, **arguments)
    assert result.ok
    assert result.findings == ()
    assert result.binding_level == BINDING_KEY_AND_DEVICES
    assert result.simulated
    assert [device.slot for device in result.devices] == ["cpu0", "gpu0", "gpu1"]
    assert {device.slot: device.identity for device in result.devices} == node.identities()
    fabric = {check.code for check in node_checks.CHECKS if check.code.startswith("NODE_FABRIC_")}
    assert {passed.code for passed in result.passed} == {check.code for check in node_checks.CHECKS} - fabric
    assert verify_node(evidence, runtime_data=runtime.to_bytes(), **arguments) == result


def test_a_node_without_devices_is_bound_by_key(vendors: SimulatedVendors, arguments: dict[str, Any]) -> None:
    evidence, runtime = vendors.node("storage-1", now=NOW, gpus=0).attest(RUNTIME, device_nonce=NONCE)
    result = verify_node(evidence, runtime_data=runtime, **arguments)
    assert result.ok
    assert result.binding_level == BINDING_KEY


def _attest(node: SimulatedNode, change: Callable[[tuple[Evidence, ...]], tuple[Evidence, ...]]) -> Any:
    """Evidence whose runtime data vouch for the changed devices, as an attacker with root on the node could make."""
    devices = change(node.device_evidence(NONCE))
    runtime = replace(RUNTIME, devices=tuple(_digest(each) for each in devices))
    return NodeEvidence(node.cpu_evidence(runtime.report_data()), devices), runtime


def _digest(evidence: Evidence) -> bytes:
    return device_evidence_digest(
        slot=evidence.slot, scheme=evidence.scheme, data=evidence.data, certificates=evidence.certificates
    )


def test_other_runtime_data_are_not_vouched_for(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    evidence, runtime = node.attest(RUNTIME, device_nonce=NONCE)
    result = verify_node(evidence, runtime_data=replace(runtime, node_id="node-2"), **arguments)
    assert _codes(result) == {"NODE_RUNTIME_DATA"}
    assert _failing(result) == {"cpu0": {"SNP_REPORT_DATA"}}
    assert result.binding_level == BINDING_NONE


def test_cpu_evidence_that_is_not_authentic_binds_nothing(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    evidence, runtime = node.with_defects(cpu=[SnpDefect.BAD_SIGNATURE]).attest(RUNTIME, device_nonce=NONCE)
    result = verify_node(evidence, runtime_data=runtime, **arguments)
    assert _codes(result) == {"NODE_RUNTIME_DATA"}
    assert result.binding_level == BINDING_NONE


def test_a_device_that_the_runtime_data_do_not_name(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    evidence, runtime = node.attest(RUNTIME, device_nonce=NONCE)
    fewer = replace(evidence, devices=evidence.devices[:1])
    assert _codes(verify_node(fewer, runtime_data=runtime, **arguments)) == {"NODE_DEVICE_COUNT"}
    assert verify_node(fewer, runtime_data=runtime, **arguments).binding_level == BINDING_KEY
    added = NodeEvidence(node.cpu_evidence(RUNTIME.report_data()), evidence.devices)
    assert _codes(verify_node(added, runtime_data=RUNTIME, **arguments)) == {"NODE_DEVICE_COUNT"}


def test_swapped_devices(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    evidence, runtime = node.attest(RUNTIME, device_nonce=NONCE)
    swapped = replace(evidence, devices=evidence.devices[::-1])
    result = verify_node(swapped, runtime_data=runtime, **arguments)
    assert _codes(result) == {"NODE_DEVICE_DIGEST"}
    assert result.binding_level == BINDING_KEY


def test_another_device_after_the_cpu_has_vouched(
    vendors: SimulatedVendors, node: SimulatedNode, arguments: dict[str, Any]
) -> None:
    evidence, runtime = node.attest(RUNTIME, device_nonce=NONCE)
    again = vendors.node("node-2", now=NOW, gpus=1).device_evidence(NONCE)[0]
    result = verify_node(replace(evidence, devices=(again, *evidence.devices[1:])), runtime_data=runtime, **arguments)
    assert _codes(result) == {"NODE_DEVICE_DIGEST"}


def test_a_replayed_device_nonce(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    defective = node.with_defects(gpus={"gpu1": [GpuDefect.WRONG_NONCE]})
    evidence, runtime = defective.attest(RUNTIME, device_nonce=NONCE)
    result = verify_node(evidence, runtime_data=runtime, **arguments)
    assert _failing(result) == {"gpu1": {"NVGPU_NONCE"}}
    assert not result.ok
    assert result.binding_level == BINDING_KEY


def test_what_evidence_binds_counts_only_if_it_is_authentic(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    """Whatever a scheme says that its evidence binds: no scheme must be trusted to withhold it."""

    class Careless(SnpScheme):
        def verify(self, evidence: Evidence, **options: Any) -> Any:
            result = super().verify(evidence, **options)
            return replace(result, claims={**result.claims, "authentic": False})

    evidence, runtime = node.attest(RUNTIME, device_nonce=NONCE)
    result = verify_node(evidence, runtime_data=runtime, **arguments, schemes={**SCHEMES, "snp": Careless()})
    assert _codes(result) == {"NODE_RUNTIME_DATA"}
    assert result.binding_level == BINDING_NONE


@pytest.mark.parametrize("slot", ["gpu0", "gpu1"])
def test_one_device_that_fails_is_enough(node: SimulatedNode, arguments: dict[str, Any], slot: str) -> None:
    evidence, runtime = node.with_defects(gpus={slot: [GpuDefect.WRONG_FWID]}).attest(RUNTIME, device_nonce=NONCE)
    result = verify_node(evidence, runtime_data=runtime, **arguments)
    assert _failing(result) == {slot: {"NVGPU_FWID"}}
    assert result.binding_level == BINDING_KEY


def test_devices_that_prove_no_identity_are_not_the_same_device(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    nameless = [GpuDefect.SWITCH_SERIAL]
    evidence, runtime = node.with_defects(gpus={"gpu0": nameless, "gpu1": nameless}).attest(RUNTIME, device_nonce=NONCE)
    result = verify_node(evidence, runtime_data=runtime, **arguments)
    assert set(_failing(result)) == {"gpu0", "gpu1"}
    assert _codes(result) == set()


def test_one_device_twice(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    evidence, runtime = _attest(node, lambda each: (each[0], replace(each[0], slot="gpu1")))
    assert _codes(verify_node(evidence, runtime_data=runtime, **arguments)) == {"NODE_IDENTITY_UNIQUE"}


@pytest.mark.parametrize("slot", ["gpu0", "cpu1", "gpu", "gpu01", "gpu100", "GPU1", "gpu1 ", "nvswitch0", "", "gpu-1"])
def test_slots_are_of_their_kind_and_unique(node: SimulatedNode, arguments: dict[str, Any], slot: str) -> None:
    evidence, runtime = _attest(node, lambda each: (each[0], replace(each[1], slot=slot)))
    assert _codes(verify_node(evidence, runtime_data=runtime, **arguments)) == {"NODE_SLOT"}


def test_a_gpu_is_not_the_node(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    evidence, runtime = node.attest(RUNTIME, device_nonce=NONCE)
    swapped = NodeEvidence(evidence.devices[0], (evidence.cpu, evidence.devices[1]))
    with pytest.raises(MalformedError, match="nvgpu as the node's own"):
        verify_node(swapped, runtime_data=runtime, **arguments)
    with pytest.raises(MalformedError, match="snp among the devices"):
        verify_node(NodeEvidence(evidence.cpu, (evidence.cpu,)), runtime_data=runtime, **arguments)


def test_every_node_check_is_registered() -> None:
    assert {check.code for check in node_checks.CHECKS} <= CHECKS.keys()
    for scheme in SCHEMES.values():
        assert {check.code for check in scheme.checks} <= CHECKS.keys()
    assert set(SCHEMES) == {"snp", "snp-azure-hcl", "nvgpu", "nvswitch"}
    for code, check in CHECKS.items():
        assert code == check.code
        assert check.title
        assert check.source
        assert check.remedy


def test_what_cannot_be_judged_is_an_error(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    evidence, runtime = node.attest(RUNTIME, device_nonce=NONCE)
    with pytest.raises(MalformedError, match="device nonce"):
        verify_node(evidence, runtime_data=runtime, **{**arguments, "device_nonce": bytes(31)})
    with pytest.raises(MalformedError, match="runtime data"):
        verify_node(evidence, runtime_data=runtime.to_bytes() + b"\x00", **arguments)
    full = replace(evidence, devices=evidence.devices[:1] * MAX_DEVICES)
    assert "NODE_DEVICE_COUNT" in _codes(verify_node(full, runtime_data=runtime, **arguments))
    with pytest.raises(MalformedError, match="at most 64"):
        verify_node(replace(full, devices=full.devices + full.devices[:1]), runtime_data=runtime, **arguments)
    with pytest.raises(MalformedError, match="at most 64"):
        verify_node(replace(evidence, devices=evidence.devices * 40), runtime_data=runtime, **arguments)
    with pytest.raises(UnsupportedError, match="'tpm'"):
        verify_node(replace(evidence, cpu=replace(evidence.cpu, scheme="tpm")), runtime_data=runtime, **arguments)
    no_gpu = replace(arguments["anchors"], nvgpu=None)
    with pytest.raises(TrustAnchorError, match="GPU"):
        verify_node(evidence, runtime_data=runtime, **{**arguments, "anchors": no_gpu})
    no_snp = ReferenceValues(snp=None, nvgpu=arguments["reference"].nvgpu)
    with pytest.raises(TrustAnchorError, match="SNP"):
        verify_node(evidence, runtime_data=runtime, **{**arguments, "reference": no_snp})


def test_production_anchors_trust_no_simulator(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    anchors = TrustAnchors.production()
    assert not anchors.simulated
    assert arguments["anchors"].simulated
    evidence, runtime = node.attest(RUNTIME, device_nonce=NONCE)
    result = verify_node(evidence, runtime_data=runtime, **{**arguments, "anchors": anchors})
    assert not result.ok
    assert not result.simulated
    assert all(device.identity is None for device in result.devices)
    assert "SNP_ROOT_NOT_PINNED" in _failing(result)["cpu0"]


def test_one_device_by_itself(node: SimulatedNode, arguments: dict[str, Any]) -> None:
    common = {name: arguments[name] for name in ("anchors", "reference", "collateral", "now")}
    assert verify_evidence(node.cpu_evidence(bytes(64)), expected=bytes(64), **common).ok
    assert not verify_evidence(node.cpu_evidence(bytes(64)), expected=b"\x01" * 64, **common).ok
    assert verify_evidence(node.device_evidence(NONCE)[1], expected=NONCE, **common).ok
