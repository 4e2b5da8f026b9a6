"""Documents that go into a policy: one encoding, no floats, nothing coerced."""

from __future__ import annotations

from types import MappingProxyType

import pytest
import rfc8785

from policy.documents import MAX_DOCUMENT, MAX_INTEGER, encode_document, merge, read_json_object
from policy.errors import PolicyInputError


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"b": 1, "a": [True, None, 'é\u2028\x7f\x00\n\t"\\/']},
        {"n": [MAX_INTEGER, -MAX_INTEGER, 0, -1]},
        # RFC 8785, section 3.2.3: names are ordered by UTF-16 code units, here U+1F600 before U+FB33.
        {"\ufb33": 1, "\U0001f600": 2, "nested": [{"\ufb33": 1, "\U0001f600": 2}]},
    ],
)
def test_the_encoding_is_that_of_rfc_8785(document: dict[str, object]) -> None:
    data = encode_document(document, what="x")
    assert data == rfc8785.dumps(document)  # type: ignore[arg-type]  # object is wider than its JSON type
    assert read_json_object(data, what="x") == document


def test_mappings_and_tuples_are_objects_and_arrays() -> None:
    assert (
        encode_document(MappingProxyType({"a": MappingProxyType({"b": (1, (2,))})}), what="x") == b'{"a":{"b":[1,[2]]}}'
    )


@pytest.mark.parametrize(
    "value",
    [1.0, float("nan"), MAX_INTEGER + 1, -MAX_INTEGER - 1, b"x", {1: 2}, {None: 2}, {1, 2}, object(), "\ud800"],
)
def test_what_is_not_json_without_floats_is_refused(value: object) -> None:
    for document in ({"a": value}, {"a": [value]}, {"a": {"b": value}}):
        with pytest.raises(PolicyInputError, match=r"^x: "):
            encode_document(document, what="x")


def test_limits_of_what_is_encoded() -> None:
    deep: dict[str, object] = {}
    for _ in range(64):
        deep = {"a": deep}
    with pytest.raises(PolicyInputError, match="nests deeper than 64"):
        encode_document(deep, what="x")
    with pytest.raises(PolicyInputError, match="at most"):
        encode_document({"a": "b" * MAX_DOCUMENT}, what="x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"7",
        b"{",
        b'{"a":1,"a":1}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":9007199254740992}',
        b'{"a":%s}' % (b"9" * 5000),
        b'{"a":"\xff"}',
        b'{"a":' + b"[" * 100_000,
        b" " * (MAX_DOCUMENT + 1),
    ],
)
def test_what_is_not_one_object_is_refused(data: bytes) -> None:
    with pytest.raises(PolicyInputError, match=r"^x: "):
        read_json_object(data, what="x")


def test_an_overlay_merges_objects_and_replaces_the_rest() -> None:
    defaults = {"s": {"a": 1, "b": [1, 2], "c": {"d": 1}}, "t": 1}
    merged = merge(defaults, {"s": {"b": [3], "c": {"e": 2}}, "u": 2})
    assert merged == {"s": {"a": 1, "b": [3], "c": {"d": 1, "e": 2}}, "t": 1, "u": 2}
    assert defaults == {"s": {"a": 1, "b": [1, 2], "c": {"d": 1}}, "t": 1}
