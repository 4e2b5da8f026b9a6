"""The demo's simulated hardware: five nodes on three sites, whose TEEs sign bit-accurate evidence under private roots.

A `Machine` is an attester's collector: the product's own node-side code drives it, and the broker verifies what it
signs with the code that verifies genuine hardware. What is simulated is the silicon and the vendors' roots.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.nvgpu.abi import Mode
from attestation.reference.document import instant
from attestation.reference.signature import REFERENCE_VALUES_TYPE, SIGNATURE_SUFFIX, public_pem, sign_detached
from attestation.simulator.node import SimulatedNode, SimulatedVendors
from attestation.simulator.nvgpu import Architecture, GpuConfiguration, SimulatedGpu
from attestation.simulator.snp import CURRENT_TCB, SnpDefect
from attestation.snp.abi import Product
from attestation.types import Evidence

GOOD: Final = "ber1-n01"
"""Eight GPUs, current firmware, in Berlin: everything about it is as it should be."""

DEBUGGED: Final = "ber1-n02"
"""One GPU, in Berlin; its operator starts a guest with debugging allowed."""

STALE: Final = "ber1-n03"
"""One GPU, in Berlin; its firmware is old."""

ABROAD: Final = "iad1-n01"
"""One GPU, sound, but in the United States."""

BETWEEN: Final = "zrh1-n01"
"""One GPU, sound, in Switzerland: where what the European and the American data demand meets."""

SITES: Final = {
    "ber1": ("DE", "Berlin 1", "ACME Rechenzentrum GmbH"),
    "iad1": ("US", "Ashburn 1", "ACME Compute Inc."),
    "zrh1": ("CH", "Zurich 1", "ACME Rechenzentrum AG"),
}
"""Jurisdiction, facility and operator by site."""

REFERENCE_VALUES: Final = "reference-values.toml"
REFERENCE_SIGNER: Final = "reference-values.pub"
_SWITCHES: Final = 4


@dataclass(frozen=True, slots=True)
class Machine:
    """A node's hardware as its agent sees it; see `attester.collect.collector.Collector`.

    Attributes:
        node_id: the node's name.
        site: where it stands.
        hardware: its simulated CPU and GPUs.
    """

    node_id: str
    site: str
    hardware: SimulatedNode

    def cpu(self, report_data: bytes) -> Evidence:
        """An SEV-SNP report over `report_data` (64 bytes)."""
        return self.hardware.cpu_evidence(report_data)

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        """SPDM measurements of every GPU over `nonce` (32 bytes)."""
        return self.hardware.device_evidence(nonce)

    @property
    def gpus(self) -> tuple[SimulatedGpu, ...]:
        """Its GPUs, by slot number."""
        return self.hardware.gpus

    @property
    def description(self) -> str:
        """The hardware in words."""
        return f"SEV-SNP {self.hardware.cpu.product.value}, {len(self.gpus)} × {self.gpus[0].architecture.value}"

    def broken(self, *defects: SnpDefect) -> Self:
        """The same hardware, started in another way or with other firmware."""
        return replace(self, hardware=self.hardware.with_defects(cpu=defects))

    def carrying(self, *gpus: SimulatedGpu) -> Self:
        """The same CPU with other GPUs plugged in."""
        return replace(self, hardware=replace(self.hardware, gpus=gpus))


@dataclass(slots=True)
class Recorder:
    """Collects from a machine and keeps a copy of the evidence, as someone who reads along would.

    Attributes:
        machine: who really collects.
        recorded_cpu, recorded_devices: the copies; None and empty before anything was collected.
    """

    machine: Machine
    recorded_cpu: Evidence | None = None
    recorded_devices: tuple[Evidence, ...] = ()

    def cpu(self, report_data: bytes) -> Evidence:
        """See `Machine.cpu`."""
        self.recorded_cpu = self.machine.cpu(report_data)
        return self.recorded_cpu

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        """See `Machine.devices`."""
        self.recorded_devices = self.machine.devices(nonce)
        return self.recorded_devices


@dataclass(frozen=True, slots=True)
class Replayer:
    """Answers every question with evidence that was recorded elsewhere, whatever is asked.

    Attributes:
        recorded_cpu, recorded_devices: the recording.
    """

    recorded_cpu: Evidence
    recorded_devices: tuple[Evidence, ...]

    def cpu(self, report_data: bytes) -> Evidence:
        """The recording; `report_data` is not in it."""
        del report_data
        return self.recorded_cpu

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        """The recording; `nonce` is not in it."""
        del nonce
        return self.recorded_devices


@dataclass(frozen=True, slots=True)
class Factory:
    """All hardware of the demo, and the private vendors that certify it.

    Attributes:
        machines: by node name.
        vendors: whose roots the broker is told to trust.
        now: when it was built, seconds since the epoch.
    """

    machines: dict[str, Machine]
    vendors: SimulatedVendors
    now: int

    @classmethod
    def build(cls, *, now: int) -> Self:
        """Make the vendors' hierarchies and five nodes; RSA-4096 keys take a few seconds.

        Args:
            now: seconds since the epoch; the chips' certificates are valid from a day before.
        """
        vendors = SimulatedVendors.generate(now=now, seed=secrets.token_bytes(32))
        protected = GpuConfiguration(
            mode=Mode.PROTECTED_PCIE, switch_pdis=tuple(secrets.token_bytes(8) for _ in range(_SWITCHES))
        )
        hardware = {
            GOOD: vendors.node(GOOD, now=now, gpus=8, product=Product.TURIN, configuration=protected),
            DEBUGGED: vendors.node(DEBUGGED, now=now, gpus=1),
            STALE: vendors.node(STALE, now=now, gpus=1),
            ABROAD: vendors.node(ABROAD, now=now, gpus=1, product=Product.TURIN, architecture=Architecture.BLACKWELL),
            BETWEEN: vendors.node(BETWEEN, now=now, gpus=1),
        }
        machines = {name: Machine(name, name.partition("-")[0], each) for name, each in hardware.items()}
        return cls(machines, vendors, now)

    def write(self, folder: Path) -> tuple[list[str], list[str], list[str]]:
        """Write roots, revocation lists and signed reference values for the broker's configuration to name.

        The key that signs is forgotten: the demo changes no reference values.

        Returns:
            The file names of the AMD roots, the NVIDIA root and the revocation lists.
        """
        folder.mkdir()
        amd = {f"amd-{product.value}.der": each.ark for product, each in self.vendors.amd.certificates.items()}
        nvidia = {"nvidia.der": self.vendors.nvidia.root_der}
        crls = {
            f"amd-{product.value}.crl": self.vendors.amd.crl(product, this_update=self.now)
            for product in self.vendors.amd.certificates
        }
        for name, data in (amd | nvidia | crls).items():
            (folder / name).write_bytes(data)
        values, key = reference_values(now=self.now).encode("utf-8"), Ed25519PrivateKey.generate()
        signature = sign_detached(values, key=key, kind=REFERENCE_VALUES_TYPE)
        (folder / REFERENCE_VALUES).write_bytes(values)
        (folder / f"{REFERENCE_VALUES}{SIGNATURE_SUFFIX}").write_text(f"{signature}\n", encoding="ascii")
        (folder / REFERENCE_SIGNER).write_bytes(public_pem(key.public_key()))
        return list(amd), list(nvidia), list(crls)


def reference_values(*, now: int) -> str:
    """What the demo's operator accepts, issued at `now`: the current TCB or a newer one, GPUs of two generations."""
    lines = [
        "advisories_grace = 315360000  # a demonstration may outlive the shipped table",
        "",
        "[about]",
        'issuer = "the demo\'s operator"',
        "serial = 1",
        f'issued = "{instant(now)}"',
        "",
        "[snp]",
        'policy_allowed = ["SMT"]',
    ]
    for product, tcb in CURRENT_TCB.items():
        parts = {"bl": tcb.bl, "tee": tcb.tee, "snp": tcb.snp, "ucode": tcb.ucode, "fmc": tcb.fmc}
        lines += ["", f"[snp.minimum_tcb.{product.value}]"]
        lines += [f"{name} = {value}" for name, value in parts.items() if value is not None]
    products = ", ".join(f'"{each.value}"' for each in Architecture)
    modes = ", ".join(f'"{each.value}"' for each in (Mode.SINGLE_GPU, Mode.PROTECTED_PCIE))
    lines += ["", "[nvgpu]", f"products = [{products}]", f"modes = [{modes}]", ""]
    return "\n".join(lines)
