"""Reference values from a file: what an operator accepts, in TOML or JSON, every key checked, none guessed.

::

    advisories_grace = 0                # seconds for which advisories are used after their next update

    [about]                             # see attestation.reference.document; needed where the file is signed
    issuer = "ACME security"
    serial = 7
    issued = "2026-11-22T08:00:00Z"

    [devices]
    denied = [{identity = "amd-chip-id:9f3c…", reason = "stolen in March"}]
    allowed = ["amd-chip-id:77aa…"]     # any where absent
    trusted_chips = []                  # believed although an advisory distrusts their product

    [snp]
    policy_allowed = ["SMT"]            # permitting bits of the guest policy that may be set
    platform_required = ["ALIAS_CHECK_COMPLETE"]

    [snp.minimum_tcb.Genoa]             # one table per product line; a line that is not named is refused
    bl = 10
    tee = 0
    snp = 23
    ucode = 84

    [snp.by_product.Turin]              # asked for besides what holds for all
    platform_required = ["CIPHERTEXT_HIDING_DRAM_EN"]

    [snp_azure_hcl]                     # the same for Azure's paravisor; absent: its evidence is refused
    measurements = ["…"]

    [nvgpu]
    products = ["GH100"]
    modes = ["spt", "mpt", "ppcie"]
    rim_grace = 2592000                 # seconds for which a manifest is used after its signer expired; 0 by default
    ocsp_max_age = 604800               # seconds for which an OCSP response is used; its own window by default

    [nvswitch]
    products = ["LS_10"]

    [fabric]                            # what a protected-PCIe node is built of
    gpus = 8
    switches = 4

There are no default reference values: a section that is absent means that no such evidence is accepted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field

from attestation.errors import ManifestError
from attestation.fabric import FabricTopology
from attestation.nvgpu.abi import Mode
from attestation.nvgpu.verify import NvGpuReference
from attestation.nvswitch.verify import NvSwitchReference
from attestation.reference.advisories import AdvisoryTable
from attestation.reference.bits import bits
from attestation.reference.devices import ANY_DEVICE, DevicesSection, read_devices
from attestation.reference.document import AboutSection, Section, Source, read_about, read_document
from attestation.scheme import ReferenceValues
from attestation.snp.abi import FirmwareVersion, GuestPolicy, PlatformInfo, Product, TcbVersion
from attestation.snp.verify import SnpProductReference, SnpReference

_Hex: Final = r"^([0-9a-f]{2})+$"
_Byte = Annotated[int, Field(ge=0, le=255)]
_Seconds = Annotated[int, Field(ge=0, lt=1 << 40)]
_HexText = Annotated[str, Field(pattern=_Hex)]


class TcbSection(Section):
    """A minimum TCB_VERSION; `fmc` for Turin only."""

    bl: _Byte
    tee: _Byte
    snp: _Byte
    ucode: _Byte
    fmc: _Byte | None = None


class SnpProductSection(Section):
    """``[snp.by_product.LINE]``; the names are those of `attestation.snp.verify.SnpProductReference`."""

    platform_required: tuple[str, ...] = ()
    platform_forbidden: tuple[str, ...] = ()
    mitigations: Annotated[int, Field(ge=0, lt=1 << 63)] = 0


class SnpSection(Section):
    """``[snp]`` and ``[snp_azure_hcl]``; the names are those of `attestation.snp.verify.SnpReference`."""

    minimum_tcb: dict[str, TcbSection]
    versions: tuple[int, ...] = (3, 4, 5)
    vmpls: tuple[Annotated[int, Field(ge=0, le=3)], ...] = (0,)
    policy_allowed: tuple[str, ...] = ()
    policy_required: tuple[str, ...] = ()
    minimum_abi: tuple[_Byte, _Byte] = (0, 0)
    platform_required: tuple[str, ...] = ("ALIAS_CHECK_COMPLETE",)
    platform_forbidden: tuple[str, ...] = ()
    minimum_firmware: tuple[_Byte, _Byte, _Byte] = (0, 0, 0)
    mitigations: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    allow_masked_chip_id: bool = False
    measurements: tuple[_HexText, ...] | None = None
    host_data: tuple[_HexText, ...] | None = None
    id_key_digests: tuple[_HexText, ...] | None = None
    author_key_digests: tuple[_HexText, ...] | None = None
    minimum_guest_svn: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    crl_number_floor: dict[str, Annotated[int, Field(ge=0, lt=1 << 63)]] = Field(default_factory=dict)
    by_product: dict[str, SnpProductSection] = Field(default_factory=dict)


class NvGpuSection(Section):
    """``[nvgpu]``; the names are those of `attestation.nvgpu.verify.NvGpuReference`."""

    products: tuple[str, ...]
    modes: tuple[str, ...]
    drivers: tuple[str, ...] | None = None
    vbios: tuple[str, ...] | None = None
    measurements: dict[str, tuple[_HexText, ...]] = Field(default_factory=dict)
    rim_grace: _Seconds = 0
    ocsp_max_age: _Seconds | None = None


class NvSwitchSection(Section):
    """``[nvswitch]``; the names are those of `attestation.nvswitch.verify.NvSwitchReference`."""

    products: tuple[str, ...]
    bios: tuple[str, ...] | None = None
    measurements: dict[str, tuple[_HexText, ...]] = Field(default_factory=dict)
    rim_grace: _Seconds = 0
    ocsp_max_age: _Seconds | None = None


class FabricSection(Section):
    """``[fabric]``; the names are those of `attestation.fabric.FabricTopology`."""

    gpus: Annotated[int, Field(ge=1, le=64)]
    switches: Annotated[int, Field(ge=1, le=64)]


class ReferenceFile(Section):
    """The whole file."""

    about: AboutSection | None = None
    advisories_grace: _Seconds = 0
    devices: DevicesSection | None = None
    snp: SnpSection | None = None
    snp_azure_hcl: SnpSection | None = None
    nvgpu: NvGpuSection | None = None
    nvswitch: NvSwitchSection | None = None
    fabric: FabricSection | None = None


def parse_reference_values(
    data: bytes, *, name: str, signers: Sequence[str] = (), advisories: Sequence[AdvisoryTable] = ()
) -> ReferenceValues:
    """Read reference values from a file's bytes.

    Args:
        data: the file's bytes.
        name: names it in errors and findings.
        signers: key ids of those whose signatures over `data` verified.
        advisories: tables that evidence is held against besides.

    Raises:
        ManifestError: neither TOML nor JSON, too large, or a key that is missing, unknown, of the wrong type or out of
            range; a signed file that does not say whose it is and which.
    """
    file = read_document(data, ReferenceFile, name=name)
    if signers and file.about is None:
        raise ManifestError(f"{name}: about: missing; a signed file states issuer, serial and issued")
    about = None if file.about is None else read_about(file.about, name=name)
    source = Source(name=name, digest=hashlib.sha256(data).digest(), about=about, signers=tuple(sorted(signers)))
    origin = str(source)
    return ReferenceValues(
        snp=None if file.snp is None else _snp(file.snp, f"{name}: snp", origin),
        snp_azure_hcl=None
        if file.snp_azure_hcl is None
        else _snp(file.snp_azure_hcl, f"{name}: snp_azure_hcl", origin),
        nvgpu=None if file.nvgpu is None else _nvgpu(file.nvgpu, name, origin),
        nvswitch=None if file.nvswitch is None else _nvswitch(file.nvswitch, name, origin),
        fabric=None
        if file.fabric is None
        else FabricTopology(gpus=file.fabric.gpus, switches=file.fabric.switches, origin=origin),
        source=source,
        devices=ANY_DEVICE if file.devices is None else read_devices(file.devices, name=name),
        advisories=tuple(advisories),
        advisories_grace=file.advisories_grace,
    )


def _snp(section: SnpSection, name: str, origin: str) -> SnpReference:
    """Values of a table; `name` is the file's and the table's."""
    return SnpReference(
        minimum_tcb=MappingProxyType(
            {_product(line, name): _tcb(line, tcb, name) for line, tcb in section.minimum_tcb.items()}
        ),
        versions=frozenset(section.versions),
        vmpls=frozenset(section.vmpls),
        policy_allowed=bits(GuestPolicy, section.policy_allowed, f"{name}.policy_allowed"),
        policy_required=bits(GuestPolicy, section.policy_required, f"{name}.policy_required"),
        minimum_abi=section.minimum_abi,
        platform_required=bits(PlatformInfo, section.platform_required, f"{name}.platform_required"),
        platform_forbidden=bits(PlatformInfo, section.platform_forbidden, f"{name}.platform_forbidden"),
        minimum_firmware=FirmwareVersion(*section.minimum_firmware),
        mitigations=section.mitigations,
        allow_masked_chip_id=section.allow_masked_chip_id,
        measurements=_values(section.measurements, 48, f"{name}.measurements"),
        host_data=_values(section.host_data, 32, f"{name}.host_data"),
        id_key_digests=_values(section.id_key_digests, 48, f"{name}.id_key_digests"),
        author_key_digests=_values(section.author_key_digests, 48, f"{name}.author_key_digests"),
        minimum_guest_svn=section.minimum_guest_svn,
        crl_number_floor=MappingProxyType(
            {_product(line, name): number for line, number in section.crl_number_floor.items()}
        ),
        by_product=MappingProxyType(
            {_product(line, name): _by_product(line, each, name) for line, each in section.by_product.items()}
        ),
        origin=origin,
    )


def _nvgpu(section: NvGpuSection, name: str, origin: str) -> NvGpuReference:
    try:
        modes = frozenset(Mode(mode) for mode in section.modes)
    except ValueError as error:
        known = ", ".join(mode.value for mode in Mode)
        raise ManifestError(f"{name}: nvgpu.modes: {error}; known are {known}") from None
    return NvGpuReference(
        products=frozenset(section.products),
        modes=modes,
        drivers=None if section.drivers is None else frozenset(section.drivers),
        vbios=None if section.vbios is None else frozenset(section.vbios),
        measurements=_measurements(section.measurements, f"{name}: nvgpu.measurements"),
        rim_grace=section.rim_grace,
        ocsp_max_age=section.ocsp_max_age,
        origin=origin,
    )


def _nvswitch(section: NvSwitchSection, name: str, origin: str) -> NvSwitchReference:
    return NvSwitchReference(
        products=frozenset(section.products),
        bios=None if section.bios is None else frozenset(section.bios),
        measurements=_measurements(section.measurements, f"{name}: nvswitch.measurements"),
        rim_grace=section.rim_grace,
        ocsp_max_age=section.ocsp_max_age,
        origin=origin,
    )


def _measurements(stated: Mapping[str, Sequence[str]], where: str) -> Mapping[int, frozenset[bytes]]:
    measurements: dict[int, frozenset[bytes]] = {}
    for index, values in stated.items():
        if not index.isascii() or not index.isdigit() or not 1 <= int(index) <= 64 or str(int(index)) != index:
            raise ManifestError(f"{where}: {index!r:.20} is not an index from 1 to 64")
        digests = _values(values, 48, f"{where}.{index}")
        if digests:
            measurements[int(index)] = digests
    return MappingProxyType(measurements)


def _product(line: str, name: str) -> Product:
    try:
        return Product(line)
    except ValueError:
        known = ", ".join(product.value for product in Product)
        raise ManifestError(f"{name}: {line!r:.40} is no SEV-SNP product line; known are {known}") from None


def _by_product(line: str, section: SnpProductSection, name: str) -> SnpProductReference:
    where = f"{name}.by_product.{line}"
    return SnpProductReference(
        platform_required=bits(PlatformInfo, section.platform_required, f"{where}.platform_required"),
        platform_forbidden=bits(PlatformInfo, section.platform_forbidden, f"{where}.platform_forbidden"),
        mitigations=section.mitigations,
    )


def _tcb(line: str, section: TcbSection, name: str) -> TcbVersion:
    if (section.fmc is not None) != (_product(line, name) is Product.TURIN):
        raise ManifestError(f"{name}.minimum_tcb.{line}: fmc is there for Turin, and for Turin only")
    return TcbVersion(bl=section.bl, tee=section.tee, snp=section.snp, ucode=section.ucode, fmc=section.fmc)


def _values(texts: Sequence[str] | None, size: int, where: str) -> frozenset[bytes] | None:
    if texts is None:
        return None
    values = frozenset(bytes.fromhex(text) for text in texts)
    for value in values:
        if len(value) != size:
            raise ManifestError(f"{where}: a value has {len(value)} bytes, {size} are needed")
    return values
