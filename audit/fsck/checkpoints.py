"""Everything that was signed: the stored checkpoints, and those that the caller kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, func, select

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.errors import MalformedError, NoteSignatureError
from audit.fsck.findings import Findings
from audit.note import NoteVerifier
from audit.problems import ProblemCode
from audit.tables import AUDIT_CHECKPOINT, AUDIT_ENTRY

_STREAM: Final = 1024
_MAX_ALTERED: Final = 100_000


class Checkpoints:
    """The signed sizes and roots of one log.

    Attributes:
        newest: the largest stored checkpoint with a good signature; None if there is none.
        size: entries that were signed: what the rows and tiles must hold.
    """

    __slots__ = ("_altered", "_connection", "_extra", "_findings", "_good", "_judged", "_verifier", "newest", "size")

    def __init__(self, connection: Connection, verifier: NoteVerifier, findings: Findings) -> None:
        self._connection = connection
        self._verifier = verifier
        self._findings = findings
        self.newest: Checkpoint | None = None
        self.size = 0
        self._altered: set[int] = set()  # by the column: rows whose columns say nothing
        self._extra: dict[int, bytes] = {}  # signed roots that the columns do not have
        self._good = 0
        self._judged = False

    def collect(self, known: Sequence[bytes]) -> None:
        """Open every stored checkpoint, check whether its columns say what was signed, and open those of the caller."""
        statement = select(AUDIT_CHECKPOINT).order_by(AUDIT_CHECKPOINT.c.tree_size)
        with self._connection.execute(statement.execution_options(yield_per=_STREAM)) as rows:
            for row in rows:
                self._read_stored(row.tree_size, bytes(row.root_hash), row.note.encode("utf-8"))
        if self.newest is not None:
            self.size = self.newest.size
        else:
            self._findings.report(
                ProblemCode.CHECKPOINT_MISSING, None, "checkpoints", expected="a signed one", actual="none"
            )
            sequenced = select(func.count()).select_from(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index.is_not(None))
            self.size = self._connection.execute(sequenced).scalar_one()
        for number, note in enumerate(known, start=1):
            self._read_known(f"known checkpoint {number}", note)

    def _read_stored(self, size: int, root: bytes, note: bytes) -> None:
        what = f"checkpoint of {size} entries"
        checkpoint = self._open(note, what)
        altered = checkpoint is None or (checkpoint.size, checkpoint.root) != (size, root)
        if altered and len(self._altered) < _MAX_ALTERED:
            self._altered.add(size)
        if checkpoint is None:
            return
        if altered:
            signed = f"size {checkpoint.size}, root {checkpoint.root.hex()}"
            stored = f"size {size}, root {root.hex()}"
            self._findings.report(ProblemCode.CHECKPOINT_ALTERED, None, what, expected=signed, actual=stored)
            if len(self._extra) < _MAX_ALTERED:
                self._extra[checkpoint.size] = checkpoint.root
        if self.newest is None or checkpoint.size >= self.newest.size:
            self.newest = checkpoint

    def _read_known(self, what: str, note: bytes) -> None:
        checkpoint = self._open(note, what)
        if checkpoint is None:
            return
        ours = self._extra.get(checkpoint.size)
        if ours is None and checkpoint.size not in self._altered:
            stored = select(AUDIT_CHECKPOINT.c.root_hash).where(AUDIT_CHECKPOINT.c.tree_size == checkpoint.size)
            root = self._connection.execute(stored).scalar_one_or_none()
            ours = None if root is None else bytes(root)
        if ours is None:
            self._extra[checkpoint.size] = checkpoint.root
        elif ours != checkpoint.root:
            self._findings.report(
                ProblemCode.CONSISTENCY_UNPROVEN,
                None,
                f"{what}, of {checkpoint.size} entries",
                expected=f"root {checkpoint.root.hex()}",
                actual=f"root {ours.hex()}",
            )

    def _open(self, note: bytes, what: str) -> Checkpoint | None:
        try:
            return open_checkpoint(note, self._verifier)
        except (MalformedError, NoteSignatureError) as error:
            expected = f"signed by {self._verifier.name}+{self._verifier.key_id.hex()}"
            self._findings.report(ProblemCode.CHECKPOINT_ALTERED, None, what, expected=expected, actual=error)
            return None

    def between(self, start: int, stop: int) -> dict[int, bytes]:
        """The signed roots of trees of more than `start` and up to `stop` entries, by size, in order."""
        size = AUDIT_CHECKPOINT.c.tree_size
        rows = self._connection.execute(
            select(size, AUDIT_CHECKPOINT.c.root_hash).where(size > start, size <= stop)
        ).all()
        found = {row.tree_size: bytes(row.root_hash) for row in rows if row.tree_size not in self._altered}
        found |= {extra: root for extra, root in self._extra.items() if start < extra <= stop}
        return dict(sorted(found.items()))

    def compare(self, size: int, signed: bytes, *, rows: bytes, tiles: bytes) -> None:
        """Compare a root that was signed with both trees; the first that differs bounds what was rewritten.

        Call it with ascending sizes.
        """
        if self._judged:
            return
        if signed in {rows, tiles}:
            self._good = size
            return
        self._judged = True
        good = self._good
        self._findings.report(
            ProblemCode.ROOT_MISMATCH,
            good,
            f"root of {size} entries; the first bad one is between {good} and {size - 1}",
            expected=signed,
            actual=rows,
        )

    def judge_end(self) -> None:
        """Report that the caller knows of more entries than the database, where the rest is what was signed."""
        longer = [size for size in self._extra if size > self.size]
        if longer and not self._judged:
            self._findings.report(
                ProblemCode.LOG_SHORTENED,
                self.size,
                "entries",
                expected=f"{min(longer)}, as was signed",
                actual=f"{self.size} under the newest checkpoint of the database",
            )
