"""Each entry by itself: payload with digest, digest with entry hash, query columns with the payload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Column, Connection, Row, Select, select

from audit.envelope import Leaf
from audit.errors import MalformedError
from audit.fsck.erasures import Erasures
from audit.fsck.findings import Findings
from audit.log import PROJECTED, projections
from audit.payload import KEYED_ENTRY, PAYLOAD_COLUMNS, PayloadReader
from audit.problems import ProblemCode
from audit.records import Record
from audit.tables import AUDIT_ENTRY, AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE, AUDIT_ENTRY_REASON

_STREAM: Final = 256

ROW: Final = (
    AUDIT_ENTRY.c.id,
    AUDIT_ENTRY.c.leaf_index,
    *PAYLOAD_COLUMNS,
    *(AUDIT_ENTRY.c[name] for name in PROJECTED),
)
"""What of a row `Entries.check` needs, from `audit.payload.KEYED_ENTRY`."""

# Looking columns up by name takes longer than comparing them.
_projected: Final = itemgetter(*range(len(ROW) - len(PROJECTED), len(ROW)))


class Named:
    """What a range of entries names: assets with their counters, hardware and reasons, by the entry's row."""

    __slots__ = ("_assets", "_hardware", "_reasons")

    def __init__(self, connection: Connection, start: int, stop: int) -> None:
        self._assets: dict[int, dict[tuple[str, int], int | None]] = {}
        self._hardware: dict[int, set[str]] = {}
        self._reasons: dict[int, dict[str, int | None]] = {}
        assets, hardware, reasons = AUDIT_ENTRY_ASSET.c, AUDIT_ENTRY_HARDWARE.c, AUDIT_ENTRY_REASON.c
        for entry_id, asset, version, counter in _of_range(
            connection, start, stop, assets.entry_id, assets.asset, assets.version, assets.counter
        ):
            self._assets.setdefault(entry_id, {})[asset, version] = counter
        for entry_id, item in _of_range(connection, start, stop, hardware.entry_id, hardware.hardware):
            self._hardware.setdefault(entry_id, set()).add(item)
        for entry_id, item, place in _of_range(
            connection, start, stop, reasons.entry_id, reasons.reason, reasons.leaf_index
        ):
            self._reasons.setdefault(entry_id, {})[item] = place

    def __contains__(self, entry_id: int) -> bool:
        return entry_id in self._assets or entry_id in self._hardware or entry_id in self._reasons

    def assets(self, entry_id: int) -> Mapping[tuple[str, int], int | None]:
        """The counters of the asset versions that an entry names."""
        return self._assets.get(entry_id, {})

    def hardware(self, entry_id: int) -> list[str]:
        """The hardware identities that an entry names, in order."""
        return sorted(self._hardware.get(entry_id, ()))

    def reasons(self, entry_id: int) -> Mapping[str, int | None]:
        """The reason codes that an entry names, each with the place that it is kept under."""
        return self._reasons.get(entry_id, {})


def _of_range(
    connection: Connection, start: int, stop: int, entry_id: Column[Any], *others: Column[Any]
) -> Sequence[Any]:
    return connection.execute(
        select(entry_id, *others)
        .join_from(entry_id.table, AUDIT_ENTRY, AUDIT_ENTRY.c.id == entry_id)
        .where(AUDIT_ENTRY.c.leaf_index >= start, AUDIT_ENTRY.c.leaf_index < stop)
    ).all()


class Entries:
    """Checks rows of the log one by one.

    Attributes:
        waiting: how many entries without a place were read.
    """

    __slots__ = ("_connection", "_erasures", "_findings", "_reader", "waiting")

    def __init__(self, connection: Connection, findings: Findings, erasures: Erasures) -> None:
        self._connection = connection
        self._findings = findings
        self._erasures = erasures
        self._reader = PayloadReader(connection)
        self.waiting = 0

    def check(self, row: Row[Any], named: Named, size: int) -> bytes:
        """Check one row of a log of `size` entries by itself and return the hash that its digest gives it."""
        index: int = row.leaf_index
        digest, stored_hash = bytes(row.digest), bytes(row.leaf_hash)
        report = self._findings.report
        try:
            entry_hash = Leaf(digest).entry_hash()
        except MalformedError as error:
            report(ProblemCode.ENTRY_HASH_ALTERED, index, "digest", expected="32 bytes", actual=error)
            return stored_hash
        if entry_hash != stored_hash:
            report(ProblemCode.ENTRY_HASH_ALTERED, index, "entry hash", expected=entry_hash, actual=stored_hash)
        try:
            opened = self._reader.open(row)
        except MalformedError as error:
            report(ProblemCode.PAYLOAD_ALTERED, index, "payload", expected="one that opens", actual=error)
            return entry_hash
        if opened.sealed:
            self._erasures.sealed += 1
            return entry_hash
        if opened.payload is None or opened.salt is None:
            self._erasures.add(index, row.key_id)
            # Where a key was destroyed, ciphertext and columns go afterwards, and together.
            if row.sealed is not None:
                return entry_hash
            if row.id in named or any(value is not None for value in _projected(row)):
                report(
                    ProblemCode.PROJECTION_ALTERED,
                    index,
                    "query columns",
                    expected="erased with the payload",
                    actual="still there",
                )
            return entry_hash
        payload = opened.payload
        try:
            committed = Leaf.commit(salt=opened.salt, payload=payload)
        except MalformedError as error:
            report(ProblemCode.PAYLOAD_ALTERED, index, "salt", expected="32 bytes", actual=error)
            return entry_hash
        if committed.digest != digest:
            report(
                ProblemCode.PAYLOAD_ALTERED,
                index,
                "digest of salt and payload",
                expected=digest,
                actual=committed.digest,
            )
            return entry_hash
        try:
            record = Record.parse(payload)
        except MalformedError as error:
            report(ProblemCode.PAYLOAD_MALFORMED, index, "payload", expected="a record of this version", actual=error)
            return entry_hash
        self._check_projections(row, record, named)
        self._erasures.note(record, size)
        return entry_hash

    def _check_projections(self, row: Row[Any], record: Record, named: Named) -> None:
        columns = projections(record)
        pairs: list[tuple[str, object, object]] = []
        if tuple(columns.values()) != _projected(row):
            pairs += [(f"column {name}", value, getattr(row, name)) for name, value in columns.items()]
        assets = sorted(f"{asset}@{version}" for asset, version in named.assets(row.id))
        pairs.append(("assets", sorted(record.assets), assets))
        pairs.append(("hardware", sorted(record.hardware), named.hardware(row.id)))
        reasons = named.reasons(row.id)
        pairs.append(("reasons", sorted(record.reasons), sorted(reasons)))
        pairs += [(f"place of {reason}", row.leaf_index, place) for reason, place in reasons.items()]
        for what, expected, actual in pairs:
            if expected != actual:
                self._findings.report(
                    ProblemCode.PROJECTION_ALTERED, row.leaf_index, what, expected=expected, actual=actual
                )

    def check_waiting(self, size: int) -> None:
        """Check the entries that wait: they have no index yet, but receipts may have promised their hashes."""
        statement: Select[Any] = (
            select(AUDIT_ENTRY.c.id, *PAYLOAD_COLUMNS)
            .select_from(KEYED_ENTRY)
            .where(AUDIT_ENTRY.c.leaf_index.is_(None))
            .order_by(AUDIT_ENTRY.c.id)
            .execution_options(yield_per=_STREAM)
        )
        with self._connection.execute(statement) as rows:
            for row in rows:
                self.waiting += 1
                self._check_waiting(row, size)

    def _check_waiting(self, row: Row[Any], size: int) -> None:
        what = f"waiting entry id {row.id}"
        try:
            opened = self._reader.open(row)
            if opened.sealed:
                self._erasures.sealed += 1
                return
            payload = opened.payload or b""
            leaf = Leaf.commit(salt=opened.salt or b"", payload=payload)
            record = Record.parse(payload)
        except MalformedError as error:
            self._findings.report(ProblemCode.PAYLOAD_ALTERED, None, what, expected="a record", actual=error)
            return
        stored = bytes(row.leaf_hash)
        if (leaf.digest, leaf.entry_hash()) != (bytes(row.digest), stored):
            self._findings.report(ProblemCode.PAYLOAD_ALTERED, None, what, expected=stored, actual=leaf.entry_hash())
        else:
            self._erasures.note(record, size)
