"""Opening a log's database to read it: never written to, and seen as it was at one instant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from audit.errors import DatabaseError, KeyringError
from audit.keyring import Keyring, bind
from audit.tables import AUDIT_STATE, METADATA

_HOW: Final = "give sqlite:///PATH or postgresql://USER@HOST/DATABASE"


def open_read_only(url: str) -> Engine:
    """An engine that can only read the log at `url`.

    Raises:
        DatabaseError: it is not the address of a SQLite file or PostgreSQL database, or no such file exists.
    """
    try:
        address = make_url(url)
    except ArgumentError:
        raise DatabaseError(f"database: not a database address; {_HOW}") from None
    if address.get_backend_name() == "postgresql":
        return create_engine(
            address.set(drivername="postgresql+psycopg"),
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
        )
    if address.get_backend_name() != "sqlite":
        raise DatabaseError(f"database: {address.get_backend_name()} is not supported; {_HOW}")
    path = Path(address.database or "")
    if not address.database or not path.is_file():
        raise DatabaseError(f"database: no file {address.database!r}; {_HOW}")
    # Mode "ro" keeps even a mistyped statement from writing; the path is absolute and escaped by as_uri().
    engine = create_engine(f"sqlite:///{path.resolve().as_uri()}?mode=ro&uri=true")

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")  # the driver begins no transaction for a SELECT by itself

    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)
    return engine


@contextmanager
def snapshot(url: str, ring: Keyring | None = None) -> Iterator[Connection]:
    """A connection that sees the log at `url` as it was at one instant, whatever is written meanwhile.

    Args:
        url: the database.
        ring: the log's keys; sealed records are shown as such without.

    Raises:
        KeyringError: the keys are another log's.
        DatabaseError: the database cannot be opened or read, or holds no log.
    """
    engine = open_read_only(url)
    shown = make_url(url).render_as_string(hide_password=True)
    try:
        with (engine if ring is None else bind(engine, ring)).connect() as connection:
            missing = METADATA.tables.keys() - set(inspect(connection).get_table_names())
            if missing:
                raise DatabaseError(f"database {shown}: holds no log of this version; {min(missing)} is missing")
            origin = connection.execute(select(AUDIT_STATE.c.origin)).scalar()
            if ring is not None and origin not in (None, ring.origin):
                raise KeyringError(f"database {shown}: holds the log {origin!r}; the keys are those of {ring.origin!r}")
            yield connection
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise DatabaseError(f"database {shown}: {cause}") from error
    finally:
        engine.dispose()
