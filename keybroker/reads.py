"""What auditors read from the log, and that they read it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from audit import proof, query
from audit.errors import EntryNotFoundError
from audit.log import append
from audit.records import Kind, Record, Result
from keybroker.broker import Broker, actor
from keybroker.principals import Principal


@dataclass(frozen=True, slots=True)
class Reading:
    """A page of records."""

    entries: tuple[query.Entry, ...]
    next_cursor: str


def search(broker: Broker, *, caller: Principal, wanted: query.Filter, limit: int, cursor: str) -> Reading:
    """Find records; a tenant's auditor sees the tenant's only. The reading is recorded before it is answered.

    Raises:
        QueryError: a filter or cursor that cannot be used.
    """
    if caller.tenant is not None:
        wanted = replace(wanted, tenant=caller.tenant)
    with broker.read() as connection:
        page = query.query(connection, wanted, limit=limit, cursor=cursor)
    asked = tuple(
        f"{field.name}={value}" for field in fields(wanted) if (value := getattr(wanted, field.name)) is not None
    )
    _remember(broker, caller=caller, detail={"filter": asked, "records": len(page.entries)})
    return Reading(page.entries, page.next_cursor)


def prove(broker: Broker, *, caller: Principal, index: int, older: bytes | None) -> proof.ProofBundle:
    """The proof bundle of one record. The reading is recorded before it is answered.

    Raises:
        EntryNotFoundError: no such record, or another tenant's.
        AuditError: there can be no such proof.
    """
    with broker.read() as connection:
        if caller.tenant is not None:
            record = query.get(connection, index).record()
            if record is None or record.tenant != caller.tenant:
                raise EntryNotFoundError(f"log: no entry {index}")
        bundle = proof.build(connection, index, older=older)
    _remember(broker, caller=caller, detail={"proved_index": index})
    return bundle


def checkpoint(broker: Broker) -> str:
    """The newest signed checkpoint; it is public, so reading it leaves no record."""
    with broker.read() as connection:
        return query.newest_checkpoint(connection).decode("utf-8")


def _remember(broker: Broker, *, caller: Principal, detail: dict[str, str | int | tuple[str, ...]]) -> None:
    record = Record.build(
        kind=Kind.AUDIT_READ,
        time=broker.clock(),
        actor=actor(caller),
        tenant=caller.tenant,
        result=Result.RECORDED,
        detail=detail,
    )
    broker.commit(lambda connection: append(connection, record))
