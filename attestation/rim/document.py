"""What a reference integrity manifest says: which measurements a driver or firmware must have.

A manifest is a SWID tag (ISO/IEC 19770-2:2015) under TCG's Reference Integrity Manifest information model 1.01, whose
Payload lists up to 64 measurements. NVIDIA documents the attributes nowhere but in the code of its verifiers; the rules
here are those of NVIDIA attestation SDK 1.x, and every published manifest keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final, Self

from lxml import etree

from attestation.errors import MalformedError

SWID_NAMESPACE: Final = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
SHA384_NAMESPACE: Final = "http://www.w3.org/2001/04/xmlenc#sha384"
DIGEST_SIZE: Final = 48
MAX_INDEX: Final = 254
"""Measurement index i of a manifest is SPDM index i + 1, which has 8 bits."""
MAX_ALTERNATIVES: Final = 64

_STRUCTURE: Final = "RIM"
_FIRMWARE_VERSION: Final = re.compile(r"[0-9A-Fa-f]{2}(?:\.[0-9A-Fa-f]{2}){4}")
_DRIVER_VERSION: Final = re.compile(r"[0-9]{3,4}(?:\.[0-9]{1,4}){1,3}")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,3}")
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{96}")
_HASH: Final = re.compile(r"\{" + re.escape(SHA384_NAMESPACE) + r"\}Hash(0|[1-9][0-9]?)")
_ACTIVE: Final[Mapping[str, bool]] = MappingProxyType({"True": True, "False": False})


@unique
class RimKind(StrEnum):
    """What a manifest has reference values for, told from the form of its version.

    Attributes:
        DRIVER: the driver and what it loads: ``550.90.07``.
        FIRMWARE: the VBIOS of a GPU or the BIOS of a switch: ``96.00.9F.00.01``.
    """

    DRIVER = "driver"
    FIRMWARE = "firmware"


@dataclass(frozen=True, slots=True)
class RimMeasurement:
    """One reference value.

    Attributes:
        name: NVIDIA's name of it, for people.
        active: is it to be compared?
        digests: every value that is accepted.
    """

    name: str
    active: bool
    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RimDocument:
    """A manifest's content; only believable where it was read from bytes whose signature is good.

    Attributes:
        tag_id: SWID tagId.
        product: the chip: ``GH100``, ``LS10``.
        edition: ``GPU`` or ``SWITCH``; empty where it is not stated.
        version: colloquialVersion: of the driver, VBIOS or BIOS.
        kind: told from the form of `version`.
        measurements: by the manifest's index, 0 first; SPDM's is one more.
    """

    tag_id: str
    product: str
    edition: str
    version: str
    kind: RimKind
    measurements: Mapping[int, RimMeasurement]

    @classmethod
    def from_xml(cls, root: etree._Element) -> Self:
        """Read the SWID tag `root`.

        Raises:
            MalformedError: not a SWID tag with one Meta and one Payload, a measurement without its attributes, an index
                twice, a digest of another size or number than stated, or no active measurement at all.
        """
        if root.tag != _tag("SoftwareIdentity"):
            raise MalformedError(_STRUCTURE, f"root is {root.tag!s:.80}, expected SoftwareIdentity of ISO/IEC 19770-2")
        measurements: dict[int, RimMeasurement] = {}
        for resource in _one(root, "Payload"):
            if resource.tag != _tag("Resource") or resource.get("type") != "Measurement" or len(resource):
                raise MalformedError(_STRUCTURE, f"Payload has {resource.tag!s:.80}, expected measurements alone")
            index, measurement = _measurement(resource)
            if index in measurements:
                raise MalformedError(_STRUCTURE, f"Resource index {index} twice")
            measurements[index] = measurement
        if not any(measurement.active for measurement in measurements.values()):
            raise MalformedError(_STRUCTURE, "no measurement is active: there is nothing to compare")
        meta = _one(root, "Meta")
        version = _attribute(meta, "colloquialVersion")
        return cls(
            tag_id=_attribute(root, "tagId"),
            product=_attribute(meta, "product"),
            edition=meta.get("edition", ""),
            version=version,
            kind=_kind(version),
            measurements=MappingProxyType(measurements),
        )

    @property
    def active(self) -> Mapping[int, RimMeasurement]:
        """The measurements that are to be compared, by the manifest's index."""
        return {index: measurement for index, measurement in self.measurements.items() if measurement.active}

    @property
    def label(self) -> str:
        """What a person calls it: ``GH100 550.90.07``."""
        return f"{self.product} {self.version}"

    def is_for(self, product: str) -> bool:
        """Is it for this chip? Certificates write ``LS_10`` where manifests write ``LS10``."""
        return plain_product(self.product) == plain_product(product)

    def has_version(self, version: str) -> bool:
        """Is it for this version? Hex digits differ in case between evidence and manifests."""
        return self.version.casefold() == version.casefold()


def plain_product(product: str) -> str:
    """A chip's name without the differences of spelling between certificates and manifests."""
    return product.replace("_", "").casefold()


def _kind(version: str) -> RimKind:
    if _FIRMWARE_VERSION.fullmatch(version):
        return RimKind.FIRMWARE
    if _DRIVER_VERSION.fullmatch(version):
        return RimKind.DRIVER
    raise MalformedError(_STRUCTURE, f"colloquialVersion {version!r:.60} is neither a driver's nor a firmware's")


def _measurement(resource: etree._Element) -> tuple[int, RimMeasurement]:
    """One Resource: its index and what it says."""
    index = _number(resource, "index", MAX_INDEX)
    where = f"Resource {index}"
    active = _ACTIVE.get(_attribute(resource, "active"))
    if active is None:
        raise MalformedError(_STRUCTURE, f"{where}: active is {resource.get('active')!r:.40}, expected True or False")
    size = _number(resource, "size", 9999)
    if size != DIGEST_SIZE:
        raise MalformedError(_STRUCTURE, f"{where}: size {size}, expected {DIGEST_SIZE}")
    alternatives = _number(resource, "alternatives", MAX_ALTERNATIVES)
    digests: dict[int, bytes] = {}
    for name, value in resource.attrib.items():
        if "Hash" not in name:
            continue
        match = _HASH.fullmatch(name)
        if match is None:
            raise MalformedError(_STRUCTURE, f"{where}: {name!s:.80} is no Hash of the SHA-384 namespace")
        if not _DIGEST.fullmatch(value):
            raise MalformedError(_STRUCTURE, f"{where}: Hash{match[1]} is not {2 * DIGEST_SIZE} hex digits")
        digests[int(match[1])] = bytes.fromhex(value)
    if alternatives < 1 or digests.keys() != set(range(alternatives)):
        raise MalformedError(
            _STRUCTURE, f"{where}: {alternatives} alternatives stated, hashes {sorted(digests)} are there"
        )
    return index, RimMeasurement(
        name=_attribute(resource, "name"), active=active, digests=tuple(digests[each] for each in range(alternatives))
    )


def _number(element: etree._Element, name: str, maximum: int) -> int:
    """An attribute that is a plain decimal number from 0 to `maximum`."""
    text = _attribute(element, name)
    if not _NUMBER.fullmatch(text) or int(text) > maximum:
        raise MalformedError(_STRUCTURE, f"Resource {name} is {text!r:.40}, expected a number from 0 to {maximum}")
    return int(text)


def _attribute(element: etree._Element, name: str) -> str:
    """An attribute that must be there and not empty."""
    value = element.get(name)
    if not value:
        raise MalformedError(_STRUCTURE, f"{etree.QName(element).localname} has no {name}")
    return str(value)


def _one(root: etree._Element, name: str) -> etree._Element:
    """The one child of `root` called `name`; there must be none elsewhere either."""
    found = [element for element in root.iter() if element.tag == _tag(name)]
    if len(found) != 1 or found[0].getparent() is not root:
        raise MalformedError(_STRUCTURE, f"{len(found)} {name}, expected exactly one, on the root")
    return found[0]


def _tag(name: str) -> str:
    return f"{{{SWID_NAMESPACE}}}{name}"
