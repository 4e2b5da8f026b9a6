"""Reference values from a file: what an operator accepts, in TOML, every key checked, none guessed.

::

    [snp]
    policy_allowed = ["SMT"]            # permitting bits of the guest policy that may be set
    platform_required = ["ALIAS_CHECK_COMPLETE"]

    [snp.minimum_tcb.Genoa]             # one table per product line; a line that is not named is refused
    bl = 10
    tee = 0
    snp = 23
    ucode = 84

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

import json
import tomllib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from attestation.errors import ManifestError
from attestation.fabric import FabricTopology
from attestation.nvgpu.abi import Mode
from attestation.nvgpu.verify import NvGpuReference
from attestation.nvswitch.verify import NvSwitchReference
from attestation.scheme import ReferenceValues
from attestation.snp.abi import FirmwareVersion, GuestPolicy, PlatformInfo, Product, TcbVersion
from attestation.snp.verify import SnpReference

MAX_FILE: Final = 1 << 20
"""Bytes of a reference value file."""

_Hex: Final = r"^([0-9a-f]{2})+$"
_Byte = Annotated[int, Field(ge=0, le=255)]
_Seconds = Annotated[int, Field(ge=0, lt=1 << 40)]
_HexText = Annotated[str, Field(pattern=_Hex)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TcbSection(_Section):
    """A minimum TCB_VERSION; `fmc` for Turin only."""

    bl: _Byte
    tee: _Byte
    snp: _Byte
    ucode: _Byte
    fmc: _Byte | None = None


class SnpSection(_Section):
    """``[snp]``; the names are those of `attestation.snp.verify.SnpReference`."""

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


class NvGpuSection(_Section):
    """``[nvgpu]``; the names are those of `attestation.nvgpu.verify.NvGpuReference`."""

    products: tuple[str, ...]
    modes: tuple[str, ...]
    drivers: tuple[str, ...] | None = None
    vbios: tuple[str, ...] | None = None
    measurements: dict[str, tuple[_HexText, ...]] = Field(default_factory=dict)
    rim_grace: _Seconds = 0
    ocsp_max_age: _Seconds | None = None


class NvSwitchSection(_Section):
    """``[nvswitch]``; the names are those of `attestation.nvswitch.verify.NvSwitchReference`."""

    products: tuple[str, ...]
    bios: tuple[str, ...] | None = None
    measurements: dict[str, tuple[_HexText, ...]] = Field(default_factory=dict)
    rim_grace: _Seconds = 0
    ocsp_max_age: _Seconds | None = None


class FabricSection(_Section):
    """``[fabric]``; the names are those of `attestation.fabric.FabricTopology`."""

    gpus: Annotated[int, Field(ge=1, le=64)]
    switches: Annotated[int, Field(ge=1, le=64)]


class ReferenceFile(_Section):
    """The whole file."""

    snp: SnpSection | None = None
    nvgpu: NvGpuSection | None = None
    nvswitch: NvSwitchSection | None = None
    fabric: FabricSection | None = None


def parse_reference_values(data: bytes, *, name: str) -> ReferenceValues:
    """Read reference values from a file's bytes; `name` names it in errors.

    Raises:
        ManifestError: not TOML, too large, or a key that is missing, unknown, of the wrong type or out of range.
    """
    if len(data) > MAX_FILE:
        raise ManifestError(f"{name}: longer than {MAX_FILE} bytes")
    try:
        document = tomllib.loads(data.decode("utf-8"))
        file = ReferenceFile.model_validate_json(json.dumps(document))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"{name}: not TOML: {error}") from None
    except TypeError as error:
        raise ManifestError(f"{name}: {error}; there is no date in this file") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ManifestError(f"{name}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    return ReferenceValues(
        snp=None if file.snp is None else _snp(file.snp, name),
        nvgpu=None if file.nvgpu is None else _nvgpu(file.nvgpu, name),
        nvswitch=None if file.nvswitch is None else _nvswitch(file.nvswitch, name),
        fabric=None if file.fabric is None else FabricTopology(gpus=file.fabric.gpus, switches=file.fabric.switches),
    )


def _snp(section: SnpSection, name: str) -> SnpReference:
    return SnpReference(
        minimum_tcb=MappingProxyType(
            {_product(line, name): _tcb(line, tcb, name) for line, tcb in section.minimum_tcb.items()}
        ),
        versions=frozenset(section.versions),
        vmpls=frozenset(section.vmpls),
        policy_allowed=_bits(GuestPolicy, section.policy_allowed, f"{name}: snp.policy_allowed"),
        policy_required=_bits(GuestPolicy, section.policy_required, f"{name}: snp.policy_required"),
        minimum_abi=section.minimum_abi,
        platform_required=_bits(PlatformInfo, section.platform_required, f"{name}: snp.platform_required"),
        platform_forbidden=_bits(PlatformInfo, section.platform_forbidden, f"{name}: snp.platform_forbidden"),
        minimum_firmware=FirmwareVersion(*section.minimum_firmware),
        mitigations=section.mitigations,
        allow_masked_chip_id=section.allow_masked_chip_id,
        measurements=_values(section.measurements, 48, f"{name}: snp.measurements"),
        host_data=_values(section.host_data, 32, f"{name}: snp.host_data"),
        id_key_digests=_values(section.id_key_digests, 48, f"{name}: snp.id_key_digests"),
        author_key_digests=_values(section.author_key_digests, 48, f"{name}: snp.author_key_digests"),
        minimum_guest_svn=section.minimum_guest_svn,
        crl_number_floor=MappingProxyType(
            {_product(line, name): number for line, number in section.crl_number_floor.items()}
        ),
    )


def _nvgpu(section: NvGpuSection, name: str) -> NvGpuReference:
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
    )


def _nvswitch(section: NvSwitchSection, name: str) -> NvSwitchReference:
    return NvSwitchReference(
        products=frozenset(section.products),
        bios=None if section.bios is None else frozenset(section.bios),
        measurements=_measurements(section.measurements, f"{name}: nvswitch.measurements"),
        rim_grace=section.rim_grace,
        ocsp_max_age=section.ocsp_max_age,
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


def _tcb(line: str, section: TcbSection, name: str) -> TcbVersion:
    if (section.fmc is not None) != (_product(line, name) is Product.TURIN):
        raise ManifestError(f"{name}: snp.minimum_tcb.{line}: fmc is there for Turin, and for Turin only")
    return TcbVersion(bl=section.bl, tee=section.tee, snp=section.snp, ucode=section.ucode, fmc=section.fmc)


def _bits(kind: type[GuestPolicy | PlatformInfo], names: Sequence[str], where: str) -> int:
    known: Mapping[str, int] = {
        bit: value for bit, value in vars(kind).items() if bit.isupper() and isinstance(value, int) and bit != "KNOWN"
    }
    unknown = [bit for bit in names if bit not in known]
    if unknown:
        raise ManifestError(f"{where}: {unknown[0]!r:.40} is no bit of it; known are {', '.join(sorted(known))}")
    return sum(known[bit] for bit in set(names))


def _values(texts: Sequence[str] | None, size: int, where: str) -> frozenset[bytes] | None:
    if texts is None:
        return None
    values = frozenset(bytes.fromhex(text) for text in texts)
    for value in values:
        if len(value) != size:
            raise ManifestError(f"{where}: a value has {len(value)} bytes, {size} are needed")
    return values
