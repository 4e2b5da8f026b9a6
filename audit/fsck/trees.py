"""Two trees side by side, one from the rows and one from the tiles, and every stored tile against them.

A tree is held as its frontier and one tile of each level. While rows and tiles agree they are one tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import Connection, and_, or_, select

from audit.fsck.findings import Findings
from audit.merkle import EMPTY_ROOT, HASH_SIZE, Frontier, perfect_subtree_hash
from audit.problems import ProblemCode
from audit.tables import AUDIT_TILE
from audit.tiles import TILE_HEIGHT, TILE_WIDTH, TilePath

_STREAM: Final = 1024
_MAX_ALTERED: Final = 1000
"""Altered tiles that are described for each tree; more of them say nothing new."""


@dataclass(slots=True)
class _Tree:
    """A tree that grows.

    Attributes:
        frontier: its perfect subtrees.
        upper: for level 1 and each above, the hashes of the tile that is being filled.
        altered: upper tiles whose stored form is another one.
    """

    frontier: Frontier = field(default_factory=Frontier)
    upper: list[list[bytes]] = field(default_factory=list)
    altered: list[TilePath] = field(default_factory=list)

    def copy(self) -> _Tree:
        return replace(self, upper=[list(hashes) for hashes in self.upper], altered=list(self.altered))


class Trees:
    """Grows both trees and compares the stored tiles with them."""

    __slots__ = ("_connection", "_differing", "_findings", "_misshapen", "_rows", "_tiles")

    def __init__(self, connection: Connection, findings: Findings) -> None:
        self._connection = connection
        self._findings = findings
        self._rows = _Tree()
        self._tiles = self._rows
        self._differing: dict[int, int] = {}
        self._misshapen: set[TilePath] = set()

    @property
    def root_of_rows(self) -> bytes:
        """Root of the tree that the rows make."""
        return self._rows.frontier.root()

    def read_tiles(self, start: int, stop: int, size: int) -> dict[int, bytes]:
        """The hashes at ``[start, stop)`` by the level-0 tiles of a log of `size` entries, as far as they are stored.

        `start` is a multiple of `TILE_WIDTH`; so is `stop`, unless it is `size`.
        """
        first, end = start // TILE_WIDTH, -(-stop // TILE_WIDTH)
        rows = self._connection.execute(
            select(AUDIT_TILE.c.tile_index, AUDIT_TILE.c.width, AUDIT_TILE.c.hashes).where(
                AUDIT_TILE.c.level == 0, AUDIT_TILE.c.tile_index >= first, AUDIT_TILE.c.tile_index < end
            )
        ).all()
        stored = {row.tile_index: (row.width, bytes(row.hashes)) for row in rows}
        hashes: dict[int, bytes] = {}
        for index in range(first, end):
            path = TilePath(0, index, min(TILE_WIDTH, size - index * TILE_WIDTH))
            width, data = stored.get(index, (None, b""))
            self._check_shape(path, width, len(data))
            for at in range(min(len(data) // HASH_SIZE, TILE_WIDTH)):
                hashes[index * TILE_WIDTH + at] = data[at * HASH_SIZE : (at + 1) * HASH_SIZE]
        return hashes

    def _check_shape(self, path: TilePath, width: int | None, size: int) -> bool:
        if (width, size) == (path.width, path.width * HASH_SIZE):
            return True
        if path.level == 0 and len(self._misshapen) < _MAX_ALTERED:
            self._misshapen.add(path)
        actual = "none" if width is None else f"width {width}, {size} bytes"
        self._findings.report(ProblemCode.TILE_ALTERED, None, str(path), expected=f"{path.width} hashes", actual=actual)
        return False

    def differs(self, index: int) -> None:
        """Rows and tiles name different entries at `index`; call it with ascending ones."""
        if len(self._differing) < _MAX_ALTERED:
            self._differing.setdefault(index // TILE_WIDTH, index)

    def extend(
        self, of_rows: Sequence[bytes], of_tiles: Sequence[bytes], sizes: Sequence[int]
    ) -> dict[int, tuple[bytes, bytes]]:
        """Append entry hashes by rows and by tiles; the roots of both trees at each of `sizes` (in order) on the way.

        The trees' size is a multiple of `TILE_WIDTH` before each call.
        """
        if self._tiles is self._rows:
            if of_rows == of_tiles:
                roots = self._extend(self._rows, of_rows, sizes)
                return {size: (root, root) for size, root in roots.items()}
            self._tiles = self._rows.copy()
        roots = self._extend(self._rows, of_rows, sizes)
        others = self._extend(self._tiles, of_tiles, sizes)
        return {size: (root, others[size]) for size, root in roots.items()}

    def _extend(self, tree: _Tree, hashes: Sequence[bytes], sizes: Sequence[int]) -> dict[int, bytes]:
        start, done, roots = tree.frontier.size, 0, {}
        for size in sizes:
            tree.frontier = tree.frontier.extend(hashes[done : size - start])
            done = size - start
            roots[size] = tree.frontier.root() if size else EMPTY_ROOT
        tree.frontier = tree.frontier.extend(hashes[done:])
        for at in range(0, len(hashes) - TILE_WIDTH + 1, TILE_WIDTH):
            self._add_upper(tree, perfect_subtree_hash(hashes[at : at + TILE_WIDTH]), (start + at) // TILE_WIDTH)
        return roots

    def _add_upper(self, tree: _Tree, tile_root: bytes, index: int) -> None:
        """Put the root of the full level-0 tile `index` into the tile above it, and so on upwards."""
        for level in range(len(tree.upper) + 1):
            if level == len(tree.upper):
                tree.upper.append([])
            tile = tree.upper[level]
            tile.append(tile_root)
            if len(tile) < TILE_WIDTH:
                return
            index >>= TILE_HEIGHT
            self._compare(tree, TilePath(level + 1, index), tile)
            tile_root = perfect_subtree_hash(tile)
            tree.upper[level] = []

    def _compare(self, tree: _Tree, path: TilePath, hashes: Sequence[bytes]) -> None:
        row = self._connection.execute(
            select(AUDIT_TILE.c.width, AUDIT_TILE.c.hashes).where(
                AUDIT_TILE.c.level == path.level, AUDIT_TILE.c.tile_index == path.index
            )
        ).one_or_none()
        stored = b"" if row is None else bytes(row.hashes)
        if tree is self._rows and not self._check_shape(path, None if row is None else row.width, len(stored)):
            return  # said once, for whichever tree
        if len(stored) == path.width * HASH_SIZE and stored != b"".join(hashes) and len(tree.altered) < _MAX_ALTERED:
            tree.altered.append(path)

    def judge_tiles(self, size: int, *, rows_proven: bool) -> None:
        """Report the stored tiles that are not of the tree of `size` entries; entries are not held against tiles."""
        for tree in (self._rows,) if self._tiles is self._rows else (self._rows, self._tiles):
            for level, hashes in enumerate(tree.upper, start=1):
                if hashes:
                    index = size >> (TILE_HEIGHT * (level + 1))
                    self._compare(tree, TilePath(level, index, len(hashes)), hashes)
        if rows_proven:
            for tile, index in self._differing.items():
                path = TilePath(0, tile, min(TILE_WIDTH, size - tile * TILE_WIDTH))
                if path not in self._misshapen:
                    self._report(path, "its entries' hashes", f"other ones from entry {index} on")
        for path in (self._rows if rows_proven else self._tiles).altered:
            self._report(path, "roots of the tiles below", "others")
        self._judge_superfluous(size)

    def _report(self, path: TilePath, expected: str, actual: str) -> None:
        self._findings.report(ProblemCode.TILE_ALTERED, None, str(path), expected=expected, actual=actual)

    def _judge_superfluous(self, size: int) -> None:
        level, index = AUDIT_TILE.c.level, AUDIT_TILE.c.tile_index
        levels, outside = 0, [level < 0, index < 0]
        while count := size >> (TILE_HEIGHT * levels):
            outside.append(and_(level == levels, index >= -(-count // TILE_WIDTH)))
            levels += 1
        outside.append(level >= levels)
        statement = select(level, index).where(or_(*outside)).order_by(level, index)
        with self._connection.execute(statement.execution_options(yield_per=_STREAM)) as rows:
            for row in rows:
                self._findings.report(
                    ProblemCode.TILE_ALTERED,
                    None,
                    f"tile level {row.level} index {row.tile_index}",
                    expected=f"none in a tree of {size} entries",
                    actual="stored",
                )
