"""Crypto-erasure: what goes, what stays, what verification takes for erased, and what an interruption leaves."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, Engine, Select, func, select, update
from sqlalchemy.exc import OperationalError

from audit import erasure
from audit.errors import EntryNotFoundError, ErasureError, LogCorruptError, RecordError
from audit.keyring import Keyring, bind
from audit.log import PROJECTED, append, append_many
from audit.note import NoteSigner
from audit.proof import build, verify_bundle
from audit.query import Filter, get, query
from audit.records import Actor, Kind, Record
from audit.sequencer import Sequencer
from audit.tables import (
    AUDIT_ENTRY,
    AUDIT_ENTRY_ASSET,
    AUDIT_ENTRY_HARDWARE,
    AUDIT_ENTRY_REASON,
    AUDIT_ERASURE,
    AUDIT_KEY,
)
from audit.verify import LogResult, verify_log

NOW = 1_800_000_000
OFFICER = Actor(role="operator", name="dpo")
E, K = AUDIT_ENTRY.c, AUDIT_KEY.c
Build = Callable[..., Record]
MakeLog = Callable[..., Sequencer]
NewRing = Callable[[], Keyring]
T = TypeVar("T")


def history(record: Build) -> list[Record]:
    """Of acme 0, 3, 6 …, of its users ada 1, 7 … and eve 4, 10 …, of globex 2, 5, 8 …"""
    made = []
    for number in range(12):
        if number % 3 == 2:
            made.append(record(number, tenant="globex", assets=[f"globex/corpus@{number}"]))
        elif number % 3 == 1:
            made.append(record(number, detail={"user": "ada" if number % 2 else "eve", "marker": f"secret-{number}"}))
        else:
            made.append(record(number, detail={"marker": f"secret-{number}"}))
    return made


def begin(engine: Engine, *, tenant: str = "acme", subject: str = "", reason: str = "contract ended") -> int:
    with engine.begin() as connection:
        return erasure.begin(connection, tenant=tenant, subject=subject, actor=OFFICER, reason=reason, now=NOW)


def destroy(engine: Engine, number: int) -> list[bytes]:
    with engine.begin() as connection:
        measured = erasure.measure(connection, number)
        assert measured is not None
        return [entry.entry_hash for entry in erasure.record(connection, number, measured, now=NOW + 1)]


def clear(engine: Engine, number: int, limit: int = 3) -> int:
    batches = 1
    while True:
        with engine.begin() as connection:
            if erasure.clear(connection, number, limit=limit, now=NOW + 2):
                return batches
        batches += 1


def reads(engine: Engine, statement: Select[Any]) -> bool:
    with engine.begin() as connection:
        return connection.execute(statement).first() is not None


def check(engine: Engine, signer: NoteSigner) -> LogResult:
    with engine.begin() as connection:
        return verify_log(connection, signer.verifier)


def found(result: LogResult) -> list[tuple[str, int | None]]:
    return [(problem.code.value, problem.index) for problem in result.problems]


@pytest.fixture
def told(keyed: Engine, make_log: MakeLog, record: Build) -> tuple[Engine, Sequencer]:
    """A log of two tenants, one with two users."""
    sequencer = make_log(keyed)
    with keyed.begin() as connection:
        append_many(connection, history(record))
    sequencer.run_once(NOW)
    return keyed, sequencer


Told = tuple[Engine, Sequencer]
OF_ACME = [0, 1, 3, 4, 6, 7, 9, 10]
OF_ADA = [1, 7]


@pytest.mark.parametrize(("subject", "gone"), [("", OF_ACME), ("ada", OF_ADA)])
def test_erasure_takes_a_scope_and_leaves_the_rest_and_every_proof(
    told: Told, signer: NoteSigner, record: Build, subject: str, gone: list[int]
) -> None:
    engine, sequencer = told
    before = history(record)
    number = begin(engine, subject=subject)
    hashes = destroy(engine, number)
    assert clear(engine, number) == len(gone) // 3 + 1
    assert sequencer.run_once(NOW) == len(hashes) == 1
    with engine.begin() as connection:
        for index, was in enumerate(before):
            entry = get(connection, index)
            assert entry.erased == (index in gone)
            assert entry.record() == (None if index in gone else was)
            bundle = verify_bundle(build(connection, index), signer.verifier)
            assert bundle.ok
            assert bundle.erased == (index in gone)
        told_of = get(connection, 12).record()
        left = connection.execute(select(AUDIT_ENTRY).where(E.leaf_index.in_(gone))).all()
        names = {*PROJECTED, "salt", "payload", "sealed"}
        assert all(getattr(row, name) is None for row in left for name in names)
        of_gone = [row.id for row in left]
        for table in (AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE, AUDIT_ENTRY_REASON):
            named = select(func.count()).select_from(table).where(table.c.entry_id.in_(of_gone))
            assert connection.execute(named).scalar_one() == 0
        by_tenant = query(connection, Filter(tenant="acme")).entries
        assert [entry.index for entry in by_tenant] == [*sorted({*OF_ACME} - {*gone}), 12]
        assert len(query(connection, Filter(tenant="globex")).entries) == 4
        keys = connection.execute(select(AUDIT_KEY).where(K.erasure_id == number)).all()
        assert all((key.wrapped, key.subject, key.destroyed_at) == (None, "", NOW + 1) for key in keys)
        state = erasure.get(connection, number)
        assert erasure.unfinished(connection) == ()
    assert told_of is not None
    assert (told_of.kind.value, told_of.tenant, told_of.actor) == ("audit.erased", "acme", OFFICER)
    assert told_of.detail["scope"] == ("user" if subject else "tenant")
    assert told_of.detail["entries"] == len(gone) == state.entries
    assert not re.search(r"\bada\b", told_of.payload().decode())  # digests are hexadecimal
    assert sum(key.count for key in erasure.erased_keys(told_of)) == len(gone)
    assert (state.keys, state.entry_hash, state.cleared) == (len(keys), hashes[0], True)
    result = check(engine, signer)
    assert found(result) == []
    assert list(result.erased) == gone


def test_what_is_recorded_afterwards_has_new_keys_and_can_be_erased_again(
    told: Told, signer: NoteSigner, record: Build
) -> None:
    engine, sequencer = told
    first = begin(engine)
    destroy(engine, first)
    clear(engine, first)
    with engine.begin() as connection:
        append(connection, record(50))
    sequencer.run_once(NOW)
    with engine.begin() as connection:
        assert get(connection, 13).record() == record(50)
        assert get(connection, 12).record() is not None
    second = begin(engine)
    assert second != first
    destroy(engine, second)
    clear(engine, second)
    sequencer.run_once(NOW)
    result = check(engine, signer)
    assert (found(result), list(result.erased)) == ([], [*OF_ACME, 13])


def test_entries_that_wait_are_waited_for(told: Told, record: Build) -> None:
    engine, sequencer = told
    with engine.begin() as connection:
        append(connection, record(50))
    number = begin(engine)
    with engine.begin() as connection:
        assert erasure.measure(connection, number) is None
        assert not erasure.get(connection, number).recorded
    sequencer.run_once(NOW)
    assert destroy(engine, number)
    assert destroy(engine, number) == []  # it is done once


def test_what_cannot_be_begun(told: Told, any_engine: Engine, record: Build) -> None:
    engine, _ = told
    for fields, error in (
        ({"tenant": ""}, "factory"),
        ({"tenant": "nobody"}, "no record of tenant 'nobody'"),
        ({"subject": "bob"}, "no record of this user"),
    ):
        with pytest.raises(ErasureError, match=error):
            begin(engine, **fields)
    with pytest.raises(RecordError, match="reason"):
        begin(engine, reason="umlaut \u00fc")
    number = begin(engine)
    assert begin(engine) == number, "the same is being erased already"
    destroy(engine, number)
    with pytest.raises(ErasureError, match="already"):
        begin(engine)
    with engine.begin() as connection:
        assert connection.execute(select(func.count()).select_from(AUDIT_ERASURE)).scalar_one() == 1
        with pytest.raises(EntryNotFoundError):
            erasure.get(connection, 99)
        with pytest.raises(EntryNotFoundError):
            erasure.record(connection, 99, [], now=NOW)
    other = begin(engine, tenant="globex")
    with engine.begin() as connection, pytest.raises(ErasureError, match="other keys"):
        erasure.record(connection, other, [], now=NOW)


def test_records_in_the_clear_hold_an_erasure_up(any_engine: Engine, new_ring: NewRing, record: Build) -> None:
    with any_engine.begin() as connection:
        append(connection, record(0))
    with bind(any_engine, new_ring()).begin() as connection:
        append(connection, record(1))
    with pytest.raises(ErasureError, match="not sealed yet"):
        begin(any_engine)


def test_many_keys_make_several_records(
    told: Told, signer: NoteSigner, record: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, sequencer = told
    monkeypatch.setattr(erasure, "KEYS_IN_RECORD", 2)
    number = begin(engine)
    assert len(destroy(engine, number)) == 2
    sequencer.run_once(NOW)
    result = check(engine, signer)
    assert (found(result), list(result.erased)) == ([], OF_ACME), "before columns are cleared, too"
    most = [erasure.ErasedKey("ab" * 16, 10**15, bytes(32))] * 256
    full = record(0, detail={erasure.ERASED_KEYS: tuple(str(key) for key in most), "reason": "x" * 512})
    assert len(full.payload()) < 64 * 1024
    assert list(erasure.erased_keys(full)) == most


def test_a_writer_with_a_stale_key_takes_a_new_one_and_readers_see_the_erasure_at_once(
    told: Told, any_engine: Engine, new_ring: NewRing, record: Build, signer: NoteSigner
) -> None:
    engine, sequencer = told
    other = bind(any_engine, new_ring())
    with other.begin() as connection:
        append(connection, record(50))
        assert get(connection, 0).record() is not None
    sequencer.run_once(NOW)
    number = begin(engine)
    with other.begin() as connection:
        append(connection, record(51))
        assert get(connection, 0).record() is not None, "a retired key still opens"
    destroy(engine, number)
    with other.begin() as connection:
        append(connection, record(52))
        assert get(connection, 0).erased, "though its key is in this process's memory"
        assert get(connection, 12).erased
    sequencer.run_once(NOW)
    clear(engine, number)
    with other.begin() as connection:
        records = [get(connection, index).record() for index in (13, 14, 15)]
    assert {each.kind.value for each in records if each} == {"lease.granted", "audit.erased"}
    result = check(engine, signer)
    assert (found(result), list(result.erased)) == ([], [*OF_ACME, 12])


def relabel(connection: Connection) -> None:
    """Another entry is passed off as erased with the rest."""
    gone = connection.execute(select(E.key_id).where(E.leaf_index == 0)).scalar_one()
    connection.execute(update(AUDIT_ENTRY).where(E.leaf_index == 2).values(key_id=gone))


def relabel_cleared(connection: Connection) -> None:
    """So is one whose columns are gone, too."""
    relabel(connection)
    row_id = connection.execute(select(E.id).where(E.leaf_index == 2)).scalar_one()
    connection.execute(update(AUDIT_ENTRY).where(E.id == row_id).values(sealed=None, **dict.fromkeys(PROJECTED)))
    for table in (AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE, AUDIT_ENTRY_REASON):
        connection.execute(table.delete().where(table.c.entry_id == row_id))


def drop_key(connection: Connection) -> None:
    """The keys of another tenant are destroyed, and nothing says so."""
    connection.execute(update(AUDIT_KEY).where(K.tenant == "globex").values(wrapped=None))


def drop_payload(connection: Connection) -> None:
    row_id = connection.execute(select(E.id).where(E.leaf_index == 5)).scalar_one()
    connection.execute(update(AUDIT_ENTRY).where(E.id == row_id).values(sealed=None, **dict.fromkeys(PROJECTED)))
    for table in (AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE):
        connection.execute(table.delete().where(table.c.entry_id == row_id))


def keep_columns(connection: Connection) -> None:
    connection.execute(update(AUDIT_ENTRY).where(E.leaf_index == 3).values(node="node-1"))


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (relabel, [("ERASED_WITHOUT_RECORD", 0)]),
        (relabel_cleared, [("ERASED_WITHOUT_RECORD", 0)]),
        (drop_key, [("ERASED_WITHOUT_RECORD", 2)]),
        (drop_payload, [("ERASED_WITHOUT_RECORD", 5)]),
        (keep_columns, [("PROJECTION_ALTERED", 3)]),
    ],
)
def test_what_an_insider_passes_off_as_erased_is_found(
    told: Told, signer: NoteSigner, tamper: Callable[[Connection], None], expected: list[tuple[str, int]]
) -> None:
    engine, sequencer = told
    number = begin(engine)
    destroy(engine, number)
    clear(engine, number)
    sequencer.run_once(NOW)
    assert found(check(engine, signer)) == []
    with engine.begin() as connection:
        tamper(connection)
    assert found(check(engine, signer)) == expected


def test_a_record_of_an_erasure_cannot_be_repeated_to_cover_more(told: Told, record: Build, signer: NoteSigner) -> None:
    """What is said of a key later counts nothing, and a malformed line names no key."""
    engine, sequencer = told
    number = begin(engine, subject="ada")
    destroy(engine, number)
    with engine.begin() as connection:
        gone = connection.execute(select(E.key_id).where(E.leaf_index == 1)).scalar_one()
        connection.execute(update(AUDIT_ENTRY).where(E.leaf_index == 2).values(key_id=gone))
        measured = erasure.measure(connection, number)
        assert measured is not None
        again = {erasure.ERASED_KEYS: (*(str(key) for key in measured), "junk", f"{gone} 01 {'0' * 64}")}
        append(connection, record(60, kind=Kind.AUDIT_ERASED, detail=again))
    sequencer.run_once(NOW)
    assert found(check(engine, signer)) == [("ERASED_WITHOUT_RECORD", 1)]


def test_an_erased_tenants_file_holds_nothing_of_it(
    engine: Engine, database_path: Path, make_log: MakeLog, record: Build, new_ring: NewRing
) -> None:
    bound = bind(engine, new_ring())
    sequencer = make_log(bound)
    with bound.begin() as connection:
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
        append_many(connection, [record(0, job="marked-job", hardware=["nvidia-gpu:beefbeef"], detail={"user": "zoe"})])
        append_many(connection, [record(1)])
        wrapped = connection.execute(select(K.wrapped).where(K.subject == "zoe")).scalar_one()
        sealed = connection.execute(select(E.sealed).where(E.job == "marked-job")).scalar_one()
    sequencer.run_once(NOW)
    engine.dispose()
    marks = (b"marked-job", b"nvidia-gpu:beefbeef", b"zoe", wrapped, sealed)
    assert all(mark in database_path.read_bytes() for mark in marks)
    with bound.begin() as connection:
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
        number = erasure.begin(connection, tenant="acme", subject="zoe", actor=OFFICER, reason="r 1", now=NOW)
        measured = erasure.measure(connection, number)
        assert measured is not None
        erasure.record(connection, number, measured, now=NOW)
        assert erasure.clear(connection, number, limit=10, now=NOW)
    engine.dispose()
    with sqlite3.connect(database_path) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    wal = database_path.with_name(database_path.name + "-wal")
    data = database_path.read_bytes() + (wal.read_bytes() if wal.exists() else b"")
    assert [mark for mark in marks if mark in data] == []


DEADLOCK = "40P01"
"""PostgreSQL's deadlock_detected: a writer that draws a key may wait for the erasure that waits for it."""


def run_again(transaction: Callable[[], T]) -> T:
    """Run a transaction until it meets no deadlock, as the broker's committer does."""
    while True:
        try:
            return transaction()
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != DEADLOCK:
                raise


def test_an_append_and_an_erasure_that_race_leave_nothing_under_a_destroyed_key(
    told: Told, any_engine: Engine, new_ring: NewRing, record: Build, signer: NoteSigner
) -> None:
    engine, sequencer = told
    stop = threading.Event()
    failed: list[BaseException] = []

    def append_two(other: Engine, number: int) -> None:
        with other.begin() as connection:
            append_many(connection, [record(number), record(number, detail={"user": "ada"})])

    def write(start: int) -> None:
        other = bind(any_engine, new_ring())
        number = start
        try:
            while not stop.is_set():
                run_again(partial(append_two, other, number))
                number += 1
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=write, args=(start,)) for start in (1_000, 2_000)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(4):
            live = select(K.id).where(K.tenant == "acme", K.retired_at.is_(None))
            until = time.monotonic() + 30
            while not reads(engine, live) and time.monotonic() < until:
                time.sleep(0.01)  # until a writer has come between
            number = run_again(lambda: begin(engine))
            sequencer.run_once(NOW)
            destroy(engine, number)
            clear(engine, number, limit=50)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed
    sequencer.run_once(NOW)
    assert found(check(engine, signer)) == []


SCRIPT = Path(__file__).with_name("erase_until_killed.py")


@pytest.mark.slow
def test_a_process_killed_while_it_erases_leaves_a_log_that_another_finishes(
    told: Told, any_engine: Engine, signer: NoteSigner, new_ring: NewRing, record: Build
) -> None:
    engine, sequencer = told
    with engine.begin() as connection:
        append_many(connection, [record(100 + number) for number in range(300)])
    sequencer.run_once(NOW)
    stages: set[tuple[bool, bool]] = set()
    url = any_engine.url.render_as_string(hide_password=False)
    for step in ("begun", "recorded", "clearing"):
        number = begin(engine)
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), url, str(number), step], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline().strip() == step.encode(), process.stderr and process.stderr.read()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        with engine.begin() as connection:
            (state,) = erasure.unfinished(connection)
        stages.add((state.recorded, state.cleared))
        assert found(check(engine, signer)) == []
        if not state.recorded:
            destroy(engine, number)
        clear(engine, number, limit=100)
        with engine.begin() as connection:
            append_many(connection, [record(1_000 + each) for each in range(300)])
        sequencer.run_once(NOW)
        assert found(check(engine, signer)) == []
    assert stages == {(False, False), (True, False)}


def test_what_is_gone_is_not_given_a_place(told: Told, record: Build) -> None:
    engine, sequencer = told
    with engine.begin() as connection:
        append(connection, record(50))
        connection.execute(update(AUDIT_KEY).values(wrapped=None))
    with pytest.raises(LogCorruptError, match="payload is not under its digest"):
        sequencer.run_once(NOW)


def test_numbers_of_an_erasure(told: Told) -> None:
    engine, _ = told
    number = begin(engine)
    with engine.begin() as connection:
        measured: Any = erasure.measure(connection, number)
    assert sorted(key.count for key in measured) == [2, 2, 4]
