"""The migrated schema is the declared one, on every back end; migrating is safe to repeat and to race."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from audit import tables
from keybroker.errors import StoreNotCurrentError
from keybroker.store import schema
from keybroker.store.migrate import check_current, migrate


def describe(engine: Engine) -> dict[str, Any]:
    """Everything that the database itself says of its tables, but Alembic's own."""
    inspector = inspect(engine)
    found: dict[str, Any] = {}
    for table in sorted(inspector.get_table_names()):
        if table == "alembic_version":
            continue
        found[table] = {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            ],
            "primary": inspector.get_pk_constraint(table),
            "foreign": sorted(inspector.get_foreign_keys(table), key=str),
            "unique": sorted(inspector.get_unique_constraints(table), key=str),
            "checks": sorted(inspector.get_check_constraints(table), key=str),
            "indexes": sorted(
                (
                    # A partial index's condition compares by its text.
                    {**index, "dialect_options": {k: str(v) for k, v in index.get("dialect_options", {}).items()}}
                    for index in inspector.get_indexes(table)
                ),
                key=str,
            ),
        }
    return found


def test_migrations_make_what_the_metadata_declare(empty_engine: Engine) -> None:
    migrate(empty_engine)
    migrated = describe(empty_engine)
    with empty_engine.begin() as connection:
        for metadata in (schema.METADATA, tables.METADATA):
            metadata.drop_all(connection)
            metadata.create_all(connection)
    declared = describe(empty_engine)
    assert set(declared) == set(schema.METADATA.tables) | set(tables.METADATA.tables)
    assert migrated == declared


def test_alembic_sees_no_difference(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, [schema.METADATA, tables.METADATA]) == []  # type: ignore[arg-type]


def test_a_removed_index_would_be_seen(engine: Engine) -> None:
    before = describe(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_lease_expires_at_state"))
    assert describe(engine) != before


def test_migrate_says_what_it_did_and_is_idempotent(empty_engine: Engine) -> None:
    with pytest.raises(StoreNotCurrentError, match="keystead init") as caught:
        check_current(empty_engine)
    assert caught.value.found is None
    applied = migrate(empty_engine)
    assert applied
    assert migrate(empty_engine) == ()
    assert check_current(empty_engine) == applied[-1] == caught.value.expected


def test_replicas_that_start_together_migrate_once(open_replica: Callable[[], Engine]) -> None:
    engines = [open_replica() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(migrate, engines))
    assert sorted(map(len, applied))[:3] == [0, 0, 0]
    assert len(max(applied, key=len)) >= 1
    check_current(engines[0])


def test_a_newer_database_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for function in (check_current, migrate):
        with pytest.raises(StoreNotCurrentError, match=r"9999.*newer release") as caught:
            function(engine)
        assert caught.value.found == "9999"


def test_a_failed_migration_leaves_nothing(empty_engine: Engine) -> None:
    with empty_engine.begin() as connection:
        connection.execute(text("CREATE TABLE audit_state (x INTEGER)"))
    with pytest.raises(Exception, match="audit_state"):
        migrate(empty_engine)
    assert inspect(empty_engine).get_table_names() == ["audit_state"]
