"""Enrolling many nodes, all or none.

Nodes are *staged* while they arrive, in a private temporary file: checked one by one, then against each other and
against the estate. Only when nothing speaks against any of them are they enrolled, in one transaction. A million lines
with one that is wrong change nothing, and the line is named. Memory stays bounded: what is staged lies in a temporary
SQLite database, which is gone with the call, however it ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import Connection

from audit.log import append, append_many
from audit.records import MAX_ITEMS, Kind, Record, Result
from keybroker.broker import actor
from keybroker.errors import InvalidRequestError, NotFoundError
from keybroker.estate import enrolment_record
from keybroker.principals import Principal
from keybroker.store import nodes, sites
from keybroker.store.nodes import CPU_SLOT, DeviceRow, NodeRow
from keybroker.store.schema import Custody, NodeState
from keybroker.store.sites import SiteRow
from keystead.binding import u64

MAX_DEVICES: Final = 4_000_000
"""Devices of one import."""

MAX_PROBLEMS: Final = 100
"""Problems that are told one by one; the rest is counted."""

BATCH: Final = 5_000
"""Devices that are read and written at a time."""

_SCHEMA: Final = """
CREATE TABLE node (seq INTEGER PRIMARY KEY, line INTEGER, node_id TEXT, site_id TEXT, cpu TEXT, partition TEXT,
                   devices INTEGER, row TEXT);
CREATE TABLE device (identity TEXT, partition TEXT, seq INTEGER, line INTEGER, slot TEXT);
CREATE TABLE problem (line INTEGER, field TEXT, code TEXT, message TEXT);
"""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Why a node cannot be enrolled.

    Attributes:
        line: of the file, from 1.
        field: what of it.
        code: a stable code.
        message: what is wrong.
    """

    line: int
    field: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an import.

    Attributes:
        nodes: how many were enrolled; or would have been, where nothing was to be changed.
        devices: how many they have.
        problems: the first `MAX_PROBLEMS` by line; where there is any, nothing was changed.
        problem_count: how many there are.
        cloned: identities that are enrolled already, the first of them, to be raised.
    """

    nodes: int
    devices: int
    problems: tuple[Problem, ...]
    problem_count: int
    cloned: tuple[str, ...] = ()


class Staging:
    """What an import brings, before any of it is enrolled. A context manager; not to be shared between threads.

    Attributes:
        nodes: how many are staged.
        devices: how many they have.
    """

    def __init__(self) -> None:
        self.nodes = 0
        self.devices = 0
        self._digest = hashlib.sha256()
        self._folder = tempfile.TemporaryDirectory(prefix="keystead-import-")
        # `enrol` runs in the thread that commits, while the one that staged waits for it.
        self._store = sqlite3.connect(
            Path(self._folder.name, "staging.db"), isolation_level=None, check_same_thread=False
        )
        # Nothing of it outlives the call, so nothing needs to survive a crash.
        self._store.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_SCHEMA} BEGIN;")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what is staged."""
        self._store.close()
        self._folder.cleanup()

    def digest(self) -> bytes:
        """SHA-256 over everything that was staged, in its order."""
        return self._digest.digest()

    def add(self, line: int, row: NodeRow, *, device_lines: Sequence[int] = ()) -> None:
        """Stage a node that was checked by itself.

        Args:
            line: where it begins.
            row: the node.
            device_lines: where each of its devices stands, in the order of `row.devices`; at `line` where empty.

        Raises:
            InvalidRequestError: too many devices for one import.
        """
        self.devices += len(row.devices)
        if self.devices > MAX_DEVICES:
            raise InvalidRequestError("nodes", f"more than {MAX_DEVICES} devices: import them in parts")
        text = _encode(row)
        self._digest.update(u64(len(text)) + text.encode("ascii"))
        self._store.execute(
            "INSERT INTO node VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (self.nodes, line, row.node_id, row.site_id, row.cpu, row.partition, len(row.devices), text),
        )
        lines = device_lines or [line] * len(row.devices)
        self._store.executemany(
            "INSERT INTO device VALUES (?, ?, ?, ?, ?)",
            [
                (device.identity, row.partition if device.slot == CPU_SLOT else "", self.nodes, at, device.slot)
                for device, at in zip(row.devices, lines, strict=True)
            ],
        )
        self.nodes += 1

    def refuse(self, line: int, field: str, code: str, message: str) -> None:
        """Note a problem; the import will change nothing."""
        self._digest.update(b"refused")
        self._store.execute("INSERT INTO problem VALUES (?, ?, ?, ?)", (line, field, code, message))

    def check(self, connection: Connection) -> Imported:
        """Hold what is staged against itself and against the estate; returns what would become of it."""
        self._check_itself()
        self._check_sites(connection)
        cloned = self._check_estate(connection)
        (count,) = self._store.execute("SELECT count(*) FROM problem").fetchone()
        found = self._store.execute("SELECT * FROM problem ORDER BY line, field LIMIT ?", (MAX_PROBLEMS,))
        return Imported(
            nodes=self.nodes,
            devices=self.devices,
            problems=tuple(Problem(*row) for row in found),
            problem_count=count,
            cloned=cloned,
        )

    def enrol(self, connection: Connection, *, caller: Principal, now: int) -> None:
        """Enrol all of it; a unit of work. `check` found nothing against it.

        Raises:
            StateConflictError, NotFoundError: the estate changed since; nothing is kept.
        """
        at: dict[str, SiteRow] = {}
        for batch in self._batches():
            rows = [_decode(text, now=now) for text in batch]
            for row in rows:
                if row.site_id not in at:
                    at[row.site_id] = sites.get(connection, row.site_id)
            nodes.insert_all(connection, rows)
            append_many(connection, [enrolment_record(row, at[row.site_id], caller=caller, now=now) for row in rows])
        names = sorted(at)
        append(
            connection,
            Record.build(
                kind=Kind.NODES_IMPORTED,
                time=now,
                actor=actor(caller),
                result=Result.RECORDED,
                detail={
                    "nodes": self.nodes,
                    "devices": self.devices,
                    "sites": tuple(names[:MAX_ITEMS]),
                    "nodes_digest": self.digest().hex(),
                },
            ),
        )

    def _check_itself(self) -> None:
        """Names and identities that are there twice, and hosts that are one node and several."""
        self._store.executescript(
            """
            CREATE INDEX node_by_name ON node (node_id);
            CREATE INDEX node_by_cpu ON node (cpu);
            CREATE INDEX device_by_identity ON device (identity, partition);
            INSERT INTO problem
              SELECT node.line, 'node_id', 'ALREADY_EXISTS',
                     'node ' || node.node_id || ' is there before, at line ' || first
              FROM (SELECT node_id AS name, min(seq) AS seq, min(line) AS first FROM node GROUP BY node_id
                    HAVING count(*) > 1) AS doubled
              JOIN node ON node.node_id = doubled.name AND node.seq > doubled.seq;
            INSERT INTO problem
              SELECT device.line, 'devices.' || device.slot, 'IDENTITY_ENROLLED',
                     device.identity || ' is there before, at line ' || first || ': a device belongs to one node'
              FROM (SELECT identity AS name, partition AS part, min(rowid) AS row, min(line) AS first FROM device
                    GROUP BY identity, partition HAVING count(*) > 1) AS doubled
              JOIN device ON device.identity = doubled.name AND device.partition = doubled.part
                         AND device.rowid > doubled.row;
            INSERT INTO problem
              SELECT node.line, 'partition', 'IDENTITY_ENROLLED',
                     'the host ' || node.cpu || ' is a node by itself here and divided into partitions there: '
                     || 'name a partition for each of its nodes, or enrol it as one'
              FROM (SELECT cpu AS host, min(seq) AS seq FROM node GROUP BY cpu
                    HAVING count(DISTINCT partition = '') > 1) AS mixed
              JOIN node ON node.cpu = mixed.host AND node.seq > mixed.seq;
            """
        )

    def _check_sites(self, connection: Connection) -> None:
        for (name,) in self._store.execute("SELECT DISTINCT site_id FROM node").fetchall():
            try:
                sites.get(connection, name)
            except NotFoundError as error:
                self._store.execute(
                    "INSERT INTO problem SELECT line, 'site_id', ?, ? FROM node WHERE site_id = ?",
                    (error.code, str(error), name),
                )

    def _check_estate(self, connection: Connection) -> tuple[str, ...]:
        """Names, identities and hosts that are taken; returns the first identities among them."""
        cloned: list[str] = []
        for rows in _chunks(self._store.execute("SELECT node_id, line FROM node ORDER BY seq")):
            taken = nodes.taken(connection, [name for name, _ in rows])
            for name, line in rows:
                if name in taken:
                    self.refuse(line, "node_id", "ALREADY_EXISTS", f"node {name} is enrolled already")
        for rows in _chunks(
            self._store.execute("SELECT identity, partition, slot, line FROM device ORDER BY seq, slot")
        ):
            owners = nodes.enrolments(connection, [row[0] for row in rows])
            for identity, partition, slot, line in rows:
                if any(owner.partition == partition for owner in owners.get(identity, ())):
                    cloned += [identity] if len(cloned) < MAX_ITEMS else []
                    self.refuse(
                        line,
                        f"devices.{slot}",
                        "IDENTITY_ENROLLED",
                        f"{identity} is enrolled already: a device belongs to one node, for ever",
                    )
        for rows in _chunks(self._store.execute("SELECT cpu, partition, line FROM node WHERE cpu != '' ORDER BY seq")):
            divided = nodes.divided_hosts(connection, [row[0] for row in rows])
            for cpu, partition, line in rows:
                if divided.get(cpu, partition != "") != (partition != ""):
                    problem = "is divided into partitions" if divided[cpu] else "is one node"
                    self.refuse(line, "partition", "IDENTITY_ENROLLED", f"the host {cpu} {problem}, for ever")
        return tuple(dict.fromkeys(cloned))

    def _batches(self) -> Iterator[list[str]]:
        """The staged nodes, in parts of about `BATCH` devices."""
        batch: list[str] = []
        devices = 0
        counted = self._store.execute("SELECT row, devices FROM node ORDER BY seq")
        with contextlib.closing(counted):
            for text, count in counted:
                if batch and devices + count > BATCH:
                    yield batch
                    batch, devices = [], 0
                batch.append(text)
                devices += count
        if batch:
            yield batch


def _chunks(cursor: sqlite3.Cursor) -> Iterator[list[Any]]:
    """A query's rows, `BATCH` at a time."""
    while rows := cursor.fetchmany(BATCH):
        yield rows


def _encode(row: NodeRow) -> str:
    document = {name: value for name, value in row.columns().items() if name != "created_at"}
    devices = {device.slot: device.identity for device in row.devices}
    return json.dumps(document | {"devices": devices}, sort_keys=True, separators=(",", ":"))


def _decode(text: str, *, now: int) -> NodeRow:
    document = json.loads(text)
    devices = tuple(DeviceRow(slot=slot, identity=identity) for slot, identity in document.pop("devices").items())
    return NodeRow(
        **document
        | {
            "state": NodeState(document["state"]),
            "custody": Custody(document["custody"]),
            "created_at": now,
            "devices": devices,
        }
    )
