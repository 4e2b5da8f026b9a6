from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sealed.errors import ClosedError, KeyMaterialError, NotAuthenticError, PlaintextOnDiskError
from sealed.format import FIRST_PLAINTEXT, SEGMENT_PLAINTEXT, SEGMENT_SIZE
from sealed.open import SealedReader
from sealed.seal import seal_stream

KEY = bytes(range(32))
CONTEXT = b"tenant/model, 1, weights"
PLAIN = os.urandom(1 << 16) * 50 + b"tail"
"""3,276,804 bytes: four segments, the last one partly filled."""


def seal(plain: bytes, *, key: bytes = KEY, context: bytes = CONTEXT) -> bytes:
    sink = io.BytesIO()
    seal_stream(io.BytesIO(plain), sink, key=key, context=context)
    return sink.getvalue()


def reader(data: bytes, *, key: bytes = KEY, context: bytes = CONTEXT) -> SealedReader:
    return SealedReader(io.BytesIO(data), key=key, context=context)


def read_all(data: bytes) -> bytes:
    with reader(data) as opened:
        return b"".join(opened)


@pytest.fixture(scope="module")
def sealed() -> bytes:
    return seal(PLAIN)


@pytest.fixture
def path(tmp_path: Path, sealed: bytes) -> Path:
    target = tmp_path / "weights.sealed"
    target.write_bytes(sealed)
    return target


def test_reads_at_random_in_order_and_into_buffers(path: Path) -> None:
    with SealedReader(path, key=KEY, context=CONTEXT) as opened:
        assert opened.size == len(opened) == len(PLAIN)
        assert b"".join(opened) == PLAIN
        for offset, size in [(0, 1), (FIRST_PLAINTEXT - 1, 2), (FIRST_PLAINTEXT, 3), (1_000_000, 2_000_000), (7, 0)]:
            assert opened.read_at(offset, size) == PLAIN[offset : offset + size]
        assert opened.read_at(len(PLAIN) - 4, 100) == b"tail"
        assert opened.read_at(len(PLAIN), 1) == opened.read_at(len(PLAIN) + 5, 1) == b""
        buffer = bytearray(100)
        assert opened.read_into(buffer, offset=len(PLAIN) - 4) == 4
        assert buffer == b"tail" + bytes(96)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_opens_in_parallel(path: Path, threads: int) -> None:
    seen = list[int]()
    with SealedReader(path, key=KEY, context=CONTEXT) as opened:
        buffer = bytearray(len(PLAIN))
        for _ in range(2):
            assert opened.read_into(buffer, threads=threads, progress=seen.append) == len(PLAIN)
            assert buffer == PLAIN
        assert sum(seen) == 2 * len(PLAIN)
        assert opened.read_into(memoryview(buffer)[5:], offset=3, threads=threads) == len(PLAIN) - 5
        assert buffer[5:] == PLAIN[3:-2]


def test_many_threads_share_one_reader(path: Path) -> None:
    wrong = list[int]()
    with SealedReader(path, key=KEY, context=CONTEXT) as opened:

        def work(seed: int) -> None:
            for step in range(20):
                offset = (seed * 99_991 + step * 777_773) % len(PLAIN)
                if opened.read_at(offset, 5000) != PLAIN[offset : offset + 5000]:
                    wrong.append(offset)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("read", [lambda o: o.read_at(-1, 1), lambda o: o.read_at(0, -1), lambda o: o.read_into(b"")])
def test_wrong_use_is_refused(sealed: bytes, read: Callable[[SealedReader], object]) -> None:
    with reader(sealed) as opened, pytest.raises((ValueError, TypeError)):
        read(opened)
        opened.read_into(bytearray(1), threads=0)


def test_file_object_seeks_like_a_file(sealed: bytes) -> None:
    with reader(sealed) as opened, opened.file() as file:
        assert file.read(10) == PLAIN[:10]
        assert file.seek(-4, io.SEEK_END) == len(PLAIN) - 4
        assert file.read() == b"tail"
        file.seek(FIRST_PLAINTEXT - 3)
        assert file.read(6) == PLAIN[FIRST_PLAINTEXT - 3 : FIRST_PLAINTEXT + 3]
        file.seek(0)
        assert file.read() == PLAIN
        with pytest.raises(ValueError, match="seek"):
            file.seek(-1)
        assert not file.writable()


@pytest.mark.parametrize("size", [0, 1, FIRST_PLAINTEXT, FIRST_PLAINTEXT + 1])
def test_every_cut_is_noticed_at_open(size: int) -> None:
    data = seal(PLAIN[:size])
    for keep in {0, 1, 39, 40, 55, len(data) - 1, len(data) - 16, len(data) - 17, SEGMENT_SIZE} - {len(data)}:
        if keep < len(data):
            with pytest.raises(NotAuthenticError):
                reader(data[:keep])


def test_cut_at_a_segment_boundary_is_noticed_at_open(sealed: bytes) -> None:
    for segments in (1, 2, 3):
        with pytest.raises(NotAuthenticError):
            reader(sealed[: segments * SEGMENT_SIZE])


@pytest.mark.parametrize("more", [b"\0", bytes(16), bytes(17), bytes(SEGMENT_SIZE)])
def test_extension_is_noticed_at_open(sealed: bytes, more: bytes) -> None:
    for data in (sealed, seal(b""), seal(PLAIN[:FIRST_PLAINTEXT])):
        with pytest.raises(NotAuthenticError):
            reader(data + more)


def test_swapped_repeated_and_foreign_segments_are_noticed(sealed: bytes) -> None:
    parts = [sealed[i : i + SEGMENT_SIZE] for i in range(0, len(sealed), SEGMENT_SIZE)]
    other = seal(PLAIN)
    foreign = other[SEGMENT_SIZE : 2 * SEGMENT_SIZE]
    for changed in (
        [parts[0], parts[2], parts[1], parts[3]],
        [parts[0], parts[1], parts[1], parts[3]],
        [parts[0], foreign, parts[2], parts[3]],
        [parts[0], parts[1], parts[3]],
        [other[:40] + parts[0][40:], *parts[1:]],
    ):
        with pytest.raises(NotAuthenticError):
            read_all(b"".join(changed))


@pytest.mark.parametrize("at", [0, 1, 32, 33, 39, 40, 1000, SEGMENT_SIZE - 1, SEGMENT_SIZE, 3 * SEGMENT_SIZE, -17, -1])
def test_one_flipped_bit_is_noticed(sealed: bytes, at: int) -> None:
    data = bytearray(sealed)
    data[at] ^= 0x10
    with pytest.raises(NotAuthenticError):
        read_all(bytes(data))


def test_damage_elsewhere_leaves_authentic_segments_readable(sealed: bytes) -> None:
    data = bytearray(sealed)
    data[SEGMENT_SIZE + 5] ^= 1
    with reader(bytes(data)) as opened:
        assert opened.read_at(0, FIRST_PLAINTEXT) == PLAIN[:FIRST_PLAINTEXT]
        given = list[bytes]()
        with pytest.raises(NotAuthenticError):
            given.extend(opened)
        assert b"".join(given) == PLAIN[: len(b"".join(given))]


@pytest.mark.parametrize("threads", [1, 2])
def test_failed_read_leaves_no_plaintext_in_the_buffer(sealed: bytes, threads: int) -> None:
    data = bytearray(sealed)
    data[2 * SEGMENT_SIZE + 5] ^= 1
    with reader(bytes(data)) as opened:
        buffer = bytearray(b"\xaa" * len(PLAIN))
        with pytest.raises(NotAuthenticError):
            opened.read_into(buffer, threads=threads)
        assert buffer == bytes(len(PLAIN))


@pytest.mark.parametrize(("key", "context"), [(bytes(32), CONTEXT), (KEY, CONTEXT + b"2"), (KEY, b"")])
def test_another_key_or_context_does_not_open(sealed: bytes, key: bytes, context: bytes) -> None:
    with pytest.raises(NotAuthenticError):
        reader(sealed, key=key, context=context)


def test_key_of_another_size_is_refused(sealed: bytes) -> None:
    with pytest.raises(KeyMaterialError):
        reader(sealed, key=bytes(16))


def test_folder_is_no_sealed_file(tmp_path: Path) -> None:
    with pytest.raises(NotAuthenticError):
        SealedReader(tmp_path, key=KEY, context=CONTEXT)
    with pytest.raises(FileNotFoundError):
        SealedReader(tmp_path / "absent", key=KEY, context=CONTEXT)


def test_file_that_shrinks_after_open_is_noticed(path: Path) -> None:
    with SealedReader(path, key=KEY, context=CONTEXT) as opened:
        os.truncate(path, SEGMENT_SIZE + 9)
        with pytest.raises(NotAuthenticError):
            opened.read_at(FIRST_PLAINTEXT, SEGMENT_PLAINTEXT)


def test_closed_reader_gives_nothing(path: Path) -> None:
    opened = SealedReader(path, key=KEY, context=CONTEXT)
    file = opened.file()
    assert opened.read_at(0, 4) == PLAIN[:4]
    opened.close()
    opened.close()
    assert opened.closed
    for read in (lambda: opened.read_at(0, 4), lambda: opened.read_at(0, FIRST_PLAINTEXT), lambda: file.read(1)):
        with pytest.raises(ClosedError):
            read()
    file.close()


def test_close_in_the_middle_of_a_read_is_safe(path: Path) -> None:
    opened = SealedReader(path, key=KEY, context=CONTEXT)
    with pytest.raises(ClosedError):
        opened.read_into(bytearray(len(PLAIN)), progress=lambda _: opened.close())


def test_descriptors_are_closed(path: Path, sealed: bytes) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    for _ in range(5):
        with SealedReader(path, key=KEY, context=CONTEXT):
            assert count() == before + 1
        with pytest.raises(NotAuthenticError):
            SealedReader(path, key=KEY, context=b"other")
    assert count() == before


def test_plaintext_goes_to_disk_only_when_asked(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "plain"
    with SealedReader(path, key=KEY, context=CONTEXT) as opened:
        with pytest.raises(PlaintextOnDiskError):
            opened.open_to(target)
        assert not target.exists()
        seen = list[int]()
        opened.open_to(target, plaintext_on_disk=True, threads=2, progress=seen.append)
    assert target.read_bytes() == PLAIN
    assert sum(seen) == len(PLAIN)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_failed_open_to_leaves_nothing(tmp_path: Path, sealed: bytes) -> None:
    data = bytearray(sealed)
    data[2 * SEGMENT_SIZE + 5] ^= 1
    with reader(bytes(data)) as opened, pytest.raises(NotAuthenticError):
        opened.open_to(tmp_path / "plain", plaintext_on_disk=True)
    assert list(tmp_path.iterdir()) == []


def test_verify_reads_every_segment(sealed: bytes) -> None:
    seen = list[int]()
    with reader(sealed) as opened:
        opened.verify(threads=2, progress=seen.append)
    assert sum(seen) == len(PLAIN)
    with reader(seal(b"")) as empty:
        empty.verify()
    data = bytearray(sealed)
    data[2 * SEGMENT_SIZE + 5] ^= 1
    with reader(bytes(data)) as opened, pytest.raises(NotAuthenticError):
        opened.verify()
