"""Crypto-erasure of a tenant's or user's records: who may, when, and its steps (`audit.erasure`) carried out."""

from __future__ import annotations

from typing import Final

import structlog
from sqlalchemy import Connection

from audit import erasure
from audit.sealing import seal_clear
from keybroker import requests
from keybroker.broker import COMMIT_TIMEOUT, Broker, actor
from keybroker.errors import InvalidRequestError, StateConflictError
from keybroker.principals import Principal
from keybroker.store import jobs, leases
from keybroker.store.engine import flush_log
from keystead.binding import JobGrant

BATCH: Final = 500
"""Entries sealed or cleared in one transaction, which calls then wait for some hundredths of a second."""

MAX_REASON: Final = 512

_LOG: Final = structlog.get_logger("keystead.erasure")


def begin(connection: Connection, *, caller: Principal, tenant: str, user: str, reason: str, now: int) -> int:
    """Begin to erase the records of a tenant, or of one of its users; the erasure's number.

    Args:
        connection: in a transaction.
        caller: an operator.
        tenant: whose records.
        user: for whom jobs ran, as their scheduler declared it; all records of the tenant where empty.
        reason: one line, which is kept for ever: it must name no person.
        now: integer seconds since the Unix epoch.

    Raises:
        InvalidRequestError: a name is malformed, or the reason is none.
        StateConflictError: the tenant, or a job of the user, holds keys by a live lease.
        ErasureError: there is nothing to erase, or some records are not sealed yet.
        RecordError: the reason cannot be recorded.
    """
    requests.identifier(tenant, "tenant")
    if user:
        requests.identifier(user, "user")
    if not reason.strip() or len(reason) > MAX_REASON:
        raise InvalidRequestError("reason", f"missing, or longer than {MAX_REASON} characters")
    if user and user in reason:
        raise InvalidRequestError("reason", "names the user; it is kept for ever, so name the request for erasure")
    number = erasure.begin(connection, tenant=tenant, subject=user, actor=actor(caller), reason=reason.strip(), now=now)
    # Only now: to retire the keys waits for releases that are recording under them, and their leases are seen then.
    holding = {lease.grant_id for lease in leases.live_of_tenant(connection, tenant, now=now)}
    live = [job for job in sorted(holding) if not user or JobGrant.parse(jobs.get(connection, job).grant).user == user]
    if live:
        whose = "user of tenant" if user else "tenant"
        raise StateConflictError(
            whose, tenant, state=f"the holder of keys, by live leases of {len(live)} jobs", expected="without any"
        )
    return number


def carry_on(broker: Broker, number: int, *, batches: int) -> erasure.Erasure:
    """Do what is left to do for an erasure, as far as that can be done now, and say how far it is.

    It may be called again, and by several brokers at once.

    Args:
        broker: the running broker.
        number: the erasure's.
        batches: how many batches of `BATCH` entries to clear at most.

    Raises:
        EntryNotFoundError: there is no such erasure.
    """
    state = find(broker, number)
    if not state.recorded:
        broker.sequence()
        with broker.read() as connection:
            measured = erasure.measure(connection, number)
        if measured is None:
            return state
        recorded = broker.commit(lambda connection: erasure.record(connection, number, measured, now=broker.clock()))
        if recorded:
            entries = sum(key.count for key in measured)
            _LOG.warning("records were erased", erasure=number, tenant=state.tenant, entries=entries)
    for _ in range(batches):
        if broker.commit(lambda connection: erasure.clear(connection, number, limit=BATCH, now=broker.clock())):
            # Pages of SQLite's log still hold what was overwritten.
            if not broker.committer.alone(lambda: flush_log(broker.engine), COMMIT_TIMEOUT):
                _LOG.info("the database's log could not be emptied while it is read; that is done later")
            break
    return find(broker, number)


def find(broker: Broker, number: int) -> erasure.Erasure:
    """An erasure and how far it is.

    Raises:
        EntryNotFoundError: there is none of this number.
    """
    with broker.read() as connection:
        return erasure.get(connection, number)


def carry_on_all(broker: Broker, *, batches: int) -> None:
    """Do what is left to do for every erasure: one whose broker was killed, and one that had to wait."""
    with broker.read() as connection:
        unfinished = erasure.unfinished(connection)
    for each in unfinished:
        carry_on(broker, each.id, batches=batches)
    with broker.read() as connection:
        broker.keyring.forget_destroyed(connection)


def seal(broker: Broker, *, batches: int) -> int:
    """Seal what an older release recorded in the clear, `batches` of `BATCH` entries at most; how many were."""
    total = 0
    for _ in range(batches):
        done = broker.commit(lambda connection: seal_clear(connection, limit=BATCH, now=broker.clock()))
        total += done
        if done < BATCH:
            break
    if total:
        _LOG.info("records from before they were sealed are sealed", count=total)
    return total
