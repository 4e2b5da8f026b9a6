"""Pytest plugin: a log in SQLite that grows when it is told to, for tests of what becomes of it outside."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, func, select

from audit.log import append_many
from audit.note import NoteSigner, NoteVerifier
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from audit.tables import AUDIT_CHECKPOINT, METADATA

ORIGIN = "log.example/keystead"
NOW = 1_800_000_000


class GrowingLog:
    """A log with a key of its own."""

    def __init__(self, path: Path, signer: NoteSigner | None = None) -> None:
        self.path = path
        self.signer = NoteSigner.generate(ORIGIN) if signer is None else signer
        self.engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 60})
        # What a disk would do is tested elsewhere.
        event.listen(self.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        event.listen(self.engine, "connect", lambda connection, _: connection.execute("PRAGMA journal_mode=WAL"))
        METADATA.create_all(self.engine)
        self._sequencer = Sequencer(self.engine, self.signer, ORIGIN)
        self._sequencer.initialise(NOW)

    @property
    def key(self) -> NoteVerifier:
        return self.signer.verifier

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def read(self) -> Any:
        return self.engine.connect()

    def grow(self, count: int, name: str = "node-1") -> None:
        with self.engine.begin() as connection:
            append_many(connection, [record(number, name) for number in range(count)])
        self._sequencer.run_once(NOW)

    def size(self) -> int:
        with self.engine.connect() as connection:
            return connection.scalars(select(func.max(AUDIT_CHECKPOINT.c.tree_size))).one()

    def copy(self, path: Path) -> GrowingLog:
        """The same database again, with the same key: from here on the two can differ."""
        with sqlite3.connect(self.path) as source, sqlite3.connect(path) as target:
            source.backup(target)
        for connection in (source, target):
            connection.close()
        return GrowingLog(path, self.signer)

    def close(self) -> None:
        self.engine.dispose()


def record(number: int, name: str) -> Record:
    return Record.build(
        kind=Kind.LEASE_GRANTED,
        time=NOW + number,
        actor=Actor(role="node", name=name),
        assets=["acme/llm@1"],
        result=Result.ALLOWED,
    )


@pytest.fixture
def growing_log(tmp_path: Path) -> Iterator[GrowingLog]:
    """An empty log."""
    log = GrowingLog(tmp_path / "growing.db")
    yield log
    log.close()
