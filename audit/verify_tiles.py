"""The full check of a published log: everything is rebuilt from its entry bundles, without the database.

What is compared: every leaf with its hash in the level-0 tile, every hash of a higher tile with the full tile below it,
and the tree with the signed checkpoint and with each checkpoint seen earlier. Two trees are built side by side, one
from the bundles and one from the tiles: whichever leads to the signed root tells which of the two was altered. Memory
holds one tile of each level, however large the log is.

The leaves commit to records without showing them; a proof bundle shows a record and is checked against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import WitnessKey, WitnessPolicy
from audit.errors import MalformedError, NoteSignatureError, UnwitnessedError
from audit.merkle import EMPTY_ROOT, HASH_SIZE, Frontier, leaf_hash, perfect_subtree_hash
from audit.note import NoteVerifier
from audit.problems import Problem, ProblemCode
from audit.stores import CHECKPOINT_PATH, TileSource
from audit.tiles import TILE_WIDTH, TilePath, decode_bundle
from audit.verify import MAX_PROBLEMS, Progress


@dataclass(frozen=True, slots=True)
class TilesResult:
    """What the check of a published log established.

    Attributes:
        checkpoint: the published checkpoint; None where none with a good signature is there.
        cosigned: which witnesses cosigned it, with the time that each states (seconds since the epoch).
        entries: how many leaves were read.
        problems: the first violated rules, by index; none means that the published log is whole.
        more_problems: how many further ones were found.
    """

    checkpoint: Checkpoint | None
    cosigned: dict[WitnessKey, int]
    entries: int
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


def verify_tiles(
    source: TileSource,
    verifier: NoteVerifier,
    *,
    known: Sequence[bytes] = (),
    witnesses: WitnessPolicy | None = None,
    leaves: dict[int, bytes] | None = None,
    progress: Progress | None = None,
) -> TilesResult:
    """Check a whole published log.

    Args:
        source: where it is published.
        verifier: the log's key, got from somebody else than whoever publishes it.
        known: signed checkpoints seen earlier; the log must be or continue each of them.
        witnesses: a quorum of these must have cosigned the checkpoint.
        leaves: leaves that must stand at the given indexes, for example those of proof bundles.
        progress: told now and then how far the check has come.

    Raises:
        AuditError: as `source` raises where it cannot be read.
    """
    check = _Check(source, verifier)
    check.read_checkpoints(known, witnesses or WitnessPolicy())
    check.read_entries(leaves or {}, progress)
    check.judge()
    return check.result()


@dataclass(slots=True)
class _Tree:
    """A tree that grows while tiles are read, with its roots at the sizes that were signed."""

    frontier: Frontier = field(default_factory=Frontier)
    roots: dict[int, bytes] = field(default_factory=lambda: {0: EMPTY_ROOT})

    def extend(self, hashes: Sequence[bytes], sizes: Sequence[int]) -> None:
        start, done = self.frontier.size, 0
        for size in sizes:
            self.frontier = self.frontier.extend(hashes[done : size - start])
            done = size - start
            self.roots[size] = self.frontier.root()
        self.frontier = self.frontier.extend(hashes[done:])


class _Check:
    """The state of one check; each method is one step of `verify_tiles`."""

    def __init__(self, source: TileSource, verifier: NoteVerifier) -> None:
        self._source = source
        self._verifier = verifier
        self._newest: Checkpoint | None = None
        self._cosigned: dict[WitnessKey, int] = {}
        self._known: list[Checkpoint] = []
        self._problems: list[Problem] = []
        self._more = 0
        self._bundles = _Tree()
        self._tiles = _Tree()
        self._differing: list[tuple[int, bytes | None, bytes | None]] = []
        self._upper: list[list[bytes]] = []
        self._read = 0

    def _report(self, code: ProblemCode, index: int | None, what: str, *, expected: object, actual: object) -> None:
        if len(self._problems) >= MAX_PROBLEMS:
            self._more += 1
            return
        self._problems.append(Problem(code, index, what, _show(expected), _show(actual)))

    def _open(self, note: bytes, what: str) -> Checkpoint | None:
        try:
            return open_checkpoint(note, self._verifier)
        except (MalformedError, NoteSignatureError) as error:
            expected = f"signed by {self._verifier.name}+{self._verifier.key_id.hex()}"
            self._report(ProblemCode.CHECKPOINT_ALTERED, None, what, expected=expected, actual=error)
            return None

    def read_checkpoints(self, known: Sequence[bytes], witnesses: WitnessPolicy) -> None:
        """Open the published checkpoint, judge its cosignatures, and open those that the caller has seen before."""
        note = self._source.get(CHECKPOINT_PATH)
        if note is None:
            self._report(ProblemCode.CHECKPOINT_MISSING, None, "checkpoint", expected="a signed one", actual="none")
        else:
            self._newest = self._open(note, "published checkpoint")
        if note is not None and self._newest is not None:
            try:
                self._cosigned = witnesses.require(note)
            except (MalformedError, UnwitnessedError) as error:
                expected = f"good ones by {witnesses.quorum} of {len(witnesses.keys)} witnesses"
                self._report(ProblemCode.CHECKPOINT_UNWITNESSED, None, "cosignatures", expected=expected, actual=error)
        for number, item in enumerate(known, start=1):
            checkpoint = self._open(item, f"known checkpoint {number}")
            if checkpoint is None:
                continue
            if self._newest is not None and checkpoint.size > self._newest.size:
                self._report(
                    ProblemCode.LOG_SHORTENED,
                    self._newest.size,
                    f"known checkpoint {number}",
                    expected=f"at least {checkpoint.size} entries",
                    actual=f"{self._newest.size} published",
                )
                continue
            self._known.append(checkpoint)

    def read_entries(self, leaves: dict[int, bytes], progress: Progress | None) -> None:
        """Read all bundles and tiles in order, growing both trees and comparing the higher tiles on the way."""
        if self._newest is None:
            return
        size = self._newest.size
        sizes = sorted({item.size for item in self._known} | {size})
        for start in range(0, size, TILE_WIDTH):
            stop = min(start + TILE_WIDTH, size)
            self._read_tile(start, stop, leaves, [at for at in sizes if start < at <= stop])
            if progress is not None:
                progress(stop, size)
        for index in sorted(index for index in leaves if not 0 <= index < size):
            self._report(
                ProblemCode.ENTRY_MISSING, index, "entry", expected="in the published log", actual=f"{size} entries"
            )
        for level, hashes in enumerate(self._upper, start=1):
            if hashes:
                self._compare_upper(level, size >> (8 * (level + 1)), hashes)

    def _read_tile(self, start: int, stop: int, leaves: dict[int, bytes], sizes: Sequence[int]) -> None:
        index, width = start // TILE_WIDTH, stop - start
        entries = self._bundle(TilePath(None, index, width))
        hashes = self._hashes(TilePath(0, index, width))
        nothing = bytes(HASH_SIZE)
        of_bundles: list[bytes] = []
        of_tiles: list[bytes] = []
        for at in range(width):
            entry = entries[at] if at < len(entries) else None
            ours = None if entry is None else leaf_hash(entry)
            theirs = hashes[at] if at < len(hashes) else None
            if ours is None or ours != theirs:
                self._differ(start + at, ours, theirs)
            wanted = leaves.get(start + at)
            if wanted is not None and entry is not None and wanted != entry:
                self._report(
                    ProblemCode.ENTRY_REPLACED, start + at, "leaf", expected=f"as proven, {wanted.hex()}", actual=entry
                )
            # A hole in either tree is filled from the other, so that what stands behind it keeps its place.
            of_bundles.append(ours or theirs or nothing)
            of_tiles.append(theirs or ours or nothing)
        self._read += len(entries)
        self._bundles.extend(of_bundles, sizes)
        self._tiles.extend(of_tiles, sizes)
        if width == TILE_WIDTH:
            self._complete(1, index, perfect_subtree_hash(of_bundles))

    def _differ(self, index: int, ours: bytes | None, theirs: bytes | None) -> None:
        if len(self._differing) >= MAX_PROBLEMS:
            self._more += 1
            return
        self._differing.append((index, ours, theirs))

    def _bundle(self, path: TilePath) -> tuple[bytes, ...]:
        data = self._get(path)
        if data is None:
            return ()
        try:
            entries = decode_bundle(data)
        except MalformedError as error:
            self._report(
                ProblemCode.TILE_ALTERED, path.index * TILE_WIDTH, str(path), expected="an entry bundle", actual=error
            )
            return ()
        return entries[: path.width]

    def _hashes(self, path: TilePath) -> list[bytes]:
        data = self._get(path) or b""
        return [data[at : at + HASH_SIZE] for at in range(0, min(len(data), path.width * HASH_SIZE), HASH_SIZE)]

    def _get(self, path: TilePath) -> bytes | None:
        """The tile, or the full one that a partial one may have been replaced by (C2SP tlog-tiles, Partial Tiles)."""
        data = self._source.get(str(path))
        if data is None and path.width != TILE_WIDTH:
            data = self._source.get(str(TilePath(path.level, path.index)))
        if data is None:
            level = path.level or 0
            first = path.index * TILE_WIDTH ** (level + 1)
            self._report(ProblemCode.TILE_MISSING, first, str(path), expected="published", actual="nothing there")
        return data

    def _complete(self, level: int, index: int, subtree: bytes) -> None:
        """Take in the hash of a full tile of the level below; compare the tile of this level once it is full."""
        if len(self._upper) < level:
            self._upper.append([])
        hashes = self._upper[level - 1]
        hashes.append(subtree)
        if len(hashes) == TILE_WIDTH:
            self._compare_upper(level, index // TILE_WIDTH, hashes)
            self._complete(level + 1, index // TILE_WIDTH, perfect_subtree_hash(hashes))
            hashes.clear()

    def _compare_upper(self, level: int, index: int, hashes: Sequence[bytes]) -> None:
        path = TilePath(level, index, len(hashes))
        data = self._get(path)
        if data is None:
            return
        found = [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)][: len(hashes)]
        for at, expected in enumerate(hashes):
            actual = found[at] if at < len(found) else b""
            if actual != expected:
                first = (index * TILE_WIDTH + at) * TILE_WIDTH**level
                self._report(ProblemCode.TILE_ALTERED, first, f"{path}, hash {at}", expected=expected, actual=actual)

    def judge(self) -> None:
        """Say of both trees whether they lead to what was signed, and so which of the two is to blame."""
        if self._newest is None:
            return
        signed = self._newest
        bundles_good = self._bundles.roots[signed.size] == signed.root
        tiles_good = self._tiles.roots[signed.size] == signed.root
        for index, ours, theirs in self._differing:
            if ours is None or theirs is None:
                code = ProblemCode.ENTRY_MISSING if ours is None else ProblemCode.TILE_ALTERED
            elif bundles_good:
                code = ProblemCode.TILE_ALTERED
            else:
                code = ProblemCode.ENTRY_REPLACED
            self._report(code, index, "leaf's hash", expected=theirs or "a hash", actual=ours or "none")
        if not bundles_good:
            what = "root of the entries" if tiles_good else "root of the entries, and of the tiles"
            first = self._differing[0][0] if self._differing else self._good_until()
            found = self._bundles.roots[signed.size]
            self._report(ProblemCode.ROOT_MISMATCH, first, what, expected=signed.root, actual=found)
        for checkpoint in self._known:
            found = self._bundles.roots[checkpoint.size]
            if found != checkpoint.root:
                self._report(
                    ProblemCode.CONSISTENCY_UNPROVEN,
                    None,
                    f"root of the first {checkpoint.size} entries",
                    expected=f"as a known checkpoint signed it, {checkpoint.root.hex()}",
                    actual=found,
                )

    def _good_until(self) -> int:
        """Entries that a known checkpoint vouches for: what is to blame stands behind them."""
        good = [item.size for item in self._known if self._bundles.roots[item.size] == item.root]
        return max(good, default=0)

    def result(self) -> TilesResult:
        """The verdict, by index; what belongs to no entry comes last."""
        problems = sorted(self._problems, key=lambda item: (item.index is None, item.index or 0))
        return TilesResult(self._newest, self._cosigned, self._read, tuple(problems), self._more)


def _show(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
