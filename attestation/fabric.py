"""GPUs and NVSwitches of one node as one trust boundary: one mode, and a topology proven from certified identities.

In protected-PCIe mode the traffic between GPUs is not encrypted on NVLink, so that every device on it belongs to the
boundary. Each GPU signs the PDIs of the switches behind its links, each switch signs the PDIs of the GPUs behind its
ports, and the BROM certificates certify each device's own PDI. Where these lists and the proven identities are equal as
sets, these GPUs sit behind these switches, and nothing else does. That the certified serial numbers are the PDIs is
observed on one published system of NVIDIA's with 8 GPUs and 4 switches, and documented nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from attestation import node_checks
from attestation.findings import CheckLog
from attestation.nvgpu import verify as nvgpu
from attestation.nvgpu.abi import Mode
from attestation.nvswitch import verify as nvswitch
from attestation.types import DeviceResult

_NOBODY: Final = frozenset({"0" * 16, "f" * 16})
"""PDIs of links that lead nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricTopology:
    """What a protected-PCIe node is built of, as its operator declares it.

    Attributes:
        gpus: GPUs, each of which reaches every switch.
        switches: NVSwitches, each of which reaches every GPU.
        origin: where this is declared, for findings.
    """

    gpus: int
    switches: int
    origin: str = "reference values"


def check_fabric(results: Sequence[DeviceResult], *, topology: FabricTopology | None, log: CheckLog) -> None:
    """Check the mode of a node's GPUs, and in protected-PCIe mode their topology.

    Args:
        results: of every device of the node.
        topology: what the operator declares; None leaves the topology unproven, which a finding says.
        log: receives the outcome of every rule.
    """
    gpus = [result for result in results if result.scheme == nvgpu.SCHEME]
    switches = [result for result in results if result.scheme == nvswitch.SCHEME]
    modes = sorted({str(gpu.claims.get("mode")) for gpu in gpus})
    if gpus:
        log.require(node_checks.GPU_MODE, ok=len(modes) == 1, expected="one mode", actual=", ".join(modes))
    if Mode.PROTECTED_PCIE.value not in modes and not switches:
        return
    declared = log.require(
        node_checks.FABRIC_DECLARED,
        ok=topology is not None,
        expected="how many GPUs and switches there are",
        actual="nothing" if topology is None else f"{topology.gpus} GPUs, {topology.switches} switches",
    )
    if not declared or topology is None:
        return
    gpu_pdis, switch_pdis = _proven(gpus), _proven(switches)
    log.require(
        node_checks.FABRIC_COUNT,
        ok=len(gpus) == len(gpu_pdis) == topology.gpus and len(switches) == len(switch_pdis) == topology.switches,
        expected=f"{topology.gpus} GPUs and {topology.switches} switches, each with an identity of its own",
        actual=f"{len(gpu_pdis)} of {len(gpus)} GPUs and {len(switch_pdis)} of {len(switches)} switches have one",
        reference=topology.origin,
    )
    for check, devices, field, expected, certified in (
        (node_checks.FABRIC_SWITCHES, gpus, "switch_pdis", switch_pdis, "switches"),
        (node_checks.FABRIC_GPUS, switches, "gpu_pdis", gpu_pdis, "GPUs"),
    ):
        for device in devices:
            stated = _stated(device.claims, field)
            log.require(
                check,
                ok=stated == expected and bool(stated),
                expected=", ".join(sorted(expected)) or "at least one",
                actual=", ".join(sorted(stated)) or "none",
                where=device.slot,
                reference=f"BROM certificates of the node's {certified}",
            )


def _proven(devices: Sequence[DeviceResult]) -> frozenset[str]:
    """The certified PDIs of devices whose identity is proven, in hex."""
    return frozenset(device.identity.value[2:] for device in devices if device.identity is not None)


def _stated(claims: Mapping[str, object], field: str) -> frozenset[str]:
    """The PDIs that a device signed, in hex, without links that lead nowhere."""
    value = claims.get(field)
    if not isinstance(value, Sequence) or isinstance(value, str):
        return frozenset()
    return frozenset(str(each) for each in value) - _NOBODY
