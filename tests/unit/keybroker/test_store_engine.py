"""What `open_engine` refuses, and how it sets SQLite up."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from keybroker.errors import StoreConfigurationError, StoreUnavailableError
from keybroker.store import engine as engine_module
from keybroker.store.engine import flush_log, open_engine, read


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.dispose()


def test_sqlite_commits_are_durable_and_references_are_kept(engine: Engine) -> None:
    with engine.connect() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "trusted_schema")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 5000,
        "trusted_schema": 0,
    }


def test_the_file_is_this_users_alone(engine: Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes["store.db"] == 0o600
    assert set(modes.values()) == {0o600}


def test_writers_queue_up_instead_of_failing_in_the_middle(engine: Engine) -> None:
    """BEGIN IMMEDIATE: the second writer waits at its begin, so nothing it has read can be stale."""
    with engine.begin() as connection:
        raw = sqlite3.connect(engine.url.database or "", timeout=0, isolation_level=None)
        try:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                raw.execute("BEGIN IMMEDIATE")
        finally:
            raw.close()
        connection.execute(text("SELECT 1"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:////tmp/x.db?mode=memory", "with options"),
        ("sqlite:////nonexistent-folder/x.db", "folder does not exist"),
        ("mysql://u:geheim@h/d", "mysql"),
        ("no url, geheim", "not a URL"),
    ],
)
def test_what_cannot_be_durable_is_refused(url: str, words: str) -> None:
    with pytest.raises(StoreConfigurationError, match=words) as caught:
        open_engine(url)
    assert "geheim" not in str(caught.value)


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="cannot be opened"):
        open_engine(f"sqlite:///{tmp_path}")


def test_another_file_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"something else, long enough to be looked at as a header" * 20)
    with pytest.raises(StoreUnavailableError, match="not a database"):
        open_engine(f"sqlite:///{path}")


def test_an_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(StoreUnavailableError, match=r"postgresql.*\*\*\*") as caught:
        open_engine("postgresql://u:geheim@127.0.0.1:1/d")
    assert "geheim" not in str(caught.value)


@pytest.mark.postgres
def test_postgresql_settings(postgres_database: str) -> None:
    # The scheme that people write; the driver is chosen here.
    engine = open_engine(postgres_database.replace("postgresql+psycopg:", "postgresql:"))
    try:
        with engine.connect() as connection:
            settings = {
                name: connection.execute(text(f"SHOW {name}")).scalar_one()
                for name in (
                    "statement_timeout",
                    "lock_timeout",
                    "idle_in_transaction_session_timeout",
                    "transaction_isolation",
                    "synchronous_commit",
                )
            }
    finally:
        engine.dispose()
    assert settings == {
        "statement_timeout": "10s",
        "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "30s",
        "transaction_isolation": "read committed",
        "synchronous_commit": "on",
    }


@pytest.mark.postgres
def test_a_server_that_answers_before_it_has_written_is_refused(postgres_database: str) -> None:
    separator = "&" if "?" in postgres_database else "?"
    with pytest.raises(StoreConfigurationError, match="synchronous_commit is 'off'"):
        open_engine(f"{postgres_database}{separator}options=-csynchronous_commit%3Doff")


def test_a_disk_without_a_write_ahead_log_is_refused() -> None:
    class Cursor:
        def execute(self, statement: str) -> None:
            assert statement == "PRAGMA journal_mode=WAL"

        def fetchone(self) -> tuple[str]:
            return ("delete",)

        def close(self) -> None: ...

    class Raw:
        def cursor(self) -> Cursor:
            return Cursor()

    connect: Any = engine_module._connect_sqlite
    with pytest.raises(StoreConfigurationError, match="local disk"):
        connect(Raw(), None)


def test_what_was_deleted_is_gone_from_the_files(tmp_path: Path) -> None:
    path = tmp_path / "flushed.db"
    engine = open_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE kept (secret TEXT)")
        connection.exec_driver_sql("INSERT INTO kept VALUES ('marked-secret')")
    assert flush_log(engine)
    assert b"marked-secret" in path.read_bytes()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE kept SET secret = NULL")
    with read(engine) as connection:
        connection.exec_driver_sql("SELECT * FROM kept").all()
        assert not flush_log(engine), "a reader may still need what is there"
    assert flush_log(engine)
    files = path.read_bytes() + path.with_name("flushed.db-wal").read_bytes()
    assert b"marked-secret" not in files
    engine.dispose()
