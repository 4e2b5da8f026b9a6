"""Streams of records: whole, followed, resumed, bounded; a tenant's own only; each reading recorded once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from calls import add_client, refusal
from factory import Factory, furnish, start_factory
from google.protobuf.timestamp_pb2 import Timestamp

from attestation.simulator.node import SimulatedVendors
from audit import fitting
from keybroker import reads as broker_reads
from keybroker import streams
from keybroker.principals import Principal, Role
from keystead.v1 import audit_service_pb2 as pb

LIMIT = 20.0
"""Seconds that a test waits for what should take one."""


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory, vendors: SimulatedVendors) -> Iterator[Factory]:
    """A factory in which two tenants have used what is theirs."""
    factory = furnish(start_factory(tmp_path_factory.mktemp("busy") / "factory", vendors, database=None, edit=str))
    ours, theirs = factory.register_asset(), factory.register_asset("globex/data")
    factory.acquire("node-a", factory.authorize(ours, job_uid="slurm:1"), ours)
    factory.acquire("node-b", factory.authorize(theirs, job_uid="slurm:2", tenant="globex"), theirs)
    factory.broker.sequencer.run_once(factory.clock())
    yield factory
    factory.close()


def stream(factory: Factory, profile: str = "auditor", **fields: Any) -> Any:
    """An open stream."""
    query = pb.QueryRecordsRequest(
        **{name: fields.pop(name) for name in list(fields) if name not in ("follow", "newest")}
    )
    return factory.stubs(profile).audit.StreamRecords(pb.StreamRecordsRequest(query=query, **fields), timeout=LIMIT)


def records(messages: Any) -> list[dict[str, Any]]:
    """What all messages hold."""
    return [json.loads(record.payload) for message in messages for record in message.records]


def reads(factory: Factory, profile: str = "auditor", **wanted: Any) -> list[dict[str, Any]]:
    """The readings that were recorded."""
    factory.broker.sequencer.run_once(factory.clock())
    request = pb.QueryRecordsRequest(kind="audit.read", page_size=1000, **wanted)
    return [json.loads(record.payload) for record in factory.stubs(profile).audit.QueryRecords(request).records]


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    until = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_stream_is_the_whole_answer(busy: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PAGE", 3)
    request = pb.QueryRecordsRequest(page_size=1000, tenant="acme")
    whole = busy.stubs("auditor").audit.QueryRecords(request).records
    messages = list(stream(busy, tenant="acme"))
    assert [record for message in messages for record in message.records] == list(whole)
    assert len(messages) > 1
    assert [message.complete for message in messages] == [False] * (len(messages) - 1) + [True]
    # Any message's token takes it up behind that message.
    rest = list(stream(busy, tenant="acme", page_token=messages[0].resume_token))
    assert [record for message in rest for record in message.records] == list(whole)[len(messages[0].records) :]
    newest = records(stream(busy, tenant="acme", newest=2))
    assert newest == [json.loads(record.payload) for record in whole][-2:]
    (nothing,) = stream(busy, tenant="nobody")
    assert nothing.complete
    # Whoever goes on does not look at the same records once more.
    assert int(nothing.resume_token.partition(".")[0]) >= whole[-1].leaf_index
    (still_nothing,) = stream(busy, tenant="nobody", page_token=nothing.resume_token)
    assert still_nothing.complete


def test_a_stream_goes_on_where_it_sought_in_vain(busy: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    request = pb.QueryRecordsRequest(page_size=1000, tenant="acme", result="allowed")
    whole = busy.stubs("auditor").audit.QueryRecords(request).records
    monkeypatch.setattr(broker_reads, "PATIENCE", 0.0)
    for name in ("_PROBE", "_FIRST_PIECE", "_LAST_PIECE"):
        monkeypatch.setattr(fitting, name, 1)
    messages = list(stream(busy, tenant="acme", result="allowed"))
    assert [record for message in messages for record in message.records] == list(whole)
    assert [message.complete for message in messages] == [False] * (len(messages) - 1) + [True]


def test_messages_stay_small(busy: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    from keybroker.services import audit

    monkeypatch.setattr(audit, "PIECE", 1)
    messages = [message for message in stream(busy, tenant="acme") if message.records]
    assert [len(message.records) for message in messages] == [1] * len(messages)
    assert len(messages) > 3
    again = records(stream(busy, tenant="acme", page_token=messages[2].resume_token))
    assert again == records(messages[3:])


def test_following_hands_out_what_is_new_and_does_not_feed_itself(
    busy: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "POLL", 0.05)
    monkeypatch.setattr(streams, "KEEPALIVE", 0.2)
    profile = add_client(busy, Principal(Role.AUDITOR, "follower", None))
    open_ = stream(busy, profile, follow=True, newest=1)
    first = next(open_)
    assert len(first.records) == 1
    busy.broker.sequencer.run_once(busy.clock())
    seen = []
    while not any(record["kind"] == "audit.read" and record["actor"]["name"] == "follower" for record in seen):
        seen += records([next(open_)])
    # Only signs of life follow: reading has caused nothing to read.
    for _ in range(3):
        busy.broker.sequencer.run_once(busy.clock())
        assert not next(open_).records
    busy.register_asset("acme/fresh")
    busy.broker.sequencer.run_once(busy.clock())
    while "asset.registered" not in [record["kind"] for record in seen]:
        seen += records([next(open_)])
    open_.cancel()
    eventually(lambda: len(reads(busy, actor="follower")) == 2)
    began, ended = reads(busy, actor="follower")
    assert (began["detail"]["stream"], began["detail"]["filter"]) == ("follow", [])
    assert (ended["detail"]["stream"], ended["detail"]["records"]) == ("ended", 1 + len(seen))
    assert len(ended["detail"]["began_hash"]) == 64


def test_a_stream_ends_and_is_taken_up(busy: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PAGE", 2)
    monkeypatch.setattr(streams, "MAX_RECORDS", 2)
    whole = records([busy.stubs("auditor").audit.QueryRecords(pb.QueryRecordsRequest(page_size=9))])
    seen: list[dict[str, Any]] = []
    token = ""
    for _ in range(4):
        messages = list(stream(busy, page_token=token))
        assert not messages[-1].complete
        assert len(records(messages)) == 2
        seen += records(messages)
        token = messages[-1].resume_token
    assert seen == whole[:8]
    monkeypatch.setattr(streams, "MAX_SECONDS", 0.0)
    assert not list(stream(busy, tenant="acme", kind="site.enrolled", follow=True))


def test_a_tenants_auditor_sees_the_tenants_only(busy: Factory) -> None:
    profile = add_client(busy, Principal(Role.AUDITOR, "ours", "acme"))
    assert {record["tenant"] for record in records(stream(busy, profile))} == {"acme"}
    alive = Timestamp(seconds=busy.clock())
    assert {record["job"] for record in records(stream(busy, profile, alive_at=alive))} == {"slurm:1"}
    assert {record["job"] for record in records(stream(busy, alive_at=alive))} == {"slurm:1", "slurm:2"}
    refused = refusal(lambda: list(stream(busy, profile, tenant="globex")))
    assert refused.reason == "ROLE_NOT_ALLOWED"
    assert [record["tenant"] for record in reads(busy, actor="ours")] == ["acme"] * 4


def test_a_tenants_auditor_learns_from_no_cursor_where_others_stand(
    busy: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for another tenant's asset piece by piece, a broker ends its answers at the reader's own records."""
    everything = busy.stubs("auditor").audit.QueryRecords(pb.QueryRecordsRequest(page_size=1000)).records
    own = {each.leaf_index for each in everything if json.loads(each.payload)["tenant"] == "acme"}
    profile = add_client(busy, Principal(Role.AUDITOR, "curious", "acme"))
    monkeypatch.setattr(broker_reads, "PATIENCE", 0.0)
    for name, value in (("_PROBE", 1), ("_FIRST_PIECE", 1), ("_LAST_PIECE", 1), ("_TOGETHER", 0)):
        monkeypatch.setattr(fitting, name, value)
    places, token = [], ""
    while token or not places:
        request = pb.QueryRecordsRequest(asset="globex/data", page_token=token)
        answer = busy.stubs(profile).audit.QueryRecords(request)
        assert not answer.records
        token = answer.next_page_token
        places.append(int(token.partition(".")[0] or -1))
    assert len(places) > 2
    assert set(places[:-1]) <= own


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"page_size": 5}, "INVALID_REQUEST"),
        ({"newest": 1_001}, "INVALID_REQUEST"),
        ({"page_token": "0.0000000000000000"}, "BAD_AUDIT_QUERY"),
        ({"page_token": "x", "newest": 5}, "BAD_AUDIT_QUERY"),
        ({"kind": "lease.stolen"}, "BAD_AUDIT_QUERY"),
        ({"alive_at": Timestamp(seconds=-5)}, "INVALID_REQUEST"),
    ],
)
def test_questions_that_cannot_be_answered(busy: Factory, fields: dict[str, Any], reason: str) -> None:
    before = len(reads(busy))
    assert refusal(lambda: list(stream(busy, **fields))).reason == reason
    assert len(reads(busy)) == before + 1  # what `reads` asked before, and nothing of the stream


def test_one_tenant_cannot_take_every_stream(busy: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "POLL", 0.05)
    profile = add_client(busy, Principal(Role.AUDITOR, "greedy", "acme"))
    held = [stream(busy, profile, follow=True, newest=1) for _ in range(streams.STREAMS_OF_TENANT)]
    for each in held:
        next(each)
    assert refusal(lambda: list(stream(busy, profile))).reason == "STREAMS_TAKEN"
    assert records(stream(busy, kind="site.enrolled"))
    for each in held:
        each.cancel()
    ended = [{"stream": "ended"}] * len(held)
    eventually(
        lambda: (
            [{"stream": "ended"} for read in reads(busy, actor="greedy") if read["detail"].get("stream") == "ended"]
            == ended
        )
    )
    assert records(stream(busy, profile, newest=1))


def test_streams_hold_no_other_call_up(tmp_path: Path, vendors: SimulatedVendors) -> None:
    """One worker answers calls, and eight streams that follow leave it alone."""
    factory = start_factory(
        tmp_path / "factory",
        vendors,
        database=None,
        edit=lambda text: text.replace("[limits]\n", "[limits]\nworkers = 1\n"),
    )
    try:
        held = [stream(factory, follow=True, newest=1) for _ in range(streams.STREAMS)]
        for each in held:
            next(each)
        assert refusal(lambda: list(stream(factory))).reason == "STREAMS_TAKEN"
        assert factory.stubs("auditor").audit.GetCheckpoint(pb.GetCheckpointRequest(), timeout=LIMIT).checkpoint
        for each in held:
            each.cancel()
    finally:
        factory.close()
