"""What the broker believes: trust anchors, reference values and collateral, all by explicit configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from cryptography import x509

from attestation.errors import AttestationError
from attestation.nvgpu.endorsements import NvGpuAnchors
from attestation.nvswitch.endorsements import NvSwitchAnchors
from attestation.reference import parse_reference_values
from attestation.scheme import ReferenceValues, TrustAnchors
from attestation.snp.endorsements import SnpAnchors
from attestation.types import Collateral
from keybroker.config import BrokerConfig
from keybroker.errors import ConfigError

_MAX_FILE: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Trust:
    """Anchors, reference values and collateral of one broker.

    Attributes:
        anchors: the vendors' pinned roots, and simulators' roots where the configuration names them.
        reference: what is accepted.
        collateral: CRLs, reference manifests and OCSP responses, where the configuration names them.
        simulated: True where any simulator's root is trusted.
    """

    anchors: TrustAnchors
    reference: ReferenceValues
    collateral: Collateral
    simulated: bool

    @classmethod
    def load(cls, config: BrokerConfig) -> Self:
        """Load what the configuration names.

        Raises:
            ConfigError: a file is missing or is not what it should be.
        """
        section = config.attestation
        amd_roots = _files(config, section.simulated_amd_roots, "attestation.simulated_amd_roots")
        nvidia_roots = _files(config, section.simulated_nvidia_roots, "attestation.simulated_nvidia_roots")
        crls = _files(config, section.crls, "attestation.crls")
        # Checked at the start: at the first request they would look like the node's fault.
        _parse(nvidia_roots, section.simulated_nvidia_roots, x509.load_der_x509_certificate, "simulated_nvidia_roots")
        _parse(crls, section.crls, x509.load_der_x509_crl, "crls")
        try:
            snp, nvgpu, nvswitch = SnpAnchors.amd(), NvGpuAnchors.nvidia(), NvSwitchAnchors.nvidia()
            if amd_roots:
                snp = snp.with_simulated(*amd_roots)
            if nvidia_roots:
                nvgpu, nvswitch = nvgpu.with_simulated(*nvidia_roots), nvswitch.with_simulated(*nvidia_roots)
            reference = ReferenceValues(snp=None, nvgpu=None)
            if section.reference_values is not None:
                (data,) = _files(config, [section.reference_values], "attestation.reference_values")
                reference = parse_reference_values(data, name=section.reference_values)
        except AttestationError as error:
            raise ConfigError(f"attestation: {error}") from error
        return cls(
            anchors=TrustAnchors(snp=snp, nvgpu=nvgpu, nvswitch=nvswitch),
            reference=reference,
            collateral=Collateral(
                crls=crls,
                rims=_files(config, section.rims, "attestation.rims"),
                ocsp=_files(config, section.ocsp, "attestation.ocsp"),
            ),
            simulated=bool(amd_roots or nvidia_roots),
        )


def _parse(contents: Sequence[bytes], names: Sequence[str], load: Callable[[bytes], object], key: str) -> None:
    for content, name in zip(contents, names, strict=True):
        try:
            load(content)
        except ValueError as error:
            raise ConfigError(f"attestation.{key}: {name}: not DER of its kind: {error}") from None


def _files(config: BrokerConfig, names: Sequence[str], key: str) -> tuple[bytes, ...]:
    data = []
    for name in names:
        path = config.path(name)
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_FILE + 1)
        except OSError as error:
            raise ConfigError(f"{key}: {path}: {error.strerror}") from None
        if len(content) > _MAX_FILE:
            raise ConfigError(f"{key}: {path}: longer than {_MAX_FILE} bytes")
        data.append(content)
    return tuple(data)
