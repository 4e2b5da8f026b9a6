"""A witness, and what a log says to one: C2SP tlog-witness ``add-checkpoint``, without the HTTP around it.

A witness remembers, for each log, the newest checkpoint that it cosigned, and cosigns another one only if it continues
that one. So whoever steals a log's key can sign a rewritten history, but cannot have it witnessed; and a split view
needs a quorum of witnesses to take part in it.

Checking and remembering are one transaction of SQLite, committed to stable storage before the answer leaves.
"""

from __future__ import annotations

import base64
import binascii
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from sqlalchemy import Connection

from audit.checkpoint import Checkpoint
from audit.cosignature import Cosigner, WitnessKey
from audit.errors import MalformedError, NoteSignatureError, ProofError, WitnessStateError
from audit.merkle import EMPTY_ROOT, HASH_SIZE, MAX_TREE_SIZE, consistency_proof, verify_consistency
from audit.note import MAX_NOTE_SIZE, NoteSignature, NoteVerifier, SignedNote, parse_signature_line
from audit.tiles import TileReader

MAX_PROOF_LINES: Final = 63
"""Hashes in one request (C2SP tlog-witness, add-checkpoint)."""

MAX_REQUEST: Final = MAX_NOTE_SIZE + 64 * 64
"""Bytes of a request: a checkpoint, 63 hashes and the old size."""

MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer that a log reads."""

SIZE_TYPE: Final = "text/x.tlog.size"
"""Content type of the answer 409 (C2SP tlog-witness, add-checkpoint)."""

_TEXT_TYPE: Final = "text/plain; charset=utf-8"
_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})\Z")
_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,18})\n\Z")
_BUSY_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """The body of an ``add-checkpoint`` request.

    Attributes:
        old_size: of the checkpoint that the witness cosigned last.
        proof: that the new checkpoint continues it (RFC 6962 section 2.1.2).
        note: the new checkpoint with its signatures.
    """

    old_size: int
    proof: tuple[bytes, ...]
    note: SignedNote

    def to_bytes(self) -> bytes:
        """The body as it is sent."""
        lines = [f"old {self.old_size}", *(base64.b64encode(item).decode("ascii") for item in self.proof)]
        return ("\n".join(lines) + "\n\n").encode("ascii") + self.note.to_bytes()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a body.

        Raises:
            MalformedError: it is none (C2SP tlog-witness, add-checkpoint).
        """
        if len(data) > MAX_REQUEST:
            raise MalformedError("add-checkpoint", f"{len(data)} bytes, at most {MAX_REQUEST} are allowed")
        head, separator, note = data.partition(b"\n\n")
        if not separator:
            raise MalformedError("add-checkpoint", "no empty line before the checkpoint")
        try:
            first, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise MalformedError("add-checkpoint", "the lines before the checkpoint are not ASCII") from None
        match = _OLD.match(first)
        if not match or int(match[1]) > MAX_TREE_SIZE:
            raise MalformedError("add-checkpoint", "the first line is not `old` and a tree size")
        if len(lines) > MAX_PROOF_LINES:
            raise MalformedError("add-checkpoint", f"{len(lines)} proof lines, at most {MAX_PROOF_LINES} are allowed")
        return cls(int(match[1]), tuple(_hash(line) for line in lines), SignedNote.parse(note))


def _hash(line: str) -> bytes:
    try:
        data = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedError("add-checkpoint", "a proof line is not base64") from None
    if len(data) != HASH_SIZE or base64.b64encode(data).decode("ascii") != line:
        raise MalformedError("add-checkpoint", f"a proof line is not canonical base64 of {HASH_SIZE} bytes")
    return data


@dataclass(frozen=True, slots=True)
class Answer:
    """What a witness answers.

    Attributes:
        status: the HTTP status code.
        body: cosignatures (200), the size that was cosigned last (409), else one line that says why.
        content_type: of the body.
    """

    status: int
    body: bytes
    content_type: str = _TEXT_TYPE


@dataclass(frozen=True, slots=True)
class Seen:
    """What a witness cosigned last for a log.

    Attributes:
        size, root: of the tree.
        time: that the cosignature stated, integer seconds since the Unix epoch.
    """

    size: int
    root: bytes
    time: int


class WitnessState:
    """What a witness remembers, in a SQLite file; any number of processes may use it at once."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        """Open the state at `path`, which `create` made.

        Raises:
            WitnessStateError: there is none. A witness that lost its state must not begin again under its old key: it
                would cosign a history that contradicts what it cosigned before.
        """
        if not path.is_file():
            raise WitnessStateError(
                f"{path}: no state of a witness. Restore it; if it is lost, make a new witness with a new key"
            )
        self._path = path

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make an empty state.

        Raises:
            WitnessStateError: something is there already, or it cannot be written.
        """
        try:
            path.touch(mode=0o600, exist_ok=False)
            state = cls(path)
            with state.transaction() as connection:
                connection.execute(
                    "CREATE TABLE seen (origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, "
                    "time INTEGER NOT NULL, note BLOB NOT NULL) STRICT"
                )
        except OSError as error:
            raise WitnessStateError(f"{path}: {error.strerror}") from None
        return state

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection that alone may write; what it did is on stable storage when the block ends.

        Raises:
            WitnessStateError: the file cannot be read or written, is damaged, or is locked for too long.
        """
        try:
            connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                connection.execute("PRAGMA synchronous=EXTRA")  # the rollback journal's folder is synchronised, too
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            finally:
                connection.close()  # rolls back what was not committed
        except sqlite3.Error as error:
            raise WitnessStateError(f"{self._path}: {error}; nothing was cosigned") from None

    def seen(self, connection: sqlite3.Connection, origin: str) -> Seen | None:
        """What was cosigned last for the log `origin`."""
        row = connection.execute("SELECT size, root, time FROM seen WHERE origin = ?", (origin,)).fetchone()
        return None if row is None else Seen(*row)

    def remember(self, connection: sqlite3.Connection, checkpoint: Checkpoint, note: bytes, *, time: int) -> None:
        """Remember that `checkpoint` is cosigned; `note` is kept as evidence of what the log signed."""
        connection.execute(
            "INSERT INTO seen VALUES (?, ?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE SET size = excluded.size, "
            "root = excluded.root, time = excluded.time, note = excluded.note",
            (checkpoint.origin, checkpoint.size, checkpoint.root, time, note),
        )


class Witness:
    """Cosigns checkpoints of the logs that it knows."""

    __slots__ = ("_cosigner", "_logs", "_state")

    def __init__(self, cosigner: Cosigner, logs: Sequence[NoteVerifier], state: WitnessState) -> None:
        """A witness.

        Args:
            cosigner: its key.
            logs: the keys of the logs that it watches; a log's origin is its key's name. A log may have several.
            state: what it remembers.
        """
        self._cosigner = cosigner
        self._state = state
        self._logs: dict[str, list[NoteVerifier]] = {}
        for log in logs:
            self._logs.setdefault(log.name, []).append(log)

    def add_checkpoint(self, body: bytes, now: int) -> Answer:
        """Answer one request.

        Args:
            body: of the request.
            now: integer seconds since the Unix epoch.

        Raises:
            WitnessStateError: the state cannot be used, or `now` is before the time of the last cosignature for this
                log, so that no true statement can be made; nothing was cosigned.
        """
        try:
            request = AddCheckpoint.parse(body)
            checkpoint = Checkpoint.parse_text(request.note.text)
        except MalformedError as error:
            return _refuse(400, str(error))
        keys = self._logs.get(checkpoint.origin)
        if keys is None:
            return _refuse(404, "this witness does not know the log")
        if not any(_signed_by(request.note, key) for key in keys):
            return _refuse(403, "not signed by a key of this log that the witness knows")
        if request.old_size > checkpoint.size:
            return _refuse(400, f"the old size {request.old_size} is larger than the checkpoint's, {checkpoint.size}")
        with self._state.transaction() as connection:
            seen = self._state.seen(connection, checkpoint.origin)
            size = 0 if seen is None else seen.size
            forked = seen is not None and checkpoint.size == size and checkpoint.root != seen.root
            if request.old_size != size or forked:
                return Answer(409, f"{size}\n".encode("ascii"), SIZE_TYPE)
            if not _continues(request, checkpoint, seen):
                return _refuse(422, f"the proof does not show that the checkpoint continues {size} entries")
            if seen is not None and now < seen.time:
                raise WitnessStateError(
                    f"clock: it is {now}, but a cosignature for {checkpoint.origin} states {seen.time}; set the clock"
                )
            line = self._cosigner.cosign(request.note.text, now)
            self._state.remember(connection, checkpoint, request.note.to_bytes(), time=now)
        return Answer(200, str(line).encode("utf-8"))


def _refuse(status: int, why: str) -> Answer:
    return Answer(status, f"{why}\n".encode())


def _signed_by(note: SignedNote, key: NoteVerifier) -> bool:
    try:
        note.verify(key)
    except NoteSignatureError:
        return False
    return True


def _continues(request: AddCheckpoint, checkpoint: Checkpoint, seen: Seen | None) -> bool:
    if request.old_size == 0:  # every tree continues the empty one; of that there is one root
        empty = Checkpoint(checkpoint.origin, 0, EMPTY_ROOT)
        return not request.proof and (checkpoint.size != 0 or checkpoint == empty)
    if seen is None:
        return False
    try:
        verify_consistency(
            old_size=seen.size,
            new_size=checkpoint.size,
            old_root=seen.root,
            new_root=checkpoint.root,
            proof=request.proof,
        )
    except ProofError:
        return False
    return True


# The log's side.


def build_request(connection: Connection, note: bytes, old_size: int) -> AddCheckpoint:
    """What to send to a witness that cosigned `old_size` entries last.

    Args:
        connection: can read the log's database.
        note: the checkpoint to be cosigned.
        old_size: what the witness saw last, 0 where it is not known.

    Raises:
        MalformedError: `note` is no checkpoint.
        ProofError: the witness has seen more entries than the checkpoint has.
        LogCorruptError: tiles that the proof needs are damaged.
    """
    signed = SignedNote.parse(note)
    size = Checkpoint.parse_text(signed.text).size
    return AddCheckpoint(old_size, consistency_proof(old_size, size, TileReader(connection)), signed)


def parse_size(body: bytes) -> int:
    """The size in a witness's answer 409.

    Raises:
        MalformedError: it is none.
    """
    match = _SIZE.match(body)
    if not match or int(match[1]) > MAX_TREE_SIZE:
        raise MalformedError("tlog.size", "not a tree size and a newline")
    return int(match[1])


def parse_cosignature(body: bytes, text: str, key: WitnessKey) -> tuple[NoteSignature, int]:
    """The cosignature by `key` in a witness's answer 200, with the time that it states; lines by others are ignored.

    Raises:
        MalformedError: the answer is not signature lines, or none of them is a good one by `key`.
    """
    try:
        lines = body[:MAX_ANSWER].decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("cosignatures", "not UTF-8") from None
    if not lines.endswith("\n"):
        raise MalformedError("cosignatures", "not whole lines")
    for line in lines[:-1].split("\n"):
        signature = parse_signature_line(line)
        time = key.verify(text, signature)
        if time is not None:
            return signature, time
    raise MalformedError("cosignatures", f"no good one by {key.name}+{key.key_id.hex()}")
