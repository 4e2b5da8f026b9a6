"""Any bytes are a statement or a typed error, and what is read is written back as it was."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from keybroker.errors import StatementError
from keybroker.keys.signing import SigningKey
from keybroker.statements import Authorities, Statement, verify

LEAVES = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
BODIES = st.dictionaries(st.text(max_size=8), VALUES, max_size=4)
KEYS = {name: SigningKey.generate() for name in ("a", "b", "c")}
AUTHORITIES = Authorities.of({name: key.public_key for name, key in KEYS.items()}, threshold=2)


@given(BODIES)
def test_written_statements_read_back(body: dict[str, object]) -> None:
    statement = Statement.write(kind="k", author="a", body=body)  # type: ignore[arg-type]
    assert Statement.parse(statement.payload) == statement
    assert dict(statement.body) == body


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(StatementError):
        assert Statement.parse(data).payload == data


@given(BODIES, st.data())
def test_no_altered_byte_passes(body: dict[str, object], data: st.DataObject) -> None:
    statement = Statement.write(kind="k", author="a", body=body)  # type: ignore[arg-type]
    tokens = [statement.sign(KEYS[name].private_key, signer=name) for name in ("a", "b")]
    which = data.draw(st.integers(0, 2))
    whole = [statement.payload, *(token.encode() for token in tokens)]
    position = data.draw(st.integers(0, len(whole[which]) - 1))
    flipped = data.draw(st.integers(1, 255))
    altered = bytearray(whole[which])
    altered[position] ^= flipped
    whole[which] = bytes(altered)
    payload, *signatures = whole
    try:
        read, signers = verify(
            payload,
            [token.decode("latin-1") for token in signatures],
            kind="k",
            authorities=AUTHORITIES,
            author_counts=True,
        )
    except StatementError:
        return
    # Base64 has spare bits, and white space: the same signature may be spelt in more than one way, never another.
    assert which != 0
    assert read == statement
    assert signers == ("a", "b")
