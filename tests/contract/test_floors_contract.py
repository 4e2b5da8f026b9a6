"""Monotone floors, on every back end: what was used once is never followed by something older."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from keybroker.errors import CollateralRolledBackError
from keybroker.store.floors import Floor, StoredFloor, forget, raise_floors, stored_floors
from keybroker.store.migrate import migrate

A, B = b"\xaa" * 32, b"\xbb" * 32


def floor(number: int | None, digest: bytes = A, source: str = "crl:CN=ARK-Milan") -> Floor:
    return Floor(source=source, name="milan.crl", number=number, digest=digest)


@pytest.fixture
def store(open_replica: Callable[[], Engine]) -> Engine:
    engine = open_replica()
    migrate(engine)
    return engine


def use(engine: Engine, *floors: Floor, now: int = 100) -> list[StoredFloor]:
    """Use `floors` as a broker does at its start; the rows afterwards."""
    with engine.begin() as connection:
        raise_floors(connection, floors, now=now)
    return rows(engine)


def rows(engine: Engine) -> list[StoredFloor]:
    with engine.begin() as connection:
        return stored_floors(connection)


def test_a_floor_rises_and_stays(store: Engine) -> None:
    assert use(store, floor(4)) == [StoredFloor(source="crl:CN=ARK-Milan", number=4, digest=A, updated_at=100)]
    assert use(store, floor(4), now=200)[0].updated_at == 100, "the same again changes nothing"
    assert use(store, floor(5, B), now=300) == [
        StoredFloor(source="crl:CN=ARK-Milan", number=5, digest=B, updated_at=300)
    ]
    assert use(store, floor((1 << 63) - 1, A), now=400)[0].number == (1 << 63) - 1


@pytest.mark.parametrize(
    ("later", "named"),
    [
        (floor(4), "number 4 is older than number 5"),
        (floor(0), "number 0 is older than number 5"),
        (floor(5, B), "other content"),
        (floor(None), "states no number"),
    ],
)
def test_what_is_older_is_refused_and_changes_nothing(store: Engine, later: Floor, named: str) -> None:
    before = use(store, floor(5))
    with pytest.raises(CollateralRolledBackError) as caught:
        use(store, floor(9, source="another"), later, now=200)
    assert named in str(caught.value)
    assert "milan.crl (crl:CN=ARK-Milan)" in str(caught.value)
    assert "keystead reference floors" in str(caught.value)
    assert rows(store) == before, "all or none"


def test_no_number_is_fine_where_none_was_used(store: Engine) -> None:
    assert use(store, floor(None)) == []


def test_sources_do_not_mix_and_replicas_share(store: Engine, open_replica: Callable[[], Engine]) -> None:
    use(store, floor(5), floor(2, B, "reference-values"))
    other = open_replica()
    assert [row.number for row in use(other, floor(6), floor(2, B, "reference-values"))] == [6, 2]
    with pytest.raises(CollateralRolledBackError):
        use(store, floor(5))


def test_an_operator_can_forget(store: Engine) -> None:
    use(store, floor(5))
    with store.begin() as connection:
        assert not forget(connection, "another")
        assert forget(connection, "crl:CN=ARK-Milan")
    assert use(store, floor(4))[0].number == 4
