"""NVIDIA's opaque data in MEASUREMENTS: a list of (type u16, length u16, value), little-endian.

The layout is NVIDIA's own; it is documented only by their open verifier (NVIDIA attestation SDK 1.x, SPDM opaque
data). GPUs and NVSwitches share the layout but not the meaning of every type, so meaning lives with each scheme.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from attestation.errors import MalformedError

_FIELD_HEADER: Final = struct.Struct("<HH")
_STRUCTURE: Final = "NVIDIA opaque data"


def parse_opaque(data: bytes) -> dict[int, bytes]:
    """The fields of `data` by type, in the order of the wire; unknown types are kept.

    Raises:
        MalformedError: a field is cut short, or a type appears twice.
    """
    fields: dict[int, bytes] = {}
    offset, length = 0, len(data)
    while offset < length:
        if offset + _FIELD_HEADER.size > length:
            raise MalformedError(_STRUCTURE, f"field header needs 4 bytes, {length - offset} left", offset=offset)
        kind, size = _FIELD_HEADER.unpack_from(data, offset)
        start = offset + _FIELD_HEADER.size
        if start + size > length:
            raise MalformedError(_STRUCTURE, f"type {kind} needs {size} bytes, {length - start} left", offset=offset)
        if kind in fields:
            raise MalformedError(_STRUCTURE, f"type {kind} appears twice", offset=offset)
        fields[kind] = data[start : start + size]
        offset = start + size
    return fields


def opaque_to_bytes(fields: Mapping[int, bytes]) -> bytes:
    """The fields on the wire, in the order of the mapping.

    Raises:
        ValueError: a value is longer than its length field can say.
    """
    if any(len(value) > 0xFFFF for value in fields.values()):
        raise ValueError("opaque data: a value is longer than 65,535 bytes")
    return b"".join(_FIELD_HEADER.pack(kind, len(value)) + value for kind, value in fields.items())
