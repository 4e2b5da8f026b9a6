"""What another tenant's things look like from here: exactly like things that do not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from calls import Refusal, Session, acquire_request, evidence, refusal, rows
from factory import Factory, request_id
from sqlalchemy import select

from audit.tables import AUDIT_ENTRY
from keybroker import jobs
from keybroker.principals import Principal, Role
from keybroker.store.schema import LEASE, LeaseState
from keystead.binding import AssetRef, hpke_seal, lease_return_message, owner_key_info
from keystead.v1 import asset_service_pb2, attestation_service_pb2, job_service_pb2, lease_service_pb2

Shared = tuple[Factory, AssetRef]


@pytest.fixture
def two(shared: Shared) -> tuple[Factory, AssetRef, AssetRef]:
    """One asset of acme and one of globex."""
    factory, ref = shared
    if "globex/weights@1" not in factory.data_keys:
        factory.register_asset("globex/weights")
    return factory, ref, AssetRef("globex/weights", 1)


def alike(refused: list[tuple[Refusal, str]]) -> None:
    """The refusals differ in nothing but the name that was asked for."""
    shown = {
        (item.status, item.reason, item.field, item.denied, item.message.replace(name, "NAME"))
        for item, name in refused
    }
    assert len(shown) == 1, shown


def wrapped(stub: Any, ref: AssetRef) -> bytes:
    """A data key, rightly wrapped for a version."""
    key = stub.GetWrappingKey(asset_service_pb2.GetWrappingKeyRequest())
    return hpke_seal(b"k" * 32, public_key=key.hpke_key, info=owner_key_info(broker=key.broker, ref=ref, key_id="k"))


CALLS: dict[str, Callable[[Any, str], Any]] = {
    "GetAsset": lambda stubs, name: stubs.assets.GetAsset(asset_service_pb2.GetAssetRequest(asset=name)),
    "RevokeAsset": lambda stubs, name: stubs.assets.RevokeAsset(
        asset_service_pb2.RevokeAssetRequest(request_id=request_id(), asset=name)
    ),
    "AddAssetVersion": lambda stubs, name: stubs.assets.AddAssetVersion(
        asset_service_pb2.AddAssetVersionRequest(
            request_id=request_id(),
            ref={"asset": name, "version": 2},  # type: ignore[arg-type]
            key_id="k",
            manifest_digest=b"m" * 32,
            wrapped_key=wrapped(stubs.assets, AssetRef(name, 2)),
        )
    ),
    "RegisterAsset": lambda stubs, name: stubs.assets.RegisterAsset(
        asset_service_pb2.RegisterAssetRequest(
            request_id=request_id(),
            asset=name,
            kind=asset_service_pb2.ASSET_KIND_MODEL,
            constraints={"purposes": {"names": ["inference"]}, "residency": {"allowed": [{"areas": ["EU"]}]}},  # type: ignore[arg-type]
        )
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_another_tenants_asset_is_as_absent_as_none(two: tuple[Factory, AssetRef, AssetRef], name: str) -> None:
    factory, _, theirs = two
    stubs = factory.stubs("acme-owner")
    before = rows(factory)
    alike(
        [(refusal(lambda asset=asset: CALLS[name](stubs, asset)), asset) for asset in (theirs.asset, "globex/nothing")]
    )
    assert rows(factory) == before
    if name != "RegisterAsset":
        own = refusal(lambda: CALLS[name](stubs, "acme/nothing"))
        alike([(own, "acme/nothing"), (refusal(lambda: CALLS[name](stubs, theirs.asset)), theirs.asset)])


def test_another_tenants_assets_are_not_listed(two: tuple[Factory, AssetRef, AssetRef]) -> None:
    factory, _, _ = two
    for tenant in ("acme", "globex"):
        listed = factory.stubs(f"{tenant}-owner").assets.ListAssets(asset_service_pb2.ListAssetsRequest()).assets
        assert listed
        assert {asset.asset.partition("/")[0] for asset in listed} == {tenant}
    beyond = asset_service_pb2.ListAssetsRequest(page_token="acme/zzz")
    assert not factory.stubs("acme-owner").assets.ListAssets(beyond).assets


def test_a_job_cannot_name_another_tenants_asset(two: tuple[Factory, AssetRef, AssetRef]) -> None:
    factory, _, theirs = two
    refused = []
    for ref in (theirs, AssetRef("globex/nothing", 1), AssetRef("acme/nothing", 1), AssetRef(theirs.asset, 9)):
        with pytest.raises(grpc.RpcError) as caught:
            factory.authorize(ref)
        error = caught.value
        refused.append((refusal(lambda error=error: _raise(error)), str(ref)))
    alike(refused)
    assert refused[0][0].denied == ("ASSET_NOT_FOUND",)
    with factory.broker.read() as connection:
        of_globex = connection.execute(
            select(AUDIT_ENTRY.c.id).where(AUDIT_ENTRY.c.kind == "job.refused", AUDIT_ENTRY.c.tenant == "globex")
        ).all()
    assert not of_globex, "a stranger's attempt is not in globex's part of the log"


def _raise(error: Exception) -> None:
    raise error


def test_another_tenants_job_is_as_absent_as_none(two: tuple[Factory, AssetRef, AssetRef]) -> None:
    factory, _, theirs = two
    factory.authorize(theirs, tenant="globex", job_uid="slurm:secret-run")
    stub = factory.stubs("acme-scheduler").jobs
    names = ("slurm:secret-run", "slurm:no-such-run")
    before = rows(factory)
    alike([(refusal(lambda n=n: stub.GetJob(job_service_pb2.GetJobRequest(job_uid=n))), n) for n in names])
    alike(
        [
            (
                refusal(lambda n=n: stub.EndJob(job_service_pb2.EndJobRequest(request_id=request_id(), job_uid=n))),
                n,
            )
            for n in names
        ]
    )
    assert rows(factory) == before
    theirs_still = factory.stubs("globex-scheduler").jobs.GetJob(
        job_service_pb2.GetJobRequest(job_uid="slurm:secret-run")
    )
    assert theirs_still.job.state == job_service_pb2.JOB_STATE_OPEN


def test_job_ids_belong_to_a_tenant(two: tuple[Factory, AssetRef, AssetRef]) -> None:
    factory, ours, theirs = two
    factory.authorize(theirs, tenant="globex", job_uid="slurm:same")
    factory.authorize(ours, tenant="acme", job_uid="slurm:same")
    for tenant in ("acme", "globex"):
        job = factory.stubs(f"{tenant}-scheduler").jobs.GetJob(job_service_pb2.GetJobRequest(job_uid="slurm:same")).job
        assert (job.tenant, job.assets[0].asset.partition("/")[0]) == (tenant, tenant)


def test_a_grant_opens_its_own_tenants_assets_only(two: tuple[Factory, AssetRef, AssetRef]) -> None:
    """A node of an acme job asks for a globex asset: with acme's grant there is no such asset."""
    factory, ours, theirs = two
    authorized = factory.authorize(ours)
    leases = factory.stubs("node").leases
    refused = []
    for ref in (theirs, AssetRef("globex/nothing", 1)):
        request = acquire_request(factory, "node-a", authorized, ref)
        refused.append((refusal(lambda request=request: leases.AcquireLease(request)), str(ref)))
    alike(refused)
    assert refused[0][0].denied == ("ASSET_NOT_FOUND",)
    both = acquire_request(factory, "node-a", authorized, ours, theirs)
    assert "ASSET_NOT_FOUND" in refusal(lambda: leases.AcquireLease(both)).denied


def test_grants_of_two_tenants_do_not_mix(two: tuple[Factory, AssetRef, AssetRef]) -> None:
    factory, ours, theirs = two
    acme, globex = factory.authorize(ours), factory.authorize(theirs, tenant="globex")
    leases = factory.stubs("node").leases
    request = acquire_request(factory, "node-a", acme, ours)
    request.grant.CopyFrom(globex.grant)
    denied = refusal(lambda: leases.AcquireLease(request)).denied
    assert {"GRANT_MISMATCH", "CHALLENGE_INVALID", "ASSET_NOT_FOUND"} <= set(denied)
    request.grant.grant = acme.grant.grant  # acme's grant with globex's signature
    assert refusal(lambda: leases.AcquireLease(request)).reason == "GRANT_INVALID"


def live_lease(factory: Factory, ref: AssetRef, node_id: str, session: Session, **changes: Any) -> Any:
    """A lease on a node, and its grant."""
    authorized = factory.authorize(ref, **changes)
    request = acquire_request(factory, node_id, authorized, ref, session=session)
    return factory.stubs("node").leases.AcquireLease(request), authorized


def renewal(factory: Factory, node_id: str, answer: Any, authorized: Any, ref: AssetRef, **changes: Any) -> Any:
    """A request to renew a lease."""
    lease_id = changes.pop("lease_id", answer.lease.lease_id)
    return lease_service_pb2.RenewLeaseRequest(
        lease_id=changes.pop("sent", lease_id),
        evidence=evidence(
            factory,
            node_id,
            nonce=changes.pop("nonce", answer.next_nonce),
            grant=authorized.grant.grant,
            refs=(ref,),
            lease_id=lease_id,
            **changes,
        ),
    )


def test_a_lease_is_renewed_by_nobody_else(two: tuple[Factory, AssetRef, AssetRef]) -> None:
    factory, ours, theirs = two
    session, leases = Session(), factory.stubs("node").leases
    answer, authorized = live_lease(factory, ours, "node-a", session)
    mine, my_grant = live_lease(factory, theirs, "node-b", Session(), tenant="globex")
    good = renewal(factory, "node-a", answer, authorized, ours, session=session)
    expiry = answer.lease.expire_time.seconds
    attempts = {
        "NODE_MISMATCH": renewal(factory, "node-b", answer, authorized, ours, session=session),
        "KEY_MISMATCH": renewal(factory, "node-a", answer, authorized, ours, session=Session()),
        "LEASE_MISMATCH": renewal(
            factory,
            "node-a",
            answer,
            authorized,
            ours,
            session=session,
            lease_id=mine.lease.lease_id,
            sent=answer.lease.lease_id,
        ),
        "CHALLENGE_INVALID": renewal(
            factory, "node-a", answer, authorized, ours, session=session, nonce=mine.next_nonce
        ),
        "NONCE_SPENT": renewal(factory, "node-a", answer, authorized, ours, session=session, nonce=authorized.nonce),
        "GRANT_MISMATCH": renewal(factory, "node-a", answer, my_grant, ours, session=session),
        "ASSET_LIST_MISMATCH": renewal(factory, "node-a", answer, authorized, theirs, session=session),
    }
    for code, request in attempts.items():
        assert code in refusal(lambda request=request: leases.RenewLease(request)).denied, code
    unknown = renewal(factory, "node-a", answer, authorized, ours, session=session, lease_id="lease-unknown")
    assert refusal(lambda: leases.RenewLease(unknown)).reason == "NOT_FOUND"
    with factory.broker.read() as connection:
        held = connection.execute(select(LEASE).where(LEASE.c.lease_id == answer.lease.lease_id)).one()
    assert (held.expires_at, held.renewed_count, held.state) == (expiry, 0, LeaseState.LIVE)
    assert leases.RenewLease(good).lease.lease_id == answer.lease.lease_id
    assert leases.RenewLease(good).next_nonce == leases.RenewLease(good).next_nonce


def test_a_lease_ends_with_its_grant_however_often_it_is_renewed(factory: Factory) -> None:
    ref = factory.register_asset()
    session, leases = Session(), factory.stubs("node").leases
    answer, authorized = live_lease(factory, ref, "node-a", session, lifetime=500)
    end = factory.clock() + 500
    for _ in range(3):
        factory.clock.offset += 100
        answer = leases.RenewLease(renewal(factory, "node-a", answer, authorized, ref, session=session))
        assert answer.lease.expire_time.seconds <= end
    factory.clock.offset += 300
    late = renewal(factory, "node-a", answer, authorized, ref, session=session)
    assert {"GRANT_EXPIRED", "LEASE_NOT_LIVE"} <= set(refusal(lambda: leases.RenewLease(late)).denied)


def test_a_stranger_cannot_return_a_lease(two: tuple[Factory, AssetRef, AssetRef]) -> None:
    factory, ours, _ = two
    session, leases = Session(), factory.stubs("node").leases
    answer, _ = live_lease(factory, ours, "node-a", session)
    lease_id = answer.lease.lease_id
    message = lease_return_message(lease_id=lease_id, zeroised=True)
    for signature in (
        b"",
        b"s" * 64,
        Session().signing.sign(message),
        session.signing.sign(lease_return_message(lease_id=lease_id, zeroised=False)),
        session.signing.sign(lease_return_message(lease_id="lease-other", zeroised=True)),
        session.signing.sign(message) + b"\0",
    ):
        request = lease_service_pb2.ReturnLeaseRequest(lease_id=lease_id, zeroised=True, signature=signature)
        refused = refusal(lambda request=request: leases.ReturnLease(request))
        assert (refused.reason, refused.field) == ("INVALID_REQUEST", "signature")
    good = lease_service_pb2.ReturnLeaseRequest(
        lease_id=lease_id, zeroised=True, signature=session.signing.sign(message)
    )
    first = leases.ReturnLease(good)
    assert leases.ReturnLease(good) == first
    nowhere = lease_service_pb2.ReturnLeaseRequest(lease_id="lease-none", signature=b"s" * 64)
    assert refusal(lambda: leases.ReturnLease(nowhere)).reason == "NOT_FOUND"


def test_a_returned_lease_gives_no_keys_again(shared: Shared) -> None:
    factory, ref = shared
    session, leases = Session(), factory.stubs("node").leases
    authorized = factory.authorize(ref)
    request = acquire_request(factory, "node-a", authorized, ref, session=session)
    lease_id = leases.AcquireLease(request).lease.lease_id
    message = lease_return_message(lease_id=lease_id, zeroised=True)
    leases.ReturnLease(
        lease_service_pb2.ReturnLeaseRequest(lease_id=lease_id, zeroised=True, signature=session.signing.sign(message))
    )
    assert "LEASE_NOT_LIVE" in refusal(lambda: leases.AcquireLease(request)).denied


def test_an_uncommitted_grant_opens_nothing(shared: Shared) -> None:
    """A grant counts from the commit of its job: a signature alone, of a call that failed later, is not enough."""
    factory, ref = shared
    authorization = jobs.authorize(
        factory.broker,
        caller=Principal(Role.SCHEDULER, "scheduler", "acme"),
        job_uid="slurm:never",
        refs=[ref],
        purposes=["inference"],
        node_ids=[],
        site_ids=[],
        node_ceiling=1,
        not_after=factory.clock() + 60,
    )
    signed = authorization.signed
    grant = job_service_pb2.JobGrant(grant=signed.grant, signature=signed.signature, key_id=signed.key_id)
    nonce = (
        factory.stubs("node")
        .attestation.GetChallenge(attestation_service_pb2.GetChallengeRequest(grant=signed.grant))
        .nonce
    )
    made = evidence(factory, "node-a", nonce=nonce, grant=signed.grant, refs=(ref,))
    request = lease_service_pb2.AcquireLeaseRequest(
        grant=grant,
        assets=[{"asset": ref.asset, "version": 1}],  # type: ignore[list-item]
        evidence=made,
    )
    refused = refusal(lambda: factory.stubs("node").leases.AcquireLease(request))
    assert refused.reason == "NOT_FOUND"
