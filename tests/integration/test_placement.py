"""Where a job may run: what is told beforehand is what is decided then, and telling spends nothing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from calls import acquire_request, evidence, read_refusal, refusal, rows
from factory import Factory, furnish, request_id, start_factory
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from attestation.simulator.node import SimulatedVendors
from audit.tables import AUDIT_ENTRY
from keybroker.broker import Broker
from keybroker.store.schema import NODE_ATTESTATION
from keystead.binding import AssetRef
from keystead.v1 import (
    attestation_service_pb2,
    job_service_pb2,
    lease_service_pb2,
    node_service_pb2,
)
from keystead.v1 import placement_service_pb2 as pb

IMAGE = "00" * 32
"""What simulated hosts bind to a TEE at launch."""

NODES = ("node-a", "node-b", "node-us")


def plan(factory: Factory, job_uid: str = "", *, tenant: str = "acme", **request: Any) -> Any:
    """The first page of a plan."""
    stub = factory.stubs(f"{tenant}-scheduler").placement
    about = {"job_uid": job_uid} if job_uid else {}
    return stub.PlanPlacement(pb.PlanPlacementRequest(**about, **request))


def by_site(answer: Any) -> dict[str, tuple[int, int, int]]:
    """Nodes, eligible, attested."""
    return {site.site_id: (site.nodes, site.eligible, site.attested) for site in answer.sites}


def told(answer: Any) -> Counter[tuple[str, ...]]:
    """How many nodes there are, by why they are not eligible now."""
    found: Counter[tuple[str, ...]] = Counter()
    for site in answer.sites:
        for group in site.ineligible:
            found[tuple(sorted({reason.code for reason in group.reasons}))] += group.nodes
        found[()] += site.attested
        found[("awaited",)] += site.eligible - site.attested
    return +found


def would(factory: Factory, job_uid: str, node_id: str, *, tenant: str = "acme", **request: Any) -> Any:
    """Whether a node would get a job's keys."""
    stub = factory.stubs(f"{tenant}-scheduler").placement
    return stub.WouldRelease(pb.WouldReleaseRequest(job_uid=job_uid, node_id=node_id, **request))


def codes(answer: Any) -> set[str]:
    """The codes of a dry run's reasons."""
    assert answer.would_release == (not answer.reasons)
    return {reason.code for reason in answer.reasons}


def attest(factory: Factory, node_id: str, **changes: Any) -> set[str]:
    """Let a node attest; the codes of the refusal, if it is refused."""
    stub = factory.stubs("node").attestation
    nonce = stub.GetChallenge(attestation_service_pb2.GetChallengeRequest()).nonce
    made = evidence(factory, node_id, nonce=nonce, grant=None, **changes)
    try:
        stub.Appraise(attestation_service_pb2.AppraiseRequest(evidence=made))
    except grpc.RpcError as error:
        return set(read_refusal(error).denied)
    return set()


def proposal(factory: Factory, *refs: AssetRef, **changes: Any) -> job_service_pb2.AuthorizeJobRequest:
    """A job that nobody has opened."""
    return job_service_pb2.AuthorizeJobRequest(
        job_uid="slurm:thought-of",
        assets=[{"asset": ref.asset, "version": ref.version} for ref in refs],  # type: ignore[misc]
        purposes=changes.pop("purposes", ["inference"]),
        node_ceiling=8,
        expire_time=Timestamp(seconds=factory.clock() + 3_600),
        **changes,
    )


def set_state(factory: Factory, node_id: str, state: int) -> None:
    factory.stubs("operator").nodes.SetNodeState(
        node_service_pb2.SetNodeStateRequest(request_id=request_id(), node_id=node_id, state=state, reason="test")
    )


def set_custody(factory: Factory, node_id: str, custody: int) -> None:
    factory.stubs("operator").nodes.SetNodeCustody(
        node_service_pb2.SetNodeCustodyRequest(request_id=request_id(), node_id=node_id, custody=custody, reason="test")
    )


def test_a_plan_counts_who_would_get_the_keys_and_says_why_the_others_would_not(any_factory: Factory) -> None:
    factory = any_factory
    ref = factory.register_asset()
    authorized = factory.authorize(ref, job_uid="slurm:1")
    for answer in (plan(factory, "slurm:1"), plan(factory, job=proposal(factory, ref))):
        assert by_site(answer) == {"ash-1": (1, 0, 0), "fra-1": (2, 2, 0)}
        assert told(answer) == {("ATTESTATION_MISSING", "JURISDICTION_NOT_PERMITTED"): 1, ("awaited",): 2}
        assert not answer.next_page_token
        assert not answer.reasons

    factory.acquire("node-a", authorized, ref)
    assert attest(factory, "node-us") == set()
    for answer in (plan(factory, "slurm:1"), plan(factory, job=proposal(factory, ref))):
        assert by_site(answer) == {"ash-1": (1, 0, 0), "fra-1": (2, 2, 1)}
        assert told(answer) == {("JURISDICTION_NOT_PERMITTED",): 1, (): 1, ("awaited",): 1}

    ceiling = factory.broker.policies.settings.attestation_age_ceiling
    factory.clock.offset += ceiling + 1
    answer = plan(factory, "slurm:1")
    assert by_site(answer)["fra-1"] == (2, 2, 0)
    assert codes(would(factory, "slurm:1", "node-a")) == {"ATTESTATION_STALE"}
    factory.clock.offset -= ceiling + 1

    set_state(factory, "node-a", node_service_pb2.NODE_STATE_QUARANTINED)
    set_custody(factory, "node-b", node_service_pb2.NODE_CUSTODY_MAINTENANCE)
    assert told(plan(factory, "slurm:1")) == {
        ("JURISDICTION_NOT_PERMITTED",): 1,
        ("NODE_NOT_ACTIVE",): 1,
        ("ATTESTATION_MISSING", "NODE_CUSTODY"): 1,
    }


def test_a_site_without_nodes_says_what_speaks_against_it(factory: Factory) -> None:
    factory.enrol_site("osa-1", "JP")
    ref = factory.register_asset()
    answer = plan(factory, job=proposal(factory, ref), page_token="fra-1")
    (site,) = answer.sites
    assert (site.site_id, site.nodes, site.eligible) == ("osa-1", 0, 0)
    assert {reason.code for reason in site.ineligible[0].reasons} >= {"JURISDICTION_NOT_PERMITTED", "NODE_MISSING"}


def test_plans_are_paged(factory: Factory) -> None:
    ref = factory.register_asset()
    seen, token = [], ""
    for _ in range(3):
        answer = plan(factory, job=proposal(factory, ref), page_size=1, page_token=token)
        seen += [site.site_id for site in answer.sites]
        token = answer.next_page_token
        if not token:
            break
    assert seen == ["ash-1", "fra-1"]
    assert not token


def test_a_job_that_would_not_be_authorized_is_eligible_nowhere(factory: Factory) -> None:
    eu, us = factory.register_asset(), factory.register_asset("acme/us-data", allowed=("US",))
    answer = plan(factory, job=proposal(factory, eu, us))
    assert "CONSTRAINTS_CONFLICT" in {reason.code for reason in answer.reasons}
    assert {site.eligible for site in answer.sites} == {0}
    none = plan(factory, job=proposal(factory, AssetRef("acme/nothing", 1)))
    assert {reason.code for reason in none.reasons} == {"ASSET_NOT_FOUND"}
    assert {site.eligible for site in none.sites} == {0}
    with pytest.raises(grpc.RpcError) as caught:
        factory.authorize(eu, us)
    assert set(read_refusal(caught.value).denied) == {reason.code for reason in answer.reasons}


def test_a_failed_attestation_is_remembered_until_a_good_one(any_factory: Factory) -> None:
    factory = any_factory
    ref = factory.register_asset()
    factory.authorize(ref, job_uid="slurm:1")
    assert attest(factory, "node-a") == set()
    assert would(factory, "slurm:1", "node-a").would_release
    attest(factory, "node-a", claimed="node-b")
    assert codes(would(factory, "slurm:1", "node-a")) == {"NODE_CLAIM_MISMATCH"}
    assert told(plan(factory, "slurm:1"))[("NODE_CLAIM_MISMATCH",)] == 1
    assert attest(factory, "node-a") == set()
    assert would(factory, "slurm:1", "node-a").would_release


def test_evidence_of_another_session_changes_nothing(factory: Factory) -> None:
    """Whoever replays a node's evidence neither makes it look attested nor not."""
    ref = factory.register_asset()
    authorized = factory.authorize(ref, job_uid="slurm:1")
    request = acquire_request(factory, "node-a", authorized, ref)
    other = factory.authorize(ref)
    request.grant.CopyFrom(other.grant)
    assert "GRANT_MISMATCH" in refusal(lambda: factory.stubs("node").leases.AcquireLease(request)).denied
    with factory.broker.read() as connection:
        assert connection.execute(select(NODE_ATTESTATION)).all() == []


def test_a_dry_run_is_recorded_and_does_nothing_else(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = factory.register_asset()
    factory.authorize(ref, job_uid="slurm:1")
    assert attest(factory, "node-a") == set()

    def unwrap(*_: object, **__: object) -> bytes:
        raise AssertionError("a dry run has unwrapped a key")

    monkeypatch.setattr(factory.broker.hierarchy, "unwrap_data_key", unwrap)
    before, recorded = rows(factory), _entries(factory)
    answer = would(factory, "slurm:1", "node-a")
    changed = {name: count - before[name] for name, count in rows(factory).items() if count != before[name]}
    assert answer.would_release
    assert {item.code for item in answer.obligations} == {"lease_ceiling", "re_attest", "zeroise_on_end"}
    assert changed == {}
    assert _entries(factory) == recorded + 1
    with factory.broker.read() as connection:
        entry = connection.execute(select(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_hash == answer.record_hash)).one()
    assert (entry.kind, entry.tenant, entry.job, entry.node) == ("placement.read", "acme", "slurm:1", "node-a")
    plan(factory, "slurm:1")
    assert _entries(factory) == recorded + 1, "a plan writes nothing"


def _entries(factory: Factory) -> int:
    """How many of these questions the log remembers."""
    with factory.broker.read() as connection:
        kinds = connection.execute(select(AUDIT_ENTRY.c.kind)).scalars().all()
    return kinds.count("placement.read")


def test_what_another_tenant_launched_is_not_told(factory: Factory) -> None:
    ref = factory.register_asset(images={"names": [IMAGE]})
    theirs = factory.register_asset("globex/model", images={"names": [IMAGE]})
    for tenant, asset in (("acme", ref), ("globex", theirs)):
        factory.authorize(asset, tenant=tenant, job_uid="slurm:1", image=IMAGE)
    factory.acquire("node-a", factory.authorize(theirs, tenant="globex", image=IMAGE), theirs)
    assert would(factory, "slurm:1", "node-a", tenant="globex").would_release
    assert told(plan(factory, "slurm:1", tenant="globex"))[()] == 1
    mine = would(factory, "slurm:1", "node-a")
    assert codes(mine) == {"IMAGE_NOT_ATTESTED"}
    assert {reason.actual for reason in mine.reasons} == {""}
    assert told(plan(factory, "slurm:1"))[("IMAGE_NOT_ATTESTED",)] == 1
    factory.acquire("node-a", factory.authorize(ref, image=IMAGE), ref)
    assert would(factory, "slurm:1", "node-a").would_release


# --- What is told is what is decided ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory, vendors: SimulatedVendors) -> Iterator[Factory]:
    """A factory in which the agreement is tried over and over."""
    made = furnish(start_factory(tmp_path_factory.mktemp("busy") / "factory", vendors, database=None, edit=str))
    yield made
    made.close()


DEMANDS = st.fixed_dictionaries(
    {"allowed": st.sampled_from([("EU",), ("US",), ("EU", "US"), ("DE",)])},
    optional={
        "forbidden": st.sampled_from([("FR",), ("US",)]),
        "sites": st.sampled_from([{"names": ["fra-1"]}, {"names": ["ash-1", "fra-1"]}]),
        "assurance": st.sampled_from([1, 2, 3]),
        "node_ceiling": st.sampled_from([1, 2]),
        "copy_ceiling": st.sampled_from([1, 2]),
        "projects": st.just({"names": ["llm"]}),
        "networks": st.just({"names": ["none"]}),
    },
).filter(lambda demands: not set(demands["allowed"]) & set(demands.get("forbidden", ())))

JOBS = st.fixed_dictionaries(
    {},
    optional={
        "nodes": st.sets(st.sampled_from(NODES), min_size=1).map(sorted),
        "sites": st.sets(st.sampled_from(["fra-1", "ash-1"]), min_size=1).map(sorted),
        "node_ceiling": st.sampled_from([1, 2]),
        "project": st.sampled_from(["llm", "other"]),
        "network": st.sampled_from(["none", "egress"]),
    },
)

STATES = st.fixed_dictionaries(
    {},
    optional={
        "quarantined": st.sampled_from(NODES),
        "travelling": st.sampled_from(NODES),
        "liar": st.sampled_from(NODES),
        "held": st.sampled_from(NODES),
    },
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(demands=DEMANDS, job=JOBS, states=STATES)
def test_what_is_told_is_what_is_decided(
    busy: Factory, demands: dict[str, Any], job: dict[str, Any], states: dict[str, str]
) -> None:
    factory = busy
    ref = factory.register_asset(f"acme/{request_id()}", **demands)
    try:
        authorized = factory.authorize(ref, job_uid=(uid := f"slurm:{request_id()}"), **job)
    except grpc.RpcError as error:
        refused = set(read_refusal(error).denied)
        answer = plan(factory, job=proposal(factory, ref, **{k: v for k, v in job.items() if k != "node_ceiling"}))
        assert refused
        assert {reason.code for reason in answer.reasons} == refused
        assert {site.eligible for site in answer.sites} == {0}
        return
    leases = factory.stubs("node").leases
    if "held" in states:
        with contextlib.suppress(grpc.RpcError):  # where it is refused, nothing is held
            leases.AcquireLease(acquire_request(factory, states["held"], authorized, ref))
    claims = {node_id: "node-elsewhere" if states.get("liar") == node_id else node_id for node_id in NODES}
    try:
        if "quarantined" in states:
            set_state(factory, states["quarantined"], node_service_pb2.NODE_STATE_QUARANTINED)
        if "travelling" in states:
            set_custody(factory, states["travelling"], node_service_pb2.NODE_CUSTODY_IN_TRANSIT)
        for node_id in NODES:
            attest(factory, node_id, claimed=claims[node_id])
        foretold = {node_id: codes(would(factory, uid, node_id)) for node_id in NODES}
        planned = told(plan(factory, uid))
        assert planned == Counter(tuple(sorted(each)) for each in foretold.values())
        for node_id in NODES:
            nonce = factory.stubs("node").attestation.GetChallenge(
                attestation_service_pb2.GetChallengeRequest(grant=authorized.grant.grant)
            )
            request = lease_service_pb2.AcquireLeaseRequest(
                grant=authorized.grant,
                assets=[{"asset": ref.asset, "version": ref.version}],  # type: ignore[list-item]
                evidence=evidence(
                    factory,
                    node_id,
                    nonce=nonce.nonce,
                    grant=authorized.grant.grant,
                    refs=(ref,),
                    claimed=claims[node_id],
                ),
            )
            # Each granted lease changes what the next node is asked about, so it is foretold anew.
            expected = codes(would(factory, uid, node_id))
            try:
                leases.AcquireLease(request)
                decided: set[str] = set()
            except grpc.RpcError as error:
                decided = set(read_refusal(error).denied)
            assert decided == expected, node_id
    finally:
        factory.stubs("acme-scheduler").jobs.EndJob(job_service_pb2.EndJobRequest(request_id=request_id(), job_uid=uid))
        if "quarantined" in states:
            set_state(factory, states["quarantined"], node_service_pb2.NODE_STATE_ACTIVE)
        if "travelling" in states:
            set_custody(factory, states["travelling"], node_service_pb2.NODE_CUSTODY_INSTALLED)


def test_what_was_appraised_under_another_policy_is_no_appraisal(
    factory: Factory,
) -> None:
    ref = factory.register_asset()
    factory.authorize(ref, job_uid="slurm:1")
    attest(factory, "node-a")
    assert would(factory, "slurm:1", "node-a").would_release
    with factory.broker.read() as connection:
        assert len(connection.execute(select(NODE_ATTESTATION)).all()) == 1
    _forge_policy(factory.broker)
    assert codes(would(factory, "slurm:1", "node-a")) == {"ATTESTATION_MISSING"}
    assert by_site(plan(factory, "slurm:1"))["fra-1"] == (2, 2, 0)


def _forge_policy(broker: Broker) -> None:
    """What a broker finds that starts again under another appraisal policy."""
    broker.commit(lambda connection: connection.execute(NODE_ATTESTATION.update().values(policy_digest=bytes(32))))
