"""Inserting many rows in the way that costs each database and its driver least.

What one small row costs through an ``INSERT`` of its own is mostly the library's work and the way to the server. So
PostgreSQL is sent one statement with an array for each column (``unnest``, PostgreSQL 15, section 9.19), and SQLite,
which is in this process, one prepared statement for all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, String, Table, bindparam, func, insert, select

from audit.tables import AUDIT_ENTRY

_ENTRY: Final = AUDIT_ENTRY.c

# Built once: building and hashing a statement costs more than executing it.
_INSERT: Final = insert(AUDIT_ENTRY)
_INSERT_ONE: Final = insert(AUDIT_ENTRY).returning(_ENTRY.id)
_INSERT_MANY: Final = insert(AUDIT_ENTRY).returning(_ENTRY.id, _ENTRY.leaf_hash)
_NEXT_IDS: Final = select(func.nextval(func.pg_get_serial_sequence(AUDIT_ENTRY.name, _ENTRY.id.name))).select_from(
    func.generate_series(1, bindparam("count"))
)


def insert_entries(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[int]:
    """Insert rows of `AUDIT_ENTRY`, none of which has an id yet; their ids, in the order of `rows`."""
    if len(rows) == 1:  # a plain INSERT … RETURNING, without the bookkeeping of many
        return [connection.execute(_INSERT_ONE, rows[0]).scalar_one()]
    if connection.dialect.name == "postgresql":
        # With ids taken beforehand one prepared statement is sent again and again; a statement of a thousand rows,
        # as RETURNING needs, takes the driver longer to read than the server to execute.
        ids = sorted(connection.execute(_NEXT_IDS, {"count": len(rows)}).scalars())
        connection.execute(_INSERT, [{"id": entry_id} | row for entry_id, row in zip(ids, rows, strict=True)])
        return ids
    # RETURNING promises no order, and asking SQLAlchemy for one makes it insert row by row on SQLite; the entry hash,
    # which no two entries share, says which id is whose.
    returned = connection.execute(_INSERT_MANY, rows)
    by_hash = {bytes(row.leaf_hash): row.id for row in returned}
    return [by_hash[row["leaf_hash"]] for row in rows]


class BulkInsert:
    """Inserts rows of some columns of a table, which are integers or texts and reach the driver as they are."""

    __slots__ = ("_postgresql", "_sqlite")

    def __init__(self, table: Table, *columns: str) -> None:
        """For `columns` of `table`, in this order."""
        names = ", ".join(columns)
        kinds = ("text" if isinstance(table.c[column].type, String) else "bigint" for column in columns)
        arrays = ", ".join(f"%s::{kind}[]" for kind in kinds)
        marks = ", ".join("?" * len(columns))
        self._postgresql: Final = f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays})"  # noqa: S608
        self._sqlite: Final = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608

    def __call__(self, connection: Connection, rows: Sequence[tuple[int | str, ...]]) -> None:
        """Insert `rows` in the caller's transaction; does nothing where there is none."""
        if not rows:
            return
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(self._postgresql, tuple(map(list, zip(*rows, strict=True))))
        else:
            connection.exec_driver_sql(self._sqlite, list(rows))
