"""Evidence of simulated hardware, for the demo and tests; a broker accepts it only where its configuration says so."""

from __future__ import annotations

from dataclasses import dataclass

from attestation.simulator.node import SimulatedNode
from attestation.types import Evidence


@dataclass(frozen=True, slots=True)
class SimulatedCollector:
    """Collects the evidence of a simulated node.

    Attributes:
        node: the hardware, with whatever is wrong with it.
    """

    node: SimulatedNode

    def cpu(self, report_data: bytes) -> Evidence:
        """See `attester.collect.collector.CpuCollector.cpu`."""
        return self.node.cpu_evidence(report_data)

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        """See `attester.collect.collector.DeviceCollector.devices`."""
        return self.node.device_evidence(nonce)
