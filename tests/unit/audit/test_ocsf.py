"""OCSF: every kind of record is an event that the published schema takes, and nothing a record says is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from audit.errors import ExportError
from audit.log import append_many
from audit.ocsf import MEANINGS, VERSION, ocsf_event
from audit.query import Entry
from audit.records import MAX_INTEGER, Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from keystead.cli.main import run

NOW = 1_800_000_000
LOG = "log.example/keystead"
PAGE = Path(__file__).resolve().parents[3] / "docs" / "exports.md"
Build = Callable[..., Record]


@cache
def validator(class_uid: int, profiles: tuple[str, ...]) -> Any:
    schemas = pytest.importorskip("ocsf_json_schema", reason="NO OCSF SCHEMA: ocsf-json-schema is not installed")
    jsonschema = pytest.importorskip("jsonschema", reason="NO OCSF SCHEMA: jsonschema is not installed")
    published = schemas.OcsfJsonSchemaEmbedded(schemas.get_ocsf_schema(version=VERSION))
    name = published.lookup_class_name_from_uid(class_uid=class_uid)
    schema = published.get_class_schema(class_name=name, profiles=list(profiles))
    return jsonschema.Draft202012Validator(schema)


def valid(event: dict[str, Any]) -> dict[str, Any]:
    """The event, which the schema of its class and profiles takes."""
    profiles = tuple(event["metadata"].get("profiles", ()))
    problems = [
        f"{error.json_path}: {error.message}" for error in validator(event["class_uid"], profiles).iter_errors(event)
    ]
    assert problems == []
    return event


def entry(index: int = 7) -> Entry:
    return Entry(index, bytes([index]) * 32, None)


def event_of(record: Record) -> dict[str, Any]:
    return valid(ocsf_event(entry(), record, log_name=LOG))


def test_the_schema_refuses_what_is_not_an_event(record: Build) -> None:
    event = ocsf_event(entry(), record(0), log_name=LOG)
    for broken in (
        {name: value for name, value in event.items() if name != "time"},
        event | {"activity_id": 77},
        event | {"severity_id": "high"},
        event | {"not_of_ocsf": 1},
    ):
        with pytest.raises(AssertionError):
            valid(broken)


def variants(record: Build, kind: Kind) -> list[Record]:
    """Full, bare and in between, with every result."""
    full: dict[str, Any] = {
        "kind": kind,
        "hardware": ["amd-chip-id:00"],
        "jurisdiction": "DE-BE",
        "actor": Actor(role="owner", name="CN=ada", tenant="acme"),
    }
    nothing = dict.fromkeys(("tenant", "job", "node", "site", "jurisdiction", "policy_digest", "input_digest", "lease"))
    bare: dict[str, Any] = {"kind": kind, "assets": [], "hardware": [], **nothing}
    details: list[dict[str, Any]] = [
        {"expires_at": NOW + 60, "user": "ada", "because": ["A", "B"], "count": 3, "opened": False},
        {"asset": "acme/llm", "version": 2},
        {"asset": "acme/llm", "version": 0},
        {"version": "acme/llm@3"},
        {"output": "acme/tuned@1"},
    ]
    found = [record(0, **full, detail=detail) for detail in details]
    found += [record(0, **bare, result=Result.RECORDED), record(0, **(bare | {"tenant": "acme"}))]
    found += [record(0, **full, result=Result.DENIED, reasons=["LATE", "CLONED"])]
    found += [record(0, **full, result=Result.RECORDED), record(0, **(full | {"assets": ["acme/llm@1"]}))]
    return found


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_is_an_event_and_loses_nothing(record: Build, kind: Kind) -> None:
    for each in variants(record, kind):
        event = event_of(each)
        assert event["metadata"] | {"profiles": []} == {
            "version": "1.8.0",
            "product": {"name": "Keystead", "vendor_name": "Keystead"},
            "log_name": LOG,
            "log_version": "1",
            "event_code": kind.value,
            "uid": "07" * 32,
            "sequence": 7,
            "profiles": [],
            **({"tenant_uid": each.tenant} if each.tenant else {}),
            **({"correlation_uid": each.lease} if each.lease else {}),
        }
        assert event["time"] == NOW * 1000
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        assert event["class_uid"] // 1000 == event["category_uid"]
        assert (event["activity_id"] == 99) == event["type_name"].endswith(": Other")
        text = json.dumps(event)
        document = each.to_json()
        said = [value for name, value in document.items() if isinstance(value, str) and name not in ("kind", "result")]
        said += [*each.assets, *each.hardware, *each.reasons, each.actor.role, each.actor.name]
        assert [value for value in said if value not in text] == []
        assert all(json.dumps(value) in text for value in document["detail"].values())


def test_what_was_decided(record: Build) -> None:
    allowed = event_of(record(0))
    assert (allowed["status"], allowed["action"], allowed["disposition"], allowed["severity"]) == (
        "Success",
        "Allowed",
        "Allowed",
        "Informational",
    )
    assert allowed["policy"] == {"uid": "11" * 32}
    denied = event_of(record(0, kind=Kind.LEASE_REFUSED, result=Result.DENIED, reasons=["LATE", "CLONED"]))
    assert (denied["status"], denied["action"], denied["disposition"], denied["severity"]) == (
        "Failure",
        "Denied",
        "Blocked",
        "Low",
    )
    assert denied["status_detail"] == "CLONED, LATE"
    recorded = event_of(record(0, kind=Kind.LEASE_EXPIRED, result=Result.RECORDED))
    assert (recorded["status_id"], recorded["status"], "action" in recorded) == (99, "recorded", False)
    assert recorded["unmapped"]["policy_digest"] == "11" * 32
    assert event_of(record(0, kind=Kind.IDENTITY_CLONED))["severity"] == "High"


def test_a_lease_is_privileges_of_a_session(record: Build) -> None:
    event = event_of(record(0, detail={"expires_at": NOW + 60, "user": "ada"}, jurisdiction="DE-BE"))
    assert (event["class_name"], event["activity_name"]) == ("Authorize Session", "Assign Privileges")
    assert event["session"] == {"uid": "lease-0", "expiration_time": (NOW + 60) * 1000}
    assert event["privileges"] == ["open acme/corpus@1", "open acme/llm@1"]
    assert event["user"]["uid"] == "node-0"
    assert event["device"]["location"] == {"country": "DE", "region": "DE-BE"}
    assert (event["unmapped"]["user"], event["unmapped"]["job"]) == ("ada", "job-0")
    ended = event_of(record(0, kind=Kind.LEASE_REVOKED, result=Result.RECORDED))
    assert (ended["class_uid"], ended["activity_name"]) == (3005, "Revoke Privileges")
    assert [each["uid"] for each in ended["resources"]] == ["job-0", "acme/corpus@1", "acme/llm@1"]


def test_what_a_record_is_about(record: Build) -> None:
    def entity(kind: Kind, **fields: Any) -> dict[str, Any]:
        found: dict[str, Any] = event_of(record(0, kind=kind, **fields))["entity"]
        return found

    assert entity(Kind.ASSET_VERSION_ADDED, detail={"version": "acme/llm@1"}) == {
        "uid": "acme/llm@1",
        "name": "acme/llm",
        "version": "1",
        "type": "asset version",
        "type_id": 99,
    }
    assert entity(Kind.ASSET_OUTPUT_REGISTERED, detail={"output": "acme/tuned@4"})["uid"] == "acme/tuned@4"
    assert entity(Kind.ASSET_CONSTRAINED, detail={"asset": "acme/llm", "version": 2})["uid"] == "acme/llm@2"
    assert entity(Kind.ASSET_CONSTRAINED, detail={"asset": "acme/llm", "version": 0})["uid"] == "acme/llm"
    assert entity(Kind.ASSET_REVOKED, detail={"derived_from": "acme/llm"})["org"] == {"uid": "acme"}
    assert entity(Kind.SITE_SUSPENDED)["uid"] == "hall-1"
    assert entity(Kind.NODE_MOVED)["device"]["uid"] == "node-0"
    assert entity(Kind.NODES_IMPORTED, node=None)["name"] == "nodes"
    assert entity(Kind.APPROVERS_SET)["uid"] == "acme"


def test_an_instant_beyond_the_calendar_is_an_error(record: Build) -> None:
    with pytest.raises(ExportError):
        ocsf_event(entry(), record(0, time=MAX_INTEGER), log_name=LOG)


def test_the_page_has_the_table(record: Build) -> None:
    page = PAGE.read_text("utf-8")
    for kind, meaning in MEANINGS.items():
        words = meaning.activity if meaning.activity_id != 99 else f"Other: {meaning.activity}"
        row = f"| `{kind.value}` | {meaning.event_class.caption} | {meaning.event_class.uid} | {words} |"
        assert row in page, row
    assert set(MEANINGS) == set(Kind)


def test_a_file_of_events(
    engine: Engine, make_log: Callable[..., Sequencer], record: Build, database_path: Path, tmp_path: Path
) -> None:
    sequencer = make_log(engine)
    with engine.begin() as connection:
        append_many(connection, [record(0), record(1, kind=Kind.JOB_AUTHORIZED, lease=None)])
    sequencer.run_once(NOW)
    out = tmp_path / "events.jsonl"
    assert (
        run(["audit", "export", "--format", "ocsf", "--out", str(out), "--database", f"sqlite:///{database_path}"]) == 0
    )
    events = [valid(json.loads(line)) for line in out.read_text().splitlines()]
    assert [(each["metadata"]["sequence"], each["metadata"]["log_name"]) for each in events] == [(0, LOG), (1, LOG)]
    assert events[1]["metadata"]["correlation_uid"] == "job-1"
