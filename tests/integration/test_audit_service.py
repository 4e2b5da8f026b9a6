"""The log through the broker: filters, pages, proofs that hold offline, and the record of who read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from calls import acquire_request, add_client, refusal
from factory import Factory, furnish, start_factory
from google.protobuf.timestamp_pb2 import Timestamp

from attestation.simulator.node import SimulatedVendors
from audit import fitting
from audit.checkpoint import Checkpoint
from audit.filter import Filter
from audit.note import NoteVerifier, SignedNote
from audit.proof import ProofBundle, verify_bundle
from audit.records import Result
from keybroker import reads
from keybroker.principals import Principal, Role
from keystead.cli.audit_source import BrokerSource
from keystead.v1 import asset_service_pb2, audit_service_pb2

Told = tuple[Factory, Any, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, vendors: SimulatedVendors) -> Iterator[Told]:
    """A factory with a history: releases, refusals, a revocation, of two tenants."""
    factory = furnish(start_factory(tmp_path_factory.mktemp("told") / "factory", vendors, database=None, edit=str))
    ours, theirs = factory.register_asset(), factory.register_asset("globex/data")
    request = acquire_request(factory, "node-a", factory.authorize(ours, job_uid="slurm:1"), ours)
    lease = factory.stubs("node").leases.AcquireLease(request)
    factory.acquire("node-b", factory.authorize(theirs, job_uid="slurm:2", tenant="globex"), theirs)
    with pytest.raises(Exception, match="JURISDICTION"):
        factory.acquire("node-us", factory.authorize(ours, job_uid="slurm:3"), ours)
    factory.stubs("acme-owner").assets.RevokeAsset(
        asset_service_pb2.RevokeAssetRequest(request_id="00000000-0000-4000-8000-00000000000a", asset=ours.asset)
    )
    factory.broker.sequencer.run_once(factory.clock())
    everything = query(factory, page_size=1000)
    yield factory, lease, [record for record in everything if record["kind"] != "audit.read"]
    factory.close()


def query(factory: Factory, profile: str = "auditor", **wanted: Any) -> list[dict[str, Any]]:
    """The records that match."""
    request = audit_service_pb2.QueryRecordsRequest(**wanted)
    return [json.loads(found.payload) for found in factory.stubs(profile).audit.QueryRecords(request).records]


def of(records: list[dict[str, Any]]) -> list[str]:
    """Kinds in the order of the log, without the reading itself."""
    return [record["kind"] for record in records if record["kind"] != "audit.read"]


def test_the_history_is_whole(told: Told) -> None:
    _, _, history = told
    kinds = of(history)
    for kind, times in {
        "broker.initialised": 1,
        "site.enrolled": 2,
        "node.enrolled": 3,
        "asset.registered": 2,
        "asset.version-added": 2,
        "job.authorized": 3,
        "lease.granted": 2,
        "lease.refused": 1,
        "lease.revoked": 1,
        "asset.revoked": 1,
    }.items():
        assert kinds.count(kind) == times, kind


@pytest.mark.parametrize(
    ("wanted", "keep"),
    [
        ({"kind": "lease.granted"}, lambda record: record["kind"] == "lease.granted"),
        ({"result": "denied"}, lambda record: record["result"] == "denied"),
        ({"tenant": "globex"}, lambda record: record["tenant"] == "globex"),
        ({"job_uid": "slurm:1"}, lambda record: record["job"] == "slurm:1"),
        ({"node_id": "node-b"}, lambda record: record["node"] == "node-b"),
        ({"site_id": "ash-1"}, lambda record: record["site"] == "ash-1"),
        ({"jurisdiction": "FR"}, lambda record: record["jurisdiction"] == "FR"),
        ({"asset": "acme/llama"}, lambda record: "acme/llama@1" in record["assets"]),
        ({"asset": "acme/llama@1"}, lambda record: "acme/llama@1" in record["assets"]),
        ({"asset": "acme/llama@2"}, lambda record: False),
        ({"reason": "JURISDICTION_NOT_PERMITTED"}, lambda r: "JURISDICTION_NOT_PERMITTED" in r["reasons"]),
        ({"actor": "scheduler"}, lambda record: record["actor"]["name"] == "scheduler"),
        (
            {"asset": "acme/llama", "result": "denied", "jurisdiction": "US"},
            lambda record: record["result"] == "denied" and record["jurisdiction"] == "US",
        ),
        ({"asset": "acme/llama", "tenant": "globex"}, lambda record: False),
    ],
)
def test_a_filter_finds_what_it_says(told: Told, wanted: dict[str, Any], keep: Any) -> None:
    factory, _, history = told
    expected = [record for record in history if keep(record)]
    found = [record for record in query(factory, page_size=1000, **wanted) if record["kind"] != "audit.read"]
    assert found == expected
    if wanted.get("asset") != "acme/llama@2" and wanted != {"asset": "acme/llama", "tenant": "globex"}:
        assert found


def test_a_chip_can_be_asked_for(told: Told) -> None:
    """Its identity is as long as a key and is no key: the reading is recorded by digest."""
    factory, _, _ = told
    chip = str(factory.nodes["node-a"].identities()["cpu0"])
    assert of(query(factory, hardware=chip)) == ["node.enrolled", "lease.granted"]
    factory.broker.sequencer.run_once(factory.clock())
    reads = query(factory, kind="audit.read", page_size=1000)
    assert any("hardware=(in filter_digest)" in record["detail"]["filter"] for record in reads)
    assert not any(chip in json.dumps(record) for record in reads)


def test_times_bound_the_answer(told: Told) -> None:
    factory, _, history = told
    first, last = history[0]["time"], history[-1]["time"]
    assert query(factory, end_time=Timestamp(seconds=first), page_size=1000) == []
    assert of(
        query(factory, start_time=Timestamp(seconds=first), end_time=Timestamp(seconds=last + 1), page_size=1000)
    )[: len(history)] == of(history)
    wrong = audit_service_pb2.QueryRecordsRequest(start_time=Timestamp(seconds=9), end_time=Timestamp(seconds=8))
    assert refusal(lambda: factory.stubs("auditor").audit.QueryRecords(wrong)).reason == "BAD_AUDIT_QUERY"
    for bad in ({"kind": "lease.stolen"}, {"result": "maybe"}, {"asset": "a@b@c"}):
        request = audit_service_pb2.QueryRecordsRequest(**bad)
        refused = refusal(lambda request=request: factory.stubs("auditor").audit.QueryRecords(request))
        assert refused.reason == "BAD_AUDIT_QUERY"


def test_pages_join_to_the_whole(told: Told) -> None:
    factory, _, history = told
    stub = factory.stubs("auditor").audit
    wanted = {"end_time": Timestamp(seconds=factory.clock() + 60), "tenant": "acme"}
    whole = stub.QueryRecords(audit_service_pb2.QueryRecordsRequest(page_size=1000, **wanted)).records
    pages, token = [], ""
    while True:
        answer = stub.QueryRecords(audit_service_pb2.QueryRecordsRequest(page_size=2, page_token=token, **wanted))
        pages += answer.records
        token = answer.next_page_token
        if not token:
            break
        assert len(answer.records) == 2
    assert [record.leaf_index for record in pages] == [record.leaf_index for record in whole]
    first = stub.QueryRecords(audit_service_pb2.QueryRecordsRequest(page_size=2, **wanted))
    elsewhere = audit_service_pb2.QueryRecordsRequest(page_token=first.next_page_token, tenant="globex")
    assert refusal(lambda: stub.QueryRecords(elsewhere)).reason == "BAD_AUDIT_QUERY"
    assert history


def test_a_long_search_is_answered_in_parts(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may hold less than fits, and says so; the command line asks on until its page is full."""
    factory, _, _ = told
    stub = factory.stubs("auditor").audit
    before = factory.clock() + 60
    wanted = {"end_time": Timestamp(seconds=before), "tenant": "acme", "result": "allowed"}
    whole = stub.QueryRecords(audit_service_pb2.QueryRecordsRequest(page_size=1000, **wanted)).records
    monkeypatch.setattr(reads, "PATIENCE", 0.0)
    for name in ("_PROBE", "_FIRST_PIECE", "_LAST_PIECE"):
        monkeypatch.setattr(fitting, name, 1)
    found, sizes, token = [], [], ""
    while token or not sizes:
        answer = stub.QueryRecords(audit_service_pb2.QueryRecordsRequest(page_size=100, page_token=token, **wanted))
        found += answer.records
        sizes.append(len(answer.records))
        token = answer.next_page_token
    assert list(found) == list(whole)
    assert 0 in sizes[:-1]
    link: Any = SimpleNamespace(audit=stub, call=lambda method, request: method(request))
    source = BrokerSource(link)
    asked = Filter(end_time=before, tenant="acme", result=Result.ALLOWED)
    page = source.query(asked, limit=3, cursor="")
    assert [entry.index for entry in page.entries] == [record.leaf_index for record in whole[:3]]
    rest = source.query(asked, limit=1000, cursor=page.next_cursor)
    assert [entry.index for entry in rest.entries] == [record.leaf_index for record in whole[3:]]
    assert not rest.next_cursor


def test_a_record_is_proven_offline(told: Told) -> None:
    factory, lease, _ = told
    stub = factory.stubs("auditor").audit
    verifier = NoteVerifier.parse(factory.installation.log_verifier_key.read_text().strip())
    checkpoint = stub.GetCheckpoint(audit_service_pb2.GetCheckpointRequest())
    assert checkpoint.verifier_key == str(verifier)
    granted = stub.QueryRecords(audit_service_pb2.QueryRecordsRequest(kind="lease.granted", job_uid="slurm:1"))
    (record,) = granted.records
    answer = stub.ProveRecord(audit_service_pb2.ProveRecordRequest(leaf_index=record.leaf_index))
    bundle = ProofBundle.parse(answer.bundle)
    result = verify_bundle(bundle, verifier)
    assert result.ok, result.problems
    assert result.record is not None
    assert result.record.payload() == record.payload
    assert result.entry_hash == record.leaf_hash == lease.receipt.entry_hash
    for forged in (
        replace(bundle, index=bundle.index + 1),
        replace(bundle, payload=(bundle.payload or b"").replace(b"slurm:1", b"slurm:9")),
        replace(bundle, leaf=bytes(len(bundle.leaf))),
    ):
        assert not verify_bundle(forged, verifier).ok


def test_the_log_continues_what_was_seen(told: Told) -> None:
    factory, _, _ = told
    stub = factory.stubs("auditor").audit
    older = stub.GetCheckpoint(audit_service_pb2.GetCheckpointRequest()).checkpoint
    query(factory)  # which is recorded, so the log grows
    factory.broker.sequencer.run_once(factory.clock())
    newer = stub.GetCheckpoint(audit_service_pb2.GetCheckpointRequest()).checkpoint
    sizes = [Checkpoint.parse_text(SignedNote.parse(note.encode()).text).size for note in (older, newer)]
    assert sizes[0] < sizes[1]
    answer = stub.ProveRecord(audit_service_pb2.ProveRecordRequest(leaf_index=0, old_checkpoint=older))
    bundle = ProofBundle.parse(answer.bundle)
    verifier = NoteVerifier.parse(factory.installation.log_verifier_key.read_text().strip())
    result = verify_bundle(bundle, verifier, known=older.encode())
    assert (result.ok, result.continues) == (True, sizes[0])


def test_checkpoints_that_are_none(told: Told) -> None:
    factory, _, _ = told
    stub = factory.stubs("auditor").audit
    note = stub.GetCheckpoint(audit_service_pb2.GetCheckpointRequest()).checkpoint
    lines = note.split("\n")
    for bad in (
        "x",
        "\n\n",
        note + "x",
        note.replace(lines[0], "elsewhere/log", 1),
        note.replace(f"\n{lines[1]}\n", "\n999999999\n", 1),
        note.replace(f"\n{lines[1]}\n", "\n-1\n", 1),
        note * 2_000,
    ):
        request = audit_service_pb2.ProveRecordRequest(leaf_index=0, old_checkpoint=bad)
        refused = refusal(lambda request=request: stub.ProveRecord(request))
        assert (refused.reason, refused.field) == ("INVALID_REQUEST", "old_checkpoint"), bad[:80]


def test_reading_is_recorded(told: Told) -> None:
    factory, _, _ = told
    profile = add_client(factory, Principal(Role.AUDITOR, "reader", "acme"))
    query(factory, profile, job_uid="slurm:1")
    stub = factory.stubs(profile).audit
    own = stub.QueryRecords(audit_service_pb2.QueryRecordsRequest(kind="job.authorized")).records[0]
    stub.ProveRecord(audit_service_pb2.ProveRecordRequest(leaf_index=own.leaf_index))
    factory.broker.sequencer.run_once(factory.clock())
    reads = query(factory, kind="audit.read", actor="reader")
    assert [record["tenant"] for record in reads] == ["acme"] * 3
    assert reads[0]["detail"]["filter"] == ["job=slurm:1", "tenant=acme"]
    assert reads[0]["detail"]["records"] == 3
    assert reads[2]["detail"]["proved_index"] == own.leaf_index


def test_no_secret_is_in_the_log(told: Told) -> None:
    factory, _, history = told
    text = json.dumps(history) + json.dumps(query(factory, kind="audit.read", page_size=1000))
    for key in factory.data_keys.values():
        assert key.hex() not in text
