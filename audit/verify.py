"""The full check: rebuild the tree from the rows of a database and name the first index that is not what was signed.

What is compared, entry by entry: payload with digest, digest with entry hash, entry hash with the level-0 tile,
query columns with the payload, per-asset counters with the order of the log; then all tiles, every checkpoint that
was ever signed, and the sequencer's state with the tree. Two trees are built side by side, one from the rows and one
from the tiles: whichever leads to the signed root tells which of the two was altered.

What no look at one database can find: that its owner put back an older copy of all of it. For that, keep a checkpoint
(or let witnesses keep it) and pass it as `known`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, or_, select

from audit.checkpoint import Checkpoint
from audit.errors import MalformedError
from audit.fsck.checkpoints import Checkpoints
from audit.fsck.counters import Counters
from audit.fsck.entries import ROW, Entries, Named
from audit.fsck.erasures import Erasures
from audit.fsck.findings import MAX_PROBLEMS, Findings
from audit.fsck.indexes import IndexSet
from audit.fsck.places import Places
from audit.fsck.times import TimeBlocks
from audit.fsck.trees import Trees
from audit.merkle import EMPTY_ROOT, HASH_SIZE, Frontier
from audit.note import NoteVerifier
from audit.payload import KEYED_ENTRY
from audit.problems import Problem, ProblemCode
from audit.tables import AUDIT_ENTRY, AUDIT_STATE
from audit.tiles import TILE_WIDTH

__all__ = ["MAX_PROBLEMS", "LogResult", "Progress", "verify_log"]

_CHUNK: Final = 8 * TILE_WIDTH
_STREAM: Final = 256
"""Rows that are in memory at once: a payload may have 64 KiB."""

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
        sealed: how many payloads were not read for want of keys. Everything that proves them was checked all the same;
            what they say, what queries answer from them, and whether erasures are on record was not.
    """

    checkpoint: Checkpoint | None
    entries: int
    waiting: int
    erased: IndexSet
    problems: tuple[Problem, ...]
    more_problems: int = 0
    sealed: int = 0

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
        connection: sees one snapshot of the database (`audit.database.snapshot`), with the log's keys or without.
        verifier: the log's key, got from somebody else than the database's owner.
        known: signed checkpoints seen earlier; the log must be or continue each of them.
        progress: told now and then how far the check has come.

    Raises:
        KeyringError: the keys' custody cannot be used now.
    """
    check = _Check(connection, verifier)
    check.checkpoints.collect(known)
    check.read_entries(progress)
    check.judge()
    return check.result()


class _Check:
    """The state of one full check."""

    def __init__(self, connection: Connection, verifier: NoteVerifier) -> None:
        self._connection = connection
        self._verifier = verifier
        self._findings = Findings()
        self._erasures = Erasures()
        self._entries = Entries(connection, self._findings, self._erasures)
        self._counters = Counters(connection, self._findings)
        self._places = Places(connection, self._findings)
        self._times = TimeBlocks(connection, self._findings)
        self._trees = Trees(connection, self._findings)
        self._count = 0
        self.checkpoints = Checkpoints(connection, verifier, self._findings)

    def read_entries(self, progress: Progress | None) -> None:
        """Read all sequenced entries in order, checking each by itself and growing both trees."""
        size = self.checkpoints.size
        for signed_size, root in self.checkpoints.between(-1, 0).items():
            self.checkpoints.compare(signed_size, root, rows=EMPTY_ROOT, tiles=EMPTY_ROOT)
        for start in range(0, size, _CHUNK):
            stop = min(start + _CHUNK, size)
            self._read_chunk(start, stop)
            if progress is not None:
                progress(stop, size)
        beyond = (
            select(AUDIT_ENTRY.c.leaf_index, AUDIT_ENTRY.c.leaf_hash)
            .where(or_(AUDIT_ENTRY.c.leaf_index >= size, AUDIT_ENTRY.c.leaf_index < 0))
            .order_by(AUDIT_ENTRY.c.leaf_index)
            .execution_options(yield_per=_STREAM)
        )
        with self._connection.execute(beyond) as rows:
            for row in rows:
                self._count += 1
                self._places.unsigned(row.leaf_index, bytes(row.leaf_hash), size)

    def _read_chunk(self, start: int, stop: int) -> None:
        found = self._read_rows(start, stop)
        tiled = self._trees.read_tiles(start, stop, self.checkpoints.size)
        nothing = bytes(HASH_SIZE)
        of_rows: list[bytes] = []
        of_tiles: list[bytes] = []
        for index in range(start, stop):
            ours, theirs = found.get(index), tiled.get(index)
            if ours != theirs or ours is None:
                self._places.differs(index, ours, theirs)
                self._trees.differs(index)
            # A hole in either tree is filled from the other, so that what stands behind it keeps its place.
            of_rows.append(ours or theirs or nothing)
            of_tiles.append(theirs or ours or nothing)
        signed = self.checkpoints.between(start, stop)
        for size, (rows, tiles) in self._trees.extend(of_rows, of_tiles, list(signed)).items():
            self.checkpoints.compare(size, signed[size], rows=rows, tiles=tiles)

    def _read_rows(self, start: int, stop: int) -> dict[int, bytes]:
        """Check the rows that stand at ``[start, stop)`` and return the hash of each."""
        named = Named(self._connection, start, stop)
        statement = (
            select(*ROW)
            .select_from(KEYED_ENTRY)
            .where(AUDIT_ENTRY.c.leaf_index >= start, AUDIT_ENTRY.c.leaf_index < stop)
            .order_by(AUDIT_ENTRY.c.leaf_index, AUDIT_ENTRY.c.id)
            .execution_options(yield_per=_STREAM)
        )
        found: dict[int, bytes] = {}
        with self._connection.execute(statement) as rows:
            for row in rows:
                self._count += 1
                gaps = bool(self._erasures.erased)
                self._counters.follow(row.leaf_index, named.assets(row.id), gaps=gaps)
                self._times.follow(row.leaf_index, row.time)
                entry_hash = self._entries.check(row, named, self.checkpoints.size)
                if found.setdefault(row.leaf_index, entry_hash) != entry_hash:
                    self._findings.report(
                        ProblemCode.ENTRY_DUPLICATED, row.leaf_index, "entries here", expected="one", actual="several"
                    )
        return found

    def judge(self) -> None:
        """Compare what was read with everything else that is stored.

        Where rows and tiles differ, the signed root says which of them was altered; the hashes say how.
        """
        newest, size = self.checkpoints.newest, self.checkpoints.size
        rows_proven = newest is not None and self._places.whole and self._trees.root_of_rows == newest.root
        if not rows_proven:
            self._places.judge()
        self.checkpoints.judge_end()
        self._trees.judge_tiles(size, rows_proven=rows_proven)
        self._judge_state(newest)
        self._counters.judge_totals(gaps=bool(self._erasures.erased))
        self._entries.check_waiting(size)
        self._erasures.judge(self._findings)

    def _judge_state(self, newest: Checkpoint | None) -> None:
        """Compare the sequencer's state with the newest checkpoint."""
        report = self._findings.report
        state = self._connection.execute(select(AUDIT_STATE)).one_or_none()
        if state is None:
            report(ProblemCode.STATE_ALTERED, None, "state", expected="one row", actual="none")
            return
        if state.origin != self._verifier.name:
            report(ProblemCode.STATE_ALTERED, None, "origin", expected=self._verifier.name, actual=state.origin)
        if newest is None:
            return
        expected = f"{newest.size} entries under root {newest.root.hex()}"
        try:
            frontier = Frontier.parse(state.tree_size, bytes(state.frontier))
            actual = f"{frontier.size} entries under root {frontier.root().hex()}"
        except MalformedError as error:
            actual = str(error)
        if actual != expected:
            report(ProblemCode.STATE_ALTERED, None, "state", expected=expected, actual=actual)

    def result(self) -> LogResult:
        """Everything that was found, the lowest indexes first."""
        problems, more = self._findings.first()
        return LogResult(
            checkpoint=self.checkpoints.newest,
            entries=self._count,
            waiting=self._entries.waiting,
            erased=self._erasures.erased,
            problems=problems,
            more_problems=more,
            sealed=self._erasures.sealed,
        )
