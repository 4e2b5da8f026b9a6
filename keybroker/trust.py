"""What the broker believes: trust anchors, reference values and collateral, all by explicit configuration.

All that verification is told comes out of the bytes of `Material` and nothing else, by `Trust.of`: a stored appraisal
is run again (`keybroker.replay`) on the same bytes through the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self

from cryptography import x509

from attestation.errors import AttestationError
from attestation.nvgpu.endorsements import NvGpuAnchors
from attestation.nvswitch.endorsements import NvSwitchAnchors
from attestation.reference.values import parse_reference_values
from attestation.scheme import ReferenceValues, TrustAnchors
from attestation.snp.endorsements import SnpAnchors
from attestation.types import Collateral
from keybroker.config import BrokerConfig
from keybroker.errors import ConfigError

_MAX_FILE: Final = 16 << 20

ROLES: Final = ("simulated_amd_roots", "simulated_nvidia_roots", "crls", "rims", "ocsp", "reference_values")
"""What a file can be for: the names of `[attestation]` in the configuration."""


@dataclass(frozen=True, slots=True)
class TrustFile:
    """One file that the configuration names.

    Attributes:
        name: as the configuration has it; findings may quote it.
        content: its bytes.
    """

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Material:
    """The bytes that trust is made of.

    Attributes:
        files: by what they are for (`ROLES`), in the order of the configuration.
        options: what the configuration says beside files, by the names of `[attestation]`.
    """

    files: Mapping[str, tuple[TrustFile, ...]] = field(default_factory=lambda: MappingProxyType({}))
    options: Mapping[str, bool | int | str] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, role: str) -> tuple[TrustFile, ...]:
        """The files for `role`."""
        return self.files.get(role, ())

    def contents(self, role: str) -> tuple[bytes, ...]:
        """The contents of the files for `role`."""
        return tuple(file.content for file in self.of(role))


@dataclass(frozen=True, slots=True)
class Trust:
    """Anchors, reference values and collateral of one broker.

    Attributes:
        anchors: the vendors' pinned roots, and simulators' roots where the configuration names them.
        reference: what is accepted.
        collateral: CRLs, reference manifests and OCSP responses, where the configuration names them.
        simulated: True where any simulator's root is trusted.
        material: the bytes that all of this was made of.
    """

    anchors: TrustAnchors
    reference: ReferenceValues
    collateral: Collateral
    simulated: bool
    material: Material

    @classmethod
    def load(cls, config: BrokerConfig) -> Self:
        """Load what the configuration names.

        Raises:
            ConfigError: a file is missing or is not what it should be.
        """
        section = config.attestation
        names: dict[str, Sequence[str]] = {
            "simulated_amd_roots": section.simulated_amd_roots,
            "simulated_nvidia_roots": section.simulated_nvidia_roots,
            "crls": section.crls,
            "rims": section.rims,
            "ocsp": section.ocsp,
            "reference_values": () if section.reference_values is None else (section.reference_values,),
        }
        return cls.of(Material(MappingProxyType({role: _files(config, names[role], role) for role in ROLES})))

    @classmethod
    def of(cls, material: Material) -> Self:
        """What `material` says. The same bytes give the same trust, whenever and wherever that is.

        Raises:
            ConfigError: a file is not what it should be, or is for something that this release does not know.
        """
        unknown = sorted({*material.files, *material.options} - set(ROLES))
        if unknown:
            raise ConfigError(f"attestation.{unknown[0]}: this release does not know it")
        amd_roots, nvidia_roots = material.contents("simulated_amd_roots"), material.contents("simulated_nvidia_roots")
        # Checked at the start: at the first request they would look like the node's fault.
        _parse(material, "simulated_nvidia_roots", x509.load_der_x509_certificate)
        _parse(material, "crls", x509.load_der_x509_crl)
        if len(material.of("reference_values")) > 1:
            raise ConfigError("attestation.reference_values: more than one file")
        try:
            snp, nvgpu, nvswitch = SnpAnchors.amd(), NvGpuAnchors.nvidia(), NvSwitchAnchors.nvidia()
            if amd_roots:
                snp = snp.with_simulated(*amd_roots)
            if nvidia_roots:
                nvgpu, nvswitch = nvgpu.with_simulated(*nvidia_roots), nvswitch.with_simulated(*nvidia_roots)
            reference = ReferenceValues(snp=None, nvgpu=None)
            for file in material.of("reference_values"):
                reference = parse_reference_values(file.content, name=file.name)
        except AttestationError as error:
            raise ConfigError(f"attestation: {error}") from error
        return cls(
            anchors=TrustAnchors(snp=snp, nvgpu=nvgpu, nvswitch=nvswitch),
            reference=reference,
            collateral=Collateral(
                crls=material.contents("crls"), rims=material.contents("rims"), ocsp=material.contents("ocsp")
            ),
            simulated=bool(amd_roots or nvidia_roots),
            material=material,
        )


def _parse(material: Material, role: str, load: Callable[[bytes], object]) -> None:
    for file in material.of(role):
        try:
            load(file.content)
        except ValueError as error:
            raise ConfigError(f"attestation.{role}: {file.name}: not DER of its kind: {error}") from None


def _files(config: BrokerConfig, names: Sequence[str], role: str) -> tuple[TrustFile, ...]:
    data = []
    for name in names:
        path = config.path(name)
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_FILE + 1)
        except OSError as error:
            raise ConfigError(f"attestation.{role}: {path}: {error.strerror}") from None
        if len(content) > _MAX_FILE:
            raise ConfigError(f"attestation.{role}: {path}: longer than {_MAX_FILE} bytes")
        data.append(TrustFile(name, content))
    return tuple(data)
