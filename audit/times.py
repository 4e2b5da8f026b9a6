"""Where in the log a span of time lies: the earliest and the latest time in each block of entries.

Records are nearly in the order of their times, but clocks jump, so that no place follows from a time by itself. A block
whose times all lie outside a span has none of its entries. One record with a wrong time costs a question the reading of
one block more, wherever it stands; an index over the times would cost every record.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from sqlalchemy import Connection, case, func, select
from sqlalchemy.dialects import postgresql, sqlite

from audit.tables import AUDIT_ENTRY, AUDIT_TIME_BLOCK

BLOCK: Final = 4096
"""Entries of one block. Rows of `AUDIT_TIME_BLOCK` count by it, so that it never changes."""

MAX_RUNS: Final = 16
"""More runs than so are told as one where they are nearest to one another."""

_BLOCK: Final = AUDIT_TIME_BLOCK.c


class Run(NamedTuple):
    """Entries that follow one another in the log.

    Attributes:
        first: index of the first.
        last: index of the last; None where what is added to the log belongs to it too.
    """

    first: int
    last: int | None


EVERYTHING: Final = (Run(0, None),)


def note_times(connection: Connection, start: int, times: Sequence[int | None]) -> None:
    """Note the `times` of the entries at `start` and after, which were not noted yet; None is that of an erased one."""
    spans: dict[int, tuple[int, int]] = {}
    for index, time in enumerate(times, start):
        if time is not None:
            earliest, latest = spans.get(index // BLOCK, (time, time))
            spans[index // BLOCK] = min(earliest, time), max(latest, time)
    if spans:
        rows = [{"block": block, "earliest": low, "latest": high} for block, (low, high) in spans.items()]
        connection.execute(_NOTE_POSTGRESQL if connection.dialect.name == "postgresql" else _NOTE_SQLITE, rows)


def _upsert(
    statement: postgresql.Insert | sqlite.Insert,
) -> postgresql.Insert | sqlite.Insert:
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[_BLOCK.block],
        set_={
            "earliest": case((new.earliest < _BLOCK.earliest, new.earliest), else_=_BLOCK.earliest),
            "latest": case((new.latest > _BLOCK.latest, new.latest), else_=_BLOCK.latest),
        },
    )


_NOTE_POSTGRESQL: Final = _upsert(postgresql.insert(AUDIT_TIME_BLOCK))
_NOTE_SQLITE: Final = _upsert(sqlite.insert(AUDIT_TIME_BLOCK))


def runs_in(connection: Connection, start: int | None, end: int | None) -> tuple[Run, ...]:
    """Runs in the order of the log that hold every entry from the time `start` (inclusive) to `end` (exclusive).

    They hold others too, so that the times of what is read in them are still to be compared.
    """
    if start is None and end is None:
        return EVERYTHING
    fitting = select(_BLOCK.block).order_by(_BLOCK.block)
    if start is not None:
        fitting = fitting.where(_BLOCK.latest >= start)
    if end is not None:
        fitting = fitting.where(_BLOCK.earliest < end)
    blocks = connection.scalars(fitting).all()
    if not blocks:
        return ()
    newest = connection.scalar(select(func.max(_BLOCK.block)))
    # The widest gaps part the runs; they are few, and blocks that lie close together are read as one.
    gaps = sorted((after - before, after) for before, after in pairwise(blocks) if after > before + 1)
    begins = [blocks[0], *sorted(after for _, after in gaps[-(MAX_RUNS - 1) :])]
    ends = [max(block for block in blocks if block < begin) for begin in begins[1:]] + [blocks[-1]]
    return tuple(
        Run(begin * BLOCK, None if last == newest else last * BLOCK + BLOCK - 1)
        for begin, last in zip(begins, ends, strict=True)
    )


def first_from(connection: Connection, start: int, *, size: int) -> int | None:
    """The lowest index of an entry from the time `start` on among the first `size`; None where there is none."""
    entry = AUDIT_ENTRY.c
    blocks = select(_BLOCK.block).where(_BLOCK.latest >= start).order_by(_BLOCK.block)
    for block in connection.scalars(blocks).all():
        inside = entry.leaf_index.between(block * BLOCK, min(block * BLOCK + BLOCK, size) - 1)
        found = connection.scalar(select(func.min(entry.leaf_index)).where(inside, entry.time >= start))
        if found is not None:
            return int(found)
    return None


def last_before(connection: Connection, end: int, *, size: int) -> int | None:
    """The highest index of an entry before the time `end` among the first `size`; None where there is none."""
    entry = AUDIT_ENTRY.c
    blocks = select(_BLOCK.block).where(_BLOCK.earliest < end).order_by(_BLOCK.block.desc())
    for block in connection.scalars(blocks).all():
        inside = entry.leaf_index.between(block * BLOCK, min(block * BLOCK + BLOCK, size) - 1)
        found = connection.scalar(select(func.max(entry.leaf_index)).where(inside, entry.time < end))
        if found is not None:
            return int(found)
    return None
