"""Secrets in files: readable by this user alone, never through a link, never half written."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from keybroker.errors import KeyManagementError

_FORBIDDEN: Final = 0o077


def read_secret(path: Path, *, limit: int, error: type[KeyManagementError]) -> bytes:
    """The content of a secret file.

    Args:
        path: where it is.
        limit: it may be so many bytes long.
        error: what to raise.

    Raises:
        KeyManagementError: as `error`: there is none, it is a link or no regular file, it belongs to another user,
            others may access it, or it is longer than `limit`.
    """
    try:
        # Checks and reads are of one open file, so that nobody can swap it in between.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise error(f"{path}: there is no such file; `keystead init` creates it") from None
    except OSError as problem:
        raise error(f"{path}: cannot be opened ({problem.strerror}); a link is refused too: name the file") from None
    try:
        status = os.fstat(descriptor)
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode):
            raise error(f"{path}: not a regular file")
        if status.st_uid not in (os.geteuid(), 0):
            raise error(f"{path}: belongs to user {status.st_uid}, this process is {os.geteuid()}: chown it")
        if mode & _FORBIDDEN:
            raise error(f"{path}: mode {mode:04o} lets others in; run: chmod 600 {path}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise error(f"{path}: longer than {limit} bytes, so it is not what it should be")
    return data


def write_secret(path: Path, data: bytes, *, error: type[KeyManagementError]) -> None:
    """Create a secret file (mode 0600) with all of `data`, on stable storage; one that exists stays as it is.

    Raises:
        KeyManagementError: as `error`: it exists already, or the folder cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # A link, unlike a rename, never replaces a key that is there.
            os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise error(f"{path}: exists already and is not replaced; name another file") from None
    except OSError as problem:
        raise error(f"{path}: cannot be written ({problem.strerror})") from None
