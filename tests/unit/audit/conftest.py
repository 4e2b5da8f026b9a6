"""Databases, keys and records for the log's tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Engine, create_engine, event

from audit.errors import KeyringError, MalformedError
from audit.keyring import Keyring, bind
from audit.log import append_many
from audit.note import NoteSigner
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from audit.tables import METADATA

ORIGIN = "log.example/keystead"
NOW = 1_800_000_000


def sqlite_engine(path: Path) -> Engine:
    """An engine as the broker opens one: write-ahead log, full synchronisation, BEGIN IMMEDIATE."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@pytest.fixture
def database_path(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


@pytest.fixture
def engine(database_path: Path) -> Iterator[Engine]:
    """An empty SQLite database with the log's tables."""
    engine = sqlite_engine(database_path)
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_engine(request: pytest.FixtureRequest, database_path: Path) -> Iterator[Engine]:
    """The same on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        engine = sqlite_engine(database_path)
    else:
        engine = create_engine(request.getfixturevalue("postgres_database"))
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


class MemoryCustody:
    """A host's key-encryption key, in memory, with the host's way of wrapping; it can be taken away."""

    def __init__(self) -> None:
        self.cipher = AESGCM(bytes(range(32)))
        self.away = False
        self.unwrapped = 0

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Wrap a payload key."""
        if self.away:
            raise KeyringError("custody: away")
        nonce = os.urandom(12)
        return nonce + self.cipher.encrypt(nonce, key, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Open what `wrap` made."""
        if self.away:
            raise KeyringError("custody: away")
        self.unwrapped += 1
        try:
            return self.cipher.decrypt(wrapped[:12], wrapped[12:], context)
        except (InvalidTag, ValueError):
            raise MalformedError("payload key", "does not open") from None


@pytest.fixture
def custody() -> MemoryCustody:
    """A host's key-encryption key."""
    return MemoryCustody()


@pytest.fixture
def new_ring(custody: MemoryCustody) -> Callable[[], Keyring]:
    """Makes the log's keys anew, as each process has them."""
    return lambda: Keyring(custody, origin=ORIGIN)


@pytest.fixture
def keyed(any_engine: Engine, new_ring: Callable[[], Keyring]) -> Engine:
    """An empty database of either kind whose log has keys."""
    return bind(any_engine, new_ring())


@pytest.fixture(scope="session")
def signer() -> NoteSigner:
    return NoteSigner.generate(ORIGIN)


@pytest.fixture(scope="session")
def record() -> Callable[..., Record]:
    """Builds a record; the number makes it differ from others, keywords override fields."""

    def build(number: int = 0, **fields: Any) -> Record:
        base: dict[str, Any] = {
            "kind": Kind.LEASE_GRANTED,
            "time": NOW + number,
            "actor": Actor(role="node", name=f"node-{number % 3}", tenant=None),
            "tenant": "acme",
            "job": f"job-{number % 5}",
            "node": f"node-{number % 3}",
            "hardware": [f"nvidia-gpu:{number % 4:04x}", "amd-chip-id:" + "ab" * 64],
            "site": "hall-1",
            "jurisdiction": "DE",
            "assets": [f"acme/llm@{number % 2 + 1}", "acme/corpus@1"],
            "policy_digest": "11" * 32,
            "input_digest": "22" * 32,
            "result": Result.ALLOWED,
            "lease": f"lease-{number}",
            "detail": {"number": number},
        }
        return Record.build(**base | fields)

    return build


@pytest.fixture(scope="session")
def make_log(signer: NoteSigner, record: Callable[..., Record]) -> Callable[..., Sequencer]:
    """Begins a log in a database, appends batches of records of the given sizes and sequences each batch."""

    def make(engine: Engine, batches: Sequence[int] = ()) -> Sequencer:
        sequencer = Sequencer(engine, signer, ORIGIN)
        sequencer.initialise(NOW)
        number = 0
        for size in batches:
            with engine.begin() as connection:
                append_many(connection, [record(number + offset) for offset in range(size)])
            number += size
            assert sequencer.run_once(NOW + number) == size
        return sequencer

    return make
