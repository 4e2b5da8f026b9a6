"""One factory with two sites and three nodes, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from factory import Factory, furnish, start_factory

from attestation.simulator.node import SimulatedVendors
from keystead.binding import AssetRef


@pytest.fixture
def factory(make_factory: Callable[..., Factory]) -> Factory:
    """A furnished factory on SQLite."""
    return furnish(make_factory())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest) -> str | None:
    """Where a broker keeps its state; None is SQLite in its own folder."""
    return request.getfixturevalue("postgres_database") if request.param == "postgres" else None


@pytest.fixture
def any_factory(database: str | None, make_factory: Callable[..., Factory]) -> Factory:
    """A furnished factory, once on SQLite and once on PostgreSQL; the database goes after its broker."""
    return furnish(make_factory(database=database))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, vendors: SimulatedVendors) -> Iterator[tuple[Factory, AssetRef]]:
    """One factory on SQLite with one asset, for tests that leave nothing behind but records."""
    made = furnish(start_factory(tmp_path_factory.mktemp("shared") / "factory", vendors, database=None, edit=str))
    yield made, made.register_asset()
    made.close()
