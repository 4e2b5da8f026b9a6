"""One suite, every back end: `engine` and `committer` exist once on SQLite and once on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from keybroker.store.commit import GroupCommitter
from keybroker.store.engine import open_engine
from keybroker.store.migrate import migrate


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database; the test is skipped, loudly, where there is no PostgreSQL."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_database")
        return url
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], scope="session")
def shared_engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database with this release's schema for tests that commit nothing."""
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
        with server.connect() as administrator:
            administrator.execute("CREATE DATABASE shared_by_contract_tests")
        url = server.url("shared_by_contract_tests")
    else:
        url = f"sqlite:///{tmp_path_factory.mktemp('shared') / 'store.db'}"
    opened = open_engine(url)
    migrate(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def open_replica(database_url: str) -> Iterator[Callable[[], Engine]]:
    """Opens the same database again, as another replica would."""
    opened: list[Engine] = []

    def open_one() -> Engine:
        opened.append(open_engine(database_url))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.dispose()


@pytest.fixture
def empty_engine(open_replica: Callable[[], Engine]) -> Engine:
    """An open database without a schema."""
    return open_replica()


@pytest.fixture
def engine(empty_engine: Engine) -> Engine:
    """An open database with this release's schema."""
    migrate(empty_engine)
    return empty_engine


@pytest.fixture
def committer(engine: Engine) -> Iterator[GroupCommitter]:
    """The database's writer."""
    with GroupCommitter(engine) as writer:
        yield writer
