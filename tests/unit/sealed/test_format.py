from __future__ import annotations

import inspect

import pytest

import sealed.errors
from sealed.errors import KeyMaterialError, NotAuthenticError, SealedError, SealingError
from sealed.format import (
    FIRST_PLAINTEXT,
    HEADER_SIZE,
    MAX_PLAINTEXT,
    SEGMENT_PLAINTEXT,
    SEGMENT_SIZE,
    Header,
    Layout,
    key_id,
)

HEADER = Header(bytes(range(32)), b"prefix7")


def test_the_sizes_are_those_of_the_contract() -> None:
    assert (HEADER_SIZE, SEGMENT_SIZE, FIRST_PLAINTEXT, SEGMENT_PLAINTEXT) == (0x28, 1_048_576, 1_048_520, 1_048_560)


def test_header_layout() -> None:
    data = HEADER.to_bytes()
    assert data == b"\x28" + bytes(range(32)) + b"prefix7"
    assert Header.parse(data) == HEADER


@pytest.mark.parametrize("data", [b"", HEADER.to_bytes()[:-1], HEADER.to_bytes() + b"\0", b"\x27" + bytes(39)])
def test_header_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(NotAuthenticError):
        Header.parse(data)


def test_nonce_tells_index_and_last() -> None:
    assert HEADER.nonce(0x01020304, last=False) == b"prefix7\x01\x02\x03\x04\x00"
    assert HEADER.nonce(0, last=True) == b"prefix7\0\0\0\0\x01"


@pytest.mark.parametrize(
    ("size", "segments"),
    [
        (0, 1),
        (1, 1),
        (FIRST_PLAINTEXT - 1, 1),
        (FIRST_PLAINTEXT, 1),
        (FIRST_PLAINTEXT + 1, 2),
        (FIRST_PLAINTEXT + SEGMENT_PLAINTEXT, 2),
        (FIRST_PLAINTEXT + SEGMENT_PLAINTEXT + 1, 3),
        (MAX_PLAINTEXT, 1 << 32),
    ],
)
def test_layout_at_the_boundaries(size: int, segments: int) -> None:
    layout = Layout.of_size(size)
    assert layout.segments == segments
    assert layout.sealed_size == 40 + size + 16 * segments
    assert Layout.of_sealed_size(layout.sealed_size) == layout


@pytest.mark.parametrize("sealed_size", [0, 1, 40, 55, SEGMENT_SIZE + 1, SEGMENT_SIZE + 16, 2 * SEGMENT_SIZE + 16])
def test_lengths_that_no_plaintext_gives_are_refused(sealed_size: int) -> None:
    with pytest.raises(NotAuthenticError):
        Layout.of_sealed_size(sealed_size)


@pytest.mark.parametrize("size", [-1, MAX_PLAINTEXT + 1])
def test_sizes_past_the_format_cannot_be_sealed(size: int) -> None:
    with pytest.raises(SealingError):
        Layout.of_size(size)


def test_every_byte_lies_in_one_segment() -> None:
    layout = Layout.of_size(FIRST_PLAINTEXT + 2 * SEGMENT_PLAINTEXT + 5)
    assert sum(layout.plaintext_size(index) for index in range(layout.segments)) == layout.size
    for index in range(layout.segments):
        start = layout.plaintext_start(index)
        assert layout.segment_at(start) == index
        assert layout.segment_at(start + layout.plaintext_size(index) - 1) == index


def test_key_id_is_stable_public_and_names_one_key() -> None:
    # HKDF-SHA256(ikm = 32 zero bytes, no salt, info = "keystead/v1/key-id", 8 bytes), from docs/sealed-file.md.
    assert key_id(bytes(32)) == key_id(bytearray(32)) == "8b719c226c5da15c"
    assert key_id(bytes(31) + b"\x01") != key_id(bytes(32))


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_keys_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(KeyMaterialError):
        key_id(bytes(size))
    with pytest.raises(KeyMaterialError):
        HEADER.cipher(key=bytes(size), context=b"")


def test_error_codes_are_upper_snake_unique_and_drawn() -> None:
    classes = [item for _, item in inspect.getmembers(sealed.errors, inspect.isclass) if issubclass(item, SealedError)]
    codes = [item.code for item in classes]
    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "").isupper() for code in codes)
    assert all(item.__name__ in (sealed.errors.__doc__ or "") for item in classes)
