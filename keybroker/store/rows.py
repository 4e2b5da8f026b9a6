"""Between rows and dataclasses, and the few statements in which the back ends differ."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from sqlalchemy import Connection, Executable, Label, RowMapping, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from keybroker.errors import NotFoundError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    R = TypeVar("R", bound=DataclassInstance)

PAGE_LIMIT: Final = 1000
"""Most rows in one page."""

_FOREIGN_KEY_VIOLATION: Final = "23503"


def values(row: DataclassInstance) -> dict[str, Any]:
    """A row's columns by name."""
    return {field.name: getattr(row, field.name) for field in fields(row)}


def find_one(
    connection: Connection, statement: Executable, row_type: type[R], parameters: Mapping[str, Any] | None = None
) -> R | None:
    """The one row of `statement` with `parameters`, or None.

    A statement that is built once and given parameters costs a third of one that is built for each call.
    """
    found = connection.execute(statement, parameters).mappings().one_or_none()
    return None if found is None else row_type(**found)


def find_all(
    connection: Connection, statement: Executable, row_type: type[R], parameters: Mapping[str, Any] | None = None
) -> list[R]:
    """Every row of `statement` with `parameters`."""
    return [row_type(**found) for found in connection.execute(statement, parameters).mappings()]


def prefixed(table: Table, prefix: str, *, skip: Sequence[str] = ()) -> list[Label[Any]]:
    """The columns of `table` but `skip`, named ``prefix.column``, to stand beside another table's in one statement."""
    return [column.label(f"{prefix}.{column.name}") for column in table.columns if column.name not in skip]


def without_prefix(row: RowMapping, prefix: str) -> dict[str, Any]:
    """What `prefixed` named in `row`, by its columns' own names."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in row.items() if name.startswith(start)}


def insert_if_absent(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert `row` unless one of the table's unique keys is taken; returns whether it was inserted.

    No exception is raised for a key that is taken, because PostgreSQL would end the transaction with it.
    """
    statement = _insert_if_absent(table, postgres=connection.dialect.name == "postgresql")
    return connection.execute(statement, dict(row)).rowcount == 1


def insert_all_if_absent(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert those of `rows` for which none of the table's unique keys is taken."""
    if rows:
        statement = _insert_if_absent(table, postgres=connection.dialect.name == "postgresql")
        connection.execute(statement, [dict(row) for row in rows])


@cache
def _insert_if_absent(table: Table, *, postgres: bool) -> Executable:
    """The statement, built once per table: that costs as much as to run it."""
    insert = postgresql.insert if postgres else sqlite.insert
    # Without the option the count of an INSERT is unknown on PostgreSQL.
    return insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)


def page_size(limit: int) -> int:
    """`limit`, checked.

    Raises:
        ValueError: not from 1 to `PAGE_LIMIT`.
    """
    if not 1 <= limit <= PAGE_LIMIT:
        raise ValueError(f"a page has 1 to {PAGE_LIMIT} rows, not {limit}")
    return limit


@contextmanager
def references(what: str, name: str) -> Iterator[None]:
    """Within the block, a reference to a row that does not exist raises `NotFoundError` for `what` and `name`.

    PostgreSQL ends the transaction, or the savepoint, in which that happens.
    """
    try:
        yield
    except IntegrityError as error:
        if _is_foreign_key(error.orig):
            raise NotFoundError(what, name) from error
        raise


def _is_foreign_key(error: BaseException | None) -> bool:
    match error:
        case sqlite3.Error():
            return error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
        case psycopg.Error():
            return error.sqlstate == _FOREIGN_KEY_VIOLATION
        case _:
            return False
