"""The life of a job through the real broker: extended, preempted, requeued, ended; nothing outlives it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from calls import read_refusal
from factory import Factory, furnish, request_id
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import func, select

import attester
from attester.collect.simulated import SimulatedCollector
from audit.tables import AUDIT_ENTRY
from keybroker import jobs as domain
from keybroker import leases as ends
from keybroker.errors import StateConflictError
from keybroker.maintenance import Maintenance
from keybroker.principals import Principal, Role
from keybroker.store import jobs
from keybroker.store.schema import JOB_GRANT, LEASE, LeaseState
from keystead.binding import AssetRef, JobGrant
from keystead.v1 import asset_service_pb2
from keystead.v1 import job_service_pb2 as pb

UID = "slurm:1"


@pytest.fixture
def factory(make_factory: Callable[..., Factory]) -> Factory:
    return furnish(make_factory())


@pytest.fixture
def client(factory: Factory) -> Iterator[attester.BrokerClient]:
    with factory.client() as opened:
        yield opened


class Scheduler:
    """A scheduler with one job."""

    def __init__(self, factory: Factory, tenant: str = "acme") -> None:
        self.factory = factory
        self.stub = factory.stubs(f"{tenant}-scheduler").jobs

    def extend(self, seconds: int = 7_200, *, request: str = "") -> Any:
        ends_at = Timestamp(seconds=self.factory.clock() + seconds)
        return self.stub.ExtendJob(
            pb.ExtendJobRequest(request_id=request or request_id(), job_uid=UID, expire_time=ends_at)
        )

    def requeue(self, seconds: int = 3_600, *, request: str = "", start: int | None = None) -> Any:
        now = self.factory.clock()
        return self.stub.RequeueJob(
            pb.RequeueJobRequest(
                request_id=request or request_id(),
                job_uid=UID,
                expire_time=Timestamp(seconds=now + seconds),
                start_time=None if start is None else Timestamp(seconds=now + start),
            )
        )

    def preempt(self, *, request: str = "") -> Any:
        return self.stub.PreemptJob(pb.PreemptJobRequest(request_id=request or request_id(), job_uid=UID))

    def end(self, *, request: str = "") -> Any:
        return self.stub.EndJob(pb.EndJobRequest(request_id=request or request_id(), job_uid=UID))

    def get(self) -> Any:
        return self.stub.GetJob(pb.GetJobRequest(job_uid=UID)).job


def acquire(client: Any, factory: Factory, node_id: str, authorized: Any, *refs: AssetRef) -> attester.Lease:
    """A lease over a connection that stays open, whose node's clock is the broker's."""
    return attester.acquire(
        client,
        SimulatedCollector(factory.nodes[node_id]),
        grant=attester.SignedGrant.from_proto(authorized.grant),
        assets=refs,
        node_id=node_id,
        clock=lambda: float(factory.clock()),
        monotonic=lambda: float(factory.clock()),
    )


def codes(call: Callable[[], Any]) -> set[str]:
    with pytest.raises(attester.AccessDeniedError) as caught:
        call()
    return {reason.code for reason in caught.value.reasons}


def refused(call: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return read_refusal(caught.value)


def kinds(factory: Factory, kind: str) -> int:
    with factory.broker.read() as connection:
        statement = select(func.count()).select_from(AUDIT_ENTRY).where(AUDIT_ENTRY.c.kind == kind)
        return connection.execute(statement).scalar_one()


def live(factory: Factory) -> int:
    with factory.broker.read() as connection:
        statement = select(func.count()).select_from(LEASE).where(LEASE.c.state == LeaseState.LIVE)
        return connection.execute(statement).scalar_one()


class TestExtend:
    def test_leases_go_on_under_the_new_grant(self, any_factory: Factory) -> None:
        factory = any_factory
        ref = factory.register_asset()
        authorized = factory.authorize(ref, job_uid=UID, lifetime=1_000)
        scheduler = Scheduler(factory)
        with factory.client() as client:
            lease = acquire(client, factory, "node-a", authorized, ref)
            first_end = lease.terms.expires_at
            answer = scheduler.extend(5_000)
            old, new = JobGrant.parse(authorized.grant.grant), JobGrant.parse(answer.grant.grant)
            assert new.not_after > old.not_after
            assert new.grant_id != old.grant_id
            for name in ("assets", "purposes", "nodes", "sites", "node_ceiling", "not_before", "tenant", "job_uid"):
                assert getattr(new, name) == getattr(old, name)
            factory.clock.offset += 500
            # The keeper knows nothing of the new grant.
            assert lease.renew().expires_at > first_end
            factory.clock.offset += 600
            lease.renew()
            lease.return_()
            # The former grant is over; the new one is not.
            assert codes(lambda: acquire(client, factory, "node-b", authorized, ref)) == {"GRANT_EXPIRED"}
            assert acquire(client, factory, "node-b", answer, ref).live
        assert scheduler.get().grant_id == new.grant_id
        assert kinds(factory, "job.extended") == 1

    def test_a_lease_of_the_former_grant_ends_with_it_unless_renewed(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset()
        authorized = factory.authorize(ref, job_uid=UID, lifetime=1_000)
        Scheduler(factory).extend(5_000)
        lease = acquire(client, factory, "node-a", authorized, ref)
        assert lease.terms.expires_at <= JobGrant.parse(authorized.grant.grant).not_after

    def test_it_only_ever_gives_more_time(self, factory: Factory) -> None:
        ref = factory.register_asset()
        factory.authorize(ref, job_uid=UID, lifetime=1_000)
        scheduler = Scheduler(factory)
        for seconds in (-5, 500, 900, 100 * 86_400):
            answer = refused(lambda seconds=seconds: scheduler.extend(seconds))
            assert (answer.status, answer.field) == (grpc.StatusCode.INVALID_ARGUMENT, "expire_time")
        factory.clock.offset += 2_000
        assert refused(scheduler.extend).status is grpc.StatusCode.FAILED_PRECONDITION
        assert kinds(factory, "job.extended") == 0

    def test_it_is_decided_anew(self, factory: Factory) -> None:
        ref = factory.register_asset()
        factory.authorize(ref, job_uid=UID, lifetime=1_000)
        before = Scheduler(factory).get()
        factory.stubs("acme-owner").assets.RevokeAsset(
            asset_service_pb2.RevokeAssetRequest(request_id=request_id(), asset=ref.asset)
        )
        assert refused(Scheduler(factory).extend).denied == ("ASSET_REVOKED",)
        assert Scheduler(factory).get() == before
        assert kinds(factory, "job.refused") == 1

    def test_a_repeated_request_gets_the_same_grant(self, factory: Factory) -> None:
        ref = factory.register_asset()
        factory.authorize(ref, job_uid=UID, lifetime=1_000)
        scheduler, name = Scheduler(factory), request_id()
        request = pb.ExtendJobRequest(
            request_id=name, job_uid=UID, expire_time=Timestamp(seconds=factory.clock() + 9_000)
        )
        assert scheduler.stub.ExtendJob(request) == scheduler.stub.ExtendJob(request)
        assert kinds(factory, "job.extended") == 1

    def test_spent_opens_do_not_keep_a_job_from_going_on(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"opens": 1})
        lease = acquire(client, factory, "node-a", factory.authorize(ref, job_uid=UID, lifetime=1_000), ref)
        Scheduler(factory).extend(5_000)
        factory.clock.offset += 800
        # Later than the former grant.
        assert lease.renew().expires_at > factory.clock() + 250


class TestPreempt:
    def test_it_takes_every_lease_and_gives_none(self, any_factory: Factory) -> None:
        factory = any_factory
        ref = factory.register_asset()
        authorized = factory.authorize(ref, job_uid=UID)
        scheduler, name = Scheduler(factory), request_id()
        with factory.client() as client:
            lease = acquire(client, factory, "node-a", authorized, ref)
            acquire(client, factory, "node-b", authorized, ref)
            answer = scheduler.preempt(request=name)
            assert (answer.job.state, answer.revoked_leases) == (pb.JOB_STATE_PREEMPTED, 2)
            assert scheduler.preempt(request=name) == answer
            assert scheduler.preempt().revoked_leases == 0
            assert codes(lease.renew) == {"JOB_PREEMPTED", "LEASE_NOT_LIVE"}
            assert codes(lambda: acquire(client, factory, "node-b", authorized, ref)) == {"JOB_PREEMPTED"}
        assert refused(scheduler.extend).status is grpc.StatusCode.FAILED_PRECONDITION
        assert live(factory) == 0
        assert (kinds(factory, "job.preempted"), kinds(factory, "lease.revoked")) == (1, 2)

    def test_a_job_that_has_ended_is_not_preempted(self, factory: Factory) -> None:
        factory.authorize(factory.register_asset(), job_uid=UID)
        Scheduler(factory).end()
        assert refused(Scheduler(factory).preempt).status is grpc.StatusCode.FAILED_PRECONDITION
        assert Scheduler(factory).get().state == pb.JOB_STATE_CLOSED


class TestRequeue:
    def test_the_next_attempt_has_a_grant_of_its_own(self, any_factory: Factory) -> None:
        factory = any_factory
        ref = factory.register_asset()
        first = factory.authorize(ref, job_uid=UID)
        scheduler = Scheduler(factory)
        with factory.client() as client:
            lease = acquire(client, factory, "node-a", first, ref)
            second = scheduler.requeue()
            assert (second.attempt, second.revoked_leases) == (2, 1)
            assert JobGrant.parse(second.grant.grant).grant_id != JobGrant.parse(first.grant.grant).grant_id
            assert "LEASE_NOT_LIVE" in codes(lease.renew)
            assert codes(lambda: acquire(client, factory, "node-a", first, ref)) == {"GRANT_SUPERSEDED"}
            assert acquire(client, factory, "node-a", second, ref).renew()
        job = scheduler.get()
        assert (job.attempt, job.state, job.live_leases) == (2, pb.JOB_STATE_OPEN, 1)
        assert kinds(factory, "job.requeued") == 1

    def test_a_preempted_job_runs_again_even_after_its_grant_was_over(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset()
        factory.authorize(ref, job_uid=UID, lifetime=1_000)
        scheduler = Scheduler(factory)
        scheduler.preempt()
        factory.clock.offset += 2_000
        answer = scheduler.requeue()
        assert (answer.attempt, answer.revoked_leases) == (2, 0)
        assert acquire(client, factory, "node-a", answer, ref).live

    def test_a_refused_one_stays_preempted(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset()
        first = factory.authorize(ref, job_uid=UID)
        acquire(client, factory, "node-a", first, ref)
        factory.stubs("acme-owner").assets.RevokeAsset(
            asset_service_pb2.RevokeAssetRequest(request_id=request_id(), asset=ref.asset)
        )
        assert refused(Scheduler(factory).requeue).denied == ("ASSET_REVOKED",)
        job = Scheduler(factory).get()
        assert (job.state, job.attempt) == (pb.JOB_STATE_PREEMPTED, 1)
        assert live(factory) == 0

    def test_times_are_checked_before_anything_is_revoked(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset()
        acquire(client, factory, "node-a", factory.authorize(ref, job_uid=UID), ref)
        for request in ({"seconds": -5}, {"seconds": 100 * 86_400}, {"start": 4_000}, {"start": -60}):
            answer = refused(lambda request=request: Scheduler(factory).requeue(**request))
            assert answer.status is grpc.StatusCode.INVALID_ARGUMENT
        assert live(factory) == 1

    def test_it_may_begin_later(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset()
        factory.authorize(ref, job_uid=UID)
        answer = Scheduler(factory).requeue(start=600)
        assert codes(lambda: acquire(client, factory, "node-a", answer, ref)) == {"GRANT_NOT_YET_VALID"}
        factory.clock.offset += 700
        assert acquire(client, factory, "node-a", answer, ref).live

    def test_budgets_and_what_is_spent_of_them_stay(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset()
        first = factory.authorize(ref, job_uid=UID, budgets={"opens": 1})
        acquire(client, factory, "node-a", first, ref)
        assert refused(Scheduler(factory).requeue).denied == ("BUDGET_SPENT",)

    def test_a_repeated_request_gets_the_same_grant(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset()
        factory.authorize(ref, job_uid=UID)
        request = pb.RequeueJobRequest(
            request_id=request_id(), job_uid=UID, expire_time=Timestamp(seconds=factory.clock() + 900)
        )
        stub = Scheduler(factory).stub
        first = stub.RequeueJob(request)
        acquire(client, factory, "node-a", first, ref)
        assert stub.RequeueJob(request) == first
        assert live(factory) == 1

    def test_of_two_at_the_same_time_one_wins(self, any_factory: Factory) -> None:
        factory = any_factory
        ref = factory.register_asset()
        factory.authorize(ref, job_uid=UID)
        barrier = threading.Barrier(4)
        statuses: list[grpc.StatusCode] = []

        def attempt(_: int) -> int | None:
            barrier.wait()
            try:
                return int(Scheduler(factory).requeue().attempt)
            except grpc.RpcError as error:
                statuses.append(read_refusal(error).status)
                return None

        with ThreadPoolExecutor(4) as pool:
            attempts = [number for number in pool.map(attempt, range(4)) if number is not None]
        assert sorted(attempts) == list(range(2, 2 + len(attempts)))
        assert set(statuses) <= {grpc.StatusCode.FAILED_PRECONDITION}
        assert Scheduler(factory).get().attempt == max(attempts)
        with factory.broker.read() as connection:
            assert connection.execute(select(func.count()).select_from(JOB_GRANT)).scalar_one() == 1 + len(attempts)


class TestEnd:
    def test_an_ended_job_is_ended_for_ever(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset()
        authorized = factory.authorize(ref, job_uid=UID)
        acquire(client, factory, "node-a", authorized, ref)
        scheduler, name = Scheduler(factory), request_id()
        answer = scheduler.end(request=name)
        assert (answer.job.state, answer.revoked_leases) == (pb.JOB_STATE_CLOSED, 1)
        assert scheduler.end(request=name) == answer
        assert scheduler.end().revoked_leases == 0
        for call in (scheduler.extend, scheduler.requeue, scheduler.preempt):
            assert refused(call).status is grpc.StatusCode.FAILED_PRECONDITION
        assert refused(lambda: factory.authorize(ref, job_uid=UID)).status is grpc.StatusCode.ALREADY_EXISTS
        assert codes(lambda: acquire(client, factory, "node-b", authorized, ref)) == {"JOB_CLOSED"}
        assert kinds(factory, "job.ended") == 1

    def test_a_preempted_job_may_end(self, factory: Factory) -> None:
        factory.authorize(factory.register_asset(), job_uid=UID)
        Scheduler(factory).preempt()
        assert Scheduler(factory).end().job.state == pb.JOB_STATE_CLOSED

    def test_another_tenants_job_is_none(self, factory: Factory) -> None:
        factory.authorize(factory.register_asset(), job_uid=UID)
        other = Scheduler(factory, "globex")
        for call in (other.extend, other.requeue, other.preempt, other.end):
            assert refused(call).status is grpc.StatusCode.NOT_FOUND
        assert Scheduler(factory).get().state == pb.JOB_STATE_OPEN

    def test_many_leases_end_in_bounded_transactions(
        self, any_factory: Factory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        factory = any_factory
        monkeypatch.setattr(ends, "REVOKED_AT_ONCE", 2)
        ref = factory.register_asset()
        authorized = factory.authorize(ref, job_uid=UID)
        with factory.client() as client:
            for number in range(5):
                acquire(client, factory, ("node-a", "node-b")[number % 2], authorized, ref)
        answer = Scheduler(factory).end()
        assert answer.revoked_leases == 5
        assert live(factory) == 0
        assert kinds(factory, "lease.revoked") == 5

    def test_no_lease_is_missed_that_is_granted_meanwhile(
        self, any_factory: Factory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nodes acquire while the job ends: whoever got a lease has lost it when the scheduler has its answer."""
        factory = any_factory
        monkeypatch.setattr(ends, "REVOKED_AT_ONCE", 1)
        ref = factory.register_asset()
        authorized = factory.authorize(ref, job_uid=UID)
        stop = threading.Event()
        denied: set[str] = set()

        def keep_asking(node_id: str) -> int:
            granted = 0
            with factory.client() as client:
                while not stop.is_set():
                    try:
                        acquire(client, factory, node_id, authorized, ref)
                        granted += 1
                    except attester.AccessDeniedError as error:
                        denied.update(reason.code for reason in error.reasons)
            return granted

        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(keep_asking, node_id) for node_id in ("node-a", "node-b")]
            while live(factory) < 6:
                assert not any(each.done() for each in asking)
            revoked = Scheduler(factory).end().revoked_leases
            assert live(factory) == 0
            stop.set()
            granted = sum(each.result() for each in asking)
        assert revoked == granted
        assert denied == {"JOB_CLOSED"}
        assert live(factory) == 0

    def test_the_sweep_ends_what_a_broker_left_behind(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset()
        acquire(client, factory, "node-a", factory.authorize(ref, job_uid=UID), ref)
        row = Scheduler(factory).get()
        # A broker that stops after it closed the job and before it revoked its leases.
        factory.broker.commit(lambda connection: jobs.close(connection, row.grant_id))
        assert live(factory) == 1
        Maintenance(factory.broker).sweep()
        assert live(factory) == 0
        assert kinds(factory, "lease.revoked") == 1


def test_what_changed_since_it_was_decided_is_not_committed(factory: Factory) -> None:
    ref = factory.register_asset()
    factory.authorize(ref, job_uid=UID, lifetime=1_000)
    caller = Principal(role=Role.SCHEDULER, name="slurm", tenant="acme")
    decided = domain.extend(factory.broker, caller=caller, job_uid=UID, not_after=factory.clock() + 5_000)
    Scheduler(factory).end()
    with pytest.raises(StateConflictError):
        factory.broker.commit(decided.commit)
    assert Scheduler(factory).get().state == pb.JOB_STATE_CLOSED
