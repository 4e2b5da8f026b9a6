"""Which devices may pass at all: an operator's deny list, allow list, and chips that are trusted all the same.

Keys taken out of genuine chips sign evidence that nothing in the evidence tells from genuine (Battering RAM, WireTap,
TEE.fail, the Milan root seed). What helps against it is knowing the chips: enrolment, and these lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field

from attestation.errors import ManifestError
from attestation.findings import CheckLog
from attestation.reference import checks
from attestation.reference.document import Line, Section
from attestation.snp.abi import CHIP_ID_SIZE
from attestation.snp.endorsements import TURIN_HWID_SIZE
from attestation.types import DeviceResult

AMD_CHIP: Final = "amd-chip-id"
MAX_LISTED: Final = 100_000

_IDENTITY: Final = re.compile(r"(?P<kind>[a-z][a-z0-9-]{0,62}):(?P<value>(?:[0-9a-f]{2}){1,64})\Z")


class DeniedSection(Section):
    """One entry of ``devices.denied``."""

    identity: Line
    reason: Line


class DevicesSection(Section):
    """``[devices]``."""

    denied: Annotated[tuple[DeniedSection, ...], Field(max_length=MAX_LISTED)] = ()
    allowed: Annotated[tuple[Line, ...], Field(max_length=MAX_LISTED)] | None = None
    trusted_chips: Annotated[tuple[Line, ...], Field(max_length=MAX_LISTED)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLists:
    """Identities as ``KIND:HEX``, in the form that `canonical` gives them.

    Attributes:
        denied: never accepted, with the reason.
        allowed: the only ones that are accepted, of the kinds that it names; None accepts any.
        trusted_chips: accepted although an advisory distrusts their product.
    """

    denied: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    allowed: frozenset[str] | None = None
    trusted_chips: frozenset[str] = frozenset()


ANY_DEVICE: Final = DeviceLists()
"""No lists: what is enrolled decides alone."""


def canonical(identity: str, *, where: str) -> str:
    """An identity in the one form that is compared; a CHIP_ID of 8 bytes and zeros (Turin) as its 8 bytes.

    Raises:
        ManifestError: not ``KIND:HEX`` in lower case, or no CHIP_ID's length.
    """
    match = _IDENTITY.match(identity)
    if match is None:
        raise ManifestError(f"{where}: {identity!r:.80} is no identity; write KIND:HEX, for example {AMD_CHIP}:9f3c…")
    if match["kind"] != AMD_CHIP:
        return identity
    value = bytes.fromhex(match["value"])
    if len(value) not in (TURIN_HWID_SIZE, CHIP_ID_SIZE):
        raise ManifestError(
            f"{where}: a CHIP_ID has {CHIP_ID_SIZE} bytes, or {TURIN_HWID_SIZE} from Turin on; this has {len(value)}"
        )
    return _chip(value)


def _chip(value: bytes) -> str:
    short = len(value) == CHIP_ID_SIZE and not any(value[TURIN_HWID_SIZE:])
    return f"{AMD_CHIP}:{(value[:TURIN_HWID_SIZE] if short else value).hex()}"


def read_devices(section: DevicesSection, *, name: str) -> DeviceLists:
    """The lists of a file.

    Raises:
        ManifestError: an entry that is no identity, one that is denied twice, or denied and allowed or trusted.
    """
    denied: dict[str, str] = {}
    for entry in section.denied:
        identity = canonical(entry.identity, where=f"{name}: devices.denied")
        if identity in denied:
            raise ManifestError(f"{name}: devices.denied: {identity} is there twice")
        denied[identity] = entry.reason
    allowed = None if section.allowed is None else _identities(section.allowed, f"{name}: devices.allowed")
    trusted = _identities(section.trusted_chips, f"{name}: devices.trusted_chips")
    for identity in sorted((allowed or frozenset()) | trusted):
        if identity in denied:
            raise ManifestError(f"{name}: devices: {identity} is denied, and allowed or trusted as well; decide")
    return DeviceLists(denied=MappingProxyType(denied), allowed=allowed, trusted_chips=trusted)


def _identities(texts: Sequence[str], where: str) -> frozenset[str]:
    return frozenset(canonical(text, where=where) for text in texts)


def stated_identities(result: DeviceResult) -> frozenset[str]:
    """Every identity that a device proves or merely states: its certified one, and a CPU's CHIP_ID.

    A report that a VLEK signed proves no chip and names one all the same; a denied chip must not pass that way.
    """
    stated = set() if result.identity is None else {str(result.identity)}
    chip_id = result.claims.get("chip_id")
    if isinstance(chip_id, str) and result.claims.get("chip_id_masked") is not True:
        stated.add(_chip(bytes.fromhex(chip_id)))
    return frozenset(stated)


def check_devices(result: DeviceResult, *, lists: DeviceLists, origin: str, log: CheckLog) -> None:
    """Hold a device against the lists; `origin` says whose they are."""
    stated = stated_identities(result)
    if lists.denied:
        shown = " or ".join(sorted(stated)) or "no identity"
        hit = sorted(stated & lists.denied.keys())
        log.require(
            checks.IDENTITY_DENIED,
            ok=not hit,
            expected="no denied identity",
            actual=f"{hit[0]}: {lists.denied[hit[0]]}" if hit else shown,
            reference=origin,
        )
        log.require(
            checks.IDENTITY_HIDDEN,
            ok=bool(stated),
            expected="an identity that can be compared with the denied ones",
            actual=shown,
            reference=origin,
        )
    if lists.allowed is not None:
        proven = None if result.identity is None else str(result.identity)
        log.require(
            checks.IDENTITY_NOT_ALLOWED,
            ok=proven is not None and proven in lists.allowed,
            expected=f"one of {len(lists.allowed)} allowed identities, proven",
            actual="no proven identity" if proven is None else proven,
            reference=origin,
        )
