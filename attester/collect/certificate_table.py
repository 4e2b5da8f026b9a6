"""The certificate table that a host hands to an SEV-SNP guest along with its attestation report.

Entries of 24 bytes: GUID (16 bytes, in the order of RFC 4122), offset and length of a DER certificate within the same
blob (u32 little-endian each); an entry of zeros ends the table. Source: AMD, "SEV-ES Guest-Hypervisor Communication
Block Standardization", document 56421, revision 2.03, section 4.1.8.1. What the host puts there is a claim: the
verifier believes none of it without a chain to a pinned root.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from uuid import UUID

from attestation.errors import MalformedError
from attestation.wire import Reader

VCEK: Final = UUID("63da758d-e664-4564-adc5-f4b93be8accd")
VLEK: Final = UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1")
ASK: Final = UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")
"""The ASK, or the ASVK where the leaf is a VLEK."""
ARK: Final = UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae")

_ENTRY_SIZE: Final = 24
_STRUCTURE: Final = "SEV-SNP certificate table"


def parse_certificate_table(blob: bytes) -> Mapping[UUID, bytes]:
    """The certificates in the table by their GUIDs, those of unknown kinds too; an empty blob has none.

    Raises:
        MalformedError: no end of the table, a GUID twice, or an entry that points into the table or past the end.
    """
    if not blob:
        return MappingProxyType({})
    reader = Reader(blob, _STRUCTURE)
    entries: list[tuple[UUID, int, int, int]] = []
    while True:
        start = reader.offset
        guid = UUID(bytes=reader.take(16, "GUID"))
        offset, length = reader.uint(4, "offset"), reader.uint(4, "length")
        if guid.int == offset == length == 0:
            break
        entries.append((guid, offset, length, start))
    table_end = reader.offset
    found: dict[UUID, bytes] = {}
    for guid, offset, length, start in entries:
        if guid in found:
            raise MalformedError(_STRUCTURE, f"{guid} is there twice", offset=start)
        if offset < table_end or not length or offset + length > len(blob):
            raise MalformedError(
                _STRUCTURE,
                f"{guid}: {length} bytes at {offset} do not lie between the table's end and the blob's, "
                f"{table_end} and {len(blob)}",
                offset=start,
            )
        found[guid] = blob[offset : offset + length]
    return MappingProxyType(found)


def certificate_table_to_bytes(certificates: Mapping[UUID, bytes]) -> bytes:
    """The table for `certificates`, in their order, the certificates packed right behind it."""
    offset = (len(certificates) + 1) * _ENTRY_SIZE
    table = b""
    for guid, der in certificates.items():
        table += guid.bytes + offset.to_bytes(4, "little") + len(der).to_bytes(4, "little")
        offset += len(der)
    return table + bytes(_ENTRY_SIZE) + b"".join(certificates.values())
