"""Asking the log: filters over the projections, pages in the order of the log.

Besides fields that must be equal a filter asks for a span of time, or for the leases that were alive at an instant.
Only sequenced entries are found. A page's cursor is the index it ended at: entries are only ever added behind it,
so no entry is skipped or shown twice while the log grows. What is returned was checked against its digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, select

from audit.cosignature import WitnessPolicy
from audit.envelope import Leaf
from audit.errors import EntryNotFoundError, LogCorruptError, NotInitialisedError, QueryError, UnwitnessedError
from audit.records import MAX_INTEGER, Kind, Record, Result
from audit.tables import (
    AUDIT_CHECKPOINT,
    AUDIT_ENTRY,
    AUDIT_ENTRY_ASSET,
    AUDIT_ENTRY_HARDWARE,
    AUDIT_ENTRY_REASON,
)
from keystead.binding import AssetRef, BindingError, check_id

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000

LEASE_BEGINS: Final = (Kind.LEASE_GRANTED, Kind.LEASE_RENEWED)
"""Records from which on a lease is alive, until the instant that they name."""

LEASE_ENDS: Final = (Kind.LEASE_RETURNED, Kind.LEASE_EXPIRED, Kind.LEASE_REVOKED)
"""Records from which on a lease is not alive any more."""

_CURSOR: Final = re.compile(r"(0|[1-9][0-9]{0,18})\.([0-9a-f]{16})\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries are asked for; every field that is not None narrows the answer.

    Attributes:
        asset, version: an asset, ``tenant/name``, and one version of it.
        job, tenant, actor, node, site, jurisdiction, lease: as in `audit.records.Record`; `actor` is the name.
        user: whom the job ran for, as its scheduler declared it.
        hardware: one hardware identity, ``kind:value``.
        policy_digest: lower-case hexadecimal.
        kind, result, reason: what happened, how it ended, and one of the codes.
        start_time, end_time: seconds since the Unix epoch, from (inclusive) and to (exclusive).
        alive_at: seconds since the Unix epoch: of each lease that was alive at this instant the grant or renewal
            that it was alive by. A lease is alive from its grant on, up to but not including the instant that its
            newest grant or renewal names, and no longer than to the record of its return, expiry or revocation.
    """

    asset: str | None = None
    version: int | None = None
    job: str | None = None
    tenant: str | None = None
    actor: str | None = None
    node: str | None = None
    hardware: str | None = None
    site: str | None = None
    jurisdiction: str | None = None
    policy_digest: str | None = None
    kind: Kind | None = None
    result: Result | None = None
    reason: str | None = None
    lease: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    user: str | None = None
    alive_at: int | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.asset is None:
            raise QueryError("filter: a version without its asset")
        if self.start_time is not None and self.end_time is not None and self.start_time > self.end_time:
            raise QueryError(f"filter: start time {self.start_time} is after end time {self.end_time}")
        for name in ("version", "start_time", "end_time", "alive_at"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MAX_INTEGER:
                raise QueryError(f"filter: {name} {value} is not between 0 and {MAX_INTEGER}, so no record has it")

    def digest(self) -> str:
        """Sixteen hexadecimal digits that tie a cursor to its filter."""
        text = json.dumps({name: value for name, value in asdict(self).items() if value is not None}, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def parse_asset(text: str) -> tuple[str, int | None]:
    """Read ``TENANT/NAME`` or ``TENANT/NAME@VERSION`` as a filter's asset and version.

    Raises:
        QueryError: it is neither.
    """
    try:
        if "@" in text:
            ref = AssetRef.parse(text)
            return ref.asset, ref.version
        return check_id(text, "asset"), None
    except BindingError as error:
        raise QueryError(f"filter: {error}") from None


@dataclass(frozen=True, slots=True)
class Entry:
    """A sequenced entry.

    Attributes:
        index: its place in the log.
        entry_hash: RFC 9162 hash of its leaf.
        payload: the record's bytes; None where they were erased.
    """

    index: int
    entry_hash: bytes
    payload: bytes | None

    def record(self) -> Record | None:
        """The record, or None where it was erased.

        Raises:
            MalformedError: the payload is no record of this version.
        """
        return None if self.payload is None else Record.parse(self.payload)


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries in the order of the log.

    Attributes:
        entries: at most as many as were asked for.
        next_cursor: where the next page begins; empty on the last.
    """

    entries: tuple[Entry, ...]
    next_cursor: str


_COLUMNS: Final = (
    AUDIT_ENTRY.c.leaf_index,
    AUDIT_ENTRY.c.digest,
    AUDIT_ENTRY.c.leaf_hash,
    AUDIT_ENTRY.c.salt,
    AUDIT_ENTRY.c.payload,
)


def _entry(row: Any) -> Entry:
    leaf = Leaf(bytes(row.digest))
    intact = leaf.entry_hash() == bytes(row.leaf_hash)
    if row.payload is not None:
        intact = intact and Leaf.commit(salt=bytes(row.salt), payload=bytes(row.payload)) == leaf
    if not intact:
        raise LogCorruptError(f"entry {row.leaf_index} was altered in the database; run `keystead audit verify`")
    return Entry(row.leaf_index, bytes(row.leaf_hash), None if row.payload is None else bytes(row.payload))


def _conditions(wanted: Filter) -> Sequence[ColumnElement[bool]]:
    entry = AUDIT_ENTRY.c
    equal = {
        entry.job: wanted.job,
        entry.tenant: wanted.tenant,
        entry.actor_name: wanted.actor,
        entry.node: wanted.node,
        entry.site: wanted.site,
        entry.jurisdiction: wanted.jurisdiction,
        entry.policy_digest: wanted.policy_digest,
        entry.kind: None if wanted.kind is None else wanted.kind.value,
        entry.result: None if wanted.result is None else wanted.result.value,
        entry.lease: wanted.lease,
        entry.job_user: wanted.user,
    }
    conditions: list[ColumnElement[bool]] = [column == value for column, value in equal.items() if value is not None]
    if wanted.start_time is not None:
        conditions.append(entry.time >= wanted.start_time)
    if wanted.end_time is not None:
        conditions.append(entry.time < wanted.end_time)
    if wanted.alive_at is not None:
        conditions += _alive(wanted.alive_at)
    if wanted.hardware is not None:
        hardware = AUDIT_ENTRY_HARDWARE.c
        conditions.append(exists().where(hardware.entry_id == entry.id, hardware.hardware == wanted.hardware))
    if wanted.reason is not None:
        reason = AUDIT_ENTRY_REASON.c
        conditions.append(exists().where(reason.entry_id == entry.id, reason.reason == wanted.reason))
    return conditions


def _alive(instant: int) -> Sequence[ColumnElement[bool]]:
    """Entries by which a lease was alive at `instant`: the newest grant or renewal by then, unless it ended by then.

    Clocks jump, so which of two renewals is the newer one is read off their places in the log.
    """
    entry, later, end = AUDIT_ENTRY.c, AUDIT_ENTRY.alias("later").c, AUDIT_ENTRY.alias("ended").c
    renewed = and_(
        later.lease == entry.lease,
        later.kind == Kind.LEASE_RENEWED.value,
        later.leaf_index > entry.leaf_index,
        later.time <= instant,
    )
    ended = and_(
        end.lease == entry.lease,
        end.kind.in_([kind.value for kind in LEASE_ENDS]),
        end.leaf_index.is_not(None),
        end.time <= instant,
    )
    return (
        entry.kind.in_([kind.value for kind in LEASE_BEGINS]),
        entry.lease.is_not(None),
        entry.time <= instant,
        entry.expires_at > instant,
        ~exists().where(renewed),
        ~exists().where(ended),
    )


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
    fitting, order = _fitting(wanted)
    rows = connection.execute(fitting.order_by(order.desc()).limit(limit)).all()
    entries = tuple(_entry(row) for row in reversed(rows))
    return Page(entries, "")


def _fitting(wanted: Filter) -> tuple[Select[Any], ColumnElement[Any]]:
    """The sequenced entries that fit, and the column to order them by.

    An asset's entries are numbered in the order of the log, so those of one asset are read by that index: neither an
    asset that hardly any entry names nor one that most of them name makes the database look through the log.
    """
    found = select(*_COLUMNS).where(AUDIT_ENTRY.c.leaf_index.is_not(None), *_conditions(wanted))
    if wanted.asset is None:
        return found, AUDIT_ENTRY.c.leaf_index
    named, twin = AUDIT_ENTRY_ASSET.c, AUDIT_ENTRY_ASSET.alias("twin").c
    found = found.join_from(AUDIT_ENTRY_ASSET, AUDIT_ENTRY, named.entry_id == AUDIT_ENTRY.c.id)
    found = found.where(named.asset == wanted.asset, named.counter.is_not(None))
    if wanted.version is not None:
        return found.where(named.version == wanted.version), named.counter
    # An entry may name two versions of the asset; it is found by the first.
    again = exists().where(twin.entry_id == named.entry_id, twin.asset == named.asset, twin.counter < named.counter)
    return found.where(~again), named.counter


def _behind(wanted: Filter, index: int) -> Sequence[ColumnElement[bool]]:
    """What is true of the entries behind the one at `index`; by the asset's numbering, too, where one was asked for."""
    behind = AUDIT_ENTRY.c.leaf_index > index
    if wanted.asset is None:
        return (behind,)
    last, entry = AUDIT_ENTRY_ASSET.alias("last").c, AUDIT_ENTRY.alias("at").c
    number = (
        select(func.coalesce(func.max(last.counter), 0))
        .where(last.entry_id == entry.id, last.asset == wanted.asset, entry.leaf_index == index)
        .scalar_subquery()
    )
    return behind, AUDIT_ENTRY_ASSET.c.counter > number


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_PAGE:
        raise QueryError(f"page size {limit} is not between 1 and {MAX_PAGE}")


def query(connection: Connection, wanted: Filter, *, limit: int = DEFAULT_PAGE, cursor: str = "") -> Page:
    """One page of the entries that `wanted` describes.

    Args:
        connection: a connection to the log's database.
        wanted: the filter.
        limit: how many entries at most, 1 to `MAX_PAGE`.
        cursor: the last page's `next_cursor`, or nothing to begin at the front.

    Raises:
        QueryError: the limit is out of range, or the cursor is not one of this filter.
        LogCorruptError: an entry that would be shown is not what was appended.
    """
    _check_limit(limit)
    fitting, order = _fitting(wanted)
    if cursor:
        match = _CURSOR.match(cursor)
        if not match or match[2] != wanted.digest():
            raise QueryError("cursor: not one that this filter's last page ended with; begin again without it")
        fitting = fitting.where(*_behind(wanted, int(match[1])))
    rows = connection.execute(fitting.order_by(order).limit(limit + 1)).all()
    entries = tuple(_entry(row) for row in rows[:limit])
    more = len(rows) > limit
    return Page(entries, cursor_after(wanted, entries[-1].index) if more else "")


def get(connection: Connection, index: int) -> Entry:
    """The entry at `index`.

    Raises:
        EntryNotFoundError: the log has no such entry.
        LogCorruptError: it is not what was appended.
    """
    row = connection.execute(select(*_COLUMNS).where(AUDIT_ENTRY.c.leaf_index == index)).one_or_none()
    if row is None:
        raise EntryNotFoundError(f"entry {index}: not in the log")
    return _entry(row)


def get_by_hash(connection: Connection, entry_hash: bytes) -> Entry:
    """The entry that a receipt promised, found in one step: how long it takes tells nothing about whose it is.

    Raises:
        EntryNotFoundError: no such entry, or it is not sequenced yet.
        LogCorruptError: it is not what was appended.
    """
    row = connection.execute(select(*_COLUMNS).where(AUDIT_ENTRY.c.leaf_hash == entry_hash)).one_or_none()
    if row is None:
        raise EntryNotFoundError(f"entry {entry_hash.hex()}: not in the log")
    if row.leaf_index is None:
        raise EntryNotFoundError(f"entry {entry_hash.hex()}: waits to be sequenced; ask again in a moment")
    return _entry(row)


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
