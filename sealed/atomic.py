"""Files that are there whole or not at all: a new name in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path, *, mode: int) -> Iterator[BinaryIO]:
    """Give a file to write that takes the name `path` only when the block ends without an error.

    A crash may leave ``.….partial`` behind, never half a file under `path`.

    Args:
        path: the name; what stands there is replaced.
        mode: permission bits of the new file, narrowed by the umask.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    partial = path.parent / f".{secrets.token_hex(8)}.partial"
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
