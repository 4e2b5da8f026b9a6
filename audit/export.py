"""Records in the forms of other tools: rows of CSV, and OpenLineage run events.

Both are streams: one entry in, one row or at most one event out, nothing kept.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Final

from audit.query import Entry
from audit.records import Kind, Record

CSV_COLUMNS: Final = (
    "entry",
    "entry_hash",
    "time",
    "kind",
    "result",
    "reasons",
    "actor_role",
    "actor_name",
    "actor_tenant",
    "tenant",
    "job",
    "user",
    "node",
    "hardware",
    "site",
    "jurisdiction",
    "assets",
    "lease",
    "expires_at",
    "policy_digest",
    "input_digest",
)
"""Columns of a CSV export; lists are joined by spaces, which no member of one holds."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

PRODUCER: Final = "urn:keystead:audit"
"""Whose events these are (OpenLineage object model, `producer`)."""

RUN_EVENT_SCHEMA: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
"""The version of the specification that the events are written by."""

FACET_SCHEMA: Final = "urn:keystead:openlineage:facet:v1"
"""Names the run facet `keystead_audit`, which `_facet` describes."""

_NAMESPACE: Final = uuid.UUID("6b8d2f9a-0f5c-5a43-9d0e-2b5f9a1c7e44")
"""Of this module's name-based run ids (RFC 9562, version 5)."""

_EVENTS: Final = {
    Kind.LEASE_GRANTED: "START",
    Kind.LEASE_RENEWED: "RUNNING",
    Kind.LEASE_RETURNED: "COMPLETE",
    Kind.LEASE_EXPIRED: "ABORT",
    Kind.LEASE_REVOKED: "ABORT",
    Kind.LEASE_REFUSED: "FAIL",
    Kind.JOB_REFUSED: "FAIL",
    Kind.ASSET_OUTPUT_REGISTERED: "OTHER",
}
"""What a record says of a run: a lease is a run of its job; a refusal is a run that failed before it began."""


def instant(seconds: int) -> str:
    """RFC 3339, UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def csv_row(entry: Entry, record: Record) -> tuple[str, ...]:
    """The cells of an entry under `CSV_COLUMNS`.

    A cell that a spreadsheet would take for a formula begins with an apostrophe (OWASP, CSV Injection): names are
    chosen by others.
    """
    expires_at = record.detail.get("expires_at")
    values = (
        str(entry.index),
        entry.entry_hash.hex(),
        instant(record.time),
        record.kind.value,
        record.result.value,
        " ".join(record.reasons),
        record.actor.role,
        record.actor.name,
        record.actor.tenant,
        record.tenant,
        record.job,
        record.detail.get("user"),
        record.node,
        " ".join(record.hardware),
        record.site,
        record.jurisdiction,
        " ".join(record.assets),
        record.lease,
        instant(expires_at) if isinstance(expires_at, int) else None,
        record.policy_digest,
        record.input_digest,
    )
    return tuple(_cell(value) for value in values)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def openlineage_events(entries: Iterable[tuple[Entry, Record]], *, namespace: str) -> Iterator[dict[str, Any]]:
    """OpenLineage run events (specification 2-0-2) of the entries that say something of a run; others are passed over.

    A job of a tenant is a job in the namespace ``NAMESPACE/TENANT``; each of its leases is a run. Asset versions are
    datasets: the asset is the name, the version its version facet. Where a record stands and what decided is in the run
    facet ``keystead_audit``.

    Args:
        entries: in the order of the log.
        namespace: names the factory.
    """
    for entry, record in entries:
        kind = _EVENTS.get(record.kind)
        if kind is None or record.tenant is None or record.job is None:
            continue
        output = record.detail.get("output") if record.kind is Kind.ASSET_OUTPUT_REGISTERED else None
        where = f"{namespace}/{record.tenant}"
        run = record.lease or f"entry:{entry.entry_hash.hex()}"
        yield {
            "eventType": kind,
            "eventTime": instant(record.time),
            "producer": PRODUCER,
            "schemaURL": RUN_EVENT_SCHEMA,
            "run": {
                "runId": str(uuid.uuid5(_NAMESPACE, f"{where}\n{run}")),
                "facets": {"keystead_audit": _facet(entry, record)},
            },
            "job": {"namespace": where, "name": record.job},
            "inputs": [_dataset(namespace, ref) for ref in record.assets if ref != output],
            "outputs": [_dataset(namespace, output)] if isinstance(output, str) else [],
        }


def _facet(entry: Entry, record: Record) -> dict[str, Any]:
    return {
        "_producer": PRODUCER,
        "_schemaURL": FACET_SCHEMA,
        "entry": entry.index,
        "entryHash": entry.entry_hash.hex(),
        "kind": record.kind.value,
        "result": record.result.value,
        "reasons": list(record.reasons),
        "lease": record.lease,
        "node": record.node,
        "hardware": list(record.hardware),
        "site": record.site,
        "jurisdiction": record.jurisdiction,
        "policyDigest": record.policy_digest,
    }


def _dataset(namespace: str, ref: str) -> dict[str, Any]:
    name, _, version = ref.rpartition("@")
    return {
        "namespace": namespace,
        "name": name,
        "facets": {
            "version": {
                "_producer": PRODUCER,
                "_schemaURL": (
                    "https://openlineage.io/spec/facets/1-0-1/DatasetVersionDatasetFacet.json"
                    "#/$defs/DatasetVersionDatasetFacet"
                ),
                "datasetVersion": version,
            }
        },
    }
