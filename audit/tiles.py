"""The tree as C2SP tlog-tiles: paths, storage in a table, and proofs read back from it.

Tiles have height 8: the n-th tile of level l holds the Merkle Tree Hashes of 256 consecutive subtrees of
``256**l`` leaves. The table keeps the widest form of each tile; a partial tile that an older checkpoint needs is a
prefix of it. Paths and bytes are those that C2SP clients fetch, so that publishing is copying.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from sqlalchemy import Connection, and_, insert, select, update

from audit.envelope import Leaf
from audit.errors import EntryNotFoundError, LogCorruptError, MalformedError
from audit.merkle import HASH_SIZE, perfect_subtree_hash
from audit.tables import AUDIT_ENTRY, AUDIT_TILE

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
MAX_LEVEL: Final = 63
MAX_BUNDLE_ENTRY: Final = 0xFFFF
"""Entries in a bundle have a 16-bit length (C2SP tlog-tiles, Log entries)."""

_PATH: Final = re.compile(
    r"tile/(?P<level>0|[1-9][0-9]?|entries)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?\Z"
)


@dataclass(frozen=True, slots=True)
class TilePath:
    """Where a tile or entry bundle is published.

    Attributes:
        level: the tile's level, or None for a bundle of entries.
        index: the tile's index in its level.
        width: 256 for a full tile, less for a partial one.
    """

    level: int | None
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if self.level is not None and not 0 <= self.level <= MAX_LEVEL:
            raise MalformedError("tile path", f"level {self.level} is not between 0 and {MAX_LEVEL}")
        if self.index < 0 or not 1 <= self.width <= TILE_WIDTH:
            raise MalformedError("tile path", f"index {self.index} or width {self.width} is out of range")

    def __str__(self) -> str:
        level = "entries" if self.level is None else str(self.level)
        digits = str(self.index)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
        path = "/".join([f"x{group}" for group in groups[:-1]] + [groups[-1]])
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{path}{partial}"

    @classmethod
    def parse(cls, path: str) -> Self:
        """Parse a path relative to the log's prefix.

        Raises:
            MalformedError: it is not the canonical path of a tile or entry bundle (C2SP tlog-tiles, Merkle Tree).
        """
        match = _PATH.match(path)
        if not match:
            raise MalformedError("tile path", f"{path!r:.80} is not tile/LEVEL/INDEX[.p/WIDTH]")
        level = None if match["level"] == "entries" else int(match["level"])
        index = int(match["index"].replace("x", "").replace("/", ""))
        tile = cls(level, index, int(match["width"] or TILE_WIDTH))
        if str(tile) != path:
            raise MalformedError("tile path", f"{path!r:.80} is not canonical: {tile}")
        return tile


def tiles_of(size: int) -> Iterable[TilePath]:
    """Every tile of a tree of `size` leaves, level by level; the last one of a level may be partial."""
    for level in range(MAX_LEVEL + 1):
        count = size >> (TILE_HEIGHT * level)
        if count == 0:
            return
        full, rest = divmod(count, TILE_WIDTH)
        yield from (TilePath(level, index) for index in range(full))
        if rest:
            yield TilePath(level, full, rest)


def _split(data: bytes) -> list[bytes]:
    return [data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)]


def _stored(connection: Connection, level: int, index: int) -> bytes | None:
    row = connection.execute(
        select(AUDIT_TILE.c.width, AUDIT_TILE.c.hashes).where(
            AUDIT_TILE.c.level == level, AUDIT_TILE.c.tile_index == index
        )
    ).one_or_none()
    if row is None:
        return None
    if len(row.hashes) != row.width * HASH_SIZE:
        raise LogCorruptError(f"tile {TilePath(level, index)}: {len(row.hashes)} bytes stored for width {row.width}")
    return bytes(row.hashes)


def integrate(connection: Connection, *, size: int, leaf_hashes: Sequence[bytes]) -> None:
    """Append `leaf_hashes` to the tiles of a tree that has `size` leaves.

    Raises:
        LogCorruptError: a stored tile is missing or has another width than a tree of that size has.
    """
    level, start, hashes = 0, size, list(leaf_hashes)
    while hashes:
        complete: list[bytes] = []
        first, offset = divmod(start, TILE_WIDTH)
        if offset:
            stored = _stored(connection, level, first)
            if stored is None or len(stored) != offset * HASH_SIZE:
                raise LogCorruptError(
                    f"tile {TilePath(level, first, offset)}: not stored with this width, as {size} entries need it"
                )
            hashes = _split(stored) + hashes
        rows = []
        for at in range(0, len(hashes), TILE_WIDTH):
            part = hashes[at : at + TILE_WIDTH]
            index = first + at // TILE_WIDTH
            rows.append({"level": level, "tile_index": index, "width": len(part), "hashes": b"".join(part)})
            if len(part) == TILE_WIDTH:
                complete.append(perfect_subtree_hash(part))
        if offset:
            grown = rows.pop(0)
            connection.execute(
                update(AUDIT_TILE)
                .where(and_(AUDIT_TILE.c.level == level, AUDIT_TILE.c.tile_index == first))
                .values(width=grown["width"], hashes=grown["hashes"])
            )
        if rows:
            connection.execute(insert(AUDIT_TILE), rows)
        level, start, hashes = level + 1, start >> TILE_HEIGHT, complete


class TileReader:
    """Reads hashes of perfect subtrees from the stored tiles; a node reader for `audit.merkle`.

    Args:
        connection: can read the log's database.
        kept: how many tiles it may hold in memory, so that a walk over a large log stays small; None is no bound.
    """

    __slots__ = ("_connection", "_kept", "_tiles")

    def __init__(self, connection: Connection, *, kept: int | None = None) -> None:
        self._connection = connection
        self._kept = kept
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def _tile(self, level: int, index: int) -> list[bytes]:
        tile = self._tiles.get((level, index))
        if tile is None:
            stored = _stored(self._connection, level, index)
            if stored is None:
                raise LogCorruptError(f"tile {TilePath(level, index)}: not stored")
            if self._kept is not None and len(self._tiles) >= self._kept:
                self._tiles.pop(next(iter(self._tiles)))  # the one that has been there longest
            tile = self._tiles[level, index] = _split(stored)
        return tile

    def __call__(self, level: int, index: int) -> bytes:
        """Hash of the perfect subtree of ``2**level`` leaves that begins at leaf ``index · 2**level``.

        Raises:
            LogCorruptError: the tile that holds it is not stored, or too narrow.
        """
        tile_level, height = divmod(level, TILE_HEIGHT)
        first = index << height
        tile_index, offset = divmod(first, TILE_WIDTH)
        hashes = self._tile(tile_level, tile_index)[offset : offset + (1 << height)]
        if len(hashes) != 1 << height:
            raise LogCorruptError(f"tile {TilePath(tile_level, tile_index)}: too narrow for the tree")
        return perfect_subtree_hash(hashes)


def read_tile(connection: Connection, path: TilePath) -> bytes:
    """The published bytes of a tile or entry bundle.

    Raises:
        EntryNotFoundError: the log is not that large yet.
    """
    if path.level is None:
        return _read_bundle(connection, path)
    stored = _stored(connection, path.level, path.index)
    if stored is None or len(stored) < path.width * HASH_SIZE:
        raise EntryNotFoundError(f"{path}: the log has no such tile yet")
    return stored[: path.width * HASH_SIZE]


def _read_bundle(connection: Connection, path: TilePath) -> bytes:
    start = path.index * TILE_WIDTH
    digests = connection.scalars(
        select(AUDIT_ENTRY.c.digest)
        .where(AUDIT_ENTRY.c.leaf_index >= start, AUDIT_ENTRY.c.leaf_index < start + path.width)
        .order_by(AUDIT_ENTRY.c.leaf_index)
    ).all()
    if len(digests) != path.width:
        raise EntryNotFoundError(f"{path}: the log has no such entries yet")
    return encode_bundle([Leaf(bytes(digest)).to_bytes() for digest in digests])


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: each entry with its length as a big-endian uint16 in front.

    Raises:
        MalformedError: an entry is too long, or there are more than 256.
    """
    if not 1 <= len(entries) <= TILE_WIDTH or any(len(entry) > MAX_BUNDLE_ENTRY for entry in entries):
        raise MalformedError("entry bundle", f"1 to {TILE_WIDTH} entries of at most {MAX_BUNDLE_ENTRY} bytes")
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def decode_bundle(data: bytes) -> tuple[bytes, ...]:
    """Decode what `encode_bundle` wrote.

    Raises:
        MalformedError: a length runs past the end, or there are no entries or more than 256.
    """
    entries, at = [], 0
    while at < len(data):
        if at + 2 > len(data):
            raise MalformedError("entry bundle", f"no whole length at offset {at}")
        (size,) = struct.unpack_from(">H", data, at)
        at += 2
        if at + size > len(data):
            raise MalformedError("entry bundle", f"the entry at offset {at} needs {size} bytes, {len(data) - at} left")
        entries.append(data[at : at + size])
        at += size
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise MalformedError("entry bundle", f"{len(entries)} entries, not 1 to {TILE_WIDTH}")
    return tuple(entries)
