"""What auditors read from the log, and that they read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

from sqlalchemy import Connection

from audit import proof, query
from audit.checkpoint import Checkpoint
from audit.errors import EntryNotFoundError, MalformedError, ProofError
from audit.log import append
from audit.note import SignedNote
from audit.records import MAX_INTEGER, MAX_TEXT, Kind, Record, Result, looks_like_key
from keybroker import archive
from keybroker.appraisal_record import Package
from keybroker.broker import Broker, actor
from keybroker.errors import InvalidRequestError, NoAppraisalError, NotFoundError, RoleError
from keybroker.principals import Principal
from keybroker.store import documents
from keystead.binding import sha256

PATIENCE: Final = 0.5
"""Seconds that one answer seeks for, and a piece of the log longer; then the caller says whether to go on."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A page of records; it may hold fewer than were asked for, or none, though more fit behind `next_cursor`."""

    entries: tuple[query.Entry, ...]
    next_cursor: str


def search(broker: Broker, *, caller: Principal, wanted: query.Filter, limit: int, cursor: str) -> Reading:
    """Find records; a tenant's auditor sees the tenant's only. The reading is recorded before it is answered.

    Raises:
        QueryError: a filter or cursor that cannot be used.
        RoleError: a tenant's auditor asks for another tenant.
    """
    wanted = visible(caller, wanted)
    with broker.read() as connection:
        page = page_for(connection, caller, wanted, limit=limit, cursor=cursor)
    remember(broker, caller=caller, detail=asked_for(wanted) | {"records": len(page.entries)})
    return Reading(page.entries, page.next_cursor)


def page_for(connection: Connection, caller: Principal, wanted: query.Filter, *, limit: int, cursor: str) -> query.Page:
    """One page of what `caller` may see, which `visible` made of the question; it may end early.

    Raises:
        QueryError: a limit or cursor that cannot be used.
    """
    discreet = caller.tenant is not None
    return query.query(connection, wanted, limit=limit, cursor=cursor, patience=PATIENCE, discreet=discreet)


def visible(caller: Principal, wanted: query.Filter) -> query.Filter:
    """What of `wanted` a caller may see: a tenant's auditor the tenant's records, by the database's own comparison.

    Raises:
        RoleError: a tenant's auditor asks for another tenant.
    """
    if caller.tenant is None:
        return wanted
    if wanted.tenant not in (None, caller.tenant):
        raise RoleError(f"filter: this certificate sees the records of tenant {caller.tenant!r} only")
    return replace(wanted, tenant=caller.tenant)


def prove(broker: Broker, *, caller: Principal, index: int, older: bytes | None) -> proof.ProofBundle:
    """The proof bundle of one record. The reading is recorded before it is answered.

    Raises:
        EntryNotFoundError: no such record, or another tenant's.
        InvalidRequestError: `older` is no checkpoint of this log that the newest one can continue.
    """
    missing = EntryNotFoundError(f"entry {index}: not in the log")
    if index > MAX_INTEGER:
        raise missing
    if older is not None:
        check_older(older)
    with broker.read() as connection:
        if caller.tenant is not None:
            record = query.get(connection, index).record()
            if record is None or record.tenant != caller.tenant:
                raise missing  # in the words of `query.get`: the two cases look alike
        try:
            bundle = proof.build(connection, index, older=older, witnesses=broker.witnesses)
        except ProofError as error:
            raise InvalidRequestError("old_checkpoint", str(error)) from None
    remember(broker, caller=caller, detail={"proved_index": index})
    return bundle


def appraisal(broker: Broker, *, caller: Principal, entry: int | bytes) -> Package:
    """The appraisal that a record rests on, with all that it takes to run it again. The reading is recorded before.

    Args:
        broker: the running broker.
        caller: an auditor.
        entry: the record's index in the log, or the hash of its leaf.

    Raises:
        EntryNotFoundError: no such record, or another tenant's.
        NoAppraisalError: it rests on no appraisal, or on one that is not kept any more.
        AppraisalRecordError: what is stored was altered.
    """
    name = entry.hex() if isinstance(entry, bytes) else str(entry)
    missing = EntryNotFoundError(f"entry {name}: not in the log")
    if isinstance(entry, int) and entry > MAX_INTEGER:
        raise missing
    none_kept = NoAppraisalError(
        f"entry {name}: rests on no appraisal that is kept: nothing was appraised for it, a stranger's evidence was "
        "too long, or limits.evidence_days have passed"
    )
    with broker.read() as connection:
        try:
            found = query.get_by_hash(connection, entry) if isinstance(entry, bytes) else query.get(connection, entry)
            index, record = found.index, found.record()
        except EntryNotFoundError:
            if caller.tenant is None:
                raise
            raise missing from None  # another tenant's that waits to be sequenced looks like none, too
        if caller.tenant is not None and (record is None or record.tenant != caller.tenant):
            raise missing
        if record is None or record.input_digest is None:
            raise none_kept
        try:
            decision = documents.get(connection, bytes.fromhex(record.input_digest))
            digest = json.loads(decision).get("evidence")
            if digest is None:
                raise none_kept
            bundle = proof.build(connection, index, witnesses=broker.witnesses).to_bytes()
            package = archive.load(connection, bytes.fromhex(digest), decision=decision, proof=bundle)
        except NotFoundError:
            raise none_kept from None
    remember(broker, caller=caller, detail={"appraisal_of_index": index})
    return package


def check_older(older: bytes) -> None:
    """See that `older` can be a checkpoint.

    Raises:
        InvalidRequestError: it is none.
    """
    try:
        Checkpoint.parse_text(SignedNote.parse(older).text)
    except MalformedError as error:
        raise InvalidRequestError("old_checkpoint", str(error)) from None


def asked_for(wanted: query.Filter) -> dict[str, str | int | tuple[str, ...]]:
    """What was asked for, as a record may have it: values that could be keys stand in the digest only."""
    given = {field.name: value for field in fields(wanted) if (value := getattr(wanted, field.name)) is not None}
    texts = (f"{name}={value}" for name, value in given.items())
    shown = tuple(text if len(text) <= MAX_TEXT and not looks_like_key(text) else _name(text) for text in texts)
    digest = sha256(json.dumps(given, sort_keys=True).encode("ascii")).hex()
    return {"filter": shown, "filter_digest": digest}


def _name(text: str) -> str:
    return f"{text.partition('=')[0]}=(in filter_digest)"


def checkpoint(broker: Broker) -> str:
    """The newest signed checkpoint that enough witnesses cosigned; it is public, so reading it leaves no record.

    Raises:
        UnwitnessedError: there is none yet.
    """
    with broker.read() as connection:
        return query.newest_checkpoint(connection, broker.witnesses).decode("utf-8")


def remember(broker: Broker, *, caller: Principal, detail: Mapping[str, str | int | tuple[str, ...]]) -> bytes:
    """Record that somebody reads; the entry's hash. It is durable when this returns."""
    record = Record.build(
        kind=Kind.AUDIT_READ,
        time=broker.clock(),
        actor=actor(caller),
        tenant=caller.tenant,
        result=Result.RECORDED,
        detail=detail,
    )
    return broker.commit(lambda connection: append(connection, record)).entry_hash
