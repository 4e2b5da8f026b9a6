"""Sealed payloads: any bytes open or are refused by a typed error; nothing altered opens."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from audit.envelope import SALT_SIZE
from audit.erasure import ErasedKey, erased_keys
from audit.errors import MalformedError
from audit.payload import seal, unseal
from audit.records import Actor, Kind, Record, Result

CIPHER = AESGCM(bytes(range(32)))
IDS = st.text("0123456789abcdef", min_size=32, max_size=32)
HASHES = st.binary(min_size=32, max_size=32)


@given(salt=HASHES, payload=st.binary(max_size=300), key_id=IDS, entry_hash=HASHES)
def test_it_opens_to_what_was_sealed(salt: bytes, payload: bytes, key_id: str, entry_hash: bytes) -> None:
    sealed = seal(CIPHER, salt=salt, payload=payload, key_id=key_id, entry_hash=entry_hash)
    assert unseal(CIPHER, sealed, key_id=key_id, entry_hash=entry_hash) == (salt, payload)
    assert len(salt) == SALT_SIZE


@given(data=st.binary(max_size=300), key_id=st.text(max_size=40), entry_hash=st.binary(max_size=40))
def test_any_other_bytes_are_refused(data: bytes, key_id: str, entry_hash: bytes) -> None:
    with pytest.raises(MalformedError, match="sealed payload"):
        unseal(CIPHER, data, key_id=key_id, entry_hash=entry_hash)


@given(payload=st.binary(max_size=100), at=st.integers(min_value=0), bit=st.integers(0, 7), cut=st.booleans())
def test_no_altered_byte_is_taken(payload: bytes, at: int, bit: int, cut: bool) -> None:
    sealed = bytearray(seal(CIPHER, salt=bytes(32), payload=payload, key_id="k", entry_hash=bytes(32)))
    at %= len(sealed)
    altered = bytes(sealed[:at]) if cut else bytes([*sealed[:at], sealed[at] ^ 1 << bit, *sealed[at + 1 :]])
    with pytest.raises(MalformedError, match="sealed payload"):
        unseal(CIPHER, altered, key_id="k", entry_hash=bytes(32))


@given(
    st.lists(
        st.builds(
            ErasedKey,
            st.text("0123456789abcdef", min_size=32, max_size=32),
            st.integers(0, (1 << 49)),
            st.binary(min_size=32, max_size=32),
        ),
        max_size=5,
    )
)
def test_what_a_record_says_of_destroyed_keys_is_read_back(keys: list[ErasedKey]) -> None:
    assert list(erased_keys(_record(tuple(str(key) for key in keys)))) == keys


@given(st.lists(st.from_regex(r"[ -~]{0,60}", fullmatch=True), max_size=4))
def test_any_other_line_names_no_key(lines: list[str]) -> None:
    assert all(str(key) in lines for key in erased_keys(_record(tuple(lines))))


def _record(lines: tuple[str, ...]) -> Record:
    return Record.build(
        kind=Kind.AUDIT_ERASED,
        time=1,
        actor=Actor(role="operator", name="dpo"),
        tenant="acme",
        result=Result.RECORDED,
        detail={"keys_digest": lines},
    )
