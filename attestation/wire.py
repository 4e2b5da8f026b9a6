"""The one bounded reader that every evidence parser uses: exact sizes, named fields, no slices elsewhere."""

from __future__ import annotations

from typing import Literal

from attestation.errors import MalformedError


class Reader:
    """Reads a structure from front to back; every short read, leftover or non-zero reserved byte is an error."""

    __slots__ = ("_data", "_offset", "structure")

    def __init__(self, data: bytes, structure: str) -> None:
        self._data = data
        self._offset = 0
        self.structure = structure

    @property
    def offset(self) -> int:
        """The offset of the next byte."""
        return self._offset

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._offset

    def take(self, size: int, field: str) -> bytes:
        """The next `size` bytes, named `field` in errors.

        Raises:
            MalformedError: fewer are left.
        """
        start, end = self._offset, self._offset + size
        if end > len(self._data):
            raise MalformedError(
                self.structure, f"{field} needs {size} bytes, {len(self._data) - start} left", offset=start
            )
        self._offset = end
        return self._data[start:end]

    def uint(self, size: int, field: str, *, order: Literal["little", "big"] = "little") -> int:
        """The next `size` bytes as an unsigned integer.

        Raises:
            MalformedError: fewer are left.
        """
        return int.from_bytes(self.take(size, field), order)

    def zero(self, size: int, field: str = "reserved") -> None:
        """Skip `size` bytes that the specification says must be zero.

        Raises:
            MalformedError: fewer are left, or one is not zero.
        """
        start = self._offset
        data = self.take(size, field)
        if data.count(0) != size:
            bad = next(index for index, byte in enumerate(data) if byte)
            raise MalformedError(self.structure, f"{field} must be zero, found {data[bad]:#04x}", offset=start + bad)

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            MalformedError: bytes follow the structure.
        """
        if self.remaining:
            raise MalformedError(self.structure, f"{self.remaining} trailing bytes", offset=self._offset)
