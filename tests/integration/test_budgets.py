"""Budgets through the real broker: counted in the transaction of each release, exact under races, refunded once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import pytest
from calls import acquire_request, read_refusal
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from factory import Factory, furnish
from sqlalchemy import select

import attester
from attester.collect.simulated import SimulatedCollector
from audit.tables import AUDIT_ENTRY
from keybroker.maintenance import Maintenance
from keybroker.store import budgets, leases
from keybroker.store.schema import BUDGET_USE, COUNTERS, LEASE_METER, LeaseState
from keystead.binding import AssetRef, AssetUse, lease_return_message, usage_report_message
from keystead.v1 import asset_ref_pb2, job_service_pb2, lease_service_pb2

LEASE = 900
"""Seconds that a lease is charged for where nothing else bounds it: the settings' `re_attest`."""


@pytest.fixture
def factory(make_factory: Callable[..., Factory]) -> Factory:
    return furnish(make_factory())


@pytest.fixture
def client(factory: Factory) -> Iterator[attester.BrokerClient]:
    with factory.client() as opened:
        yield opened


def acquire(
    client: attester.BrokerClient,
    factory: Factory,
    node_id: str,
    *refs: AssetRef,
    authorized: Any = None,
    **changes: Any,
) -> attester.Lease:
    """A lease over a connection that stays open, whose node's clock is the broker's."""
    authorized = authorized or factory.authorize(*refs, **changes)
    return attester.acquire(
        client,
        SimulatedCollector(factory.nodes[node_id]),
        grant=attester.SignedGrant.from_proto(authorized.grant),
        assets=refs,
        node_id=node_id,
        nonce=None,
        clock=lambda: float(factory.clock()),
        monotonic=lambda: float(factory.clock()),
    )


def codes(call: Callable[[], Any]) -> set[str]:
    """What a refusal says."""
    with pytest.raises(attester.AccessDeniedError) as caught:
        call()
    return {reason.code for reason in caught.value.reasons}


def total(factory: Factory, ref: AssetRef) -> dict[str, int]:
    """The counters over all jobs, after a check that they are the sum of those of each job."""
    with factory.broker.read() as connection:
        rows = connection.execute(
            select(BUDGET_USE).where(BUDGET_USE.c.asset == ref.asset, BUDGET_USE.c.version == ref.version)
        ).mappings()
        by_job = {row["job"]: {name: row[name] for name in COUNTERS} for row in rows}
    over_all = by_job.pop(budgets.ALL_JOBS, dict.fromkeys(COUNTERS, 0))
    assert over_all == {name: sum(uses[name] for uses in by_job.values()) for name in COUNTERS}
    return over_all


def report(
    factory: Factory,
    lease: attester.Lease,
    sequence: int,
    *uses: AssetUse,
    key: Ed25519PrivateKey | None = None,
    lease_id: str = "",
) -> Any:
    """Report by hand, as `lease`'s node or somebody else."""
    signer = key or lease._signing_key
    message = usage_report_message(lease_id=lease_id or lease.lease_id, sequence=sequence, uses=uses)
    return factory.stubs("node").leases.ReportUsage(
        lease_service_pb2.ReportUsageRequest(
            lease_id=lease.lease_id,
            sequence=sequence,
            uses=[
                lease_service_pb2.AssetUse(
                    asset=asset_ref_pb2.AssetRef(asset=use.ref.asset, version=use.ref.version),
                    bytes_opened=use.bytes_opened,
                    tokens_served=use.tokens_served,
                    bytes_served=use.bytes_served,
                )
                for use in uses
            ],
            signature=signer.sign(message),
        )
    )


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """Status and field of a refusal."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    refusal = read_refusal(caught.value)
    return refusal.status, refusal.field


class TestOpens:
    def test_are_counted_over_all_jobs_and_never_come_back(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"opens": 2})
        acquire(client, factory, "node-a", ref).return_()
        lease = acquire(client, factory, "node-b", ref)
        assert total(factory, ref)["opens"] == 2
        lease.renew()
        assert total(factory, ref)["opens"] == 2
        # Spent is spent: no job is authorized any more.
        with pytest.raises(grpc.RpcError) as caught:
            factory.authorize(ref)
        assert read_refusal(caught.value).denied == ("BUDGET_SPENT",)

    def test_a_repeated_request_opens_nothing_again(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"opens": 1})
        request = acquire_request(factory, "node-a", factory.authorize(ref), ref)
        first = client.acquire_lease(request)
        assert client.acquire_lease(request).lease == first.lease
        assert total(factory, ref)["opens"] == 1

    def test_the_limit_is_exact_when_nodes_race(self, any_factory: Factory) -> None:
        factory = any_factory
        ref = factory.register_asset(budgets={"opens": 4})
        grants = [factory.authorize(ref) for _ in range(12)]
        outcomes = race(factory, ref, grants)
        assert outcomes == [{"BUDGET_SPENT"}] * 8 + [set()] * 4
        assert total(factory, ref)["opens"] == 4


def race(factory: Factory, ref: AssetRef, grants: list[Any]) -> list[set[str]]:
    """What becomes of as many requests at the same time as there are grants; the granted ones last."""
    barrier = threading.Barrier(len(grants))

    def attempt(number: int) -> set[str]:
        barrier.wait()
        try:
            factory.acquire(("node-a", "node-b")[number % 2], grants[number], ref)
        except attester.AccessDeniedError as error:
            return {reason.code for reason in error.reasons}
        return set()

    with ThreadPoolExecutor(len(grants)) as pool:
        return sorted(pool.map(attempt, range(len(grants))), key=lambda found: not found)


class TestKeySeconds:
    def test_are_charged_ahead_and_what_is_left_comes_back(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"key_seconds": 600})
        lease = acquire(client, factory, "node-a", ref)
        # The lease is no longer than what is left.
        assert lease.terms.expires_at - factory.clock() in {599, 600}
        assert total(factory, ref)["key_seconds"] == 600
        with pytest.raises(grpc.RpcError) as caught:
            factory.authorize(ref)
        assert read_refusal(caught.value).denied == ("BUDGET_SPENT",)
        factory.clock.offset += 100
        lease.return_()
        assert total(factory, ref)["key_seconds"] in range(100, 104)

    def test_a_renewal_charges_only_what_is_more(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(
            budgets={"key_seconds": 1_000}, obligations={"lease_ceiling": {"params": {"seconds": 300}}}
        )
        lease = acquire(client, factory, "node-a", ref)
        assert total(factory, ref)["key_seconds"] == 300
        factory.clock.offset += 200
        lease.renew()
        assert total(factory, ref)["key_seconds"] in range(500, 504)
        for _ in range(2):
            factory.clock.offset += 250
            lease.renew()
        assert total(factory, ref)["key_seconds"] == 1_000
        # It ends with its budget, however often it is renewed.
        end = lease.terms.expires_at
        factory.clock.offset += 250
        assert lease.renew().expires_at in {end - 1, end}
        assert total(factory, ref)["key_seconds"] in {999, 1_000}
        factory.clock.offset = end - factory.clock() + factory.clock.offset
        with pytest.raises(attester.LeaseEndedError):
            lease.renew()

    @pytest.mark.parametrize("end", ["expire", "revoke"])
    def test_every_end_settles(self, factory: Factory, client: Any, end: str) -> None:
        ref = factory.register_asset(budgets={"key_seconds": 9_000})
        acquire(client, factory, "node-a", ref, job_uid="slurm:1", lifetime=7_000)
        assert total(factory, ref)["key_seconds"] == LEASE
        if end == "expire":
            factory.clock.offset += 4_000
            Maintenance(factory.broker).sweep()
            assert total(factory, ref)["key_seconds"] == LEASE
        else:
            factory.clock.offset += 50
            factory.stubs("acme-scheduler").jobs.EndJob(
                job_service_pb2.EndJobRequest(request_id="00000000-0000-4000-8000-000000000009", job_uid="slurm:1")
            )
            assert total(factory, ref)["key_seconds"] in range(50, 54)

    def test_keys_that_were_not_erased_are_still_held(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"key_seconds": 9_000})
        lease = acquire(client, factory, "node-a", ref)
        client.return_lease(
            lease_service_pb2.ReturnLeaseRequest(
                lease_id=lease.lease_id,
                zeroised=False,
                signature=lease._signing_key.sign(lease_return_message(lease_id=lease.lease_id, zeroised=False)),
            )
        )
        assert total(factory, ref)["key_seconds"] == LEASE

    def test_the_limit_is_exact_when_nodes_race(self, any_factory: Factory) -> None:
        factory = any_factory
        ref = factory.register_asset(
            budgets={"key_seconds": 1_000}, obligations={"lease_ceiling": {"params": {"seconds": 300}}}
        )
        outcomes = race(factory, ref, [factory.authorize(ref) for _ in range(8)])
        # Three leases of 300 seconds and one of what is left.
        assert outcomes == [{"BUDGET_SPENT"}] * 4 + [set()] * 4
        assert total(factory, ref)["key_seconds"] == 1_000


class TestJobBudgets:
    def test_narrow_what_the_asset_allows(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"opens": 10})
        authorized = factory.authorize(ref, job_uid="slurm:7", budgets={"opens": 1, "tokens_served": 50})
        acquire(client, factory, "node-a", ref, authorized=authorized)
        with pytest.raises(attester.AccessDeniedError) as caught:
            acquire(client, factory, "node-b", ref, authorized=authorized)
        assert [(reason.code, reason.field, reason.actual) for reason in caught.value.reasons] == [
            ("BUDGET_SPENT", "budgets.job.opens", "1")
        ]
        acquire(client, factory, "node-b", ref)
        job = factory.stubs("acme-scheduler").jobs.GetJob(job_service_pb2.GetJobRequest(job_uid="slurm:7")).job
        assert dict(job.budgets) == {"opens": 1, "tokens_served": 50}
        assert {(use.name, use.scope, use.limit, use.spent) for use in job.uses} == {
            ("opens", "asset", 10, 2),
            ("opens", "job", 1, 1),
            ("tokens_served", "job", 50, 0),
        }

    @pytest.mark.parametrize(
        ("named", "field"),
        [({"coffee": 1}, "budgets"), ({"opens": 0}, "budgets.opens"), ({"opens": 1 << 60}, "budgets.opens")],
    )
    def test_bad_ones_are_refused(self, factory: Factory, named: dict[str, int], field: str) -> None:
        ref = factory.register_asset()
        assert refused(lambda: factory.authorize(ref, budgets=named)) == (grpc.StatusCode.INVALID_ARGUMENT, field)


class TestReports:
    def test_are_asked_for_and_count(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"tokens_served": 100})
        lease = acquire(client, factory, "node-a", ref)
        assert lease.terms.report_every == 60
        lease.count(ref, tokens=60)
        lease.report()
        lease.report()
        assert total(factory, ref)["tokens_served"] == 60
        lease.count(str(ref), tokens=39, bytes_served=7)
        lease.renew()
        assert total(factory, ref)["tokens_served"] == 99
        lease.count(ref, tokens=1)
        assert codes(lease.renew) == {"BUDGET_SPENT"}
        assert not lease.live
        with factory.broker.read() as connection:
            assert total(factory, ref)["bytes_served"] == 7
            kinds = connection.execute(select(AUDIT_ENTRY.c.kind)).scalars().all()
        assert kinds.count("usage.reported") == 4

    def test_the_last_one_comes_with_the_return(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"bytes_served": 100})
        lease = acquire(client, factory, "node-a", ref)
        lease.count(ref, bytes_served=250)
        assert lease.return_() is not None
        assert lease.return_() is None
        assert total(factory, ref)["bytes_served"] == 250

    def test_a_lease_that_stops_to_report_is_not_renewed(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"tokens_served": 100})
        lease = acquire(client, factory, "node-a", ref)
        lease.report()
        factory.clock.offset += 110
        # What an agent does that reports no more.
        lease._terms = replace(lease._terms, report_every=None)
        lease.renew()
        lease._terms = replace(lease._terms, report_every=None)
        factory.clock.offset += 20
        assert codes(lease.renew) == {"USAGE_REPORT_MISSING"}

    def test_only_the_attested_key_speaks_for_a_lease(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"tokens_served": 100})
        lease = acquire(client, factory, "node-a", ref)
        other = acquire(client, factory, "node-b", ref)
        use = AssetUse(ref=ref, tokens_served=5)
        bad = (grpc.StatusCode.INVALID_ARGUMENT, "signature")
        assert refused(lambda: report(factory, lease, 1, use, key=Ed25519PrivateKey.generate())) == bad
        assert refused(lambda: report(factory, lease, 1, use, key=other._signing_key)) == bad
        assert refused(lambda: report(factory, lease, 1, use, lease_id=other.lease_id)) == bad
        assert total(factory, ref)["tokens_served"] == 0

    def test_numbers_and_counters_only_rise(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"tokens_served": 100})
        other = AssetRef("acme/other", 1)
        lease = acquire(client, factory, "node-a", ref)
        use = AssetUse(ref=ref, tokens_served=5, bytes_served=2)
        assert report(factory, lease, 3, use).sequence == 3
        assert report(factory, lease, 3, use).sequence == 3
        assert total(factory, ref)["tokens_served"] == 5
        conflict, invalid = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
        assert refused(lambda: report(factory, lease, 3, replace(use, tokens_served=9)))[0] is conflict
        assert refused(lambda: report(factory, lease, 2, replace(use, tokens_served=9)))[0] is conflict
        assert refused(lambda: report(factory, lease, 4, replace(use, tokens_served=4))) == (
            invalid,
            "uses.tokens_served",
        )
        assert refused(lambda: report(factory, lease, 4, replace(use, bytes_opened=1 << 60))) == (
            invalid,
            "uses.bytes_opened",
        )
        assert refused(lambda: report(factory, lease, 0, use)) == (invalid, "sequence")
        assert refused(lambda: report(factory, lease, 4)) == (invalid, "uses")
        assert refused(lambda: report(factory, lease, 4, replace(use, ref=other))) == (invalid, "uses")
        assert refused(lambda: report(factory, lease, 4, use, AssetUse(ref=other))) == (invalid, "uses")
        assert total(factory, ref)["tokens_served"] == 5

    def test_a_lease_that_is_not_asked_has_nothing_to_report(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset()
        lease = acquire(client, factory, "node-a", ref)
        assert lease.terms.report_every is None
        assert refused(lambda: report(factory, lease, 1, AssetUse(ref=ref)))[0] is grpc.StatusCode.FAILED_PRECONDITION

    def test_late_reports_count_until_the_lease_is_returned(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"tokens_served": 100})
        lease = acquire(client, factory, "node-a", ref, job_uid="slurm:1")
        factory.stubs("acme-scheduler").jobs.EndJob(
            job_service_pb2.EndJobRequest(request_id="00000000-0000-4000-8000-000000000009", job_uid="slurm:1")
        )
        report(factory, lease, 1, AssetUse(ref=ref, tokens_served=8))
        assert total(factory, ref)["tokens_served"] == 8
        second = acquire(client, factory, "node-a", ref)
        second.return_()
        assert (
            refused(lambda: report(factory, second, 9, AssetUse(ref=ref, tokens_served=8)))[0]
            is grpc.StatusCode.FAILED_PRECONDITION
        )

    def test_counters_stop_where_json_does(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"tokens_served": 100})
        first, second = acquire(client, factory, "node-a", ref), acquire(client, factory, "node-b", ref)
        for lease in (first, second):
            report(factory, lease, 1, AssetUse(ref=ref, tokens_served=budgets.MAX_COUNTER))
        with factory.broker.read() as connection:
            spent = budgets.spent(connection, [ref], job="none")[ref, budgets.ALL_JOBS]
        assert spent["tokens_served"] == budgets.MAX_COUNTER


class TestClock:
    """A clock that is set back refunds nothing and brings nothing to life."""

    def test_it_refunds_nothing(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"key_seconds": 90_000})
        lease = acquire(client, factory, "node-a", ref, lifetime=80_000)
        factory.clock.offset += 500
        Maintenance(factory.broker).sweep()
        factory.clock.offset -= 400
        Maintenance(factory.broker).sweep()
        lease.return_()
        assert total(factory, ref)["key_seconds"] in range(500, 510)

    def test_it_charges_a_renewal_for_what_it_cannot_know(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"key_seconds": 90_000})
        lease = acquire(client, factory, "node-a", ref, lifetime=80_000)
        factory.clock.offset += 500
        lease.renew()
        assert total(factory, ref)["key_seconds"] in range(1_400, 1_410)
        factory.clock.offset -= 500
        lease.renew()
        # All that it was charged for is kept, and its new time comes on top of what was left.
        assert total(factory, ref)["key_seconds"] in range(1_400, 1_410)
        factory.clock.offset += 100
        lease.return_()
        assert total(factory, ref)["key_seconds"] in range(590, 620)

    def test_a_lease_that_was_over_stays_over(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset()
        lease = acquire(client, factory, "node-a", ref, lifetime=80_000)
        factory.clock.offset += 3_700
        lease._monotonic = lambda: 0.0  # the node's clocks stand still
        lease._clock = lambda: 0.0
        assert codes(lease.renew) == {"LEASE_NOT_LIVE"}
        factory.clock.offset -= 3_700
        with factory.broker.read() as connection:
            assert leases.get(connection, lease.lease_id).state is LeaseState.EXPIRED

    def test_what_the_sweep_saw_holds_at_once(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset()
        factory.clock.offset += 4_000
        Maintenance(factory.broker).sweep()
        factory.clock.offset -= 4_000
        lease = acquire(client, factory, "node-a", ref, lifetime=80_000)
        # For the broker this lease's time is over already, as far as anybody knows: the clock was later than its end.
        lease._monotonic = lease._clock = lambda: 0.0
        assert codes(lease.renew) == {"LEASE_NOT_LIVE"}

    def test_the_mark_follows_a_clock_that_ran_ahead(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"key_seconds": 9_000})
        factory.clock.offset += 40_000
        Maintenance(factory.broker).sweep()
        factory.clock.offset -= 40_000
        Maintenance(factory.broker).sweep()
        lease = acquire(client, factory, "node-a", ref)
        lease.renew()
        lease.return_()
        assert total(factory, ref)["key_seconds"] in range(4)

    def test_every_live_lease_keeps_the_instant_that_was_seen(self, factory: Factory, client: Any) -> None:
        ref = factory.register_asset(budgets={"key_seconds": 90_000})
        lease = acquire(client, factory, "node-a", ref, lifetime=80_000)
        factory.clock.offset += 500
        Maintenance(factory.broker).sweep()
        seen = factory.clock()
        factory.clock.offset -= 500
        Maintenance(factory.broker).sweep()
        with factory.broker.read() as connection:
            row = connection.execute(select(LEASE_METER).where(LEASE_METER.c.lease_id == lease.lease_id)).one()
        assert row.seen_at in {seen - 1, seen}
