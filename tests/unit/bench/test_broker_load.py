"""The requests that the measuring clients read from a file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.broker_load import pack, unpack


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_what_is_packed_is_unpacked(messages: list[bytes]) -> None:
    assert unpack(pack(messages)) == messages
