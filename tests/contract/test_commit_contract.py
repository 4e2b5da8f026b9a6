"""Group commit on every back end: durable answers, isolated failures, collisions that are run again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, event, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from keybroker.errors import (
    StoreClosedError,
    StoreConflictError,
    StoreOutcomeUnknownError,
    StoreOverloadedError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreUsageError,
)
from keybroker.store.commit import ATTEMPTS, GroupCommitter
from keybroker.store.engine import read

METADATA = MetaData()
ITEM = Table("item", METADATA, Column("id", Integer, primary_key=True, autoincrement=False), Column("n", Integer))
TIMEOUT = 30.0

ON_POSTGRES = pytest.mark.parametrize(
    "database_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
"""For what SQLite cannot do: its writers queue up, they do not collide."""


@pytest.fixture
def engine(empty_engine: Engine) -> Engine:
    METADATA.create_all(empty_engine)
    return empty_engine


@pytest.fixture
def writer(engine: Engine) -> Iterator[GroupCommitter]:
    with GroupCommitter(engine) as committer:
        yield committer


def add(key: int) -> Callable[[Connection], int]:
    def unit(connection: Connection) -> int:
        connection.execute(insert(ITEM).values(id=key, n=0))
        return key

    return unit


def keys(engine: Engine) -> set[int]:
    with read(engine) as connection:
        return set(connection.execute(select(ITEM.c.id)).scalars())


class Gate:
    """Holds the writer in one unit, so that what is submitted meanwhile becomes one batch."""

    def __init__(self, writer: GroupCommitter) -> None:
        self._writer = writer
        self._entered, self._open = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        # A test that makes commits fail makes this one's fail too.
        with contextlib.suppress(StoreOutcomeUnknownError):
            self._writer.submit(self._hold, TIMEOUT)

    def _hold(self, _connection: Connection) -> None:
        self._entered.set()
        assert self._open.wait(TIMEOUT)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._entered.wait(TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()
        self._thread.join()

    def wait_for(self, count: int) -> None:
        while self._writer.waiting < count:
            threading.Event().wait(0.001)


def run_as_one_batch(
    writer: GroupCommitter, units: list[Callable[[Connection], Any]], *, orders: list[str] | None = None
) -> list[Any]:
    """Each unit's value or exception; all units are in one batch."""

    def submit(unit: Callable[[Connection], Any], order: str) -> Any:
        try:
            return writer.submit(unit, TIMEOUT, order=order)
        except BaseException as error:  # noqa: BLE001 - it is what the test looks at
            return error

    with ThreadPoolExecutor(max(1, len(units))) as pool:
        with Gate(writer) as gate:
            pending = []
            for place, unit in enumerate(units):
                pending.append(pool.submit(submit, unit, orders[place] if orders else ""))
                gate.wait_for(place + 1)
        return [future.result() for future in pending]


def test_a_value_comes_back_after_its_row_is_committed(engine: Engine, writer: GroupCommitter) -> None:
    for key in range(20):
        assert writer.submit(add(key), TIMEOUT) == key
        assert key in keys(engine)


def test_concurrent_units_share_transactions_and_all_are_there(engine: Engine) -> None:
    commits: list[int] = []
    event.listen(engine, "commit", lambda _: commits.append(1))
    sizes: list[int] = []
    with (
        GroupCommitter(engine, observe=lambda size, _seconds: sizes.append(size)) as writer,
        ThreadPoolExecutor(32) as pool,
    ):
        assert sorted(pool.map(lambda key: writer.submit(add(key), TIMEOUT), range(400))) == list(range(400))
    assert keys(engine) == set(range(400))
    assert sum(sizes) == 400
    assert len(commits) == len(sizes) < 400


class OwnError(Exception):
    pass


def test_a_failing_unit_undoes_itself_alone(engine: Engine, writer: GroupCommitter) -> None:
    def half_done(connection: Connection) -> None:
        add(100)(connection)
        raise OwnError

    def clash(connection: Connection) -> None:
        add(101)(connection)
        add(1)(connection)

    def caught(connection: Connection) -> str:
        add(102)(connection)
        with pytest.raises(IntegrityError), connection.begin_nested():
            add(1)(connection)
        return "went on"

    one, own, taken, two, went_on, three = run_as_one_batch(writer, [add(1), half_done, clash, add(2), caught, add(3)])
    assert (one, two, three, went_on) == (1, 2, 3, "went on")
    assert isinstance(own, OwnError)
    assert isinstance(taken, IntegrityError)
    assert keys(engine) == {1, 2, 3, 102}


def test_a_failing_unit_alone_in_its_batch_leaves_nothing(engine: Engine, writer: GroupCommitter) -> None:
    def half_done(connection: Connection) -> None:
        add(1)(connection)
        raise OwnError

    with pytest.raises(OwnError):
        writer.submit(half_done, TIMEOUT)
    assert writer.submit(add(2), TIMEOUT) == 2
    assert keys(engine) == {2}


def test_a_unit_sees_the_earlier_ones_of_its_batch(writer: GroupCommitter) -> None:
    def count(connection: Connection) -> int:
        return connection.execute(select(func.count()).select_from(ITEM)).scalar_one()

    assert run_as_one_batch(writer, [add(1), count, add(2), count]) == [1, 1, 2, 2]


def test_units_run_in_lock_order(writer: GroupCommitter) -> None:
    ran: list[str] = []
    names = ["job-c", "job-a", "job-b", "job-a"]
    run_as_one_batch(
        writer,
        [lambda _, place=place, name=name: ran.append(f"{name}{place}") for place, name in enumerate(names)],
        orders=names,
    )
    assert ran == ["job-a1", "job-a3", "job-b2", "job-c0"]


@pytest.mark.parametrize("ending", ["commit", "rollback", "close"])
def test_a_unit_cannot_end_the_shared_transaction(engine: Engine, writer: GroupCommitter, ending: str) -> None:
    def meddle(connection: Connection) -> None:
        add(100)(connection)
        getattr(connection, ending)()

    one, meddled, two = run_as_one_batch(writer, [add(1), meddle, add(2)])
    assert (one, two) == (1, 2)
    assert isinstance(meddled, StoreUsageError | StoreUnavailableError)
    assert writer.submit(add(3), TIMEOUT) == 3
    assert keys(engine) == {1, 2, 3}


def test_a_unit_that_hides_its_meddling_gets_no_value(engine: Engine, writer: GroupCommitter) -> None:
    def meddle(connection: Connection) -> str:
        with contextlib.suppress(StoreUsageError):
            connection.commit()
        return "fine"

    one, meddled = run_as_one_batch(writer, [add(1), meddle])
    assert one == 1
    assert isinstance(meddled, StoreUsageError | StoreUnavailableError | StoreOutcomeUnknownError)
    assert keys(engine) == {1}


def test_a_unit_whose_transaction_the_database_rolled_back_gets_no_value(
    engine: Engine, writer: GroupCommitter
) -> None:
    def lose(connection: Connection) -> str:
        # As SQLite does by itself when the disk is full.
        connection.exec_driver_sql("ROLLBACK")
        return "fine"

    one, lost, two = run_as_one_batch(writer, [add(1), lose, add(2)])
    assert (one, two) == (1, 2)
    assert isinstance(lost, StoreUnavailableError)
    assert keys(engine) == {1, 2}


def test_a_unit_cannot_submit(writer: GroupCommitter) -> None:
    with pytest.raises(StoreUsageError):
        writer.submit(lambda _: writer.submit(add(1), TIMEOUT), TIMEOUT)


def test_when_the_commit_fails_nobody_gets_a_value(engine: Engine, writer: GroupCommitter) -> None:
    original = engine.dialect.do_commit
    failing = True

    def do_commit(raw: Any) -> None:
        if failing:
            # What the driver raises when the disk or the connection fails during the commit.
            raise engine.dialect.loaded_dbapi.OperationalError("disk I/O error")
        original(raw)

    engine.dialect.do_commit = do_commit  # type: ignore[method-assign]
    results = run_as_one_batch(writer, [add(1), lambda _: None, add(2)])
    assert [type(result) for result in results] == [StoreOutcomeUnknownError] * 3
    failing = False
    assert keys(engine) == set()
    assert writer.submit(add(3), TIMEOUT) == 3
    assert keys(engine) == {3}


def test_an_exception_is_not_delivered_before_the_commit(engine: Engine, writer: GroupCommitter) -> None:
    """What a unit was refused for may be a sibling's row: if that is not committed, the refusal was wrong."""
    original = engine.dialect.do_commit

    def do_commit(raw: Any) -> None:
        raise engine.dialect.loaded_dbapi.OperationalError("disk I/O error")

    def refuse(connection: Connection) -> None:
        if connection.execute(select(ITEM.c.id)).scalars().all():
            raise OwnError

    engine.dialect.do_commit = do_commit  # type: ignore[method-assign]
    _, refused = run_as_one_batch(writer, [add(1), refuse])
    engine.dialect.do_commit = original  # type: ignore[method-assign]
    assert isinstance(refused, StoreOutcomeUnknownError)


def test_a_full_queue_refuses(engine: Engine) -> None:
    with GroupCommitter(engine, max_waiting=2) as writer, ThreadPoolExecutor(2) as pool:
        with Gate(writer) as gate:
            waiting = [pool.submit(writer.submit, add(key), TIMEOUT) for key in (1, 2)]
            gate.wait_for(2)
            with pytest.raises(StoreOverloadedError):
                writer.submit(add(3), TIMEOUT)
        assert sorted(future.result() for future in waiting) == [1, 2]
    assert keys(engine) == {1, 2}


def test_a_caller_that_gave_up_in_the_queue_withdraws_its_unit(engine: Engine, writer: GroupCommitter) -> None:
    with Gate(writer), pytest.raises(StoreTimeoutError) as caught:
        writer.submit(add(1), 0.01)
    assert not caught.value.outcome_unknown
    assert writer.submit(add(2), TIMEOUT) == 2
    assert keys(engine) == {2}


def test_a_caller_that_gave_up_too_late_learns_that_the_outcome_is_open(engine: Engine, writer: GroupCommitter) -> None:
    proceed = threading.Event()

    def slow(connection: Connection) -> None:
        add(1)(connection)
        assert proceed.wait(TIMEOUT)

    with pytest.raises(StoreTimeoutError) as caught:
        writer.submit(slow, 0.2)
    assert caught.value.outcome_unknown
    proceed.set()
    assert writer.submit(add(2), TIMEOUT) == 2
    assert keys(engine) == {1, 2}


def test_a_units_own_timeout_error_is_its_own(writer: GroupCommitter) -> None:
    def unit(_connection: Connection) -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        writer.submit(unit, TIMEOUT)


def test_close_finishes_what_waits_and_refuses_what_comes_later(engine: Engine) -> None:
    writer = GroupCommitter(engine)
    with ThreadPoolExecutor(8) as pool:
        with Gate(writer) as gate:
            pending = [pool.submit(writer.submit, add(key), TIMEOUT) for key in range(8)]
            gate.wait_for(8)
            with pytest.raises(StoreTimeoutError):
                writer.close(timeout=0.01)
            with pytest.raises(StoreClosedError):
                writer.submit(add(99), TIMEOUT)
        writer.close()
        writer.close()
        assert sorted(future.result() for future in pending) == list(range(8))
    assert keys(engine) == set(range(8))


def test_without_a_database_everyone_is_told_that_nothing_happened(engine: Engine) -> None:
    with GroupCommitter(engine) as writer:

        def refuse(*_: object) -> None:
            raise engine.dialect.loaded_dbapi.OperationalError("gone")

        event.listen(engine, "do_connect", refuse)
        engine.dispose()
        with ThreadPoolExecutor(2) as pool:
            pending = [pool.submit(writer.submit, add(key), TIMEOUT) for key in (1, 2)]
        assert [type(future.exception()) for future in pending] == [StoreUnavailableError] * 2
        event.remove(engine, "do_connect", refuse)
        assert writer.submit(add(3), TIMEOUT) == 3
    assert keys(engine) == {3}


@ON_POSTGRES
@pytest.mark.parametrize("step", ["unit", "commit"])
def test_collisions_are_run_again_one_by_one(engine: Engine, writer: GroupCommitter, step: str) -> None:
    """A distributed SQL database reports them anywhere; here they are injected with PostgreSQL's own error class."""
    error = engine.dialect.loaded_dbapi.errors.SerializationFailure
    left, tries = 3, 0
    original = engine.dialect.do_commit

    def collide() -> None:
        nonlocal left
        if left:
            left -= 1
            raise error("could not serialize access")

    def unit(connection: Connection) -> str:
        nonlocal tries
        tries += 1
        add(1)(connection)
        if step == "unit" and left:
            collide_in_database(connection)
        return "done"

    def collide_in_database(connection: Connection) -> None:
        nonlocal left
        left -= 1
        connection.execute(text("DO $$ BEGIN RAISE EXCEPTION 'collision' USING ERRCODE = '40001'; END $$"))

    def do_commit(raw: Any) -> None:
        collide()
        original(raw)

    if step == "commit":
        engine.dialect.do_commit = do_commit  # type: ignore[method-assign]
    results = run_as_one_batch(writer, [add(2), unit, add(3)]) if step == "unit" else [2, writer.submit(unit, 9), 3]
    assert results == [2, "done", 3]
    assert tries == 4
    assert keys(engine) >= {1}


@ON_POSTGRES
def test_endless_collisions_end_in_a_typed_error(engine: Engine, writer: GroupCommitter) -> None:
    tries = 0

    def unit(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        connection.execute(text("DO $$ BEGIN RAISE EXCEPTION 'collision' USING ERRCODE = '40P01'; END $$"))

    one, collided, two = run_as_one_batch(writer, [add(1), unit, add(2)])
    assert (one, two) == (1, 2)
    assert isinstance(collided, StoreConflictError)
    assert tries == 1 + ATTEMPTS
    assert keys(engine) == {1, 2}


def test_two_replicas_that_deadlock_both_finish(engine: Engine, open_replica: Callable[[], Engine]) -> None:
    with GroupCommitter(engine) as first, GroupCommitter(open_replica()) as second:
        for key in (1, 2):
            first.submit(add(key), TIMEOUT)
        barrier = threading.Barrier(2)
        met = threading.Event()

        def raise_both(order: tuple[int, int]) -> Callable[[Connection], None]:
            def unit(connection: Connection) -> None:
                for place, key in enumerate(order):
                    connection.execute(update(ITEM).where(ITEM.c.id == key).values(n=ITEM.c.n + 1))
                    # Only the first tries meet, so that they are sure to lock crosswise; SQLite lets one in at a time.
                    if place == 0 and not met.is_set() and engine.dialect.name == "postgresql":
                        barrier.wait(TIMEOUT)
                        met.set()

            return unit

        with ThreadPoolExecutor(2) as pool:
            pending = [
                pool.submit(first.submit, raise_both((1, 2)), TIMEOUT),
                pool.submit(second.submit, raise_both((2, 1)), TIMEOUT),
            ]
            for future in pending:
                future.result()
    with read(engine) as connection:
        assert list(connection.execute(select(ITEM.c.n)).scalars()) == [2, 2]


def test_replicas_add_up(engine: Engine, open_replica: Callable[[], Engine]) -> None:
    """No lost update: what is read under the row's lock is what is written."""

    def increment(connection: Connection) -> int:
        now = connection.execute(select(ITEM.c.n).where(ITEM.c.id == 1).with_for_update()).scalar_one()
        connection.execute(update(ITEM).where(ITEM.c.id == 1).values(n=now + 1))
        return now + 1

    with GroupCommitter(engine) as first, GroupCommitter(open_replica()) as second:
        first.submit(add(1), TIMEOUT)
        with ThreadPoolExecutor(16) as pool:
            seen = list(pool.map(lambda n: (first, second)[n % 2].submit(increment, TIMEOUT), range(100)))
    assert sorted(seen) == list(range(1, 101))


@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["keep", "raise", "clash"])), min_size=1, max_size=8),
        max_size=4,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mix_of_units_leaves_exactly_what_was_answered(
    engine: Engine, batches: list[list[tuple[int, str]]]
) -> None:
    """Against a model: a set of keys, and units that add one or fail."""
    METADATA.drop_all(engine)
    METADATA.create_all(engine)
    model: set[int] = set()

    def unit_of(key: int, fate: str) -> Callable[[Connection], int]:
        def unit(connection: Connection) -> int:
            connection.execute(insert(ITEM).values(id=key, n=0))
            if fate == "clash":
                connection.execute(insert(ITEM).values(id=key, n=1))
            if fate == "raise":
                raise OwnError
            return key

        return unit

    with GroupCommitter(engine) as writer:
        for batch in batches:
            results = run_as_one_batch(writer, [unit_of(key, fate) for key, fate in batch])
            for (key, fate), result in zip(batch, results, strict=True):
                if key in model or fate == "clash":
                    assert isinstance(result, IntegrityError)
                elif fate == "raise":
                    assert isinstance(result, OwnError)
                else:
                    assert result == key
                    model.add(key)
            assert keys(engine) == model


class TestAlone:
    """Work with transactions of its own, which on SQLite must not meet the writer's."""

    def test_it_runs_while_no_unit_is_in_a_transaction(self, engine: Engine, writer: GroupCommitter) -> None:
        def work() -> str:
            with engine.begin() as connection:
                connection.execute(insert(ITEM).values(id=100, n=0))
            return "done"

        with ThreadPoolExecutor(3) as pool:
            with Gate(writer) as gate:
                before = pool.submit(writer.submit, add(1), TIMEOUT)
                alone = pool.submit(writer.alone, work, TIMEOUT)
                after = pool.submit(writer.submit, add(2), TIMEOUT)
                gate.wait_for(3)
            assert (before.result(), alone.result(), after.result()) == (1, "done", 2)
        assert {1, 2, 100} <= keys(engine)

    def test_its_error_comes_back_and_ends_nothing_else(self, engine: Engine, writer: GroupCommitter) -> None:
        def work() -> None:
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            writer.alone(work, TIMEOUT)
        assert writer.submit(add(1), TIMEOUT) == 1
        assert keys(engine) == {1}

    def test_it_gets_its_turn_under_load(self, engine: Engine, writer: GroupCommitter) -> None:
        """Units that follow one another without a pause: a second writer of its own would wait for a gap."""
        done = threading.Event()

        def load(start: int) -> int:
            count = 0
            while not done.is_set():
                writer.submit(add(start + count), TIMEOUT)
                count += 1
            return count

        def work() -> None:
            with engine.begin() as connection:
                connection.execute(update(ITEM).values(n=ITEM.c.n + 1))

        with ThreadPoolExecutor(4) as pool:
            loads = [pool.submit(load, (number + 1) * 1_000_000) for number in range(4)]
            try:
                for _ in range(20):
                    writer.alone(work, TIMEOUT)
            finally:
                done.set()
            assert all(each.result() > 0 for each in loads)

    def test_it_cannot_be_asked_for_from_within_or_after_the_end(self, writer: GroupCommitter) -> None:
        with pytest.raises(StoreUsageError):
            writer.submit(lambda _connection: writer.alone(lambda: None, TIMEOUT), TIMEOUT)
        with pytest.raises(StoreUsageError):
            writer.alone(lambda: writer.submit(add(1), TIMEOUT), TIMEOUT)
        writer.close()
        with pytest.raises(StoreClosedError):
            writer.alone(lambda: None, TIMEOUT)
