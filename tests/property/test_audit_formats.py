"""Any bytes are a value or a typed error, and what was written reads back the same."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import rfc8785
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.envelope import Leaf
from audit.errors import AuditError, MalformedError
from audit.merkle import Frontier
from audit.note import NoteSigner, NoteVerifier, SignedNote, sign_note
from audit.proof import ProofBundle, verify_bundle
from audit.receipt import Receipt
from audit.records import Actor, Kind, Record, Result, looks_like_key
from audit.tiles import TilePath, decode_bundle, encode_bundle

SIGNER = NoteSigner.generate("log.example")
VERIFIER = SIGNER.verifier


def words(alphabet: str, *, first: str = "a", size: int = 12) -> st.SearchStrategy[str]:
    """Texts over `alphabet` behind `first`: far quicker to draw than from a regular expression."""
    return st.text(alphabet, max_size=size).map(first.__add__)


identifiers = words("azAZ09._:/@+-")
lines = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40).filter(
    lambda text: not looks_like_key(text)
)
integers = st.integers(min_value=-(2**53) + 1, max_value=2**53 - 1)
hashes = st.binary(min_size=32, max_size=32)


@st.composite
def records(draw: st.DrawFn) -> Record:
    result = draw(st.sampled_from(Result))
    reasons = st.lists(words("AZ09_", first="R"), max_size=3)
    optional = st.none() | identifiers
    fields: dict[str, Any] = {
        "kind": draw(st.sampled_from(Kind)),
        "time": draw(st.integers(min_value=0, max_value=2**53 - 1)),
        "actor": Actor(role="node", name=draw(words("azAZ09!\"'\\=,~", first="n")), tenant=draw(optional)),
        "tenant": draw(optional),
        "job": draw(optional),
        "node": draw(optional),
        "hardware": draw(st.lists(words("09af", first="gpu:0"), max_size=3)),
        "site": draw(optional),
        "jurisdiction": draw(st.sampled_from([None, "DE", "FR-IDF", "US-CA"])),
        "assets": draw(
            st.lists(words("09", first="acme/llm@1", size=3) | words("09", first="acme/b@7", size=3), max_size=3)
        ),
        "policy_digest": draw(st.none() | hashes.map(bytes.hex)),
        "input_digest": draw(st.none() | hashes.map(bytes.hex)),
        "result": result,
        "reasons": draw(reasons.filter(bool)) if result is Result.DENIED else [],
        "lease": draw(optional),
        "detail": draw(
            st.dictionaries(
                words("az09_", first="k", size=6),
                st.booleans() | integers | lines | st.lists(lines, max_size=3).map(tuple),
                max_size=4,
            )
        ),
    }
    return Record.build(**fields)


@settings(max_examples=60, deadline=None)
@given(records())
def test_records_read_back_and_are_canonical(record: Record) -> None:
    payload = record.payload()
    assert Record.parse(payload) == record
    assert payload == rfc8785.dumps(record.to_json())


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400) | records().map(Record.payload), st.data())
def test_any_bytes_are_a_record_or_a_typed_error(payload: bytes, data: st.DataObject) -> None:
    if payload:
        at = data.draw(st.integers(min_value=0, max_value=len(payload) - 1))
        payload = payload[:at] + data.draw(st.binary(max_size=3)) + payload[at + 1 :]
    try:
        record = Record.parse(payload)
    except MalformedError:
        return
    assert record.payload() == payload


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=10), st.recursive(st.none() | st.floats() | st.text(), st.lists, max_leaves=4)))
def test_any_fields_are_a_record_or_a_typed_error(fields: dict[str, Any]) -> None:
    with pytest.raises(AuditError):
        Record.build(**fields)


@settings(deadline=None)
@given(hashes)
def test_leaves_read_back(digest: bytes) -> None:
    leaf = Leaf(digest)
    assert Leaf.parse(leaf.to_bytes()) == leaf


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=2**63 - 1), hashes)
def test_checkpoints_read_back(size: int, root: bytes) -> None:
    checkpoint = Checkpoint("log.example", size, root)
    assert Checkpoint.parse_text(checkpoint.to_text()) == checkpoint
    assert open_checkpoint(checkpoint.sign(SIGNER).to_bytes(), VERIFIER) == checkpoint


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), max_size=60))
def test_notes_read_back(text: str) -> None:
    note = sign_note("x" + text + "\n", [SIGNER])
    parsed = SignedNote.parse(note.to_bytes())
    assert parsed == note
    parsed.verify(VERIFIER)


NOTE = Checkpoint("log.example", 7, bytes(32)).sign(SIGNER).to_bytes()


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=len(NOTE) - 1), st.binary(max_size=3))
def test_an_altered_checkpoint_never_opens(at: int, new: bytes) -> None:
    altered = NOTE[:at] + new + NOTE[at + 1 :]
    assume(altered != NOTE)
    with pytest.raises(AuditError):
        open_checkpoint(altered, VERIFIER)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_note_or_a_typed_error(data: bytes) -> None:
    try:
        note = SignedNote.parse(data)
    except MalformedError:
        return
    assert note.to_bytes() == data


@settings(deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_a_key_or_a_typed_error(text: str) -> None:
    for parse in (NoteVerifier.parse, NoteSigner.parse, Checkpoint.parse_text, TilePath.parse):
        with pytest.raises(MalformedError):
            parse(text)


@settings(deadline=None)
@given(hashes, st.integers(min_value=0, max_value=2**53 - 1))
def test_receipts_read_back(entry_hash: bytes, time: int) -> None:
    receipt = Receipt.issue(entry_hash=entry_hash, time=time, signer=SIGNER)
    assert Receipt.parse(receipt.to_bytes()) == receipt
    receipt.verify(VERIFIER)


RECEIPT = Receipt.issue(entry_hash=bytes(32), time=7, signer=SIGNER).to_bytes()


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=len(RECEIPT) - 1), st.binary(max_size=3))
def test_an_altered_receipt_never_verifies(at: int, new: bytes) -> None:
    altered = RECEIPT[:at] + new + RECEIPT[at + 1 :]
    assume(altered != RECEIPT)
    with pytest.raises(AuditError):
        Receipt.parse(altered).verify(VERIFIER)


@settings(deadline=None)
@given(
    st.integers(min_value=0, max_value=2**40), st.integers(min_value=1, max_value=256), st.none() | st.integers(0, 63)
)
def test_tile_paths_read_back(index: int, width: int, level: int | None) -> None:
    path = TilePath(level, index, width)
    assert TilePath.parse(str(path)) == path


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=256))
def test_entry_bundles_read_back(entries: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(entries)) == tuple(entries)


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_are_an_entry_bundle_or_a_typed_error(data: bytes) -> None:
    try:
        entries = decode_bundle(data)
    except MalformedError:
        return
    assert encode_bundle(entries) == data


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=2**20), st.data())
def test_frontiers_read_back(size: int, data: st.DataObject) -> None:
    stored = data.draw(st.binary(min_size=32 * size.bit_count(), max_size=32 * size.bit_count()))
    assert Frontier.parse(size, stored).to_bytes() == stored
    with pytest.raises(MalformedError):
        Frontier.parse(size, stored + b"\0")


@settings(max_examples=60, deadline=None)
@given(records(), st.integers(min_value=0, max_value=2**40))
def test_proof_bundles_read_back(record: Record, index: int) -> None:
    leaf = Leaf.commit(salt=bytes(32), payload=record.payload())
    bundle = ProofBundle(
        index=index,
        leaf=leaf.to_bytes(),
        salt=bytes(32),
        payload=record.payload(),
        inclusion_proof=(bytes(32),),
        checkpoint=NOTE,
        older_checkpoint=NOTE,
    )
    assert ProofBundle.parse(bundle.to_bytes()) == bundle


SINGLE_RECORD = Record(kind=Kind.APPRAISAL, time=1, actor=Actor(role="node", name="n"), result=Result.RECORDED)
SINGLE_LEAF = Leaf.commit(salt=bytes(32), payload=SINGLE_RECORD.payload())
SINGLE = ProofBundle(
    index=0,
    leaf=SINGLE_LEAF.to_bytes(),
    salt=bytes(32),
    payload=SINGLE_RECORD.payload(),
    inclusion_proof=(),
    checkpoint=Checkpoint("log.example", 1, SINGLE_LEAF.entry_hash()).sign(SIGNER).to_bytes(),
)


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=len(SINGLE.to_bytes()) - 1), st.binary(max_size=3))
def test_an_altered_bundle_never_proves_another_record(at: int, new: bytes) -> None:
    data = SINGLE.to_bytes()
    try:
        altered = ProofBundle.parse(data[:at] + new + data[at + 1 :])
    except MalformedError:
        return
    result = verify_bundle(altered, VERIFIER)
    if result.ok:  # only white space changed, or where numbers say the same
        assert (altered.index, altered.payload) == (0, SINGLE_RECORD.payload())


@settings(deadline=None)
@given(st.text(max_size=60), st.binary(max_size=60))
def test_any_json_is_a_bundle_or_a_typed_error(text: str, data: bytes) -> None:
    for candidate in (data, text.encode("utf-8", "surrogatepass"), base64.b64encode(data)):
        with pytest.raises(MalformedError):
            ProofBundle.parse(candidate)
