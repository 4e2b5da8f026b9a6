"""Open a sealed file: at random, in order, into buffers that are used again, with several threads.

`SealedReader` authenticates the last segment, found by the file's length, before it gives anything: a file that was
cut or extended does not open. No byte is given before the tag of its own segment verified; where plaintext is
decrypted straight into the caller's buffer, a failure wipes that buffer before it is reported.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.utils import Buffer

from sealed.atomic import atomic_file
from sealed.errors import ClosedError, NotAuthenticError, PlaintextOnDiskError
from sealed.format import HEADER_SIZE, SEGMENT_SIZE, TAG_SIZE, Header, Layout
from sealed.seal import Progress

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PLAINTEXT_MODE: Final = 0o600
_SEGMENTS_PER_THREAD: Final = 4
_CLOSED: Final = "the sealed file was closed, or the lease that its key came with has ended"
_CHANGED: Final = (
    "not authentic: altered, cut, extended, or sealed with another key or for another asset, version or name"
)


class _Source(Protocol):
    """Where ciphertext comes from, under the name that errors give it; several threads may read at once."""

    name: str
    size: int

    def read_into(self, view: memoryview, offset: int) -> int: ...

    def close(self) -> None: ...


class _Descriptor:
    """A file that was opened by its path; positional reads need no lock."""

    __slots__ = ("_fd", "name", "size")

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise NotAuthenticError(f"{path}: not a regular file")
        self.size = status.st_size

    def read_into(self, view: memoryview, offset: int) -> int:
        return os.preadv(self._fd, [view], offset)

    def close(self) -> None:
        os.close(self._fd)


class _Seekable:
    """A file object that belongs to the caller: it has one position, so reads take turns."""

    __slots__ = ("_file", "_lock", "name", "size")

    def __init__(self, file: BinaryIO) -> None:
        self.name = "sealed file"
        self._file = file
        self._lock = threading.Lock()
        self.size = file.seek(0, io.SEEK_END)

    def read_into(self, view: memoryview, offset: int) -> int:
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(len(view)) or b""
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Nothing: the file is the caller's."""


class _Stretch:
    """The part of one segment that a read needs, and where it goes."""

    __slots__ = ("index", "skip", "view")

    def __init__(self, index: int, skip: int, view: memoryview) -> None:
        self.index = index
        self.skip = skip
        self.view = view


class SealedReader:
    """Reads one sealed file; safe to be used by several threads at once.

    Args:
        source: a path, or a seekable binary file object, which stays the caller's to close.
        key: the data key, 32 bytes; only the derived key is kept.
        context: the associated data it was sealed with.
        meter: called with the number of plaintext bytes that each read gave out, by whichever thread read them.

    Raises:
        KeyMaterialError: the key is not 32 bytes.
        NotAuthenticError: not a sealed file, or its last segment or length is not what was sealed.
        OSError: it cannot be read.
    """

    __slots__ = (
        "__weakref__",
        "_active",
        "_cached",
        "_cached_index",
        "_cipher",
        "_header",
        "_layout",
        "_lock",
        "_meter",
        "_scratch",
        "_source",
    )

    def __init__(
        self,
        source: Path | str | BinaryIO,
        *,
        key: Buffer,
        context: bytes,
        meter: Callable[[int], None] | None = None,
    ) -> None:
        self._source: _Source = _Descriptor(Path(source)) if isinstance(source, Path | str) else _Seekable(source)
        # The lock is never held over input or decryption, so that `close` does not wait for a slow file system.
        self._lock = threading.Lock()
        self._meter = meter
        self._active = 0
        self._cipher: AESGCM | None = None
        self._scratch: list[bytearray] = []
        self._cached = bytearray()
        self._cached_index = -1
        try:
            self._layout = Layout.of_sealed_size(self._source.size)
            head = bytearray(HEADER_SIZE)
            self._fetch(memoryview(head), 0)
            self._header = Header.parse(bytes(head))
            self._cipher = self._header.cipher(key=key, context=context)
            self._copy_part(self._layout.segments - 1, 0, memoryview(bytearray()))
        except BaseException as error:
            self._cipher = None
            self._source.close()
            if isinstance(error, NotAuthenticError) and not str(error).startswith(self._source.name):
                raise NotAuthenticError(f"{self._source.name}: {error}") from None
            raise

    @property
    def size(self) -> int:
        """Plaintext bytes."""
        return self._layout.size

    @property
    def sealed_size(self) -> int:
        """Bytes of the sealed file."""
        return self._layout.sealed_size

    def __len__(self) -> int:
        return self._layout.size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget the key, wipe what was kept of the plaintext, close what this reader opened; may be called again.

        Reads that are under way in other threads end first, or with `ClosedError`; this call does not wait for them.
        """
        with self._lock:
            was_open, self._cipher = self._cipher is not None, None
            self._cached[:] = bytes(len(self._cached))
            self._cached_index = -1
            idle = self._active == 0
        if was_open and idle:
            self._source.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._cipher is None

    def _fetch(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            count = self._source.read_into(view[done:], offset + done)
            if not count:
                raise NotAuthenticError(
                    f"{self._source.name}: cut short while it was read: no byte at offset {offset + done}"
                )
            done += count

    def _enter(self) -> AESGCM:
        """Begin a read: the source stays open until `_leave`."""
        with self._lock:
            if self._cipher is None:
                raise ClosedError(_CLOSED)
            self._active += 1
            return self._cipher

    def _leave(self) -> None:
        with self._lock:
            self._active -= 1
            abandoned = self._cipher is None and self._active == 0
        if abandoned:
            self._source.close()

    def _decrypt(self, index: int, view: memoryview) -> None:
        """Decrypt segment `index` into `view`, which is as long as its plaintext; wipe it where the tag is wrong."""
        cipher = self._enter()
        try:
            buffer = self._scratch.pop()
        except IndexError:
            buffer = bytearray(SEGMENT_SIZE)
        try:
            sealed = memoryview(buffer)[: len(view) + TAG_SIZE]
            self._fetch(sealed, self._layout.ciphertext_start(index))
            nonce = self._header.nonce(index, last=self._layout.is_last(index))
            cipher.decrypt_into(nonce, sealed, None, view)
        except InvalidTag:
            # OpenSSL writes plaintext before it compares the tag.
            view[:] = bytes(len(view))
            raise NotAuthenticError(f"{self._source.name}: {_CHANGED}") from None
        finally:
            self._scratch.append(buffer)
            self._leave()

    def _copy_part(self, index: int, skip: int, view: memoryview) -> None:
        """Fill `view` from segment `index`, `skip` bytes in; the segment is kept for the next small read."""
        with self._lock:
            if self.closed:
                raise ClosedError(_CLOSED)
            if self._cached_index == index:
                view[:] = memoryview(self._cached)[skip : skip + len(view)]
                return
        segment = bytearray(self._layout.plaintext_size(index))
        self._decrypt(index, memoryview(segment))
        view[:] = memoryview(segment)[skip : skip + len(view)]
        self._keep(index, segment)

    def _keep(self, index: int, segment: bytearray) -> None:
        with self._lock:
            if self.closed:
                segment[:] = bytes(len(segment))
            else:
                self._cached, self._cached_index = segment, index

    def _deliver(self, stretch: _Stretch) -> int:
        size = len(stretch.view)
        if size == self._layout.plaintext_size(stretch.index):
            self._decrypt(stretch.index, stretch.view)
        else:
            self._copy_part(stretch.index, stretch.skip, stretch.view)
        return size

    def _stretches(self, view: memoryview, offset: int) -> Iterator[_Stretch]:
        done = 0
        while done < len(view):
            index = self._layout.segment_at(offset + done)
            skip = offset + done - self._layout.plaintext_start(index)
            size = min(len(view) - done, self._layout.plaintext_size(index) - skip)
            yield _Stretch(index, skip, view[done : done + size])
            done += size

    def read_into(
        self, buffer: WriteableBuffer, *, offset: int = 0, threads: int = 1, progress: Progress | None = None
    ) -> int:
        """Fill `buffer` with the plaintext from `offset` on.

        Whole segments are decrypted straight into `buffer`: give one that is used again, and its pages are not
        faulted in anew each time, which costs more than the cipher.

        Args:
            buffer: writable and contiguous; wiped where the read fails.
            offset: byte offset in the plaintext, not negative.
            threads: how many segments are opened at the same time.
            progress: called by this thread alone where `threads` is 1, else by those threads in turn.

        Returns:
            How many bytes were filled: less than the buffer's size only at the end of the file.

        Raises:
            NotAuthenticError: a segment is not what was sealed.
            ClosedError: the reader was closed.
            ValueError: a negative offset, no thread, or a buffer that cannot be written.
            OSError: the file cannot be read.
        """
        if offset < 0 or threads < 1:
            raise ValueError(f"offset {offset} and threads {threads}: neither may be lower than 0 and 1")
        if self.closed:
            raise ClosedError(_CLOSED)
        whole = memoryview(buffer)
        if whole.readonly:
            raise ValueError("the buffer is read-only")
        # An empty view cannot be cast.
        view = whole.cast("B") if whole.nbytes else memoryview(bytearray())
        view = view[: max(0, min(len(view), self.size - offset))]
        try:
            if threads == 1 or len(view) <= SEGMENT_SIZE:
                for stretch in self._stretches(view, offset):
                    size = self._deliver(stretch)
                    if progress is not None:
                        progress(size)
            else:
                self._deliver_parallel(view, offset, threads, progress)
        except BaseException:
            view[:] = bytes(len(view))
            raise
        if self._meter is not None:
            self._meter(len(view))
        return len(view)

    def _deliver_parallel(self, view: memoryview, offset: int, threads: int, progress: Progress | None) -> None:
        stretches = self._stretches(view, offset)
        turn = threading.Lock()
        stop = threading.Event()

        def work() -> None:
            try:
                while not stop.is_set():
                    with turn:
                        stretch = next(stretches, None)
                    if stretch is None:
                        return
                    size = self._deliver(stretch)
                    if progress is not None:
                        with turn:
                            progress(size)
            except BaseException:
                stop.set()
                raise

        with ThreadPoolExecutor(threads, thread_name_prefix="sealed-open") as pool:
            futures = [pool.submit(work) for _ in range(threads)]
        for future in futures:
            future.result()

    def _windows(self, threads: int) -> Iterator[tuple[int, int]]:
        """The plaintext in runs of whole segments, as offset and size, enough at a time to keep `threads` busy."""
        step = threads * _SEGMENTS_PER_THREAD
        for index in range(0, self._layout.segments, step):
            start = self._layout.plaintext_start(index)
            yield start, min(self.size, self._layout.plaintext_start(index + step)) - start

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes of plaintext from `offset` on; fewer only at the end of the file.

        Raises:
            NotAuthenticError: a segment is not what was sealed.
            ClosedError: the reader was closed.
            ValueError: a negative offset or size.
            OSError: the file cannot be read.
        """
        if size < 0:
            raise ValueError(f"size {size} is negative")
        buffer = bytearray(max(0, min(size, self.size - offset)))
        self.read_into(buffer, offset=offset)
        return bytes(buffer)

    def __iter__(self) -> Iterator[bytes]:
        """The plaintext in order, one segment at a time.

        Raises:
            NotAuthenticError: a segment is not what was sealed; what was given before stays authentic.
            ClosedError: the reader was closed.
        """
        for index in range(self._layout.segments):
            yield self.read_at(self._layout.plaintext_start(index), self._layout.plaintext_size(index))

    def file(self) -> io.BufferedReader:
        """A read-only, seekable file object over the plaintext, for loaders that want one (safetensors, torch, numpy).

        Closing it leaves this reader open.
        """
        return io.BufferedReader(_PlaintextFile(self))

    def verify(self, *, threads: int = 1, progress: Progress | None = None) -> None:
        """Authenticate every segment and keep nothing of the plaintext.

        Raises:
            NotAuthenticError: a segment is not what was sealed.
            ClosedError: the reader was closed.
            OSError: the file cannot be read.
        """
        window = bytearray(min(self.size, threads * _SEGMENTS_PER_THREAD * SEGMENT_SIZE))
        try:
            for start, size in self._windows(threads):
                self.read_into(memoryview(window)[:size], offset=start, threads=threads, progress=progress)
        finally:
            window[:] = bytes(len(window))

    def open_to(
        self, target: Path, *, plaintext_on_disk: bool = False, threads: int = 1, progress: Progress | None = None
    ) -> None:
        """Write the plaintext to the file `target`, readable by its owner alone: whole, or not there at all.

        Args:
            target: the name; what stands there is replaced.
            plaintext_on_disk: must be True. Plaintext on storage outlives the lease: say that it is meant.
            threads: how many segments are opened at the same time.
            progress: see `sealed.seal.Progress`.

        Raises:
            PlaintextOnDiskError: `plaintext_on_disk` is not True.
            NotAuthenticError: a segment is not what was sealed; nothing is left behind.
            ClosedError: the reader was closed.
            OSError: reading or writing failed.
        """
        if plaintext_on_disk is not True:
            raise PlaintextOnDiskError(
                f"{target}: plaintext would outlive the key; pass plaintext_on_disk=True to mean it"
            )
        window = bytearray(min(self.size, threads * _SEGMENTS_PER_THREAD * SEGMENT_SIZE))
        try:
            with atomic_file(target, mode=_PLAINTEXT_MODE) as sink:
                for start, size in self._windows(threads):
                    view = memoryview(window)[:size]
                    self.read_into(view, offset=start, threads=threads, progress=progress)
                    sink.write(view)
        finally:
            window[:] = bytes(len(window))


class _PlaintextFile(io.RawIOBase):
    """`SealedReader.file`: one position over `SealedReader.read_into`."""

    def __init__(self, reader: SealedReader) -> None:
        super().__init__()
        self._reader = reader
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._reader.size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"cannot seek to {offset} (whence {whence})")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = self._reader.read_into(buffer, offset=self._position)
        self._position += count
        return count
