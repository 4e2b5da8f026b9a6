"""A set of indexes of entries that takes a bit for each, however many are in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final

_PAGE: Final = 1 << 16


class IndexSet(AbstractSet[int]):
    """Indexes, iterated in ascending order."""

    __slots__ = ("_count", "_pages")

    def __init__(self, indexes: Iterable[int] = ()) -> None:
        self._pages: dict[int, bytearray] = {}
        self._count = 0
        for index in indexes:
            self.add(index)

    def add(self, index: int) -> None:
        """Put `index`, which is not negative, in."""
        number, bit = divmod(index, _PAGE)
        page = self._pages.setdefault(number, bytearray(_PAGE // 8))
        if not page[bit >> 3] >> (bit & 7) & 1:
            page[bit >> 3] |= 1 << (bit & 7)
            self._count += 1

    def __contains__(self, index: object) -> bool:
        if not isinstance(index, int):
            return False
        number, bit = divmod(index, _PAGE)
        page = self._pages.get(number)
        return page is not None and bool(page[bit >> 3] >> (bit & 7) & 1)

    def __iter__(self) -> Iterator[int]:
        for number in sorted(self._pages):
            for at, byte in enumerate(self._pages[number]):
                if byte:
                    start = number * _PAGE + at * 8
                    yield from (start + bit for bit in range(8) if byte >> bit & 1)

    def __len__(self) -> int:
        return self._count
