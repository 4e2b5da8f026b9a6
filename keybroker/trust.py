"""What the broker believes: trust anchors, reference values and collateral, all by explicit configuration.

All that verification is told comes out of the bytes of `Material` and nothing else, by `Trust.of`: a stored appraisal
is run again (`keybroker.replay`) on the same bytes through the same function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self

from cryptography import x509

from attestation.errors import AttestationError
from attestation.nvgpu.endorsements import NvGpuAnchors
from attestation.nvswitch.endorsements import NvSwitchAnchors
from attestation.reference.advisories import parse_advisories
from attestation.reference.document import Source
from attestation.reference.shipped import SHIPPED, shipped_advisories
from attestation.reference.signature import (
    ADVISORIES_TYPE,
    REFERENCE_VALUES_TYPE,
    SIGNATURE_SUFFIX,
    load_public_key,
    verify_detached,
)
from attestation.reference.values import parse_reference_values
from attestation.scheme import ReferenceValues, TrustAnchors
from attestation.snp.endorsements import SnpAnchors
from attestation.types import Collateral
from keybroker.config import BrokerConfig
from keybroker.errors import ConfigError
from keybroker.store.floors import MAX_NUMBER, MAX_SOURCE, Floor

_MAX_FILE: Final = 16 << 20

ROLES: Final = (
    "simulated_amd_roots",
    "simulated_nvidia_roots",
    "crls",
    "rims",
    "ocsp",
    "reference_values",
    "reference_signers",
    "advisories",
    "shipped_advisories",
    "signatures",
)
"""What a file can be for: the names of `[attestation]` in the configuration.

Besides ``shipped_advisories``, the table of this release where it is asked for, and ``signatures``: of the reference
values and of advisories, under the names of the files that they sign.
"""

OPTIONS: Final = ("reference_threshold",)
"""What the configuration says beside files."""


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
        floors: the numbers of the files, which must never go down (`keybroker.store.floors`).
        material: the bytes that all of this was made of.
    """

    anchors: TrustAnchors
    reference: ReferenceValues
    collateral: Collateral
    simulated: bool
    floors: tuple[Floor, ...]
    material: Material

    @property
    def unsigned(self) -> tuple[str, ...]:
        """Names of configured reference values and advisories that nobody's signature vouches for."""
        shipped = {file.name for file in self.material.of("shipped_advisories")}
        sources = [table.source for table in self.reference.advisories]
        if self.reference.source is not None:
            sources.insert(0, self.reference.source)
        return tuple(source.name for source in sources if not source.signers and source.name not in shipped)

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
            "reference_signers": section.reference_signers,
            "advisories": tuple(name for name in section.advisories if name != SHIPPED),
        }
        files = {role: _files(config, each, role) for role, each in names.items()}
        if SHIPPED in section.advisories:
            name, content = shipped_advisories()
            files["shipped_advisories"] = (TrustFile(name, content),)
        if section.reference_signers:
            signed = (*names["reference_values"], *names["advisories"])
            files["signatures"] = tuple(_signatures(config, name) for name in signed)
        options = {"reference_threshold": section.reference_threshold} if section.reference_signers else {}
        return cls.of(Material(MappingProxyType(files), MappingProxyType(options)))

    @classmethod
    def of(cls, material: Material) -> Self:
        """What `material` says. The same bytes give the same trust, whenever and wherever that is.

        Raises:
            ConfigError: a file is not what it should be, or is for something that this release does not know.
        """
        unknown = sorted({*material.files, *material.options} - {*ROLES, *OPTIONS})
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
            reference = _reference(material)
        except AttestationError as error:
            raise ConfigError(f"attestation: {error}") from error
        return cls(
            anchors=TrustAnchors(snp=snp, nvgpu=nvgpu, nvswitch=nvswitch),
            reference=reference,
            collateral=Collateral(
                crls=material.contents("crls"), rims=material.contents("rims"), ocsp=material.contents("ocsp")
            ),
            simulated=bool(amd_roots or nvidia_roots),
            floors=_floors(material, reference),
            material=material,
        )


def _reference(material: Material) -> ReferenceValues:
    """Reference values and advisories, each as its signers vouch for it.

    Raises:
        AttestationError: a file is not what it should be, or not signed as the configuration asks.
    """
    signers = [load_public_key(file.content, name=file.name) for file in material.of("reference_signers")]
    threshold = int(material.options.get("reference_threshold", 1))
    signatures = {file.name: file.content for file in material.of("signatures")}

    def signed_by(file: TrustFile, kind: str) -> tuple[str, ...]:
        if not signers:
            return ()
        return verify_detached(
            signatures.get(file.name, b""),
            file.content,
            kind=kind,
            signers=signers,
            threshold=threshold,
            name=file.name,
        )

    tables = [parse_advisories(file.content, name=file.name) for file in material.of("shipped_advisories")]
    tables += [
        parse_advisories(file.content, name=file.name, signers=signed_by(file, ADVISORIES_TYPE))
        for file in material.of("advisories")
    ]
    for file in material.of("reference_values"):
        signed = signed_by(file, REFERENCE_VALUES_TYPE)
        return parse_reference_values(file.content, name=file.name, signers=signed, advisories=tables)
    return ReferenceValues(snp=None, nvgpu=None, advisories=tuple(tables))


def _floors(material: Material, reference: ReferenceValues) -> tuple[Floor, ...]:
    """The number of every file that has one, by source.

    Raises:
        ConfigError: a number that cannot be kept, or two files of one source and number.
    """
    floors: list[Floor] = []
    if reference.source is not None:
        about = reference.source.about
        floors.append(_floor("reference-values", reference.source, None if about is None else about.serial))
    floors += [
        _floor(f"advisories:{table.about.issuer}", table.source, table.about.serial) for table in reference.advisories
    ]
    for file in material.of("crls"):
        listed = x509.load_der_x509_crl(file.content)
        try:
            number = listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        except x509.ExtensionNotFound:
            continue
        source = Source(name=file.name, digest=hashlib.sha256(file.content).digest())
        floors.append(_floor(f"crl:{listed.issuer.rfc4514_string()}", source, number))
    return tuple(_newest(floors))


def _floor(source: str, file: Source, number: int | None) -> Floor:
    if number is not None and number > MAX_NUMBER:
        raise ConfigError(f"attestation: {file.name}: number {number} is larger than {MAX_NUMBER} and cannot be kept")
    if len(source) > MAX_SOURCE:
        raise ConfigError(f"attestation: {file.name}: the issuer's name is longer than {MAX_SOURCE} characters")
    return Floor(source=source, name=file.name, number=number, digest=file.digest)


def _newest(floors: Sequence[Floor]) -> list[Floor]:
    """The floor with the highest number of each source: older files beside it are passed over by verification too."""
    newest: dict[str, Floor] = {}
    for floor in floors:
        other = newest.get(floor.source)
        if other is not None and other.number == floor.number and other.digest != floor.digest:
            raise ConfigError(
                f"attestation: {other.name} and {floor.name} are both number {floor.number} of {floor.source} and "
                "differ; remove the wrong one"
            )
        if other is None or (floor.number or 0) > (other.number or 0):
            newest[floor.source] = floor
    return list(newest.values())


def _signatures(config: BrokerConfig, name: str) -> TrustFile:
    """The signatures over a file, from NAME.jws, under the name of the file that they sign."""
    path = config.path(f"{name}{SIGNATURE_SUFFIX}")
    if not path.exists():
        raise ConfigError(
            f"attestation.reference_signers: {config.path(name)} is not signed: {path.name} is missing. Sign it: "
            f"keystead reference sign {config.path(name)} --key KEY, or remove reference_signers"
        )
    (file,) = _files(config, (f"{name}{SIGNATURE_SUFFIX}",), "reference_signers")
    return TrustFile(name, file.content)


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
