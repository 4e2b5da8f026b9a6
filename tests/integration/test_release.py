"""The main job through the real broker: a node proves what it is, policy decides, a key is released and logged."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from factory import Factory, furnish
from sqlalchemy import func, select

import attester
from attestation.simulator.node import SimulatedNode
from attestation.simulator.nvgpu import GpuDefect
from attestation.simulator.snp import SnpDefect
from attester.collect.simulated import SimulatedCollector
from attester.errors import from_rpc_error
from attester.handshake import collect_evidence
from audit.tables import AUDIT_ENTRY
from keybroker.maintenance import Maintenance
from keybroker.store.schema import LEASE
from keystead.binding import AssetRef, HpkePrivateKey, hpke_info, sha256
from keystead.v1 import (
    asset_service_pb2,
    audit_service_pb2,
    job_service_pb2,
    lease_service_pb2,
    node_service_pb2,
)


def codes(caught: pytest.ExceptionInfo[attester.AccessDeniedError]) -> set[str]:
    """The codes of every reason for a refusal."""
    return {reason.code for reason in caught.value.reasons}


def records(factory: Factory, **wanted: Any) -> list[dict[str, Any]]:
    """What the auditor finds."""
    factory.broker.sequencer.run_once(factory.clock())
    answer = factory.stubs("auditor").audit.QueryRecords(audit_service_pb2.QueryRecordsRequest(**wanted))
    return [json.loads(record.payload) for record in answer.records]


def entries(factory: Factory, kind: str) -> int:
    """How many records of a kind there are, sequenced or not."""
    with factory.broker.read() as connection:
        statement = select(func.count()).select_from(AUDIT_ENTRY).where(AUDIT_ENTRY.c.kind == kind)
        return connection.execute(statement).scalar_one()


def leases(factory: Factory) -> int:
    """How many leases there are, of any state."""
    with factory.broker.read() as connection:
        return connection.execute(select(func.count()).select_from(LEASE)).scalar_one()


def key_of(lease: attester.Lease, ref: AssetRef) -> bytes:
    """The data key in a lease."""
    return bytes(lease._data_key(ref)[1].key)


def raw_request(
    factory: Factory, node_id: str, authorized: Any, ref: AssetRef, *, node: SimulatedNode | None = None
) -> tuple[lease_service_pb2.AcquireLeaseRequest, HpkePrivateKey]:
    """What a node sends, with the private key to open the answer."""
    private = HpkePrivateKey.generate()
    evidence = collect_evidence(
        SimulatedCollector(node or factory.nodes[node_id]),
        hpke_key=private.public_key,
        signing_key=b"s" * 32,
        broker="keys",
        nonce=authorized.nonce,
        grant=authorized.grant.grant,
        node_id=node_id,
        assets=[ref],
    )
    request = lease_service_pb2.AcquireLeaseRequest(
        grant=authorized.grant,
        assets=[{"asset": ref.asset, "version": ref.version}],  # type: ignore[list-item]
        evidence=evidence.message,
    )
    return request, private


def test_a_good_node_gets_the_key_and_the_use_is_on_record(any_factory: Factory) -> None:
    factory = any_factory
    ref = factory.register_asset()
    authorized = factory.authorize(ref, job_uid="slurm:1")
    lease = factory.acquire("node-a", authorized, ref)
    assert key_of(lease, ref) == factory.data_keys[str(ref)]
    (record,) = records(factory, kind="lease.granted")
    assert (record["node"], record["site"], record["jurisdiction"]) == ("node-a", "fra-1", "FR")
    assert (record["job"], record["assets"], record["tenant"]) == ("slurm:1", ["acme/llama@1"], "acme")
    assert len(record["hardware"]) == 3
    assert record["detail"]["simulated"] is True
    assert {obligation.code for obligation in lease.terms.obligations} == {
        "lease_ceiling",
        "re_attest",
        "zeroise_on_end",
    }


@pytest.mark.parametrize(
    ("defect", "code"),
    [
        (SnpDefect.DEBUG, "SNP_DEBUG_ALLOWED"),
        (SnpDefect.MIGRATE_MA, "SNP_MIGRAT"),
        (SnpDefect.STALE_TCB, "SNP_TCB_BELOW_MINIMUM"),
        (SnpDefect.PROVISIONAL_FIRMWARE, "SNP"),
        (SnpDefect.WRONG_REPORT_DATA, "SNP_REPORT_DATA"),
        (SnpDefect.MASKED_CHIP_ID, "IDENTITY_NOT_PROVEN"),
        (SnpDefect.OTHER_CHIP, "SNP"),
        (SnpDefect.NO_ALIAS_CHECK, "SNP_ALIAS_CHECK"),
        (SnpDefect.VMPL_1, "SNP_VMPL"),
        (SnpDefect.BAD_SIGNATURE, "SNP_SIGNATURE"),
        (SnpDefect.EXPIRED_VEK, "SNP"),
    ],
)
def test_a_defective_cpu_is_refused_for_its_reason(
    shared: tuple[Factory, AssetRef], defect: SnpDefect, code: str
) -> None:
    factory, ref = shared
    authorized = factory.authorize(ref)
    before = leases(factory), entries(factory, "lease.refused")
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-a", authorized, ref, node=factory.nodes["node-a"].with_defects(cpu=[defect]))
    assert any(found.startswith(code) for found in codes(caught)), codes(caught)
    assert (leases(factory), entries(factory, "lease.refused")) == (before[0], before[1] + 1)


@pytest.mark.parametrize(
    "defect",
    [
        GpuDefect.WRONG_NONCE,
        GpuDefect.BAD_SIGNATURE,
        GpuDefect.ALTERED_MEASUREMENT,
        GpuDefect.WRONG_FWID,
        GpuDefect.MISSING_FWID,
        GpuDefect.OTHER_CHAIN,
        GpuDefect.OTHER_ROOT,
        GpuDefect.EXPIRED_LEAF,
        GpuDefect.SWITCH_SERIAL,
    ],
)
def test_a_defective_gpu_is_refused_for_its_reason(shared: tuple[Factory, AssetRef], defect: GpuDefect) -> None:
    factory, ref = shared
    authorized = factory.authorize(ref)
    before = leases(factory)
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-a", authorized, ref, node=factory.nodes["node-a"].with_defects(gpus={"gpu1": [defect]}))
    assert any(
        reason.code.startswith(("NVGPU", "X509")) and "gpu1" in reason.field for reason in caught.value.reasons
    ), [(reason.code, reason.field) for reason in caught.value.reasons]
    assert leases(factory) == before


def test_the_wrong_jurisdiction_is_refused_by_the_enrolled_site(factory: Factory) -> None:
    ref = factory.register_asset()
    authorized = factory.authorize(ref)
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-us", authorized, ref)
    assert codes(caught) == {"JURISDICTION_NOT_PERMITTED"}
    (reason,) = caught.value.reasons
    assert "US" in reason.actual
    assert reason.remedy
    (record,) = records(factory, kind="lease.refused")
    assert record["reasons"] == ["JURISDICTION_NOT_PERMITTED"]
    assert record["jurisdiction"] == "US"


def test_a_node_cannot_claim_to_be_another(factory: Factory) -> None:
    ref = factory.register_asset()
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-us", factory.authorize(ref), ref, claimed="node-a")
    assert {"NODE_CLAIM_MISMATCH", "JURISDICTION_NOT_PERMITTED"} <= codes(caught)


def test_a_gpu_of_another_node_is_refused(factory: Factory) -> None:
    ref = factory.register_asset()
    thief = replace(factory.nodes["node-b"], gpus=(factory.nodes["node-a"].gpus[0],))
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-b", factory.authorize(ref), ref, node=thief)
    assert {"DEVICE_OF_ANOTHER_NODE", "DEVICE_MISSING"} <= codes(caught)


def test_a_missing_gpu_is_refused(factory: Factory) -> None:
    ref = factory.register_asset()
    less = replace(factory.nodes["node-a"], gpus=factory.nodes["node-a"].gpus[:1])
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-a", factory.authorize(ref), ref, node=less)
    assert "DEVICE_MISSING" in codes(caught)


def test_hardware_that_nobody_enrolled_is_refused(factory: Factory) -> None:
    ref = factory.register_asset()
    stranger = factory.vendors.node("stranger", now=factory.clock(), gpus=1)
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-a", factory.authorize(ref), ref, node=stranger)
    assert "DEVICE_NOT_ENROLLED" in codes(caught)


def test_the_same_request_gets_the_same_lease_again(any_factory: Factory) -> None:
    factory = any_factory
    ref = factory.register_asset()
    request, private = raw_request(factory, "node-a", factory.authorize(ref), ref)
    stub = factory.stubs("node").leases
    first, second = stub.AcquireLease(request), stub.AcquireLease(request)
    assert first.lease == second.lease
    assert first.next_nonce == second.next_nonce
    assert first.receipt == second.receipt
    assert first.keys[0].ciphertext != second.keys[0].ciphertext
    transcript = sha256(request.evidence.runtime_data)
    for answer in (first, second):
        info = hpke_info(
            transcript=transcript,
            lease_id=answer.lease.lease_id,
            ref=ref,
            key_id=answer.keys[0].key_id,
            policy_digest=answer.lease.policy_digest,
        )
        assert private.open(answer.keys[0].ciphertext, info=info) == factory.data_keys[str(ref)]
    assert entries(factory, "lease.granted") == 1


def test_replayed_evidence_after_the_end_is_refused(factory: Factory) -> None:
    ref = factory.register_asset()
    authorized = factory.authorize(ref, job_uid="slurm:9")
    request, _ = raw_request(factory, "node-a", authorized, ref)
    stub = factory.stubs("node").leases
    stub.AcquireLease(request)
    factory.stubs("acme-scheduler").jobs.EndJob(
        job_service_pb2.EndJobRequest(request_id="00000000-0000-4000-8000-000000000001", job_uid="slurm:9")
    )
    with factory.client() as client, pytest.raises(attester.AccessDeniedError) as caught:
        client.acquire_lease(request)
    assert {"LEASE_NOT_LIVE", "JOB_CLOSED"} <= codes(caught)


def test_a_nonce_serves_a_node_once(any_factory: Factory) -> None:
    factory = any_factory
    ref = factory.register_asset()
    authorized = factory.authorize(ref)
    factory.acquire("node-a", authorized, ref)
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-a", authorized, ref)
    assert "NONCE_SPENT" in codes(caught)
    factory.acquire("node-b", authorized, ref)
    factory.acquire("node-a", authorized, ref, nonce=None)


def test_evidence_of_another_session_is_refused(factory: Factory) -> None:
    """A thief on the path presents a good node's evidence for a grant of his own."""
    ref = factory.register_asset()
    request, _ = raw_request(factory, "node-a", factory.authorize(ref), ref)
    stolen = lease_service_pb2.AcquireLeaseRequest(
        grant=factory.authorize(ref).grant, assets=request.assets, evidence=request.evidence
    )
    with factory.client() as client, pytest.raises(attester.AccessDeniedError) as caught:
        client.acquire_lease(stolen)
    assert {"GRANT_MISMATCH", "CHALLENGE_INVALID"} <= codes(caught)


def test_a_swapped_key_is_refused(factory: Factory) -> None:
    """A thief on the path puts a key of his own into the runtime data."""
    ref = factory.register_asset()
    request, private = raw_request(factory, "node-a", factory.authorize(ref), ref)
    runtime = request.evidence.runtime_data
    request.evidence.runtime_data = runtime.replace(private.public_key, HpkePrivateKey.generate().public_key)
    assert request.evidence.runtime_data != runtime
    with factory.client() as client, pytest.raises(attester.AccessDeniedError) as caught:
        client.acquire_lease(request)
    assert any(code.startswith("SNP_REPORT_DATA") for code in codes(caught))
    assert leases(factory) == 0


def test_evidence_for_other_assets_is_refused(factory: Factory) -> None:
    ref, other = factory.register_asset(), factory.register_asset("acme/other")
    request, _ = raw_request(factory, "node-a", factory.authorize(ref, other), ref)
    del request.assets[:]
    request.assets.add(asset=other.asset, version=1)
    with factory.client() as client, pytest.raises(attester.AccessDeniedError) as caught:
        client.acquire_lease(request)
    assert "ASSET_LIST_MISMATCH" in codes(caught)


def test_an_asset_outside_the_grant_is_refused(factory: Factory) -> None:
    ref, other = factory.register_asset(), factory.register_asset("acme/other")
    request, _ = raw_request(factory, "node-a", factory.authorize(ref), other)
    with factory.client() as client, pytest.raises(attester.AccessDeniedError) as caught:
        client.acquire_lease(request)
    assert "ASSET_NOT_GRANTED" in codes(caught)


def test_an_expired_grant_is_refused(factory: Factory) -> None:
    ref = factory.register_asset()
    authorized = factory.authorize(ref, lifetime=60)
    factory.clock.offset += 61
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-a", authorized, ref)
    assert "GRANT_EXPIRED" in codes(caught)


def test_an_altered_grant_is_refused(factory: Factory) -> None:
    ref = factory.register_asset()
    authorized = factory.authorize(ref)
    request, _ = raw_request(factory, "node-a", authorized, ref)
    request.grant.grant = request.grant.grant.replace(b"inference", b"inferenc3")
    with factory.client() as client, pytest.raises(attester.BrokerError) as caught:
        client.acquire_lease(request)
    assert caught.value.reason == "GRANT_INVALID"
    assert leases(factory) == 0


def test_purposes_and_places_are_judged_when_the_job_is_authorized(factory: Factory) -> None:
    ref = factory.register_asset()
    stub = factory.stubs("acme-scheduler").jobs
    del stub
    for changes, code in (({"purposes": ["fine-tuning"]}, "PURPOSE_NOT_PERMITTED"), ({"sites": ["ash-1"]}, "")):
        with pytest.raises(Exception) as caught:
            factory.authorize(ref, **changes)
        error = attester_error(caught.value)
        assert isinstance(error, attester.AccessDeniedError)
        assert code in {reason.code for reason in error.reasons} or not code
    assert entries(factory, "job.refused") == 2


def attester_error(error: Any) -> attester.BrokerError:
    """A gRPC error as a client reads it."""

    return from_rpc_error(error)


def test_a_node_ceiling_holds_under_concurrency(any_factory: Factory) -> None:
    factory = any_factory
    ref = factory.register_asset(allowed=("EU", "US"))
    authorized = factory.authorize(ref, node_ceiling=1)
    granted: list[str] = []
    refused: list[set[str]] = []

    def run(node_id: str) -> None:
        try:
            factory.acquire(node_id, authorized, ref)
            granted.append(node_id)
        except attester.AccessDeniedError as error:
            refused.append({reason.code for reason in error.reasons})

    threads = [threading.Thread(target=run, args=(name,)) for name in ("node-a", "node-b", "node-us")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 1
    assert refused == [{"NODE_CEILING_REACHED"}] * 2


def test_renewal_extends_and_return_ends(any_factory: Factory) -> None:
    factory = any_factory
    ref = factory.register_asset()
    authorized = factory.authorize(ref, lifetime=86_400)
    with factory.client() as client:
        lease = attester.acquire(
            client,
            SimulatedCollector(factory.nodes["node-a"]),
            grant=attester.SignedGrant.from_proto(authorized.grant),
            assets=[ref],
            node_id="node-a",
            nonce=authorized.nonce,
            clock=lambda: float(factory.clock()),
        )
        before = lease.terms.expires_at
        factory.clock.offset += 300
        after = lease.renew().expires_at
        assert after >= before + 290
        lease.renew()
        receipt = lease.return_()
        assert receipt is not None
        with pytest.raises(attester.AttesterError):
            lease.renew()
    assert entries(factory, "lease.renewed") == 2
    assert entries(factory, "lease.returned") == 1


def test_a_revoked_asset_ends_its_leases(factory: Factory) -> None:
    ref = factory.register_asset()
    authorized = factory.authorize(ref)
    request, _ = raw_request(factory, "node-a", authorized, ref)
    stub = factory.stubs("node").leases
    stub.AcquireLease(request)
    factory.stubs("acme-owner").assets.RevokeAsset(
        asset_service_pb2.RevokeAssetRequest(request_id="00000000-0000-4000-8000-000000000002", asset=ref.asset)
    )
    with factory.client() as client, pytest.raises(attester.AccessDeniedError) as caught:
        client.acquire_lease(request)
    assert {"LEASE_NOT_LIVE", "ASSET_REVOKED"} <= codes(caught)
    assert entries(factory, "lease.revoked") == 1


def test_a_quarantined_node_loses_its_leases_and_gets_none(factory: Factory) -> None:
    ref = factory.register_asset()
    authorized = factory.authorize(ref)
    factory.acquire("node-a", authorized, ref)
    factory.stubs("operator").nodes.SetNodeState(
        node_service_pb2.SetNodeStateRequest(
            request_id="00000000-0000-4000-8000-000000000003",
            node_id="node-a",
            state=node_service_pb2.NODE_STATE_QUARANTINED,
            reason="found open in the rack",
        )
    )
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-a", authorized, ref, nonce=None)
    assert "NODE_NOT_ACTIVE" in codes(caught)
    assert entries(factory, "lease.revoked") == 1


def test_leases_expire_by_themselves(factory: Factory) -> None:
    ref = factory.register_asset()
    factory.acquire("node-a", factory.authorize(ref, node_ceiling=1), ref)
    factory.clock.offset += 4_000
    Maintenance(factory.broker).sweep()
    assert entries(factory, "lease.expired") == 1
    Maintenance(factory.broker).sweep()
    assert entries(factory, "lease.expired") == 1


def test_simulated_hardware_needs_the_policys_consent(make_factory: Callable[..., Factory]) -> None:
    factory = furnish(make_factory(edit=lambda text: text.replace("allow_simulated = true", "")))
    ref = factory.register_asset()
    with pytest.raises(attester.AccessDeniedError) as caught:
        factory.acquire("node-a", factory.authorize(ref), ref)
    assert any("SIMULATED" in code for code in codes(caught))


def test_no_reference_values_accept_nothing(make_factory: Callable[..., Factory]) -> None:
    factory = furnish(make_factory(edit=lambda text: text.replace('reference_values = "reference.toml"', "")))
    ref = factory.register_asset()
    with pytest.raises(attester.BrokerError) as caught:
        factory.acquire("node-a", factory.authorize(ref), ref)
    assert caught.value.reason == "NO_TRUST_ANCHOR"
