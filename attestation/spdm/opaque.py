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
    unpack, header, length = _FIELD_HEADER.unpack_from, _FIELD_HEADER.size, len(data)
    fields: dict[int, bytes] = {}
    offset = 0
    while offset < length:
        start = offset + header
        if start > length:
            raise MalformedError(
                _STRUCTURE, f"field header needs {header} bytes, {length - offset} left", offset=offset
            )
        kind, size = unpack(data, offset)
        end = start + size
        if end > length:
            raise MalformedError(_STRUCTURE, f"type {kind} needs {size} bytes, {length - start} left", offset=offset)
        if kind in fields:
            raise MalformedError(_STRUCTURE, f"type {kind} appears twice", offset=offset)
        fields[kind] = data[start:end]
        offset = end
    return fields


def opaque_to_bytes(fields: Mapping[int, bytes]) -> bytes:
    """The fields on the wire, in the order of the mapping.

    Raises:
        ValueError: a value is longer than its length field can say.
    """
    if any(len(value) > 0xFFFF for value in fields.values()):
        raise ValueError("opaque data: a value is longer than 65,535 bytes")
    return b"".join(_FIELD_HEADER.pack(kind, len(value)) + value for kind, value in fields.items())
