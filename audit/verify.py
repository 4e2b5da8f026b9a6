"""The full check: rebuild the tree from the rows of a database and name the first index that is not what was signed.

What is compared, entry by entry: payload with digest, digest with entry hash, entry hash with the level-0 tile,
query columns with the payload, per-asset counters with the order of the log; then all tiles, every checkpoint that
was ever signed, and the sequencer's state with the tree. Two trees are built side by side, one from the rows and one
from the tiles: whichever leads to the signed root tells which of the two was altered.

What no look at one database can find: that its owner put back an older copy of all of it. For that, keep a checkpoint
(or let witnesses keep it) and pass it as `known`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, func, or_, select

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.envelope import Leaf
from audit.errors import MalformedError, NoteSignatureError
from audit.log import ERASED_INDEXES, PROJECTED, projections
from audit.merkle import EMPTY_ROOT, HASH_SIZE, Frontier, perfect_subtree_hash
from audit.note import NoteVerifier
from audit.problems import Problem, ProblemCode
from audit.records import Kind, Record
from audit.tables import (
    AUDIT_ASSET_COUNTER,
    AUDIT_CHECKPOINT,
    AUDIT_ENTRY,
    AUDIT_ENTRY_ASSET,
    AUDIT_ENTRY_HARDWARE,
    AUDIT_ENTRY_REASON,
    AUDIT_STATE,
    AUDIT_TILE,
)
from audit.tiles import TILE_WIDTH, TilePath, tiles_of

MAX_PROBLEMS: Final = 100
"""As many problems are described; the rest is counted. The first indexes come first."""

_CHUNK: Final = 8 * TILE_WIDTH
_MAX_DIFFERING: Final = 100_000
"""Entries that are held in memory to find out where they belong; beyond it they are only counted."""

_DISPLACED: Final = frozenset(
    {
        ProblemCode.ENTRY_MISSING,
        ProblemCode.ENTRY_INSERTED,
        ProblemCode.ENTRY_MOVED,
        ProblemCode.ENTRY_DUPLICATED,
        ProblemCode.ENTRY_REPLACED,
    }
)

Progress = Callable[[int, int], None]
"""Called with how many entries are done and how many there are."""


@dataclass(frozen=True, slots=True)
class LogResult:
    """What a full check established.

    Attributes:
        checkpoint: the newest checkpoint with a good signature; None if there is none.
        entries: how many sequenced entries the database holds.
        waiting: how many entries wait to be sequenced; they are promised, not proven.
        erased: indexes whose payload was erased; they are proven to be in the log all the same.
        problems: the first violated rules, by index; none means that the log is whole.
        more_problems: how many further ones were found.
    """

    checkpoint: Checkpoint | None
    entries: int
    waiting: int
    erased: tuple[int, ...]
    problems: tuple[Problem, ...]
    more_problems: int = 0

    @property
    def ok(self) -> bool:
        """True where no rule is violated."""
        return not self.problems

    @property
    def first_bad_index(self) -> int | None:
        """The lowest index that is to blame for something; None where nothing, or no entry, is."""
        found = [problem.index for problem in self.problems if problem.index is not None]
        return min(found) if found else None


def verify_log(
    connection: Connection,
    verifier: NoteVerifier,
    *,
    known: Sequence[bytes] = (),
    progress: Progress | None = None,
) -> LogResult:
    """Check a whole log.

    Args:
        connection: sees one snapshot of the database (`audit.database.snapshot`).
        verifier: the log's key, got from somebody else than the database's owner.
        known: signed checkpoints seen earlier; the log must be or continue each of them.
        progress: told now and then how far the check has come.
    """
    check = _Check(connection, verifier)
    check.read_checkpoints(known)
    check.read_entries(progress)
    check.judge_entries()
    check.judge_checkpoints()
    check.judge_tiles()
    check.judge_state()
    check.judge_counters()
    check.judge_waiting()
    check.judge_erasures()
    return check.result()


@dataclass(slots=True)
class _Tree:
    """A tree that grows while entries are read, with its roots at the sizes that were signed."""

    frontier: Frontier = field(default_factory=Frontier)
    roots: dict[int, bytes] = field(default_factory=lambda: {0: EMPTY_ROOT})
    tile_roots: list[bytes] = field(default_factory=list)

    def extend(self, hashes: Sequence[bytes], sizes: Sequence[int]) -> None:
        """Append `hashes`, noting the root at each of `sizes` (sorted) on the way, and of each full tile."""
        start, done = self.frontier.size, 0
        for size in sizes:
            self.frontier = self.frontier.extend(hashes[done : size - start])
            done = size - start
            self.roots[size] = self.frontier.root()
        self.frontier = self.frontier.extend(hashes[done:])
        for at in range(0, len(hashes) - TILE_WIDTH + 1, TILE_WIDTH):
            self.tile_roots.append(perfect_subtree_hash(hashes[at : at + TILE_WIDTH]))


class _Named:
    """What a range of entries names: assets with their counters, hardware and reasons, by the entry's row."""

    __slots__ = ("assets", "hardware", "reasons")

    def __init__(self, connection: Connection, start: int, stop: int) -> None:
        self.assets: dict[int, dict[tuple[str, int], int | None]] = {}
        self.hardware: dict[int, set[str]] = {}
        self.reasons: dict[int, set[str]] = {}
        for row in _of_range(connection, AUDIT_ENTRY_ASSET, start, stop):
            self.assets.setdefault(row.entry_id, {})[row.asset, row.version] = row.counter
        for row in _of_range(connection, AUDIT_ENTRY_HARDWARE, start, stop):
            self.hardware.setdefault(row.entry_id, set()).add(row.hardware)
        for row in _of_range(connection, AUDIT_ENTRY_REASON, start, stop):
            self.reasons.setdefault(row.entry_id, set()).add(row.reason)

    def __contains__(self, entry_id: int) -> bool:
        return entry_id in self.assets or entry_id in self.hardware or entry_id in self.reasons


def _of_range(connection: Connection, table: Table, start: int, stop: int) -> Sequence[Row[Any]]:
    return connection.execute(
        select(table)
        .join(AUDIT_ENTRY, AUDIT_ENTRY.c.id == table.c.entry_id)
        .where(AUDIT_ENTRY.c.leaf_index >= start, AUDIT_ENTRY.c.leaf_index < stop)
    ).all()


def _show(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _erased_by(record: Record) -> set[int]:
    listed = record.detail.get(ERASED_INDEXES)
    texts = listed if isinstance(listed, tuple) else ()
    return {int(text) for text in texts if text.isascii() and text.isdigit() and len(text) < 20}


class _Check:
    """The state of one full check; each method is one step of `verify_log`."""

    def __init__(self, connection: Connection, verifier: NoteVerifier) -> None:
        self._connection = connection
        self._verifier = verifier
        self._problems: list[Problem] = []
        self._more = 0
        self._signed: dict[int, Checkpoint] = {}
        self._newest: Checkpoint | None = None
        self._size = 0  # entries that were signed: what the rows and tiles must hold
        self._count = 0
        self._waiting = 0
        self._rows = _Tree()
        self._tiles = _Tree()
        self._rows_whole = True
        self._rows_proven = False
        self._differing: dict[int, tuple[bytes | None, bytes | None]] = {}
        self._tiles_differing: dict[int, int] = {}
        self._unsigned: dict[int, bytes] = {}
        self._erased: list[int] = []
        self._erasures: set[int] = set()
        self._counters: dict[str, int] = {}

    def _report(self, code: ProblemCode, index: int | None, what: str, *, expected: object, actual: object) -> None:
        self._problems.append(Problem(code, index, what, _show(expected), _show(actual)))

    # (1) Checkpoints: signatures, and whether their columns say what was signed.

    def read_checkpoints(self, known: Sequence[bytes]) -> None:
        """Open every stored checkpoint, and those that the caller has seen before."""
        for row in self._connection.execute(select(AUDIT_CHECKPOINT).order_by(AUDIT_CHECKPOINT.c.tree_size)):
            what = f"checkpoint of {row.tree_size} entries"
            checkpoint = self._open(row.note.encode("utf-8"), what)
            if checkpoint is None:
                continue
            if (checkpoint.size, checkpoint.root) != (row.tree_size, bytes(row.root_hash)):
                signed = f"size {checkpoint.size}, root {checkpoint.root.hex()}"
                stored = f"size {row.tree_size}, root {bytes(row.root_hash).hex()}"
                self._report(ProblemCode.CHECKPOINT_ALTERED, None, what, expected=signed, actual=stored)
            self._signed[checkpoint.size] = checkpoint
        if self._signed:
            self._newest = self._signed[max(self._signed)]
            self._size = self._newest.size
        else:
            self._report(ProblemCode.CHECKPOINT_MISSING, None, "checkpoints", expected="a signed one", actual="none")
            sequenced = select(func.count()).select_from(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index.is_not(None))
            self._size = self._connection.execute(sequenced).scalar_one()
        for number, note in enumerate(known, start=1):
            what = f"known checkpoint {number}"
            checkpoint = self._open(note, what)
            if checkpoint is None:
                continue
            ours = self._signed.setdefault(checkpoint.size, checkpoint)
            if ours != checkpoint:
                self._report(
                    ProblemCode.CONSISTENCY_UNPROVEN,
                    None,
                    f"{what}, of {checkpoint.size} entries",
                    expected=f"root {checkpoint.root.hex()}",
                    actual=f"root {ours.root.hex()}",
                )

    def _open(self, note: bytes, what: str) -> Checkpoint | None:
        try:
            return open_checkpoint(note, self._verifier)
        except (MalformedError, NoteSignatureError) as error:
            expected = f"signed by {self._verifier.name}+{self._verifier.key_id.hex()}"
            self._report(ProblemCode.CHECKPOINT_ALTERED, None, what, expected=expected, actual=error)
            return None

    # (2) Entries: each against its own hashes, its projections and its tile.

    def read_entries(self, progress: Progress | None) -> None:
        """Read all sequenced entries in order, checking each by itself and growing both trees."""
        sizes = sorted(self._signed)
        for start in range(0, self._size, _CHUNK):
            stop = min(start + _CHUNK, self._size)
            self._read_chunk(start, stop, [size for size in sizes if start < size <= stop])
            if progress is not None:
                progress(stop, self._size)
        beyond = self._connection.execute(
            select(AUDIT_ENTRY.c.leaf_index, AUDIT_ENTRY.c.leaf_hash)
            .where(or_(AUDIT_ENTRY.c.leaf_index >= self._size, AUDIT_ENTRY.c.leaf_index < 0))
            .order_by(AUDIT_ENTRY.c.leaf_index)
        )
        for row in beyond:
            self._count += 1
            if len(self._unsigned) >= _MAX_DIFFERING:
                self._more += 1
                continue
            self._unsigned[row.leaf_index] = bytes(row.leaf_hash)
            expected = f"no index beyond the {self._size} entries that were signed"
            self._report(
                ProblemCode.ENTRY_UNSIGNED, row.leaf_index, "entry", expected=expected, actual=bytes(row.leaf_hash)
            )
        self._rows_proven = (
            self._newest is not None and self._rows_whole and self._rows.roots[self._size] == self._newest.root
        )

    def _read_chunk(self, start: int, stop: int, sizes: Sequence[int]) -> None:
        named = _Named(self._connection, start, stop)
        found: dict[int, bytes] = {}
        rows = self._connection.execute(
            select(AUDIT_ENTRY)
            .where(AUDIT_ENTRY.c.leaf_index >= start, AUDIT_ENTRY.c.leaf_index < stop)
            .order_by(AUDIT_ENTRY.c.leaf_index, AUDIT_ENTRY.c.id)
        )
        for row in rows:
            self._count += 1
            entry_hash = self._check_row(row, named)
            if found.setdefault(row.leaf_index, entry_hash) != entry_hash:
                self._report(
                    ProblemCode.ENTRY_DUPLICATED, row.leaf_index, "entries here", expected="one", actual="several"
                )
        tiled = self._tile_hashes(start, stop)
        nothing = bytes(HASH_SIZE)
        of_rows: list[bytes] = []
        of_tiles: list[bytes] = []
        for index in range(start, stop):
            ours, theirs = found.get(index), tiled.get(index)
            if ours != theirs or ours is None:
                self._rows_whole = self._rows_whole and ours is not None
                tile = index // TILE_WIDTH
                self._tiles_differing.setdefault(tile, index)
                if len(self._differing) < _MAX_DIFFERING:
                    self._differing[index] = (ours, theirs)
                else:
                    self._more += 1
            # A hole in either tree is filled from the other, so that what stands behind it keeps its place.
            of_rows.append(ours or theirs or nothing)
            of_tiles.append(theirs or ours or nothing)
        self._rows.extend(of_rows, sizes)
        self._tiles.extend(of_tiles, sizes)

    def _tile_hashes(self, start: int, stop: int) -> dict[int, bytes]:
        rows = self._connection.execute(
            select(AUDIT_TILE.c.tile_index, AUDIT_TILE.c.hashes).where(
                AUDIT_TILE.c.level == 0,
                AUDIT_TILE.c.tile_index >= start // TILE_WIDTH,
                AUDIT_TILE.c.tile_index <= (stop - 1) // TILE_WIDTH,
            )
        )
        hashes: dict[int, bytes] = {}
        for row in rows:
            data, first = bytes(row.hashes), row.tile_index * TILE_WIDTH
            for at in range(min(len(data) // HASH_SIZE, TILE_WIDTH)):
                hashes[first + at] = data[at * HASH_SIZE : (at + 1) * HASH_SIZE]
        return hashes

    def _check_row(self, row: Row[Any], named: _Named) -> bytes:
        """Check one row by itself and return the hash that its digest gives it."""
        index: int = row.leaf_index
        self._check_counters(index, named.assets.get(row.id, {}))
        digest, stored_hash = bytes(row.digest), bytes(row.leaf_hash)
        try:
            entry_hash = Leaf(digest).entry_hash()
        except MalformedError as error:
            self._report(ProblemCode.ENTRY_HASH_ALTERED, index, "digest", expected="32 bytes", actual=error)
            return stored_hash
        if entry_hash != stored_hash:
            self._report(ProblemCode.ENTRY_HASH_ALTERED, index, "entry hash", expected=entry_hash, actual=stored_hash)
        if row.payload is None or row.salt is None:
            self._erased.append(index)
            if row.id in named or any(getattr(row, name) is not None for name in PROJECTED):
                self._report(
                    ProblemCode.PROJECTION_ALTERED,
                    index,
                    "query columns",
                    expected="erased with the payload",
                    actual="still there",
                )
            return entry_hash
        payload = bytes(row.payload)
        try:
            committed = Leaf.commit(salt=bytes(row.salt), payload=payload)
        except MalformedError as error:
            self._report(ProblemCode.PAYLOAD_ALTERED, index, "salt", expected="32 bytes", actual=error)
            return entry_hash
        if committed.digest != digest:
            self._report(
                ProblemCode.PAYLOAD_ALTERED,
                index,
                "digest of salt and payload",
                expected=digest,
                actual=committed.digest,
            )
            return entry_hash
        try:
            record = Record.parse(payload)
        except MalformedError as error:
            self._report(
                ProblemCode.PAYLOAD_MALFORMED, index, "payload", expected="a record of this version", actual=error
            )
            return entry_hash
        self._check_projections(row, record, named)
        if record.kind is Kind.AUDIT_ERASED:
            self._erasures |= _erased_by(record)
        return entry_hash

    def _check_projections(self, row: Row[Any], record: Record, named: _Named) -> None:
        pairs: list[tuple[str, object, object]] = [
            (f"column {name}", value, getattr(row, name)) for name, value in projections(record).items()
        ]
        assets = sorted(f"{asset}@{version}" for asset, version in named.assets.get(row.id, {}))
        pairs.append(("assets", sorted(record.assets), assets))
        pairs.append(("hardware", sorted(record.hardware), sorted(named.hardware.get(row.id, ()))))
        pairs.append(("reasons", sorted(record.reasons), sorted(named.reasons.get(row.id, ()))))
        for what, expected, actual in pairs:
            if expected != actual:
                self._report(ProblemCode.PROJECTION_ALTERED, row.leaf_index, what, expected=expected, actual=actual)

    def _check_counters(self, index: int, assets: Mapping[tuple[str, int], int | None]) -> None:
        for (asset, version), counter in sorted(assets.items()):
            last = self._counters.get(asset, 0)
            # An erased entry took its numbers with it: behind one they may skip, but never go back.
            gaps = bool(self._erased)
            if counter is None or counter <= last or (counter != last + 1 and not gaps):
                expected = f"{last + 1} or more" if gaps else str(last + 1)
                self._report(
                    ProblemCode.COUNTER_ALTERED,
                    index,
                    f"counter of {asset}@{version}",
                    expected=expected,
                    actual=counter,
                )
            self._counters[asset] = max(last, counter or 0)

    # (3) Where rows and tiles differ, the signed root says which of them was altered; the hashes say how.

    def judge_entries(self) -> None:
        """Name what happened to each entry that is not what its tile says, unless the tiles are to blame."""
        if self._rows_proven:
            return
        ours_at = {entry_hash: index for index, entry_hash in self._unsigned.items()}
        ours_at |= {ours: index for index, (ours, _) in self._differing.items() if ours is not None}
        theirs_at = {theirs: index for index, (_, theirs) in self._differing.items() if theirs is not None}
        for index, (ours, theirs) in self._differing.items():
            if theirs is None:
                if ours is None:
                    self._report(ProblemCode.ENTRY_MISSING, index, "entry", expected="one", actual="none")
                continue  # a hole in the tiles is reported by judge_tiles, a wrong entry by the root
            if theirs in ours_at and (ours is None or ours in theirs_at):
                actual = f"{'none' if ours is None else ours.hex()}; this one stands at {ours_at[theirs]}"
                self._report(ProblemCode.ENTRY_MOVED, index, "entry", expected=theirs, actual=actual)
            elif theirs in ours_at and ours is not None:
                actual = f"{ours.hex()}; this one stands at {ours_at[theirs]}"
                self._report(ProblemCode.ENTRY_INSERTED, index, "entry", expected=theirs, actual=actual)
            elif ours is None:
                self._report(ProblemCode.ENTRY_MISSING, index, "entry", expected=theirs, actual="none")
            elif ours in theirs_at:
                actual = f"{ours.hex()}, which belongs to {theirs_at[ours]}"
                self._report(ProblemCode.ENTRY_MISSING, index, "entry", expected=theirs, actual=actual)
            else:
                self._report(self._copied_or_replaced(index, ours), index, "entry", expected=theirs, actual=ours)

    def _copied_or_replaced(self, index: int, ours: bytes) -> ProblemCode:
        elsewhere = (
            select(func.count())
            .select_from(AUDIT_ENTRY)
            .where(AUDIT_ENTRY.c.leaf_hash == ours, AUDIT_ENTRY.c.leaf_index != index)
        )
        copied = self._connection.execute(elsewhere).scalar_one()
        return ProblemCode.ENTRY_DUPLICATED if copied else ProblemCode.ENTRY_REPLACED

    # (4) The trees against everything that was signed.

    def judge_checkpoints(self) -> None:
        """Compare the tree at every size that was signed; the first root that differs bounds what was rewritten."""
        good = 0
        for size in sorted(self._signed):
            if size > self._size:
                self._report(
                    ProblemCode.LOG_SHORTENED,
                    self._size,
                    "entries",
                    expected=f"{size}, as was signed",
                    actual=f"{self._size} under the newest checkpoint of the database",
                )
                return
            root = self._signed[size].root
            if root not in {self._rows.roots[size], self._tiles.roots[size]}:
                self._report(
                    ProblemCode.ROOT_MISMATCH,
                    good,
                    f"root of {size} entries; the first bad one is between {good} and {size - 1}",
                    expected=root,
                    actual=self._rows.roots[size],
                )
                return
            good = size

    # (5) Tiles of all levels, the state, counters, waiting entries and erasures.

    def judge_tiles(self) -> None:
        """Compare every stored tile with the tree; what is wrong with entries is not held against the tiles."""
        stored = {
            (row.level, row.tile_index): (row.width, row.size)
            for row in self._connection.execute(
                select(
                    AUDIT_TILE.c.level,
                    AUDIT_TILE.c.tile_index,
                    AUDIT_TILE.c.width,
                    func.length(AUDIT_TILE.c.hashes).label("size"),
                )
            )
        }
        below = (self._rows if self._rows_proven else self._tiles).tile_roots
        level = 0
        for path in tiles_of(self._size):
            tile_level = path.level or 0
            if tile_level > level + 1:  # the level below is done: hash its full tiles for this one
                level += 1
                whole = len(below) // TILE_WIDTH * TILE_WIDTH
                below = [perfect_subtree_hash(below[at : at + TILE_WIDTH]) for at in range(0, whole, TILE_WIDTH)]
            shape = stored.pop((tile_level, path.index), None)
            if shape != (path.width, path.width * HASH_SIZE):
                actual = "none" if shape is None else f"width {shape[0]}, {shape[1]} bytes"
                self._report(ProblemCode.TILE_ALTERED, None, str(path), expected=f"{path.width} hashes", actual=actual)
            elif tile_level == 0:
                if self._rows_proven and path.index in self._tiles_differing:
                    index = self._tiles_differing[path.index]
                    actual = f"other ones from entry {index} on"
                    self._report(
                        ProblemCode.TILE_ALTERED, None, str(path), expected="its entries' hashes", actual=actual
                    )
            elif self._tile(path) != b"".join(below[path.index * TILE_WIDTH :][: path.width]):
                self._report(
                    ProblemCode.TILE_ALTERED, None, str(path), expected="roots of the tiles below", actual="others"
                )
        for tile_level, index in sorted(stored):
            self._report(
                ProblemCode.TILE_ALTERED,
                None,
                f"tile level {tile_level} index {index}",
                expected=f"none in a tree of {self._size} entries",
                actual="stored",
            )

    def _tile(self, path: TilePath) -> bytes:
        return bytes(
            self._connection.execute(
                select(AUDIT_TILE.c.hashes).where(
                    AUDIT_TILE.c.level == path.level, AUDIT_TILE.c.tile_index == path.index
                )
            ).scalar_one()
        )

    def judge_state(self) -> None:
        """Compare the sequencer's state with the newest checkpoint."""
        state = self._connection.execute(select(AUDIT_STATE)).one_or_none()
        if state is None:
            self._report(ProblemCode.STATE_ALTERED, None, "state", expected="one row", actual="none")
            return
        if state.origin != self._verifier.name:
            self._report(ProblemCode.STATE_ALTERED, None, "origin", expected=self._verifier.name, actual=state.origin)
        if self._newest is None:
            return
        expected = f"{self._newest.size} entries under root {self._newest.root.hex()}"
        try:
            frontier = Frontier.parse(state.tree_size, bytes(state.frontier))
            actual = f"{frontier.size} entries under root {frontier.root().hex()}"
        except MalformedError as error:
            actual = str(error)
        if actual != expected:
            self._report(ProblemCode.STATE_ALTERED, None, "state", expected=expected, actual=actual)

    def judge_counters(self) -> None:
        """Compare each asset's total with the last number that its entries carry."""
        rows = self._connection.execute(select(AUDIT_ASSET_COUNTER))
        totals: dict[str, int] = {row.asset: row.counter for row in rows}
        for asset in sorted(totals.keys() | self._counters.keys()):
            last, total = self._counters.get(asset, 0), totals.get(asset, 0)
            if total < last or (total != last and not self._erased):
                self._report(ProblemCode.COUNTER_ALTERED, None, f"total of {asset}", expected=last, actual=total)

    def judge_waiting(self) -> None:
        """Check the entries that wait: they have no index yet, but receipts may have promised their hashes."""
        rows = self._connection.execute(
            select(
                AUDIT_ENTRY.c.id,
                AUDIT_ENTRY.c.digest,
                AUDIT_ENTRY.c.leaf_hash,
                AUDIT_ENTRY.c.salt,
                AUDIT_ENTRY.c.payload,
            )
            .where(AUDIT_ENTRY.c.leaf_index.is_(None))
            .order_by(AUDIT_ENTRY.c.id)
        )
        for row in rows:
            self._waiting += 1
            what = f"waiting entry id {row.id}"
            payload = bytes(row.payload or b"")
            try:
                leaf = Leaf.commit(salt=bytes(row.salt or b""), payload=payload)
                record = Record.parse(payload)
            except MalformedError as error:
                self._report(ProblemCode.PAYLOAD_ALTERED, None, what, expected="a record", actual=error)
                continue
            stored = bytes(row.leaf_hash)
            if (leaf.digest, leaf.entry_hash()) != (bytes(row.digest), stored):
                self._report(ProblemCode.PAYLOAD_ALTERED, None, what, expected=stored, actual=leaf.entry_hash())
            elif record.kind is Kind.AUDIT_ERASED:
                self._erasures |= _erased_by(record)

    def judge_erasures(self) -> None:
        """Every erased entry must be named by an ``audit.erased`` record, sequenced or waiting."""
        for index in self._erased:
            if index not in self._erasures:
                self._report(
                    ProblemCode.ERASED_WITHOUT_RECORD,
                    index,
                    "payload",
                    expected="there, or erased on record",
                    actual="gone",
                )

    def result(self) -> LogResult:
        """Everything that was found, the lowest indexes first."""
        problems = self._problems
        if any(problem.code in _DISPLACED for problem in problems):  # wrong counters follow from wrong places
            problems = [problem for problem in problems if problem.code is not ProblemCode.COUNTER_ALTERED]
        ordered = sorted(problems, key=lambda problem: (problem.index is None, problem.index or 0))
        return LogResult(
            checkpoint=self._newest,
            entries=self._count,
            waiting=self._waiting,
            erased=tuple(self._erased),
            problems=tuple(ordered[:MAX_PROBLEMS]),
            more_problems=max(0, len(ordered) - MAX_PROBLEMS) + self._more,
        )
