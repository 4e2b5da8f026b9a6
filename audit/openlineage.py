"""Records as OpenLineage events (object model 2-0-2): leases as runs of jobs, asset versions as datasets.

What OpenLineage has a facet for is said in that facet; the rest is in the facet ``keystead_audit``, whose schema is
``docs/schemas/openlineage-audit-facet.json``. A run says what was proven: that a job was granted the keys of its
inputs, and on which hardware. The facet ``lineage`` of a dataset says what an owner declared.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Final

from audit.export import expiry, instant, job_user
from audit.query import Entry
from audit.records import Kind, Record

PRODUCER: Final = "urn:keystead:audit"
"""Whose events these are (OpenLineage object model, `producer`)."""

SPECIFICATION: Final = "https://openlineage.io/spec"
RUN_EVENT_SCHEMA: Final = f"{SPECIFICATION}/2-0-2/OpenLineage.json#/$defs/RunEvent"
DATASET_EVENT_SCHEMA: Final = f"{SPECIFICATION}/2-0-2/OpenLineage.json#/$defs/DatasetEvent"

FACET_SCHEMA: Final = "urn:keystead:openlineage:audit-facet:1-0-0"
"""The `$id` of the schema of the facet `keystead_audit`."""

_NAMESPACE: Final = uuid.UUID("6b8d2f9a-0f5c-5a43-9d0e-2b5f9a1c7e44")
"""Of this module's name-based run ids (RFC 9562, version 5)."""

_RUNS: Final = {
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

_DATASETS: Final = (Kind.ASSET_VERSION_ADDED, Kind.ASSET_PARENTS_DECLARED)
"""What an owner says of a version, outside any run."""


def openlineage_events(entries: Iterable[tuple[Entry, Record]], *, namespace: str) -> Iterator[dict[str, Any]]:
    """The events of the entries that say something of a run or of a version; others are passed over.

    A job of a tenant is a job in the namespace ``NAMESPACE/TENANT``; each of its leases is a run. Asset versions are
    datasets: the asset is the name, the version its version facet.

    Args:
        entries: in the order of the log.
        namespace: names the factory.

    Raises:
        ExportError: an instant has no RFC 3339 form.
    """
    for entry, record in entries:
        if record.kind in _RUNS and record.tenant is not None and record.job is not None:
            yield _run_event(entry, record, record.tenant, record.job, namespace)
        elif record.kind in _DATASETS and record.assets:
            yield _dataset_event(entry, record, namespace)


def _run_event(entry: Entry, record: Record, tenant: str, job: str, namespace: str) -> dict[str, Any]:
    output = record.detail.get("output") if record.kind is Kind.ASSET_OUTPUT_REGISTERED else None
    where = f"{namespace}/{tenant}"
    run = record.lease or f"entry:{entry.entry_hash.hex()}"
    facets = {"keystead_audit": _run_facet(entry, record)}
    tags = [("node", record.node), ("site", record.site), ("jurisdiction", record.jurisdiction)]
    if any(value for _, value in tags):
        facets["tags"] = _standard("1-0-0", "TagsRunFacet") | {
            "tags": [{"key": key, "value": value, "source": "keystead"} for key, value in tags if value is not None]
        }
    return {
        "eventType": _RUNS[record.kind],
        "eventTime": instant(record.time),
        "producer": PRODUCER,
        "schemaURL": RUN_EVENT_SCHEMA,
        "run": {"runId": str(uuid.uuid5(_NAMESPACE, f"{where}\n{run}")), "facets": facets},
        "job": {
            "namespace": where,
            "name": job,
            "facets": {"ownership": _standard("1-0-1", "OwnershipJobFacet") | _owned_by(tenant)},
        },
        "inputs": [_dataset(namespace, ref) for ref in record.assets if ref != output],
        "outputs": [_dataset(namespace, output, created=True)] if isinstance(output, str) else [],
    }


def _dataset_event(entry: Entry, record: Record, namespace: str) -> dict[str, Any]:
    stated = record.detail.get("version")
    ref = stated if isinstance(stated, str) else record.assets[0]
    dataset = _dataset(namespace, ref, created=record.kind is Kind.ASSET_VERSION_ADDED)
    parents = [each for each in record.assets if each != ref]
    if parents:
        dataset["facets"]["lineage"] = {
            "_producer": PRODUCER,
            "_schemaURL": f"{SPECIFICATION}/facets/1-0-0/LineageFacet.json#/$defs/LineageDatasetFacet",
            "inputs": [
                {"namespace": namespace, "name": parent.rpartition("@")[0], "type": "DATASET"} for parent in parents
            ],
        }
    facet = _facet(entry, record, "KeysteadAuditDatasetFacet")
    for name, member in (("manifest_digest", "manifestDigest"), ("description_digest", "descriptionDigest")):
        if isinstance(digest := record.detail.get(name), str):
            facet[member] = digest
    dataset["facets"]["keystead_audit"] = facet
    return {
        "eventTime": instant(record.time),
        "producer": PRODUCER,
        "schemaURL": DATASET_EVENT_SCHEMA,
        "dataset": dataset,
    }


def _run_facet(entry: Entry, record: Record) -> dict[str, Any]:
    expires_at = expiry(record)
    said = {
        "lease": record.lease,
        "expiresAt": None if expires_at is None else instant(expires_at),
        "user": job_user(record),
        "node": record.node,
        "hardware": list(record.hardware),
        "site": record.site,
        "jurisdiction": record.jurisdiction,
    }
    facet = _facet(entry, record, "KeysteadAuditRunFacet")
    return facet | {name: value for name, value in said.items() if value is not None}


def _facet(entry: Entry, record: Record, name: str) -> dict[str, Any]:
    facet = {
        "_producer": PRODUCER,
        "_schemaURL": f"{FACET_SCHEMA}#/$defs/{name}",
        "entry": entry.index,
        "entryHash": entry.entry_hash.hex(),
        "kind": record.kind.value,
        "result": record.result.value,
        "reasons": list(record.reasons),
        "assets": list(record.assets),
    }
    return facet if record.policy_digest is None else facet | {"policyDigest": record.policy_digest}


def _dataset(namespace: str, ref: str, *, created: bool = False) -> dict[str, Any]:
    name, _, version = ref.rpartition("@")
    facets: dict[str, Any] = {
        "version": _standard("1-0-1", "DatasetVersionDatasetFacet") | {"datasetVersion": version},
        "ownership": _standard("1-0-1", "OwnershipDatasetFacet") | _owned_by(name.partition("/")[0]),
    }
    if created:
        facets["lifecycleStateChange"] = _standard("1-0-1", "LifecycleStateChangeDatasetFacet") | {
            "lifecycleStateChange": "CREATE"
        }
    return {"namespace": namespace, "name": name, "facets": facets}


def _standard(version: str, name: str) -> dict[str, Any]:
    """What a facet of the specification begins with."""
    return {"_producer": PRODUCER, "_schemaURL": f"{SPECIFICATION}/facets/{version}/{name}.json#/$defs/{name}"}


def _owned_by(tenant: str) -> dict[str, Any]:
    return {"owners": [{"name": f"tenant:{tenant}", "type": "OWNER"}]}
