"""What an evidence scheme is to the rest of the verifier, and what all schemes are given.

A scheme turns one device's evidence into a `DeviceResult`. Schemes never import one another; `attestation.registry`
names them, and nothing is registered by importing a module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from attestation.fabric import FabricTopology
from attestation.findings import Check
from attestation.nvgpu.endorsements import NvGpuAnchors
from attestation.nvgpu.verify import NvGpuReference
from attestation.nvswitch.endorsements import NvSwitchAnchors
from attestation.nvswitch.verify import NvSwitchReference
from attestation.profile import Profile
from attestation.reference.advisories import AdvisoryTable
from attestation.reference.devices import ANY_DEVICE, DeviceLists
from attestation.reference.document import Source
from attestation.snp.endorsements import SnpAnchors
from attestation.snp.verify import SnpReference
from attestation.types import Collateral, DeviceResult, Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchors:
    """The pinned roots of every scheme; None means that no evidence of that scheme can be judged.

    There are no default anchors: say `production()`, or name them.
    """

    snp: SnpAnchors | None
    nvgpu: NvGpuAnchors | None
    nvswitch: NvSwitchAnchors | None = None

    @classmethod
    def production(cls) -> Self:
        """The vendors' own roots and no simulator's."""
        return cls(snp=SnpAnchors.amd(), nvgpu=NvGpuAnchors.nvidia(), nvswitch=NvSwitchAnchors.nvidia())

    @property
    def simulated(self) -> bool:
        """Is some simulator's root among them?"""
        return bool(
            (self.snp is not None and self.snp.simulated_roots)
            or (self.nvgpu is not None and (self.nvgpu.simulated_roots or self.nvgpu.rims.simulated_roots))
            or (self.nvswitch is not None and (self.nvswitch.simulated_roots or self.nvswitch.rims.simulated_roots))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValues:
    """What the evidence of every scheme must say; None means that no evidence of that scheme can be judged.

    Attributes:
        snp, nvgpu, nvswitch: for evidence of that scheme.
        snp_azure_hcl: for Azure's paravisor; `snp` says nothing about it.
        fabric: what a protected-PCIe node is built of; None leaves its topology unproven, which a finding says.
        source: the file that they come from, with its serial and signers; None where they come from no file.
        devices: which devices are denied, allowed and trusted.
        advisories: tables of published advisories that evidence is held against.
        advisories_grace: seconds for which a table is used after its next update.
    """

    snp: SnpReference | None
    nvgpu: NvGpuReference | None
    nvswitch: NvSwitchReference | None = None
    snp_azure_hcl: SnpReference | None = None
    fabric: FabricTopology | None = None
    source: Source | None = None
    devices: DeviceLists = ANY_DEVICE
    advisories: tuple[AdvisoryTable, ...] = ()
    advisories_grace: int = 0

    @property
    def origin(self) -> str:
        """Where the values come from, as findings have it: file, serial and signers."""
        return "reference values" if self.source is None else str(self.source)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 (hex) of each file of values and advisories, by its name, serial and signers."""
        found = {} if self.source is None else {self.origin: self.source.digest.hex()}
        return found | {str(table): table.source.digest.hex() for table in self.advisories}


class Scheme(Protocol):
    """One kind of evidence."""

    @property
    def name(self) -> str:
        """As in `Evidence.scheme`."""
        ...

    @property
    def slot_prefix(self) -> str:
        """What its submodules are called in an Attestation Result: ``cpu``, ``gpu``, ``nvswitch``."""
        ...

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every rule that it applies."""
        ...

    def verify(
        self,
        evidence: Evidence,
        *,
        expected: bytes | None,
        collateral: Collateral,
        anchors: TrustAnchors,
        reference: ReferenceValues,
        now: int,
        profile: Profile,
    ) -> DeviceResult:
        """Verify one device's evidence.

        Args:
            evidence: of this scheme.
            expected: what binds it to this appraisal: 64 bytes of REPORT_DATA, or a device nonce of 32 bytes. None
                leaves freshness unproven, which a finding says.
            collateral: endorsements and revocation data from elsewhere.
            anchors: pinned roots.
            reference: reference values.
            now: the appraisal's time, seconds since the epoch.
            profile: what each finding does to the verdict.

        Raises:
            MalformedError: the evidence cannot be decoded.
            UnsupportedError: a version that is not known.
            TrustAnchorError: no roots or no reference values are configured for this scheme.
        """
        ...
