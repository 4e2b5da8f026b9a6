"""Lineage through the real broker: what a job makes inherits from what it was granted, and nobody can say otherwise."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from calls import Session, acquire_request, read_refusal, refusal, rows
from factory import Factory, recorded, request_id

import attester
from attester.collect.simulated import SimulatedCollector
from audit.records import Record
from keybroker.constraints import Constraints, join, relaxes
from keybroker.services.convert import constraints as read_constraints
from keystead.binding import AssetRef, hpke_seal, lease_return_message, output_message, owner_key_info
from keystead.v1 import (
    asset_service_pb2,
    attestation_service_pb2,
    job_service_pb2,
    lease_service_pb2,
    lineage_service_pb2,
)

CHECKPOINT = asset_service_pb2.ASSET_KIND_CHECKPOINT
UP, DOWN = lineage_service_pb2.LINEAGE_DIRECTION_UP, lineage_service_pb2.LINEAGE_DIRECTION_DOWN


def message(ref: AssetRef) -> dict[str, Any]:
    return {"asset": ref.asset, "version": ref.version}


def output_request(factory: Factory, profile: str, ref: AssetRef, **source: Any) -> Any:
    """A request to register an output whose data key is rightly wrapped."""
    key = factory.stubs(profile).assets.GetWrappingKey(asset_service_pb2.GetWrappingKeyRequest())
    wrapped = hpke_seal(
        os.urandom(32), public_key=key.hpke_key, info=owner_key_info(broker=key.broker, ref=ref, key_id="k1")
    )
    new = {"new_asset": {"kind": CHECKPOINT, "constraints": ""}} if ref.version == 1 else {}
    return lineage_service_pb2.RegisterOutputRequest(
        **(
            {
                "request_id": request_id(),
                "ref": message(ref),
                "key_id": "k1",
                "manifest_digest": b"o" * 32,
                "wrapped_key": wrapped,
            }
            | new
            | source
        )
    )


def signed(request: Any, lease_id: str, session: Session) -> Any:
    """The request as a node sends it: signed by the session's key for that lease."""
    has_new = request.HasField("new_asset")
    data = output_message(
        lease_id=lease_id,
        ref=AssetRef(request.ref.asset, request.ref.version),
        key_id=request.key_id,
        manifest_digest=request.manifest_digest,
        wrapped_key=request.wrapped_key,
        kind="checkpoint" if has_new else "",
        constraints=request.new_asset.constraints if has_new else "",
    )
    request.lease.lease_id = lease_id
    request.lease.signature = session.signing.sign(data)
    return request


def lease(factory: Factory, authorized: Any, *refs: AssetRef, node_id: str = "node-a") -> tuple[str, Session]:
    """A lease of a job."""
    session = Session()
    request = acquire_request(factory, node_id, authorized, *refs, session=session)
    return factory.stubs("node").leases.AcquireLease(request).lease.lease_id, session


@pytest.fixture
def open_client(any_factory: Factory) -> Iterator[Callable[[], attester.BrokerClient]]:
    """A node's connection that stays open as long as the test."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(any_factory.client())


def hold(client: attester.BrokerClient, factory: Factory, ref: AssetRef, node_id: str = "node-b") -> attester.Lease:
    """A lease that can be renewed, of a job of its own."""
    authorized = factory.authorize(ref)
    return attester.acquire(
        client,
        SimulatedCollector(factory.nodes[node_id]),
        grant=attester.SignedGrant.from_proto(authorized.grant),
        assets=[ref],
        node_id=node_id,
        nonce=authorized.nonce,
    )


def made(factory: Factory, name: str, *parents: AssetRef) -> AssetRef:
    """What a job that was granted `parents` made, registered by its scheduler."""
    job = f"slurm:{name}"
    lease(factory, factory.authorize(*parents, job_uid=job), *parents)
    ref = AssetRef(name, 1)
    factory.stubs("acme-scheduler").lineage.RegisterOutput(output_request(factory, "acme-scheduler", ref, job_uid=job))
    return ref


def constraints(factory: Factory, ref: AssetRef) -> Constraints:
    """What a version demands."""
    owner = factory.stubs(f"{ref.asset.partition('/')[0]}-owner")
    asset = owner.assets.GetAsset(asset_service_pb2.GetAssetRequest(asset=ref.asset)).asset
    return read_constraints(asset.versions[ref.version - 1].constraints)


def records(factory: Factory, kind: str) -> list[Record]:
    """The records of a kind, oldest first."""
    with factory.broker.read() as connection:
        return recorded(connection, kind)


def lineage(factory: Factory, ref: AssetRef, direction: Any, profile: str = "acme-owner") -> set[tuple[str, str]]:
    """The steps above or below a version: child and parent."""
    answer = factory.stubs(profile).lineage.GetLineage(
        lineage_service_pb2.GetLineageRequest(asset=ref.asset, version=ref.version, direction=direction)
    )
    assert not answer.truncated
    nodes = {f"{node.ref.asset}@{node.ref.version}" for node in answer.nodes}
    steps = {
        (f"{edge.child.asset}@{edge.child.version}", f"{edge.parent.asset}@{edge.parent.version}")
        for edge in answer.edges
    }
    assert {name for step in steps for name in step} | {str(ref)} == nodes
    return steps


def test_an_output_inherits_from_everything_that_was_granted(any_factory: Factory) -> None:
    factory = any_factory
    model = factory.register_asset("acme/base", allowed=("EU",), obligations={"no_logits": {}})
    notes = factory.register_asset(
        "acme/notes", allowed=("FR", "US"), classification=2, purposes=("inference",), budgets={"opens": 5}
    )
    ref = made(factory, "acme/tuned", model, notes)
    inherited = join(constraints(factory, model), constraints(factory, notes))
    assert constraints(factory, ref) == inherited
    assert inherited.classification == 4
    assert inherited.purposes == {"inference"}
    asset = factory.stubs("acme-owner").assets.GetAsset(asset_service_pb2.GetAssetRequest(asset=ref.asset)).asset
    assert asset.kind == CHECKPOINT
    assert lineage(factory, ref, UP) == {(str(ref), str(model)), (str(ref), str(notes))}
    (record,) = records(factory, "asset.output-registered")
    assert set(record.assets) == {str(ref), str(model), str(notes)}
    assert (record.detail["output"], record.job, record.tenant) == (str(ref), "slurm:acme/tuned", "acme")
    # What is made of it inherits through it; the lineage goes all the way.
    again = made(factory, "acme/again", ref)
    assert constraints(factory, again) == inherited
    assert lineage(factory, again, UP) == {(str(again), str(ref)), (str(ref), str(model)), (str(ref), str(notes))}
    assert lineage(factory, model, DOWN) == {(str(again), str(ref)), (str(ref), str(model))}
    assert lineage(factory, model, UP) == set()
    # And it can be opened under what it inherited.
    with pytest.raises(grpc.RpcError) as caught:
        factory.authorize(again, sites=["ash-1"])
    assert "NO_SITE_PERMITTED" in read_refusal(caught.value).denied


def test_a_job_cannot_leave_a_parent_out(factory: Factory) -> None:
    """Whatever became of a lease, and whichever of them the node speaks by."""
    first, second, third = (factory.register_asset(f"acme/part{number}") for number in (1, 2, 3))
    authorized = factory.authorize(first, second, third, job_uid="slurm:parts")
    lease_id, session = lease(factory, authorized, first)
    data = lease_return_message(lease_id=lease_id, zeroised=True)
    node = factory.stubs("node")
    node.leases.ReturnLease(
        lease_service_pb2.ReturnLeaseRequest(lease_id=lease_id, zeroised=True, signature=session.signing.sign(data))
    )
    nonce = node.attestation.GetChallenge(
        attestation_service_pb2.GetChallengeRequest(grant=authorized.grant.grant)
    ).nonce
    request = acquire_request(factory, "node-a", authorized, second, session=(other := Session()), nonce=nonce)
    live = node.leases.AcquireLease(request).lease.lease_id
    ref = AssetRef("acme/whole", 1)
    answer = node.lineage.RegisterOutput(signed(output_request(factory, "node", ref), live, other))
    # The third was in the grant, but no lease for it was ever given.
    assert [parent.asset for parent in answer.parents] == [first.asset, second.asset]
    edges = factory.stubs("acme-owner").lineage.GetLineage(
        lineage_service_pb2.GetLineageRequest(asset=ref.asset, direction=UP)
    )
    assert {(edge.parent.asset, edge.lease_id) for edge in edges.edges} == {
        (first.asset, lease_id),
        (second.asset, live),
    }
    (record,) = records(factory, "asset.output-registered")
    assert (record.lease, record.actor.role) == (live, "node")


def test_a_node_speaks_for_its_own_lease_only(factory: Factory) -> None:
    ours, theirs = factory.register_asset(), factory.register_asset("acme/other")
    lease_id, session = lease(factory, factory.authorize(ours, job_uid="slurm:a"), ours)
    other_id, other = lease(factory, factory.authorize(theirs, job_uid="slurm:b"), theirs, node_id="node-b")
    node = factory.stubs("node").lineage
    before = rows(factory)
    ref = AssetRef("acme/out", 1)

    def attempt(change: Callable[[Any], None], by: Session = session, of: str = lease_id) -> tuple[str, str]:
        request = signed(output_request(factory, "node", ref), of, by)
        change(request)
        refused = refusal(lambda: node.RegisterOutput(request))
        return refused.reason, refused.field

    def put(**fields: Any) -> Callable[[Any], None]:
        return lambda request: [setattr(request, name, value) for name, value in fields.items()] and None

    wrong = ("INVALID_REQUEST", "lease.signature")
    assert attempt(put(), by=other) == wrong
    assert attempt(put(), by=session, of=other_id) == wrong
    assert attempt(lambda request: setattr(request.lease, "lease_id", other_id)) == wrong
    assert attempt(put(manifest_digest=b"x" * 32)) == wrong
    assert attempt(put(key_id="k2")) == wrong
    assert attempt(lambda request: setattr(request.ref, "asset", "acme/elsewhere")) == wrong
    assert attempt(lambda request: setattr(request.new_asset, "kind", asset_service_pb2.ASSET_KIND_MODEL)) == wrong
    assert attempt(lambda request: setattr(request.new_asset, "constraints", "{}")) == wrong
    assert attempt(lambda request: request.ClearField("new_asset")) == wrong
    assert attempt(lambda request: setattr(request.lease, "lease_id", "lease-none"))[0] == "NOT_FOUND"
    assert attempt(put(job_uid="slurm:a")) == ("INVALID_REQUEST", "lease")
    assert rows(factory) == before
    # Another tenant's asset is none.
    request = signed(output_request(factory, "node", AssetRef("globex/out", 1)), lease_id, session)
    assert refusal(lambda: node.RegisterOutput(request)).reason == "NOT_FOUND"
    # A lease that is over speaks no more.
    request = signed(output_request(factory, "node", ref), lease_id, session)
    factory.clock.offset += 4_000
    assert refusal(lambda: node.RegisterOutput(request)).reason == "STATE_CONFLICT"
    factory.clock.offset = 0
    factory.stubs("acme-scheduler").jobs.EndJob(
        job_service_pb2.EndJobRequest(request_id=request_id(), job_uid="slurm:a")
    )
    assert refusal(lambda: node.RegisterOutput(request)).reason == "STATE_CONFLICT"


def test_a_scheduler_speaks_for_its_tenants_jobs_only(factory: Factory) -> None:
    ref = factory.register_asset()
    authorized = factory.authorize(ref, job_uid="slurm:mine")
    stub = factory.stubs("acme-scheduler").lineage
    out = AssetRef("acme/out", 1)

    def request(**changes: Any) -> Any:
        return output_request(factory, "acme-scheduler", out, **({"job_uid": "slurm:mine"} | changes))

    assert refusal(lambda: stub.RegisterOutput(request())).reason == "NOTHING_GRANTED"
    assert refusal(lambda: stub.RegisterOutput(request(job_uid="slurm:none"))).reason == "NOT_FOUND"
    lease(factory, authorized, ref)
    strange = factory.stubs("globex-scheduler").lineage
    assert refusal(lambda: strange.RegisterOutput(request())).reason == "NOT_FOUND"
    foreign = output_request(factory, "acme-scheduler", AssetRef("globex/out", 1), job_uid="slurm:mine")
    assert refusal(lambda: stub.RegisterOutput(foreign)).reason == "NOT_FOUND"
    raw = request(new_asset={"kind": asset_service_pb2.ASSET_KIND_DATASET})
    assert refusal(lambda: stub.RegisterOutput(raw)).field == "new_asset.kind"
    taken = output_request(factory, "acme-scheduler", AssetRef("acme/llama", 2), job_uid="slurm:mine")
    taken.new_asset.kind = CHECKPOINT
    assert refusal(lambda: stub.RegisterOutput(taken)).reason == "ALREADY_EXISTS"
    same = output_request(factory, "acme-scheduler", ref, job_uid="slurm:mine")
    same.ClearField("new_asset")
    assert refusal(lambda: stub.RegisterOutput(same)).reason == "LINEAGE_CYCLE"
    skipped = output_request(factory, "acme-scheduler", AssetRef(ref.asset, 3), job_uid="slurm:mine")
    assert refusal(lambda: stub.RegisterOutput(skipped)).field == "ref.version"
    missing = output_request(factory, "acme-scheduler", out, job_uid="slurm:mine")
    missing.ClearField("new_asset")
    assert refusal(lambda: stub.RegisterOutput(missing)).reason == "NOT_FOUND"
    # A new version of what the job was granted is fine: assets may turn, versions may not. Ended jobs count, too.
    factory.stubs("acme-scheduler").jobs.EndJob(
        job_service_pb2.EndJobRequest(request_id=request_id(), job_uid="slurm:mine")
    )
    following = output_request(factory, "acme-scheduler", AssetRef(ref.asset, 2), job_uid="slurm:mine")
    first = stub.RegisterOutput(following)
    assert stub.RegisterOutput(following) == first
    assert lineage(factory, AssetRef(ref.asset, 2), UP) == {(f"{ref.asset}@2", str(ref))}


def test_a_caller_may_ask_for_more_but_not_for_less(factory: Factory) -> None:
    ref = factory.register_asset("acme/source", allowed=("EU",), classification=3)
    lease(factory, factory.authorize(ref, job_uid="slurm:x"), ref)
    stub = factory.stubs("acme-scheduler").lineage

    def register(name: str, text: str) -> Any:
        request = output_request(factory, "acme-scheduler", AssetRef(name, 1), job_uid="slurm:x")
        request.new_asset.constraints = text
        return stub.RegisterOutput(request)

    free = '{"purposes":["evaluation","inference","training"],"residency":{"allowed":[["*"]]}}'
    version = read_constraints(register("acme/freer", free).version.constraints)
    assert version == constraints(factory, ref)
    strict = '{"classification":4,"purposes":["inference"],"residency":{"allowed":[["FR"]]}}'
    version = read_constraints(register("acme/stricter", strict).version.constraints)
    assert (version.classification, version.purposes) == (4, {"inference"})
    assert relaxes(constraints(factory, ref), version) == []
    impossible = '{"purposes":["inference"],"residency":{"allowed":[["US"]]}}'
    refused = refusal(lambda: register("acme/nowhere", impossible))
    assert (refused.status, refused.denied) == (grpc.StatusCode.PERMISSION_DENIED, ("CONSTRAINTS_CONFLICT",))
    (record,) = records(factory, "asset.output-refused")
    assert record.reasons == ("CONSTRAINTS_CONFLICT",)
    assert record.detail["output"] == "acme/nowhere@1"
    for text in ("{", '{"classification": 4}', '{"purposes":["inference"]}'):
        assert refusal(lambda text=text: register("acme/bad", text)).status is grpc.StatusCode.INVALID_ARGUMENT


def test_owners_declare_parents_and_never_take_them_back(
    any_factory: Factory, open_client: Callable[[], attester.BrokerClient]
) -> None:
    factory = any_factory
    source = factory.register_asset("acme/source", allowed=("FR",))
    hand = factory.register_asset("acme/hand", allowed=("EU",))
    child = made(factory, "acme/child", hand)
    owner = factory.stubs("acme-owner")

    def declare(ref: AssetRef, *parents: AssetRef) -> Any:
        return owner.lineage.DeclareParents(
            lineage_service_pb2.DeclareParentsRequest(
                request_id=request_id(), ref=message(ref), parents=[message(each) for each in parents]
            )
        )

    for ref, parents, reason in (
        (hand, (hand,), "LINEAGE_CYCLE"),
        (hand, (child,), "LINEAGE_CYCLE"),
        (hand, (AssetRef("acme/none", 1),), "NOT_FOUND"),
        (hand, (AssetRef("globex/none", 1),), "NOT_FOUND"),
        (hand, (AssetRef("acme/source", 9),), "NOT_FOUND"),
        (AssetRef("acme/none", 1), (source,), "NOT_FOUND"),
        (hand, (), "INVALID_REQUEST"),
        (hand, (source, source), "INVALID_REQUEST"),
    ):
        assert refusal(lambda ref=ref, parents=parents: declare(ref, *parents)).reason == reason, (ref, parents)
    far = factory.register_asset("acme/far", allowed=("US",))
    assert refusal(lambda: declare(hand, far)).denied == ("CONSTRAINTS_CONFLICT",)
    client = open_client()
    held = hold(client, factory, child)
    answer = declare(hand, source)
    assert {each.asset for each in answer.tightened} == {hand.asset, child.asset}
    assert constraints(factory, child).residency == constraints(factory, hand).residency
    assert frozenset({"FR"}) in constraints(factory, child).residency.allowed
    # France is where the holder is: its lease goes on.
    assert answer.revoked_leases == 0
    held.renew()
    # Once more changes nothing.
    assert not declare(hand, source).tightened
    assert lineage(factory, child, UP) == {(str(child), str(hand)), (str(hand), str(source))}


def test_a_version_by_hand_may_name_its_parents(factory: Factory) -> None:
    source = factory.register_asset("acme/source", allowed=("FR",), classification=2)
    factory.register_asset("acme/hand", allowed=("EU",), classification=1)
    owner = factory.stubs("acme-owner").assets

    def add(version: int, *parents: AssetRef) -> Any:
        ref = AssetRef("acme/hand", version)
        base = output_request(factory, "acme-owner", ref)
        return owner.AddAssetVersion(
            asset_service_pb2.AddAssetVersionRequest(
                request_id=request_id(),
                ref=message(ref),
                key_id="k1",
                manifest_digest=b"m" * 32,
                wrapped_key=base.wrapped_key,
                parents=[message(each) for each in parents],
            )
        )

    assert refusal(lambda: add(2, AssetRef("acme/hand", 2))).reason == "LINEAGE_CYCLE"
    assert refusal(lambda: add(2, AssetRef("acme/none", 1))).reason == "NOT_FOUND"
    version = add(2, source, AssetRef("acme/hand", 1)).version
    assert read_constraints(version.constraints) == join(
        constraints(factory, source), constraints(factory, AssetRef("acme/hand", 1))
    )
    owner.RevokeAsset(asset_service_pb2.RevokeAssetRequest(request_id=request_id(), asset=source.asset))
    assert refusal(lambda: add(3, source)).denied == ("ASSET_REVOKED",)


def test_what_was_derived_is_revoked_with_it_where_the_owner_says_so(
    any_factory: Factory, open_client: Callable[[], attester.BrokerClient]
) -> None:
    factory = any_factory
    root = factory.register_asset("acme/root")
    other = factory.register_asset("acme/other")
    child = made(factory, "acme/child", root, other)
    grandchild = made(factory, "acme/grandchild", child)
    apart = made(factory, "acme/apart", other)
    client = open_client()
    held = {ref: hold(client, factory, ref) for ref in (grandchild, apart)}
    late = factory.authorize(child, job_uid="slurm:late")
    lease(factory, late, child)
    owner = factory.stubs("acme-owner").assets
    answer = owner.RevokeAsset(
        asset_service_pb2.RevokeAssetRequest(request_id=request_id(), asset=root.asset, descendants=True)
    )
    assert {each.asset for each in answer.descendants} == {child.asset, grandchild.asset}
    for ref in (root, child, grandchild):
        with pytest.raises(grpc.RpcError) as caught:
            factory.authorize(ref)
        assert "ASSET_REVOKED" in read_refusal(caught.value).denied
    factory.authorize(other)
    held[apart].renew()
    with pytest.raises(attester.AccessDeniedError, match="LEASE_NOT_LIVE"):
        held[grandchild].renew()
    # What a job makes of what was revoked meanwhile does not slip through.
    request = output_request(factory, "acme-scheduler", AssetRef("acme/slipped", 1), job_uid="slurm:late")
    assert refusal(lambda: factory.stubs("acme-scheduler").lineage.RegisterOutput(request)).denied == ("ASSET_REVOKED",)
    revoked = records(factory, "asset.revoked")
    assert [record.detail.get("derived_from", record.detail.get("asset")) for record in revoked] == [root.asset] * 2


def test_lineage_stays_within_its_tenant(factory: Factory) -> None:
    ref = factory.register_asset()
    child = made(factory, "acme/child", ref)
    stub = factory.stubs("globex-owner").lineage
    seen = {
        refusal(
            lambda name=name: stub.GetLineage(lineage_service_pb2.GetLineageRequest(asset=name, direction=UP))
        ).message.replace(name, "NAME")
        for name in (child.asset, "acme/none", "globex/none")
    }
    assert len(seen) == 1
    assert lineage(factory, child, UP, "acme-scheduler") == {(str(child), str(ref))}


def test_an_output_never_misses_a_lease_that_races_it(any_factory: Factory) -> None:
    """Leases and registrations of one job: each output has every lease that was committed before it."""
    factory = any_factory
    parts = [factory.register_asset(f"acme/race{number}") for number in range(4)]
    authorized = factory.authorize(*parts, job_uid="slurm:race")
    requests = [acquire_request(factory, "node-a", authorized, parts[0])]
    for part in parts[1:]:
        nonce = (
            factory.stubs("node")
            .attestation.GetChallenge(attestation_service_pb2.GetChallengeRequest(grant=authorized.grant.grant))
            .nonce
        )
        requests.append(acquire_request(factory, "node-a", authorized, part, nonce=nonce))
    node, scheduler = factory.stubs("node"), factory.stubs("acme-scheduler")
    outputs = [
        output_request(factory, "acme-scheduler", AssetRef(f"acme/raced{number}", 1), job_uid="slurm:race")
        for number in range(4)
    ]
    node.leases.AcquireLease(requests[0])
    with ThreadPoolExecutor(8) as pool:
        leasing = [pool.submit(node.leases.AcquireLease, request) for request in requests[1:]]
        answers = [pool.submit(scheduler.lineage.RegisterOutput, request) for request in outputs]
        for future in leasing:
            future.result()
        inherited = [{parent.asset for parent in future.result().parents} for future in answers]
    order = [record for kind in ("lease.granted", "asset.output-registered") for record in records(factory, kind)]
    assert len(order) == 8
    with factory.broker.read() as connection:
        seen: set[str] = set()
        for record in recorded(connection, "lease.granted", "asset.output-registered"):
            if record.kind.value == "lease.granted":
                seen |= {AssetRef.parse(text).asset for text in record.assets}
            else:
                output = AssetRef.parse(str(record.detail["output"])).asset
                parents = {AssetRef.parse(text).asset for text in record.assets} - {output}
                assert parents == inherited[int(output[-1])]
                # Records of one job are written under its lock, so that their order is the commits'.
                assert parents == seen


def test_the_sdk_registers_what_a_node_made(factory: Factory) -> None:
    ref, key = factory.register_asset(), os.urandom(32)
    out = AssetRef("acme/sdk-checkpoint", 1)
    with factory.client() as client:
        with hold(client, factory, ref) as held:
            for wrong in ({"kind": "dataset"}, {"kind": "soup"}):
                with pytest.raises(attester.AttesterError, match="a job can make"):
                    attester.register_output(held, out, data_key=key, manifest_digest=b"m" * 32, **wrong)
            made = attester.register_output(held, str(out), data_key=key, manifest_digest=b"m" * 32, kind="checkpoint")
            assert made == attester.Output(out, (ref,))
            attester.register_output(held, AssetRef(out.asset, 2), data_key=key, manifest_digest=b"n" * 32)
        with pytest.raises(attester.LeaseEndedError):
            attester.register_output(held, AssetRef(out.asset, 3), data_key=key, manifest_digest=b"m" * 32)
        # What was made can be opened with that very key, on a lease of its own.
        with hold(client, factory, out) as opened:
            assert opened.assets == (out,)
