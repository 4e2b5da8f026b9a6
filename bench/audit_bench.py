"""Durable appends to the log, against the same rows committed bare with the same batching.

Run it as ``python -m bench audit``; it prints one JSON object for each database. For each batch size (records for
one commit: 1, 64, 1024) four things are timed in turns, by the wall clock, on the same database file or server:

- ``log``: building the record, canonical JSON, salt, hashes, sealing, and all rows inserted and committed;
- ``log_sequenced``: the same, and then sequencing, tiles and a signed checkpoint for all of them;
- ``bare``: the rows of the same records, made beforehand, inserted in the same tables and committed, by the plain
  statement with many values that SQLAlchemy and the drivers offer;
- ``bare_bulk``: the same rows by the statements that the log itself uses (`audit.insert`), which are faster: what is
  left of the difference is what the log adds to rows.

Ratios are taken round by round before their median is: absolute figures of a shared machine say little.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Engine, create_engine, event, insert, make_url

from audit.insert import BulkInsert
from audit.keyring import Keyring, bind
from audit.log import append_many, projections
from audit.note import NoteSigner
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from audit.tables import (
    AUDIT_ENTRY,
    AUDIT_ENTRY_ASSET,
    AUDIT_ENTRY_HARDWARE,
    METADATA,
)
from bench.postgres import database
from keystead.binding import AssetRef

ORIGIN = "bench.example/log"
BATCHES = {1: 200, 64: 12, 1024: 2}
"""Records in one commit, and commits in one round."""

ROUNDS = 7


HARDWARE: Final = ("amd-chip-id:" + "ab" * 64, *(f"nvidia-gpu:{gpu:016x}" for gpu in range(8)))


def build(number: int) -> Record:
    """A lease of a node with eight GPUs on two assets."""
    return Record.build(
        kind=Kind.LEASE_GRANTED,
        time=1_800_000_000 + number,
        actor=Actor(role="node", name="node-17", tenant="acme"),
        tenant="acme",
        job=f"slurm:{number % 97}",
        node="node-17",
        hardware=HARDWARE,
        site="hall-1",
        jurisdiction="DE",
        assets=["acme/corpus@1", "acme/llm@3"],
        policy_digest="11" * 32,
        input_digest="22" * 32,
        result=Result.ALLOWED,
        lease=f"lease-{number}",
        detail={"purposes": ("train",), "number": number},
    )


class Bare(NamedTuple):
    """The rows of one record.

    Attributes:
        entry: of `AUDIT_ENTRY`.
        assets, hardware: of the tables beside it.
    """

    entry: dict[str, Any]
    assets: list[dict[str, Any]]
    hardware: list[dict[str, Any]]


class BareRows:
    """The rows of `build`'s records, made before the clock starts; only keys and random bytes differ."""

    FIRST: Final = 1 << 40
    """Their keys begin here, far from those that a log gives out."""

    def __init__(self) -> None:
        self._next = 0
        self._ready: list[list[Bare]] = []

    @classmethod
    def make(cls, number: int) -> Bare:
        """The rows of one record, as long as sealed ones and with hashes in no order, as a log's are."""
        record, key = build(number), cls.FIRST + number
        row = {
            **projections(record),
            "id": key,
            "digest": os.urandom(32),
            "leaf_hash": os.urandom(32),
            "sealed": os.urandom(60 + len(record.payload())),  # nonce, salt and tag
        }
        refs = [AssetRef.parse(text) for text in record.assets]
        assets = [{"entry_id": key, "asset": ref.asset, "version": ref.version} for ref in refs]
        return Bare(row, assets, [{"entry_id": key, "hardware": item} for item in record.hardware])

    def prepare(self, size: int, commits: int) -> None:
        """Make the rows of one round."""
        self._ready = []
        for _ in range(commits):
            self._ready.append([self.make(number) for number in range(self._next, self._next + size)])
            self._next += size

    def commit_all(self, engine: Engine, put: Put) -> None:
        """Insert them with `put` and commit them, one commit for each batch."""
        for batch in self._ready:
            with engine.begin() as connection:
                put(connection, batch)


Put = Callable[[Connection, list[Bare]], None]
"""Inserts rows and nothing else, in the caller's transaction."""


def insert_bare(connection: Connection, batch: list[Bare]) -> None:
    """Insert rows and nothing else, in the caller's transaction."""
    connection.execute(insert(AUDIT_ENTRY), [bare.entry for bare in batch])
    connection.execute(insert(AUDIT_ENTRY_ASSET), [row for bare in batch for row in bare.assets])
    connection.execute(insert(AUDIT_ENTRY_HARDWARE), [row for bare in batch for row in bare.hardware])


_BULK_ASSETS: Final = BulkInsert(AUDIT_ENTRY_ASSET, "entry_id", "asset", "version")
_BULK_HARDWARE: Final = BulkInsert(AUDIT_ENTRY_HARDWARE, "entry_id", "hardware")


def insert_bare_bulk(connection: Connection, batch: list[Bare]) -> None:
    """The same as `insert_bare` by the log's own statements."""
    connection.execute(insert(AUDIT_ENTRY), [bare.entry for bare in batch])
    _BULK_ASSETS(connection, [tuple(row.values()) for bare in batch for row in bare.assets])
    _BULK_HARDWARE(connection, [tuple(row.values()) for bare in batch for row in bare.hardware])


def sqlite_engine(path: Path) -> Engine:
    """As the broker opens it: write-ahead log, full synchronisation, BEGIN IMMEDIATE."""
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes by the wall clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class MemoryCustody:
    """A key-encryption key in memory, wrapping as a broker's root key does."""

    def __init__(self, secret: bytes | None = None) -> None:
        """With the 32 bytes of `secret`, or fresh ones."""
        self._cipher = AESGCM(secret or AESGCM.generate_key(256))

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Wrap a payload key."""
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, key, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Open what `wrap` made."""
        return self._cipher.decrypt(wrapped[:12], wrapped[12:], context)


def measure(log: Engine, bare: Engine) -> dict[str, Any]:
    """Rates and ratios for each batch size; `log` and `bare` are empty databases of one kind on one device."""
    for engine in (log, bare):
        METADATA.create_all(engine)
    log = bind(log, Keyring(MemoryCustody(), origin=ORIGIN))
    sequencer = Sequencer(log, NoteSigner.generate(ORIGIN), ORIGIN)
    sequencer.initialise(0)
    rows = BareRows()
    number = 0

    def append_all(size: int, commits: int) -> None:
        nonlocal number
        for _ in range(commits):
            with log.begin() as connection:
                append_many(connection, [build(number + offset) for offset in range(size)])
            number += size

    figures: dict[str, Any] = {}
    for size, commits in BATCHES.items():
        seconds: dict[str, list[float]] = {"log": [], "log_sequenced": [], "bare": [], "bare_bulk": []}
        for _ in range(ROUNDS):
            appended = timed(partial(append_all, size, commits))
            sequenced = timed(partial(sequencer.run_once, 0))
            seconds["log"].append(appended)
            seconds["log_sequenced"].append(appended + sequenced)
            for name, put in (("bare", insert_bare), ("bare_bulk", insert_bare_bulk)):
                rows.prepare(size, commits)
                seconds[name].append(timed(partial(rows.commit_all, bare, put)))
        count = size * commits
        figures[f"batch_{size}"] = {
            **{f"{name}_per_second": round(count / statistics.median(taken)) for name, taken in seconds.items()},
            **{
                f"{name}_of_{yardstick}": round(
                    statistics.median(b / a for a, b in zip(seconds[name], seconds[yardstick], strict=True)), 2
                )
                for name in ("log", "log_sequenced")
                for yardstick in ("bare", "bare_bulk")
            },
        }
    return figures


def main() -> int:
    """Measure SQLite, and PostgreSQL where there is one; print the figures."""
    with tempfile.TemporaryDirectory(prefix="keystead-bench-") as name:
        folder = Path(name)
        engines = sqlite_engine(folder / "log.db"), sqlite_engine(folder / "bare.db")
        print(json.dumps({"sqlite": measure(*engines)}, indent=2), flush=True)
        for engine in engines:
            engine.dispose()
    with database() as url:
        if url is not None:
            print(json.dumps({"postgresql": _on_postgres(url)}, indent=2), flush=True)
    return 0


def _on_postgres(url: str) -> dict[str, Any]:
    """One database, two schemas: the tables of the log, and the same tables for the bare rows."""
    address = make_url(url).set(drivername="postgresql+psycopg")
    schemas = ("keystead_bench_log", "keystead_bench_bare")
    admin = create_engine(address)
    with admin.begin() as connection:
        for schema in schemas:
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    admin.dispose()
    made = [create_engine(address, connect_args={"options": f"-csearch_path={schema}"}) for schema in schemas]
    figures = measure(*made)
    for engine in made:
        engine.dispose()
    return figures


if __name__ == "__main__":
    sys.exit(main())
