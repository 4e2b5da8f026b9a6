"""Any bytes are a value or a typed error, and what was sealed opens again, at every size and place."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealed.errors import ManifestError, NotAuthenticError, SealingError
from sealed.format import FIRST_PLAINTEXT, HEADER_SIZE, MAX_PLAINTEXT, SEGMENT_PLAINTEXT, Header, Layout
from sealed.manifest import Manifest, ManifestFile, check_name
from sealed.open import SealedReader
from sealed.seal import seal_stream

KEY = bytes(range(32))
PLAIN = bytes(range(251)) * ((FIRST_PLAINTEXT + 3 * SEGMENT_PLAINTEXT) // 251 + 1)

around = st.sampled_from([0, 1, FIRST_PLAINTEXT, FIRST_PLAINTEXT + SEGMENT_PLAINTEXT]).flatmap(
    lambda base: st.integers(max(0, base - 2), base + 2)
)
sizes = st.one_of(around, st.integers(0, 3000), st.integers(0, FIRST_PLAINTEXT + 2 * SEGMENT_PLAINTEXT))


def seal(plain: bytes, context: bytes) -> bytes:
    sink = io.BytesIO()
    seal_stream(io.BytesIO(plain), sink, key=KEY, context=context)
    return sink.getvalue()


@given(size=sizes, context=st.binary(max_size=64), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_part_of_what_was_sealed_opens(size: int, context: bytes, data: st.DataObject) -> None:
    plain = PLAIN[:size]
    with SealedReader(io.BytesIO(seal(plain, context)), key=KEY, context=context) as reader:
        offset = data.draw(st.one_of(st.integers(0, size + 2), around))
        count = data.draw(st.one_of(st.integers(0, size + 2), around))
        assert reader.read_at(offset, count) == plain[offset : offset + count]
        buffer = bytearray(size)
        assert reader.read_into(buffer, threads=2) == size
        assert buffer == plain


@given(size=st.one_of(around, st.integers(0, 3000)), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_altered_byte_cut_or_extension_is_noticed(size: int, data: st.DataObject) -> None:
    sealed = bytearray(seal(PLAIN[:size], b"context"))
    change = data.draw(st.sampled_from(["flip", "cut", "extend"]))
    if change == "flip":
        sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    elif change == "cut":
        del sealed[data.draw(st.integers(0, len(sealed) - 1)) :]
    else:
        sealed += data.draw(st.binary(min_size=1, max_size=40))
    with pytest.raises(NotAuthenticError), SealedReader(io.BytesIO(sealed), key=KEY, context=b"context") as reader:
        reader.verify()


@given(st.binary(max_size=200))
def test_any_bytes_are_no_sealed_file(data: bytes) -> None:
    with pytest.raises(NotAuthenticError):
        SealedReader(io.BytesIO(data), key=KEY, context=b"")


@given(st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE))
def test_header_round_trip(data: bytes) -> None:
    try:
        header = Header.parse(data)
    except NotAuthenticError:
        assert data[0] != HEADER_SIZE
    else:
        assert header.to_bytes() == data


@given(st.integers(0, MAX_PLAINTEXT))
def test_layout_round_trip(size: int) -> None:
    layout = Layout.of_size(size)
    assert Layout.of_sealed_size(layout.sealed_size) == layout
    last = layout.segments - 1
    assert layout.plaintext_start(last) + layout.plaintext_size(last) == size
    if size:
        assert layout.segment_at(size - 1) == last
        assert layout.plaintext_size(last) > 0


@given(st.integers(-(1 << 70), 1 << 70))
def test_any_length_is_a_layout_or_an_error(sealed_size: int) -> None:
    try:
        layout = Layout.of_sealed_size(sealed_size)
    except NotAuthenticError:
        return
    assert layout.sealed_size == sealed_size


@given(st.text(max_size=40))
def test_any_text_is_a_name_that_stays_below_its_folder_or_an_error(text: str) -> None:
    try:
        name = check_name(text)
    except SealingError:
        return
    parts = name.split("/")
    assert ".." not in parts
    assert "." not in parts
    assert "" not in parts
    assert "\0" not in name


names = st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12), unique=True)


@given(names.filter(bool), st.integers(1, 999_999_999), st.lists(st.integers(0, MAX_PLAINTEXT), min_size=1))
def test_manifest_round_trip(files: list[str], version: int, lengths: list[int]) -> None:
    manifest = Manifest(
        asset="acme/data",
        version=version,
        key_id="00ff00ff00ff00ff",
        files=tuple(
            ManifestFile(name=name, size=size, sealed_size=Layout.of_size(size).sealed_size, sealed_sha256="0" * 64)
            for index, name in enumerate(sorted(files))
            for size in [lengths[index % len(lengths)]]
        ),
    )
    assert Manifest.parse(manifest.to_bytes()) == manifest


@given(st.binary(max_size=400))
def test_any_bytes_are_a_manifest_or_an_error(data: bytes) -> None:
    with pytest.raises(ManifestError):
        Manifest.parse(data)
