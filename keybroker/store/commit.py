"""Group commit: many requests, one transaction, one flush to the disk, and no answer before it.

A handler submits a *unit of work*, a function of a connection. One writer thread takes the units that have gathered
while the disk was busy, runs each within its own savepoint, commits them together and only then wakes their
handlers. Nobody waits on purpose for a batch to fill: under load batches grow by themselves.

What a handler may rely on:

- A value comes back only after the commit that contains the unit is on stable storage.
- A unit that raises undoes itself alone; its exception comes back, after the others' commit, because what it saw may
  have been theirs.
- If the commit fails, every handler gets a `StoreError`, none its value.
- On PostgreSQL, units that collide with another replica's (serialization failure, deadlock) are run again, one by
  one, a bounded number of times. So a unit must have no effect but through its connection, and may run more than once.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from keybroker.errors import (
    StoreClosedError,
    StoreConflictError,
    StoreError,
    StoreOutcomeUnknownError,
    StoreOverloadedError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreUsageError,
)
from keybroker.store.engine import in_transaction, unit_guard

T = TypeVar("T")

MAX_BATCH: Final = 128
"""Most units in one transaction: past this the flush costs little of the whole, and locks are held longer."""

MAX_WAITING: Final = 1024
"""Most units in the queue; more are refused, so that those inside are answered in time."""

ATTEMPTS: Final = 6
"""How often a colliding unit is tried in all."""

_FIRST_PAUSE: Final = 0.005
"""Seconds before the second try; it doubles each time and is drawn at random below that, so that replicas part."""

_COLLISIONS: Final = frozenset({"40001", "40P01"})
"""PostgreSQL's serialization_failure and deadlock_detected (PostgreSQL 15, appendix A)."""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T]):
    order: str
    future: Future[T]

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Item(_Waiting[T]):
    unit: Callable[[Connection], T]


@dataclass(frozen=True, slots=True)
class _Alone(_Waiting[T]):
    """Work with transactions of its own."""

    work: Callable[[], T]


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any
    error: BaseException | None


class _Stage(Enum):
    """How far a transaction came."""

    BEGIN = auto()
    WORK = auto()
    COMMIT = auto()
    DURABLE = auto()


class _RepeatError(Exception):
    """Nothing was committed; running the units one by one finds out which of them is at fault, if any."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class GroupCommitter:
    """The one writer of a process; see the module's text for what it promises.

    Args:
        engine: the store (`keybroker.store.engine.open_engine`).
        max_batch: most units in one transaction.
        max_waiting: most units in the queue.
        observe: called after each commit with the number of its units and its duration in seconds, for metrics.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        self._engine = engine
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._observe = observe
        self._waiting: deque[_Waiting[Any]] = deque()
        self._closed = False
        self._wake = threading.Condition()
        # A daemon: a process that ends without `close` loses unanswered requests, which it may.
        self._thread = threading.Thread(target=self._run, name="store-commit", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """How many units are in the queue now."""
        return len(self._waiting)

    def submit(self, unit: Callable[[Connection], T], timeout: float, *, order: str = "") -> T:
        """Run `unit` in a transaction and return its value once that is on stable storage.

        Args:
            unit: does all of its work through the connection that it is given and leaves the transaction open. It may
                run more than once.
            timeout: seconds to wait.
            order: names the row that the unit locks first, for example the job. Units of a batch run in this order,
                so that two replicas take the same locks in the same order and do not deadlock.

        Raises:
            StoreOverloadedError: the queue is full.
            StoreClosedError: `close` was called.
            StoreTimeoutError: nothing came back in time; its `outcome_unknown` says whether the unit may yet commit.
            StoreConflictError: other replicas' work kept colliding with it.
            StoreUnavailableError: there is no connection, disk or lock; nothing was committed.
            StoreOutcomeUnknownError: the commit failed in a way that leaves open whether it happened.
            StoreUsageError: the unit tried to end the transaction, or `submit` was called from within a unit.
            BaseException: whatever `unit` raised; nothing of it was committed.
        """
        return self._wait(_Item(order, Future[T](), unit), timeout)

    def alone(self, work: Callable[[], T], timeout: float) -> T:
        """Run `work`, which has transactions of its own, while none of this process's units is in one; its value.

        SQLite has one writer at a time, and one that waits tries again now and then: under load it may never come upon
        a moment at which this thread holds no lock.

        Raises:
            StoreOverloadedError, StoreClosedError, StoreTimeoutError, StoreUsageError: as `submit`.
            BaseException: whatever `work` raised.
        """
        return self._wait(_Alone("", Future[T](), work), timeout)

    def _wait(self, item: _Waiting[T], timeout: float) -> T:
        if threading.current_thread() is self._thread:
            raise StoreUsageError("a unit of work cannot submit another and wait for it: do both in one")
        with self._wake:
            if self._closed:
                raise StoreClosedError("the broker is stopping: repeat the request, another replica takes it")
            if len(self._waiting) >= self._max_waiting:
                raise StoreOverloadedError(f"{self._max_waiting} requests wait for the store already: back off")
            self._waiting.append(item)
            self._wake.notify()
        try:
            # `result` would not tell this wait's TimeoutError from one that the unit raised.
            item.future.exception(timeout)
        except TimeoutError:
            withdrawn = item.future.cancel()
            if withdrawn or not item.future.done():
                raise StoreTimeoutError(timeout=timeout, outcome_unknown=not withdrawn) from None
        return item.future.result()

    def close(self, timeout: float = 30.0) -> None:
        """Accept no more units, finish those that wait and stop the thread. It may be called again.

        Raises:
            StoreTimeoutError: the thread did not stop within `timeout` seconds; units may still be committed.
        """
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise StoreTimeoutError(timeout=timeout, outcome_unknown=True)

    def _run(self) -> None:
        batch: list[_Waiting[Any]] = []
        try:
            while batch := self._next_batch():
                self._process(batch)
        finally:
            # Only a fault in this class leads here with work left. Nobody may wait for a thread that is gone.
            with self._wake:
                self._closed = True
                batch += self._waiting
                self._waiting.clear()
            for item in batch:
                item.fail(StoreOutcomeUnknownError("the store's writer stopped; look at the broker's log"))

    def _next_batch(self) -> list[_Waiting[Any]]:
        """The units to run next, in lock order; empty when closed and drained."""
        while True:
            with self._wake:
                while not self._waiting and not self._closed:
                    self._wake.wait()
                if not self._waiting:
                    return []
                taken = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
            # What its handler has given up on is dropped here; from now on it can no longer be withdrawn.
            batch = [item for item in taken if item.future.set_running_or_notify_cancel()]
            if batch:
                return sorted(batch, key=lambda item: item.order)

    def _process(self, batch: Sequence[_Waiting[Any]]) -> None:
        for item in batch:
            if isinstance(item, _Alone):
                _run_alone(item)
        units = [item for item in batch if isinstance(item, _Item)]
        if not units:
            return
        try:
            _deliver(units, self._attempt(units))
        except _RepeatError:
            self._one_by_one(units)
        except StoreError as error:
            _fail_all(units, error)

    def _one_by_one(self, batch: Sequence[_Item[Any]]) -> None:
        for place, item in enumerate(batch):
            try:
                _deliver([item], [self._persist(item)])
            except StoreOutcomeUnknownError as error:
                item.fail(error)
            except StoreError as error:
                # No transaction could be begun: the others would each wait for it in vain.
                _fail_all(batch[place:], error)
                return

    def _persist(self, item: _Item[Any]) -> _Outcome:
        """Run one unit until it no longer collides.

        Raises:
            StoreUnavailableError: no transaction could be begun.
            StoreOutcomeUnknownError: the commit failed.
        """
        cause: BaseException | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                # Not a secret: it only spreads the replicas.
                time.sleep(_FIRST_PAUSE * 2**attempt * random.random())  # noqa: S311
            try:
                (outcome,) = self._attempt([item])
            except _RepeatError as error:
                cause = error.cause
            else:
                return outcome
            if isinstance(cause, StoreUsageError):
                return _Outcome(None, cause)
        failure: StoreError = StoreUnavailableError(
            f"the transaction was lost {ATTEMPTS} times, nothing was committed; look at the broker's log for the cause"
        )
        if cause is not None and _is_collision(cause):
            failure = StoreConflictError(
                f"{ATTEMPTS} tries collided with concurrent work, nothing was committed: repeat the request"
            )
        failure.__cause__ = cause
        return _Outcome(None, failure)

    def _attempt(self, items: Sequence[_Item[Any]]) -> list[_Outcome]:
        """Run `items` in one transaction and commit it; what comes back may be delivered.

        Raises:
            _RepeatError: nothing was committed, and trying again may help.
            StoreUnavailableError: no transaction could be begun.
            StoreOutcomeUnknownError: the commit failed.
        """
        start = time.perf_counter()
        stage = _Stage.BEGIN
        outcomes: list[_Outcome] = []
        try:
            # Leaving the block before the commit rolls back.
            with self._engine.connect() as connection:
                transaction = connection.begin()
                stage = _Stage.WORK
                outcomes = [_call(connection, item) for item in items]
                if not in_transaction(connection):
                    raise _RepeatError(StoreUnavailableError("the database rolled the transaction back by itself"))
                stage = _Stage.COMMIT
                try:
                    transaction.commit()
                except SQLAlchemyError:
                    # The library lets go of a transaction whose commit fails; SQLite may still have it open.
                    connection.invalidate()
                    raise
                stage = _Stage.DURABLE
        except SQLAlchemyError as error:
            # What goes wrong once it is durable is only the connection's way back to the pool.
            if stage is not _Stage.DURABLE:
                raise _judge(error, stage) from error
        if self._observe is not None:
            self._observe(len(items), time.perf_counter() - start)
        return outcomes


def _judge(error: SQLAlchemyError, stage: _Stage) -> Exception:
    """What the failure of a whole transaction means to those who wait for it."""
    if stage is _Stage.BEGIN:
        return StoreUnavailableError(f"no transaction could be begun, nothing was committed: {_text(error)}")
    if stage is _Stage.WORK or _is_collision(error):
        return _RepeatError(error)
    return StoreOutcomeUnknownError(
        "the commit failed, it may or may not have happened: repeat the request under the same request id"
        f" ({_text(error)})"
    )


def _call(connection: Connection, item: _Item[Any]) -> _Outcome:
    """Run one unit within a savepoint of its own.

    Raises:
        _RepeatError: the transaction as a whole is lost with it.
        SQLAlchemyError: the savepoint cannot be ended; the transaction is lost too.
    """
    # In plain SQL: the library's own savepoints are compiled anew each time, which costs more than the insert of a row.
    connection.exec_driver_sql("SAVEPOINT unit")
    try:
        with unit_guard(connection):
            value = item.unit(connection)
    except BaseException as error:
        if connection.invalidated or isinstance(error, StoreUsageError) or _is_collision(error):
            raise _RepeatError(error) from error
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT unit")
        connection.exec_driver_sql("RELEASE SAVEPOINT unit")
        return _Outcome(None, error)
    connection.exec_driver_sql("RELEASE SAVEPOINT unit")
    return _Outcome(value, None)


def _run_alone(item: _Alone[Any]) -> None:
    try:
        value = item.work()
    except BaseException as error:  # noqa: BLE001 - it is the caller's, who waits for it
        item.fail(error)
    else:
        item.future.set_result(value)


def _is_collision(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, says that concurrent transactions collided."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, DBAPIError) and isinstance(found.orig, psycopg.Error):
            return found.orig.sqlstate in _COLLISIONS
        found = found.__cause__ or found.__context__
    return False


def _text(error: SQLAlchemyError) -> str:
    """What the driver said, without the statement and its parameters: they may hold keys."""
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


def _deliver(items: Sequence[_Item[Any]], outcomes: Sequence[_Outcome]) -> None:
    for item, outcome in zip(items, outcomes, strict=True):
        if outcome.error is None:
            item.future.set_result(outcome.value)
        else:
            item.fail(outcome.error)


def _fail_all(items: Sequence[_Item[Any]], error: StoreError) -> None:
    for item in items:
        item.fail(error)
