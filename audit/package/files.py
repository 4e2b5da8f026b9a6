"""The files of an evidence package: one deterministic ``.zip``, or a folder.

What is read is untrusted. Names come from a closed list, so that no path can lead elsewhere; every size is bounded
before a byte is unpacked, and nothing may stand in an archive twice, hidden, linked or between its files.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Final, Protocol, Self

from audit.errors import MalformedError, QueryError
from audit.package.manifest import LIMITS, MANIFEST, FileDigest

_MODE: Final = stat.S_IFREG | 0o644
_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""The only time that a file in a package has: the first that the format can say."""

_HEADER: Final = struct.Struct("<4s2xHHHHIIIHH")
"""A local file header: but for the version of the format, which nothing depends on (APPNOTE.TXT, section 4.3.7)."""

_LOCAL_HEADER: Final = _HEADER.size
_CENTRAL_HEADER: Final = 46
_END: Final = 22
_UNIX: Final = 3
_PIECE: Final = 1 << 16
_MAX_ARCHIVE: Final = 1 << 32


class PackageFiles(Protocol):
    """Where a package's files are read from."""

    def names(self) -> frozenset[str]:
        """Which files there are, all of them of `LIMITS`."""
        ...

    def pieces(self, name: str) -> Iterator[bytes]:
        """A file, piece by piece.

        Raises:
            MalformedError: it cannot be read, or is longer than a file of this name may be.
        """
        ...


class PackageWriter:
    """Writes a package's files into an archive, with nothing in it that differs from one time to the next.

    Use it as a context manager: the archive is whole only where the block ended without an error.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)
        self._digests: dict[str, FileDigest] = {}

    @property
    def digests(self) -> tuple[FileDigest, ...]:
        """Of what was written so far, in the order of names."""
        return tuple(self._digests[name] for name in sorted(self._digests))

    def write(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write a file.

        Raises:
            QueryError: it is longer than a file of this name may be.
        """
        info = zipfile.ZipInfo(name, _TIME)
        info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, _UNIX, _MODE << 16
        digest, size = hashlib.sha256(), 0
        with self._archive.open(info, "w") as file:
            for piece in _joined(pieces):
                size += len(piece)
                if size > LIMITS[name]:
                    raise QueryError(
                        f"package: {name} would be longer than {LIMITS[name]} bytes; ask for a shorter span"
                    )
                digest.update(piece)
                file.write(piece)
        self._digests[name] = FileDigest(name, size, digest.hexdigest())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces."""
    waiting, size = [], 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        for entry in path.iterdir():
            if entry.name not in LIMITS:
                raise MalformedError(
                    "package", f"{entry.name!a:.80} is no file of a package, and nothing vouches for it"
                )
            if not stat.S_ISREG(entry.lstat().st_mode):
                raise MalformedError("package", f"{entry.name} is a link or no file")

    def names(self) -> frozenset[str]:
        return frozenset(path.name for path in self._path.iterdir()) & LIMITS.keys()

    def pieces(self, name: str) -> Iterator[bytes]:
        try:
            descriptor = os.open(self._path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                yield from _bounded(file, name)
        except OSError as error:
            raise MalformedError("package", f"{name}: {error.strerror}") from None


class _Archive:
    def __init__(self, archive: zipfile.ZipFile, file: BinaryIO, size: int) -> None:
        self._archive = archive
        infos = archive.infolist()
        names = [info.filename for info in infos]
        for name in names:
            if name not in LIMITS:
                raise MalformedError("package", f"{name!a:.80} is no file of a package, and nothing vouches for it")
        if len(set(names)) != len(names):
            raise MalformedError("package", "a file stands in the archive twice")
        # Files lie one behind the other, then their list, then the end: nothing overlaps, and nothing is hidden.
        at = 0
        for info in infos:
            _check(info, at)
            _check_header(info, file)
            at += _LOCAL_HEADER + len(info.filename) + info.compress_size
        if at != archive.start_dir or at + sum(_CENTRAL_HEADER + len(name) for name in names) + _END != size:
            raise MalformedError("package", "bytes stand in the archive that belong to none of its files")
        self._names = frozenset(names)

    def names(self) -> frozenset[str]:
        return self._names

    def pieces(self, name: str) -> Iterator[bytes]:
        try:
            with self._archive.open(name) as file:
                yield from _bounded(file, name)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            ValueError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise MalformedError("package", f"{name}: cannot be unpacked ({error!s:.200})") from None


def _check(info: zipfile.ZipInfo, at: int) -> None:
    # Bit 3 (a length behind the data) is not set where the writer could go back, as ours can.
    if (
        info.flag_bits
        or info.extra
        or info.comment
        or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ):
        raise MalformedError("package", f"{info.filename}: encrypted, or packed in a way that a package is not")
    if info.create_system != _UNIX or info.external_attr != _MODE << 16 or info.date_time != _TIME:
        raise MalformedError(
            "package", f"{info.filename}: not an ordinary file, or dated; unpack it and give the folder"
        )
    if info.header_offset != at:
        raise MalformedError("package", f"{info.filename}: does not begin where the file before it ends")
    if info.file_size > LIMITS[info.filename]:
        raise MalformedError("package", f"{info.filename}: {info.file_size} bytes are more than it may have")


def _check_header(info: zipfile.ZipInfo, file: BinaryIO) -> None:
    """The header in front of a file says what the archive's list says: some tools go by the one, some by the other."""
    year, month, day, hour, minute, second = info.date_time
    name = info.filename.encode("ascii")
    expected = (
        b"PK\x03\x04",
        info.flag_bits,
        info.compress_type,
        hour << 11 | minute << 5 | second // 2,
        (year - 1980) << 9 | month << 5 | day,
        info.CRC,
        info.compress_size,
        info.file_size,
        len(name),
        0,
    )
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER + len(name))
    found = _HEADER.unpack_from(header) if len(header) >= _LOCAL_HEADER else ()
    if found != expected or header[_LOCAL_HEADER:] != name:
        raise MalformedError("package", f"{info.filename}: the archive says two different things about it")


def _bounded(file: IO[bytes], name: str) -> Iterator[bytes]:
    size = 0
    while piece := file.read(_PIECE):
        size += len(piece)
        if size > LIMITS[name]:
            raise MalformedError("package", f"{name}: longer than {LIMITS[name]} bytes")
        yield piece


def read_whole(files: PackageFiles, name: str) -> bytes:
    """A file as a whole; for all but the records.

    Raises:
        MalformedError: it cannot be read, or is too long.
    """
    return b"".join(files.pieces(name))


@contextmanager
def open_package(path: Path) -> Iterator[PackageFiles]:
    """Open a package: a folder, or an archive.

    Raises:
        MalformedError: it is neither, or holds what no package does.
    """
    if path.is_dir():
        files: PackageFiles = _Folder(path)
        yield _with_manifest(files)
        return
    try:
        with path.open("rb") as file, open_archive(file) as files:
            yield files
    except OSError as error:
        raise MalformedError("package", f"{path}: {error.strerror}") from None


@contextmanager
def open_archive(file: BinaryIO) -> Iterator[PackageFiles]:
    """Open a package in an archive.

    Raises:
        MalformedError: it is not the archive of a package.
    """
    size = file.seek(0, os.SEEK_END)
    if size > _MAX_ARCHIVE:
        raise MalformedError("package", f"{size} bytes are more than an archive of one may have")
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise MalformedError("package", f"not a zip archive ({error!s:.200})") from None
    with archive:
        yield _with_manifest(_Archive(archive, file, size))


def _with_manifest(files: PackageFiles) -> PackageFiles:
    if MANIFEST not in files.names():
        raise MalformedError("package", f"no file {MANIFEST}: this is no evidence package")
    return files


def unpack(source: BinaryIO, folder: Path) -> None:
    """Unpack an archive into a folder that is there whole or not at all; none of this name may exist.

    Raises:
        MalformedError: it is not the archive of a package.
        OSError: the folder exists, or cannot be written.
    """
    draft = folder.with_name(f".{folder.name}.{os.urandom(8).hex()}.partial")
    draft.mkdir()
    try:
        with open_archive(source) as files:
            for name in sorted(files.names()):
                with (draft / name).open("xb") as file:
                    file.writelines(files.pieces(name))
                    file.flush()
                    os.fsync(file.fileno())
        folder.mkdir()  # so that a folder that somebody else makes meanwhile is not replaced
        draft.rename(folder)
    except BaseException:
        for left in draft.iterdir():
            left.unlink()
        draft.rmdir()
        raise
