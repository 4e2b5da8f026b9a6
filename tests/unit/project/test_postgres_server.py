"""The tests' own PostgreSQL: durable, private, a fresh database each time, and able to crash and recover."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import create_engine, text

pytestmark = pytest.mark.postgres


def plain(url):
    return url.replace("postgresql+psycopg", "postgresql", 1)


def test_sqlalchemy_connects_and_the_server_is_durable(postgres_database):
    engine = create_engine(postgres_database)
    with engine.connect() as connection:
        assert connection.execute(text("SHOW fsync")).scalar_one() == "on"
        assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == "on"
    engine.dispose()


@pytest.mark.parametrize("attempt", [1, 2])
def test_each_test_gets_an_empty_database(postgres_database, attempt):
    with psycopg.connect(plain(postgres_database)) as connection:
        connection.execute("CREATE TABLE once (attempt integer)")


def test_a_wrong_password_is_refused(postgres_database, monkeypatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    head, _, tail = plain(postgres_database).partition("@")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"{head.rpartition(':')[0]}:wrong@{tail}").close()


def test_what_was_committed_survives_a_crash(postgres_server, postgres_database):
    with psycopg.connect(plain(postgres_database)) as connection:
        connection.execute("CREATE TABLE kept (value integer)")
        connection.execute("INSERT INTO kept VALUES (7)")
    postgres_server.kill()
    postgres_server.restart()
    with psycopg.connect(plain(postgres_database)) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (7,)
