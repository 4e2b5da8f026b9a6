"""The entries of an evidence package, read from the log's database in order and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, select

from audit.erasure import erased_keys
from audit.log import ERASED_INDEXES
from audit.package.gaps import instant
from audit.package.lines import State
from audit.package.manifest import Scope
from audit.payload import KEY_OF_ENTRY, KEYED_ENTRY, PAYLOAD_COLUMNS, PayloadReader
from audit.query import MAX_PAGE, Filter, query
from audit.records import Kind
from audit.tables import AUDIT_ASSET_COUNTER, AUDIT_ENTRY, AUDIT_ENTRY_ASSET, AUDIT_KEY
from audit.times import first_from, last_before

PAGE: Final = 500
"""Entries that are read at once."""

_COLUMNS: Final = (
    AUDIT_ENTRY.c.id,
    AUDIT_ENTRY.c.leaf_index,
    *PAYLOAD_COLUMNS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An entry as the database has it; a payload that is there was checked against its leaf.

    Attributes:
        index: its place in the log.
        leaf_hash: RFC 9162 hash of its leaf.
        counters: its numbers among the entries of the asset that was asked for.
        state: whether the payload is there.
        salt, payload: None unless it is readable.
        erased: which record says that it was erased, in words; empty where it was not, or where none says so.
    """

    index: int
    leaf_hash: bytes
    counters: tuple[int, ...]
    state: State
    salt: bytes | None
    payload: bytes | None
    erased: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the log: from index `first` up to, not including, `end`."""

    first: int
    end: int


def span_of(connection: Connection, scope: Scope, *, size: int) -> Span:
    """Where in the first `size` entries lies what `scope` asks for.

    It reaches from the first record that is not too early to the last that is not too late, and holds all between
    them: so that it can be seen that nothing is left out, whatever clocks did meanwhile.
    """
    first, end = 0, size
    if scope.start_time is not None:
        found = first_from(connection, scope.start_time, size=size)
        first = size if found is None else found
    if scope.end_time is not None:
        found = last_before(connection, scope.end_time, size=size)
        end = 0 if found is None else found + 1
    return Span(min(first, size), max(min(first, size), end))


def read_entries(connection: Connection, scope: Scope, span: Span) -> Iterator[Stored]:
    """Every entry of `span` that belongs to `scope`, in the order of the log.

    Raises:
        LogCorruptError: an entry is not what was appended.
    """
    erasures = _erasures(connection)
    reader = PayloadReader(connection)
    if scope.asset is None:
        for row in _of_log(connection, scope, span):
            yield _stored(reader, row, (), erasures)
        return
    waiting: tuple[Any, tuple[int, ...]] | None = None
    for row in _of_asset(connection, scope, span):
        if waiting is not None and waiting[0].id == row.id:  # an entry of two versions has two numbers
            waiting = (row, (*waiting[1], row.counter))
            continue
        if waiting is not None:
            yield _stored(reader, waiting[0], waiting[1] if scope.numbered else (), erasures)
        waiting = (row, (row.counter,))
    if waiting is not None:
        yield _stored(reader, waiting[0], waiting[1] if scope.numbered else (), erasures)


def _of_log(connection: Connection, scope: Scope, span: Span) -> Iterator[Any]:
    at = span.first - 1
    while True:
        entry = AUDIT_ENTRY.c
        found = select(*_COLUMNS).select_from(KEYED_ENTRY)
        wanted = found.where(entry.leaf_index > at, entry.leaf_index < span.end, *_tenant(scope))
        rows = connection.execute(wanted.order_by(entry.leaf_index).limit(PAGE)).all()
        yield from rows
        if len(rows) < PAGE:
            return
        at = rows[-1].leaf_index


def _of_asset(connection: Connection, scope: Scope, span: Span) -> Iterator[Any]:
    """By the asset's own numbering, so that a rare asset is found at once."""
    named, entry = AUDIT_ENTRY_ASSET.c, AUDIT_ENTRY.c
    at = _counter_before(connection, scope, span)
    while True:
        wanted = (
            select(*_COLUMNS, named.counter)
            .join_from(AUDIT_ENTRY_ASSET, AUDIT_ENTRY, named.entry_id == entry.id)
            .outerjoin(AUDIT_KEY, KEY_OF_ENTRY)
            .where(named.asset == scope.asset, named.counter > at, entry.leaf_index < span.end, *_tenant(scope))
        )
        rows = connection.execute(wanted.order_by(named.counter).limit(PAGE)).all()
        yield from rows
        if len(rows) < PAGE:
            return
        at = rows[-1].counter


def _tenant(scope: Scope) -> Sequence[ColumnElement[bool]]:
    return () if scope.tenant is None else (AUDIT_ENTRY.c.tenant == scope.tenant,)


def _stored(reader: PayloadReader, row: Any, counters: tuple[int, ...], erasures: Mapping[int | str, str]) -> Stored:
    opened = reader.open_checked(row, f"entry {row.leaf_index}")
    state = State.SEALED if opened.sealed else State.ERASED if opened.erased else State.READABLE
    recorded = erasures.get(row.leaf_index) or erasures.get(row.key_id or "", "")
    return Stored(
        index=row.leaf_index,
        leaf_hash=bytes(row.leaf_hash),
        counters=counters,
        state=state,
        salt=opened.salt,
        payload=opened.payload,
        erased=recorded if opened.erased else "",
    )


def counters_of(connection: Connection, scope: Scope, span: Span) -> tuple[int, int] | None:
    """Between which numbers the asset's entries of `span` lie; None where the scope shows no numbers.

    An entry that was erased has lost its number. So every number up to the next one that stands outside of the span is
    taken to belong to it: rather one gap too many than one too few.
    """
    if not scope.numbered:
        return None
    named, entry = AUDIT_ENTRY_ASSET.c, AUDIT_ENTRY.c
    after = connection.scalar(
        select(func.min(named.counter))
        .join_from(AUDIT_ENTRY_ASSET, AUDIT_ENTRY, named.entry_id == entry.id)
        .where(named.asset == scope.asset, entry.leaf_index >= span.end)
    )
    if after is None:
        total = connection.scalar(
            select(AUDIT_ASSET_COUNTER.c.counter).where(AUDIT_ASSET_COUNTER.c.asset == scope.asset)
        )
        after = (total or 0) + 1
    return _counter_before(connection, scope, span), after


def _counter_before(connection: Connection, scope: Scope, span: Span) -> int:
    named, entry = AUDIT_ENTRY_ASSET.c, AUDIT_ENTRY.c
    before = connection.scalar(
        select(func.max(named.counter))
        .join_from(AUDIT_ENTRY_ASSET, AUDIT_ENTRY, named.entry_id == entry.id)
        .where(named.asset == scope.asset, entry.leaf_index < span.first)
    )
    return before or 0


def _erasures(connection: Connection) -> dict[int | str, str]:
    """Which entries, by index or by key, were erased with a record of it, and in words which record that is.

    Raises:
        LogCorruptError: such a record is not what was appended.
    """
    found: dict[int | str, str] = {}
    cursor = ""
    while True:
        page = query(connection, Filter(kind=Kind.AUDIT_ERASED), limit=MAX_PAGE, cursor=cursor)
        for entry in page.entries:
            record = entry.record()
            if record is None:
                continue
            note = f"erased on {instant(record.time)}, as entry {entry.index} records"
            indexes = record.detail.get(ERASED_INDEXES)
            for text in indexes if isinstance(indexes, tuple) else ():
                if text.isascii() and text.isdigit() and len(text) < 20:
                    found[int(text)] = note
            found |= {key.id: note for key in erased_keys(record)}
        cursor = page.next_cursor
        if not cursor:
            return found


def count_erased(connection: Connection, span: Span) -> int:
    """How many entries of `span` are erased so that nothing tells any more what they were about."""
    entry = AUDIT_ENTRY.c
    return (
        connection.scalar(
            select(func.count())
            .select_from(AUDIT_ENTRY)
            .where(entry.leaf_index >= span.first, entry.leaf_index < span.end, entry.kind.is_(None))
        )
        or 0
    )


def count_beyond(connection: Connection, size: int) -> tuple[int, int]:
    """How many entries stand behind the first `size`, and how many wait for a place."""
    entry = AUDIT_ENTRY.c
    placed = connection.scalar(select(func.count()).select_from(AUDIT_ENTRY).where(entry.leaf_index >= size))
    waiting = connection.scalar(select(func.count()).select_from(AUDIT_ENTRY).where(entry.leaf_index.is_(None)))
    return placed or 0, waiting or 0
