"""Appending and sequencing: order, counters, crashes, concurrency, and refusal to sign over damage."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, delete, event, func, insert, select, update
from sqlalchemy.exc import IntegrityError

import audit
from audit.checkpoint import open_checkpoint
from audit.errors import LogCorruptError, MalformedError, NotInitialisedError, RecordError
from audit.log import append, append_many
from audit.merkle import EMPTY_ROOT, Frontier
from audit.note import NoteSigner
from audit.records import Record
from audit.sequencer import Sequencer
from audit.tables import (
    AUDIT_ASSET_COUNTER,
    AUDIT_CHECKPOINT,
    AUDIT_ENTRY,
    AUDIT_ENTRY_ASSET,
    AUDIT_STATE,
    AUDIT_TILE,
    METADATA,
)

ORIGIN = "log.example/keystead"
NOW = 1_800_000_000
APPENDER = Path(__file__).parent / "append_until_killed.py"

Build = Callable[..., Record]
MakeLog = Callable[..., Sequencer]


def indexes(engine: Engine) -> list[int | None]:
    with engine.begin() as connection:
        return list(connection.scalars(select(AUDIT_ENTRY.c.leaf_index).order_by(AUDIT_ENTRY.c.leaf_index)))


def newest(engine: Engine, signer: NoteSigner) -> tuple[int, bytes]:
    with engine.begin() as connection:
        note = connection.scalars(
            select(AUDIT_CHECKPOINT.c.note).order_by(AUDIT_CHECKPOINT.c.tree_size.desc()).limit(1)
        ).one()
    checkpoint = open_checkpoint(note.encode(), signer.verifier)
    return checkpoint.size, checkpoint.root


def test_an_empty_log_begins_with_a_signed_checkpoint(
    any_engine: Engine, make_log: MakeLog, signer: NoteSigner
) -> None:
    sequencer = make_log(any_engine)
    assert newest(any_engine, signer) == (0, EMPTY_ROOT)
    sequencer.initialise(NOW + 1)  # begins nothing twice
    assert sequencer.run_once(NOW + 1) == 0
    with any_engine.begin() as connection:
        assert connection.scalar(select(func.count()).select_from(AUDIT_CHECKPOINT)) == 1


def test_entries_get_dense_indexes_and_the_root_of_their_hashes(
    any_engine: Engine, make_log: MakeLog, signer: NoteSigner
) -> None:
    make_log(any_engine, [1, 3, 300, 1, 260])
    assert indexes(any_engine) == list(range(565))
    with any_engine.begin() as connection:
        hashes = connection.scalars(select(AUDIT_ENTRY.c.leaf_hash).order_by(AUDIT_ENTRY.c.leaf_index)).all()
        sizes = connection.scalars(select(AUDIT_CHECKPOINT.c.tree_size).order_by(AUDIT_CHECKPOINT.c.tree_size)).all()
        widths = connection.execute(
            select(AUDIT_TILE.c.level, AUDIT_TILE.c.tile_index, AUDIT_TILE.c.width).order_by(
                AUDIT_TILE.c.level, AUDIT_TILE.c.tile_index
            )
        ).all()
    assert newest(any_engine, signer) == (565, Frontier().extend(bytes(item) for item in hashes).root())
    assert list(sizes) == [0, 1, 4, 304, 305, 565]
    assert [tuple(row) for row in widths] == [(0, 0, 256), (0, 1, 256), (0, 2, 53), (1, 0, 2)]


def test_every_asset_counts_its_entries(any_engine: Engine, make_log: MakeLog) -> None:
    make_log(any_engine, [4, 7])
    with any_engine.begin() as connection:
        rows = connection.execute(
            select(AUDIT_ENTRY.c.leaf_index, AUDIT_ENTRY_ASSET.c.asset, AUDIT_ENTRY_ASSET.c.counter)
            .join(AUDIT_ENTRY, AUDIT_ENTRY.c.id == AUDIT_ENTRY_ASSET.c.entry_id)
            .order_by(AUDIT_ENTRY_ASSET.c.asset, AUDIT_ENTRY.c.leaf_index)
        ).all()
        totals = {row.asset: row.counter for row in connection.execute(select(AUDIT_ASSET_COUNTER))}
    for asset in ("acme/corpus", "acme/llm"):
        assert [row.counter for row in rows if row.asset == asset] == list(range(1, 12))
    assert totals == {"acme/corpus": 11, "acme/llm": 11}


def test_two_versions_of_one_asset_in_one_entry_count_twice(engine: Engine, make_log: MakeLog, record: Build) -> None:
    sequencer = make_log(engine)
    with engine.begin() as connection:
        append(connection, record(assets=["acme/llm@2", "acme/llm@10"]))
    sequencer.run_once(NOW)
    with engine.begin() as connection:
        rows = connection.execute(select(AUDIT_ENTRY_ASSET.c.version, AUDIT_ENTRY_ASSET.c.counter)).all()
    assert sorted(tuple(row) for row in rows) == [(2, 1), (10, 2)]


def test_a_rolled_back_append_leaves_nothing(any_engine: Engine, make_log: MakeLog, record: Build) -> None:
    sequencer = make_log(any_engine, [2])
    with any_engine.connect() as connection:
        transaction = connection.begin()
        append(connection, record(9))
        transaction.rollback()
    assert sequencer.run_once(NOW) == 0
    assert indexes(any_engine) == [0, 1]


def test_a_transaction_that_commits_late_with_a_low_id_is_not_lost(
    postgres_database: str, make_log: MakeLog, record: Build
) -> None:
    engine = create_engine(postgres_database)
    METADATA.create_all(engine)
    sequencer = make_log(engine, [1])
    with engine.connect() as late:
        transaction = late.begin()
        early = append(late, record(100))
        with engine.begin() as connection:
            after = append(connection, record(101))
        assert early.id < after.id
        assert sequencer.run_once(NOW) == 1
        transaction.commit()
    assert sequencer.run_once(NOW) == 1
    with engine.begin() as connection:
        places = dict(connection.execute(select(AUDIT_ENTRY.c.id, AUDIT_ENTRY.c.leaf_index)).all())
    assert (places[after.id], places[early.id]) == (1, 2)
    engine.dispose()


def test_small_batches_give_the_same_log(engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build) -> None:
    make_log(engine)
    with engine.begin() as connection:
        hashes = [entry.entry_hash for entry in append_many(connection, [record(n) for n in range(10)])]
    assert Sequencer(engine, signer, ORIGIN, batch=3).run_once(NOW) == 10
    assert newest(engine, signer) == (10, Frontier().extend(hashes).root())
    with engine.begin() as connection:
        assert list(connection.scalars(select(AUDIT_CHECKPOINT.c.tree_size))) == [0, 3, 6, 9, 10]


def test_many_writers_and_two_sequencers(
    any_engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build
) -> None:
    make_log(any_engine)
    writers, each, failures = 4, 25, []
    done = threading.Event()

    def write(number: int) -> None:
        for offset in range(each):
            with any_engine.begin() as connection:
                append(connection, record(number * each + offset))

    def sequence() -> None:
        sequencer = Sequencer(any_engine, signer, ORIGIN, batch=7)
        while not done.is_set():
            sequencer.run_once(NOW)
            time.sleep(0.002)
        sequencer.run_once(NOW)

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - shown by the assertion below
                failures.append(error)

        return run

    threads = [threading.Thread(target=guarded(lambda n=n: write(n))) for n in range(writers)]
    sequencers = [threading.Thread(target=guarded(sequence)) for _ in range(2)]
    for thread in threads + sequencers:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    for thread in sequencers:
        thread.join()
    assert failures == []
    assert indexes(any_engine) == list(range(writers * each))
    with any_engine.begin() as connection:
        hashes = connection.scalars(select(AUDIT_ENTRY.c.leaf_hash).order_by(AUDIT_ENTRY.c.leaf_index)).all()
    assert newest(any_engine, signer) == (writers * each, Frontier().extend(bytes(item) for item in hashes).root())


def test_two_replicas_may_begin_the_log_at_once(any_engine: Engine, signer: NoteSigner) -> None:
    failures: list[BaseException] = []
    barrier = threading.Barrier(4)

    def begin() -> None:
        barrier.wait()
        try:
            Sequencer(any_engine, signer, ORIGIN).initialise(NOW)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert newest(any_engine, signer) == (0, EMPTY_ROOT)


def test_killed_in_the_middle_nothing_answered_is_lost(
    engine: Engine, database_path: Path, make_log: MakeLog, signer: NoteSigner
) -> None:
    make_log(engine)
    command = [sys.executable, str(APPENDER), str(database_path), signer.skey()]
    environment = os.environ | {"PYTHONPATH": str(Path(audit.__file__).parents[1])}
    answered: list[str] = []
    for pause in (0.2, 0.3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            answered.append(process.stdout.readline().strip())  # it has started
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read()
        answered += [line for line in rest.split("\n") if len(line) == 64]
    assert len(answered) > 10
    Sequencer(engine, signer, ORIGIN).run_once(NOW)
    with engine.begin() as connection:
        hashes = connection.scalars(select(AUDIT_ENTRY.c.leaf_hash).order_by(AUDIT_ENTRY.c.leaf_index)).all()
    assert set(answered) <= {bytes(item).hex() for item in hashes}
    assert indexes(engine) == list(range(len(hashes)))
    assert newest(engine, signer) == (len(hashes), Frontier().extend(bytes(item) for item in hashes).root())


def test_another_origin_is_refused(engine: Engine, make_log: MakeLog, signer: NoteSigner, record: Build) -> None:
    make_log(engine)
    other = NoteSigner.generate("other.example")
    with pytest.raises(NotInitialisedError, match=r"log\.example/keystead"):
        Sequencer(engine, other, "other.example").initialise(NOW)
    with engine.begin() as connection:
        append(connection, record())
    with pytest.raises(NotInitialisedError, match=r"log\.example/keystead"):
        Sequencer(engine, other, "other.example").run_once(NOW)
    with pytest.raises(MalformedError, match="may not sign"):
        Sequencer(engine, signer, "other.example")


def test_a_log_that_was_not_begun_is_named(engine: Engine, signer: NoteSigner, record: Build) -> None:
    with engine.begin() as connection:
        append(connection, record())
    with pytest.raises(NotInitialisedError, match="keystead init"):
        Sequencer(engine, signer, ORIGIN).run_once(NOW)


def test_entries_may_wait_before_the_log_begins(engine: Engine, signer: NoteSigner, record: Build) -> None:
    with engine.begin() as connection:
        append(connection, record())
    sequencer = Sequencer(engine, signer, ORIGIN)
    sequencer.initialise(NOW)
    assert sequencer.run_once(NOW) == 1


DAMAGE = {
    "frontier": lambda c: c.execute(update(AUDIT_STATE).values(frontier=bytes(32) * 2)),
    "frontier shape": lambda c: c.execute(update(AUDIT_STATE).values(frontier=b"x")),
    "size": lambda c: c.execute(update(AUDIT_STATE).values(tree_size=3)),
    "last checkpoint gone": lambda c: c.execute(delete(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.tree_size == 5)),
    "all checkpoints gone": lambda c: c.execute(delete(AUDIT_CHECKPOINT)),
    "checkpoint altered": lambda c: c.execute(
        update(AUDIT_CHECKPOINT).values(note=func.replace(AUDIT_CHECKPOINT.c.note, "\n5\n", "\n6\n"))
    ),
    "tile gone": lambda c: c.execute(delete(AUDIT_TILE)),
    "tile too wide": lambda c: c.execute(update(AUDIT_TILE).values(width=6, hashes=bytes(32 * 6))),
    "tile of no width": lambda c: c.execute(update(AUDIT_TILE).values(hashes=b"x")),
    "waiting payload altered": lambda c: c.execute(
        update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index.is_(None)).values(payload=b"{}")
    ),
    "waiting payload erased": lambda c: c.execute(
        update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index.is_(None)).values(payload=None, salt=None)
    ),
    "waiting hash altered": lambda c: c.execute(
        update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index.is_(None)).values(leaf_hash=bytes(32))
    ),
    "entry placed by hand": lambda c: c.execute(
        update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index == 0).values(leaf_index=7)
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_nothing_is_signed_over_damage(damage: str, engine: Engine, make_log: MakeLog, record: Build) -> None:
    sequencer = make_log(engine, [5])
    with engine.begin() as connection:
        append(connection, record(5))
        DAMAGE[damage](connection)
        before = connection.scalar(select(func.count()).select_from(AUDIT_CHECKPOINT))
    with pytest.raises(LogCorruptError):
        sequencer.run_once(NOW)
    with engine.begin() as connection:
        assert connection.scalar(select(func.count()).select_from(AUDIT_CHECKPOINT)) == before
        assert connection.scalar(select(func.count()).where(AUDIT_ENTRY.c.leaf_index.is_(None))) == 1


def test_a_place_that_is_taken_is_not_given_twice(engine: Engine, make_log: MakeLog, record: Build) -> None:
    sequencer = make_log(engine, [5])
    with engine.begin() as connection:
        append(connection, record(5))
        connection.execute(update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index == 0).values(leaf_index=5))
    with pytest.raises(IntegrityError):
        sequencer.run_once(NOW)


def test_a_lost_state_row_is_not_begun_anew(engine: Engine, make_log: MakeLog) -> None:
    sequencer = make_log(engine, [2])
    with engine.begin() as connection:
        connection.execute(delete(AUDIT_STATE))
    with pytest.raises(LogCorruptError, match="state row is gone"):
        sequencer.initialise(NOW)


def test_the_same_leaf_twice_is_refused(engine: Engine, make_log: MakeLog) -> None:
    make_log(engine, [1])
    with engine.begin() as connection:
        row = connection.execute(select(AUDIT_ENTRY)).mappings().one()
        with pytest.raises(IntegrityError):
            connection.execute(insert(AUDIT_ENTRY).values(dict(row) | {"id": 99, "leaf_index": 1}))


def test_append_many_keeps_order_and_refuses_too_large_records_whole(
    any_engine: Engine, make_log: MakeLog, record: Build
) -> None:
    make_log(any_engine)
    huge = record(1, detail={f"k{n}": tuple(f"{n} {m} " + "x " * 40 for m in range(40)) for n in range(40)})
    with any_engine.begin() as connection:
        with pytest.raises(RecordError, match="bytes"):
            append_many(connection, [record(0), huge])
        assert append_many(connection, []) == ()
        entries = append_many(connection, [record(n) for n in range(20)])
        rows = connection.execute(select(AUDIT_ENTRY.c.id, AUDIT_ENTRY.c.lease, AUDIT_ENTRY.c.leaf_hash)).all()
    found = {row.id: (row.lease, bytes(row.leaf_hash)) for row in rows}
    assert [found[entry.id] for entry in entries] == [
        (f"lease-{number}", entry.entry_hash) for number, entry in enumerate(entries)
    ]
    assert len(rows) == 20


@pytest.mark.parametrize("count", [1, 300])
def test_a_batch_reads_no_more_of_a_large_log_than_of_a_small_one(
    engine: Engine, make_log: MakeLog, record: Build, count: int
) -> None:
    """SQLite plans without statistics, so that the plan for a small log is that for a large one."""
    sequencer = make_log(engine, [20])
    with engine.begin() as connection:
        append_many(connection, [record(20 + number) for number in range(count)])
    asked: list[tuple[str, Any]] = []
    event.listen(
        engine, "before_cursor_execute", lambda _c, _u, text, values, _x, many: many or asked.append((text, values))
    )
    assert sequencer.run_once(NOW) == count
    statements = [item for item in asked if item[0].startswith(("SELECT", "UPDATE", "INSERT"))]
    with engine.begin() as connection:
        plans = [
            step[-1]
            for text, values in statements
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)
        ]
    assert any("SEARCH named" in step for step in plans)
    assert not [step for step in plans if re.match(r"SCAN (audit_entry|named|placed|waiting)", step)], plans
