"""OpenLineage: events say what the records say, by the specification and by our own published schema."""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from audit.log import append_many
from audit.openlineage import FACET_SCHEMA, openlineage_events
from audit.query import Entry
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from keystead.cli.main import run

NOW = 1_800_000_000
SCHEMA = Path(__file__).resolve().parents[3] / "docs" / "schemas" / "openlineage-audit-facet.json"
FACET = "_producer", "_schemaURL"
Build = Callable[..., Record]

KINDS: list[tuple[Kind, str | None, Result, dict[str, Any]]] = [
    (Kind.LEASE_GRANTED, "START", Result.ALLOWED, {"expires_at": NOW + 60, "user": "ada"}),
    (Kind.LEASE_RENEWED, "RUNNING", Result.ALLOWED, {}),
    (Kind.APPRAISAL, None, Result.ALLOWED, {}),
    (Kind.ASSET_OUTPUT_REGISTERED, "OTHER", Result.RECORDED, {"output": "acme/llm@1"}),
    (Kind.LEASE_RETURNED, "COMPLETE", Result.RECORDED, {}),
    (Kind.LEASE_EXPIRED, "ABORT", Result.RECORDED, {}),
    (Kind.LEASE_REVOKED, "ABORT", Result.RECORDED, {}),
    (Kind.LEASE_REFUSED, "FAIL", Result.DENIED, {}),
]


def facets(event: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every facet of an event: what it belongs to, its name, itself."""
    holders = [("run", event.get("run", {})), ("job", event.get("job", {}))]
    holders += [("dataset", each) for each in (*event.get("inputs", ()), *event.get("outputs", ()))]
    holders += [("dataset", event["dataset"])] if "dataset" in event else []
    for kind, holder in holders:
        for name, facet in holder.get("facets", {}).items():
            yield kind, name, facet


@pytest.fixture
def events(record: Build) -> list[dict[str, Any]]:
    """Events of every kind that has one, checked against our schema."""
    records = [
        record(0, kind=kind, result=result, reasons=["LATE"] if result is Result.DENIED else [], detail=detail)
        for kind, _, result, detail in KINDS
    ]
    owner = Actor(role="owner", name="ada", tenant="acme")
    nowhere = dict.fromkeys(("job", "lease", "node", "site", "jurisdiction", "policy_digest", "input_digest"))
    stated: dict[str, Any] = {"actor": owner, "result": Result.RECORDED, "hardware": [], **nowhere}
    added = {"version": "acme/llm@1", "manifest_digest": "33" * 32, "description_digest": "44" * 32}
    again = {"version": "acme/llm@1"}
    records += [
        record(1, kind=Kind.ASSET_VERSION_ADDED, assets=["acme/corpus@1"], **stated),
        record(2, kind=Kind.ASSET_VERSION_ADDED, assets=["acme/corpus@1", "acme/llm@1"], detail=added, **stated),
        record(3, kind=Kind.ASSET_PARENTS_DECLARED, assets=["acme/corpus@1", "acme/llm@1"], detail=again, **stated),
        record(4, kind=Kind.JOB_REFUSED, result=Result.DENIED, reasons=["X"], **(nowhere | {"job": "job-0"})),
    ]
    entries = [(Entry(index, bytes([index]) * 32, None), each) for index, each in enumerate(records)]
    return list(openlineage_events(entries, namespace="factory-1"))


def test_a_lease_is_a_run_of_its_job(record: Build, events: list[dict[str, Any]]) -> None:
    runs = [event for event in events if "run" in event]
    assert [event["eventType"] for event in runs] == [*(each for _, each, _, _ in KINDS if each), "FAIL"]
    assert len({event["run"]["runId"] for event in runs[:-1]}) == 1
    for event in runs:
        assert event["job"] | {"facets": {}} == {"namespace": "factory-1/acme", "name": "job-0", "facets": {}}
        assert uuid.UUID(event["run"]["runId"]).version == 5
    made = runs[2]
    assert [(each["name"], each["facets"]["version"]["datasetVersion"]) for each in made["outputs"]] == [
        ("acme/llm", "1")
    ]
    assert made["outputs"][0]["facets"]["lifecycleStateChange"]["lifecycleStateChange"] == "CREATE"
    assert [each["name"] for each in made["inputs"]] == ["acme/corpus"]
    facet = runs[0]["run"]["facets"]["keystead_audit"]
    assert (facet["site"], facet["policyDigest"], facet["entry"], facet["user"]) == ("hall-1", "11" * 32, 0, "ada")
    assert facet["expiresAt"] == "2027-01-15T08:01:00Z"
    assert [(tag["key"], tag["value"]) for tag in runs[0]["run"]["facets"]["tags"]["tags"]] == [
        ("node", "node-0"),
        ("site", "hall-1"),
        ("jurisdiction", "DE"),
    ]
    assert "tags" not in runs[-1]["run"]["facets"]
    other = openlineage_events([(Entry(0, bytes(32), None), record(0, tenant="umbrella"))], namespace="factory-1")
    assert next(other)["run"]["runId"] != runs[0]["run"]["runId"]


def test_what_an_owner_declared_is_no_run(events: list[dict[str, Any]]) -> None:
    raw, derived, declared = [event["dataset"] for event in events if "dataset" in event]
    assert (raw["name"], "lineage" in raw["facets"]) == ("acme/corpus", False)
    assert raw["facets"]["lifecycleStateChange"]["lifecycleStateChange"] == "CREATE"
    for dataset in (derived, declared):
        assert dataset["name"] == "acme/llm"
        assert dataset["facets"]["lineage"]["inputs"] == [
            {"namespace": "factory-1", "name": "acme/corpus", "type": "DATASET"}
        ]
    assert "lifecycleStateChange" not in declared["facets"]
    facet = derived["facets"]["keystead_audit"]
    assert (facet["manifestDigest"], facet["descriptionDigest"]) == ("33" * 32, "44" * 32)
    assert facet["assets"] == ["acme/corpus@1", "acme/llm@1"]


def test_our_facet_is_as_its_schema_says(events: list[dict[str, Any]]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="NO SCHEMA: jsonschema is not installed")
    schema = json.loads(SCHEMA.read_text("utf-8"))
    assert schema["$id"] == FACET_SCHEMA
    seen = set()
    for event in events:
        for kind, name, facet in facets(event):
            if name != "keystead_audit":
                continue
            document, _, pointer = facet["_schemaURL"].partition("#")
            assert document == FACET_SCHEMA
            seen.add((kind, pointer))
            checker = jsonschema.Draft202012Validator(schema | {"$ref": f"#{pointer}"})
            assert [error.message for error in checker.iter_errors(facet)] == []
            assert not checker.is_valid(facet | {"more": 1})
            assert not checker.is_valid(facet | {"entryHash": "00"})
    assert seen == {("run", "/$defs/KeysteadAuditRunFacet"), ("dataset", "/$defs/KeysteadAuditDatasetFacet")}


MODULES = {
    "version": "dataset_version_dataset.DatasetVersionDatasetFacet",
    "lifecycleStateChange": "lifecycle_state_change_dataset.LifecycleStateChangeDatasetFacet",
    "lineage": "lineage.LineageDatasetFacet",
    "tags": "tags_run.TagsRunFacet",
    "run ownership": "ownership_job.OwnershipJobFacet",
    "job ownership": "ownership_job.OwnershipJobFacet",
    "dataset ownership": "ownership_dataset.OwnershipDatasetFacet",
}
"""Where the project's own client keeps the classes that it generates from the specification."""


def test_the_specifications_own_client_reads_every_event(events: list[dict[str, Any]]) -> None:
    generated = "openlineage.client.generated"
    pytest.importorskip(generated, reason="NO OPENLINEAGE CLIENT: openlineage-python is not installed")
    base = importlib.import_module(f"{generated}.base")
    for event in events:
        top = dict(event)
        if "run" in event:
            read = base.RunEvent(
                eventType=base.EventType(event["eventType"]),
                eventTime=event["eventTime"],
                producer=event["producer"],
                run=base.Run(**event["run"]),
                job=base.Job(**event["job"]),
                inputs=[base.InputDataset(**each) for each in event["inputs"]],
                outputs=[base.OutputDataset(**each) for each in event["outputs"]],
            )
            known = {"eventType", "eventTime", "producer", "schemaURL", "run", "job", "inputs", "outputs"}
        else:
            read = base.DatasetEvent(
                eventTime=event["eventTime"], producer=event["producer"], dataset=base.StaticDataset(**event["dataset"])
            )
            known = {"eventTime", "producer", "schemaURL", "dataset"}
        assert read.schemaURL == event["schemaURL"]
        assert top.keys() == known
        for kind, name, facet in facets(event):
            assert facet.keys() >= set(FACET)
            if name == "keystead_audit":
                continue
            module, _, name_of_class = MODULES.get(name, MODULES.get(f"{kind} {name}", "")).partition(".")
            standard = getattr(importlib.import_module(f"{generated}.{module}"), name_of_class)
            built = standard(**{key: value for key, value in facet.items() if key not in FACET})
            assert built._get_schema() == facet["_schemaURL"]


def test_a_file_of_events(
    engine: Engine, make_log: Callable[..., Sequencer], record: Build, database_path: Path, tmp_path: Path
) -> None:
    sequencer = make_log(engine)
    with engine.begin() as connection:
        append_many(connection, [record(0), record(1, kind=Kind.APPRAISAL), record(2)])
    sequencer.run_once(NOW)
    out = tmp_path / "runs.jsonl"
    arguments = ["audit", "export", "--format", "openlineage", "--namespace", "f", "--out", str(out)]
    assert run([*arguments, "--database", f"sqlite:///{database_path}"]) == 0
    events = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(event["eventType"], event["job"]["namespace"]) for event in events] == [("START", "f/acme")] * 2
