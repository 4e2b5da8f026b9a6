"""Leases that were alive at an instant: found by how long any lease lasts, not by reading what came before."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, exists, false, func, select, union_all

from audit.records import Kind
from audit.tables import AUDIT_ENTRY

LEASE_ENDS: Final = (Kind.LEASE_RETURNED, Kind.LEASE_EXPIRED, Kind.LEASE_REVOKED)
"""Records from which on a lease is not alive any more."""


def alive(connection: Connection, instant: int) -> list[ColumnElement[bool]]:
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
