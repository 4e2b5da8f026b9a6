"""Requests that are sent again: the same request gets the same answer, another under the same id gets none."""

from __future__ import annotations

import contextlib
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from calls import acquire_request, add_client, refusal, rows
from factory import Factory, request_id
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import select

from audit.tables import AUDIT_ENTRY
from keybroker import release
from keybroker.broker import Broker
from keybroker.maintenance import Maintenance
from keybroker.principals import Principal, Role
from keybroker.services.server import Server
from keybroker.store.schema import LEASE, SPENT_NONCE, LeaseState
from keystead.binding import AssetRef, u64
from keystead.v1 import (
    asset_service_pb2,
    job_service_pb2,
    node_service_pb2,
    site_service_pb2,
)

Shared = tuple[Factory, AssetRef]


def job_request(factory: Factory, ref: AssetRef, **changes: Any) -> job_service_pb2.AuthorizeJobRequest:
    """A request to authorize a job."""
    values = {
        "request_id": request_id(),
        "job_uid": f"slurm:{uuid.uuid4()}",
        "assets": [{"asset": ref.asset, "version": ref.version}],
        "purposes": ["inference"],
        "node_ceiling": 4,
        "expire_time": Timestamp(seconds=factory.clock() + 600),
    }
    return job_service_pb2.AuthorizeJobRequest(**(values | changes))


def asset_request(name: str, **changes: Any) -> asset_service_pb2.RegisterAssetRequest:
    """A request to register an asset."""
    values = {
        "request_id": request_id(),
        "asset": name,
        "kind": asset_service_pb2.ASSET_KIND_DATASET,
        "constraints": {"purposes": {"names": ["inference"]}, "residency": {"allowed": [{"areas": ["EU"]}]}},
    }
    return asset_service_pb2.RegisterAssetRequest(**(values | changes))


def site_request(factory: Factory, site_id: str) -> site_service_pb2.EnrolSiteRequest:
    """A request to enrol a site."""
    return site_service_pb2.EnrolSiteRequest(
        request_id=request_id(), record=factory.signed(factory.site_record(site_id, "DE", lifetime=60))
    )


def test_every_mutation_answers_a_repetition_as_before(shared: Shared) -> None:
    factory, _ = shared
    operator, owner, scheduler = (factory.stubs(name) for name in ("operator", "acme-owner", "acme-scheduler"))
    ref = factory.register_asset("acme/repeated")
    job = job_request(factory, ref)
    calls = [
        (operator.sites.EnrolSite, site_request(factory, "ber-1")),
        (
            operator.nodes.EnrolNode,
            node_service_pb2.EnrolNodeRequest(
                request_id=request_id(),
                node={
                    "node_id": "node-again",
                    "site_id": "ber-1",
                    "devices": [{"slot": "cpu0", "kind": "amd-chip-id", "value": "ab" * 64}],
                },  # type: ignore[arg-type]
            ),
        ),
        (
            operator.nodes.SetNodeState,
            node_service_pb2.SetNodeStateRequest(
                request_id=request_id(), node_id="node-again", state=node_service_pb2.NODE_STATE_RETIRED, reason="gone"
            ),
        ),
        (owner.assets.RegisterAsset, asset_request("acme/again")),
        (scheduler.jobs.AuthorizeJob, job),
        (scheduler.jobs.EndJob, job_service_pb2.EndJobRequest(request_id=request_id(), job_uid=job.job_uid)),
        (
            owner.assets.RevokeAsset,
            asset_service_pb2.RevokeAssetRequest(request_id=request_id(), asset="acme/again"),
        ),
    ]
    for call, request in calls:
        first = call(request)
        before = rows(factory)
        assert call(request) == first, request
        assert rows(factory) == before, request


def test_an_id_serves_one_request(shared: Shared) -> None:
    factory, ref = shared
    owner = factory.stubs("acme-owner").assets
    request = asset_request("acme/one-request")
    owner.RegisterAsset(request)
    before = rows(factory)
    other = asset_request("acme/another-request", request_id=request.request_id)
    assert refusal(lambda: owner.RegisterAsset(other)).reason == "REQUEST_MISMATCH"
    revoke = asset_service_pb2.RevokeAssetRequest(request_id=request.request_id, asset=ref.asset)
    assert refusal(lambda: owner.RevokeAsset(revoke)).reason == "REQUEST_MISMATCH"
    assert rows(factory) == before
    job = job_request(factory, ref)
    scheduler = factory.stubs("acme-scheduler").jobs
    scheduler.AuthorizeJob(job)
    job.node_ceiling = 9
    assert refusal(lambda: scheduler.AuthorizeJob(job)).reason == "REQUEST_MISMATCH"


def test_ids_of_different_callers_do_not_meet(shared: Shared) -> None:
    factory, _ = shared
    request = asset_request("acme/mine")
    factory.stubs("acme-owner").assets.RegisterAsset(request)
    other = factory.stubs(add_client(factory, Principal(Role.OWNER, "second", "acme"))).assets
    taken = refusal(lambda: other.RegisterAsset(request))
    assert (taken.status, taken.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    globex = asset_request("globex/theirs", request_id=request.request_id)
    assert factory.stubs("globex-owner").assets.RegisterAsset(globex).asset.asset == "globex/theirs"


def test_an_id_that_is_no_uuid_is_refused(shared: Shared) -> None:
    factory, _ = shared
    owner = factory.stubs("acme-owner").assets
    for bad in ("", "1", str(uuid.uuid4()).upper(), f"{uuid.uuid4()}\n", "0" * 36):
        before = rows(factory)
        refused = refusal(lambda bad=bad: owner.RegisterAsset(asset_request("acme/no-uuid", request_id=bad)))
        assert (refused.reason, refused.field) == ("INVALID_REQUEST", "request_id")
        assert rows(factory) == before


def test_an_authorization_is_not_decided_again(any_factory: Factory) -> None:
    """What happened since, a revocation or the passing of time, changes no answer that was given."""
    factory = any_factory
    ref = factory.register_asset()
    jobs = factory.stubs("acme-scheduler").jobs
    request = job_request(factory, ref)
    first = jobs.AuthorizeJob(request)
    factory.stubs("acme-owner").assets.RevokeAsset(
        asset_service_pb2.RevokeAssetRequest(request_id=request_id(), asset=ref.asset)
    )
    factory.clock.offset += 3_000
    before = rows(factory)
    assert jobs.AuthorizeJob(request) == first
    assert rows(factory) == before
    again = job_request(factory, ref)
    assert "ASSET_REVOKED" in refusal(lambda: jobs.AuthorizeJob(again)).denied


def test_repetitions_at_the_same_time_are_one(any_factory: Factory) -> None:
    factory = any_factory
    ref = factory.register_asset()
    owner, jobs = factory.stubs("acme-owner").assets, factory.stubs("acme-scheduler").jobs
    register, authorize = asset_request("acme/at-once"), job_request(factory, ref)
    with ThreadPoolExecutor(8) as pool:
        for call, request in ((owner.RegisterAsset, register), (jobs.AuthorizeJob, authorize)):
            answers = list(pool.map(lambda _, call=call, request=request: call(request), range(8)))
            assert all(answer == answers[0] for answer in answers)
    with factory.broker.read() as connection:
        kinds = list(connection.execute(select(AUDIT_ENTRY.c.kind)).scalars())
    assert kinds.count("asset.registered") == 2
    assert kinds.count("job.authorized") == 1


def second_replica(factory: Factory) -> Factory:
    """Another broker process's worth of broker on the same database and keys."""
    server = Server(Broker.open(factory.config, clock=factory.clock))
    port = server.start("127.0.0.1:0")
    return Factory(
        factory.installation, factory.config, factory.vendors, port, factory.clock, nodes=factory.nodes, server=server
    )


def test_replicas_give_one_answer_and_one_lease(any_factory: Factory) -> None:
    factory = any_factory
    other = second_replica(factory)
    try:
        ref = factory.register_asset()
        authorized = factory.authorize(ref)
        # The nonce, the grant and the lease of one replica are the other's too.
        request = acquire_request(factory, "node-a", authorized, ref)
        stubs = [each.stubs("node").leases for each in (factory, other)]
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda number: stubs[number % 2].AcquireLease(request), range(6)))
        assert {answer.lease.lease_id for answer in answers} == {answers[0].lease.lease_id}
        assert {answer.next_nonce for answer in answers} == {answers[0].next_nonce}
        # Another transcript on that nonce is a replay at either.
        for stub in stubs:
            replay = acquire_request(factory, "node-a", authorized, ref)
            assert "NONCE_SPENT" in refusal(lambda stub=stub, replay=replay: stub.AcquireLease(replay)).denied
        authorize = job_request(factory, ref)
        jobs = [each.stubs("acme-scheduler").jobs for each in (factory, other)]
        with ThreadPoolExecutor(6) as pool:
            granted = list(pool.map(lambda number: jobs[number % 2].AuthorizeJob(authorize), range(6)))
        assert all(answer == granted[0] for answer in granted)
    finally:
        other.close()


@pytest.mark.parametrize("change", ["quarantine", "revocation"])
def test_a_change_at_another_replica_misses_no_lease(
    any_factory: Factory, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A node is quarantined, or an asset revoked, after a lease was decided and before it is committed."""
    factory = any_factory
    other = second_replica(factory)
    ref = factory.register_asset()
    authorized = factory.authorize(ref)
    request = acquire_request(factory, "node-a", authorized, ref)
    changed = threading.Event()

    def act() -> None:
        if change == "quarantine":
            other.stubs("operator").nodes.SetNodeState(
                node_service_pb2.SetNodeStateRequest(
                    request_id=request_id(),
                    node_id="node-a",
                    state=node_service_pb2.NODE_STATE_QUARANTINED,
                    reason="found open",
                )
            )
        else:
            other.stubs("acme-owner").assets.RevokeAsset(
                asset_service_pb2.RevokeAssetRequest(request_id=request_id(), asset=ref.asset)
            )
        changed.set()

    thread = threading.Thread(target=act)
    rechecked, inner = threading.Event(), release.recheck

    def paused(*args: Any, **kwargs: Any) -> None:
        inner(*args, **kwargs)
        if not rechecked.is_set():
            rechecked.set()
            thread.start()
            changed.wait(1.5)  # where the change does not wait for this transaction, it is done by then

    monkeypatch.setattr(release, "recheck", paused)
    with contextlib.suppress(grpc.RpcError):  # refused where the change came first, else answered: both are right
        factory.stubs("node").leases.AcquireLease(request)
    thread.join(20)
    assert changed.is_set()
    with factory.broker.read() as connection:
        states = list(connection.execute(select(LEASE.c.state)).scalars())
    assert LeaseState.LIVE not in states
    refused = refusal(lambda: factory.stubs("node").leases.AcquireLease(request))
    assert {"NODE_NOT_ACTIVE", "ASSET_REVOKED"} & set(refused.denied)
    other.close()


def test_spent_nonces_are_forgotten_when_no_replica_accepts_them(factory: Factory) -> None:
    ref = factory.register_asset()
    authorized = factory.authorize(ref, lifetime=6 * 86_400)
    request = acquire_request(factory, "node-a", authorized, ref)
    leases = factory.stubs("node").leases
    leases.AcquireLease(request)
    limits = factory.config.limits
    sweep = Maintenance(factory.broker).sweep

    def spent() -> int:
        with factory.broker.read() as connection:
            return len(connection.execute(select(SPENT_NONCE.c.nonce)).all())

    epoch = int.from_bytes(authorized.nonce[:8], "big")
    assert authorized.nonce.startswith(u64(epoch))
    ends = factory.broker.epochs.expires_at(epoch)
    factory.clock.offset += ends - 60 - factory.clock()
    sweep()
    assert spent() == 1
    assert "CHALLENGE_EXPIRED" not in refusal(lambda: leases.AcquireLease(request)).denied
    factory.clock.offset += 61
    sweep()
    assert spent() == 1, "a replica whose clock is behind may still accept it"
    assert "CHALLENGE_EXPIRED" in refusal(lambda: leases.AcquireLease(request)).denied
    factory.clock.offset += limits.epoch_seconds
    sweep()
    assert spent() == 0
    assert "CHALLENGE_EXPIRED" in refusal(lambda: leases.AcquireLease(request)).denied


def test_forgotten_ids_may_be_used_again(factory: Factory) -> None:
    owner = factory.stubs("acme-owner").assets
    request = asset_request("acme/forgotten")
    owner.RegisterAsset(request)
    factory.clock.offset += 8 * 86_400
    Maintenance(factory.broker).sweep()
    assert refusal(lambda: owner.RegisterAsset(request)).reason == "ALREADY_EXISTS"
