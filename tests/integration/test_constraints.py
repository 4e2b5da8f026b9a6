"""Constraints through the real broker: what an asset demands is kept from registration to the lease, over all jobs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from calls import read_refusal
from factory import Factory, furnish
from google.protobuf.timestamp_pb2 import Timestamp

import attester
from attester.collect.simulated import SimulatedCollector
from keystead.binding import AssetRef, JobGrant
from keystead.v1 import asset_service_pb2, job_service_pb2

IMAGE = "0b" * 32
DECLARED = {"project": "llm-eu", "user": "alice", "stage": "inference", "image": IMAGE, "network": "fabric"}


def refused(call: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return read_refusal(caught.value)


def names(*values: str) -> dict[str, list[str]]:
    return {"names": list(values)}


def acquire(client: attester.BrokerClient, factory: Factory, node_id: str, *refs: AssetRef) -> attester.Lease:
    """A lease of a job of its own, over a connection that stays open."""
    authorized = factory.authorize(*refs)
    return attester.acquire(
        client,
        SimulatedCollector(factory.nodes[node_id]),
        grant=attester.SignedGrant.from_proto(authorized.grant),
        assets=refs,
        node_id=node_id,
        nonce=authorized.nonce,
    )


@pytest.fixture
def factory(make_factory: Callable[..., Factory]) -> Factory:
    return furnish(make_factory())


def test_constraints_are_kept_and_shown(factory: Factory) -> None:
    full = {
        "sites": names("fra-1"),
        "exposure": {"forbidden": ["FR"]},
        "retain_until": Timestamp(seconds=factory.clock() + 86_400),
        "assurance": 1,
        "node_ceiling": 3,
        "copy_ceiling": 4,
        "projects": names("llm-eu"),
        "users": names("alice", "bob"),
        "stages": names("inference"),
        "images": names(IMAGE),
        "networks": names("fabric", "none"),
        "budgets": {"opens": 7},
        "obligations": {"no_logits": {}, "output_ceiling": {"params": {"tokens": 9}}},
    }
    ref = factory.register_asset("acme/full", **full)
    asset = factory.stubs("acme-owner").assets.GetAsset(asset_service_pb2.GetAssetRequest(asset=ref.asset)).asset
    for name, value in full.items():
        expected = type(asset.constraints)(**{name: value})
        assert getattr(asset.constraints, name) == getattr(expected, name), name
    assert asset.versions[0].constraints == asset.constraints
    # The law that reaches this site's operator is the one that the asset rules out.
    assert refused(lambda: factory.authorize(ref, sites=["fra-1"], **DECLARED)).denied == ("NO_SITE_PERMITTED",)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"purposes": ()}, "purposes"),
        ({"residency": {}}, "residency.allowed"),
        ({"residency": {"allowed": [{"areas": ["EUROPE"]}]}}, "residency.allowed"),
        ({"residency": {"allowed": [{"areas": ["XX-YY"]}]}}, "residency.allowed"),
        ({"residency": {"allowed": [{"areas": ["EU"]}], "forbidden": ["UK"]}}, "residency.forbidden"),
        ({"residency": {"allowed": [{"areas": ["DE", "FR"]}], "forbidden": ["FR"]}}, "residency.forbidden"),
        ({"residency": {"allowed": [{"areas": ["FR"]}], "forbidden": ["EU"]}}, "residency.forbidden"),
        ({"residency": {"allowed": [{"areas": ["EU"]}], "forbidden": ["EEA"]}}, "residency.forbidden"),
        ({"residency": {"allowed": [{"areas": ["EU"]}, {"areas": ["US"]}]}}, "residency"),
        ({"residency": {"allowed": [{"areas": []}]}}, "residency"),
        ({"exposure": {"allowed": [{"areas": ["EUROPE"]}]}}, "exposure.allowed"),
        ({"exposure": {"allowed": [{"areas": ["EU"]}, {"areas": ["US"]}]}}, "exposure"),
        ({"sites": names()}, "sites"),
        ({"sites": names("a b")}, "sites"),
        ({"stages": names("lunch")}, "stages"),
        ({"images": names("sha256:00")}, "images"),
        ({"networks": names("wifi")}, "networks"),
        ({"networks": names("egress"), "obligations": {"no_egress": {}}}, "networks"),
        ({"budgets": {"coffee": 1}}, "budgets"),
        ({"obligations": {"sing": {}}}, "obligations"),
        ({"obligations": {"output_ceiling": {}}}, "obligations.output_ceiling"),
        ({"retain_until": Timestamp(seconds=1)}, "retain_until"),
        ({"classification": 5}, "classification"),
        ({"node_ceiling": 0}, "node_ceiling"),
        ({"assurance": 9}, "assurance"),
        ({"projects": names(*(f"p{number}" for number in range(300)))}, "projects"),
    ],
)
def test_bad_constraints_are_refused_by_their_field(factory: Factory, changes: dict[str, Any], field: str) -> None:
    refusal = refused(lambda: factory.register_asset("acme/bad", **changes))
    assert (refusal.status, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    gone = refused(
        lambda: factory.stubs("acme-owner").assets.GetAsset(asset_service_pb2.GetAssetRequest(asset="acme/bad"))
    )
    assert gone.status is grpc.StatusCode.NOT_FOUND


def test_a_job_must_be_what_the_asset_permits(factory: Factory) -> None:
    ref = factory.register_asset(
        "acme/strict",
        projects=names("llm-eu"),
        users=names("alice"),
        stages=names("inference"),
        images=names(IMAGE),
        networks=names("fabric"),
    )
    assert set(refused(lambda: factory.authorize(ref)).denied) == {
        f"{name}_NOT_PERMITTED" for name in ("PROJECT", "USER", "STAGE", "IMAGE", "NETWORK")
    }
    for name, other in {
        "project": "llm-us",
        "user": "mallory",
        "stage": "training",
        "image": "ff" * 32,
        "network": "egress",
    }.items():
        denied = refused(lambda changes={name: other}: factory.authorize(ref, **(DECLARED | changes))).denied
        assert denied == (f"{name.upper()}_NOT_PERMITTED",)
    authorized = factory.authorize(ref, job_uid="slurm:1", **DECLARED)
    grant = JobGrant.parse(authorized.grant.grant)
    assert {name: getattr(grant, name) for name in DECLARED} == DECLARED
    job = factory.stubs("acme-scheduler").jobs.GetJob(job_service_pb2.GetJobRequest(job_uid="slurm:1")).job
    assert {name: getattr(job, name) for name in DECLARED} == DECLARED
    # The simulated VM was launched with other host data than the image's digest.
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-a", authorized, ref)
    assert {reason.code for reason in caught.value.reasons} == {"IMAGE_NOT_ATTESTED"}


def test_an_image_that_the_hardware_vouches_for_is_released_to(factory: Factory) -> None:
    """A simulated VM's host data are 32 zero bytes; an Attestation Result does not repeat them."""
    image = "00" * 32
    ref = factory.register_asset("acme/strict", images=names(image))
    authorized = factory.authorize(ref, image=image)
    assert factory.acquire("node-a", authorized, ref).terms.node_id == "node-a"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"stage": "lunch"}, "stage"),
        ({"network": "wifi"}, "network"),
        ({"image": "sha256:00"}, "image"),
        ({"project": "a b"}, "project"),
        ({"start_time": Timestamp(seconds=1)}, "start_time"),
        ({"start_time": Timestamp(seconds=1 << 33)}, "start_time"),
    ],
)
def test_bad_declarations_are_refused_by_their_field(factory: Factory, changes: dict[str, Any], field: str) -> None:
    ref = factory.register_asset()
    refusal = refused(lambda: factory.authorize(ref, **changes))
    assert (refusal.status, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


def test_a_grant_may_begin_later(factory: Factory) -> None:
    ref = factory.register_asset()
    authorized = factory.authorize(ref, start_time=Timestamp(seconds=factory.clock() + 600))
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-a", authorized, ref)
    assert {reason.code for reason in caught.value.reasons} == {"GRANT_NOT_YET_VALID"}
    factory.clock.offset += 700
    assert factory.acquire("node-a", authorized, ref).terms.job_uid


def test_assets_that_conflict_are_named(factory: Factory) -> None:
    german = factory.register_asset("acme/german", allowed=("DE",))
    french = factory.register_asset("acme/french", allowed=("FR", "US"))
    either = factory.register_asset("acme/either", allowed=("EU",), purposes=("evaluation",))
    with pytest.raises(attester.AccessDeniedError) as caught:
        try:
            factory.authorize(german, french, either, purposes=["inference"])
        except grpc.RpcError as error:
            raise attester.errors.from_rpc_error(error) from None
    conflicts = {
        reason.field: reason.actual for reason in caught.value.reasons if reason.code == "CONSTRAINTS_CONFLICT"
    }
    assert set(conflicts) == {"assets: residency"}
    assert conflicts["assets: residency"].startswith("acme/french@1 and acme/german@1: ")
    assert "either" not in conflicts["assets: residency"]
    factory.authorize(german, either, purposes=["evaluation"])


def test_the_node_ceiling_holds_over_all_jobs(factory: Factory) -> None:
    """And over all versions: what is scarce is the asset."""
    first = factory.register_asset("acme/scarce", node_ceiling=1)
    second = AssetRef(first.asset, 2)
    factory.add_version(second)
    with factory.client() as client:
        held, again = acquire(client, factory, "node-a", first), acquire(client, factory, "node-a", second)
        for lease in (held, again):
            with pytest.raises(attester.AccessDeniedError) as caught:
                acquire(client, factory, "node-b", first)
            assert {reason.code for reason in caught.value.reasons} == {"ASSET_NODE_CEILING_REACHED"}
            lease.return_()
        assert acquire(client, factory, "node-b", first).terms.node_id == "node-b"


def test_the_copy_ceiling_counts_leases_and_a_renewal_is_none(factory: Factory) -> None:
    ref = factory.register_asset("acme/scarce", copy_ceiling=2)
    with factory.client() as client:
        first, _ = acquire(client, factory, "node-a", ref), acquire(client, factory, "node-a", ref)
        first.renew()
        with pytest.raises(attester.AccessDeniedError) as caught:
            acquire(client, factory, "node-a", ref)
        assert {reason.code for reason in caught.value.reasons} == {"ASSET_COPY_CEILING_REACHED"}
        # A lease that has run out holds nothing, whether or not anybody has marked it yet.
        factory.clock.offset += 4_000
        assert acquire(client, factory, "node-b", ref).terms.node_id == "node-b"


def test_ceilings_are_exact_when_jobs_race(any_factory: Factory) -> None:
    factory = any_factory
    ref = factory.register_asset("acme/scarce", copy_ceiling=3)
    grants = [factory.authorize(ref) for _ in range(10)]

    def attempt(number: int) -> str:
        try:
            factory.acquire(("node-a", "node-b")[number % 2], grants[number], ref)
        except attester.AccessDeniedError as error:
            return ",".join(sorted({reason.code for reason in error.reasons}))
        return "granted"

    with ThreadPoolExecutor(10) as pool:
        outcomes = sorted(pool.map(attempt, range(10)))
    assert outcomes == ["ASSET_COPY_CEILING_REACHED"] * 7 + ["granted"] * 3


def test_obligations_travel_with_the_lease(factory: Factory) -> None:
    first = factory.register_asset(
        "acme/one", obligations={"no_logits": {}, "output_ceiling": {"params": {"tokens": 9}}}
    )
    second = factory.register_asset(
        "acme/two",
        obligations={
            "output_ceiling": {"params": {"tokens": 5, "bytes": 70}},
            "re_attest": {"params": {"seconds": 60}},
        },
    )
    authorized = factory.authorize(first, second)
    with pytest.raises(attester.ObligationError, match="no_logits, output_ceiling"):
        factory.acquire("node-a", authorized, first, second)
    lease = factory.acquire(
        "node-a", factory.authorize(first, second), first, second, fulfils=frozenset({"no_logits", "output_ceiling"})
    )
    duties = {duty.code: duty.params for duty in lease.terms.obligations}
    assert duties["output_ceiling"] == '{"bytes":70,"tokens":5}'
    assert duties["no_logits"] == "{}"
    assert lease.terms.re_attest == 60


def test_an_asset_may_ask_for_more_than_a_simulator(factory: Factory) -> None:
    ref = factory.register_asset("acme/hardware", assurance=2)
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-a", factory.authorize(ref), ref)
    assert {reason.code for reason in caught.value.reasons} == {"ASSURANCE_TOO_LOW"}


def test_retention_ends_a_lease_and_refuses_the_next(factory: Factory) -> None:
    end = factory.clock() + 300
    ref = factory.register_asset("acme/kept", retain_until=Timestamp(seconds=end))
    authorized = factory.authorize(ref)
    assert factory.acquire("node-a", authorized, ref).terms.expires_at <= end
    factory.clock.offset += 400
    assert refused(lambda: factory.authorize(ref)).denied == ("RETENTION_ENDED",)
