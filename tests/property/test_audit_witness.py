"""Requests to witnesses, their answers, keys and published paths: any bytes are a value or a typed error."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from audit.cosignature import MAX_TIME, Cosigner, WitnessKey
from audit.errors import MalformedError
from audit.merkle import MAX_TREE_SIZE
from audit.note import NoteSignature, SignedNote
from audit.tiles import MAX_LEVEL, TilePath
from audit.witness import MAX_PROOF_LINES, AddCheckpoint, parse_cosignature, parse_size

COSIGNER = Cosigner.generate("witness.example/w1")
NOTE = SignedNote("a\n1\nb\n", (NoteSignature("a", b"1234", b"signature"),))
HASHES = st.binary(min_size=32, max_size=32)


@given(st.integers(0, MAX_TREE_SIZE), st.lists(HASHES, max_size=MAX_PROOF_LINES))
def test_a_request_survives_its_own_form(size, proof):
    request = AddCheckpoint(size, tuple(proof), NOTE)
    assert AddCheckpoint.parse(request.to_bytes()) == request


@given(st.binary(max_size=400), st.integers(0, 400), st.binary(max_size=4))
def test_any_bytes_are_a_request_or_an_error(head, at, patch):
    good = AddCheckpoint(7, (bytes(32),), NOTE).to_bytes()
    for data in (head, head + good, good[:at] + patch + good[at + len(patch) :], good[:at]):
        try:
            request = AddCheckpoint.parse(data)
        except MalformedError:
            continue
        assert request.to_bytes() == data


@given(st.binary(max_size=200), st.text(max_size=100))
def test_any_answer_is_one_or_an_error(data, text):
    for body in (data, text.encode("utf-8", "replace"), f"\u2014 {text}\n".encode("utf-8", "replace")):
        for parse in (parse_size, lambda body: parse_cosignature(body, NOTE.text, COSIGNER.key)):
            try:
                parse(body)
            except MalformedError:
                continue


@given(st.text(max_size=120))
def test_any_text_is_a_key_or_an_error(text):
    for parse in (WitnessKey.parse, Cosigner.parse):
        try:
            parse(text)
        except MalformedError:
            continue


@given(st.integers(0, MAX_TIME))
def test_every_time_can_be_stated(time):
    assert COSIGNER.key.verify(NOTE.text, COSIGNER.cosign(NOTE.text, time)) == time


@given(st.none() | st.integers(0, MAX_LEVEL), st.integers(0, 10**15), st.integers(1, 256))
def test_a_path_survives_its_own_form(level, index, width):
    path = TilePath(level, index, width)
    assert TilePath.parse(str(path)) == path


@given(st.text(alphabet="tile/0123456789x.pentrs", max_size=40) | st.text(max_size=20))
def test_any_path_is_canonical_or_an_error(text):
    try:
        path = TilePath.parse(text)
    except MalformedError:
        return
    assert str(path) == text
    assert ".." not in text
