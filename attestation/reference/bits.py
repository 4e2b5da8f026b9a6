"""Bits of SEV-SNP's POLICY and PLATFORM_INFO by the specification's names, as operators' files have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from attestation.errors import ManifestError
from attestation.snp.abi import GuestPolicy, PlatformInfo

_KNOWN: Final[Mapping[type[GuestPolicy | PlatformInfo], Mapping[str, int]]] = MappingProxyType(
    {
        kind: MappingProxyType(
            {
                name: value
                for name, value in sorted(vars(kind).items())
                if name.isupper() and isinstance(value, int) and name not in ("KNOWN", "RESERVED_ONE")
            }
        )
        for kind in (GuestPolicy, PlatformInfo)
    }
)


def known_bits(kind: type[GuestPolicy | PlatformInfo]) -> Mapping[str, int]:
    """Every single bit of a field by name, sorted; reserved bits have none."""
    return _KNOWN[kind]


def bits(kind: type[GuestPolicy | PlatformInfo], names: Sequence[str], where: str) -> int:
    """The mask of `names`; `where` names the key in errors.

    Raises:
        ManifestError: a name that is none of the field's.
    """
    known = known_bits(kind)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ManifestError(f"{where}: {unknown[0]!r:.40} is no bit of it; known are {', '.join(sorted(known))}")
    return sum(known[name] for name in set(names))


def names_of(kind: type[GuestPolicy | PlatformInfo], mask: int) -> list[str]:
    """The names of a mask's bits, sorted."""
    return [name for name, value in known_bits(kind).items() if mask & value] if mask else []
