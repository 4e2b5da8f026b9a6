"""What the handshake needs of whatever collects evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from attestation.types import Evidence

REPORT_DATA_SIZE: Final = 64
DEVICE_NONCE_SIZE: Final = 32


class CpuCollector(Protocol):
    """Collects the CPU TEE's evidence."""

    def cpu(self, report_data: bytes) -> Evidence:
        """The CPU TEE's evidence over `report_data`.

        Args:
            report_data: 64 bytes that the TEE signs, `keystead.binding.RuntimeData.report_data`.

        Raises:
            CollectionError: there is none to be had.
        """


class DeviceCollector(Protocol):
    """Collects the evidence of GPUs and switches."""

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        """The evidence of every device, in a stable order.

        Args:
            nonce: 32 bytes that every device signs, `keystead.binding.device_nonce`.

        Raises:
            CollectionError: a device gives none.
        """


class Collector(CpuCollector, DeviceCollector, Protocol):
    """Collects the evidence of a whole node."""


class NoDevices:
    """For nodes without GPUs and switches."""

    __slots__ = ()

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        """No evidence; `nonce` goes nowhere."""
        del nonce
        return ()


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of several collectors, one collector's after the other's.

    Attributes:
        collectors: in the order of the evidence, as `attester.collect.nvml.Nvml` and `attester.collect.nscq.Nscq`.
    """

    collectors: tuple[DeviceCollector, ...]

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        """See `DeviceCollector.devices`; where one collector fails there is no evidence at all."""
        return tuple(evidence for collector in self.collectors for evidence in collector.devices(nonce))


@dataclass(frozen=True, slots=True)
class NodeCollector:
    """A node's collector put together from one for its CPU and one for its devices.

    Attributes:
        cpu_collector: for the CPU TEE, as `attester.collect.configfs_tsm.ConfigfsTsm`.
        device_collector: for the devices, as `attester.collect.nvml.Nvml`, `Devices` or `NoDevices`.
    """

    cpu_collector: CpuCollector
    device_collector: DeviceCollector

    def cpu(self, report_data: bytes) -> Evidence:
        """See `CpuCollector.cpu`."""
        return self.cpu_collector.cpu(report_data)

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        """See `DeviceCollector.devices`."""
        return self.device_collector.devices(nonce)
