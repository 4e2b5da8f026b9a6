"""`keystead.v1.AuditService`: authenticate, translate, call the domain, translate back."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Final

import grpc
from sqlalchemy import Connection

from audit import query
from audit.erasure import Erasure
from audit.errors import QueryError
from audit.package.manifest import Scope
from audit.records import Kind, Result
from keybroker import erasure, evidence_package, reads, requests, streams
from keybroker.broker import Broker
from keybroker.errors import InvalidRequestError
from keybroker.principals import Role
from keybroker.services import convert
from keybroker.services.adapter import Adapter
from keystead.binding import SHA256_SIZE
from keystead.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
)

PIECE: Final = 32 << 10
"""Bytes of one piece of a file: half of the smallest `limits.message_bytes`, which bounds every message."""

CLEAR_BATCHES: Final = 10
"""Batches of entries that an erasure clears before it answers; the broker goes on with the rest by itself."""

_FILTER_TEXTS: Final = tuple(
    field.name
    for field in audit_service_pb2.QueryRecordsRequest.DESCRIPTOR.fields
    if field.type == field.TYPE_STRING and field.name not in ("asset", "kind", "result", "page_token")
)
"""Filters that are compared as they are; the others have a form of their own."""

_FILTER_TEXT: Final = re.compile(r"[!-~]{0,600}\Z")


class AuditAdapter(Adapter, audit_service_pb2_grpc.AuditServiceServicer):
    """`keystead.v1.AuditService`."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._seats = streams.Seats()
        self._package_seats = streams.Seats(evidence_package.AT_ONCE, evidence_package.AT_ONCE_OF_TENANT)

    def QueryRecords(
        self, request: audit_service_pb2.QueryRecordsRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.QueryRecordsResponse:
        """Find records."""
        caller = self.caller(context, Role.AUDITOR)
        reading = reads.search(
            self.broker,
            caller=caller,
            wanted=_filter(request),
            limit=requests.page_size(request.page_size),
            cursor=request.page_token,
        )
        return audit_service_pb2.QueryRecordsResponse(
            records=[_record(entry) for entry in reading.entries],
            next_page_token=reading.next_cursor,
        )

    def StreamRecords(
        self, request: audit_service_pb2.StreamRecordsRequest, context: grpc.ServicerContext
    ) -> Iterator[audit_service_pb2.StreamRecordsResponse]:
        """Hand out records as they come."""
        caller = self.caller(context, Role.AUDITOR)
        if request.query.page_size:
            raise InvalidRequestError("query.page_size", "a stream has no pages; leave it unset")
        if request.newest > query.MAX_PAGE:
            raise InvalidRequestError("newest", f"{request.newest} is more than {query.MAX_PAGE}")
        asked = streams.Asked(
            wanted=_filter(request.query),
            cursor=request.query.page_token,
            newest=request.newest,
            follow=request.follow,
        )
        gone = threading.Event()
        if not context.add_callback(gone.set):
            gone.set()
        batches = streams.stream(self.broker, self._seats, caller=caller, asked=asked, stop=gone.wait)
        return (message for batch in batches for message in _messages(batch))

    # A thread of its own for each stream: one that follows waits most of the time, and must keep no other call waiting.
    StreamRecords.experimental_thread_pool = ThreadPoolExecutor(  # type: ignore[attr-defined]  # as in `server`
        streams.STREAMS + 1, thread_name_prefix="stream"
    )

    def GetCheckpoint(
        self, request: audit_service_pb2.GetCheckpointRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.GetCheckpointResponse:
        """The newest checkpoint."""
        del request
        self.caller(context, *Role)
        return audit_service_pb2.GetCheckpointResponse(
            checkpoint=reads.checkpoint(self.broker), verifier_key=str(self.broker.keys.log.verifier)
        )

    def ProveRecord(
        self, request: audit_service_pb2.ProveRecordRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.ProveRecordResponse:
        """Prove a record."""
        bundle = reads.prove(
            self.broker,
            caller=self.caller(context, Role.AUDITOR),
            index=request.leaf_index,
            older=request.old_checkpoint.encode("utf-8") or None,
        )
        return audit_service_pb2.ProveRecordResponse(bundle=bundle.to_bytes())

    def GetAppraisal(
        self, request: audit_service_pb2.GetAppraisalRequest, context: grpc.ServicerContext
    ) -> Iterator[audit_service_pb2.GetAppraisalResponse]:
        """The appraisal that a record rests on."""
        caller = self.caller(context, Role.AUDITOR)
        package = reads.appraisal(self.broker, caller=caller, entry=_entry(request)).to_bytes()
        today = self.broker.archive.circumstances().to_bytes() if request.with_today else b""
        # All work is done before the first piece leaves, so that whatever goes wrong is the call's status.
        return itertools.chain(
            (audit_service_pb2.GetAppraisalResponse(package=piece) for piece in _pieces(package)),
            (audit_service_pb2.GetAppraisalResponse(today=piece) for piece in _pieces(today)),
        )

    def GetEvidencePackage(
        self, request: audit_service_pb2.GetEvidencePackageRequest, context: grpc.ServicerContext
    ) -> Iterator[audit_service_pb2.GetEvidencePackageResponse]:
        """Build an evidence package."""
        caller = self.caller(context, Role.AUDITOR)
        scope = Scope(
            asset=request.asset or None,
            tenant=request.tenant or None,
            start_time=convert.seconds(request.start_time, "start_time") if request.HasField("start_time") else None,
            end_time=convert.seconds(request.end_time, "end_time") if request.HasField("end_time") else None,
        )
        # All work is done before the first piece leaves, so that whatever goes wrong is the call's status.
        file = evidence_package.build(
            self.broker,
            self._package_seats,
            caller=caller,
            scope=scope,
            kept=request.old_checkpoint.encode("utf-8") or None,
            wanted=context.is_active,
        )
        return _packages(file)

    # Threads of its own: a long package must keep no other call waiting.
    GetEvidencePackage.experimental_thread_pool = ThreadPoolExecutor(  # type: ignore[attr-defined]  # as in `server`
        evidence_package.AT_ONCE + 1, thread_name_prefix="package"
    )

    def EraseRecords(
        self, request: audit_service_pb2.EraseRecordsRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.EraseRecordsResponse:
        """Erase the records of a tenant or of one of its users."""
        caller = self.caller(context, Role.OPERATOR)
        now = self.broker.clock()

        def unit(connection: Connection) -> audit_service_pb2.EraseRecordsResponse:
            number = erasure.begin(
                connection, caller=caller, tenant=request.tenant, user=request.user, reason=request.reason, now=now
            )
            return audit_service_pb2.EraseRecordsResponse(erasure=number)

        begun = self.once(
            unit,
            audit_service_pb2.EraseRecordsResponse,
            caller=caller,
            request=request,
            request_id=request.request_id,
            now=now,
        )
        return _erasure(erasure.carry_on(self.broker, begun.erasure, batches=CLEAR_BATCHES))


def _packages(file: BinaryIO) -> Iterator[audit_service_pb2.GetEvidencePackageResponse]:
    with file:
        while piece := file.read(PIECE):
            yield audit_service_pb2.GetEvidencePackageResponse(package=piece)


def _erasure(state: Erasure) -> audit_service_pb2.EraseRecordsResponse:
    return audit_service_pb2.EraseRecordsResponse(
        erasure=state.id,
        keys=state.keys,
        records=state.entries,
        leaf_hash=state.entry_hash or b"",
        cleared=state.cleared,
    )


def _record(entry: query.Entry) -> audit_service_pb2.AuditRecord:
    return audit_service_pb2.AuditRecord(
        leaf_index=entry.index, payload=entry.payload or b"", leaf_hash=entry.entry_hash
    )


def _messages(batch: streams.Batch) -> Iterator[audit_service_pb2.StreamRecordsResponse]:
    """A batch in messages of about `PIECE` bytes; each has the cursor behind its own last record."""
    message, size = audit_service_pb2.StreamRecordsResponse(), 0
    for entry in batch.entries:
        record = _record(entry)
        if message.records and size + record.ByteSize() > PIECE:
            message.resume_token = batch.cursor_behind(message.records[-1].leaf_index)
            yield message
            message, size = audit_service_pb2.StreamRecordsResponse(), 0
        message.records.append(record)
        size += record.ByteSize()
    message.resume_token, message.complete = batch.cursor, batch.complete
    yield message


def _entry(request: audit_service_pb2.GetAppraisalRequest) -> int | bytes:
    match request.WhichOneof("entry"):
        case "leaf_index":
            return request.leaf_index
        case "leaf_hash":
            if len(request.leaf_hash) != SHA256_SIZE:
                raise InvalidRequestError("leaf_hash", f"{len(request.leaf_hash)} bytes, {SHA256_SIZE} are needed")
            return request.leaf_hash
        case _:
            raise InvalidRequestError("entry", "neither leaf_index nor leaf_hash")


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))


def _filter(request: audit_service_pb2.QueryRecordsRequest) -> query.Filter:
    asset, version = query.parse_asset(request.asset) if request.asset else (None, None)
    try:
        kind = Kind(request.kind) if request.kind else None
        result = Result(request.result) if request.result else None
    except ValueError as error:
        raise QueryError(f"{error}: no such kind or result") from None
    for field in _FILTER_TEXTS:
        if not _FILTER_TEXT.match(getattr(request, field)):
            raise InvalidRequestError(field, "not at most 600 visible ASCII characters, so no record can have it")
    return query.Filter(
        asset=asset,
        version=version,
        job=request.job_uid or None,
        tenant=request.tenant or None,
        actor=request.actor or None,
        node=request.node_id or None,
        hardware=request.hardware or None,
        site=request.site_id or None,
        jurisdiction=request.jurisdiction or None,
        kind=kind,
        result=result,
        reason=request.reason or None,
        policy_digest=request.policy_digest or None,
        lease=request.lease_id or None,
        user=request.user or None,
        alive_at=convert.seconds(request.alive_at, "alive_at") if request.HasField("alive_at") else None,
        start_time=convert.seconds(request.start_time, "start_time") if request.HasField("start_time") else None,
        end_time=convert.seconds(request.end_time, "end_time") if request.HasField("end_time") else None,
    )
