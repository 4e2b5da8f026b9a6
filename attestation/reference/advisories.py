"""A dated table of published advisories: which attacks there are, and what evidence must show against each.

::

    [about]
    issuer = "ACME security"
    serial = 12
    issued = "2026-11-22T00:00:00Z"
    next_update = "2027-02-22T00:00:00Z"    # from then on the table is stale

    [[advisory]]
    id = "AMD-SB-3015"
    title = "BadRAM: memory aliases break SEV-SNP's integrity"
    published = "2024-12-10"
    products = ["Milan", "Genoa", "Turin"]  # SEV-SNP product lines, or NVIDIA chips: GH100, GB100, LS_10
    basis = "AMD's bulletin"                # where the requirements below were read
    platform_required = ["ALIAS_CHECK_COMPLETE"]

An advisory asks for any of: ``minimum_tcb`` (the components that matter, and no others), ``minimum_firmware``,
``platform_required``, ``platform_forbidden``, ``policy_required``, ``policy_forbidden`` and ``mitigations`` of an
SEV-SNP report; ``minimum_driver`` and ``minimum_vbios`` of an NVIDIA device; or it distrusts its products altogether
(``distrust = true``). ``enforced = false`` makes it inform where it would fail: for requirements that nobody has
compared with the vendor's own text yet. Microcode levels differ by stepping: ``cpuids`` narrows an advisory to some.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field

from attestation.errors import ManifestError
from attestation.reference.bits import bits, names_of
from attestation.reference.document import (
    MAX_SERIAL,
    About,
    AboutSection,
    Instant,
    Line,
    Section,
    Source,
    instant,
    read_about,
    read_document,
)
from attestation.snp.abi import FirmwareVersion, GuestPolicy, PlatformInfo, Product
from attestation.types import Json

MAX_ADVISORIES: Final = 1000

_Byte = Annotated[int, Field(ge=0, le=255)]
_Names = Annotated[tuple[str, ...], Field(max_length=64)]
_Mask = Annotated[int, Field(ge=0, lt=1 << 63)]
_SNP_KEYS: Final = (
    "minimum_tcb",
    "minimum_firmware",
    "platform_required",
    "platform_forbidden",
    "policy_required",
    "policy_forbidden",
    "mitigations",
    "cpuids",
)
_NVIDIA_KEYS: Final = ("minimum_driver", "minimum_vbios")
_PRODUCTS: Final = frozenset(product.value for product in Product)
_CHIP: Final = re.compile(r"[A-Z]{2}_?[0-9]{2,3}\Z")
_DRIVER: Final = re.compile(r"[0-9]{1,5}(\.[0-9]{1,5}){1,3}\Z")
_VBIOS: Final = re.compile(r"[0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{2}){4}\Z")


class TcbMinimaSection(Section):
    """``minimum_tcb`` of an advisory: the components that matter."""

    bl: _Byte | None = None
    tee: _Byte | None = None
    snp: _Byte | None = None
    ucode: _Byte | None = None
    fmc: _Byte | None = None


class TableSection(Section):
    """``[about]`` of a table."""

    issuer: Line
    serial: Annotated[int, Field(ge=0, le=MAX_SERIAL)]
    issued: Instant
    next_update: Instant


class AdvisorySection(Section):
    """One ``[[advisory]]``."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    title: Line
    products: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    basis: Line
    published: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")] | None = None
    url: Line | None = None
    severity: Line | None = None
    enforced: bool = True
    distrust: bool = False
    cpuids: Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{6}$")], ...], Field(max_length=64)] = ()
    minimum_tcb: TcbMinimaSection | None = None
    minimum_firmware: tuple[_Byte, _Byte, _Byte] | None = None
    platform_required: _Names = ()
    platform_forbidden: _Names = ()
    policy_required: _Names = ()
    policy_forbidden: _Names = ()
    mitigations: _Mask = 0
    minimum_driver: _Names = ()
    minimum_vbios: str | None = None


class TableFile(Section):
    """The whole file."""

    about: TableSection
    advisory: Annotated[tuple[AdvisorySection, ...], Field(min_length=1, max_length=MAX_ADVISORIES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisory:
    """One advisory and what it asks for; a requirement that is absent asks for nothing.

    Attributes:
        id: the vendor's number, or the researchers' name where there is none.
        title: what it is about.
        products: SEV-SNP product lines, or NVIDIA chips.
        basis: where the requirements were read.
        published: the day, as ``2024-12-10``; None where it is not known.
        url, severity: as the vendor has them.
        enforced: does it fail, or inform?
        distrust: nothing of these products is believed.
        cpuids: family, model and stepping (hex) that it is about; all where empty.
        minimum_tcb: least security patch level by component (`TcbVersion.components`).
        minimum_firmware: the committed SNP firmware.
        platform_required, platform_forbidden: bits of PLATFORM_INFO.
        policy_required, policy_forbidden: bits of the guest's POLICY.
        mitigations: bits of LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR.
        minimum_driver: least fixed driver of each branch (its first number); branches above the highest are fixed.
        minimum_vbios: least firmware of a GPU or switch.
    """

    id: str
    title: str
    products: frozenset[str]
    basis: str
    published: str | None = None
    url: str | None = None
    severity: str | None = None
    enforced: bool = True
    distrust: bool = False
    cpuids: frozenset[str] = frozenset()
    minimum_tcb: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    minimum_firmware: FirmwareVersion | None = None
    platform_required: int = 0
    platform_forbidden: int = 0
    policy_required: int = 0
    policy_forbidden: int = 0
    mitigations: int = 0
    minimum_driver: tuple[str, ...] = ()
    minimum_vbios: str | None = None

    @property
    def about_snp(self) -> bool:
        """Is it about SEV-SNP product lines, and not about NVIDIA's chips?"""
        return self.products <= _PRODUCTS


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisoryTable:
    """A table as it was read.

    Attributes:
        source: its name, digest and signers.
        about: issuer, serial and when; `About.expires` is the next update.
        next_update: from when on it is stale, seconds since the epoch.
        advisories: in the order of the file.
        about_snp, about_nvidia: those of them that are about SEV-SNP product lines, and about NVIDIA's chips.
        title: what findings call the table.
    """

    source: Source
    about: About
    next_update: int
    advisories: tuple[Advisory, ...]
    about_snp: tuple[Advisory, ...] = field(init=False, repr=False, compare=False)
    about_nvidia: tuple[Advisory, ...] = field(init=False, repr=False, compare=False)
    title: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Every device is held against the table, so that what depends on the table alone is worked out once.
        day = instant(self.about.issued).partition("T")[0]
        title = f"{self.source.name} of {day}, serial {self.about.serial}, {self.source.provenance}"
        object.__setattr__(self, "about_snp", tuple(each for each in self.advisories if each.about_snp))
        object.__setattr__(self, "about_nvidia", tuple(each for each in self.advisories if not each.about_snp))
        object.__setattr__(self, "title", title)

    def __str__(self) -> str:
        return self.title


def parse_advisories(data: bytes, *, name: str, signers: Sequence[str] = ()) -> AdvisoryTable:
    """Read a table, TOML or JSON.

    Args:
        data: the file's bytes.
        name: names it in errors and findings.
        signers: key ids of those whose signatures over `data` verified.

    Raises:
        ManifestError: not a table, an advisory that is there twice or asks for nothing, or a requirement that does not
            go with its products.
    """
    file = read_document(data, TableFile, name=name)
    section = file.about
    about = read_about(
        AboutSection(issuer=section.issuer, serial=section.serial, issued=section.issued, expires=section.next_update),
        name=name,
    )
    if about.expires is None:
        raise ManifestError(f"{name}: about.next_update: missing")
    advisories = tuple(_advisory(each, name) for each in file.advisory)
    seen: set[str] = set()
    for advisory in advisories:
        if advisory.id in seen:
            raise ManifestError(f"{name}: advisory {advisory.id} is there twice; its parts need names of their own")
        seen.add(advisory.id)
    return AdvisoryTable(
        source=Source(name=name, digest=hashlib.sha256(data).digest(), about=about, signers=tuple(sorted(signers))),
        about=about,
        next_update=about.expires,
        advisories=advisories,
    )


def _advisory(section: AdvisorySection, name: str) -> Advisory:
    where = f"{name}: advisory {section.id}"
    snp = all(product in _PRODUCTS for product in section.products)
    nvidia = all(_CHIP.match(product) for product in section.products)
    if not snp and not nvidia:
        known = ", ".join(sorted(_PRODUCTS))
        raise ManifestError(f"{where}: products: name SEV-SNP product lines ({known}), or NVIDIA chips, and not both")
    stated = {key for key in (*_SNP_KEYS, *_NVIDIA_KEYS) if getattr(section, key)}
    foreign = sorted(stated & set(_NVIDIA_KEYS if snp else _SNP_KEYS))
    if foreign:
        raise ManifestError(f"{where}: {foreign[0]} does not go with {section.products[0]}")
    minima = {} if section.minimum_tcb is None else section.minimum_tcb.model_dump(exclude_none=True)
    if not section.distrust and not (stated - {"cpuids", "minimum_tcb"} or minima):
        raise ManifestError(f"{where}: asks for nothing; state a requirement, or distrust = true")
    if "fmc" in minima and set(section.products) != {Product.TURIN.value}:
        raise ManifestError(f"{where}: minimum_tcb.fmc goes with Turin only")
    for driver in section.minimum_driver:
        if not _DRIVER.match(driver):
            raise ManifestError(f"{where}: minimum_driver: {driver!r:.40} is no driver version (570.124.06)")
    branches = [driver.partition(".")[0] for driver in section.minimum_driver]
    if len(set(branches)) != len(branches):
        raise ManifestError(f"{where}: minimum_driver: two versions of one branch")
    if section.minimum_vbios is not None and not _VBIOS.match(section.minimum_vbios):
        raise ManifestError(f"{where}: minimum_vbios: {section.minimum_vbios!r:.40} is none (96.00.5E.00.01)")
    return Advisory(
        id=section.id,
        title=section.title,
        published=section.published,
        products=frozenset(section.products),
        basis=section.basis,
        url=section.url,
        severity=section.severity,
        enforced=section.enforced,
        distrust=section.distrust,
        cpuids=frozenset(section.cpuids),
        minimum_tcb=MappingProxyType(minima),
        minimum_firmware=None if section.minimum_firmware is None else FirmwareVersion(*section.minimum_firmware),
        platform_required=bits(PlatformInfo, section.platform_required, f"{where}: platform_required"),
        platform_forbidden=bits(PlatformInfo, section.platform_forbidden, f"{where}: platform_forbidden"),
        policy_required=bits(GuestPolicy, section.policy_required, f"{where}: policy_required"),
        policy_forbidden=bits(GuestPolicy, section.policy_forbidden, f"{where}: policy_forbidden"),
        mitigations=section.mitigations,
        minimum_driver=tuple(section.minimum_driver),
        minimum_vbios=section.minimum_vbios,
    )


def dump_advisories(table: AdvisoryTable) -> bytes:
    """The table as JSON, which `parse_advisories` reads back to the same advisories."""
    document: dict[str, Json] = {
        "about": {
            "issuer": table.about.issuer,
            "serial": table.about.serial,
            "issued": instant(table.about.issued),
            "next_update": instant(table.next_update),
        },
        "advisory": [_dumped(advisory) for advisory in table.advisories],
    }
    return json.dumps(document, indent=2).encode("utf-8") + b"\n"


def _dumped(advisory: Advisory) -> dict[str, Json]:
    values: dict[str, Json] = {
        "id": advisory.id,
        "title": advisory.title,
        "published": advisory.published,
        "products": sorted(advisory.products),
        "basis": advisory.basis,
        "url": advisory.url,
        "severity": advisory.severity,
        "enforced": advisory.enforced,
        "distrust": advisory.distrust,
        "cpuids": sorted(advisory.cpuids),
        "minimum_tcb": dict(advisory.minimum_tcb),
        "minimum_firmware": None if advisory.minimum_firmware is None else list(advisory.minimum_firmware),
        "platform_required": names_of(PlatformInfo, advisory.platform_required),
        "platform_forbidden": names_of(PlatformInfo, advisory.platform_forbidden),
        "policy_required": names_of(GuestPolicy, advisory.policy_required),
        "policy_forbidden": names_of(GuestPolicy, advisory.policy_forbidden),
        "mitigations": advisory.mitigations,
        "minimum_driver": list(advisory.minimum_driver),
        "minimum_vbios": advisory.minimum_vbios,
    }
    required = ("id", "title", "products", "basis", "enforced", "distrust")
    return {key: value for key, value in values.items() if key in required or value}
