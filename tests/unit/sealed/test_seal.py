from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import BinaryIO

import pytest

from sealed.errors import KeyMaterialError, SealingError
from sealed.format import FIRST_PLAINTEXT, SEGMENT_PLAINTEXT, Layout
from sealed.open import SealedReader
from sealed.seal import seal_file, seal_stream

KEY = bytes(range(32))


class Dribble(io.RawIOBase):
    """A raw stream that gives a few bytes at a time, as pipes and sockets do."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__()
        self._data, self._step, self._at = data, step, 0

    def read(self, size: int = -1) -> bytes:
        part = self._data[self._at : self._at + min(size, self._step)]
        self._at += len(part)
        return part


class WouldBlock(io.RawIOBase):
    def read(self, size: int = -1) -> bytes | None:
        return None


class Broken(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        raise OSError(5, "the disk is gone")


def sealed_bytes(plain: bytes | BinaryIO, context: bytes = b"c") -> bytes:
    sink = io.BytesIO()
    seal_stream(io.BytesIO(plain) if isinstance(plain, bytes) else plain, sink, key=KEY, context=context)
    return sink.getvalue()


@pytest.mark.parametrize("size", [0, 1, FIRST_PLAINTEXT, FIRST_PLAINTEXT + 1, FIRST_PLAINTEXT + SEGMENT_PLAINTEXT + 1])
def test_result_tells_sizes_and_digest(size: int) -> None:
    sink, seen = io.BytesIO(), list[int]()
    done = seal_stream(io.BytesIO(bytes(size)), sink, key=KEY, context=b"", progress=seen.append)
    assert done.size == size == sum(seen)
    assert done.sealed_size == len(sink.getvalue()) == Layout.of_size(size).sealed_size
    assert done.sealed_sha256 == hashlib.sha256(sink.getvalue()).digest()


def test_each_sealing_has_its_own_salt_and_prefix() -> None:
    heads = {sealed_bytes(b"same")[:40] for _ in range(50)}
    assert len(heads) == 50
    assert len({head[1:33] for head in heads}) == 50


def test_plaintext_is_not_in_the_sealed_bytes() -> None:
    assert b"crown jewels" not in sealed_bytes(b"crown jewels" * 1000)


@pytest.mark.parametrize("step", [4093, 1 << 19])
def test_short_reads_do_not_end_the_file(step: int) -> None:
    plain = bytes(i % 251 for i in range(FIRST_PLAINTEXT + 70_000))
    data = sealed_bytes(Dribble(plain, step))  # type: ignore[arg-type]  # a raw stream is what is tested
    with SealedReader(io.BytesIO(data), key=KEY, context=b"c") as reader:
        assert reader.read_at(0, len(plain) + 1) == plain


def test_source_that_does_not_block_is_refused() -> None:
    with pytest.raises(SealingError, match="block"):
        sealed_bytes(WouldBlock())  # type: ignore[arg-type]  # a raw stream is what is tested


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(33)])
def test_key_of_another_size_writes_nothing(key: bytes) -> None:
    sink = io.BytesIO()
    with pytest.raises(KeyMaterialError):
        seal_stream(io.BytesIO(b"x"), sink, key=key, context=b"")
    assert sink.getvalue() == b""


def test_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    source, target = tmp_path / "plain", tmp_path / "plain.sealed"
    source.write_bytes(b"weights")
    target.write_bytes(b"what stood there before")
    seal_file(source, target, key=KEY, context=b"c")
    with SealedReader(target, key=KEY, context=b"c") as reader:
        assert reader.read_at(0, 100) == b"weights"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "plain.sealed"]


def test_interrupted_sealing_leaves_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "plain", tmp_path / "plain.sealed"
    source.write_bytes(bytes(FIRST_PLAINTEXT + 10))

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seal_file(source, target, key=KEY, context=b"c", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


def test_file_that_grows_meanwhile_is_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "plain", tmp_path / "plain.sealed"
    source.write_bytes(bytes(FIRST_PLAINTEXT + SEGMENT_PLAINTEXT + 10))

    def grow(_: int) -> None:
        with source.open("ab") as file:
            file.write(b"more")

    with pytest.raises(SealingError, match="changed"):
        seal_file(source, target, key=KEY, context=b"c", progress=grow)
    assert not target.exists()


def test_read_errors_stay_what_they_are() -> None:
    with pytest.raises(OSError, match="disk is gone"):
        sealed_bytes(Broken())  # type: ignore[arg-type]  # a raw stream is what is tested
