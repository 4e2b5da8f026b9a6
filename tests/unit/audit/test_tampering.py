"""What somebody with the database, or the log's stolen key, does to history, and what tells: on both stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, delete, insert, select, text, update

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import Cosigner, WitnessPolicy, merge
from audit.envelope import Leaf
from audit.errors import UnwitnessedError
from audit.log import PROJECTED, append, append_many, erase, projections
from audit.note import NoteSigner, SignedNote
from audit.query import newest_checkpoint
from audit.records import Actor, Record
from audit.sequencer import Sequencer
from audit.tables import (
    AUDIT_CHECKPOINT,
    AUDIT_ENTRY,
    AUDIT_ENTRY_ASSET,
    AUDIT_ENTRY_HARDWARE,
    AUDIT_ENTRY_REASON,
    AUDIT_STATE,
    METADATA,
)
from audit.verify import LogResult, verify_log
from audit.witness import Witness, WitnessState, build_request, parse_cosignature

NOW = 1_800_000_000
SIZE = 40
ORIGIN = "log.example/keystead"
Build = Callable[..., Record]
MakeLog = Callable[..., Sequencer]
Tamper = Callable[[Connection, Build], object]
E = AUDIT_ENTRY.c


def check(engine: Engine, signer: NoteSigner, known: Sequence[bytes] = ()) -> LogResult:
    with engine.begin() as connection:
        return verify_log(connection, signer.verifier, known=known)


def set_at(connection: Connection, index: int, **values: Any) -> None:
    assert connection.execute(update(AUDIT_ENTRY).where(E.leaf_index == index).values(**values)).rowcount == 1


def move(connection: Connection, old: int, new: int) -> None:
    set_at(connection, old, leaf_index=new)


def replace(connection: Connection, index: int, record: Record) -> None:
    """Put another record in the place of one, with hashes and columns that fit it; its assets stay."""
    payload, salt = record.payload(), bytes(32)
    leaf = Leaf.commit(salt=salt, payload=payload)
    values = projections(record) | {"payload": payload, "salt": salt}
    set_at(connection, index, digest=leaf.digest, leaf_hash=leaf.entry_hash(), **values)


def remove(connection: Connection, index: int) -> None:
    row = connection.execute(select(E.id).where(E.leaf_index == index)).scalar_one()
    for table in (AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE, AUDIT_ENTRY_REASON):
        connection.execute(delete(table).where(table.c.entry_id == row))
    connection.execute(delete(AUDIT_ENTRY).where(E.id == row))


def insert_at(connection: Connection, index: int, record: Record) -> None:
    """Move all behind by one and put a record in between."""
    for at in reversed(range(index, SIZE)):
        move(connection, at, at + 1)
    entry = append(connection, record)
    connection.execute(update(AUDIT_ENTRY).where(E.id == entry.id).values(leaf_index=index))


def duplicate(connection: Connection, index: int, over: int) -> None:
    connection.execute(text("DROP INDEX uq_audit_entry_leaf_hash"))
    row = connection.execute(select(AUDIT_ENTRY).where(E.leaf_index == index)).mappings().one()
    set_at(connection, over, **{name: row[name] for name in ("digest", "leaf_hash", "salt", "payload", *PROJECTED)})


def reorder(connection: Connection, _record: Build) -> None:
    for old, new in ((11, 10**6), (25, 11), (10**6, 25)):
        move(connection, old, new)


def close_ranks(connection: Connection, index: int) -> None:
    remove(connection, index)
    for at in range(index + 1, SIZE):
        move(connection, at, at - 1)


TAMPERING: dict[str, tuple[Tamper, str, int]] = {
    "altered": (lambda c, _: set_at(c, 17, payload=b"{}"), "PAYLOAD_ALTERED", 17),
    "altered with its hashes": (lambda c, record: replace(c, 17, record(17, job="innocent")), "ENTRY_REPLACED", 17),
    "removed": (lambda c, _: remove(c, 17), "ENTRY_MISSING", 17),
    "removed, and the rest moved up": (lambda c, _: close_ranks(c, 17), "ENTRY_MISSING", 17),
    "the last removed": (lambda c, _: remove(c, SIZE - 1), "ENTRY_MISSING", SIZE - 1),
    "reordered": (reorder, "ENTRY_MOVED", 11),
    "duplicated": (lambda c, _: duplicate(c, 5, 30), "ENTRY_DUPLICATED", 30),
    "back-dated": (lambda c, _: set_at(c, 17, time=NOW - 86_400), "PROJECTION_ALTERED", 17),
    "back-dated with its hashes": (lambda c, record: replace(c, 17, record(17, time=NOW - 9)), "ENTRY_REPLACED", 17),
    "put in behind its time": (lambda c, record: insert_at(c, 17, record(99, time=NOW + 16)), "ENTRY_INSERTED", 17),
    "erased without a word": (
        lambda c, _: set_at(c, 17, payload=None, salt=None, **dict.fromkeys(PROJECTED)),
        "ERASED_WITHOUT_RECORD",
        17,
    ),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_the_first_bad_index_is_named(
    name: str, any_engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build
) -> None:
    tamper, code, index = TAMPERING[name]
    make_log(any_engine, [10, SIZE - 10])
    assert check(any_engine, signer).ok
    with any_engine.begin() as connection:
        tamper(connection, record)
    result = check(any_engine, signer)
    assert result.first_bad_index == index, [str(problem) for problem in result.problems]
    assert code in {problem.code.value for problem in result.problems if problem.index == index}


def test_a_late_record_of_an_early_time_is_no_damage(
    any_engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build
) -> None:
    """Clocks jump: what a record says is its own matter; that it came late is told by its place."""
    sequencer = make_log(any_engine, [10])
    with any_engine.begin() as connection:
        append_many(connection, [record(10, time=NOW - 10**6), record(11, time=NOW + 10**6), record(12)])
    sequencer.run_once(NOW)
    assert check(any_engine, signer).ok


def rewrite(engine: Engine, signer: NoteSigner, records: Sequence[Record]) -> None:
    """Make the database over with the log's own, stolen key: other records, and everything else to fit them."""
    with engine.begin() as connection:
        signed = connection.execute(select(AUDIT_CHECKPOINT.c.tree_size).order_by(AUDIT_CHECKPOINT.c.tree_size))
        sizes = [size for size in signed.scalars() if size]
        for table in reversed(METADATA.sorted_tables):
            connection.execute(delete(table))
    sequencer = Sequencer(engine, signer, ORIGIN)
    sequencer.initialise(NOW)
    for start, stop in zip([0, *sizes[:-1]], sizes, strict=True):
        with engine.begin() as connection:
            append_many(connection, records[start:stop])
        sequencer.run_once(NOW)


def cosigned(engine: Engine, witness: Witness, cosigner: Cosigner, old: int) -> int:
    """Ask the witness for the newest checkpoint; the status of its answer, which is stored where it cosigned."""
    with engine.begin() as connection:
        note = SignedNote.parse(newest_checkpoint(connection))
        answer = witness.add_checkpoint(build_request(connection, note.to_bytes(), old).to_bytes(), NOW)
        if answer.status == 200:
            line, _ = parse_cosignature(answer.body, note.text, cosigner.key)
            size = Checkpoint.parse_text(note.text).size
            stored = update(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.tree_size == size)
            connection.execute(stored.values(note=str(merge(note, [line]))))
    return answer.status


def test_history_rewritten_with_the_stolen_key(
    any_engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build, tmp_path: Path
) -> None:
    cosigner = Cosigner.generate("witness.example/w1")
    policy = WitnessPolicy((cosigner.key,), 1)
    witness = Witness(cosigner, [signer.verifier], WitnessState.create(tmp_path / "seen.db"))
    sequencer = make_log(any_engine, [10, 20])
    assert cosigned(any_engine, witness, cosigner, 0) == 200
    with any_engine.begin() as connection:
        kept = newest_checkpoint(connection, policy)
        append(connection, record(30))
    sequencer.run_once(NOW)

    rewrite(any_engine, signer, [record(n, job="innocent" if n == 4 else f"job-{n % 5}") for n in range(31)])
    # The database is whole in itself, and the key is the log's: nothing in it can tell …
    assert check(any_engine, signer).ok
    with any_engine.begin() as connection:
        append(connection, record(31))
    Sequencer(any_engine, signer, ORIGIN).run_once(NOW)
    assert check(any_engine, signer).ok
    # … but the witness remembers, and cosigns no other past …
    for old, status in ((30, 422), (0, 409), (31, 409)):
        assert cosigned(any_engine, witness, cosigner, old) == status
    with any_engine.begin() as connection, pytest.raises(UnwitnessedError):
        newest_checkpoint(connection, policy)
    # … and so does whoever kept a checkpoint.
    result = check(any_engine, signer, [kept])
    assert [problem.code.value for problem in result.problems] == ["CONSISTENCY_UNPROVEN"]
    assert open_checkpoint(kept, signer.verifier).size == 30


def test_a_split_view(any_engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build, tmp_path: Path) -> None:
    """Two people are shown two logs of one size, by one key; each is whole; comparing checkpoints tells."""
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    METADATA.create_all(other)
    make_log(any_engine, [10, 10])
    make_log(other, [10, 10])  # other salts: another history already
    notes = []
    for engine in (any_engine, other):
        with engine.begin() as connection:
            notes.append(newest_checkpoint(connection))
        assert check(engine, signer, notes[-1:]).ok
    for engine in (any_engine, other):
        result = check(engine, signer, notes)
        assert [problem.code.value for problem in result.problems] == ["CONSISTENCY_UNPROVEN"]
    # A log that has grown since can only be, or not be, the continuation of what was shown.
    with any_engine.begin() as connection:
        append(connection, record(20))
    Sequencer(any_engine, signer, ORIGIN).run_once(NOW)
    assert check(any_engine, signer, notes[:1]).ok
    assert not check(any_engine, signer, notes[1:]).ok
    other.dispose()


def test_a_checkpoint_of_the_future_put_into_the_database(
    any_engine: Engine, make_log: MakeLog, signer: NoteSigner
) -> None:
    """The stolen key signs more than there is: the entries up to there are missing."""
    make_log(any_engine, [10])
    with any_engine.begin() as connection:
        note = str(Checkpoint(ORIGIN, 12, bytes(32)).sign(signer))
        connection.execute(insert(AUDIT_CHECKPOINT).values(tree_size=12, root_hash=bytes(32), time=NOW, note=note))
    result = check(any_engine, signer)
    assert result.first_bad_index == 10
    assert {problem.code.value for problem in result.problems} >= {"ENTRY_MISSING", "ROOT_MISMATCH", "STATE_ALTERED"}


def test_what_was_erased_cannot_be_put_back_otherwise(
    any_engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build
) -> None:
    sequencer = make_log(any_engine, [10])
    with any_engine.begin() as connection:
        erase(connection, indexes=[4], actor=Actor(role="operator", name="dpo"), time=NOW)
    sequencer.run_once(NOW)
    assert check(any_engine, signer).ok
    with any_engine.begin() as connection:
        invented = record(4, job="innocent")
        set_at(connection, 4, payload=invented.payload(), salt=bytes(32), **projections(invented))
        assert connection.execute(select(AUDIT_STATE)).one()
    result = check(any_engine, signer)
    assert result.first_bad_index == 4
