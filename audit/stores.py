"""Where a published log lies: what a store of objects must do, and a folder that does it.

A store keeps two kinds of objects. Tiles and entry bundles never change once they are there. The checkpoint takes the
place of the one before, and only of that: whoever was overtaken meanwhile is told so and changes nothing.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from audit.errors import PublishedError
from audit.tiles import MAX_BUNDLE_ENTRY, TILE_WIDTH, TilePath

CHECKPOINT_PATH: Final = "checkpoint"
"""Where the newest checkpoint is published (C2SP tlog-tiles, Checkpoints)."""

MAX_OBJECT: Final = TILE_WIDTH * (2 + MAX_BUNDLE_ENTRY)
"""Bytes of the largest object of a log: a full bundle of the largest entries."""

CHECKPOINT_TYPE: Final = "text/plain; charset=utf-8"
"""Content type of the checkpoint (C2SP tlog-tiles, Checkpoints)."""

TILE_TYPE: Final = "application/octet-stream"
"""Content type of tiles and entry bundles (C2SP tlog-tiles, Merkle Tree)."""

IMMUTABLE: Final = "public, max-age=31536000, immutable"
"""Caching of tiles and bundles, which never change (C2SP tlog-tiles, Merkle Tree)."""

BRIEFLY: Final = "public, max-age=1"
"""Caching of the checkpoint: not beyond a few seconds (C2SP tlog-tiles, Checkpoints)."""

LOCK_SECONDS: Final = 10.0
"""How long a publisher waits for another one to finish."""

_STAGING: Final = ".staging"
_LOCK: Final = "lock"
_RETRY_SECONDS: Final = 0.05


class TileSource(Protocol):
    """Where published objects are read from."""

    def get(self, path: str) -> bytes | None:
        """The object at `path`, relative to the log's prefix; None where there is none."""
        ...


class ObjectStore(TileSource, Protocol):
    """Where a log is published: a folder, or a bucket of an object store.

    Each method raises `PublishedError` where the store cannot be used; what was published stays in force.
    """

    def exclusive(self) -> AbstractContextManager[None]:
        """Around all that one publisher writes. Whether others are kept out meanwhile is the store's affair."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Have a tile or bundle in place by the next `flush`, whole or not at all; the same one may be there already.

        Where another one is there it stays, and this or the next `flush` raises `PublishedError`.
        """
        ...

    def flush(self) -> int:
        """Return once everything that was put is on stable storage: how many of them were not there before."""
        ...

    def put_checkpoint(self, note: bytes, *, before: bytes | None) -> bool:
        """Put a checkpoint in the place of `before` (None: of none), on stable storage.

        False where another one is there by now, which stays.
        """
        ...

    def remove_partials(self, path: TilePath) -> None:
        """Remove every partial form of the full tile or bundle `path`; none need be there, and some may stay."""
        ...


class FileStore:
    """A folder that a web server can serve as it is; an `ObjectStore`."""

    __slots__ = ("_changed", "_directory", "_new")

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._changed: set[Path] = set()
        self._new = 0

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
        """Put a tile or bundle in place by renaming a synchronised file.

        Raises:
            MalformedError: `path` names neither.
            PublishedError: another one is there, or it cannot be written, for example because the disk is full.
        """
        TilePath.parse(path)
        there = self.get(path)
        if there is None:
            self._write(path, data)
            self._new += 1
        elif there == data:
            # Put by one that was killed, perhaps before it synchronised the folder.
            self._changed.add(self._file(path).parent)
        else:
            raise differs(path)

    def put_checkpoint(self, note: bytes, *, before: bytes | None) -> bool:
        """Rename a synchronised checkpoint over `before`; False where another one is there by now.

        Raises:
            PublishedError: it cannot be written.
        """
        if self.get(CHECKPOINT_PATH) != before:
            return False
        self._write(CHECKPOINT_PATH, note)
        self._synchronise()
        return True

    def _write(self, path: str, data: bytes) -> None:
        target = self._file(path)
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

    def flush(self) -> int:
        """Synchronise the folders in which something was put.

        Raises:
            PublishedError: it cannot be done.
        """
        self._synchronise()
        new, self._new = self._new, 0
        return new

    def _synchronise(self) -> None:
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
        self._new = 0
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


def differs(path: str) -> PublishedError:
    """The error of a store in which another tile or bundle is published at `path`."""
    return PublishedError(f"{path}: another one is published; it is not overwritten. Find out who wrote there")


def _unusable(directory: Path, error: OSError) -> PublishedError:
    return PublishedError(f"{directory}: {error.strerror or error}; the checkpoint that was published stays in force")
