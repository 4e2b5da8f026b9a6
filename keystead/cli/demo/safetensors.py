"""The safetensors file format, as far as the demo needs it: write a file, read it back from any binary file object.

Layout (Hugging Face, "safetensors", Format): ``u64 N, little-endian ‖ N bytes of JSON ‖ data``. The JSON is one object
from tensor name to ``{dtype, shape, data_offsets: [begin, end]}``, offsets counted from the start of the data, which
they cover without holes or overlaps; the first character is ``{`` and trailing spaces may pad it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final, TypeGuard

MAX_HEADER: Final = 100_000_000
"""Bytes of JSON; the format's own limit."""

ITEM_SIZES: Final = {"F32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1}
"""Bytes per element of the element types that are read here."""

_ALIGNMENT: Final = 8


class SafetensorsError(ValueError):
    """Bytes that are not a safetensors file."""

    code = "MALFORMED_SAFETENSORS"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: element type, shape and its bytes, row by row, little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def expected_size(self) -> int:
        """Bytes that type and shape ask for.

        Raises:
            SafetensorsError: an element type that is not read here.
        """
        if self.dtype not in ITEM_SIZES:
            raise SafetensorsError(f"dtype {self.dtype!a:.20} is none of {', '.join(ITEM_SIZES)}")
        size = ITEM_SIZES[self.dtype]
        for length in self.shape:
            size *= length
        return size


def write(file: BinaryIO, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` in the order given.

    Raises:
        SafetensorsError: a tensor's bytes are not as many as its type and shape ask for.
    """
    header: dict[str, object] = {}
    offset = 0
    for name, tensor in tensors.items():
        if len(tensor.data) != tensor.expected_size:
            raise SafetensorsError(f"{name}: {len(tensor.data)} bytes, its shape asks for {tensor.expected_size}")
        end = offset + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    file.write(struct.pack("<Q", len(text)) + text)
    for tensor in tensors.values():
        file.write(tensor.data)


def read(file: BinaryIO) -> dict[str, Tensor]:
    """Read every tensor of a file, in the order of their data.

    Raises:
        SafetensorsError: the file breaks one of the format's rules, or has an element type that is not read here.
    """
    head = file.read(8)
    if len(head) != 8:
        raise SafetensorsError("shorter than its header's length")
    (length,) = struct.unpack("<Q", head)
    if not 2 <= length <= MAX_HEADER:
        raise SafetensorsError(f"a header of {length} bytes; 2 to {MAX_HEADER} are allowed")
    text = file.read(length)
    if len(text) != length or not text.startswith(b"{"):
        raise SafetensorsError("the header is cut short, or is no JSON object")
    try:
        header = json.loads(text)
    except ValueError as error:
        raise SafetensorsError(f"the header is not JSON: {error}") from None
    header.pop("__metadata__", None)
    tensors: dict[str, Tensor] = {}
    offset = 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(*item)):
        begin, end = _offsets(name, entry)
        if begin != offset:
            raise SafetensorsError(f"{name}: begins at {begin}, the tensor before it ends at {offset}")
        tensor = Tensor(str(entry.get("dtype")), _shape(name, entry), file.read(end - begin))
        if len(tensor.data) != end - begin or tensor.expected_size != end - begin:
            raise SafetensorsError(f"{name}: {len(tensor.data)} of {end - begin} bytes, shape {list(tensor.shape)}")
        tensors[name] = tensor
        offset = end
    if file.read(1):
        raise SafetensorsError("bytes follow the last tensor")
    return tensors


def _offsets(name: str, entry: object) -> tuple[int, int]:
    value = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not _naturals(value) or len(value) != 2 or value[0] > value[1]:
        raise SafetensorsError(f"{name}: no data_offsets [begin, end]")
    return value[0], value[1]


def _shape(name: str, entry: Mapping[str, object]) -> tuple[int, ...]:
    value = entry.get("shape")
    if not _naturals(value):
        raise SafetensorsError(f"{name}: no shape")
    return tuple(value)


def _naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
