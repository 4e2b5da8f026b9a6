"""Asking the log: filters over the projections, pages in the order of the log.

Besides fields that must be equal a filter asks for a span of time, or for the leases that were alive at an instant.
Only sequenced entries are found. A page's cursor is the index it ended at: entries are only ever added behind it,
so no entry is skipped or shown twice while the log grows. What is returned was checked against its digest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from audit.cosignature import WitnessPolicy
from audit.errors import EntryNotFoundError, KeysNeededError, NotInitialisedError, QueryError, UnwitnessedError
from audit.filter import Filter, parse_asset
from audit.fitting import fitting
from audit.payload import KEYED_ENTRY, PAYLOAD_COLUMNS, Opened, PayloadReader
from audit.records import MAX_INTEGER, Record
from audit.tables import AUDIT_CHECKPOINT, AUDIT_ENTRY

__all__ = [
    "DEFAULT_PAGE",
    "MAX_PAGE",
    "Entry",
    "Filter",
    "Page",
    "cursor_after",
    "find_payload",
    "get",
    "get_by_hash",
    "newest",
    "newest_checkpoint",
    "parse_asset",
    "query",
    "tip",
]

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000

_CURSOR: Final = re.compile(r"(0|[1-9][0-9]{0,18})\.([0-9a-f]{16})\Z")


@dataclass(frozen=True, slots=True)
class Entry:
    """A sequenced entry.

    Attributes:
        index: its place in the log.
        entry_hash: RFC 9162 hash of its leaf.
        payload: the record's bytes; None where they were erased, or are sealed.
        sealed: the record is there, but whoever read the log had no keys to it.
    """

    index: int
    entry_hash: bytes
    payload: bytes | None
    sealed: bool = False

    @property
    def erased(self) -> bool:
        """Whether nobody can read the record any more."""
        return self.payload is None and not self.sealed

    def record(self) -> Record | None:
        """The record, or None where it was erased.

        Raises:
            KeysNeededError: it is sealed, which is not to be taken for erased.
            MalformedError: the payload is no record of this version.
        """
        if self.sealed:
            raise KeysNeededError(
                f"entry {self.index}: its record is sealed; ask the broker for it, or give the log's keys"
            )
        return None if self.payload is None else Record.parse(self.payload)


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries in the order of the log.

    Attributes:
        entries: at most as many as were asked for.
        next_cursor: where the next page begins; empty on the last, and on no other.
    """

    entries: tuple[Entry, ...]
    next_cursor: str


_COLUMNS: Final = (AUDIT_ENTRY.c.leaf_index, *PAYLOAD_COLUMNS)
_ONE: Final = select(*_COLUMNS).select_from(KEYED_ENTRY)


def _entries(connection: Connection, rows: Sequence[Any]) -> tuple[Entry, ...]:
    reader = PayloadReader(connection)
    return tuple(_entry(row, reader.open_checked(row, f"entry {row.leaf_index}")) for row in rows)


def _entry(row: Any, opened: Opened) -> Entry:
    return Entry(row.leaf_index, bytes(row.leaf_hash), opened.payload, sealed=opened.sealed)


def cursor_after(wanted: Filter, index: int) -> str:
    """The cursor that goes on behind the entry at `index`."""
    return f"{index}.{wanted.digest()}"


def newest(connection: Connection, wanted: Filter, *, limit: int) -> Page:
    """The last `limit` entries that `wanted` describes, in the order of the log; there is no next page.

    Raises:
        QueryError: the limit is out of range.
        LogCorruptError: an entry that would be shown is not what was appended.
    """
    _check_limit(limit)
    rows: list[Any] = []
    for piece in fitting(connection, wanted, *_COLUMNS, backwards=True):
        rows += connection.execute(piece.statement.limit(limit - len(rows))).all()
        if len(rows) == limit:
            break
    return Page(_entries(connection, rows[::-1]), "")


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_PAGE:
        raise QueryError(f"page size {limit} is not between 1 and {MAX_PAGE}")


def query(
    connection: Connection,
    wanted: Filter,
    *,
    limit: int = DEFAULT_PAGE,
    cursor: str = "",
    patience: float | None = None,
    discreet: bool = False,
) -> Page:
    """One page of the entries that `wanted` describes.

    Args:
        connection: a connection to the log's database.
        wanted: the filter.
        limit: how many entries at most, 1 to `MAX_PAGE`.
        cursor: the last page's `next_cursor`, or nothing to begin at the front.
        patience: seconds after which the page ends between two pieces of the log. It may then hold fewer than `limit`,
            or none, though more fit behind it; a next cursor says so.
        discreet: whoever reads may know of no records but those of the filter's tenant: the cursor says nothing of
            others. How long an answer takes may.

    Raises:
        QueryError: the limit is out of range, or the cursor is not one of this filter.
        LogCorruptError: an entry that would be shown is not what was appended.
    """
    _check_limit(limit)
    after: int | None = None
    if cursor:
        match = _CURSOR.match(cursor)
        if not match or match[2] != wanted.digest() or int(match[1]) > MAX_INTEGER:  # no log has so many entries
            raise QueryError("cursor: not one that this filter's last page ended with; begin again without it")
        after = int(match[1])
    rows: list[Any] = []
    more: int | None = None
    began = time.monotonic()
    for piece in fitting(connection, wanted, *_COLUMNS, after=after, discreet=discreet):
        rows += connection.execute(piece.statement.limit(limit + 1 - len(rows))).all()
        if len(rows) > limit:
            more = rows[limit - 1].leaf_index
            break
        if patience is not None and piece.end is not None and time.monotonic() - began >= patience:
            more = piece.end
            break
    return Page(_entries(connection, rows[:limit]), "" if more is None else cursor_after(wanted, more))


def tip(connection: Connection) -> int | None:
    """Index of the newest sequenced entry; None in an empty log."""
    newest_first = select(AUDIT_ENTRY.c.leaf_index).where(AUDIT_ENTRY.c.leaf_index.is_not(None))
    index: int | None = connection.scalar(newest_first.order_by(AUDIT_ENTRY.c.leaf_index.desc()).limit(1))
    return index


def get(connection: Connection, index: int) -> Entry:
    """The entry at `index`.

    Raises:
        EntryNotFoundError: the log has no such entry.
        LogCorruptError: it is not what was appended.
    """
    row = connection.execute(
        select(*_COLUMNS).select_from(KEYED_ENTRY).where(AUDIT_ENTRY.c.leaf_index == index)
    ).one_or_none()
    if row is None:
        raise EntryNotFoundError(f"entry {index}: not in the log")
    return _entries(connection, [row])[0]


def get_by_hash(connection: Connection, entry_hash: bytes) -> Entry:
    """The entry that a receipt promised, found in one step: how long it takes tells nothing about whose it is.

    Raises:
        EntryNotFoundError: no such entry, or it is not sequenced yet.
        LogCorruptError: it is not what was appended.
    """
    row = connection.execute(
        select(*_COLUMNS).select_from(KEYED_ENTRY).where(AUDIT_ENTRY.c.leaf_hash == entry_hash)
    ).one_or_none()
    if row is None:
        raise EntryNotFoundError(f"entry {entry_hash.hex()}: not in the log")
    if row.leaf_index is None:
        raise EntryNotFoundError(f"entry {entry_hash.hex()}: waits to be sequenced; ask again in a moment")
    return _entries(connection, [row])[0]


def find_payload(connection: Connection, entry_hash: bytes) -> bytes | None:
    """The payload of an entry, sequenced or not; None where there is no such entry, or it was erased.

    Raises:
        KeysNeededError: it is sealed, and `connection` has no keys.
        LogCorruptError: it is not what was appended.
    """
    row = connection.execute(
        select(*PAYLOAD_COLUMNS).select_from(KEYED_ENTRY).where(AUDIT_ENTRY.c.leaf_hash == entry_hash)
    ).one_or_none()
    if row is None:
        return None
    opened = PayloadReader(connection).open_checked(row, f"entry {entry_hash.hex()}")
    if opened.sealed:
        raise KeysNeededError(f"entry {entry_hash.hex()}: its record is sealed; read it through the broker")
    return opened.payload


def newest_checkpoint(connection: Connection, witnesses: WitnessPolicy | None = None) -> bytes:
    """The newest signed checkpoint, as its note.

    Args:
        connection: can read the log's database.
        witnesses: only a checkpoint that a quorum of these cosigned counts; any where None or their quorum is 0.

    Raises:
        NotInitialisedError: the log has not begun.
        UnwitnessedError: no checkpoint was cosigned by a quorum.
    """
    newest_first = select(AUDIT_CHECKPOINT.c.note).order_by(AUDIT_CHECKPOINT.c.tree_size.desc())
    note = connection.execute(newest_first.limit(1)).scalar_one_or_none()
    if note is None:
        raise NotInitialisedError("log: not begun yet; run `keystead init`")
    if witnesses is None or witnesses.accepts(note.encode("utf-8")):
        return str(note).encode("utf-8")
    # Each cosignature is one more line, so that checkpoints nobody cosigned are passed over by the database.
    lines = "%\n\u2014 " * (witnesses.quorum + 1) + "%"
    likely = newest_first.where(AUDIT_CHECKPOINT.c.note.like(lines)).execution_options(yield_per=64)
    with connection.execute(likely) as signed:
        for row in signed:
            data = str(row.note).encode("utf-8")
            if witnesses.accepts(data):
                return data
    raise UnwitnessedError(
        f"log: no checkpoint was cosigned by {witnesses.quorum} of its {len(witnesses.keys)} witnesses yet; wait, and "
        "see the broker's log if it lasts"
    )
