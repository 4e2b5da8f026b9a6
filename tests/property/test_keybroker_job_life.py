"""Nothing outlives its job, and no budget is overspent, whatever happens in whatever order, on the real broker.

A model on the side knows what time really passed, which lease was granted when, and which job was ended; it asks the
code under test for nothing but its answers, and the database for what stands in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import grpc
import pytest
from calls import read_refusal
from factory import Factory, furnish, request_id
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

import attester
from attester.collect.simulated import SimulatedCollector
from keybroker.maintenance import Maintenance
from keybroker.store import jobs
from keybroker.store.schema import BUDGET_USE, JOB, LEASE, LeaseState
from keystead.binding import AssetRef
from keystead.v1 import job_service_pb2 as pb

OPENS, SECONDS, TOKENS = 6, 3_000, 50


@dataclass
class Job:
    """What the model knows of a job."""

    uid: str
    grants: list[Any]
    state: str = "open"
    attempt: int = 1


@dataclass(eq=False)
class Held:
    """What the model knows of a lease; instants are of the model's own clock, which nobody sets."""

    job: Job
    attempt: int
    lease: attester.Lease
    ref: AssetRef
    since: int
    until: int
    tokens: int = 0


@dataclass
class World:
    """The broker, and a clock that only goes forward beside the one that may be set."""

    factory: Factory
    client: attester.BrokerClient
    passed: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 1 << 30)))

    def real(self) -> int:
        """Seconds that really passed, as far as the test's rules made them."""
        return self.passed

    def advance(self, seconds: int) -> None:
        """Let time pass."""
        self.passed += seconds
        self.factory.clock.offset += seconds


class Life(RuleBasedStateMachine):
    """Jobs over one asset with budgets."""

    world: ClassVar[World]
    open_jobs = Bundle("open_jobs")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        factory = self.world.factory
        self.stub = factory.stubs("acme-scheduler").jobs
        self.ref = factory.register_asset(
            f"acme/asset-{next(self.world.numbers)}",
            budgets={"opens": OPENS, "key_seconds": SECONDS, "tokens_served": TOKENS},
        )
        self.jobs: list[Job] = []
        self.held: list[Held] = []
        self.opens = 0

    def refused(self, call: Callable[[], Any]) -> set[str] | None:
        """The codes of a refusal; None where there was none."""
        try:
            self.answer = call()
        except attester.AccessDeniedError as error:
            return {reason.code for reason in error.reasons}
        except attester.LeaseEndedError:
            return {"ENDED"}
        except grpc.RpcError as error:
            refusal = read_refusal(error)
            return set(refusal.denied) or {refusal.reason}
        return None

    @rule(target=open_jobs, seconds=st.integers(60, 4_000))
    def authorize(self, seconds: int) -> Any:
        """Open a job."""
        job = Job(f"slurm:{next(self.world.numbers)}", [])
        if self.refused(lambda: self.world.factory.authorize(self.ref, job_uid=job.uid, lifetime=seconds)):
            return multiple()
        job.grants.append(self.answer)
        self.jobs.append(job)
        return job

    @rule(target=leases, job=open_jobs, node=st.sampled_from(["node-a", "node-b"]), old=st.booleans())
    def acquire(self, job: Job, node: str, old: bool) -> Any:
        """Ask for a lease, with the newest grant or the first."""
        factory = self.world.factory
        authorized = job.grants[0 if old else -1]
        start = self.world.real()
        refusal = self.refused(
            lambda: attester.acquire(
                self.world.client,
                SimulatedCollector(factory.nodes[node]),
                grant=attester.SignedGrant.from_proto(authorized.grant),
                assets=[self.ref],
                node_id=node,
                clock=lambda: float(factory.clock()),
                monotonic=lambda: float(self.world.real()),
            )
        )
        if refusal is not None:
            return multiple()
        assert job.state == "open"
        assert self.opens < OPENS
        self.opens += 1
        lease = self.answer
        held = Held(job, job.attempt, lease, self.ref, start, start + lease.terms.expires_at - factory.clock())
        self.held.append(held)
        return held

    @rule(held=leases, tokens=st.integers(0, 20))
    def renew(self, held: Held, tokens: int) -> None:
        """Use it, report, renew it."""
        if held.lease.live:
            held.lease.count(self.ref, tokens=tokens)
            held.tokens += tokens
        start = self.world.real()
        refusal = self.refused(held.lease.renew)
        if refusal is None:
            assert (held.job.state, held.job.attempt) == ("open", held.attempt)
            assert sum(each.tokens for each in self.held) < TOKENS
            held.until = start + held.lease.terms.expires_at - self.world.factory.clock()
        else:
            held.until = min(held.until, start)

    @rule(held=consumes(leases))
    def give_back(self, held: Held) -> None:
        """Return a lease, or try to."""
        self.refused(held.lease.return_)
        held.until = min(held.until, self.world.real())

    @rule(job=open_jobs, seconds=st.integers(60, 6_000))
    def extend(self, job: Job, seconds: int) -> None:
        """Give a job more time."""
        ends = Timestamp(seconds=self.world.factory.clock() + seconds)
        request = pb.ExtendJobRequest(request_id=request_id(), job_uid=job.uid, expire_time=ends)
        if self.refused(lambda: self.stub.ExtendJob(request)) is None:
            assert job.state == "open"
            job.grants.append(self.answer)

    @rule(job=open_jobs)
    def preempt(self, job: Job) -> None:
        """Stop a job."""
        request = pb.PreemptJobRequest(request_id=request_id(), job_uid=job.uid)
        refusal = self.refused(lambda: self.stub.PreemptJob(request))
        assert (refusal is None) == (job.state != "closed")
        if refusal is None:
            job.state = "preempted"
            self.end_all(job)

    @rule(job=open_jobs, seconds=st.integers(60, 4_000))
    def requeue(self, job: Job, seconds: int) -> None:
        """Run a job again."""
        ends = Timestamp(seconds=self.world.factory.clock() + seconds)
        request = pb.RequeueJobRequest(request_id=request_id(), job_uid=job.uid, expire_time=ends)
        refusal = self.refused(lambda: self.stub.RequeueJob(request))
        if refusal is None:
            assert job.state != "closed"
            job.state, job.attempt = "open", job.attempt + 1
            assert self.answer.attempt == job.attempt
            job.grants.append(self.answer)
            self.end_all(job)
        elif job.state != "closed":
            job.state = "preempted"
            self.end_all(job)

    @rule(job=open_jobs)
    def end(self, job: Job) -> None:
        """End a job, once or again; its id is never free any more."""
        request = pb.EndJobRequest(request_id=request_id(), job_uid=job.uid)
        assert self.refused(lambda: self.stub.EndJob(request)) is None
        job.state = "closed"
        self.end_all(job)
        again = self.refused(lambda: self.world.factory.authorize(self.ref, job_uid=job.uid))
        assert again in ({"ALREADY_EXISTS"}, {"BUDGET_SPENT"})

    def end_all(self, job: Job) -> None:
        """The model's leases of a job that was stopped are over now."""
        for held in self.held:
            if held.job is job:
                held.until = min(held.until, self.world.real())

    @rule(seconds=st.integers(1, 1_200))
    def time_passes(self, seconds: int) -> None:
        """Let time pass."""
        self.world.advance(seconds)

    @rule(seconds=st.integers(1, 1_200))
    def clock_is_set_back(self, seconds: int) -> None:
        """Set the broker's clock back, after a sweep saw the time that it was."""
        Maintenance(self.world.factory.broker).sweep()
        self.world.factory.clock.offset -= seconds

    @rule()
    def sweep(self) -> None:
        """Let the broker tidy up."""
        Maintenance(self.world.factory.broker).sweep()

    @invariant()
    def nothing_outlives_its_job(self) -> None:
        """Every live row belongs to a job that runs, in its present attempt, and ends with its grant."""
        with self.world.factory.broker.read() as connection:
            statement = (
                select(LEASE.c.lease_id, LEASE.c.expires_at, JOB)
                .join(JOB, JOB.c.grant_id == LEASE.c.grant_id)
                .where(LEASE.c.state == LeaseState.LIVE)
            )
            for row in connection.execute(statement).mappings():
                job = jobs.get(connection, row["grant_id"])
                assert job.standing == "open"
                assert row["expires_at"] <= job.not_after
        known = {each.lease.lease_id: each for each in self.held}
        with self.world.factory.broker.read() as connection:
            live = select(LEASE.c.lease_id).where(LEASE.c.state == LeaseState.LIVE)
            for lease_id in connection.execute(live).scalars():
                held = known.get(lease_id)
                if held is not None:
                    assert held.job.state == "open"
                    assert held.attempt == held.job.attempt

    @invariant()
    def no_budget_is_overspent(self) -> None:
        """What the broker counted is what happened, or more, and never more than the limit where it counts itself."""
        with self.world.factory.broker.read() as connection:
            statement = select(BUDGET_USE).where(BUDGET_USE.c.asset == self.ref.asset)
            rows = list(connection.execute(statement).mappings())
        total = [row for row in rows if row["job"] == ""]
        if not total:
            assert self.opens == 0
            return
        for name in ("opens", "key_seconds", "tokens_served"):
            assert total[0][name] == sum(row[name] for row in rows if row["job"] != "")
        assert total[0]["opens"] == self.opens <= OPENS
        assert total[0]["key_seconds"] <= SECONDS
        real = self.world.real()
        held = sum(max(0, min(each.until, real) - each.since) for each in self.held)
        # Seconds of the wall pass while the test runs, and the broker's clock counts whole ones.
        assert total[0]["key_seconds"] >= held - 5 * len(self.held)

    def teardown(self) -> None:
        """Leave nothing live behind."""
        for job in self.jobs:
            self.refused(lambda job=job: self.stub.EndJob(pb.EndJobRequest(request_id=request_id(), job_uid=job.uid)))


@pytest.fixture
def world(make_factory: Callable[..., Factory]) -> Iterator[World]:
    factory = furnish(make_factory())
    with factory.client() as client:
        yield World(factory, client)


def test_nothing_outlives_its_job_and_no_budget_is_overspent(world: World) -> None:
    Life.world = world
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=4,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            # One broker serves all examples, so that none can be run again as it was.
            phases=[Phase.generate],
        ),
    )
