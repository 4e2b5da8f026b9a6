"""Durable appends to the log, against the same rows committed bare with the same batching.

Run it as ``python -m bench.audit_bench [POSTGRESQL-URL]``; it prints one JSON object. For each batch size (records for
one commit: 1, 64, 1024) three things are timed in turns, by the wall clock, on the same database file or server:

- ``log``: building the record, canonical JSON, salt, hashes, sealing, and all rows inserted and committed;
- ``log_sequenced``: the same, and then sequencing, tiles and a signed checkpoint for all of them;
- ``bare``: rows of the same payload sizes, made beforehand, inserted in the same tables and committed.

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
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Engine, create_engine, event, insert

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
from keystead.binding import AssetRef

ORIGIN = "bench.example/log"
BATCHES = {1: 200, 64: 12, 1024: 2}
"""Records in one commit, and commits in one round."""

ROUNDS = 7


def build(number: int) -> Record:
    """A lease of a node with eight GPUs on two assets."""
    return Record.build(
        kind=Kind.LEASE_GRANTED,
        time=1_800_000_000 + number,
        actor=Actor(role="node", name="node-17", tenant="acme"),
        tenant="acme",
        job=f"slurm:{number % 97}",
        node="node-17",
        hardware=["amd-chip-id:" + "ab" * 64, *(f"nvidia-gpu:{gpu:016x}" for gpu in range(8))],
        site="hall-1",
        jurisdiction="DE",
        assets=["acme/corpus@1", "acme/llm@3"],
        policy_digest="11" * 32,
        input_digest="22" * 32,
        result=Result.ALLOWED,
        lease=f"lease-{number}",
        detail={"purposes": ("train",), "number": number},
    )


class BareRows:
    """Rows like those of `build`'s record, made before the clock starts; only their keys differ."""

    FIRST: Final = 1 << 40
    """Their keys begin here, far from those that a log gives out."""

    def __init__(self) -> None:
        record = build(0)
        # A sealed payload is longer by its nonce, salt and tag.
        self._row = projections(record) | {"digest": bytes(32), "sealed": bytes(60) + record.payload()}
        self._assets = [AssetRef.parse(text) for text in record.assets]
        self._hardware = record.hardware
        self._next = self.FIRST
        self._ready: list[list[dict[str, Any]]] = []

    def prepare(self, size: int, commits: int) -> None:
        """Make the rows of one round."""
        self._ready = []
        for _ in range(commits):
            ids = range(self._next, self._next + size)
            self._next += size
            self._ready.append([self._row | {"id": n, "leaf_hash": n.to_bytes(32, "big")} for n in ids])

    def insert_one(self, connection: Connection, number: int) -> None:
        """Insert the rows of one record under a key of their own, in the caller's transaction."""
        key = self.FIRST + number
        connection.execute(insert(AUDIT_ENTRY), self._row | {"id": key, "leaf_hash": key.to_bytes(32, "big")})
        assets = [{"entry_id": key, "asset": ref.asset, "version": ref.version} for ref in self._assets]
        connection.execute(insert(AUDIT_ENTRY_ASSET), assets)
        connection.execute(
            insert(AUDIT_ENTRY_HARDWARE), [{"entry_id": key, "hardware": item} for item in self._hardware]
        )

    def commit_all(self, engine: Engine) -> None:
        """Insert and commit them, one commit for each batch."""
        for rows in self._ready:
            assets = [
                {"entry_id": row["id"], "asset": ref.asset, "version": ref.version}
                for row in rows
                for ref in self._assets
            ]
            hardware = [{"entry_id": row["id"], "hardware": text} for row in rows for text in self._hardware]
            with engine.begin() as connection:
                connection.execute(insert(AUDIT_ENTRY), rows)
                connection.execute(insert(AUDIT_ENTRY_ASSET), assets)
                connection.execute(insert(AUDIT_ENTRY_HARDWARE), hardware)


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

    def __init__(self) -> None:
        self._cipher = AESGCM(AESGCM.generate_key(256))

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
        seconds: dict[str, list[float]] = {"log": [], "log_sequenced": [], "bare": []}
        for _ in range(ROUNDS):
            rows.prepare(size, commits)
            appended = timed(partial(append_all, size, commits))
            sequenced = timed(partial(sequencer.run_once, 0))
            seconds["log"].append(appended)
            seconds["log_sequenced"].append(appended + sequenced)
            seconds["bare"].append(timed(partial(rows.commit_all, bare)))
        count = size * commits
        figures[f"batch_{size}"] = {
            **{f"{name}_per_second": round(count / statistics.median(taken)) for name, taken in seconds.items()},
            **{
                f"{name}_of_bare": round(
                    statistics.median(b / a for a, b in zip(seconds[name], seconds["bare"], strict=True)), 2
                )
                for name in ("log", "log_sequenced")
            },
        }
    return figures


def main(arguments: list[str]) -> int:
    """Measure SQLite, and PostgreSQL where a URL names two empty databases' server; print the figures."""
    with tempfile.TemporaryDirectory(prefix="keystead-bench-") as name:
        folder = Path(name)
        engines = sqlite_engine(folder / "log.db"), sqlite_engine(folder / "bare.db")
        figures = {"sqlite": measure(*engines)}
        for engine in engines:
            engine.dispose()
    if arguments:
        url = arguments[0]
        # One server, two schemas: the tables of the log, and the same tables for the bare rows.
        schemas = ("keystead_bench_log", "keystead_bench_bare")
        admin = create_engine(url)
        with admin.begin() as connection:
            for schema in schemas:
                connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        try:
            made = [create_engine(url, connect_args={"options": f"-csearch_path={schema}"}) for schema in schemas]
            figures["postgresql"] = measure(*made)
            for engine in made:
                engine.dispose()
        finally:
            with admin.begin() as connection:
                for schema in schemas:
                    connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
            admin.dispose()
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
