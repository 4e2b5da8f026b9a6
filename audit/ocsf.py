"""Records as events of the Open Cybersecurity Schema Framework (OCSF 1.8.0), for SIEMs and security data lakes.

Each kind of record is one class and activity, by the table below; `docs/exports.md` shows it. An attribute holds only
what its record says: a log keeps no network addresses, so that an endpoint is named as its client's certificate names
it. What OCSF has no attribute for stands under ``unmapped`` (OCSF, Base Event), so that nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from audit.export import check_instant, expiry, job_user
from audit.query import Entry
from audit.records import Kind, Record, Result

VERSION: Final = "1.8.0"
"""Of the schema that the events are written by."""

_MILLISECONDS: Final = 1_000
_OTHER: Final = 99
"""``Other`` in every enumeration: the attribute beside it has the word."""

_IAM: Final = (3, "Identity & Access Management")
_APPLICATION: Final = (6, "Application Activity")


class EventClass(Enum):
    """A class of OCSF: its id, its caption, its category."""

    AUTHORIZE_SESSION = (3003, "Authorize Session", _IAM)
    ENTITY_MANAGEMENT = (3004, "Entity Management", _IAM)
    USER_ACCESS = (3005, "User Access Management", _IAM)
    APPLICATION_LIFECYCLE = (6002, "Application Lifecycle", _APPLICATION)
    API_ACTIVITY = (6003, "API Activity", _APPLICATION)
    DATASTORE_ACTIVITY = (6005, "Datastore Activity", _APPLICATION)

    @property
    def uid(self) -> int:
        """``class_uid``."""
        return self.value[0]

    @property
    def caption(self) -> str:
        """``class_name``."""
        return self.value[1]

    @property
    def category(self) -> tuple[int, str]:
        """``category_uid`` and ``category_name``."""
        return self.value[2]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a kind of record is in OCSF.

    Attributes:
        event_class: the class.
        activity_id: one of the class's activities; 99 where it has none for it.
        activity: its caption, or of 99 our own word.
    """

    event_class: EventClass
    activity_id: int
    activity: str


_SESSION: Final = EventClass.AUTHORIZE_SESSION
_ENTITY: Final = EventClass.ENTITY_MANAGEMENT
_ACCESS: Final = EventClass.USER_ACCESS
_LIFECYCLE: Final = EventClass.APPLICATION_LIFECYCLE
_API: Final = EventClass.API_ACTIVITY
_DATASTORE: Final = EventClass.DATASTORE_ACTIVITY

MEANINGS: Final = {
    Kind.BROKER_INITIALISED: Meaning(_LIFECYCLE, 1, "Install"),
    Kind.BROKER_STARTED: Meaning(_LIFECYCLE, 3, "Start"),
    Kind.ASSET_REGISTERED: Meaning(_ENTITY, 1, "Create"),
    Kind.ASSET_VERSION_ADDED: Meaning(_ENTITY, 1, "Create"),
    Kind.ASSET_OUTPUT_REGISTERED: Meaning(_ENTITY, 1, "Create"),
    Kind.ASSET_OUTPUT_REFUSED: Meaning(_ENTITY, 1, "Create"),
    Kind.ASSET_PARENTS_DECLARED: Meaning(_ENTITY, 3, "Update"),
    Kind.ASSET_CONSTRAINED: Meaning(_ENTITY, 3, "Update"),
    Kind.ASSET_DECLASSIFICATION_PROPOSED: Meaning(_ENTITY, _OTHER, "Propose declassification"),
    Kind.ASSET_DECLASSIFIED: Meaning(_ENTITY, 3, "Update"),
    Kind.ASSET_DECLASSIFICATION_REFUSED: Meaning(_ENTITY, 3, "Update"),
    Kind.ASSET_REVOKED: Meaning(_ENTITY, 11, "Deactivate"),
    Kind.APPROVERS_SET: Meaning(_ENTITY, 3, "Update"),
    Kind.APPROVERS_REFUSED: Meaning(_ENTITY, 3, "Update"),
    Kind.SITE_ENROLLED: Meaning(_ENTITY, 6, "Enroll"),
    Kind.SITE_RENEWED: Meaning(_ENTITY, 3, "Update"),
    Kind.SITE_SUSPENDED: Meaning(_ENTITY, 12, "Suspend"),
    Kind.NODE_ENROLLED: Meaning(_ENTITY, 6, "Enroll"),
    Kind.NODES_IMPORTED: Meaning(_ENTITY, 6, "Enroll"),
    Kind.NODE_STATE_CHANGED: Meaning(_ENTITY, 3, "Update"),
    Kind.NODE_CUSTODY_CHANGED: Meaning(_ENTITY, 3, "Update"),
    Kind.NODE_MOVED: Meaning(_ENTITY, 5, "Move"),
    Kind.NODE_DEVICES_CHANGED: Meaning(_ENTITY, 3, "Update"),
    Kind.IDENTITY_CLONED: Meaning(_ENTITY, _OTHER, "Clone seen"),
    Kind.JOB_AUTHORIZED: Meaning(_API, 1, "Create"),
    Kind.JOB_REFUSED: Meaning(_API, 1, "Create"),
    Kind.JOB_EXTENDED: Meaning(_API, 3, "Update"),
    Kind.JOB_PREEMPTED: Meaning(_API, 3, "Update"),
    Kind.JOB_REQUEUED: Meaning(_API, 3, "Update"),
    Kind.JOB_ENDED: Meaning(_API, 4, "Delete"),
    Kind.APPRAISAL: Meaning(_API, _OTHER, "Appraise"),
    Kind.LEASE_GRANTED: Meaning(_SESSION, 1, "Assign Privileges"),
    Kind.LEASE_REFUSED: Meaning(_SESSION, 1, "Assign Privileges"),
    Kind.LEASE_RENEWED: Meaning(_SESSION, 1, "Assign Privileges"),
    Kind.LEASE_RENEWAL_REFUSED: Meaning(_SESSION, 1, "Assign Privileges"),
    Kind.LEASE_RETURNED: Meaning(_ACCESS, 2, "Revoke Privileges"),
    Kind.LEASE_EXPIRED: Meaning(_ACCESS, 2, "Revoke Privileges"),
    Kind.LEASE_REVOKED: Meaning(_ACCESS, 2, "Revoke Privileges"),
    Kind.USAGE_REPORTED: Meaning(_API, _OTHER, "Report usage"),
    Kind.PLACEMENT_READ: Meaning(_API, 2, "Read"),
    Kind.REQUESTS_REFUSED: Meaning(_API, _OTHER, "Refuse"),
    Kind.AUDIT_READ: Meaning(_DATASTORE, 4, "Query"),
    Kind.AUDIT_ERASED: Meaning(_DATASTORE, 7, "Delete"),
}
"""Every kind of record."""

_STATUS: Final = {Result.ALLOWED: (1, "Success"), Result.DENIED: (2, "Failure"), Result.RECORDED: (_OTHER, "recorded")}
"""``status_id`` and ``status``: what was not for anybody to allow or deny neither succeeded nor failed."""

_CONTROL: Final = {
    Result.ALLOWED: {"action_id": 1, "action": "Allowed", "disposition_id": 1, "disposition": "Allowed"},
    Result.DENIED: {"action_id": 2, "action": "Denied", "disposition_id": 2, "disposition": "Blocked"},
}
"""The profile ``security_control``, of what a policy or the broker decided."""

_PRODUCT: Final = {"name": "Keystead", "vendor_name": "Keystead"}
"""A record does not say which release wrote it."""

_OPEN: Final = "open"
"""The privilege of a lease: to open the asset version that is named behind it."""


def ocsf_event(entry: Entry, record: Record, *, log_name: str) -> dict[str, Any]:
    """The event of an entry.

    Args:
        entry: of the log.
        record: what it says.
        log_name: the log's origin; with the entry's index, ``metadata.sequence``, it names the entry for ever.

    Raises:
        ExportError: an instant is beyond what other tools can say.
    """
    meaning = MEANINGS[record.kind]
    uid, caption = meaning.event_class.uid, meaning.event_class.caption
    category_uid, category = meaning.event_class.category
    severity_id, severity = _severity(record)
    status_id, status = _STATUS[record.result]
    control = _CONTROL.get(record.result, {})
    # The class of a broker's own life has its actor by this profile.
    host = record.node is not None or meaning.event_class is EventClass.APPLICATION_LIFECYCLE
    profiles = [*(["host"] if host else []), *(["security_control"] if control else [])]
    event: dict[str, Any] = {
        "metadata": _without_none(
            {
                "version": VERSION,
                "product": _PRODUCT,
                "log_name": log_name,
                "log_version": str(record.version),
                "event_code": record.kind.value,
                "uid": entry.entry_hash.hex(),
                "sequence": entry.index,
                "tenant_uid": record.tenant,
                "correlation_uid": record.lease or record.job,
                "profiles": profiles or None,
            }
        ),
        "time": check_instant(record.time) * _MILLISECONDS,
        "category_uid": category_uid,
        "category_name": category,
        "class_uid": uid,
        "class_name": caption,
        "activity_id": meaning.activity_id,
        "activity_name": meaning.activity,
        "type_uid": uid * 100 + meaning.activity_id,
        "type_name": f"{caption}: {meaning.activity if meaning.activity_id != _OTHER else 'Other'}",
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "actor": {"user": _actor(record)},
        **control,
    }
    if record.reasons:
        event["status_detail"] = ", ".join(record.reasons)
    if record.node is not None:
        event["device"] = _device(record.node, record.jurisdiction)
    if control and record.policy_digest is not None:
        event["policy"] = {"uid": record.policy_digest}
    event |= _particulars(meaning.event_class, record)
    unmapped = _unmapped(record, event)
    if unmapped:
        event["unmapped"] = unmapped
    return event


def _particulars(event_class: EventClass, record: Record) -> dict[str, Any]:
    """What the class has besides the base event."""
    match event_class:
        case EventClass.AUTHORIZE_SESSION:
            expires_at = expiry(record)
            session = _without_none(
                {"uid": record.lease, "expiration_time": None if expires_at is None else expires_at * _MILLISECONDS}
            )
            return {
                "user": _holder(record),
                "privileges": _privileges(record),
                **({"session": session} if session else {}),
            }
        case EventClass.USER_ACCESS:
            return {"user": _holder(record), "privileges": _privileges(record), "resources": _resources(record)}
        case EventClass.ENTITY_MANAGEMENT:
            return {"entity": _entity(record)}
        case EventClass.APPLICATION_LIFECYCLE:
            return {"app": _PRODUCT | {"name": "Keystead broker"}}
        case EventClass.API_ACTIVITY:
            return {
                "api": {"operation": record.kind.value, "service": {"name": "Keystead broker"}},
                "src_endpoint": {"name": record.actor.name},
                "resources": _resources(record),
            }
        case EventClass.DATASTORE_ACTIVITY:
            return {
                "database": {"name": "audit log", "type_id": _OTHER, "type": "transparency log"},
                "src_endpoint": {"name": record.actor.name},
            }


def _severity(record: Record) -> tuple[int, str]:
    """A record has no severity: one that is out of the ordinary by its kind or result is lifted above the others."""
    if record.kind is Kind.IDENTITY_CLONED:
        return 4, "High"
    return (2, "Low") if record.result is Result.DENIED else (1, "Informational")


def _actor(record: Record) -> dict[str, Any]:
    user: dict[str, Any] = {"name": record.actor.name, "type_id": _OTHER, "type": record.actor.role}
    return user if record.actor.tenant is None else user | {"org": {"uid": record.actor.tenant}}


def _holder(record: Record) -> dict[str, Any]:
    """Who has the keys of a lease: its node."""
    return {"uid": record.node, "type_id": _OTHER, "type": "node"} if record.node is not None else _actor(record)


def _device(node: str, jurisdiction: str | None) -> dict[str, Any]:
    device: dict[str, Any] = {"uid": node, "type_id": _OTHER, "type": "node"}
    if jurisdiction is None:
        return device
    country, _, subdivision = jurisdiction.partition("-")
    return device | {"location": {"country": country} | ({"region": jurisdiction} if subdivision else {})}


def _privileges(record: Record) -> list[str]:
    return [f"{_OPEN} {ref}" for ref in record.assets] or [_OPEN]


def _resources(record: Record) -> list[dict[str, Any]]:
    job = [] if record.job is None else [{"uid": record.job, "type": "job"}]
    return job + [_version(ref) for ref in record.assets]


def _version(ref: str) -> dict[str, Any]:
    name, _, version = ref.rpartition("@")
    return {"uid": ref, "name": name, "version": version, "type": "asset version"}


def _entity(record: Record) -> dict[str, Any]:
    """What a record is about."""
    group = record.kind.value.partition(".")[0]
    entity: dict[str, Any] = {"type_id": _OTHER, "type": group}
    if group == "asset":
        return entity | _asset(record)
    if group == "site" and record.site is not None:
        return entity | {"uid": record.site}
    if group in {"node", "identity"} and record.node is not None:
        return {"type_id": 1, "type": "Device", "uid": record.node, "device": _device(record.node, record.jurisdiction)}
    if group == "approvers" and record.tenant is not None:
        return entity | {"uid": record.tenant}
    return entity | {"name": group}


def _asset(record: Record) -> dict[str, Any]:
    """The asset or version that changed; where a record names several as equals, their tenant."""
    detail = record.detail
    named = detail.get("output", detail.get("version"))
    if isinstance(named, str):
        return _version(named)
    asset = detail.get("asset")
    if isinstance(asset, str):
        return _version(f"{asset}@{named}") if type(named) is int and named else {"uid": asset, "name": asset}
    if len(record.assets) == 1:
        return _version(record.assets[0])
    return {"name": "asset"} if record.tenant is None else {"org": {"uid": record.tenant}}


def _unmapped(record: Record, event: dict[str, Any]) -> dict[str, Any]:
    """What the record says and the event has no attribute for."""
    said: dict[str, Any] = {
        "job": record.job if "resources" not in event else None,
        "user": job_user(record),
        "assets": list(record.assets) if "resources" not in event else None,
        "hardware": list(record.hardware),
        "site": record.site,
        "jurisdiction": record.jurisdiction if "device" not in event else None,
        "lease": record.lease if event["metadata"].get("correlation_uid") != record.lease else None,
        "policy_digest": record.policy_digest if "policy" not in event else None,
        "input_digest": record.input_digest,
        "detail": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in sorted(record.detail.items())
            if name != "user" or not isinstance(value, str)
        },
    }
    return {name: value for name, value in said.items() if value not in (None, [], {})}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
