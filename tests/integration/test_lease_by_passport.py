"""The passport path: appraised once, then leases by the Attestation Result and the key that it names."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from calls import Session, acquire_request, evidence, read_refusal, refusal, rows
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from factory import Factory, furnish, request_id

from attestation import ear
from attestation.simulator.snp import SnpDefect
from keystead.binding import (
    AssetRef,
    HpkePrivateKey,
    asset_list_digest,
    grant_digest,
    hpke_info,
    passport_message,
    sha256,
)
from keystead.v1 import asset_ref_pb2, attestation_service_pb2, lease_service_pb2, node_service_pb2
from policy.engine import PolicyEngine

Shared = tuple[Factory, AssetRef]


def appraise(factory: Factory, node_id: str, session: Session, **changes: Any) -> Any:
    """Have a node appraised for no particular job."""
    stub = factory.stubs("node").attestation
    nonce = stub.GetChallenge(attestation_service_pb2.GetChallengeRequest()).nonce
    made = evidence(factory, node_id, nonce=nonce, grant=None, session=session, **changes)
    return stub.Appraise(attestation_service_pb2.AppraiseRequest(evidence=made))


@dataclass
class Traveller:
    """A node with an Attestation Result."""

    factory: Factory
    session: Session
    result: str

    @classmethod
    def of(cls, factory: Factory, node_id: str = "node-a") -> Traveller:
        """A node that was appraised."""
        session = Session()
        return cls(factory, session, appraise(factory, node_id, session).attestation_result)

    def request(
        self,
        authorized: Any,
        *refs: AssetRef,
        signer: Ed25519PrivateKey | None = None,
        signed: dict[str, Any] | None = None,
        sent: dict[str, Any] | None = None,
    ) -> lease_service_pb2.AcquireLeaseRequest:
        """A request by passport; `signed` changes what is signed, `sent` what is sent."""
        covered: dict[str, Any] = {
            "ear": self.result,
            "nonce": authorized.nonce,
            "grant": grant_digest(authorized.grant.grant),
            "assets": asset_list_digest(refs),
            "hpke_key": self.session.hpke.public_key,
        } | (signed or {})
        fields = {
            "attestation_result": self.result,
            "hpke_key": self.session.hpke.public_key,
            "nonce": authorized.nonce,
            "signature": (signer or self.session.signing).sign(passport_message(**covered)),
        } | (sent or {})
        return lease_service_pb2.AcquireLeaseRequest(
            grant=authorized.grant,
            assets=[asset_ref_pb2.AssetRef(asset=ref.asset, version=ref.version) for ref in refs],
            passport=lease_service_pb2.Passport(**fields),
        )


def acquire(factory: Factory, request: lease_service_pb2.AcquireLeaseRequest) -> Any:
    """Send it."""
    return factory.stubs("node").leases.AcquireLease(request)


def test_a_passport_opens_a_lease(any_factory: Factory) -> None:
    factory = any_factory
    ref = factory.register_asset()
    authorized = factory.authorize(ref)
    traveller = Traveller.of(factory)
    request = traveller.request(authorized, ref)
    answer = acquire(factory, request)
    transcript = sha256(
        passport_message(
            ear=traveller.result,
            nonce=authorized.nonce,
            grant=grant_digest(authorized.grant.grant),
            assets=asset_list_digest([ref]),
            hpke_key=traveller.session.hpke.public_key,
        )
    )
    info = hpke_info(
        transcript=transcript,
        lease_id=answer.lease.lease_id,
        ref=ref,
        key_id=answer.keys[0].key_id,
        policy_digest=answer.lease.policy_digest,
    )
    assert traveller.session.hpke.open(answer.keys[0].ciphertext, info=info) == factory.data_keys[str(ref)]
    assert answer.lease.node_id == "node-a"
    again = acquire(factory, request)
    assert (again.lease, again.next_nonce) == (answer.lease, answer.next_nonce)


def test_the_lease_is_renewed_by_evidence(factory: Factory) -> None:
    ref = factory.register_asset()
    authorized = factory.authorize(ref)
    traveller = Traveller.of(factory)
    answer = acquire(factory, traveller.request(authorized, ref))
    fresh = evidence(
        factory,
        "node-a",
        nonce=answer.next_nonce,
        grant=authorized.grant.grant,
        refs=(ref,),
        lease_id=answer.lease.lease_id,
        session=traveller.session,
    )
    leases = factory.stubs("node").leases
    renewal = lease_service_pb2.RenewLeaseRequest(lease_id=answer.lease.lease_id, evidence=fresh)
    assert leases.RenewLease(renewal).lease.lease_id == answer.lease.lease_id


@pytest.mark.parametrize(
    ("signed", "sent", "field"),
    [
        ({"nonce": b"n" * 56}, {}, "passport.signature"),
        ({"grant": b"g" * 32}, {}, "passport.signature"),
        ({"assets": b"a" * 32}, {}, "passport.signature"),
        ({"hpke_key": HpkePrivateKey.generate().public_key}, {}, "passport.signature"),
        ({"ear": "x"}, {}, "passport.signature"),
        ({}, {"hpke_key": HpkePrivateKey.generate().public_key}, "passport.signature"),
        ({}, {"signature": b""}, "passport.signature"),
        ({}, {"signature": b"s" * 64}, "passport.signature"),
        ({}, {"signature": b"s" * 65}, "passport.signature"),
        ({}, {"nonce": b""}, "passport.signature"),
        ({}, {"hpke_key": b""}, "passport.hpke_key"),
        ({}, {"hpke_key": b"\xff" * 1216}, "passport.hpke_key"),
        ({}, {"attestation_result": ""}, "passport.attestation_result"),
        ({}, {"attestation_result": "é"}, "passport.attestation_result"),
        ({}, {"attestation_result": "a.b.c"}, "passport.attestation_result"),
        ({}, {"attestation_result": "." * 100_000}, "passport.attestation_result"),
        (
            {},
            {
                "attestation_result": base64.urlsafe_b64encode(b'{"alg":' + b"[" * 200_000).decode().rstrip("=")
                + ".e30.AA"
            },
            "passport.attestation_result",
        ),
    ],
)
def test_a_passport_that_was_tampered_with(
    shared: Shared, signed: dict[str, Any], sent: dict[str, Any], field: str
) -> None:
    factory, ref = shared
    traveller = Traveller.of(factory)
    authorized = factory.authorize(ref)
    before = rows(factory)
    request = traveller.request(authorized, ref, signed=signed, sent=sent)
    refused = refusal(lambda: acquire(factory, request))
    assert (refused.status, refused.reason, refused.field) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        field,
    )
    assert rows(factory) == before


def test_a_thief_of_the_passport_lacks_its_key(shared: Shared) -> None:
    factory, ref = shared
    traveller, thief = Traveller.of(factory), Session()
    stolen = Traveller(factory, thief, traveller.result)
    refused = refusal(lambda: acquire(factory, stolen.request(factory.authorize(ref), ref)))
    assert refused.field == "passport.signature"


def test_a_thief_of_the_request_gets_it_wrapped_to_the_node(shared: Shared) -> None:
    """Whoever replays a whole request gets what its sender got: keys that only the attested key opens."""
    factory, ref = shared
    authorized = factory.authorize(ref)
    traveller = Traveller.of(factory)
    request = traveller.request(authorized, ref)
    first, replayed = acquire(factory, request), acquire(factory, request)
    assert replayed.lease == first.lease
    elsewhere = factory.authorize(ref)
    request.grant.CopyFrom(elsewhere.grant)
    assert refusal(lambda: acquire(factory, request)).field == "passport.signature"


def altered(token: str, change: Callable[[dict[str, Any]], None]) -> str:
    """The token with other claims and its old signature."""
    header, payload, signature = token.split(".")
    document = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    change(document)
    body = base64.urlsafe_b64encode(ear.canonical(document)).decode().rstrip("=")
    return f"{header}.{body}.{signature}"


def test_an_altered_or_foreign_result_is_refused(shared: Shared) -> None:
    factory, ref = shared
    traveller = Traveller.of(factory)
    authorized = factory.authorize(ref)
    original = traveller.result
    document = json.loads(base64.urlsafe_b64decode(original.split(".")[1] + "=="))
    key = factory.broker.keys.result

    def other_issuer(claims: dict[str, Any]) -> None:
        claims["iss"] = "another"

    def later(claims: dict[str, Any]) -> None:
        claims["exp"] += 3_600

    foreign_key = ear.sign(document, Ed25519PrivateKey.generate(), key_id=key.key_id)
    unknown_key = ear.sign(document, Ed25519PrivateKey.generate(), key_id="other")
    of_another = ear.sign({**document, "iss": "another"}, key.private_key, key_id=key.key_id)
    unsigned = ".".join([*original.split(".")[:2], ""])
    none = base64.urlsafe_b64encode(
        json.dumps({"alg": "none", "kid": key.key_id, "typ": ear.MEDIA_TYPE}).encode()
    ).decode()
    for token in (
        altered(original, other_issuer),
        altered(original, later),
        foreign_key,
        unknown_key,
        of_another,
        unsigned,
        f"{none.rstrip('=')}.{original.split('.')[1]}.",
        original + "=",
        original + " ",
        original[:-2],
    ):
        changed = Traveller(factory, traveller.session, token)
        refused = refusal(lambda changed=changed: acquire(factory, changed.request(authorized, ref)))
        assert (refused.reason, refused.field) == ("INVALID_REQUEST", "passport.attestation_result")
    # What it rests on: the original, at last, is good.
    assert acquire(factory, traveller.request(authorized, ref)).keys


def test_an_expired_result_is_refused(factory: Factory) -> None:
    ref = factory.register_asset()
    authorized = factory.authorize(ref)
    traveller = Traveller.of(factory)
    factory.clock.offset += factory.config.attestation.result_seconds
    refused = refusal(lambda: acquire(factory, traveller.request(authorized, ref)))
    assert refused.field == "passport.attestation_result"
    factory.clock.offset -= 2 * factory.config.attestation.result_seconds
    # Nor does one from the future: a broker whose clock was set back must not believe it.
    refused = refusal(lambda: acquire(factory, traveller.request(authorized, ref)))
    assert refused.field == "passport.attestation_result"


def test_a_passport_holds_under_the_policy_that_made_it(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = factory.register_asset()
    request = Traveller.of(factory).request(factory.authorize(ref), ref)
    policies = factory.broker.policies
    settings = policies.settings.model_copy(update={"measurements": ("ab" * 48,)})
    stricter = PolicyEngine(policies.appraisal.bundle, data=settings.to_data())
    monkeypatch.setattr(factory.broker, "policies", replace(policies, appraisal=stricter, settings=settings))
    assert refusal(lambda: acquire(factory, request)).denied == ("APPRAISAL_POLICY_CHANGED",)


def test_a_nonce_serves_a_passport_once(shared: Shared) -> None:
    factory, ref = shared
    authorized = factory.authorize(ref)
    traveller = Traveller.of(factory)
    acquire(factory, traveller.request(authorized, ref))
    other_key = Traveller(factory, Session(signing=traveller.session.signing), traveller.result)
    assert "NONCE_SPENT" in refusal(lambda: acquire(factory, other_key.request(authorized, ref))).denied
    by_evidence = acquire_request(factory, "node-a", authorized, ref)
    assert "NONCE_SPENT" in refusal(lambda: acquire(factory, by_evidence)).denied
    strange = factory.authorize(ref)
    strange.nonce = authorized.nonce
    assert "CHALLENGE_INVALID" in refusal(lambda: acquire(factory, traveller.request(strange, ref))).denied


def test_a_quarantined_node_cannot_use_its_passport(factory: Factory) -> None:
    ref = factory.register_asset()
    authorized = factory.authorize(ref)
    traveller = Traveller.of(factory)
    factory.stubs("operator").nodes.SetNodeState(
        node_service_pb2.SetNodeStateRequest(
            request_id=request_id(), node_id="node-a", state=node_service_pb2.NODE_STATE_QUARANTINED, reason="theft"
        )
    )
    assert "NODE_NOT_ACTIVE" in refusal(lambda: acquire(factory, traveller.request(authorized, ref))).denied
    with pytest.raises(grpc.RpcError) as caught:
        appraise(factory, "node-a", Session())
    assert "NODE_NOT_ACTIVE" in read_refusal(caught.value).denied


def test_a_passport_does_not_move_a_node(shared: Shared) -> None:
    """Residency is judged by the enrolled site of the identities in the result."""
    factory, ref = shared
    authorized = factory.authorize(ref)
    traveller = Traveller.of(factory, "node-us")
    refused = refusal(lambda: acquire(factory, traveller.request(authorized, ref)))
    assert refused.denied == ("JURISDICTION_NOT_PERMITTED",)


def test_unsound_evidence_gets_no_passport(shared: Shared) -> None:
    factory, _ = shared
    for defect in (SnpDefect.DEBUG, SnpDefect.BAD_SIGNATURE, SnpDefect.STALE_TCB):
        unsound = factory.nodes["node-a"].with_defects(cpu=[defect])
        with pytest.raises(grpc.RpcError) as caught:
            appraise(factory, "node-a", Session(), node=unsound)
        refused = read_refusal(caught.value)
        assert refused.status is grpc.StatusCode.PERMISSION_DENIED
        assert refused.denied


def test_a_failing_result_is_no_passport(factory: Factory) -> None:
    """Even one that this broker signed: a result is made, though not handed out, for evidence that fails, too."""
    ref = factory.register_asset()
    traveller = Traveller.of(factory)
    document = json.loads(base64.urlsafe_b64decode(traveller.result.split(".")[1] + "=="))
    finding = {"code": "SNP_DEBUG_ALLOWED", "severity": "fail"}
    document["submods"]["cpu0"]["keystead.findings"] = [finding]
    document["submods"]["cpu0"]["ear.status"] = "contraindicated"
    key = factory.broker.keys.result
    failing = Traveller(factory, traveller.session, ear.sign(document, key.private_key, key_id=key.key_id))
    refused = refusal(lambda: acquire(factory, failing.request(factory.authorize(ref), ref)))
    assert refused.status is grpc.StatusCode.PERMISSION_DENIED


def test_simulated_hardware_stays_simulated_in_its_passport(make_factory: Callable[..., Factory]) -> None:
    factory = furnish(make_factory(edit=lambda text: text.replace("allow_simulated = true", "")))
    with pytest.raises(grpc.RpcError) as caught:
        appraise(factory, "node-a", Session())
    assert any("SIMULATED" in code for code in read_refusal(caught.value).denied)
