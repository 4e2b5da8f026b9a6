"""The full check: a whole log passes, and each kind of tampering is named with the right index."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, delete, func, insert, select, text, update

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.envelope import Leaf
from audit.log import append, append_many, erase
from audit.merkle import Frontier, perfect_subtree_hash
from audit.note import NoteSigner
from audit.problems import REMEDIES, ProblemCode
from audit.query import newest_checkpoint
from audit.records import Actor, Record, Result
from audit.sequencer import Sequencer
from audit.tables import (
    AUDIT_ASSET_COUNTER,
    AUDIT_CHECKPOINT,
    AUDIT_ENTRY,
    AUDIT_ENTRY_ASSET,
    AUDIT_ENTRY_HARDWARE,
    AUDIT_ENTRY_REASON,
    AUDIT_STATE,
    AUDIT_TILE,
    AUDIT_TIME_BLOCK,
    METADATA,
)
from audit.verify import MAX_PROBLEMS, LogResult, verify_log

NOW = 1_800_000_000
Build = Callable[..., Record]
MakeLog = Callable[..., Sequencer]
SIZE = 600
BATCHES = (1, 9, 290, 300)
E, T = AUDIT_ENTRY.c, AUDIT_TILE.c


def check(engine: Engine, signer: NoteSigner, known: Sequence[bytes] = ()) -> LogResult:
    with engine.begin() as connection:
        return verify_log(connection, signer.verifier, known=known)


def found(result: LogResult) -> list[tuple[str, int | None]]:
    return [(problem.code.value, problem.index) for problem in result.problems]


def row_at(connection: Connection, index: int) -> Any:
    return connection.execute(select(AUDIT_ENTRY).where(E.leaf_index == index)).one()


def rewrite(connection: Connection, index: int, record: Record) -> bytes:
    """Replace a record with all of its row's hashes, as an insider with write access to the table would."""
    payload, salt = record.payload(), bytes(32)
    leaf = Leaf.commit(salt=salt, payload=payload)
    connection.execute(
        update(AUDIT_ENTRY)
        .where(E.leaf_index == index)
        .values(payload=payload, salt=salt, digest=leaf.digest, leaf_hash=leaf.entry_hash())
    )
    return leaf.entry_hash()


def shift(connection: Connection, start: int, by: int) -> None:
    far = 10_000_000
    connection.execute(update(AUDIT_ENTRY).where(E.leaf_index >= start).values(leaf_index=E.leaf_index + far))
    connection.execute(update(AUDIT_ENTRY).where(E.leaf_index >= far).values(leaf_index=E.leaf_index - far + by))


def delete_row(connection: Connection, index: int) -> None:
    entry_id = row_at(connection, index).id
    for table in (AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE, AUDIT_ENTRY_REASON):
        connection.execute(delete(table).where(table.c.entry_id == entry_id))
    connection.execute(delete(AUDIT_ENTRY).where(E.id == entry_id))


def forge_tiles(connection: Connection) -> None:
    """Recompute every tile from the rows."""
    hashes = [bytes(item) for item in connection.scalars(select(E.leaf_hash).order_by(E.leaf_index))]
    connection.execute(delete(AUDIT_TILE))
    level = 0
    while hashes:
        parts = [hashes[at : at + 256] for at in range(0, len(hashes), 256)]
        rows = [
            {"level": level, "tile_index": n, "width": len(part), "hashes": b"".join(part)}
            for n, part in enumerate(parts)
        ]
        connection.execute(insert(AUDIT_TILE), rows)
        hashes = [perfect_subtree_hash(part) for part in parts if len(part) == 256]
        level += 1


def test_a_whole_log_passes(any_engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build) -> None:
    make_log(any_engine, BATCHES)
    with any_engine.begin() as connection:
        append_many(connection, [record(1000), record(1001)])
        note = newest_checkpoint(connection)
    seen: list[tuple[int, int]] = []
    with any_engine.begin() as connection:
        result = verify_log(
            connection, signer.verifier, known=[note], progress=lambda done, of: seen.append((done, of))
        )
    assert found(result) == []
    assert result.ok
    assert result.first_bad_index is None
    assert (result.entries, result.waiting, tuple(result.erased)) == (SIZE, 2, ())
    assert result.checkpoint == open_checkpoint(note, signer.verifier)
    assert seen[-1] == (SIZE, SIZE)


def test_an_empty_log_passes(any_engine: Engine, make_log: MakeLog, signer: NoteSigner) -> None:
    make_log(any_engine)
    result = check(any_engine, signer)
    assert result.ok
    assert result.entries == 0


@pytest.mark.slow
def test_a_log_of_several_levels_and_chunks_passes(engine: Engine, make_log: MakeLog, signer: NoteSigner) -> None:
    make_log(engine, [700, 1024, 400])
    assert check(engine, signer).ok


def tamper(name: str) -> Callable[[Callable[[Connection, Build], None]], Callable[[Connection, Build], None]]:
    def keep(action: Callable[[Connection, Build], None]) -> Callable[[Connection, Build], None]:
        TAMPERING[name] = action
        return action

    return keep


TAMPERING: dict[str, Callable[[Connection, Build], None]] = {}
EXPECTED: dict[str, list[tuple[str, int | None]]] = {
    "payload altered": [("PAYLOAD_ALTERED", 42)],
    "salt altered": [("PAYLOAD_ALTERED", 42)],
    "short salt": [("PAYLOAD_ALTERED", 42)],
    "payload and digest altered": [("ENTRY_HASH_ALTERED", 42), ("ENTRY_REPLACED", 42)],
    "digest cut": [("ENTRY_HASH_ALTERED", 42)],
    "hash altered": [("ENTRY_HASH_ALTERED", 42)],
    "row rewritten whole": [("PROJECTION_ALTERED", 42)] * 4 + [("ENTRY_REPLACED", 42)],
    "first row rewritten": [("ENTRY_REPLACED", 0)],
    "last row rewritten": [("ENTRY_REPLACED", 599)],
    "removed": [("ENTRY_MISSING", 255)],
    "last removed": [("ENTRY_MISSING", 599)],
    "two swapped": [("ENTRY_MOVED", 3), ("ENTRY_MOVED", 300)],
    "copied over another": [("ENTRY_DUPLICATED", 42)],
    "appended beyond the checkpoint": [("ENTRY_UNSIGNED", 600)],
    "appended far beyond": [("ENTRY_UNSIGNED", 2**62)],
    "column altered": [("PROJECTION_ALTERED", 42)],
    "asset hidden": [("PROJECTION_ALTERED", 42), ("COUNTER_ALTERED", 43)],
    "hardware hidden": [("PROJECTION_ALTERED", 42)],
    "reason added": [("PROJECTION_ALTERED", 42)],
    "times of its block narrowed": [("PROJECTION_ALTERED", 0)],
    "block of its time lost": [("PROJECTION_ALTERED", 0)],
    "counter altered": [("COUNTER_ALTERED", 599), ("COUNTER_ALTERED", None)],
    "total altered": [("COUNTER_ALTERED", None)],
    "erased by hand": [("PROJECTION_ALTERED", 42), ("ERASED_WITHOUT_RECORD", 42)],
    "tile altered": [("TILE_ALTERED", None), ("TILE_ALTERED", None)],
    "partial tile altered": [("TILE_ALTERED", None)],
    "upper tile altered": [("TILE_ALTERED", None)],
    "tile removed": [("TILE_ALTERED", None)],
    "tile cut": [("TILE_ALTERED", None)],
    "tile added": [("TILE_ALTERED", None)],
    "state altered": [("STATE_ALTERED", None)],
    "state shape": [("STATE_ALTERED", None)],
    "state origin": [("STATE_ALTERED", None)],
    "state removed": [("STATE_ALTERED", None)],
    "checkpoint's column altered": [("CHECKPOINT_ALTERED", None)],
    "old checkpoint altered": [("CHECKPOINT_ALTERED", None)],
    "waiting entry altered": [("PAYLOAD_ALTERED", None)],
    "waiting entry no record": [("PAYLOAD_ALTERED", None)],
}


def at(index: int, **values: Any) -> Callable[[Connection, Build], None]:
    def action(connection: Connection, _record: Build) -> None:
        connection.execute(update(AUDIT_ENTRY).where(E.leaf_index == index).values(**values))

    return action


TAMPERING["payload altered"] = at(42, payload=b"{}")
TAMPERING["salt altered"] = at(42, salt=bytes(32))
TAMPERING["short salt"] = at(42, salt=bytes(31))
TAMPERING["hash altered"] = at(42, leaf_hash=bytes(32))
TAMPERING["column altered"] = at(42, tenant="innocent")
TAMPERING["erased by hand"] = at(42, payload=None, salt=None)


@tamper("digest cut")
def _(c: Connection, _record: Build) -> None:
    c.execute(update(AUDIT_ENTRY).where(E.leaf_index == 42).values(digest=bytes(31)))


@tamper("payload and digest altered")
def _(c: Connection, _record: Build) -> None:
    payload = bytes(row_at(c, 42).payload).replace(b'"job":"job-2"', b'"job":"job-9"')
    salt = bytes(row_at(c, 42).salt)
    digest = Leaf.commit(salt=salt, payload=payload).digest
    c.execute(update(AUDIT_ENTRY).where(E.leaf_index == 42).values(payload=payload, digest=digest, job="job-9"))


@tamper("row rewritten whole")
def _(c: Connection, record: Build) -> None:
    rewrite(c, 42, record(42, tenant="evil", job="other", hardware=["nvidia-gpu:ff"], assets=["acme/x@1"]))
    entry_id = row_at(c, 42).id
    c.execute(delete(AUDIT_ENTRY_HARDWARE).where(AUDIT_ENTRY_HARDWARE.c.entry_id == entry_id))


@tamper("first row rewritten")
def _(c: Connection, record: Build) -> None:
    rewrite(c, 0, record(0))


@tamper("last row rewritten")
def _(c: Connection, record: Build) -> None:
    rewrite(c, 599, record(599))


@tamper("removed")
def _(c: Connection, _record: Build) -> None:
    delete_row(c, 255)


@tamper("last removed")
def _(c: Connection, _record: Build) -> None:
    delete_row(c, 599)


@tamper("two swapped")
def _(c: Connection, _record: Build) -> None:
    for old, new in ((3, 10**6), (300, 3), (10**6, 300)):
        c.execute(update(AUDIT_ENTRY).where(E.leaf_index == old).values(leaf_index=new))


@tamper("copied over another")
def _(c: Connection, _record: Build) -> None:
    c.execute(text("DROP INDEX uq_audit_entry_leaf_hash"))
    other = dict(row_at(c, 102)._mapping)
    del other["id"], other["leaf_index"]
    c.execute(update(AUDIT_ENTRY).where(E.leaf_index == 42).values(**other))


@tamper("appended beyond the checkpoint")
def _(c: Connection, record: Build) -> None:
    entry = append(c, record(600))
    c.execute(update(AUDIT_ENTRY).where(E.id == entry.id).values(leaf_index=600))


@tamper("appended far beyond")
def _(c: Connection, record: Build) -> None:
    entry = append(c, record(600))
    c.execute(update(AUDIT_ENTRY).where(E.id == entry.id).values(leaf_index=2**62))


@tamper("asset hidden")
def _(c: Connection, _record: Build) -> None:
    c.execute(
        delete(AUDIT_ENTRY_ASSET).where(
            AUDIT_ENTRY_ASSET.c.entry_id == row_at(c, 42).id, AUDIT_ENTRY_ASSET.c.asset == "acme/corpus"
        )
    )


@tamper("hardware hidden")
def _(c: Connection, _record: Build) -> None:
    c.execute(delete(AUDIT_ENTRY_HARDWARE).where(AUDIT_ENTRY_HARDWARE.c.entry_id == row_at(c, 42).id))


@tamper("reason added")
def _(c: Connection, _record: Build) -> None:
    c.execute(insert(AUDIT_ENTRY_REASON).values(entry_id=row_at(c, 42).id, reason="INVENTED", leaf_index=42))


@tamper("times of its block narrowed")
def _(c: Connection, _record: Build) -> None:
    c.execute(update(AUDIT_TIME_BLOCK).values(earliest=row_at(c, 10).time))


@tamper("block of its time lost")
def _(c: Connection, _record: Build) -> None:
    c.execute(delete(AUDIT_TIME_BLOCK))


@tamper("counter altered")
def _(c: Connection, _record: Build) -> None:
    c.execute(
        update(AUDIT_ENTRY_ASSET)
        .where(AUDIT_ENTRY_ASSET.c.entry_id == row_at(c, 599).id, AUDIT_ENTRY_ASSET.c.asset == "acme/llm")
        .values(counter=700)
    )


@tamper("total altered")
def _(c: Connection, _record: Build) -> None:
    c.execute(update(AUDIT_ASSET_COUNTER).where(AUDIT_ASSET_COUNTER.c.asset == "acme/llm").values(counter=601))


def alter_tile(c: Connection, level: int, index: int) -> None:
    row = c.execute(select(AUDIT_TILE).where(T.level == level, T.tile_index == index)).one()
    data = bytes(row.hashes)
    altered = data[:-1] + bytes([data[-1] ^ 1])
    c.execute(update(AUDIT_TILE).where(T.level == level, T.tile_index == index).values(hashes=altered))


@tamper("tile altered")
def _(c: Connection, _record: Build) -> None:
    alter_tile(c, 0, 1)
    alter_tile(c, 1, 0)


@tamper("partial tile altered")
def _(c: Connection, _record: Build) -> None:
    alter_tile(c, 0, 2)


@tamper("upper tile altered")
def _(c: Connection, _record: Build) -> None:
    alter_tile(c, 1, 0)


@tamper("tile removed")
def _(c: Connection, _record: Build) -> None:
    c.execute(delete(AUDIT_TILE).where(T.level == 0, T.tile_index == 1))


@tamper("tile cut")
def _(c: Connection, _record: Build) -> None:
    c.execute(update(AUDIT_TILE).where(T.level == 0, T.tile_index == 1).values(hashes=bytes(33)))


@tamper("tile added")
def _(c: Connection, _record: Build) -> None:
    c.execute(insert(AUDIT_TILE).values(level=2, tile_index=0, width=1, hashes=bytes(32)))


@tamper("state altered")
def _(c: Connection, _record: Build) -> None:
    c.execute(update(AUDIT_STATE).values(frontier=bytes(32 * SIZE.bit_count())))


@tamper("state shape")
def _(c: Connection, _record: Build) -> None:
    c.execute(update(AUDIT_STATE).values(frontier=b"x"))


@tamper("state origin")
def _(c: Connection, _record: Build) -> None:
    c.execute(update(AUDIT_STATE).values(origin="other.example"))


@tamper("state removed")
def _(c: Connection, _record: Build) -> None:
    c.execute(delete(AUDIT_STATE))


@tamper("checkpoint's column altered")
def _(c: Connection, _record: Build) -> None:
    c.execute(update(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.tree_size == SIZE).values(root_hash=bytes(32)))


@tamper("old checkpoint altered")
def _(c: Connection, _record: Build) -> None:
    note = func.replace(AUDIT_CHECKPOINT.c.note, "\n10\n", "\n11\n")
    c.execute(update(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.tree_size == 10).values(note=note))


@tamper("waiting entry altered")
def _(c: Connection, record: Build) -> None:
    entry = append(c, record(700))
    c.execute(update(AUDIT_ENTRY).where(E.id == entry.id).values(payload=record(701).payload()))


@tamper("waiting entry no record")
def _(c: Connection, record: Build) -> None:
    entry = append(c, record(700))
    c.execute(update(AUDIT_ENTRY).where(E.id == entry.id).values(payload=b"{}"))


def test_every_tampering_has_an_expectation() -> None:
    assert TAMPERING.keys() == EXPECTED.keys()
    assert REMEDIES.keys() == set(ProblemCode)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, signer: NoteSigner, make_log: MakeLog) -> Path:
    """A whole log of SIZE entries, built once; each test alters a copy."""
    path = tmp_path_factory.mktemp("template") / "audit.db"
    engine = create_engine(f"sqlite:///{path}")
    METADATA.create_all(engine)
    make_log(engine, BATCHES)
    engine.dispose()
    return path


@pytest.fixture
def copied(template: Path, tmp_path: Path) -> Iterator[Engine]:
    path = tmp_path / "copied.db"
    shutil.copyfile(template, path)
    engine = create_engine(f"sqlite:///{path}")
    yield engine
    engine.dispose()


@pytest.mark.parametrize("name", EXPECTED)
def test_tampering_is_named_with_its_index(name: str, copied: Engine, signer: NoteSigner, record: Build) -> None:
    engine = copied
    with engine.begin() as connection:
        TAMPERING[name](connection, record)
    result = check(engine, signer)
    assert not result.ok
    expected = EXPECTED[name]
    assert found(result) == expected, [str(problem) for problem in result.problems]
    indexes = [index for _, index in expected if index is not None]
    assert result.first_bad_index == (min(indexes) if indexes else None)
    assert all(problem.remedy in str(problem) for problem in result.problems)


def test_one_removed_and_all_behind_moved_up(copied: Engine, signer: NoteSigner) -> None:
    engine = copied
    with engine.begin() as connection:
        delete_row(connection, 17)
        shift(connection, 18, -1)
    result = check(engine, signer)
    assert found(result)[:3] == [("ENTRY_MISSING", 17), ("ENTRY_MOVED", 18), ("ENTRY_MOVED", 19)]
    assert result.first_bad_index == 17
    assert len(result.problems) == MAX_PROBLEMS
    assert result.more_problems == SIZE - 17 - MAX_PROBLEMS


def test_one_put_in_and_all_behind_moved_down(copied: Engine, signer: NoteSigner, record: Build) -> None:
    engine = copied
    with engine.begin() as connection:
        shift(connection, 590, 1)
        entry = append(connection, record(9999))
        connection.execute(update(AUDIT_ENTRY).where(E.id == entry.id).values(leaf_index=590))
    result = check(engine, signer)
    places = [item for item in found(result) if item[0] != "PROJECTION_ALTERED"]
    assert places == [
        ("ENTRY_INSERTED", 590),
        *(("ENTRY_MOVED", index) for index in range(591, 600)),
        ("ENTRY_UNSIGNED", 600),
    ]


def test_rewritten_with_tiles_and_state_the_signed_roots_still_tell(
    copied: Engine, signer: NoteSigner, record: Build
) -> None:
    engine = copied
    with engine.begin() as connection:
        rewrite(connection, 42, record(42))
        forge_tiles(connection)
        frontier = Frontier().extend(
            bytes(item) for item in connection.scalars(select(E.leaf_hash).order_by(E.leaf_index))
        )
        connection.execute(update(AUDIT_STATE).values(frontier=frontier.to_bytes()))
    result = check(engine, signer)
    # Checkpoints were signed at 1, 10, 300 and 600 entries: the bad entry is from 10 to 299.
    assert found(result) == [("ROOT_MISMATCH", 10), ("STATE_ALTERED", None)]
    assert "between 10 and 299" in result.problems[0].field


def test_rewritten_and_signed_with_another_key(
    engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build
) -> None:
    make_log(engine, [5])
    forger = NoteSigner.generate(signer.verifier.name)
    with engine.begin() as connection:
        rewrite(connection, 2, record(2))
        forge_tiles(connection)
        frontier = Frontier().extend(
            bytes(item) for item in connection.scalars(select(E.leaf_hash).order_by(E.leaf_index))
        )
        note = str(Checkpoint(signer.verifier.name, 5, frontier.root()).sign(forger))
        connection.execute(update(AUDIT_STATE).values(frontier=frontier.to_bytes()))
        connection.execute(
            update(AUDIT_CHECKPOINT)
            .where(AUDIT_CHECKPOINT.c.tree_size == 5)
            .values(note=note, root_hash=frontier.root())
        )
    result = check(engine, signer)
    assert ("CHECKPOINT_ALTERED", None) in found(result)
    assert not check(engine, forger).ok  # the first checkpoint, of size 0, is by the real key


def test_no_checkpoint_at_all(engine: Engine, make_log: MakeLog, signer: NoteSigner) -> None:
    make_log(engine, [5])
    with engine.begin() as connection:
        connection.execute(delete(AUDIT_CHECKPOINT))
    assert found(check(engine, signer)) == [("CHECKPOINT_MISSING", None)]


def test_a_reason_kept_under_another_place(
    any_engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build
) -> None:
    sequencer = make_log(any_engine, [5])
    with any_engine.begin() as connection:
        append(connection, record(5, result=Result.DENIED, reasons=["NO_SITE", "NO_BUDGET"]))
    sequencer.run_once(NOW)
    assert check(any_engine, signer).ok
    with any_engine.begin() as connection:
        connection.execute(
            update(AUDIT_ENTRY_REASON).where(AUDIT_ENTRY_REASON.c.reason == "NO_SITE").values(leaf_index=4)
        )
    result = check(any_engine, signer)
    assert found(result) == [("PROJECTION_ALTERED", 5)]
    assert "place of NO_SITE is 4, expected 5" in str(result.problems[0])


def test_two_entries_at_one_index(engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build) -> None:
    make_log(engine, [5])
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX uq_audit_entry_leaf_index"))
        entry = append(connection, record(9, assets=[], time=NOW))
        connection.execute(update(AUDIT_ENTRY).where(E.id == entry.id).values(leaf_index=3))
    assert found(check(engine, signer)) == [("ENTRY_DUPLICATED", 3)]


def test_a_log_put_back_to_an_older_state_is_found_with_a_known_checkpoint(
    engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build
) -> None:
    sequencer = make_log(engine, [5])
    with engine.begin() as connection:
        state = connection.execute(select(AUDIT_STATE)).mappings().one()
        tiles = connection.execute(select(AUDIT_TILE)).mappings().all()
        totals = connection.execute(select(AUDIT_ASSET_COUNTER)).mappings().all()
        append_many(connection, [record(5), record(6)])
    sequencer.run_once(NOW)
    with engine.begin() as connection:
        known = newest_checkpoint(connection)
        for index in (5, 6):
            delete_row(connection, index)
        connection.execute(delete(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.tree_size == 7))
        for table, rows in ((AUDIT_STATE, [state]), (AUDIT_TILE, tiles), (AUDIT_ASSET_COUNTER, totals)):
            connection.execute(delete(table))
            connection.execute(insert(table), [dict(row) for row in rows])
    assert check(engine, signer).ok  # nothing in the database itself can tell
    result = check(engine, signer, [known])
    assert found(result) == [("LOG_SHORTENED", 5)]


def test_two_histories_are_found_with_a_known_checkpoint(engine: Engine, make_log: MakeLog, signer: NoteSigner) -> None:
    make_log(engine, [5, 5])
    other = str(Checkpoint(signer.verifier.name, 5, bytes(32)).sign(signer)).encode()
    between = str(Checkpoint(signer.verifier.name, 7, bytes(32)).sign(signer)).encode()
    stranger = str(Checkpoint("x.example", 5, bytes(32)).sign(NoteSigner.generate("x.example"))).encode()
    assert found(check(engine, signer, [other])) == [("CONSISTENCY_UNPROVEN", None)]
    assert found(check(engine, signer, [between])) == [("ROOT_MISMATCH", 5)]
    assert found(check(engine, signer, [stranger])) == [("CHECKPOINT_ALTERED", None)]
    assert found(check(engine, signer, [b"no note"])) == [("CHECKPOINT_ALTERED", None)]


def test_erased_entries_stay_proven(any_engine: Engine, make_log: MakeLog, signer: NoteSigner) -> None:
    sequencer = make_log(any_engine, [8])
    with any_engine.begin() as connection:
        erase(connection, indexes=[2, 5], actor=Actor(role="operator", name="dpo"), time=NOW)
    result = check(any_engine, signer)  # the record of the erasure still waits
    assert found(result) == []
    assert tuple(result.erased) == (2, 5)
    sequencer.run_once(NOW)
    result = check(any_engine, signer)
    assert found(result) == []
    assert (tuple(result.erased), result.entries) == ((2, 5), 9)


def test_entries_after_an_erasure_are_counted_on(
    engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build
) -> None:
    sequencer = make_log(engine, [3])
    with engine.begin() as connection:
        erase(connection, indexes=[2], actor=Actor(role="operator", name="dpo"), time=NOW)
        append(connection, record(7))
    sequencer.run_once(NOW)
    assert check(engine, signer).ok
    with engine.begin() as connection:
        counters = connection.scalars(
            select(AUDIT_ENTRY_ASSET.c.counter)
            .where(AUDIT_ENTRY_ASSET.c.asset == "acme/llm")
            .order_by(AUDIT_ENTRY_ASSET.c.counter)
        ).all()
    assert list(counters) == [1, 2, 4]
