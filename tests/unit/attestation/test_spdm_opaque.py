"""NVIDIA's opaque data."""

from __future__ import annotations

import pytest

from attestation.errors import MalformedError
from attestation.spdm.opaque import opaque_to_bytes, parse_opaque


def test_keeps_order_and_unknown_types() -> None:
    fields = {9999: b"x", 3: b"580\0", 1: b""}
    parsed = parse_opaque(opaque_to_bytes(fields))
    assert list(parsed.items()) == list(fields.items())


def test_layout_is_little_endian() -> None:
    assert opaque_to_bytes({3: b"ab"}) == bytes.fromhex("03000200") + b"ab"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("030002", "field header needs 4 bytes, 3 left"),
        ("0300020061", "type 3 needs 2 bytes, 1 left"),
        ("03000100610300010062", "type 3 appears twice"),
    ],
)
def test_broken_fields_are_malformed(data: str, reason: str) -> None:
    with pytest.raises(MalformedError, match=reason):
        parse_opaque(bytes.fromhex(data))


def test_value_too_long_cannot_be_written() -> None:
    longest = {3: bytes((1 << 16) - 1)}
    assert parse_opaque(opaque_to_bytes(longest)) == longest
    with pytest.raises(ValueError, match="65,535"):
        opaque_to_bytes({3: bytes(1 << 16)})
