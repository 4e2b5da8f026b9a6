"""Every call of the contract: what it says of another tenant's things is what it says of things that do not exist.

Byte for byte, but for the name that was asked for, and by as many statements in the database: a difference in either
would tell one tenant about another. A call that is not in `TABLE` must be in `EXEMPT`, with the reason.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from calls import CONTRACT, Session, acquire_request, add_client, evidence
from factory import Factory, furnish, request_id, start_factory
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from sqlalchemy import event, func, select

from attestation.simulator.node import SimulatedVendors
from audit.tables import AUDIT_ENTRY
from keybroker.principals import Principal, Role
from keystead.binding import AssetRef, hpke_seal, owner_key_info
from keystead.v1 import (
    asset_service_pb2,
    attestation_service_pb2,
    audit_service_pb2,
    declassification_service_pb2,
    denial_pb2,
    job_service_pb2,
    lease_service_pb2,
    lineage_service_pb2,
)
from keystead.v1 import placement_service_pb2 as placement_pb

THEIRS, ABSENT = "globex/weights", "globex/nothing"
THEIR_JOB, ABSENT_JOB = "slurm:theirs", "slurm:absent"

EXEMPT = {
    "GetWrappingKey": "names nothing",
    "ListAssets": "names nothing; test_tenancy has what it lists",
    "Appraise": "nodes belong to the factory, and a grant is not looked up",
    "GetChallenge": "a grant is not looked up",
    "GetCheckpoint": "public: the log's size is everybody's",
    "RenewLease": "by a node, which belongs to the factory; test_tenancy has what it takes",
    "ReportUsage": "by a node, which belongs to the factory, and signed by the lease's own key",
    "ReturnLease": "by a node, which belongs to the factory; test_tenancy has what it takes",
    "SetApprovers": "names nothing but its own tenant",
    "GetApprovers": "names nothing",
    "ProposeDeclassification": "names what its statement does; test_declassification has another tenant's",
    "ApplyDeclassification": "names what its statement does; test_declassification has another tenant's",
    "EnrolSite": "by an operator",
    "RenewSite": "by an operator",
    "SuspendSite": "by an operator",
    "GetSite": "sites belong to the factory",
    "ListSites": "sites belong to the factory",
    "EnrolNode": "by an operator",
    "SetNodeState": "by an operator",
    "SetNodeCustody": "by an operator",
    "MoveNode": "by an operator",
    "ChangeNodeDevices": "by an operator",
    "ImportNodes": "by an operator",
    "ListNodes": "nodes belong to the factory",
    "EraseRecords": "by an operator",
}


@dataclass(frozen=True)
class Two:
    """A factory of two tenants, and what globex has in it.

    Attributes:
        factory: the factory.
        ours: an asset of acme.
        job: a job of acme's with the grant that its nodes hold.
        their_index, their_hash: of a record of globex's that rests on an appraisal.
        their_lease: a lease of globex's.
    """

    factory: Factory
    ours: AssetRef
    job: Any
    their_index: int
    their_hash: bytes
    their_lease: str

    @property
    def beyond(self) -> int:
        """An index that the log has not reached."""
        return self.their_index + 100_000

    def stubs(self, role: str) -> Any:
        """acme's client in a role."""
        if role == "auditor":
            return self.factory.stubs(add_client(self.factory, Principal(Role.AUDITOR, "auditor", "acme")))
        return self.factory.stubs(role if role == "node" else f"acme-{role}")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, vendors: SimulatedVendors) -> Iterator[Two]:
    factory = furnish(start_factory(tmp_path_factory.mktemp("two") / "factory", vendors, database=None, edit=str))
    ours = factory.register_asset()
    theirs = factory.register_asset(THEIRS, node_ceiling=2, copy_ceiling=2)
    granted = factory.authorize(theirs, tenant="globex", job_uid=THEIR_JOB)
    request = acquire_request(factory, "node-a", granted, theirs, session=Session())
    lease = factory.stubs("node").leases.AcquireLease(request)
    factory.broker.sequencer.run_once(factory.clock())
    with factory.broker.read() as connection:
        entry = connection.execute(
            select(AUDIT_ENTRY.c.leaf_index, AUDIT_ENTRY.c.leaf_hash).where(
                AUDIT_ENTRY.c.kind == "lease.granted", AUDIT_ENTRY.c.tenant == "globex"
            )
        ).one()
        assert connection.execute(select(func.count()).select_from(AUDIT_ENTRY)).scalar_one() < 100_000
    yield Two(
        factory,
        ours,
        factory.authorize(ours, job_uid="slurm:ours"),
        entry.leaf_index,
        bytes(entry.leaf_hash),
        lease.lease.lease_id,
    )
    factory.close()


def wrapped(two: Two, name: str) -> bytes:
    key = two.stubs("owner").assets.GetWrappingKey(asset_service_pb2.GetWrappingKeyRequest())
    info = owner_key_info(broker=key.broker, ref=AssetRef(name, 2), key_id="k")
    return hpke_seal(b"k" * 32, public_key=key.hpke_key, info=info)


def proposal(two: Two, name: str) -> job_service_pb2.AuthorizeJobRequest:
    return job_service_pb2.AuthorizeJobRequest(
        job_uid="slurm:new",
        assets=[{"asset": name, "version": 1}],  # type: ignore[list-item]
        purposes=["inference"],
        node_ceiling=1,
        expire_time=Timestamp(seconds=two.factory.clock() + 600),
    )


def authorize(two: Two, name: str) -> job_service_pb2.AuthorizeJobRequest:
    request = proposal(two, name)
    request.request_id = request_id()
    return request


def acquire(two: Two, name: str) -> lease_service_pb2.AcquireLeaseRequest:
    grant = two.job.grant.grant
    challenge = (
        two.stubs("node").attestation.GetChallenge(attestation_service_pb2.GetChallengeRequest(grant=grant)).nonce
    )
    ref = AssetRef(name, 1)
    return lease_service_pb2.AcquireLeaseRequest(
        grant=two.job.grant,
        assets=[{"asset": name, "version": 1}],  # type: ignore[list-item]
        evidence=evidence(two.factory, "node-b", nonce=challenge, grant=grant, refs=(ref,)),
    )


def register(two: Two, name: str) -> asset_service_pb2.RegisterAssetRequest:
    del two
    return asset_service_pb2.RegisterAssetRequest(
        request_id=request_id(),
        asset=name,
        kind=asset_service_pb2.ASSET_KIND_MODEL,
        constraints={"purposes": {"names": ["inference"]}, "residency": {"allowed": [{"areas": ["EU"]}]}},  # type: ignore[arg-type]
    )


def add_version(two: Two, name: str) -> asset_service_pb2.AddAssetVersionRequest:
    return asset_service_pb2.AddAssetVersionRequest(
        request_id=request_id(),
        ref={"asset": name, "version": 2},  # type: ignore[arg-type]
        key_id="k",
        manifest_digest=b"m" * 32,
        wrapped_key=wrapped(two, name),
    )


def output(two: Two, name: str, uid: str) -> lineage_service_pb2.RegisterOutputRequest:
    return lineage_service_pb2.RegisterOutputRequest(
        request_id=request_id(),
        job_uid=uid,
        ref={"asset": name, "version": 2},  # type: ignore[arg-type]
        key_id="k",
        manifest_digest=b"m" * 32,
        wrapped_key=wrapped(two, name),
    )


def common(two: Two) -> dict[str, str]:
    del two
    return {"request_id": request_id()}


def later(two: Two) -> Timestamp:
    return Timestamp(seconds=two.factory.clock() + 7_200)


Row = tuple[str, str, Callable[[Two, Any], Any], Callable[[Two], tuple[Any, Any]]]


def assets(_: Two) -> tuple[str, str]:
    return THEIRS, ABSENT


def jobs(_: Two) -> tuple[str, str]:
    return THEIR_JOB, ABSENT_JOB


TABLE: list[Row] = [
    ("GetAsset", "owner", lambda two, name: asset_service_pb2.GetAssetRequest(asset=name), assets),
    (
        "RevokeAsset",
        "owner",
        lambda two, name: asset_service_pb2.RevokeAssetRequest(request_id=request_id(), asset=name),
        assets,
    ),
    ("AddAssetVersion", "owner", add_version, assets),
    ("RegisterAsset", "owner", register, assets),
    (
        "ConstrainAsset",
        "owner",
        lambda two, name: asset_service_pb2.ConstrainAssetRequest(
            request_id=request_id(),
            asset=name,
            version=1,
            constraints={"classification": 4},  # type: ignore[arg-type]
        ),
        assets,
    ),
    (
        "GetLineage",
        "owner",
        lambda two, name: lineage_service_pb2.GetLineageRequest(asset=name, version=1),
        assets,
    ),
    (
        "DeclareParents",
        "owner",
        lambda two, name: lineage_service_pb2.DeclareParentsRequest(
            request_id=request_id(),
            ref={"asset": name, "version": 1},  # type: ignore[arg-type]
            parents=[{"asset": two.ours.asset, "version": 1}],  # type: ignore[list-item]
        ),
        assets,
    ),
    (
        "DeclareParents",
        "owner",
        lambda two, name: lineage_service_pb2.DeclareParentsRequest(
            request_id=request_id(),
            ref={"asset": two.ours.asset, "version": 1},  # type: ignore[arg-type]
            parents=[{"asset": name, "version": 1}],  # type: ignore[list-item]
        ),
        assets,
    ),
    ("RegisterOutput", "scheduler", lambda two, name: output(two, name, "slurm:ours"), assets),
    ("RegisterOutput", "scheduler", lambda two, uid: output(two, "acme/output", uid), jobs),
    (
        "ListDeclassifications",
        "owner",
        lambda two, name: declassification_service_pb2.ListDeclassificationsRequest(asset=name, version=1),
        assets,
    ),
    ("AuthorizeJob", "scheduler", authorize, assets),
    ("GetJob", "scheduler", lambda two, uid: job_service_pb2.GetJobRequest(job_uid=uid), jobs),
    (
        "EndJob",
        "scheduler",
        lambda two, uid: job_service_pb2.EndJobRequest(request_id=request_id(), job_uid=uid),
        jobs,
    ),
    ("PreemptJob", "scheduler", lambda two, uid: job_service_pb2.PreemptJobRequest(**common(two), job_uid=uid), jobs),
    (
        "ExtendJob",
        "scheduler",
        lambda two, uid: job_service_pb2.ExtendJobRequest(**common(two), job_uid=uid, expire_time=later(two)),
        jobs,
    ),
    (
        "RequeueJob",
        "scheduler",
        lambda two, uid: job_service_pb2.RequeueJobRequest(**common(two), job_uid=uid, expire_time=later(two)),
        jobs,
    ),
    ("PlanPlacement", "scheduler", lambda two, uid: placement_pb.PlanPlacementRequest(job_uid=uid), jobs),
    (
        "PlanPlacement",
        "scheduler",
        lambda two, name: placement_pb.PlanPlacementRequest(job=proposal(two, name)),
        assets,
    ),
    (
        "WouldRelease",
        "scheduler",
        lambda two, uid: placement_pb.WouldReleaseRequest(job_uid=uid, node_id="node-a"),
        jobs,
    ),
    (
        "WouldRelease",
        "scheduler",
        lambda two, name: placement_pb.WouldReleaseRequest(job=proposal(two, name), node_id="node-a"),
        assets,
    ),
    (
        "WouldRelease",
        "scheduler",
        lambda two, name: placement_pb.WouldReleaseRequest(
            job_uid="slurm:ours",
            node_id="node-b",
            assets=[{"asset": name, "version": 1}],  # type: ignore[list-item]
        ),
        assets,
    ),
    ("AcquireLease", "node", acquire, assets),
    ("QueryRecords", "auditor", lambda two, name: audit_service_pb2.QueryRecordsRequest(asset=name), assets),
    ("QueryRecords", "auditor", lambda two, uid: audit_service_pb2.QueryRecordsRequest(job_uid=uid), jobs),
    (
        "QueryRecords",
        "auditor",
        lambda two, lease: audit_service_pb2.QueryRecordsRequest(lease_id=lease),
        lambda two: (two.their_lease, f"lease-{'0' * (len(two.their_lease) - 6)}"),
    ),
    (
        "QueryRecords",
        "auditor",
        lambda two, tenant: audit_service_pb2.QueryRecordsRequest(tenant=tenant),
        lambda two: ("globex", "nobody"),
    ),
    (
        "StreamRecords",
        "auditor",
        lambda two, name: audit_service_pb2.StreamRecordsRequest(query={"asset": name}),  # type: ignore[arg-type]
        assets,
    ),
    (
        "StreamRecords",
        "auditor",
        lambda two, tenant: audit_service_pb2.StreamRecordsRequest(query={"tenant": tenant}),  # type: ignore[arg-type]
        lambda two: ("globex", "nobody"),
    ),
    (
        "ProveRecord",
        "auditor",
        lambda two, index: audit_service_pb2.ProveRecordRequest(leaf_index=index),
        lambda two: (two.their_index, two.beyond),
    ),
    (
        "GetAppraisal",
        "auditor",
        lambda two, index: audit_service_pb2.GetAppraisalRequest(leaf_index=index),
        lambda two: (two.their_index, two.beyond),
    ),
    (
        "GetAppraisal",
        "auditor",
        lambda two, digest: audit_service_pb2.GetAppraisalRequest(leaf_hash=digest),
        lambda two: (two.their_hash, bytes(32)),
    ),
    (
        # What it answers for an asset is signed, and so never the same: test_evidence_package looks into it.
        "GetEvidencePackage",
        "auditor",
        lambda two, tenant: audit_service_pb2.GetEvidencePackageRequest(tenant=tenant),
        lambda two: ("globex", "nobody"),
    ),
]

BY_NAME = {rpc.name: rpc for rpc in CONTRACT}


def test_every_call_is_tried_or_exempt() -> None:
    tried = {name for name, *_ in TABLE}
    assert tried | EXEMPT.keys() == BY_NAME.keys()
    assert not tried & EXEMPT.keys()


@contextmanager
def statements(factory: Factory) -> Iterator[list[str]]:
    """Every statement that the broker sends to its database meanwhile."""
    sent: list[str] = []

    def count(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        del connection, cursor, others
        # Sequencing and maintenance have threads of their own; what they commit through the one writer is left.
        if threading.current_thread().name.startswith(("rpc", "store-commit")):
            sent.append(statement)

    event.listen(factory.broker.engine, "before_cursor_execute", count)
    try:
        yield sent
    finally:
        event.remove(factory.broker.engine, "before_cursor_execute", count)


def answer(call: Callable[[], Any], name: Any) -> tuple[Any, ...]:
    """All that comes back but the name that was asked for, the hash of a record and the digest of a question that have
    it, and how long the log is.
    """
    texts = {bytes: lambda: (name.hex(),), str: lambda: (name,), int: lambda: (str(name),)}[type(name)]()

    def masked(data: bytes) -> bytes:
        for text in texts:
            data = data.replace(text.encode(), b"NAME")
        return data

    try:
        found = call()
    except grpc.RpcError as error:
        status = status_pb2.Status()
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                status.ParseFromString(value)
        details = []
        for detail in status.details:
            denial = denial_pb2.Denial()
            if detail.Is(denial.DESCRIPTOR):
                detail.Unpack(denial)
                assert len(denial.record_hash) in (0, 32)
                denial.ClearField("record_hash")
                details.append(masked(denial.SerializeToString(deterministic=True)))
            else:
                details.append(masked(detail.SerializeToString(deterministic=True)))
        keys = sorted(key for key, _ in error.trailing_metadata() or ())
        return error.code(), masked((error.details() or "").encode()), masked(status.message.encode()), details, keys
    for message in found if isinstance(found, list) else [found]:
        if "record_hash" in message.DESCRIPTOR.fields_by_name:
            message.ClearField("record_hash")
        if "resume_token" in message.DESCRIPTOR.fields_by_name and message.complete:
            # Where the log ended, which its public checkpoint says, and a digest of the question.
            assert re.fullmatch(r"[0-9]+\.[0-9a-f]{16}", message.resume_token)
            message.ClearField("resume_token")
    return tuple(
        masked(message.SerializeToString(deterministic=True))
        for message in (found if isinstance(found, list) else [found])
    )


@pytest.mark.parametrize(
    ("name", "role", "request_of", "pair"),
    TABLE,
    ids=[f"{name}{number}" for number, (name, *_) in enumerate(TABLE)],
)
def test_another_tenants_thing_answers_as_one_that_is_not_there(
    two: Two, name: str, role: str, request_of: Callable[[Two, Any], Any], pair: Callable[[Two], tuple[Any, Any]]
) -> None:
    rpc, stubs = BY_NAME[name], two.stubs(role)
    theirs, absent = pair(two)
    answers, counts = [], []
    for thing in (theirs, absent):
        sent_least: list[str] | None = None
        for _ in range(5):  # maintenance goes on meanwhile, and only ever adds
            request = request_of(two, thing)
            with statements(two.factory) as sent:
                said = answer(lambda request=request: rpc.call(stubs, request), thing)
            if sent_least is None or len(sent) < len(sent_least):
                sent_least = list(sent)
        answers.append(said)
        counts.append(sent_least)
    assert answers[0] == answers[1]
    assert Counter(counts[0] or ()) == Counter(counts[1] or ())


def test_ids_of_requests_are_each_principals_own(two: Two) -> None:
    """The same request id of two tenants: neither gets the other's answer, nor hears that it was used."""
    same = request_id()
    for tenant in ("globex", "acme"):
        stub = two.factory.stubs(f"{tenant}-scheduler").jobs
        name = THEIRS if tenant == "globex" else two.ours.asset
        request = authorize(two, name)
        request.request_id, request.job_uid = same, "slurm:same"
        assert stub.AuthorizeJob(request).grant.grant
