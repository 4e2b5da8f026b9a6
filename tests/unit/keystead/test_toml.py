"""TOML in bounded time: what is refused, and that every refusal is the one error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.toml import MAX_DOTS, TomlError, read_toml

LIMIT = 1 << 18


def test_a_document_is_read() -> None:
    data = b'a.b = 1\n[c]\nd = ["x", 2.5]\n'
    assert read_toml(data, limit=len(data)) == {"a": {"b": 1}, "c": {"d": ["x", 2.5]}}
    assert read_toml(b"", limit=0) == {}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a = 1" + b" " * LIMIT, f"at most {LIMIT}"),
        (b"\n" + b"a." * (MAX_DOTS + 1) + b"a = 1", f"line 2 has more than {MAX_DOTS} dots"),
        (b"[" + b"a." * 1000 + b"a]", f"line 1 has more than {MAX_DOTS} dots"),
        (b"a = {" + b"a." * 1000 + b"a = 1}", f"more than {MAX_DOTS} dots"),
        (b"x = 1\ra." + b"a." * 1000 + b"a = 1", f"more than {MAX_DOTS} dots"),
        (b"a = " + b"[" * 50_000, "nested too deep"),
        (b"a = " + b"9" * 50_000, "4300"),
        (b"a = 1\na = 2", "overwrite"),
        (b"a = '\xff'", "utf-8"),
        (b"a = 2026-13-99", "line 1"),
        (b"[", "end of document"),
    ],
)
def test_what_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(TomlError, match=said):
        read_toml(data, limit=LIMIT)


def test_as_many_dots_as_are_allowed() -> None:
    document = read_toml(b"a." * MAX_DOTS + b"a = 1", limit=LIMIT)
    for _ in range(MAX_DOTS):
        document = document["a"]
    assert document == {"a": 1}


@given(st.binary(max_size=200) | st.text("a.=[]{}'\"\n#,1 ", max_size=80).map(str.encode))
def test_any_bytes_are_a_document_or_the_one_error(data: bytes) -> None:
    try:
        document = read_toml(data, limit=LIMIT)
    except TomlError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert isinstance(document, dict)
    assert len(refusal) <= 200
