"""The simulator's nodes as a collector: for tests, benches and the demo. No broker believes it unless told to."""

from __future__ import annotations

from dataclasses import dataclass

from attestation.simulator.node import SimulatedNode
from attestation.types import Evidence


@dataclass(frozen=True, slots=True)
class SimulatedCollector:
    """Collects a simulated node's evidence.

    Attributes:
        node: the simulated node.
    """

    node: SimulatedNode

    def cpu(self, report_data: bytes) -> Evidence:
        """See `attester.collect.collector.CpuCollector.cpu`."""
        return self.node.cpu_evidence(report_data)

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        """See `attester.collect.collector.DeviceCollector.devices`."""
        return self.node.device_evidence(nonce)
