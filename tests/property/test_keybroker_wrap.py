"""Any bytes are a wrapped key or a typed error; what was wrapped opens, and only as it was wrapped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.errors import KeyUnwrapError
from keybroker.keys.wrap import LABEL_WRAPPED_KEY, unwrap, wrap, wrapping_key_id
from keystead.binding import encode

KEY = bytes(range(32))
key_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,40}", fullmatch=True)


@given(plaintext=st.binary(max_size=200), key_id=key_ids, context=st.binary(max_size=200))
def test_what_was_wrapped_opens(plaintext: bytes, key_id: str, context: bytes) -> None:
    wrapped = wrap(plaintext, key=KEY, key_id=key_id, context=context)
    assert wrapping_key_id(wrapped) == key_id
    assert unwrap(wrapped, key=KEY, key_id=key_id, context=context) == plaintext


@given(data=st.data(), plaintext=st.binary(max_size=64), context=st.binary(max_size=64))
def test_any_alteration_is_refused(data: st.DataObject, plaintext: bytes, context: bytes) -> None:
    wrapped = wrap(plaintext, key=KEY, key_id="k", context=context)
    place = data.draw(st.integers(0, len(wrapped) - 1))
    flip = data.draw(st.integers(1, 255))
    altered = wrapped[:place] + bytes([wrapped[place] ^ flip]) + wrapped[place + 1 :]
    cut = wrapped[:place]
    for bad in (altered, cut, wrapped + b"\x00"):
        with pytest.raises(KeyUnwrapError):
            unwrap(bad, key=KEY, key_id="k", context=context)
    with pytest.raises(KeyUnwrapError):
        unwrap(wrapped, key=KEY, key_id="k", context=context + b"\x00")
    with pytest.raises(KeyUnwrapError):
        unwrap(wrapped, key=KEY[::-1], key_id="k", context=context)
    with pytest.raises(KeyUnwrapError):
        unwrap(wrapped, key=KEY, key_id="other", context=context)


@given(
    st.one_of(
        st.binary(max_size=100),
        st.lists(st.binary(max_size=40), max_size=4).map(lambda fields: encode(LABEL_WRAPPED_KEY, *fields)),
    )
)
def test_any_bytes_give_a_typed_error(junk: bytes) -> None:
    with pytest.raises(KeyUnwrapError):
        unwrap(junk, key=KEY, key_id="k", context=b"")
