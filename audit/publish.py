"""Publishing: the checkpoint, tiles and entry bundles of C2SP tlog-tiles, copied out of the database.

What is published needs neither the database nor Keystead to be read: any file server or CDN serves it, and tools for
C2SP logs verify it. Entry bundles hold leaves, which commit to the records without showing them.

Order is what makes it safe. All tiles that a checkpoint needs are on stable storage before the checkpoint itself is put
in place, and each object appears whole or not at all; so a publisher that is killed at any instant leaves the older
checkpoint with all its tiles, and the next one takes up where it stopped. A full tile that is there is never changed:
where it differs, or where the published checkpoint is not a prefix of the log, nothing more is published.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import Connection, select

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import WitnessPolicy
from audit.errors import LogCorruptError, MalformedError, NoteSignatureError, PublishedError
from audit.merkle import HASH_SIZE, leaf_hash, range_hash
from audit.note import NoteVerifier
from audit.query import newest_checkpoint
from audit.tables import AUDIT_CHECKPOINT
from audit.tiles import (
    MAX_LEVEL,
    TILE_HEIGHT,
    TILE_WIDTH,
    TilePath,
    TileReader,
    decode_bundle,
    read_tile,
)

CHECKPOINT_PATH: Final = "checkpoint"
"""Where the newest checkpoint is published (C2SP tlog-tiles, Checkpoints)."""

LOCK_SECONDS: Final = 10.0
"""How long a publisher waits for another one to finish."""

_STAGING: Final = ".staging"
_LOCK: Final = "lock"
_RETRY_SECONDS: Final = 0.05

Reader = Callable[[], AbstractContextManager[Connection]]
"""Opens a connection that can only read the log's database."""


class TileSource(Protocol):
    """Where published objects are read from."""

    def get(self, path: str) -> bytes | None:
        """The object at `path`, relative to the log's prefix; None where there is none."""
        ...


class ObjectStore(TileSource, Protocol):
    """Where objects are published: a folder, or a bucket of an object store."""

    def put(self, path: str, data: bytes) -> None:
        """Put an object in place, whole or not at all; it may replace another. The same one again changes nothing."""
        ...

    def flush(self) -> None:
        """Return once everything that was put is on stable storage."""
        ...

    def remove_partials(self, path: TilePath) -> None:
        """Remove every partial form of the full tile or bundle `path`; none need be there."""
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Within the block no other publisher writes to this store."""
        ...


class FileStore:
    """A folder that a web server can serve as it is; an `ObjectStore`."""

    __slots__ = ("_changed", "_directory")

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._changed: set[Path] = set()

    def _file(self, path: str) -> Path:
        if path != CHECKPOINT_PATH:
            TilePath.parse(path)  # nothing else is ever read or written, whatever a caller was handed
        return self._directory / path

    def get(self, path: str) -> bytes | None:
        """The object at `path`; None where there is none.

        Raises:
            MalformedError: `path` names no object of a log.
            PublishedError: it cannot be read.
        """
        try:
            return self._file(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unusable(self._directory, error) from None

    def put(self, path: str, data: bytes) -> None:
        """Put an object in place by renaming a synchronised file over it.

        Raises:
            MalformedError: `path` names no object of a log.
            PublishedError: it cannot be written, for example because the disk is full; what was there still is.
        """
        target = self._file(path)
        if self.get(path) == data:
            self._changed.add(target.parent)  # put by one that was killed, perhaps before it synchronised the folder
            return
        staging = self._directory / _STAGING
        draft: Path | None = None
        try:
            self._make_folder(staging)
            self._make_folder(target.parent)
            handle, name = tempfile.mkstemp(dir=staging)
            draft = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            draft.replace(target)
        except OSError as error:
            if draft is not None:
                with suppress(OSError):
                    draft.unlink()
            raise _unusable(self._directory, error) from None
        self._changed.add(target.parent)

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        if folder != self._directory:
            self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True, parents=folder == self._directory)
        self._changed.add(folder.parent)

    def flush(self) -> None:
        """Synchronise the folders in which something was put.

        Raises:
            PublishedError: it cannot be done.
        """
        try:
            for folder in self._changed:
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
        except OSError as error:
            raise _unusable(self._directory, error) from None
        self._changed.clear()

    def remove_partials(self, path: TilePath) -> None:
        """Remove the folder ``PATH.p``.

        Raises:
            PublishedError: it is there and cannot be removed.
        """
        folder = self._directory / f"{path}.p"
        try:
            if folder.is_dir():
                for file in folder.iterdir():
                    file.unlink(missing_ok=True)
                folder.rmdir()
        except FileNotFoundError:
            return  # another one removed it
        except OSError as error:
            raise _unusable(self._directory, error) from None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold a lock that ends with the process, however that ends; drafts of one that was killed are removed.

        Raises:
            PublishedError: another publisher has held it for `LOCK_SECONDS`, or the folder cannot be written to.
        """
        staging = self._directory / _STAGING
        try:
            self._make_folder(staging)
            handle = os.open(staging / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _unusable(self._directory, error) from None
        try:
            self._wait_for(handle)
            for draft in staging.iterdir():
                if draft.name != _LOCK:
                    draft.unlink(missing_ok=True)
            yield
        finally:
            os.close(handle)

    def _wait_for(self, handle: int) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise PublishedError(f"{self._directory}: another publisher is writing to it") from None
                time.sleep(_RETRY_SECONDS)
            except OSError as error:
                raise _unusable(self._directory, error) from None
            else:
                return


def _unusable(directory: Path, error: OSError) -> PublishedError:
    return PublishedError(f"{directory}: {error.strerror or error}; the checkpoint that was published stays in force")


@dataclass(frozen=True, slots=True)
class Published:
    """What a publication achieved.

    Attributes:
        checkpoint: what is published now.
        before: how many entries were published before; None where nothing was.
        written: how many tiles and bundles were put in place.
    """

    checkpoint: Checkpoint
    before: int | None
    written: int


def publish(
    read: Reader, store: ObjectStore, verifier: NoteVerifier, *, witnesses: WitnessPolicy | None = None
) -> Published:
    """Publish the newest checkpoint with all that it needs; does nothing where it is published.

    Any number of publishers may run: one at a time works, and the published log never gets shorter.

    Args:
        read: opens the log's database; it is called when no other publisher writes.
        store: where to.
        verifier: the log's key.
        witnesses: only a checkpoint that a quorum of these cosigned is published.

    Raises:
        PublishedError: what is published is not a prefix of this log, or the store cannot be used.
        LogCorruptError: stored data contradict one another; nothing was published.
        UnwitnessedError: no checkpoint was cosigned by a quorum yet.
        NotInitialisedError: the log has not begun.
    """
    with store.exclusive(), read() as connection:
        note = newest_checkpoint(connection, witnesses)
        try:
            new = open_checkpoint(note, verifier)
        except (MalformedError, NoteSignatureError) as error:
            raise LogCorruptError(f"log: the newest checkpoint is not one that its key signed ({error})") from None
        node = TileReader(connection)
        if range_hash(0, new.size, node) != new.root:
            raise LogCorruptError(
                f"log: the stored tiles do not lead to the root of {new.size} entries that was signed"
            )
        there = store.get(CHECKPOINT_PATH)
        old = None if there is None else _published(there, verifier)
        if old is not None:
            _check_prefix(old, new, node)
        written = 0
        for path in _needed(connection, 0 if old is None else old.size, new.size):
            written += _put(connection, store, path)
        if note != there:
            store.flush()
            store.put(CHECKPOINT_PATH, note)
            store.flush()
        for path in _completed(0 if old is None else old.size, new.size):
            store.remove_partials(path)
        return Published(new, None if old is None else old.size, written)


def _published(note: bytes, verifier: NoteVerifier) -> Checkpoint:
    try:
        return open_checkpoint(note, verifier)
    except (MalformedError, NoteSignatureError) as error:
        raise PublishedError(
            f"published checkpoint: not one that this log's key signed ({error}); publish to another place, or find "
            "out who wrote there"
        ) from None


def _check_prefix(old: Checkpoint, new: Checkpoint, node: TileReader) -> None:
    if old.size > new.size:
        raise PublishedError(
            f"published checkpoint: has {old.size} entries, the database {new.size}: an older copy of the database was "
            "put back; restore the newer one"
        )
    if range_hash(0, old.size, node) != old.root:
        raise PublishedError(
            f"published checkpoint: the first {old.size} entries of the database are not those that were published "
            "under its root: history was rewritten; verify the database and compare it with the published tiles"
        )


def _levels(size: int) -> Iterator[tuple[int | None, int]]:
    """The bundles' level and every tile level of a tree of `size` leaves, with its number of hashes or entries."""
    yield None, size
    for level in range(MAX_LEVEL + 1):
        count = size >> (TILE_HEIGHT * level)
        if count == 0:
            return
        yield level, count


def _count(level: int | None, size: int) -> int:
    return size >> (TILE_HEIGHT * (level or 0))


def _needed(connection: Connection, old: int, new: int) -> Iterator[TilePath]:
    """What the tree of `new` leaves has and that of `old` leaves has not.

    With it come the partial tiles of the checkpoints signed in between, as far as no full tile takes their place.
    """
    between = connection.scalars(
        select(AUDIT_CHECKPOINT.c.tree_size).where(
            AUDIT_CHECKPOINT.c.tree_size > old, AUDIT_CHECKPOINT.c.tree_size < new
        )
    ).all()
    for level, count in _levels(new):
        before = _count(level, old)
        full, rest = divmod(count, TILE_WIDTH)
        for index in range(before // TILE_WIDTH, full):
            yield TilePath(level, index)
        if not rest:
            continue
        widths = {_count(level, size) - full * TILE_WIDTH for size in between} | {rest}
        had = before - full * TILE_WIDTH
        for width in sorted(width for width in widths if width > max(had, 0)):
            yield TilePath(level, full, width)


def _completed(old: int, new: int) -> Iterable[TilePath]:
    """Full tiles and bundles of `new` of which partial ones were published for `old`."""
    for level, count in _levels(new):
        index, rest = divmod(_count(level, old), TILE_WIDTH)
        if rest and index < count // TILE_WIDTH:
            yield TilePath(level, index)


def _put(connection: Connection, store: ObjectStore, path: TilePath) -> bool:
    data = read_tile(connection, path)
    if path.level is None:
        tile = read_tile(connection, TilePath(0, path.index, path.width))
        for at, entry in enumerate(decode_bundle(data)):
            if leaf_hash(entry) != tile[at * HASH_SIZE : (at + 1) * HASH_SIZE]:
                index = path.index * TILE_WIDTH + at
                raise LogCorruptError(f"log: entry {index} is not under its tile; `keystead audit verify` says more")
    there = store.get(str(path))
    if there is not None and there != data:
        raise PublishedError(f"{path}: another one is published; it is not overwritten. Find out who wrote there")
    store.put(str(path), data)
    return there is None
