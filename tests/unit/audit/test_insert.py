"""Rows put in by the bulk: the same on both databases, whatever the texts hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import IntegrityError

from audit.insert import BulkInsert
from audit.log import append, append_many
from audit.records import Record
from audit.tables import AUDIT_ASSET_COUNTER, AUDIT_ENTRY, AUDIT_ENTRY_HARDWARE

Build = Callable[..., Record]
TEXTS = ("NULL", "null", "", "{}", '{"a"}', "a,b", 'a"b', "a\\b", "%s", "%(x)s", "?", ":x", "'; --", "ü", " a ")
PUT = BulkInsert(AUDIT_ASSET_COUNTER, "asset", "counter")


def test_texts_arrive_as_they_are(any_engine: Engine) -> None:
    rows = [(text, 10**15 + number) for number, text in enumerate(TEXTS)]
    with any_engine.begin() as connection:
        PUT(connection, [])
        PUT(connection, rows[:1])
        PUT(connection, rows[1:])
        found = connection.execute(select(AUDIT_ASSET_COUNTER.c.asset, AUDIT_ASSET_COUNTER.c.counter)).all()
    assert sorted(map(tuple, found)) == sorted(rows)


def test_one_bad_row_puts_in_none(any_engine: Engine) -> None:
    with any_engine.begin() as connection:
        connection.execute(insert(AUDIT_ASSET_COUNTER).values(asset="b", counter=1))
    with pytest.raises(IntegrityError), any_engine.begin() as connection:
        PUT(connection, [("a", 1), ("b", 2)])
    with any_engine.begin() as connection:
        assert connection.execute(select(AUDIT_ASSET_COUNTER.c.asset)).scalars().all() == ["b"]


def test_many_entries_keep_their_order_and_what_is_theirs(any_engine: Engine, record: Build) -> None:
    records = [record(number, hardware=[f"nvidia-gpu:{number:04d}"]) for number in range(300)]
    with any_engine.begin() as connection:
        first = append(connection, records[0])
        pending = append_many(connection, records[1:])
    entry, hardware = AUDIT_ENTRY.c, AUDIT_ENTRY_HARDWARE.c
    with any_engine.begin() as connection:
        rows = connection.execute(
            select(entry.id, entry.leaf_hash, hardware.hardware)
            .join_from(AUDIT_ENTRY, AUDIT_ENTRY_HARDWARE, hardware.entry_id == entry.id)
            .order_by(entry.id)
        ).all()
    assert [(row.id, bytes(row.leaf_hash)) for row in rows] == [
        (each.id, each.entry_hash) for each in (first, *pending)
    ]
    assert [row.hardware for row in rows] == [text for each in records for text in each.hardware]
