"""A log of any size that the full check accepts, made as fast as a database takes rows.

A fleet of nodes opens leases, renews, returns and loses them; some requests are refused, few by each policy; some
projects are busy and some rare. Payloads are those of `audit.records.Record`, written by formatting, which is a tenth
of the work; a sample of them is compared with what `Record` writes. Rows are copied in in bulk, and the indexes are
made at the end. Everything follows from the number of records, but for the salts and the key.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Engine, Index, insert

from audit.checkpoint import Checkpoint
from audit.envelope import LABEL_LEAF, Leaf
from audit.keyring import FACTORY, Keyring, LiveKey, Scope, scope_of
from audit.log import PROJECTED, projections
from audit.merkle import Frontier
from audit.note import NoteSigner
from audit.payload import seal
from audit.records import Kind, Record
from audit.tables import (
    AUDIT_ASSET_COUNTER,
    AUDIT_CHECKPOINT,
    AUDIT_ENTRY,
    AUDIT_ENTRY_ASSET,
    AUDIT_ENTRY_HARDWARE,
    AUDIT_ENTRY_REASON,
    AUDIT_STATE,
    METADATA,
)
from audit.tiles import integrate
from audit.times import note_times
from keystead.binding import encode

ORIGIN: Final = "bench.example/log"
BEGINS: Final = 1_700_000_000
"""The first record's time, seconds since the Unix epoch; one record follows each second."""

BATCH: Final = 1024
"""Entries under each checkpoint."""

LIFETIME: Final = 3600
"""Seconds that a grant or renewal lasts."""

LONG_LIFETIME: Final = 400_000
"""Seconds that one in a hundred lasts."""

OPEN_LEASES: Final = 2000
NODES: Final = 5000
POLICIES: Final = tuple(f"{number:064x}" for number in range(1, 41))
SITES: Final = (("hall-1", "DE"), ("hall-2", "DE"), ("hall-3", "FR"), ("hall-4", "CH"), ("hall-5", "US-CA"))
TENANTS: Final = ("acme", "globex", "initech")
USERS: Final = 50
REASONS: Final = ("PURPOSE_NOT_ALLOWED", "SITE_NOT_ALLOWED", "TCB_OUT_OF_DATE", "BUDGET_SPENT")
_GPUS: Final = 4
_SAMPLE: Final = 997
_LEAF_HEAD: Final = b"\x00" + encode(LABEL_LEAF, bytes(32))[:-32]


@dataclass(slots=True)
class _Lease:
    name: str
    tenant: int
    job: str
    node: int
    assets: tuple[tuple[str, int], ...]
    policy: str


@dataclass(slots=True)
class Rows:
    """The rows of one batch, in the order of each table's columns in `_COLUMNS`."""

    entries: list[tuple[Any, ...]]
    assets: list[tuple[Any, ...]]
    hardware: list[tuple[Any, ...]]
    reasons: list[tuple[Any, ...]]
    hashes: list[bytes]
    times: list[int]


_COLUMNS: Final = {
    AUDIT_ENTRY: ("id", "leaf_index", "digest", "leaf_hash", "sealed", "key_id", *PROJECTED),
    AUDIT_ENTRY_ASSET: ("entry_id", "asset", "version", "counter"),
    AUDIT_ENTRY_HARDWARE: ("entry_id", "hardware"),
    AUDIT_ENTRY_REASON: ("entry_id", "reason", "leaf_index"),
}


class Fleet:
    """Makes records one after another; what it makes depends on nothing but their number."""

    def __init__(self, keys: Mapping[Scope, LiveKey]) -> None:
        """Start; `keys` seal the payloads of `scopes`."""
        self._keys = keys
        self._draw = random.Random(20)
        self._open: deque[_Lease] = deque()
        self._granted = 0
        self.counters: dict[str, int] = {}

    def batch(self, start: int, count: int) -> Rows:
        """The rows of the entries ``[start, start + count)``."""
        rows = Rows([], [], [], [], [], [])
        for index in range(start, start + count):
            self._add(rows, index)
            rows.times.append(BEGINS + index)
        return rows

    def _grant(self) -> _Lease:
        draw = self._draw
        self._granted += 1
        # Most leases are the first tenant's, most of its assets are used by many jobs, and a few hardly ever.
        tenant = min(int(draw.expovariate(1.6)), len(TENANTS) - 1)
        names = {f"{TENANTS[tenant]}/model-{min(int(draw.expovariate(0.02)), 4000)}"}
        if draw.random() < 0.7:
            names.add(f"{TENANTS[tenant]}/corpus-{int(draw.expovariate(0.3))}")
        return _Lease(
            name=f"lease-{self._granted:08d}",
            tenant=tenant,
            job=f"slurm:{self._granted // 4}",
            node=draw.randrange(NODES),
            assets=tuple((name, 1 + draw.randrange(3)) for name in sorted(names)),
            policy=POLICIES[min(int(draw.expovariate(0.35)), len(POLICIES) - 1)],
        )

    def _add(self, rows: Rows, index: int) -> None:
        draw, opened = self._draw, self._open
        time = BEGINS + index
        chance = draw.random()
        expires: int | None = None
        reasons: tuple[str, ...] = ()
        result = "recorded"
        if chance < 0.08:
            lease, kind, result = self._grant(), "lease.refused", "denied"
            reasons = tuple(sorted(draw.sample(REASONS, 1 + (chance < 0.01))))
        elif chance < 0.11:
            self._put(rows, index, _read(time, draw.randrange(7)))
            return
        elif len(opened) < OPEN_LEASES or chance < 0.30:
            lease, kind, result = self._grant(), "lease.granted", "allowed"
            opened.append(lease)
        elif chance < 0.80:
            lease, kind, result = opened.popleft(), "lease.renewed", "allowed"
            opened.append(lease)
        else:
            lease = opened.popleft()
            kind = "lease.returned" if chance < 0.97 else "lease.expired" if chance < 0.99 else "lease.revoked"
        if result == "allowed":
            expires = time + (LONG_LIFETIME if draw.random() < 0.01 else LIFETIME)
        self._put(rows, index, _use(lease, kind, time=time, result=result, reasons=reasons, expires=expires))

    def _put(self, rows: Rows, index: int, made: _Made) -> None:
        if index % _SAMPLE == 0:
            record = Record.parse(made.payload)
            if tuple(projections(record).values()) != made.projected or scope_of(record) != made.scope:
                raise RuntimeError(f"record {index} is not what it says")
        salt = os.urandom(32)
        digest = sha256(salt + made.payload).digest()
        leaf_hash = sha256(_LEAF_HEAD + digest).digest()
        if index % _SAMPLE == 0 and Leaf(digest).entry_hash() != leaf_hash:
            raise RuntimeError("a leaf has another encoding")
        row = index + 1
        key = self._keys[made.scope]
        sealed = seal(key.cipher, key_id=key.id, entry_hash=leaf_hash, salt=salt, payload=made.payload)
        rows.entries.append((row, index, digest, leaf_hash, sealed, key.id, *made.projected))
        rows.hashes.append(leaf_hash)
        for asset, version in made.assets:
            counter = self.counters[asset] = self.counters.get(asset, 0) + 1
            rows.assets.append((row, asset, version, counter))
        rows.hardware += [(row, item) for item in made.hardware]
        rows.reasons += [(row, item, index) for item in made.reasons]


@dataclass(slots=True)
class _Made:
    scope: Scope
    payload: bytes
    projected: tuple[Any, ...]
    assets: Sequence[tuple[str, int]]
    hardware: Sequence[str]
    reasons: Sequence[str]


def _read(time: int, reader: int) -> _Made:
    """Somebody read the log."""
    payload = (
        f'{{"actor":{{"name":"auditor-{reader}","role":"auditor","tenant":null}},"assets":[],'
        '"detail":{"entries":100},"hardware":[],"input_digest":null,"job":null,"jurisdiction":null,'
        '"kind":"audit.read","lease":null,"node":null,"policy_digest":null,"reasons":[],"result":"recorded",'
        f'"site":null,"tenant":null,"time":{time},"version":1}}'
    )
    kind = Kind.AUDIT_READ.value
    nothing = (None,) * 8
    projected = (kind, time, "auditor", f"auditor-{reader}", None, *nothing[:7], "recorded", *(None,) * 4)
    return _Made(FACTORY, payload.encode(), projected, (), (), ())


def _use(lease: _Lease, kind: str, *, time: int, result: str, reasons: tuple[str, ...], expires: int | None) -> _Made:
    """Something happened to a lease, or to a request for one."""
    tenant, node, (site, jurisdiction) = TENANTS[lease.tenant], f"n{lease.node:05d}", SITES[lease.node % len(SITES)]
    released = result != "recorded"
    hardware = _hardware(lease.node) if released else ()
    name = None if result == "denied" else lease.name
    digest = f"{lease.node:064x}" if released else None
    until = "" if expires is None else f'"expires_at":{expires},'
    user = f"user-{lease.node % USERS}" if released else None
    detail = f'{{{until}"purposes":["train"],"simulated":false,"user":"{user}"}}' if released else "{}"
    assets = ",".join(f'"{asset}@{version}"' for asset, version in lease.assets)
    payload = (
        f'{{"actor":{{"name":"{node}","role":"node","tenant":null}},"assets":[{assets}],"detail":{detail},'
        f'"hardware":[{_quoted(hardware)}],"input_digest":{_or_null(digest)},"job":"{lease.job}",'
        f'"jurisdiction":"{jurisdiction}","kind":"{kind}","lease":{_or_null(name)},"node":"{node}",'
        f'"policy_digest":"{lease.policy}","reasons":[{_quoted(reasons)}],"result":"{result}","site":"{site}",'
        f'"tenant":"{tenant}","time":{time},"version":1}}'
    )
    projected = (
        *(kind, time, "node", node, None, tenant, lease.job, node, site, jurisdiction),
        *(lease.policy, digest, result, name, user, expires),
        None if expires is None else (expires - time).bit_length(),
    )
    return _Made(Scope(tenant, user or ""), payload.encode(), projected, lease.assets, hardware, reasons)


def _hardware(node: int) -> tuple[str, ...]:
    return (f"amd-chip-id:{node:0128x}", *(f"nvidia-gpu:{node:012x}{gpu:04x}" for gpu in range(_GPUS)))


def _quoted(texts: Sequence[str]) -> str:
    return ",".join(f'"{text}"' for text in texts)


def _or_null(text: str | None) -> str:
    return "null" if text is None else f'"{text}"'


def _scopes() -> set[Scope]:
    """Every scope that a record of the fleet is sealed under."""
    users = ["", *(f"user-{number}" for number in range(USERS))]
    return {FACTORY, *(Scope(tenant, user) for tenant in TENANTS for user in users)}


def fill(engine: Engine, records: int, ring: Keyring, signer: NoteSigner | None = None) -> NoteSigner:
    """Make a whole log of `records` entries in an empty database, sealed with `ring`; returns the key that signed it.

    On PostgreSQL statistics are taken and the visibility map is made, as its autovacuum does.
    """
    signer = signer or NoteSigner.generate(ORIGIN)
    METADATA.create_all(engine)
    indexes = [
        index for table in METADATA.sorted_tables for index in table.indexes if table.name != "audit_asset_counter"
    ]
    with engine.begin() as connection:
        for index in indexes:
            index.drop(connection)
    with engine.begin() as connection:
        keys = ring.live_keys(connection, _scopes(), BEGINS)
    fleet, frontier = Fleet(keys), Frontier()
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET synchronous_commit=off")
            connection.commit()
        _sign(connection, frontier, signer, BEGINS)
        for start in range(0, records, BATCH):
            rows = fleet.batch(start, min(BATCH, records - start))
            _copy(connection, rows)
            integrate(connection, size=start, leaf_hashes=rows.hashes)
            note_times(connection, start, rows.times)
            frontier = frontier.extend(rows.hashes)
            _sign(connection, frontier, signer, BEGINS + frontier.size)
            if start // BATCH % 64 == 63:
                connection.commit()
        counters = [{"asset": asset, "counter": counter} for asset, counter in fleet.counters.items()]
        if counters:
            connection.execute(insert(AUDIT_ASSET_COUNTER), counters)
        connection.execute(
            insert(AUDIT_STATE).values(id=1, origin=ORIGIN, tree_size=frontier.size, frontier=frontier.to_bytes())
        )
        connection.commit()
        _make(connection, indexes)
        connection.commit()
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET synchronous_commit=on")
            # The next append must not take a row that is there.
            connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('audit_entry', 'id'), {max(records, 1)})")
        connection.commit()
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    return signer


def _make(connection: Connection, indexes: Sequence[Index]) -> None:
    for index in indexes:
        index.create(connection)


def _sign(connection: Connection, frontier: Frontier, signer: NoteSigner, time: int) -> None:
    checkpoint = Checkpoint(ORIGIN, frontier.size, frontier.root())
    connection.execute(
        insert(AUDIT_CHECKPOINT).values(
            tree_size=frontier.size, root_hash=checkpoint.root, time=time, note=str(checkpoint.sign(signer))
        )
    )


def _copy(connection: Connection, rows: Rows) -> None:
    driver = connection.connection.driver_connection
    values = (rows.entries, rows.assets, rows.hardware, rows.reasons)
    for (table, columns), items in zip(_COLUMNS.items(), values, strict=True):
        names = ", ".join(columns)
        if isinstance(driver, sqlite3.Connection):
            marks = ", ".join("?" * len(columns))
            driver.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", items)
        elif isinstance(driver, psycopg.Connection):
            with driver.cursor().copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
                for item in items:
                    copy.write_row(item)
