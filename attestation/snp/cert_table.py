"""The certificate table that a host conveys with an extended report (and Linux TSM in ``auxblob``).

Source: AMD, "Guest-Hypervisor Communication Block Standardization" (document 56421), SNP Extended Guest Request:
24-byte entries of GUID, offset and length, ended by an entry of zeros; certificates are DER, some hosts store PEM.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from attestation.errors import MalformedError
from attestation.pem import certificates_from_pem
from attestation.snp.abi import AttestationReport, SigningKey

VCEK_GUID: Final = UUID("63da758d-e664-4564-adc5-f4b93be8accd")
VLEK_GUID: Final = UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1")
ASK_GUID: Final = UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")
ARK_GUID: Final = UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae")
MAX_TABLE_SIZE: Final = 1 << 16
MAX_ENTRIES: Final = 16

_ENTRY: Final = struct.Struct("<16sII")
_STRUCTURE: Final = "certificate table"
_PEM: Final = b"-----BEGIN CERTIFICATE-----"


def parse_cert_table(data: bytes) -> Mapping[UUID, bytes]:
    """The table's certificates as DER by GUID; entries of other GUIDs are left as they stand.

    Raises:
        MalformedError: too long, no final entry, an entry that points outside the table or into its head, a GUID
            twice, or PEM that is not one certificate.
    """
    if len(data) > MAX_TABLE_SIZE:
        raise MalformedError(_STRUCTURE, f"{len(data)} bytes, at most {MAX_TABLE_SIZE} are allowed")
    entries: list[tuple[UUID, int, int]] = []
    while True:
        at = len(entries) * _ENTRY.size
        if len(entries) > MAX_ENTRIES or at + _ENTRY.size > len(data):
            raise MalformedError(_STRUCTURE, "no final entry of zeros", offset=at)
        guid, offset, length = _ENTRY.unpack_from(data, at)
        if not any(guid):
            if offset or length:
                raise MalformedError(_STRUCTURE, "final entry is not all zero", offset=at)
            break
        entries.append((UUID(bytes=guid), offset, length))
    head = (len(entries) + 1) * _ENTRY.size
    table: dict[UUID, bytes] = {}
    for guid, offset, length in entries:
        if offset < head or offset + length > len(data) or not length:
            raise MalformedError(_STRUCTURE, f"entry {guid} points to {offset}+{length} of {len(data)} bytes")
        if guid in table:
            raise MalformedError(_STRUCTURE, f"entry {guid} is there twice")
        value = data[offset : offset + length]
        table[guid] = _der(value) if value.startswith(_PEM) else value
    return table


def cert_table_to_bytes(certificates: Mapping[UUID, bytes]) -> bytes:
    """The table for `certificates`, in their order, the certificates packed right behind it."""
    offset = (len(certificates) + 1) * _ENTRY.size
    head = b""
    for guid, der in certificates.items():
        head += _ENTRY.pack(guid.bytes, offset, len(der))
        offset += len(der)
    return head + bytes(_ENTRY.size) + b"".join(certificates.values())


def leaf_guid(report: AttestationReport) -> UUID | None:
    """The GUID of the leaf that the report says it was signed with; None where it was signed with none."""
    kind = report.signing_key
    return None if kind is None else {SigningKey.VCEK: VCEK_GUID, SigningKey.VLEK: VLEK_GUID}.get(kind)


def chain_from_table(table: Mapping[UUID, bytes], *, leaf: UUID | None = None) -> tuple[bytes, ...]:
    """Leaf, ASK or ASVK, and ARK, as far as the table has them, in the order that `Evidence.certificates` wants.

    Args:
        table: certificates by GUID.
        leaf: which leaf the report was signed with, `VCEK_GUID` or `VLEK_GUID`; where it is not known, the VLEK if
            there is one, as firmware prefers it.
    """
    guids = (VLEK_GUID if VLEK_GUID in table else VCEK_GUID) if leaf is None else leaf, ASK_GUID, ARK_GUID
    return tuple(table[guid] for guid in guids if guid in table)


def _der(pem: bytes) -> bytes:
    certificates = certificates_from_pem(pem)
    if len(certificates) != 1:
        raise MalformedError(_STRUCTURE, f"{len(certificates)} PEM certificates in one entry, expected one")
    return certificates[0]
