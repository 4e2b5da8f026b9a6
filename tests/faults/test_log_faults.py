"""The log while PostgreSQL is killed in the middle of its work: what was committed is sequenced and published, once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer, find_programs
from sqlalchemy import create_engine, select
from sqlalchemy.exc import DBAPIError

from audit.errors import AuditError
from audit.log import append_many
from audit.note import NoteSigner
from audit.publish import publish
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from audit.stores import FileStore
from audit.tables import AUDIT_ENTRY, METADATA
from audit.verify import verify_log
from audit.verify_tiles import verify_tiles

ORIGIN = "log.example/keystead"
NOW = 1_800_000_000
KILLS = 4


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of its own: killing the one that other tests share would fail them."""
    programs = find_programs()
    if programs is None:
        pytest.skip("NO POSTGRESQL: install the Debian package postgresql to run this test")
    server = PostgresServer(programs)
    yield server
    server.stop()


def record(number: int) -> Record:
    return Record.build(
        kind=Kind.LEASE_GRANTED,
        time=NOW + number,
        actor=Actor(role="node", name="node-1"),
        assets=["acme/llm@1"],
        result=Result.ALLOWED,
    )


@pytest.mark.postgres
def test_postgresql_killed_in_mid_batch_loses_and_doubles_nothing(server: PostgresServer, tmp_path: Path) -> None:
    engine = create_engine(server.url(), pool_pre_ping=True)
    METADATA.create_all(engine)
    signer = NoteSigner.generate(ORIGIN)
    Sequencer(engine, signer, ORIGIN).initialise(NOW)
    store_folder = tmp_path / "public"
    answered: list[bytes] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def attempt(work) -> None:
        while not stop.is_set():
            try:
                work()
            except DBAPIError:
                time.sleep(0.02)  # the database is away
            except AuditError as error:
                failures.append(error)
                return

    def write() -> None:
        with engine.begin() as connection:
            entries = append_many(connection, [record(number) for number in range(40)])
        answered.extend(entry.entry_hash for entry in entries)

    sequencers = [Sequencer(engine, signer, ORIGIN, batch=64) for _ in range(2)]
    works = [write, lambda: publish(engine.connect, FileStore(store_folder), signer.verifier)]
    works += [lambda sequencer=sequencer: sequencer.run_once(NOW) for sequencer in sequencers]
    threads = [threading.Thread(target=attempt, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    draw = random.Random(11)
    for _ in range(KILLS):
        before = len(answered)
        deadline = time.monotonic() + 20
        while len(answered) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.random() * 0.3)
        server.kill()
        server.restart()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []

    engine.dispose()
    sequencers[0].run_once(NOW)
    publish(engine.connect, FileStore(store_folder), signer.verifier)
    with engine.connect() as connection:
        sequenced = [bytes(item) for item in connection.scalars(select(AUDIT_ENTRY.c.leaf_hash))]
        result = verify_log(connection, signer.verifier)
    assert result.problems == ()
    assert len(answered) >= 40 * KILLS
    assert set(answered) <= set(sequenced)
    assert len(sequenced) == len(set(sequenced)) == result.entries
    published = verify_tiles(FileStore(store_folder), signer.verifier)
    assert (published.problems, published.entries) == ((), result.entries)
    engine.dispose()
