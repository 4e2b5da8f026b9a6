"""Erasure: what goes, what stays, and what may not be erased."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, func, select

from audit.errors import EntryNotFoundError, RecordError
from audit.log import append, erase
from audit.query import get
from audit.records import Actor, Kind, Record
from audit.sequencer import Sequencer
from audit.tables import AUDIT_ENTRY, AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE, AUDIT_ENTRY_REASON

NOW = 1_800_000_000
OFFICER = Actor(role="operator", name="dpo")
Build = Callable[..., Record]
MakeLog = Callable[..., Sequencer]


def test_erasure_leaves_hashes_and_nothing_of_the_record(any_engine: Engine, make_log: MakeLog) -> None:
    sequencer = make_log(any_engine, [4])
    with any_engine.begin() as connection:
        before = connection.execute(select(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index == 2)).one()
        pending = erase(connection, indexes=[2, 2], actor=OFFICER, time=NOW)
        after = connection.execute(select(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index == 2)).one()
        left = [
            connection.scalar(select(func.count()).select_from(table).where(table.c.entry_id == before.id))
            for table in (AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE, AUDIT_ENTRY_REASON)
        ]
    kept = {name for name, value in after._mapping.items() if value is not None}
    assert kept == {"id", "leaf_index", "digest", "leaf_hash"}
    assert (after.digest, after.leaf_hash) == (before.digest, before.leaf_hash)
    assert left == [0, 0, 0]
    sequencer.run_once(NOW)
    with any_engine.begin() as connection:
        entry = get(connection, 4)
    assert entry.entry_hash == pending.entry_hash
    record = entry.record()
    assert record is not None
    assert (record.kind, record.actor, dict(record.detail)) == (
        Kind.AUDIT_ERASED,
        OFFICER,
        {"leaf_indexes": ("2",)},
    )


def test_what_is_not_erased(engine: Engine, make_log: MakeLog, record: Build) -> None:
    sequencer = make_log(engine, [3])
    with engine.begin() as connection:
        append(connection, record(9))
        erase(connection, indexes=[0], actor=OFFICER, time=NOW)
    sequencer.run_once(NOW)
    with engine.begin() as connection:
        for indexes, error in (
            ([0], EntryNotFoundError),
            ([1, 99], EntryNotFoundError),
            ([4], RecordError),
            ([], RecordError),
            (list(range(600)), RecordError),
        ):
            with pytest.raises(error):
                erase(connection, indexes=indexes, actor=OFFICER, time=NOW)
        assert get(connection, 1).record() is not None
