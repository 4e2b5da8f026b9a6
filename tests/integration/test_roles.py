"""Who may call what: every RPC by every role, and by certificates that say nothing or say it elsewhere."""

from __future__ import annotations

import grpc
import pytest
from calls import CONTRACT, ROLES, Rpc, add_certificate, add_client, refusal
from cryptography import x509
from factory import Factory

from keybroker import pki
from keybroker.principals import Principal, Role
from keystead.binding import AssetRef
from keystead.v1 import audit_service_pb2

Shared = tuple[Factory, AssetRef]

PROFILES = {
    "owner": "acme-owner",
    "scheduler": "acme-scheduler",
    "node": "node",
    "operator": "operator",
    "auditor": "auditor",
}


def test_the_contract_names_a_role_for_every_rpc() -> None:
    assert len(CONTRACT) == 48
    assert {role for rpc in CONTRACT for role in rpc.roles} == set(ROLES)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("rpc", CONTRACT, ids=str)
def test_a_role_may_call_exactly_what_the_contract_says(shared: Shared, rpc: Rpc, role: str) -> None:
    factory, _ = shared
    stubs = factory.stubs(PROFILES[role])
    if role not in rpc.roles:
        refused = refusal(lambda: rpc.call(stubs, rpc.request()))
        assert (refused.status, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_NOT_ALLOWED")
        assert role in refused.message
        return
    try:
        rpc.call(stubs, rpc.request())
    except grpc.RpcError:
        refused = refusal(lambda: rpc.call(stubs, rpc.request()))
        assert refused.status in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


@pytest.mark.parametrize("rpc", CONTRACT, ids=str)
def test_a_certificate_of_another_trust_domain_may_call_nothing(shared: Shared, rpc: Rpc) -> None:
    factory, _ = shared
    for role in sorted(rpc.roles):
        tenant = "acme" if role in ("owner", "scheduler") else None
        profile = add_client(factory, Principal(Role(role), "mallory", tenant), trust_domain="elsewhere.test")
        stubs = factory.stubs(profile)
        refused = refusal(lambda stubs=stubs: rpc.call(stubs, rpc.request()))
        assert (refused.status, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "NOT_AUTHENTICATED")


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("none", []),
        ("dns", [x509.DNSName("operator.factory.test")]),
        ("dns-like-an-id", [x509.DNSName("spiffe://factory.test/operator/mallory")]),
        ("mail-like-an-id", [x509.RFC822Name("spiffe://factory.test/operator/mallory@x.test")]),
        ("other-uri", [x509.UniformResourceIdentifier("https://factory.test/operator/mallory")]),
        (
            "two",
            [
                x509.UniformResourceIdentifier("spiffe://factory.test/operator/a"),
                x509.UniformResourceIdentifier("spiffe://factory.test/auditor/a"),
            ],
        ),
        (
            "an-id-and-another-uri",
            [
                x509.UniformResourceIdentifier("spiffe://factory.test/operator/a"),
                x509.UniformResourceIdentifier("https://factory.test/"),
            ],
        ),
        ("role", [x509.UniformResourceIdentifier("spiffe://factory.test/root/a")]),
        ("case", [x509.UniformResourceIdentifier("SPIFFE://factory.test/operator/a")]),
        ("tenant", [x509.UniformResourceIdentifier("spiffe://factory.test/owner/a")]),
        ("tenant-of-operator", [x509.UniformResourceIdentifier("spiffe://factory.test/tenant/acme/operator/a")]),
        ("more", [x509.UniformResourceIdentifier("spiffe://factory.test/operator/a/b")]),
        ("domain", [x509.UniformResourceIdentifier("spiffe://factory.test.evil/operator/a")]),
        ("query", [x509.UniformResourceIdentifier("spiffe://factory.test/operator/a?x=1")]),
        ("dots", [x509.UniformResourceIdentifier("spiffe://factory.test/operator/../operator/a")]),
    ],
)
def test_a_certificate_that_does_not_say_who_calls(shared: Shared, name: str, names: list[x509.GeneralName]) -> None:
    factory, _ = shared
    stubs = factory.stubs(add_certificate(factory, f"odd-{name}", names))
    for rpc in CONTRACT:
        refused = refusal(lambda rpc=rpc: rpc.call(stubs, rpc.request()))
        assert (refused.status, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "NOT_AUTHENTICATED"), str(rpc)


def test_a_certificate_of_another_authority_does_not_connect(shared: Shared) -> None:
    factory, _ = shared
    other = pki.create_ca("other", now=factory.clock())
    name = x509.UniformResourceIdentifier("spiffe://factory.test/operator/operator")
    stubs = factory.stubs(add_certificate(factory, "other-authority", [name], issuer=other))
    with pytest.raises(grpc.RpcError) as caught:
        stubs.sites.ListSites(CONTRACT_BY_NAME["ListSites"].request(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]


def test_without_a_certificate_nobody_connects(shared: Shared) -> None:
    factory, _ = shared
    ca = (factory.installation.directory / "tls" / "ca.pem").read_bytes()
    for credentials in (grpc.ssl_channel_credentials(ca), None):
        target = f"localhost:{factory.port}"
        channel = grpc.insecure_channel(target) if credentials is None else grpc.secure_channel(target, credentials)
        with channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/keystead.v1.SiteService/ListSites")(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


CONTRACT_BY_NAME = {rpc.name: rpc for rpc in CONTRACT}


def test_a_tenants_auditor_sees_its_tenant_only(shared: Shared) -> None:
    factory, ref = shared
    factory.register_asset("globex/secret-project")
    factory.authorize(ref)
    factory.broker.sequencer.run_once(factory.clock())
    seen: dict[str, list[bytes]] = {}
    for tenant in ("acme", "globex"):
        stub = factory.stubs(add_client(factory, Principal(Role.AUDITOR, "eve", tenant))).audit
        records = stub.QueryRecords(audit_service_pb2.QueryRecordsRequest(page_size=1000)).records
        seen[tenant] = [record.payload for record in records]
        assert records
        assert all(f'"tenant":"{tenant}"'.encode() in payload for payload in seen[tenant])
        for record in records[:3]:
            stub.ProveRecord(audit_service_pb2.ProveRecordRequest(leaf_index=record.leaf_index))
    assert not any(b"secret-project" in payload for payload in seen["acme"])
    assert any(b"secret-project" in payload for payload in seen["globex"])
    everything = factory.stubs("auditor").audit.QueryRecords(audit_service_pb2.QueryRecordsRequest(page_size=1000))
    foreign = next(record for record in everything.records if b"secret-project" in record.payload)
    nowhere = 1_000_000
    acme = factory.stubs(add_client(factory, Principal(Role.AUDITOR, "eve", "acme"))).audit
    refused = [
        refusal(lambda index=index: acme.ProveRecord(audit_service_pb2.ProveRecordRequest(leaf_index=index)))
        for index in (foreign.leaf_index, nowhere)
    ]
    assert [item.status for item in refused] == [grpc.StatusCode.NOT_FOUND] * 2
    texts = [
        item.message.replace(str(index), "N")
        for item, index in zip(refused, (foreign.leaf_index, nowhere), strict=True)
    ]
    assert texts[0] == texts[1]
    asked = refusal(lambda: acme.QueryRecords(audit_service_pb2.QueryRecordsRequest(tenant="globex")))
    assert asked.reason == "ROLE_NOT_ALLOWED"
    filtered = acme.QueryRecords(audit_service_pb2.QueryRecordsRequest(asset="globex/secret-project"))
    assert not filtered.records
