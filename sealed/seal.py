"""Seal a stream or a file. Each time with a new salt: nothing that was sealed before is ever written on."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from cryptography.utils import Buffer

from sealed.atomic import atomic_file
from sealed.errors import SealingError
from sealed.format import (
    FIRST_PLAINTEXT,
    HEADER_SIZE,
    MAX_SEGMENTS,
    NONCE_PREFIX_SIZE,
    SALT_SIZE,
    SEGMENT_PLAINTEXT,
    SEGMENT_SIZE,
    TAG_SIZE,
    Header,
    Layout,
)

Progress: TypeAlias = Callable[[int], None]
"""Called now and then with the number of plaintext bytes that were done since the last call."""

_SEALED_MODE: Final = 0o644


@dataclass(frozen=True, slots=True)
class SealedStream:
    """What was sealed.

    Attributes:
        size: plaintext bytes.
        sealed_size: bytes written.
        sealed_sha256: SHA-256 of the bytes written.
    """

    size: int
    sealed_size: int
    sealed_sha256: bytes


def _fill(source: BinaryIO, view: memoryview) -> int:
    """Read until `view` is full or `source` ends; raw files may give less than was asked for."""
    done = 0
    while done < len(view):
        chunk = source.read(len(view) - done)
        if chunk is None:
            raise SealingError("source does not block: it has no data yet, and sealing cannot wait for it")
        if not chunk:
            break
        view[done : done + len(chunk)] = chunk
        done += len(chunk)
    return done


def seal_stream(
    source: BinaryIO, sink: BinaryIO, *, key: Buffer, context: bytes, progress: Progress | None = None
) -> SealedStream:
    """Seal `source`, from where it stands to its end, into `sink`.

    Args:
        source: plaintext; it need not be seekable, nor its length known.
        sink: receives the sealed file.
        key: the data key, 32 bytes.
        context: the associated data; for an asset's files `keystead.binding.sealed_file_context`.
        progress: see `Progress`.

    Raises:
        KeyMaterialError: the key is not 32 bytes.
        SealingError: the source is too long or does not block.
        OSError: reading or writing failed; what `sink` holds then is not a sealed file.
    """
    header = Header(secrets.token_bytes(SALT_SIZE), secrets.token_bytes(NONCE_PREFIX_SIZE))
    cipher = header.cipher(key=key, context=context)
    digest = hashlib.sha256(header.to_bytes())
    sink.write(header.to_bytes())
    written, total, index = HEADER_SIZE, 0, 0
    # One segment is read ahead, because only the end of the source tells which one is the last.
    current, ahead, out = (bytearray(SEGMENT_SIZE) for _ in range(3))
    try:
        have = _fill(source, memoryview(current)[:FIRST_PLAINTEXT])
        while True:
            full = have == (FIRST_PLAINTEXT if index == 0 else SEGMENT_PLAINTEXT)
            more = _fill(source, memoryview(ahead)[:SEGMENT_PLAINTEXT]) if full else 0
            size = have + TAG_SIZE
            view = memoryview(out)[:size]
            cipher.encrypt_into(header.nonce(index, last=not more), memoryview(current)[:have], None, view)
            sink.write(view)
            digest.update(view)
            written, total = written + size, total + have
            if progress is not None:
                progress(have)
            if not more:
                return SealedStream(total, written, digest.digest())
            index += 1
            if index == MAX_SEGMENTS:
                raise SealingError(f"source is longer than {MAX_SEGMENTS} segments: split it into several files")
            current, ahead, have = ahead, current, more
    finally:
        current[:] = ahead[:] = bytes(SEGMENT_SIZE)


def seal_file(
    source: Path, target: Path, *, key: Buffer, context: bytes, progress: Progress | None = None
) -> SealedStream:
    """Seal the file `source` as `target`: whole, synced to storage, or not there at all.

    Raises:
        KeyMaterialError: the key is not 32 bytes.
        SealingError: the source is too long, or changed its size while it was read.
        OSError: reading or writing failed.
    """
    with source.open("rb", buffering=0) as plain:
        expected = Layout.of_size(os.fstat(plain.fileno()).st_size)
        with atomic_file(target, mode=_SEALED_MODE) as sink:
            done = seal_stream(plain, sink, key=key, context=context, progress=progress)
            if done.size != expected.size:
                raise SealingError(f"{source}: {expected.size} bytes at first, {done.size} read: it changed meanwhile")
    return done
