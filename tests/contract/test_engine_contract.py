"""What `open_engine` promises, on every back end."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from keybroker.errors import StoreUsageError
from keybroker.store.engine import in_transaction, read, unit_guard


def make_table(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER PRIMARY KEY)"))


def contents(engine: Engine) -> list[int]:
    with read(engine) as connection:
        return list(connection.execute(text("SELECT x FROM t ORDER BY x")).scalars())


def test_read_refuses_writes_and_the_connection_can_write_afterwards(empty_engine: Engine) -> None:
    make_table(empty_engine)
    for _ in range(20):
        with read(empty_engine) as connection, pytest.raises(DBAPIError, match=r"(?i)read-?only"):
            connection.execute(text("INSERT INTO t VALUES (1)"))
    for value in range(20):
        with empty_engine.begin() as connection:
            connection.execute(text("INSERT INTO t VALUES (:x)"), {"x": value})
    assert contents(empty_engine) == list(range(20))


def test_savepoints_undo_only_what_is_within(empty_engine: Engine) -> None:
    make_table(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        savepoint = connection.begin_nested()
        connection.execute(text("INSERT INTO t VALUES (2)"))
        savepoint.rollback()
        with connection.begin_nested():
            connection.execute(text("INSERT INTO t VALUES (3)"))
    assert contents(empty_engine) == [1, 3]


def test_a_reader_sees_neither_uncommitted_rows_nor_waits(empty_engine: Engine) -> None:
    make_table(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        assert contents(empty_engine) == []
    assert contents(empty_engine) == [1]


def test_schema_changes_are_transactional(empty_engine: Engine) -> None:
    with empty_engine.connect() as connection:
        connection.execute(text("CREATE TABLE gone (x INTEGER)"))
        connection.rollback()
        found = connection.dialect.has_table(connection, "gone")
    assert not found


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_a_guarded_transaction_cannot_be_ended(empty_engine: Engine, ending: str) -> None:
    make_table(empty_engine)
    with empty_engine.connect() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        with unit_guard(connection), pytest.raises(StoreUsageError):
            getattr(connection, ending)()
    for _ in range(20):
        assert contents(empty_engine) == []
    with empty_engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (2)"))
    assert contents(empty_engine) == [2]


def test_in_transaction_tells_what_the_database_thinks(empty_engine: Engine) -> None:
    with empty_engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert in_transaction(connection)
        # As SQLite does by itself when the disk is full.
        connection.exec_driver_sql("ROLLBACK")
        assert not in_transaction(connection)
