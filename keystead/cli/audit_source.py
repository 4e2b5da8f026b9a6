"""A running broker as the source of ``keystead audit query``, ``prove`` and ``checkpoint``. Needs the role auditor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from audit.query import Entry, Filter, Page
from keystead.cli.connection import Connection, to_timestamp
from keystead.cli.exits import UsageError
from keystead.v1 import audit_service_pb2 as pb

_STREAM_SECONDS: Final = 1_000.0
"""Longer than the broker lets a stream last, so that it ends in good order."""


@dataclass(frozen=True, slots=True)
class BrokerSource:
    """A log read through its broker; see `keystead.cli.audit.LogSource`. Every reading is itself recorded.

    Attributes:
        connection: to the broker.
    """

    connection: Connection

    def query(self, wanted: Filter, *, limit: int, cursor: str) -> Page:
        """One page of the entries that `wanted` describes; the broker is asked again where it sought long in vain.

        Raises:
            attester.errors.BrokerError: it refused, or could not be reached.
        """
        entries: list[Entry] = []
        while True:
            request = _question(wanted, page_size=limit - len(entries), page_token=cursor)
            response = self.connection.call(self.connection.audit.QueryRecords, request)
            entries += _entries(response.records)
            cursor = response.next_page_token
            if not cursor or len(entries) >= limit:
                return Page(tuple(entries), cursor)

    def stream(self, wanted: Filter, *, newest: int, follow: bool) -> Iterator[Page]:
        """All entries that `wanted` describes, some at a time; where one stream ends early another goes on.

        Raises:
            attester.errors.BrokerError: it refused, or could not be reached.
        """
        cursor = ""
        while True:
            request = pb.StreamRecordsRequest(
                query=_question(wanted, page_token=cursor), follow=follow, newest=newest if not cursor else 0
            )
            for response in self.connection.stream(
                self.connection.audit.StreamRecords, request, timeout=_STREAM_SECONDS
            ):
                cursor = response.resume_token
                yield Page(_entries(response.records), cursor)
                if response.complete:
                    return

    def prove(self, index: int, older: bytes | None) -> bytes:
        """The proof bundle of an entry, in JSON; from the checkpoint `older` on where one is given.

        Raises:
            UsageError: `older` is no text.
            attester.errors.BrokerError: it refused, or could not be reached.
        """
        try:
            text = "" if older is None else older.decode("utf-8")
        except UnicodeDecodeError:
            raise UsageError("--checkpoint: not a signed checkpoint, which is text") from None
        request = pb.ProveRecordRequest(leaf_index=index, old_checkpoint=text)
        return self.connection.call(self.connection.audit.ProveRecord, request).bundle

    def checkpoint(self) -> bytes:
        """The newest signed checkpoint.

        Raises:
            attester.errors.BrokerError: it refused, or could not be reached.
        """
        response = self.connection.call(self.connection.audit.GetCheckpoint, pb.GetCheckpointRequest())
        return response.checkpoint.encode("utf-8")


def _question(wanted: Filter, *, page_token: str, page_size: int = 0) -> pb.QueryRecordsRequest:
    return pb.QueryRecordsRequest(
        asset="" if wanted.asset is None else _asset(wanted.asset, wanted.version),
        job_uid=wanted.job or "",
        tenant=wanted.tenant or "",
        actor=wanted.actor or "",
        user=wanted.user or "",
        node_id=wanted.node or "",
        hardware=wanted.hardware or "",
        site_id=wanted.site or "",
        jurisdiction=wanted.jurisdiction or "",
        kind="" if wanted.kind is None else wanted.kind.value,
        result="" if wanted.result is None else wanted.result.value,
        reason=wanted.reason or "",
        policy_digest=wanted.policy_digest or "",
        lease_id=wanted.lease or "",
        start_time=None if wanted.start_time is None else to_timestamp(wanted.start_time),
        end_time=None if wanted.end_time is None else to_timestamp(wanted.end_time),
        alive_at=None if wanted.alive_at is None else to_timestamp(wanted.alive_at),
        page_size=page_size,
        page_token=page_token,
    )


def _entries(records: Iterable[pb.AuditRecord]) -> tuple[Entry, ...]:
    return tuple(
        Entry(record.leaf_index, record.leaf_hash, record.payload or None)
        for record in records
        if record.HasField("leaf_index")
    )


def _asset(asset: str, version: int | None) -> str:
    return asset if version is None else f"{asset}@{version}"
