"""Opening the store: one `Engine` per process, set so that a commit that returned is on stable storage.

SQLite runs in WAL mode with ``synchronous=FULL`` (https://www.sqlite.org/pragma.html#pragma_synchronous): each commit
syncs the log before it returns. Every write transaction starts with ``BEGIN IMMEDIATE``, so that two writers queue up
at the start instead of failing in the middle, and savepoints work because the driver's own transaction control is off.
PostgreSQL runs at READ COMMITTED; what must be serial takes a row lock.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from keybroker.errors import StoreConfigurationError, StoreUnavailableError, StoreUsageError

BUSY_TIMEOUT: Final = 5
"""Seconds that a SQLite writer waits for another process's transaction."""

FLUSH_TIMEOUT: Final = 200
"""Milliseconds that emptying SQLite's log waits for readers."""

STATEMENT_TIMEOUT: Final = 10
"""Seconds after which PostgreSQL stops a statement."""

LOCK_TIMEOUT: Final = 5
"""Seconds that a PostgreSQL statement waits for a lock."""

IDLE_TIMEOUT: Final = 30
"""Seconds after which PostgreSQL ends a transaction that its client has left open."""

CONNECT_TIMEOUT: Final = 5
"""Seconds to wait for a connection to PostgreSQL."""

_READ_ONLY: Final = "keystead_read_only"
_UNIT: Final = "keystead_unit"
_DURABLE: Final = frozenset({"on", "remote_apply", "remote_write", "local"})


def open_engine(url: str, *, pool_size: int = 16) -> Engine:
    """Open the store at `url`: ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.

    A SQLite file that does not exist is created for this user alone (mode 0600). Nothing is migrated here.

    Args:
        url: the database address.
        pool_size: how many connections may be open at a time.

    Raises:
        StoreConfigurationError: another kind of database, a database in memory, a folder that does not exist, or a
            server that would call a commit done before it is durable.
        StoreUnavailableError: the database cannot be reached or opened.
    """
    try:
        address = make_url(url)
    except ArgumentError:
        # The text is not repeated: it may hold a password.
        raise StoreConfigurationError(
            "the database address is not a URL: use sqlite:///PATH or postgresql://USER@HOST/DATABASE"
        ) from None
    match address.get_backend_name():
        case "sqlite":
            engine = _open_sqlite(address, pool_size)
        case "postgresql":
            engine = _open_postgresql(address, pool_size)
        case other:
            raise StoreConfigurationError(
                f"{other} is not a database that Keystead knows: use sqlite:///PATH or postgresql://USER@HOST/DATABASE"
            )
    event.listen(engine, "commit", _refuse_in_unit)
    event.listen(engine, "rollback", _refuse_in_unit)
    shown = address.render_as_string(hide_password=True)
    try:
        with engine.connect():
            pass
    except DBAPIError as error:
        engine.dispose()
        raise StoreUnavailableError(f"{shown} cannot be opened: {error.orig}") from error
    except StoreConfigurationError as error:
        engine.dispose()
        raise StoreConfigurationError(f"{shown}: {error}") from error
    return engine


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """A connection that can only read; it sees one snapshot on SQLite and what is committed on PostgreSQL.

    It never waits for a writer. The transaction ends, and nothing of it stays, when the block does.
    """
    with engine.connect().execution_options(**_read_options(engine)) as connection:
        yield connection


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """As `read`, for long answers of many queries: it sees one snapshot on PostgreSQL, too."""
    options: dict[str, object] = dict(_read_options(engine))
    if engine.dialect.name == "postgresql":
        options["isolation_level"] = "REPEATABLE READ"
    with engine.connect().execution_options(**options) as connection:
        yield connection


@contextmanager
def unit_guard(connection: Connection) -> Iterator[None]:
    """Within the block, a commit or rollback of `connection`'s transaction is refused, and loses the transaction.

    Units of work share one transaction (`keybroker.store.commit`); none of them may end it for the others. The block
    raises `StoreUsageError` out of the call that tried.
    """
    info = connection.info  # of the driver's connection: it must be reached even after that one was lost
    info[_UNIT] = True
    try:
        yield
    finally:
        info.pop(_UNIT, None)


def in_transaction(connection: Connection) -> bool:
    """Whether the database itself, not just the library, still has `connection`'s transaction open.

    SQLite rolls a whole transaction back by itself when the disk is full or fails
    (https://www.sqlite.org/lang_transaction.html, section 3.1); what followed would commit statement by statement.
    """
    raw: object = connection.connection.driver_connection
    match raw:
        case sqlite3.Connection():
            return raw.in_transaction
        case psycopg.Connection():
            return raw.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS
        case _:
            return False


def flush_log(engine: Engine) -> bool:
    """Empty SQLite's write-ahead log into the database, so that no old page stays there; nothing on PostgreSQL.

    Old pages hold what was overwritten since. Whether all of it was emptied: readers may still need some.
    """
    if engine.dialect.name != "sqlite":
        return True
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        try:
            cursor.execute("PRAGMA query_only=OFF")
            cursor.execute(f"PRAGMA busy_timeout={FLUSH_TIMEOUT}")  # writers wait meanwhile
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (busy, *_) = cursor.fetchone() or (1,)
            cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT * 1_000}")
        finally:
            cursor.close()
    finally:
        raw.close()
    return not busy


def _read_options(engine: Engine) -> dict[str, bool]:
    return {_READ_ONLY: True} if engine.dialect.name == "sqlite" else {"postgresql_readonly": True}


def _refuse_in_unit(connection: Connection) -> None:
    if not connection.invalidated and connection.info.get(_UNIT):
        # The library takes its transaction for ended, whatever is raised here. Closing the driver's connection makes
        # that true; otherwise it would go back to the pool with the database's transaction open.
        connection.invalidate()
        raise StoreUsageError("a unit of work shares its transaction with others: return or raise, and leave it open")


def _open_sqlite(url: URL, pool_size: int) -> Engine:
    name = url.database
    if not name or name == ":memory:" or url.query:
        raise StoreConfigurationError(
            "a database in memory, or an address with options, cannot promise that a commit is durable: "
            "use sqlite:///PATH"
        )
    path = Path(name)
    if not path.parent.is_dir():
        raise StoreConfigurationError(f"{path}: its folder does not exist; create it, or name another path")
    try:
        # Created here, not by SQLite, for the mode: wrapped keys lie in it. SQLite gives its log the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreUnavailableError(f"{path} cannot be opened: {error.strerror}") from error
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"),
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"timeout": BUSY_TIMEOUT, "isolation_level": None, "check_same_thread": False},
    )
    event.listen(engine, "connect", _connect_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    event.listen(engine, "commit", _check_sqlite_commit)
    return engine


def _connect_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
        mode = cursor.fetchone()
        if mode != ("wal",):
            raise StoreConfigurationError(
                f"SQLite cannot use its write-ahead log here (it offers {mode!r}): put the file on a local disk"
            )
        cursor.execute("PRAGMA synchronous=FULL")
        # Only macOS has it: there, a plain fsync does not reach the disk.
        cursor.execute("PRAGMA fullfsync=ON")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA trusted_schema=OFF")
        # What is deleted is overwritten in the file, too: a destroyed key must not linger in a free page.
        cursor.execute("PRAGMA secure_delete=ON")
    finally:
        cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get(_READ_ONLY):
        connection.exec_driver_sql("PRAGMA query_only=ON")
        connection.exec_driver_sql("BEGIN")
    else:
        connection.exec_driver_sql("PRAGMA query_only=OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _check_sqlite_commit(connection: Connection) -> None:
    if not in_transaction(connection):
        raise StoreUnavailableError("SQLite rolled the transaction back by itself: check the disk's space and health")


def _open_postgresql(url: URL, pool_size: int) -> Engine:
    query = {"connect_timeout": str(CONNECT_TIMEOUT), "application_name": "keystead"} | dict(url.query)
    engine = create_engine(
        url.set(drivername="postgresql+psycopg", query=query),
        isolation_level="READ COMMITTED",
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_use_lifo=True,
    )
    event.listen(engine, "connect", _connect_postgresql)
    return engine


def _connect_postgresql(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute(
            "SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false),"
            " set_config('idle_in_transaction_session_timeout', %s, false),"
            " current_setting('synchronous_commit'), current_setting('fsync')",
            (f"{STATEMENT_TIMEOUT}s", f"{LOCK_TIMEOUT}s", f"{IDLE_TIMEOUT}s"),
        )
        row = cursor.fetchone()
    finally:
        cursor.close()
    # Ends the transaction that the driver opened; a rollback would undo the settings.
    connection.commit()
    *_, synchronous, fsync = row or ("nothing", "nothing")
    if synchronous not in _DURABLE or fsync != "on":
        raise StoreConfigurationError(
            f"synchronous_commit is {synchronous!r} and fsync {fsync!r}, so a commit may be lost: set both to 'on'"
        )
