"""Proof bundles: they verify offline, and nothing altered in them does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select

from audit.checkpoint import Checkpoint
from audit.envelope import Leaf
from audit.errors import EntryNotFoundError, MalformedError, NotInitialisedError, ProofError
from audit.log import erase
from audit.merkle import leaf_hash
from audit.note import NoteSigner
from audit.proof import BundleResult, ProofBundle, build, verify_bundle
from audit.query import get, newest_checkpoint
from audit.receipt import Receipt
from audit.records import Actor
from audit.sequencer import Sequencer
from audit.tables import AUDIT_CHECKPOINT, METADATA

NOW = 1_800_000_000
MakeLog = Callable[..., Sequencer]


def codes(result: BundleResult) -> list[str]:
    return [problem.code.value for problem in result.problems]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, make_log: MakeLog) -> Iterator[Engine]:
    """A log of 300 entries with checkpoints at 5 and 300; tests that write use a database of their own."""
    engine = create_engine(f"sqlite:///{tmp_path_factory.mktemp('proofs') / 'audit.db'}")
    METADATA.create_all(engine)
    make_log(engine, [5, 295])
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def old_note(filled: Engine) -> bytes:
    with filled.begin() as connection:
        note = connection.scalar(select(AUDIT_CHECKPOINT.c.note).where(AUDIT_CHECKPOINT.c.tree_size == 5))
    return str(note).encode()


@pytest.fixture(scope="module")
def bundle(filled: Engine, old_note: bytes) -> ProofBundle:
    with filled.begin() as connection:
        return build(connection, 4, older=old_note)


def test_a_bundle_proves_its_record(bundle: ProofBundle, signer: NoteSigner, old_note: bytes) -> None:
    parsed = ProofBundle.parse(bundle.to_bytes())
    assert parsed == bundle
    result = verify_bundle(parsed, signer.verifier, known=old_note)
    assert codes(result) == []
    assert result.ok
    assert result.record is not None
    assert result.record.lease == "lease-4"
    assert result.checkpoint is not None
    assert (result.checkpoint.size, result.continues, result.erased) == (300, 5, False)


def test_white_space_and_order_are_free(bundle: ProofBundle) -> None:
    value = json.loads(bundle.to_bytes())
    text = json.dumps(dict(reversed(value.items())), indent=2)
    assert ProofBundle.parse(text.encode()) == bundle


ALTERED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "index": (lambda v: v.update(index=5), "INCLUSION_UNPROVEN"),
    "index beyond": (lambda v: v.update(index=300), "INCLUSION_UNPROVEN"),
    "proof cut": (lambda v: v["inclusion_proof"].pop(), "INCLUSION_UNPROVEN"),
    "proof reversed": (lambda v: v["inclusion_proof"].reverse(), "INCLUSION_UNPROVEN"),
    "leaf of no version": (lambda v: v.update(leaf="AAAA"), "INCLUSION_UNPROVEN"),
    "record": (lambda v: v["record"].update(tenant="evil"), "PAYLOAD_ALTERED"),
    "salt": (lambda v: v.update(salt="A" * 43 + "="), "PAYLOAD_ALTERED"),
    "short salt": (lambda v: v.update(salt="AAAA"), "PAYLOAD_ALTERED"),
    "checkpoint size": (
        lambda v: v.update(checkpoint=v["checkpoint"].replace("\n300\n", "\n301\n")),
        "CHECKPOINT_ALTERED",
    ),
    "no checkpoint": (lambda v: v.update(checkpoint="hello"), "CHECKPOINT_ALTERED"),
    "older checkpoint": (
        lambda v: v.update(older_checkpoint=v["older_checkpoint"].replace("\n5\n", "\n6\n")),
        "CHECKPOINT_ALTERED",
    ),
    "consistency proof": (lambda v: v["consistency_proof"].pop(), "CONSISTENCY_UNPROVEN"),
    "no older checkpoint": (lambda v: v.update(older_checkpoint=None), "CONSISTENCY_UNPROVEN"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_altered_bundles_are_refused(name: str, bundle: ProofBundle, signer: NoteSigner) -> None:
    alter, code = ALTERED[name]
    value = json.loads(bundle.to_bytes())
    alter(value)
    result = verify_bundle(ProofBundle.parse(json.dumps(value).encode()), signer.verifier)
    assert codes(result) == [code]
    assert not result.ok
    assert result.record is None


def test_another_record_with_its_own_leaf_is_not_in_the_log(
    bundle: ProofBundle, signer: NoteSigner, record: Callable[..., Any]
) -> None:

    payload, salt = record(4, tenant="evil").payload(), bytes(32)
    forged = replace(bundle, payload=payload, salt=salt, leaf=Leaf.commit(salt=salt, payload=payload).to_bytes())
    assert codes(verify_bundle(forged, signer.verifier)) == ["INCLUSION_UNPROVEN"]


def test_a_signed_payload_that_is_no_record_is_named(bundle: ProofBundle, signer: NoteSigner) -> None:

    leaf = Leaf.commit(salt=bytes(32), payload=b"{}")
    note = Checkpoint(signer.verifier.name, 1, leaf_hash(leaf.to_bytes())).sign(signer).to_bytes()
    odd = ProofBundle(index=0, leaf=leaf.to_bytes(), salt=bytes(32), payload=b"{}", inclusion_proof=(), checkpoint=note)
    assert codes(verify_bundle(odd, signer.verifier)) == ["PAYLOAD_MALFORMED"]


def test_another_key_s_log(bundle: ProofBundle) -> None:
    result = verify_bundle(bundle, NoteSigner.generate("log.example/keystead").verifier)
    assert codes(result) == ["CHECKPOINT_ALTERED", "CHECKPOINT_ALTERED"]
    assert result.checkpoint is None


def test_a_known_checkpoint_must_be_covered(bundle: ProofBundle, signer: NoteSigner, old_note: bytes) -> None:
    other = Checkpoint(signer.verifier.name, 7, bytes(32)).sign(signer).to_bytes()
    assert codes(verify_bundle(bundle, signer.verifier, known=other)) == ["CONSISTENCY_UNPROVEN"]
    alone = replace(bundle, older_checkpoint=None, consistency_proof=())
    assert codes(verify_bundle(alone, signer.verifier)) == []
    assert codes(verify_bundle(alone, signer.verifier, known=bundle.checkpoint)) == []
    assert codes(verify_bundle(alone, signer.verifier, known=old_note)) == ["CONSISTENCY_UNPROVEN"]


def test_receipts_are_matched(bundle: ProofBundle, signer: NoteSigner, filled: Engine) -> None:
    with filled.begin() as connection:
        mine, other = get(connection, 4).entry_hash, get(connection, 3).entry_hash
    good = Receipt.issue(entry_hash=mine, time=NOW, signer=signer)
    assert codes(verify_bundle(bundle, signer.verifier, receipt=good)) == []
    wrong = Receipt.issue(entry_hash=other, time=NOW, signer=signer)
    assert codes(verify_bundle(bundle, signer.verifier, receipt=wrong)) == ["RECEIPT_UNRELATED"]
    forged = Receipt.issue(entry_hash=mine, time=NOW, signer=NoteSigner.generate(signer.verifier.name))
    assert codes(verify_bundle(bundle, signer.verifier, receipt=forged)) == ["RECEIPT_UNRELATED"]


def test_an_erased_entry_is_still_proven(any_engine: Engine, make_log: MakeLog, signer: NoteSigner) -> None:
    make_log(any_engine, [5, 20])
    with any_engine.begin() as connection:
        before = build(connection, 4)
        erase(connection, indexes=[4], actor=Actor(role="operator", name="dpo"), time=NOW)
        after = build(connection, 4)
    result = verify_bundle(ProofBundle.parse(after.to_bytes()), signer.verifier)
    assert result.ok
    assert result.erased
    assert result.record is None
    assert after.leaf == before.leaf
    assert verify_bundle(before, signer.verifier).record is not None


def test_public_text_format(bundle: ProofBundle) -> None:
    """C2SP tlog-proof: version, index, hashes, empty line, checkpoint."""
    lines = bundle.to_tlog_proof().split("\n")
    assert lines[:2] == ["c2sp.org/tlog-proof@v1", "index 4"]
    assert lines[2 : lines.index("")] == json.loads(bundle.to_bytes())["inclusion_proof"]
    assert "\n".join(lines[lines.index("") + 1 :]).encode() == bundle.checkpoint


def test_what_cannot_be_built(engine: Engine, make_log: MakeLog, signer: NoteSigner) -> None:
    with engine.begin() as connection, pytest.raises(EntryNotFoundError):
        build(connection, 0)
    with engine.begin() as connection, pytest.raises(NotInitialisedError):
        newest_checkpoint(connection)
    make_log(engine, [3])
    larger = Checkpoint(signer.verifier.name, 9, bytes(32)).sign(signer).to_bytes()
    other = Checkpoint("x.example", 1, bytes(32)).sign(NoteSigner.generate("x.example")).to_bytes()
    with engine.begin() as connection:
        with pytest.raises(ProofError, match="does not grow"):
            build(connection, 0, older=larger)
        with pytest.raises(ProofError, match=r"log 'x\.example'"):
            build(connection, 0, older=other)
        with pytest.raises(MalformedError):
            build(connection, 0, older=b"hello")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "keystead-audit-proof/v2"},
        {"index": "4"},
        {"index": True},
        {"index": -1},
        {"index": 1.5},
        {"leaf": None},
        {"leaf": "A"},
        {"leaf": "AB=="},
        {"salt": None},
        {"record": None},
        {"record": []},
        {"record": {"x": 1 << 60}},
        {"record": {"x": "\ud800"}},
        {"inclusion_proof": None},
        {"inclusion_proof": ["AAAA"]},
        {"inclusion_proof": ["A" * 43 + "="] * 65},
        {"checkpoint": None},
        {"checkpoint": "\ud800"},
        {"older_checkpoint": 1},
        {"consistency_proof": {}},
        {"more": 1},
    ],
)
def test_what_is_no_bundle(bundle: ProofBundle, change: dict[str, Any]) -> None:
    value = json.loads(bundle.to_bytes()) | change
    with pytest.raises(MalformedError, match="proof bundle"):
        ProofBundle.parse(json.dumps(value).encode())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"\xff", b"null", b"[" * 100_000, b"1" * 600_000, b'{"index":1,"index":1}']
)
def test_what_is_no_json_object(data: bytes) -> None:
    with pytest.raises(MalformedError, match="proof bundle"):
        ProofBundle.parse(data)
