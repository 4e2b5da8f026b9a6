"""Which entries a filter describes, asked so that no question makes the database look through the whole log.

Most of a filter's fields are columns with an index each, in which the entries of one value stand in the order of the
log. Three things need more: an asset's entries are read by their own numbering; of a span of time it is found out
first where in the log it lies; and of leases alive at an instant, how long any lease lasts. SQLite plans without
knowing how often a value occurs, so statements leave it no choice where one would be slow.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, exists, false, func, select, union_all

from audit.filter import Filter
from audit.payload import KEY_OF_ENTRY, KEYED_ENTRY
from audit.records import Kind
from audit.tables import AUDIT_ENTRY, AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE, AUDIT_ENTRY_REASON, AUDIT_KEY

LEASE_ENDS: Final = (Kind.LEASE_RETURNED, Kind.LEASE_EXPIRED, Kind.LEASE_REVOKED)
"""Records from which on a lease is not alive any more."""

_NARROW: Final = 10_000
"""A span of time with fewer entries is read by itself, whatever else is asked."""


def fitting(
    connection: Connection, wanted: Filter, *columns: ColumnElement[Any], after: int | None = None
) -> tuple[Select[Any], ColumnElement[Any]]:
    """The `columns` of the sequenced entries that `wanted` describes, and the column that has the log's order.

    Args:
        connection: can read the log's database; it is asked for what the statement is built from.
        wanted: the filter.
        columns: of entries and their keys (`audit.payload.KEYED_ENTRY`).
        after: only entries behind this index are wanted.
    """
    entry = AUDIT_ENTRY.c
    found = select(*columns).where(entry.leaf_index.is_not(None), *_conditions(wanted))
    if after is not None:
        found = found.where(entry.leaf_index > after)
    if wanted.alive_at is not None:
        found = found.where(*_alive(connection, wanted.alive_at))
    span = _narrow_span(connection, wanted)
    if span is not None:
        found = found.where(entry.leaf_index.between(*span))
    if wanted.asset is None:
        return found.select_from(KEYED_ENTRY), entry.leaf_index
    named = AUDIT_ENTRY_ASSET.c
    if span is not None:
        naming = exists().where(named.entry_id == entry.id, named.asset == wanted.asset)
        found = found.where(naming if wanted.version is None else naming.where(named.version == wanted.version))
        return found.select_from(KEYED_ENTRY), entry.leaf_index
    found = found.join_from(AUDIT_ENTRY_ASSET, AUDIT_ENTRY, named.entry_id == entry.id)
    found = found.outerjoin(AUDIT_KEY, KEY_OF_ENTRY)
    found = found.where(named.asset == wanted.asset, named.counter.is_not(None))
    if after is not None:
        found = found.where(named.counter > _number_at(connection, wanted.asset, after))
    if wanted.version is not None:
        return found.where(named.version == wanted.version), named.counter
    # An entry may name two versions of the asset; it is found by the first, which has the lower number, too.
    twin = AUDIT_ENTRY_ASSET.alias("twin").c
    again = exists().where(twin.entry_id == named.entry_id, twin.asset == named.asset, twin.version < named.version)
    return found.where(~again), named.counter


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
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
        entry.lease: wanted.lease,
        entry.job_user: wanted.user,
    }
    conditions: list[ColumnElement[bool]] = [column == value for column, value in equal.items() if value is not None]
    if wanted.result is not None:
        # Written into the statement, so that the database sees which questions its indexes of refusals answer.
        conditions.append(entry.result == bindparam("result", wanted.result.value, literal_execute=True))
    conditions += _in_time(wanted)
    if wanted.hardware is not None:
        hardware = AUDIT_ENTRY_HARDWARE.c
        conditions.append(entry.id.in_(select(hardware.entry_id).where(hardware.hardware == wanted.hardware)))
    if wanted.reason is not None:
        reason = AUDIT_ENTRY_REASON.c
        conditions.append(entry.id.in_(select(reason.entry_id).where(reason.reason == wanted.reason)))
    return conditions


def _in_time(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.start_time is not None:
        conditions.append(AUDIT_ENTRY.c.time >= wanted.start_time)
    if wanted.end_time is not None:
        conditions.append(AUDIT_ENTRY.c.time < wanted.end_time)
    return conditions


def _alive(connection: Connection, instant: int) -> list[ColumnElement[bool]]:
    """Entries by which a lease was alive at `instant`: the newest grant or renewal by then, unless it ended by then.

    Clocks jump, so which of two renewals is the newer one is read off their places in the log.
    """
    entry, later, end = AUDIT_ENTRY.c, AUDIT_ENTRY.alias("later").c, AUDIT_ENTRY.alias("ended").c
    begun = AUDIT_ENTRY.alias("begun").c
    # What lasts less than 2**bits seconds and is alive began less than that before: a span for each length there is.
    lasting = [
        select(begun.id).where(
            begun.leaf_index.is_not(None),
            begun.lifetime_bits == bits,
            begun.time > instant - (1 << bits),
            begun.time <= instant,
            begun.expires_at > instant,
        )
        for bits in _lifetimes(connection)
    ]
    if not lasting:
        return [false()]
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
    return [entry.id.in_(union_all(*lasting)), ~exists().where(renewed), ~exists().where(ended)]


def _lifetimes(connection: Connection) -> list[int]:
    """The binary lengths of all leases' lifetimes, each found by one step into their index."""
    bits, found = AUDIT_ENTRY.c.lifetime_bits, [0]
    while True:
        longer = select(func.min(bits)).where(AUDIT_ENTRY.c.leaf_index.is_not(None), bits > found[-1])
        length = connection.execute(longer).scalar_one()
        if length is None:
            return found[1:]
        found.append(length)


def _number_at(connection: Connection, asset: str, index: int) -> int:
    """The highest number of an entry of `asset` up to the one at `index`; 0 where there is none."""
    entry, named = AUDIT_ENTRY.c, AUDIT_ENTRY_ASSET.c
    own = select(named.counter).where(
        named.entry_id == select(entry.id).where(entry.leaf_index == index).scalar_subquery(), named.asset == asset
    )
    numbers: list[int] = [number for number in connection.scalars(own) if number is not None]
    if numbers:  # a page ended here
        return max(numbers)
    # That entry was erased meanwhile, or the cursor comes from elsewhere: numbers and places grow together.
    low, high = 0, int(connection.scalar(select(func.max(named.counter)).where(named.asset == asset)) or 0)
    while low < high:
        middle = (low + high + 1) // 2
        step = (
            select(named.counter, entry.leaf_index)
            .join_from(AUDIT_ENTRY_ASSET, AUDIT_ENTRY, named.entry_id == entry.id)
            .where(named.asset == asset, named.counter >= middle, entry.leaf_index.is_not(None))
            .order_by(named.counter)
            .limit(1)
        )
        found = connection.execute(step).one_or_none()
        if found is not None and found.leaf_index <= index:
            low = int(found.counter)
        else:
            high = middle - 1
    return low


def _narrow_span(connection: Connection, wanted: Filter) -> tuple[int, int] | None:
    """The first and the last index of those that are of the wanted time, where these are few; else None.

    Records are nearly in the order of their times, but clocks jump, so that no index follows from a time by itself.
    """
    if wanted.start_time is None and wanted.end_time is None:
        return None
    index = AUDIT_ENTRY.c.leaf_index
    some = select(index).where(index.is_not(None), *_in_time(wanted)).limit(_NARROW).subquery()
    count, first, last = connection.execute(
        select(func.count(), func.min(some.c.leaf_index), func.max(some.c.leaf_index))
    ).one()
    if count == _NARROW:
        return None
    return (first, last) if count else (0, -1)
