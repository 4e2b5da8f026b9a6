"""Broken and hostile requests: each gets one clear coded error, leaves nothing behind and harms nobody else."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from calls import (
    CONTRACT,
    Refusal,
    Rpc,
    Session,
    acquire_request,
    evidence,
    read_refusal,
    refusal,
    rows,
)
from factory import Factory, furnish, request_id
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import func, select

from audit.tables import AUDIT_ENTRY
from keybroker.store.schema import DOCUMENT
from keystead.binding import AssetRef, HpkePrivateKey, hpke_seal, owner_key_info
from keystead.v1 import (
    asset_ref_pb2,
    asset_service_pb2,
    attestation_service_pb2,
    audit_service_pb2,
    evidence_pb2,
    job_service_pb2,
    lease_service_pb2,
    node_service_pb2,
    placement_service_pb2,
    site_service_pb2,
)

Shared = tuple[Factory, AssetRef]

PROFILE = {
    "owner": "acme-owner",
    "scheduler": "acme-scheduler",
    "node": "node",
    "operator": "operator",
    "auditor": "auditor",
}
CLIENT_ERRORS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
}
WRITES = {
    "RegisterAsset",
    "AddAssetVersion",
    "RevokeAsset",
    "AuthorizeJob",
    "EndJob",
    "EnrolSite",
    "RenewSite",
    "SuspendSite",
    "EnrolNode",
    "SetNodeState",
    "SetNodeCustody",
    "MoveNode",
    "ChangeNodeDevices",
    "ImportNodes",
    "AcquireLease",
    "RenewLease",
    "ReturnLease",
    "Appraise",
}
TEXTS = {
    "nul": "acme/\0",
    "control": "acme/a\nb",
    "escape": "acme/\x1b[2J",
    "umlaut": "acme/ü",
    "right-to-left": "acme/\u202eabc",
    "emoji": "acme/🔑",
    "quote": "acme/'; DROP TABLE lease;--",
    "dots": "../../etc/passwd",
    "long": "acme/" + "x" * 100_000,
    "blank": " ",
}


def stubs_for(factory: Factory, rpc: Rpc) -> Any:
    """A client that may call `rpc`."""
    return factory.stubs(PROFILE[min(rpc.roles)] if len(rpc.roles) < 5 else "auditor")


def healthy(factory: Factory) -> None:
    """The broker still answers."""
    checkpoint = factory.stubs("auditor").audit.GetCheckpoint(audit_service_pb2.GetCheckpointRequest())
    assert checkpoint.checkpoint


def attempt(call: Callable[[], Any]) -> Refusal | None:
    """The refusal of `call`, or None where it was answered."""
    try:
        call()
    except grpc.RpcError as error:
        return read_refusal(error)
    return None


def raw(factory: Factory, rpc: Rpc, data: bytes) -> Any:
    """Send bytes as the request of `rpc`."""
    channel = stubs_for(factory, rpc).channel
    package = rpc.request.DESCRIPTOR.file.services_by_name
    (service,) = package.values()
    return channel.unary_unary(f"/{service.full_name}/{rpc.name}")(data, timeout=30)


@pytest.mark.parametrize("rpc", CONTRACT, ids=str)
def test_bytes_that_are_no_message(shared: Shared, rpc: Rpc) -> None:
    factory, _ = shared
    before = rows(factory)
    junk = random.Random(7)
    broken = [
        b"\xff",
        b"\x0a\xff",
        b"\x0a\x02\xff\xfe" if rpc.request.DESCRIPTOR.fields else b"\xff\xff",
        b"\x0b" * 50_000,
    ]
    for data in [*broken, *(junk.randbytes(size) for size in (1, 9, 100, 1000))]:
        # Some random bytes are a message, of unknown fields.
        refused = attempt(lambda data=data: raw(factory, rpc, data))
        assert refused is None or refused.status in CLIENT_ERRORS
    if rpc.name in WRITES:
        assert rows(factory) == before
    healthy(factory)


@pytest.mark.parametrize("rpc", CONTRACT, ids=str)
def test_a_message_over_the_limit(shared: Shared, rpc: Rpc) -> None:
    factory, _ = shared
    size = factory.config.limits.message_bytes
    before = rows(factory)
    with pytest.raises(grpc.RpcError) as caught:
        raw(factory, rpc, b"\xfa\x7f" + b"\x80\x80\x80\x02" + bytes(size))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    assert rows(factory) == before
    healthy(factory)


def texts_of(message: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all text fields of a message type, and of its maps by text."""
    found = []
    for field in message.fields:
        path = (*prefix, field.name)
        mapped = field.type == field.TYPE_MESSAGE and field.message_type.GetOptions().map_entry
        if field.type == field.TYPE_STRING or mapped:
            found.append(path)
        elif field.type == field.TYPE_MESSAGE and field.message_type.name != "Timestamp":
            found += texts_of(field.message_type, path)
    return found


def put(message: Any, path: tuple[str, ...], value: str) -> None:
    """Set a text field, in a list's first item where the path runs through a list; add a key to a map."""
    for name in path[:-1]:
        inner = getattr(message, name)
        message = (inner[0] if inner else inner.add()) if hasattr(inner, "add") else inner
    field = message.DESCRIPTOR.fields_by_name[path[-1]]
    if field.type == field.TYPE_MESSAGE:
        entries, type_ = getattr(message, path[-1]), field.message_type.fields_by_name["value"].type
        if type_ == field.TYPE_MESSAGE:
            entries.get_or_create(value)
        else:
            entries[value] = 1
    elif field.is_repeated:
        del getattr(message, path[-1])[:]
        getattr(message, path[-1]).append(value)
    else:
        setattr(message, path[-1], value)


def good_requests(factory: Factory, ref: AssetRef) -> dict[str, Any]:
    """A request that each RPC would accept, or would but for one missing thing."""
    authorized = factory.authorize(ref, job_uid=(uid := f"slurm:{request_id()}"))
    wrapping = factory.stubs("acme-owner").assets.GetWrappingKey(asset_service_pb2.GetWrappingKeyRequest())
    info = owner_key_info(broker="keys", ref=AssetRef(ref.asset, 2), key_id="k2")
    key = hpke_seal(b"k" * 32, public_key=wrapping.hpke_key, info=info)
    acquire = acquire_request(factory, "node-a", authorized, ref)
    record = factory.signed(factory.site_record("ham-1", "DE"))
    newer = factory.signed(factory.site_record("ham-1", "DE", serial=2))
    device = {"slot": "cpu0", "kind": "amd-chip-id", "value": "cd" * 64}
    thought = job_service_pb2.AuthorizeJobRequest(
        job_uid="slurm:thought-of",
        assets=[{"asset": ref.asset, "version": 1}],
        purposes=["inference"],
        node_ceiling=1,
        expire_time=Timestamp(seconds=factory.clock() + 600),
    )
    common = {"request_id": request_id()}
    made = [
        asset_service_pb2.RegisterAssetRequest(
            **common,
            asset="acme/new",
            kind=1,
            constraints={"purposes": {"names": ["inference"]}, "residency": {"allowed": [{"areas": ["EU"]}]}},
        ),
        asset_service_pb2.AddAssetVersionRequest(
            **common, ref={"asset": ref.asset, "version": 2}, key_id="k2", manifest_digest=b"m" * 32, wrapped_key=key
        ),
        asset_service_pb2.GetAssetRequest(asset=ref.asset),
        asset_service_pb2.ListAssetsRequest(),
        asset_service_pb2.RevokeAssetRequest(**common, asset="acme/none"),
        attestation_service_pb2.AppraiseRequest(evidence=acquire.evidence, grant=authorized.grant.grant),
        audit_service_pb2.QueryRecordsRequest(),
        audit_service_pb2.ProveRecordRequest(),
        job_service_pb2.AuthorizeJobRequest(
            **common,
            job_uid="slurm:new",
            assets=[{"asset": ref.asset, "version": 1}],
            purposes=["inference"],
            node_ceiling=1,
            expire_time=Timestamp(seconds=factory.clock() + 600),
        ),
        job_service_pb2.GetJobRequest(job_uid="slurm:none"),
        job_service_pb2.EndJobRequest(**common, job_uid="slurm:none"),
        acquire,
        lease_service_pb2.AcquireLeaseRequest(
            grant=authorized.grant, assets=acquire.assets, passport={"hpke_key": HpkePrivateKey.generate().public_key}
        ),
        lease_service_pb2.RenewLeaseRequest(lease_id="lease-none", evidence=acquire.evidence),
        lease_service_pb2.ReturnLeaseRequest(lease_id="lease-none", signature=b"s" * 64),
        node_service_pb2.EnrolNodeRequest(
            **common, node={"node_id": "node-new", "site_id": "fra-1", "devices": [device]}
        ),
        node_service_pb2.SetNodeStateRequest(**common, node_id="node-none", state=1, reason="why"),
        node_service_pb2.SetNodeCustodyRequest(**common, node_id="node-none", custody=1, reason="why"),
        node_service_pb2.MoveNodeRequest(**common, node_id="node-none", site_id="fra-1", rack="r1", reason="why"),
        node_service_pb2.ChangeNodeDevicesRequest(
            **common,
            node_id="node-none",
            remove=["gpu0"],
            add=[{"slot": "gpu0", "kind": "nvidia-gpu", "value": "cd" * 8}],
            reason="why",
        ),
        node_service_pb2.ImportNodesRequest(start={"request_id": request_id()}),
        node_service_pb2.ListNodesRequest(),
        placement_service_pb2.PlanPlacementRequest(job=thought),
        placement_service_pb2.PlanPlacementRequest(job_uid=uid),
        placement_service_pb2.WouldReleaseRequest(job=thought, node_id="node-a"),
        placement_service_pb2.WouldReleaseRequest(job_uid=uid, node_id="node-none", assets=acquire.assets),
        site_service_pb2.EnrolSiteRequest(**common, record=record),
        site_service_pb2.RenewSiteRequest(**common, record=newer),
        site_service_pb2.SuspendSiteRequest(**common, site_id="site-none", reason="why"),
        site_service_pb2.GetSiteRequest(site_id="site-none"),
        site_service_pb2.ListSitesRequest(),
    ]
    return {f"{type(request).__name__}{number}": request for number, request in enumerate(made)}


KEPT = ("audit_", "appraisal", "document", "node_attestation")
"""What the tables' names begin with in which a refusal on evidence may leave rows."""

FREE_TEXT = {
    ("reason",): {"quote", "dots", "blank"},
}
"""Fields that take what others refuse: one line of printable ASCII."""


def test_texts_that_are_no_names(any_factory: Factory) -> None:
    """Every text field of every request with every kind of text; on PostgreSQL too, which takes no NUL."""
    factory = any_factory
    ref = factory.register_asset()
    requests = good_requests(factory, ref)
    by_request = {rpc.request: rpc for rpc in CONTRACT}
    tried = 0
    for request in requests.values():
        rpc = by_request[type(request)]
        stubs = stubs_for(factory, rpc)
        before = rows(factory)
        proof = request.WhichOneof("proof") if rpc.name == "AcquireLease" else ""
        for path, kind in itertools.product(texts_of(request.DESCRIPTOR), TEXTS):
            if kind in FREE_TEXT.get(path, ()) or (path[0] in ("evidence", "passport") and proof not in (path[0], "")):
                continue
            changed = type(request)()
            changed.CopyFrom(request)
            put(changed, path, TEXTS[kind])
            tried += 1
            refused = attempt(lambda rpc=rpc, stubs=stubs, changed=changed: rpc.call(stubs, changed))
            if refused is None:
                # A filter may be any visible text; nothing fits this one.
                assert (rpc.name, kind) == ("QueryRecords", "dots"), (rpc.name, path, kind)
                continue
            assert refused.status in CLIENT_ERRORS, (rpc.name, path, kind, refused)
            assert refused.size < 8_000, (rpc.name, path, kind, refused.size)
            assert refused.message.isprintable(), (rpc.name, path, kind)
        after = rows(factory)
        grown = {name for name in after if after[name] != before[name]}
        # A refusal on evidence or of a job is a record with what it was decided on, and nothing else.
        recorded = {name for name in after if name.startswith(KEPT)}
        decided = rpc.name in ("AcquireLease", "AuthorizeJob", "Appraise", "QueryRecords")
        assert grown <= (recorded if decided else set()), rpc.name
    assert tried > 250
    healthy(factory)


INSTANTS = (-1, -(1 << 62), 253_402_300_800, 1 << 53, (1 << 63) - 1)


@pytest.mark.parametrize("seconds", INSTANTS)
def test_instants_out_of_range(shared: Shared, seconds: int) -> None:
    factory, ref = shared
    requests = {type(request).__name__: request for request in good_requests(factory, ref).values()}
    before = rows(factory)
    for name, call, field in (
        ("AuthorizeJobRequest", factory.stubs("acme-scheduler").jobs.AuthorizeJob, "expire_time"),
        ("QueryRecordsRequest", factory.stubs("auditor").audit.QueryRecords, "start_time"),
    ):
        request = requests[name]
        for value in (Timestamp(seconds=seconds), Timestamp(seconds=factory.clock() + 9, nanos=5)):
            getattr(request, field).CopyFrom(value)
            refused = refusal(lambda call=call, request=request: call(request))
            assert refused.reason == "INVALID_REQUEST"
            assert refused.field.endswith(field)
    assert rows(factory) == before


def test_enums_that_are_none(shared: Shared) -> None:
    factory, ref = shared
    requests = good_requests(factory, ref)
    before = rows(factory)
    for number in (0, 99, 2_147_483_647, -1):
        for name, call, field in (
            ("RegisterAssetRequest", factory.stubs("acme-owner").assets.RegisterAsset, "kind"),
            ("SetNodeStateRequest", factory.stubs("operator").nodes.SetNodeState, "state"),
        ):
            request = next(each for each in requests.values() if type(each).__name__ == name)
            setattr(request, field, number)
            refused = refusal(lambda call=call, request=request: call(request))
            assert (refused.reason, refused.field) == ("INVALID_REQUEST", field)
    assert rows(factory) == before


def test_numbers_out_of_range(shared: Shared) -> None:
    factory, ref = shared
    requests = {type(request).__name__: request for request in good_requests(factory, ref).values()}
    owner, jobs = factory.stubs("acme-owner").assets, factory.stubs("acme-scheduler").jobs
    audit = factory.stubs("auditor").audit
    before = rows(factory)
    register, version = requests["RegisterAssetRequest"], requests["AddAssetVersionRequest"]
    authorize = requests["AuthorizeJobRequest"]
    register.constraints.classification = 5
    assert refusal(lambda: owner.RegisterAsset(register)).field == "classification"
    for number in (0, 1, 3, 1_000_000_000, 4_294_967_295):
        version.ref.version = number
        refused = refusal(lambda: owner.AddAssetVersion(version))
        assert refused.field in ("ref.version", "wrapped_key")
    for number in (0, (1 << 20) + 1, 4_294_967_295):
        authorize.node_ceiling = number
        assert refusal(lambda: jobs.AuthorizeJob(authorize)).field == "node_ceiling"
    assert rows(factory) == before
    for number in (1 << 53, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        prove = audit_service_pb2.ProveRecordRequest(leaf_index=number)
        refused = refusal(lambda prove=prove: audit.ProveRecord(prove))
        assert (refused.status, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ENTRY_NOT_FOUND")
    for stub in (owner.ListAssets, factory.stubs("operator").nodes.ListNodes):
        request = {"ListAssets": asset_service_pb2.ListAssetsRequest}.get(
            "ListAssets" if stub is owner.ListAssets else "", node_service_pb2.ListNodesRequest
        )
        assert stub(request(page_size=4_294_967_295))
    assert refusal(lambda: audit.QueryRecords(audit_service_pb2.QueryRecordsRequest(page_token="0.x"))).reason == (
        "BAD_AUDIT_QUERY"
    )


def test_lists_that_are_too_long(shared: Shared) -> None:
    factory, ref = shared
    requests = {type(request).__name__: request for request in good_requests(factory, ref).values()}
    before = rows(factory)
    names = [f"n{number}" for number in range(5_000)]
    register, authorize = requests["RegisterAssetRequest"], requests["AuthorizeJobRequest"]
    owner, jobs = factory.stubs("acme-owner").assets, factory.stubs("acme-scheduler").jobs

    def changed(request: Any, **values: Any) -> Any:
        copy = type(request)()
        copy.CopyFrom(request)
        for name, value in values.items():
            copy.ClearField(name)
            getattr(copy, name).extend(value)
        return copy

    long = changed(register)
    long.constraints.purposes.names.extend(names)
    assert refusal(lambda: owner.RegisterAsset(long)).field == "purposes"
    areas = changed(register)
    clause = areas.constraints.residency.allowed[0]
    clause.areas[:] = [f"{a}{b}" for a, b in itertools.product("ABCDEFGHIJKLMNOPQRST", repeat=2)]
    assert refusal(lambda: owner.RegisterAsset(areas)).field == "residency.allowed[0]"
    for field in ("purposes", "nodes", "sites"):
        long = changed(authorize, **{field: names})
        assert refusal(lambda long=long: jobs.AuthorizeJob(long)).field == field
        twice = changed(authorize, **{field: ["x", "x"]})
        assert refusal(lambda twice=twice: jobs.AuthorizeJob(twice)).field == field
    many = changed(authorize, assets=[asset_ref_pb2.AssetRef(asset=f"acme/{name}", version=1) for name in names])
    assert refusal(lambda: jobs.AuthorizeJob(many)).field == "assets"
    # Within every single limit, and too much for one record all the same.
    wide = changed(authorize, purposes=[f"{number:03}{'x' * 250}" for number in range(256)])
    assert refusal(lambda: jobs.AuthorizeJob(wide)).status in CLIENT_ERRORS
    devices = [{"slot": f"gpu{n % 100}", "kind": "nvidia-gpu", "value": f"{n:032x}"} for n in range(5_000)]
    enrol = requests["EnrolNodeRequest"]
    enrol.node.devices.extend(node_service_pb2.DeviceIdentity(**device) for device in devices)
    nodes = factory.stubs("operator").nodes
    assert refusal(lambda: nodes.EnrolNode(enrol)).field == "node.devices"
    assert {k: v for k, v in rows(factory).items() if not k.startswith(("audit_", "document", "appraisal"))} == {
        k: v for k, v in before.items() if not k.startswith(("audit_", "document", "appraisal"))
    }


def test_many_reasons_still_reach_the_client(shared: Shared) -> None:
    """A status travels in trailers, of which a client takes 8 KiB: it names what it can and counts the rest."""
    factory, ref = shared
    refs = [AssetRef(f"acme/{'very-long-name-of-a-model-' * 2}{number}", 1) for number in range(64)]
    with pytest.raises(grpc.RpcError) as caught:
        factory.authorize(*refs)
    refused = read_refusal(caught.value)
    assert refused.denied[-1] == "MORE_REASONS"
    assert set(refused.denied[:-1]) == {"ASSET_NOT_FOUND"}
    assert refused.size < 8_000
    authorized = factory.authorize(ref)
    request = acquire_request(factory, "node-us", authorized, *refs[:63], ref)
    denied = refusal(lambda: factory.stubs("node").leases.AcquireLease(request)).denied
    assert {"ASSET_NOT_FOUND", "JURISDICTION_NOT_PERMITTED", "MORE_REASONS"} <= set(denied)


def test_text_that_looks_like_a_key_is_kept_out_of_the_log(shared: Shared) -> None:
    factory, ref = shared
    secret = os.urandom(32).hex()
    before = rows(factory)
    nodes = factory.stubs("operator").nodes
    state = node_service_pb2.SetNodeStateRequest(request_id=request_id(), node_id="node-a", state=1, reason=secret)
    refused = refusal(lambda: nodes.SetNodeState(state))
    assert (refused.status, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_AUDIT_RECORD")
    assert secret not in refused.message
    with pytest.raises(grpc.RpcError) as caught:
        factory.authorize(ref, purposes=["inference", secret])
    assert read_refusal(caught.value).status in CLIENT_ERRORS
    assert rows(factory) == before


def mutations(made: evidence_pb2.NodeEvidence) -> dict[str, Callable[[Any], None]]:
    """What a broken or hostile node might send in place of good evidence."""

    def each_device(change: Callable[[Any], None]) -> Callable[[Any], None]:
        def apply(message: Any) -> None:
            for device in (message.cpu, *message.devices):
                change(device)

        return apply

    return {
        "no evidence": lambda m: m.Clear(),
        "no cpu": lambda m: m.ClearField("cpu"),
        "no devices": lambda m: m.ClearField("devices"),
        "no runtime data": lambda m: setattr(m, "runtime_data", b""),
        "short runtime data": lambda m: setattr(m, "runtime_data", m.runtime_data[:-1]),
        "trailing runtime data": lambda m: setattr(m, "runtime_data", m.runtime_data + b"\0"),
        "random runtime data": lambda m: setattr(m, "runtime_data", os.urandom(400)),
        "huge runtime data": lambda m: setattr(m, "runtime_data", bytes(2 << 20)),
        "count bomb": lambda m: setattr(m, "runtime_data", b"\xff\xff\xff\xff" * 100),
        "empty cpu report": lambda m: setattr(m.cpu, "data", b""),
        "short cpu report": lambda m: setattr(m.cpu, "data", m.cpu.data[:-1]),
        "long cpu report": lambda m: setattr(m.cpu, "data", m.cpu.data + b"\0"),
        "random cpu report": lambda m: setattr(m.cpu, "data", os.urandom(1184)),
        "huge cpu report": lambda m: setattr(m.cpu, "data", bytes(1 << 20)),
        "zero cpu report": lambda m: setattr(m.cpu, "data", bytes(1184)),
        "cpu as gpu": lambda m: setattr(m.cpu, "scheme", "nvgpu"),
        "gpu as cpu": lambda m: setattr(m.devices[0], "scheme", "snp"),
        "unknown scheme": lambda m: setattr(m.cpu, "scheme", "abacus"),
        "unknown device scheme": lambda m: setattr(m.devices[0], "scheme", "abacus"),
        "no certificates": each_device(lambda d: d.ClearField("certificates")),
        "random certificates": each_device(lambda d: d.certificates.append(os.urandom(500))),
        "empty certificate": each_device(lambda d: d.certificates.append(b"")),
        "reversed certificates": each_device(lambda d: d.certificates.reverse()),
        "many certificates": each_device(lambda d: d.certificates.extend([b"x"] * 1_000)),
        "same slot": each_device(lambda d: setattr(d, "slot", "gpu0")),
        "odd slot": each_device(lambda d: setattr(d, "slot", "gpu0;rm")),
        "long slot": each_device(lambda d: setattr(d, "slot", "g" * 64)),
        "deep slot": each_device(lambda d: setattr(d, "slot", "gpu999999999")),
        "hundreds of devices": lambda m: m.devices.extend([m.devices[0]] * 200),
        "sixty-five devices": lambda m: m.devices.extend([m.devices[0]] * 64),
        "gpu twice": lambda m: m.devices.append(m.devices[0]),
        "empty gpu report": lambda m: setattr(m.devices[0], "data", b""),
        "short gpu report": lambda m: setattr(m.devices[0], "data", m.devices[0].data[:-1]),
        "long gpu report": lambda m: setattr(m.devices[0], "data", m.devices[0].data + b"\0"),
        "random gpu report": lambda m: setattr(m.devices[0], "data", os.urandom(4_000)),
        "gpu without chain": lambda m: m.devices[0].ClearField("certificates"),
        "gpus swapped": lambda m: (
            m.devices[0].MergeFrom(m.devices[1]) if len(m.devices) > 1 else m.devices.append(m.devices[0])
        ),
    }


MUTATIONS = sorted(mutations(evidence_pb2.NodeEvidence()))


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("rpc", ["Appraise", "AcquireLease"])
def test_malformed_evidence(shared: Shared, rpc: str, name: str) -> None:
    factory, ref = shared
    authorized = factory.authorize(ref)
    made = evidence(factory, "node-a", nonce=authorized.nonce, grant=authorized.grant.grant, refs=(ref,))
    mutations(made)[name](made)
    before = rows(factory)
    stubs = factory.stubs("node")
    if rpc == "Appraise":
        request = attestation_service_pb2.AppraiseRequest(evidence=made, grant=authorized.grant.grant)
        refused = refusal(lambda: stubs.attestation.Appraise(request))
    else:
        acquire = lease_service_pb2.AcquireLeaseRequest(
            grant=authorized.grant,
            assets=[{"asset": ref.asset, "version": 1}],  # type: ignore[list-item]
            evidence=made,
        )
        refused = refusal(lambda: stubs.leases.AcquireLease(acquire))
    assert refused.status in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED}
    after = rows(factory)
    kept = {key for key in after if after[key] != before[key]}
    if refused.status is grpc.StatusCode.INVALID_ARGUMENT:
        assert not kept
    else:
        assert kept <= {key for key in after if key.startswith(KEPT)}
        assert refused.denied


def test_malformed_grants(shared: Shared) -> None:
    factory, ref = shared
    authorized = factory.authorize(ref)
    request = acquire_request(factory, "node-a", authorized, ref)
    leases = factory.stubs("node").leases
    good = authorized.grant
    before = rows(factory)
    for grant in (
        job_service_pb2.JobGrant(),
        job_service_pb2.JobGrant(grant=good.grant, key_id=good.key_id),
        job_service_pb2.JobGrant(grant=good.grant + b"\0", signature=good.signature, key_id=good.key_id),
        job_service_pb2.JobGrant(grant=good.grant[:-1], signature=good.signature, key_id=good.key_id),
        job_service_pb2.JobGrant(grant=good.grant, signature=good.signature + b"\0", key_id=good.key_id),
        job_service_pb2.JobGrant(grant=good.grant, signature=good.signature, key_id="other"),
        job_service_pb2.JobGrant(grant=b"", signature=good.signature, key_id=good.key_id),
        job_service_pb2.JobGrant(grant=bytes(1 << 20), signature=good.signature, key_id="k" * 100_000),
    ):
        request.grant.CopyFrom(grant)
        assert refusal(lambda: leases.AcquireLease(request)).reason == "GRANT_INVALID"
    # Signed by the right key, and no grant: nothing but the canonical encoding counts.
    key = factory.broker.keys.grant
    for body in (good.grant + b"\0", good.grant[:-1], b"", good.grant.replace(b"keys", b"kezs", 1)):
        request.grant.CopyFrom(job_service_pb2.JobGrant(grant=body, signature=key.sign(body), key_id=key.key_id))
        assert refusal(lambda: leases.AcquireLease(request)).reason == "GRANT_INVALID"
    request.grant.CopyFrom(good)
    request.ClearField("proof")
    assert refusal(lambda: leases.AcquireLease(request)).field == "proof"
    assert rows(factory) == before


@pytest.mark.parametrize("bad", ["modulus", "order"])
def test_a_key_that_nothing_can_be_wrapped_to(shared: Shared, bad: str) -> None:
    """It is refused before the decision: no lease, no spent nonce, no record of a release that never was."""
    factory, ref = shared
    authorized = factory.authorize(ref)
    good = HpkePrivateKey.generate().public_key
    key = b"\xff" * 1184 + good[1184:] if bad == "modulus" else good[:1184] + bytes(32)
    before = rows(factory)
    session = Session()
    request = acquire_request(factory, "node-a", authorized, ref, session=session, hpke_key=key)
    refused = refusal(lambda: factory.stubs("node").leases.AcquireLease(request))
    assert (refused.status, refused.field) == (grpc.StatusCode.INVALID_ARGUMENT, "evidence.runtime_data")
    assert rows(factory) == before


def test_evidence_made_elsewhere_buys_no_unlimited_records(make_factory: Callable[..., Factory]) -> None:
    """Genuine evidence, recorded once and sent again and again, is anybody's: it is counted, not kept each time."""
    factory = furnish(
        make_factory(edit=lambda text: text.replace("[limits]", "[limits]\nunauthenticated_records_per_minute = 3"))
    )
    ref = factory.register_asset()
    old = evidence(factory, "node-a", nonce=factory.authorize(ref).nonce, grant=None)
    leases = factory.stubs("node").leases
    factory.clock.offset += 60 - factory.clock() % 60  # a whole minute ahead

    def count() -> tuple[int, int]:
        with factory.broker.read() as connection:
            records = select(func.count()).select_from(AUDIT_ENTRY).where(AUDIT_ENTRY.c.kind == "lease.refused")
            documents = select(func.count()).select_from(DOCUMENT)
            return connection.execute(records).scalar_one(), connection.execute(documents).scalar_one()

    before = count()
    for number in range(10):
        authorized = factory.authorize(ref, job_uid=f"slurm:{number}")
        request = lease_service_pb2.AcquireLeaseRequest(
            grant=authorized.grant,
            assets=[{"asset": ref.asset, "version": 1}],  # type: ignore[list-item]
            evidence=old,
        )
        assert "GRANT_MISMATCH" in refusal(lambda request=request: leases.AcquireLease(request)).denied
    assert count()[0] - before[0] == 3
    # The node itself, present with evidence for this session, is not rationed.
    stale = factory.nodes["node-a"]
    for _ in range(4):
        wrong = acquire_request(factory, "node-us", factory.authorize(ref), ref)
        refusal(lambda wrong=wrong: leases.AcquireLease(wrong))
    assert count()[0] - before[0] == 7
    assert stale


def test_the_broker_is_sound_after_all_that(shared: Shared) -> None:
    factory, ref = shared
    lease = factory.acquire("node-a", factory.authorize(ref), ref)
    assert lease.terms
    factory.broker.sequencer.run_once(factory.clock())
    healthy(factory)
