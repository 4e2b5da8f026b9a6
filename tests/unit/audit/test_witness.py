"""A witness: what it cosigns, what it refuses and how, what it remembers; cosignatures and quorums."""

from __future__ import annotations

import base64
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

import audit
from audit.checkpoint import Checkpoint
from audit.cosignature import MAX_TIME, Cosigner, WitnessKey, WitnessPolicy, merge
from audit.errors import MalformedError, ProofError, UnwitnessedError, WitnessStateError
from audit.merkle import EMPTY_ROOT, consistency_proof, leaf_hash, perfect_subtree_hash, range_hash
from audit.note import NoteSigner, SignedNote
from audit.tables import AUDIT_CHECKPOINT
from audit.witness import (
    MAX_REQUEST,
    SIZE_TYPE,
    AddCheckpoint,
    Witness,
    WitnessState,
    build_request,
    parse_cosignature,
    parse_size,
)

ORIGIN = "log.example/keystead"
NOW = 1_800_000_000
PROGRAM = Path(__file__).parent / "witness_until_killed.py"


class History:
    """A log in memory: every leaf is its number, or another for a history that was rewritten."""

    def __init__(self, signer: NoteSigner, leaves: list[bytes]) -> None:
        self.signer = signer
        self.hashes = [leaf_hash(leaf) for leaf in leaves]

    def node(self, level: int, index: int) -> bytes:
        return perfect_subtree_hash(self.hashes[index << level : (index + 1) << level])

    def note(self, size: int) -> SignedNote:
        return Checkpoint(ORIGIN, size, range_hash(0, size, self.node)).sign(self.signer)

    def request(self, old: int, new: int) -> AddCheckpoint:
        return AddCheckpoint(old, consistency_proof(old, new, self.node), self.note(new))


@pytest.fixture
def honest(signer: NoteSigner) -> History:
    return History(signer, [str(number).encode() for number in range(100)])


@pytest.fixture
def rewritten(signer: NoteSigner) -> History:
    """The same with one leaf replaced, signed with the same, stolen key."""
    return History(signer, [b"another" if number == 3 else str(number).encode() for number in range(100)])


@pytest.fixture(scope="module")
def cosigner() -> Cosigner:
    return Cosigner.generate("witness.example/w1")


@pytest.fixture
def state(tmp_path: Path) -> WitnessState:
    return WitnessState.create(tmp_path / "seen.db")


@pytest.fixture
def witness(signer: NoteSigner, cosigner: Cosigner, state: WitnessState) -> Witness:
    return Witness(cosigner, [signer.verifier], state)


def test_a_log_that_grows_is_cosigned(witness, honest, cosigner):
    for step, (old, new) in enumerate([(0, 0), (0, 1), (1, 1), (1, 7), (7, 64), (64, 100)]):
        request = honest.request(old, new)
        answer = witness.add_checkpoint(request.to_bytes(), NOW + step)
        assert answer.status == 200, answer.body
        signature, at = parse_cosignature(answer.body, request.note.text, cosigner.key)
        assert at == NOW + step
        note = merge(request.note, [signature]).to_bytes()
        assert WitnessPolicy((cosigner.key,), 1).require(note) == {cosigner.key: NOW + step}


def test_a_rewritten_history_is_refused_although_the_key_is_the_logs(witness, honest, rewritten):
    assert witness.add_checkpoint(honest.request(0, 50).to_bytes(), NOW).status == 200
    answer = witness.add_checkpoint(rewritten.request(50, 60).to_bytes(), NOW)
    assert answer.status == 422
    # Nor does it help to begin anew, or to show another tree of the same size.
    answer = witness.add_checkpoint(rewritten.request(0, 60).to_bytes(), NOW)
    assert (answer.status, answer.body, answer.content_type) == (409, b"50\n", SIZE_TYPE)
    assert witness.add_checkpoint(rewritten.request(50, 50).to_bytes(), NOW).status == 409
    assert witness.add_checkpoint(honest.request(50, 60).to_bytes(), NOW).status == 200


def test_a_split_view_gets_one_side_cosigned(signer, cosigner, honest, rewritten, tmp_path):
    """Two views of one size go to two witnesses each: no quorum of three out of four is had for either."""
    cosigners = [Cosigner.generate(f"witness.example/{number}") for number in range(4)]
    policy = WitnessPolicy(tuple(item.key for item in cosigners), 3)
    witnesses = [
        Witness(item, [signer.verifier], WitnessState.create(tmp_path / f"{number}.db"))
        for number, item in enumerate(cosigners)
    ]
    notes = []
    for view, order in ((honest, (0, 1, 2, 3)), (rewritten, (2, 3, 0, 1))):
        lines = []
        for number in order[:2] if view is honest else order:
            answer = witnesses[number].add_checkpoint(view.request(0, 40).to_bytes(), NOW)
            if answer.status == 200:
                lines.append(parse_cosignature(answer.body, view.note(40).text, cosigners[number].key)[0])
            else:
                assert answer.status == 409
        notes.append(merge(view.note(40), lines).to_bytes())
    assert [len(policy.times(SignedNote.parse(note))) for note in notes] == [2, 2]
    for note in notes:
        with pytest.raises(UnwitnessedError, match="cosigned by 2 of the 4"):
            policy.require(note)


@pytest.mark.parametrize(
    ("edit", "status"),
    [
        (lambda body: b"", 400),
        (lambda body: body.replace(b"old 10", b"old 010"), 400),
        (lambda body: body.replace(b"old 10", b"old ten"), 400),
        (lambda body: body.replace(b"old 10", b"old 10 "), 400),
        (lambda body: body.replace(b"old 10", b"old 99999999999999999999"), 400),
        (lambda body: body.replace(b"old 10", b"old 21"), 400),
        (lambda body: body.replace(b"old 10", b"old 11"), 409),
        (lambda body: body.replace(b"old 10\n", b"old 10\n" + b"A" * 43 + b"=\n"), 422),
        (lambda body: body.replace(b"old 10\n", b"old 10\n" + (b"A" * 43 + b"=\n") * 64), 400),
        (lambda body: body.replace(b"old 10\n", b"old 10\nAAAA\n"), 400),
        (lambda body: body.replace(b"old 10\n", b"old 10\n!\n"), 400),
        (lambda body: body.replace(b"\n20\n", b"\n19\n"), 403),
        (lambda body: body.replace(ORIGIN.encode(), b"other.example/log"), 404),
        (lambda body: body + b" " * MAX_REQUEST, 400),
        (lambda body: body[:-2], 400),
        (lambda body: body.replace(b"old 10\n", b"old 10\n\xff\n"), 400),
    ],
)
def test_the_status_says_what_is_wrong(witness, honest, cosigner, edit, status):
    assert witness.add_checkpoint(honest.request(0, 10).to_bytes(), NOW).status == 200
    answer = witness.add_checkpoint(edit(honest.request(10, 20).to_bytes()), NOW)
    assert answer.status == status
    assert answer.body.endswith(b"\n")
    assert cosigner.key.name.encode() not in answer.body
    assert witness.add_checkpoint(honest.request(10, 20).to_bytes(), NOW).status == 200  # nothing was remembered


def test_a_first_checkpoint_has_no_proof(witness, honest, signer):
    request = honest.request(0, 10)
    body = AddCheckpoint(0, (bytes(32),), request.note).to_bytes()
    assert witness.add_checkpoint(body, NOW).status == 422
    empty = Checkpoint(ORIGIN, 0, bytes(32)).sign(signer)
    assert witness.add_checkpoint(AddCheckpoint(0, (), empty).to_bytes(), NOW).status == 422
    empty = Checkpoint(ORIGIN, 0, EMPTY_ROOT).sign(signer)
    assert witness.add_checkpoint(AddCheckpoint(0, (), empty).to_bytes(), NOW).status == 200


def test_signatures_of_others_are_ignored(witness, honest):
    request = honest.request(0, 10)
    other = NoteSigner.generate("someone.example/else")
    note = merge(request.note, [Checkpoint("someone.example/else", 1, bytes(32)).sign(other).signatures[0]])
    assert witness.add_checkpoint(AddCheckpoint(0, (), note).to_bytes(), NOW).status == 200


def test_a_stranger_does_not_sign_for_the_log(witness):
    stranger = History(NoteSigner.generate(ORIGIN), [b"a"])
    assert witness.add_checkpoint(stranger.request(0, 1).to_bytes(), NOW).status == 403


def test_a_clock_that_jumps_back_signs_nothing(witness, honest):
    assert witness.add_checkpoint(honest.request(0, 10).to_bytes(), NOW).status == 200
    with pytest.raises(WitnessStateError, match="set the clock"):
        witness.add_checkpoint(honest.request(10, 20).to_bytes(), NOW - 1)
    assert witness.add_checkpoint(honest.request(10, 20).to_bytes(), NOW).status == 200
    with pytest.raises(MalformedError):
        witness.add_checkpoint(honest.request(20, 30).to_bytes(), MAX_TIME + 1)
    assert witness.add_checkpoint(honest.request(20, 30).to_bytes(), NOW).status == 200


def test_what_is_cosigned_is_remembered_by_the_next_process(signer, cosigner, tmp_path, honest, rewritten):
    path = tmp_path / "seen.db"
    assert Witness(cosigner, [signer.verifier], WitnessState.create(path)).add_checkpoint(
        honest.request(0, 50).to_bytes(), NOW
    )
    again = Witness(cosigner, [signer.verifier], WitnessState(path))
    assert again.add_checkpoint(rewritten.request(0, 60).to_bytes(), NOW).status == 409


def test_a_witness_without_its_state_does_not_begin_again(tmp_path):
    with pytest.raises(WitnessStateError, match="make a new witness with a new key"):
        WitnessState(tmp_path / "seen.db")
    WitnessState.create(tmp_path / "seen.db")
    with pytest.raises(WitnessStateError):
        WitnessState.create(tmp_path / "seen.db")


def test_damaged_state_signs_nothing(witness, honest, tmp_path):
    (tmp_path / "seen.db").write_bytes(b"SQLite format 3\0" + bytes(4000))
    with pytest.raises(WitnessStateError):
        witness.add_checkpoint(honest.request(0, 10).to_bytes(), NOW)


def test_of_requests_at_once_one_is_cosigned(signer, cosigner, honest, rewritten, tmp_path):
    path = tmp_path / "seen.db"
    WitnessState.create(path)
    statuses: list[int] = []

    def ask(view: History) -> None:
        witness = Witness(cosigner, [signer.verifier], WitnessState(path))
        statuses.append(witness.add_checkpoint(view.request(0, 50).to_bytes(), NOW).status)

    threads = [threading.Thread(target=ask, args=(view,)) for view in (honest, rewritten) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [409] * 7


def test_a_witness_killed_at_any_instant_never_forgets_what_it_answered(signer, cosigner, honest, tmp_path):
    """Each answer that came out is remembered; what is remembered leads on from it."""
    path = tmp_path / "seen.db"
    WitnessState.create(path)
    draw, answered, before = random.Random(5), 0, 0
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(path), cosigner.skey(), signer.skey()],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(audit.__file__).parents[1],
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(draw.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        sizes = [int(line) for line in process.communicate()[0].split("\n")[:-1]]
        answered = max([answered, *sizes])
        state = WitnessState(path)
        with state.transaction() as connection:
            seen = state.seen(connection, ORIGIN)
        size = 0 if seen is None else seen.size
        # At most one more than what came out since it started: the one that it was killed over.
        assert answered <= size <= max(answered, before) + 1
        before = size
    assert answered > 0


# The log's side, and keys.


def test_the_log_proves_from_what_the_witness_saw(engine: Engine, make_log: Callable, signer, cosigner, state):
    make_log(engine, [5, 300, 7])
    witness = Witness(cosigner, [signer.verifier], state)
    with engine.connect() as connection:
        notes = connection.scalars(select(AUDIT_CHECKPOINT.c.note).order_by(AUDIT_CHECKPOINT.c.tree_size)).all()
        old = 0
        for note in notes:
            request = build_request(connection, note.encode(), old)
            assert AddCheckpoint.parse(request.to_bytes()) == request
            assert witness.add_checkpoint(request.to_bytes(), NOW).status == 200
            old = Checkpoint.parse_text(request.note.text).size
        assert old == 312
        with pytest.raises(ProofError):
            build_request(connection, notes[1].encode(), old)


@pytest.mark.parametrize("body", [b"", b"50", b"050\n", b"-1\n", b"5\n5\n", b"9" * 19 + b"\n", b"x\n"])
def test_a_size_that_is_none_is_refused(body):
    with pytest.raises(MalformedError):
        parse_size(body)
    assert parse_size(b"50\n") == 50


def test_an_answer_must_hold_a_good_line_by_the_key(honest, cosigner):
    text = honest.note(10).text
    good, other = cosigner.cosign(text, NOW), Cosigner.generate("witness.example/w1").cosign(text, NOW)
    assert parse_cosignature(f"{other}{good}".encode(), text, cosigner.key) == (good, NOW)
    wrong = cosigner.cosign(honest.note(11).text, NOW)
    for body in (b"", b"\n", str(other).encode(), str(wrong).encode(), str(good).encode()[:-1], b"\xff\n", b"ok\n"):
        with pytest.raises(MalformedError):
            parse_cosignature(body, text, cosigner.key)


def test_a_bad_cosignature_by_a_known_key_spoils_the_note(honest, cosigner):
    wrong = cosigner.cosign(honest.note(11).text, NOW)
    note = merge(honest.note(10), [wrong]).to_bytes()
    with pytest.raises(MalformedError, match="is bad"):
        WitnessPolicy((cosigner.key,), 0).require(note)
    assert not WitnessPolicy((cosigner.key,), 1).accepts(note)
    assert WitnessPolicy((Cosigner.generate("w").key,), 0).require(note) == {}


def test_the_time_is_under_the_signature(honest, cosigner):
    text = honest.note(10).text
    line = cosigner.cosign(text, NOW)
    earlier = type(line)(line.name, line.key_id, (NOW - 1).to_bytes(8, "big") + line.signature[8:])
    assert cosigner.key.verify(text, line) == NOW
    assert cosigner.key.verify(text, earlier) is None


def test_a_newer_cosignature_takes_the_place_of_an_older(honest, cosigner):
    note = honest.note(10)
    for at in (NOW, NOW + 5):
        note = merge(note, [cosigner.cosign(note.text, at)])
    assert len(note.signatures) == 2
    assert WitnessPolicy((cosigner.key,), 1).times(note) == {cosigner.key: NOW + 5}


def test_one_witness_counts_once():
    key = Cosigner.generate("a").key
    with pytest.raises(MalformedError, match="counts once"):
        WitnessPolicy((key, WitnessKey("b", key.public_key)), 2)
    with pytest.raises(MalformedError, match="quorum 2 of 1"):
        WitnessPolicy((key,), 2)


def test_keys_have_the_type_of_cosignatures(cosigner, signer):
    assert WitnessKey.parse(str(cosigner.key)) == cosigner.key
    assert Cosigner.parse(cosigner.skey()).key == cosigner.key
    assert base64.b64decode(str(cosigner.key).split("+", 2)[2])[:1] == b"\x04"
    for text in (str(signer.verifier), str(cosigner.key).replace("w1", "w2"), "", "a+b+c"):
        with pytest.raises(MalformedError):
            WitnessKey.parse(text)
    for text in (signer.skey(), str(cosigner.key), cosigner.skey().replace("w1", "w2"), ""):
        with pytest.raises(MalformedError) as caught:
            Cosigner.parse(text)
        assert cosigner.skey()[-20:] not in str(caught.value)
