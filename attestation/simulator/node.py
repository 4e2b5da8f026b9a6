"""Whole simulated nodes: one SEV-SNP CPU, some GPUs and NVSwitches, and the vendors that certify them.

A simulated node attests as a real one does: devices first, with the device nonce; then the CPU, over runtime data that
vouch for the devices' evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from attestation.composite import NodeEvidence
from attestation.fabric import FabricTopology
from attestation.nvgpu.abi import Mode
from attestation.nvgpu.verify import NvGpuReference
from attestation.nvswitch.endorsements import NvSwitchAnchors
from attestation.nvswitch.verify import NvSwitchReference
from attestation.scheme import ReferenceValues, TrustAnchors
from attestation.simulator.nvgpu import Architecture, GpuConfiguration, GpuDefect, SimulatedGpu, SimulatedGpuVendor
from attestation.simulator.nvswitch import PRODUCT, SimulatedSwitch, SwitchDefect
from attestation.simulator.pki import SimulatedAmdPki
from attestation.simulator.snp import CURRENT_TCB, DEFAULT_MEASUREMENT, SimulatedSnp, SnpDefect
from attestation.snp.abi import Product
from attestation.snp.verify import IDENTITY_KIND, SnpReference
from attestation.types import Collateral, Evidence, HardwareIdentity
from keystead.binding import RuntimeData, device_evidence_digest, sha256

_GPU_SEED: Final = b"keystead simulated gpu\x00"
_SWITCH_SEED: Final = b"keystead simulated nvswitch\x00"


@dataclass(frozen=True, slots=True)
class SimulatedVendors:
    """The private roots under which simulated nodes attest."""

    amd: SimulatedAmdPki
    nvidia: SimulatedGpuVendor

    @classmethod
    def generate(cls, *, now: int, seed: bytes) -> Self:
        """Fresh vendors; `seed` (32 bytes) makes the GPU vendor's keys, and AMD's are random. Takes seconds."""
        return cls(amd=SimulatedAmdPki.generate(now=now), nvidia=SimulatedGpuVendor(seed))

    @classmethod
    def load_or_generate(cls, directory: Path, *, now: int, seed: bytes) -> Self:
        """The vendors saved in `directory`, or fresh ones that are saved there; arguments as for `generate`.

        Raises:
            ManifestError: what is saved there is not whole.
            OSError: the directory cannot be read or written.
        """
        nvidia = directory / "nvidia"
        if nvidia.is_dir():
            vendor = SimulatedGpuVendor.load(nvidia)
        else:
            vendor = SimulatedGpuVendor(seed)
            vendor.save(nvidia)
        return cls(amd=SimulatedAmdPki.load_or_generate(directory / "amd", now=now), nvidia=vendor)

    def anchors(self) -> TrustAnchors:
        """These vendors' roots and no others; results that rest on them are marked as simulated."""
        return TrustAnchors(
            snp=self.amd.anchors(),
            nvgpu=self.nvidia.anchors(),
            nvswitch=NvSwitchAnchors.simulated(self.nvidia.root_der),
        )

    def collateral(self, *, this_update: int) -> Collateral:
        """Every product line's revocation list, as of `this_update` (seconds since the epoch)."""
        return Collateral(crls=tuple(self.amd.crl(product, this_update=this_update) for product in Product))

    def reference(
        self, configuration: GpuConfiguration | None = None, *, fabric: FabricTopology | None = None
    ) -> ReferenceValues:
        """Reference values that sound simulated nodes meet: current TCB, the default image, pinned measurements.

        Args:
            configuration: what the GPUs run.
            fabric: what a protected-PCIe node is built of.
        """
        switch = SimulatedSwitch(vendor=self.nvidia, pdi=0)
        measurements: dict[int, frozenset[bytes]] = {}
        for architecture in Architecture:
            gpu = self.nvidia.gpu(0, architecture=architecture, configuration=configuration)
            for index, digest in gpu.measurements.items():
                measurements[index] = measurements.get(index, frozenset()) | {digest}
        gpu_configuration = configuration or GpuConfiguration()
        return ReferenceValues(
            snp=SnpReference(minimum_tcb=CURRENT_TCB, measurements=frozenset({DEFAULT_MEASUREMENT})),
            nvgpu=NvGpuReference(
                products=frozenset(architecture.value for architecture in Architecture),
                modes=frozenset({Mode.SINGLE_GPU, Mode.MULTI_GPU, Mode.PROTECTED_PCIE}),
                drivers=frozenset({gpu_configuration.driver_version}),
                vbios=frozenset({gpu_configuration.vbios_version}),
                measurements=MappingProxyType(measurements),
            ),
            nvswitch=NvSwitchReference(
                products=frozenset({PRODUCT}),
                bios=frozenset({switch.bios_version}),
                measurements=MappingProxyType(
                    {index: frozenset({digest}) for index, digest in switch.measurements.items()}
                ),
            ),
            fabric=fabric,
        )

    def node(
        self,
        name: str,
        *,
        now: int,
        gpus: int = 8,
        switches: int = 0,
        product: Product = Product.GENOA,
        architecture: Architecture = Architecture.HOPPER,
        configuration: GpuConfiguration | None = None,
    ) -> SimulatedNode:
        """The node called `name`, whose hardware identities derive from its name and so stay the same.

        Args:
            name: any text.
            now: seconds since the epoch; the CPU's certificate is valid from a day before.
            gpus: how many GPUs it has.
            switches: how many NVSwitches it has; each reaches every GPU, and the GPUs are then in protected-PCIe mode
                with these switches behind their links, whatever `configuration` says of that.
            product: the CPU's product line.
            architecture: the GPUs' generation.
            configuration: what the GPUs run.
        """
        gpu_pdis = tuple(_pdi(_GPU_SEED, name, index) for index in range(gpus))
        switch_pdis = tuple(_pdi(_SWITCH_SEED, name, index) for index in range(switches))
        if switches:
            configuration = replace(
                configuration or GpuConfiguration(),
                mode=Mode.PROTECTED_PCIE,
                switch_pdis=tuple(pdi.to_bytes(8, "big") for pdi in switch_pdis),
            )
        return SimulatedNode(
            cpu=SimulatedSnp(self.amd, product=product, seed=name.encode(), now=now),
            gpus=tuple(
                self.nvidia.gpu(pdi, architecture=architecture, configuration=configuration) for pdi in gpu_pdis
            ),
            switches=tuple(
                SimulatedSwitch(vendor=self.nvidia, pdi=pdi, gpu_pdis=gpu_pdis, position=index)
                for index, pdi in enumerate(switch_pdis)
            ),
        )


def _pdi(seed: bytes, name: str, index: int) -> int:
    """The PDI of a device of the node called `name`."""
    return int.from_bytes(sha256(seed + f"{index} of {name}".encode())[:8], "big")


@dataclass(frozen=True, slots=True)
class SimulatedNode:
    """One node: a CPU TEE, GPUs and switches, in the slots ``cpu0``, ``gpu0``, ``gpu1`` …, ``nvswitch0`` ….

    Attributes:
        cpu: the SEV-SNP platform.
        gpus: the GPUs, by slot number.
        switches: the NVSwitches, by slot number.
        cpu_defects: what is wrong with the CPU's evidence.
        gpu_defects: what is wrong with the GPUs' evidence, by slot.
        switch_defects: what is wrong with the switches' evidence, by slot.
    """

    cpu: SimulatedSnp
    gpus: tuple[SimulatedGpu, ...]
    switches: tuple[SimulatedSwitch, ...] = ()
    cpu_defects: frozenset[SnpDefect] = frozenset()
    gpu_defects: Mapping[str, Collection[GpuDefect]] = field(default_factory=lambda: MappingProxyType({}))
    switch_defects: Mapping[str, Collection[SwitchDefect]] = field(default_factory=lambda: MappingProxyType({}))

    def with_defects(
        self,
        *,
        cpu: Collection[SnpDefect] = (),
        gpus: Mapping[str, Collection[GpuDefect]] | None = None,
        switches: Mapping[str, Collection[SwitchDefect]] | None = None,
    ) -> SimulatedNode:
        """The same hardware with these defects, and no others."""
        return replace(
            self,
            cpu_defects=frozenset(cpu),
            gpu_defects=MappingProxyType(dict(gpus or {})),
            switch_defects=MappingProxyType(dict(switches or {})),
        )

    def identities(self) -> Mapping[str, HardwareIdentity]:
        """What enrolment binds to the node, by slot."""
        return {
            "cpu0": HardwareIdentity(IDENTITY_KIND, self.cpu.hwid.hex()),
            **{f"gpu{index}": gpu.identity for index, gpu in enumerate(self.gpus)},
            **{f"nvswitch{index}": switch.identity for index, switch in enumerate(self.switches)},
        }

    def cpu_evidence(self, report_data: bytes) -> Evidence:
        """The CPU's evidence for `report_data` (64 bytes)."""
        return self.cpu.evidence(report_data, slot="cpu0", defects=self.cpu_defects)

    def device_evidence(self, device_nonce: bytes) -> tuple[Evidence, ...]:
        """Every GPU's and switch's evidence for `device_nonce` (32 bytes)."""
        return (
            *(
                gpu.evidence(f"gpu{index}", device_nonce, defects=self.gpu_defects.get(f"gpu{index}", ()))
                for index, gpu in enumerate(self.gpus)
            ),
            *(
                switch.evidence(
                    f"nvswitch{index}", device_nonce, defects=self.switch_defects.get(f"nvswitch{index}", ())
                )
                for index, switch in enumerate(self.switches)
            ),
        )

    def attest(self, runtime_data: RuntimeData, *, device_nonce: bytes) -> tuple[NodeEvidence, RuntimeData]:
        """Evidence of the whole node, and `runtime_data` with the digests of its devices' evidence filled in."""
        devices = self.device_evidence(device_nonce)
        complete = replace(
            runtime_data,
            devices=tuple(
                device_evidence_digest(
                    slot=each.slot, scheme=each.scheme, data=each.data, certificates=each.certificates
                )
                for each in devices
            ),
        )
        return NodeEvidence(self.cpu_evidence(complete.report_data()), devices), complete
