"""Relaxing what data demand, through the real broker: it takes enough other people, and exactly what they signed."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import pytest
from calls import Refusal, acquire_request, add_client, read_refusal, refusal, rows
from factory import Factory, recorded, request_id

import attester
from attester.collect.simulated import SimulatedCollector
from audit.records import Record
from keybroker.approvers import ApproverSet
from keybroker.constraints import Areas, Assurance, Constraints, join, relaxes
from keybroker.declassification import Declassification
from keybroker.errors import StatementError
from keybroker.keys.signing import SigningKey
from keybroker.principals import Principal, Role
from keybroker.services.convert import constraints as read_constraints
from keybroker.statements import Statement
from keybroker.store import leases
from keybroker.store.schema import LeaseState
from keystead.binding import AssetRef
from keystead.v1 import asset_service_pb2, lineage_service_pb2
from keystead.v1 import declassification_service_pb2 as pb

KEYS = {name: SigningKey.generate() for name in ("alice", "bob", "carol", "dave", "mallory")}


def approver_set(factory: Factory, *names: str, threshold: int = 2, serial: int = 1, tenant: str = "acme") -> Statement:
    """A set of approvers, written by alice."""
    return ApproverSet(
        tenant=tenant,
        serial=serial,
        threshold=threshold,
        keys={name: KEYS[name].private_key.public_key().public_bytes_raw() for name in names},
        reason="for the tests",
        not_after=factory.clock() + 3_600,
    ).statement(author="alice")


def sign(statement: Statement, *names: str) -> list[str]:
    """Signatures by approvers under their own names."""
    return [statement.sign(KEYS[name].private_key, signer=name) for name in names]


def set_approvers(profile: Any, statement: Statement, *signatures: str) -> Any:
    return profile.declassifications.SetApprovers(
        pb.SetApproversRequest(request_id=request_id(), statement=statement.payload, signatures=signatures)
    )


def constraints(factory: Factory, ref: AssetRef) -> Constraints:
    """What a version demands."""
    owner = factory.stubs(f"{ref.asset.partition('/')[0]}-owner")
    asset = owner.assets.GetAsset(asset_service_pb2.GetAssetRequest(asset=ref.asset)).asset
    return read_constraints(asset.versions[ref.version - 1].constraints)


def proposal(
    factory: Factory, ref: AssetRef, *, author: str = "alice", lifetime: int = 600, **changes: Any
) -> Statement:
    """A declassification of a version as it is now; `changes` are fields of it, or of the constraints after."""
    before = changes.pop("before", None) or constraints(factory, ref)
    serial = changes.pop("serial", 1)
    return Declassification(
        ref=ref,
        serial=serial,
        before=before,
        after=replace(before, **(changes or {"classification": 1})),
        reason="anonymised",
        not_after=factory.clock() + lifetime,
    ).statement(author=author)


def propose(profile: Any, statement: Statement) -> Any:
    return profile.declassifications.ProposeDeclassification(
        pb.ProposeDeclassificationRequest(request_id=request_id(), statement=statement.payload)
    )


def apply(profile: Any, statement: Statement, signatures: list[str]) -> Any:
    return profile.declassifications.ApplyDeclassification(
        pb.ApplyDeclassificationRequest(request_id=request_id(), statement=statement.payload, signatures=signatures)
    )


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    """Why a call was refused: its reason and its text."""
    found: Refusal = refusal(call)
    return found.reason, found.message


def as_message(ref: AssetRef) -> dict[str, Any]:
    return {"asset": ref.asset, "version": ref.version}


def hold(client: attester.BrokerClient, factory: Factory, ref: AssetRef, node_id: str) -> attester.Lease:
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


def records(factory: Factory, kind: str) -> list[Record]:
    with factory.broker.read() as connection:
        return recorded(connection, kind)


@pytest.fixture
def ready(any_factory: Factory) -> tuple[Factory, AssetRef, Any]:
    """An asset, two of three approvers of its tenant, and alice, who writes."""
    ref = any_factory.register_asset(
        "acme/notes", classification=3, purposes=("inference", "evaluation"), assurance=1, budgets={"opens": 5}
    )
    alice = any_factory.stubs(add_client(any_factory, Principal(Role.OWNER, "alice", "acme")))
    set_approvers(alice, approver_set(any_factory, "bob", "carol", "alice"))
    return any_factory, ref, alice


def test_enough_others_relax_exactly_what_they_signed(ready: tuple[Factory, AssetRef, Any]) -> None:
    factory, ref, alice = ready
    before = constraints(factory, ref)
    wider = before.purposes | {"training"} if before.purposes else None
    statement = proposal(factory, ref, classification=1, purposes=wider)
    assert propose(alice, statement).declassification.state == pb.DECLASSIFICATION_STATE_PROPOSED
    assert constraints(factory, ref) == before
    done = apply(alice, statement, sign(statement, "bob", "carol"))
    after = constraints(factory, ref)
    assert after == replace(before, classification=1, purposes=wider)
    assert read_constraints(done.version.constraints) == after
    assert relaxes(before, after) == ["classification", "purposes"]
    (listed,) = alice.declassifications.ListDeclassifications(
        pb.ListDeclassificationsRequest(asset=ref.asset)
    ).declassifications
    assert listed == done.declassification
    assert (listed.state, list(listed.signers), listed.author) == (
        pb.DECLASSIFICATION_STATE_APPLIED,
        ["bob", "carol"],
        "alice",
    )
    # Whoever has only the statement can check it.
    assert Declassification.of(Statement.parse(listed.statement)).before == before
    (record,) = records(factory, "asset.declassified")
    assert record.assets == (str(ref),)
    assert record.detail["signers"] == ("bob", "carol")
    assert record.detail["statement_digest"] == statement.digest.hex()
    assert record.detail["relaxes"] == ("classification", "purposes")
    # The asset's own constraints stay, so that the next version begins as strict as the first did.
    asset = alice.assets.GetAsset(asset_service_pb2.GetAssetRequest(asset=ref.asset)).asset
    assert read_constraints(asset.constraints) == before
    # New leases see the new constraints.
    factory.authorize(ref, purposes=["training"])
    factory.add_version(AssetRef(ref.asset, 2))
    with pytest.raises(grpc.RpcError) as caught:
        factory.authorize(AssetRef(ref.asset, 2), purposes=["training"])
    assert read_refusal(caught.value).denied == ("PURPOSE_NOT_PERMITTED",)


def test_what_was_derived_before_keeps_its_own(ready: tuple[Factory, AssetRef, Any]) -> None:
    factory, ref, alice = ready
    factory.register_asset("acme/child", classification=0)
    owner = factory.stubs("acme-owner")
    child = AssetRef("acme/child", 1)
    owner.lineage.DeclareParents(
        lineage_service_pb2.DeclareParentsRequest(
            request_id=request_id(), ref=as_message(child), parents=[as_message(ref)]
        )
    )
    before = constraints(factory, child)
    statement = proposal(factory, ref)
    propose(alice, statement)
    apply(alice, statement, sign(statement, "bob", "carol"))
    assert constraints(factory, ref).classification == 1
    assert constraints(factory, child) == before
    own = proposal(factory, child, classification=0)
    propose(alice, own)
    apply(alice, own, sign(own, "bob", "carol"))
    assert constraints(factory, child).classification == 0
    # What is stricter above is stricter below, whatever was declassified in between.
    owner.assets.ConstrainAsset(
        asset_service_pb2.ConstrainAssetRequest(
            request_id=request_id(),
            asset=ref.asset,
            version=1,
            constraints={"classification": 2},  # type: ignore[arg-type]
        )
    )
    assert (constraints(factory, ref).classification, constraints(factory, child).classification) == (2, 2)


def test_approval_takes_enough_different_people_other_than_the_author(ready: tuple[Factory, AssetRef, Any]) -> None:
    factory, ref, alice = ready
    statement = proposal(factory, ref)
    propose(alice, statement)
    before = constraints(factory, ref)

    def attempt(*signatures: str) -> tuple[str, str]:
        return refused(lambda: apply(alice, statement, list(signatures)))

    bob, carol = sign(statement, "bob", "carol")
    (own,) = sign(statement, "alice")
    assert attempt()[0] == "SIGNATURES_MISSING"
    assert attempt(bob)[0] == "SIGNATURES_MISSING"
    assert attempt(bob, own) == ("BAD_STATEMENT", "signatures: 'alice' wrote it and cannot approve it")
    assert "signed twice" in attempt(bob, bob)[1]
    # The author under another approver's name; an approver under another's; one who is none.
    assert "does not verify" in attempt(bob, statement.sign(KEYS["alice"].private_key, signer="carol"))[1]
    assert "does not verify" in attempt(bob, statement.sign(KEYS["bob"].private_key, signer="carol"))[1]
    assert "is no authority here" in attempt(bob, *sign(statement, "mallory"))[1]
    # One signature too many that is wrong refuses the whole.
    assert "is no authority here" in attempt(bob, carol, *sign(statement, "mallory"))[1]
    assert constraints(factory, ref) == before
    assert {record.reasons for record in records(factory, "asset.declassification-refused")} == {
        ("BAD_STATEMENT",),
        ("SIGNATURES_MISSING",),
    }
    apply(alice, statement, [bob, carol])


def test_an_approval_is_for_one_statement_only(ready: tuple[Factory, AssetRef, Any]) -> None:
    factory, ref, alice = ready
    other = factory.register_asset("acme/other", classification=3)
    factory.add_version(AssetRef(ref.asset, 2))
    good = proposal(factory, ref)
    signatures = sign(good, "bob", "carol")
    wanted = Declassification.of(good)
    for changed in (
        replace(
            wanted,
            ref=other,
            before=constraints(factory, other),
            after=replace(constraints(factory, other), classification=1),
        ),
        replace(wanted, ref=AssetRef(ref.asset, 2)),
        replace(wanted, after=replace(wanted.after, classification=0)),
        replace(wanted, after=replace(wanted.after, budgets={})),
        replace(wanted, reason="something else"),
        replace(wanted, not_after=wanted.not_after + 1),
    ):
        statement = changed.statement(author="alice")
        propose(alice, statement)
        assert "made over another statement" in refused(lambda s=statement: apply(alice, s, signatures))[1]
    # A statement that was not proposed is none, however well signed.
    assert refused(lambda: apply(alice, good, signatures))[0] == "NOT_FOUND"
    propose(alice, good)
    apply(alice, good, signatures)


def test_a_declassification_is_applied_once_in_time_and_on_what_holds(ready: tuple[Factory, AssetRef, Any]) -> None:
    factory, ref, alice = ready
    before = constraints(factory, ref)
    first, rival = proposal(factory, ref), proposal(factory, ref, classification=2)
    late = proposal(factory, ref, lifetime=300, classification=0)
    for statement in (first, rival, late):
        propose(alice, statement)
    assert refused(lambda: propose(alice, first))[0] == "ALREADY_EXISTS"
    factory.clock.offset += 400
    assert refused(lambda: apply(alice, late, sign(late, "bob", "carol")))[0] == "STATEMENT_EXPIRED"
    apply(alice, first, sign(first, "bob", "carol"))
    assert refused(lambda: apply(alice, first, sign(first, "bob", "carol")))[0] == "STATE_CONFLICT"
    assert refused(lambda: apply(alice, rival, sign(rival, "bob", "carol")))[0] == "DECLASSIFICATION_STALE"
    # Back to where it began: what was signed then is spent all the same.
    owner = factory.stubs("acme-owner").assets
    owner.ConstrainAsset(
        asset_service_pb2.ConstrainAssetRequest(
            request_id=request_id(),
            asset=ref.asset,
            version=1,
            constraints={"classification": 3},  # type: ignore[arg-type]
        )
    )
    assert constraints(factory, ref) == before
    assert refused(lambda: apply(alice, first, sign(first, "bob", "carol")))[0] == "STATE_CONFLICT"
    assert refused(lambda: apply(alice, rival, sign(rival, "bob", "carol")))[0] == "DECLASSIFICATION_STALE"
    assert refused(lambda: propose(alice, proposal(factory, ref, serial=1, classification=2)))[0] == (
        "DECLASSIFICATION_STALE"
    )
    again = proposal(factory, ref, serial=2)
    propose(alice, again)
    apply(alice, again, sign(again, "bob", "carol"))


def test_rivals_that_race_do_not_both_win(ready: tuple[Factory, AssetRef, Any]) -> None:
    factory, ref, alice = ready
    rivals = [proposal(factory, ref, budgets={"opens": number}) for number in range(10, 14)]
    for statement in rivals:
        propose(alice, statement)

    def attempt(statement: Statement) -> str:
        try:
            apply(alice, statement, sign(statement, "bob", "carol"))
        except grpc.RpcError as error:
            return read_refusal(error).reason
        return "applied"

    with ThreadPoolExecutor(4) as pool:
        outcomes = sorted(pool.map(attempt, rivals))
    assert outcomes == ["DECLASSIFICATION_STALE"] * 3 + ["applied"]


def test_a_proposal_is_its_authors_and_complete(ready: tuple[Factory, AssetRef, Any]) -> None:
    factory, ref, alice = ready
    before = rows(factory)
    assert "is who proposes it" in refused(lambda: propose(alice, proposal(factory, ref, author="bob")))[1]
    assert "is who proposes it" in refused(lambda: propose(factory.stubs("acme-owner"), proposal(factory, ref)))[1]
    for changes, field in (
        ({"purposes": None}, "purposes"),
        ({"residency": Areas()}, "residency.allowed"),
        ({"residency": Areas.of(["EU", "EUROPE"])}, "residency.allowed"),
    ):
        statement = proposal(factory, ref, **changes)
        assert refusal(lambda s=statement: propose(alice, s)).field == field
    for changes in ({"classification": 4}, {"sites": frozenset({"x"}), "classification": 0}, {"budgets": {"opens": 4}}):
        with pytest.raises(StatementError, match="does not only become freer"):
            proposal(factory, ref, **changes)
    with pytest.raises(StatementError, match="nothing becomes freer"):
        proposal(factory, ref, classification=3)
    stale = proposal(factory, ref, before=replace(constraints(factory, ref), classification=4), classification=0)
    assert refused(lambda: propose(alice, stale))[0] == "DECLASSIFICATION_STALE"
    assert refused(lambda: propose(alice, proposal(factory, ref, lifetime=-1)))[0] == "STATEMENT_EXPIRED"
    assert refused(lambda: propose(alice, proposal(factory, ref, lifetime=10**8)))[0] == "STATEMENT_EXPIRED"
    # A change that is not named, a name that does not change, a wrong word about what is relaxed, another digest.
    body = json.loads(proposal(factory, ref).payload)["body"]
    for wrong in (
        body | {"constraints": body["constraints"] | {"budgets": {"opens": 99}}},
        body | {"changes": []},
        body | {"changes": [*body["changes"], {"field": "users", "before": None, "after": None, "relaxes": False}]},
        body | {"changes": [body["changes"][0] | {"relaxes": False}]},
        body | {"changes": [body["changes"][0] | {"before": 4}]},
        # Freer in one field and stricter in another, with the digest of what really holds.
        body
        | {
            "constraints": body["constraints"] | {"sites": ["x"]},
            "changes": [
                *body["changes"],
                {"field": "sites", "before": None, "after": ["x"], "relaxes": False},
            ],
        },
        body | {"changes": [body["changes"][0] | {"after": 0}]},
        body | {"from": "00" * 32},
        body | {"version": 0},
        body | {"reason": ""},
        {name: value for name, value in body.items() if name != "reason"},
    ):
        statement = Statement.write(kind="declassification", author="alice", body=wrong)
        assert refused(lambda s=statement: propose(alice, s))[0] == "BAD_STATEMENT", wrong
    other_kind = Statement.write(kind="site-record", author="alice", body=body)
    assert refused(lambda: propose(alice, other_kind))[0] == "BAD_STATEMENT"
    after = rows(factory)
    assert {name for name in after if after[name] != before[name]} <= {
        "audit_entry",
        "audit_entry_reason",
        "audit_entry_asset",
    }


def test_nobody_of_another_tenant_has_a_say(ready: tuple[Factory, AssetRef, Any]) -> None:
    factory, ref, alice = ready
    statement = proposal(factory, ref)
    propose(alice, statement)
    signatures = sign(statement, "bob", "carol")
    mallory = factory.stubs(add_client(factory, Principal(Role.OWNER, "mallory", "globex")))
    # Without approvers of its own a tenant declassifies nothing; with them, nothing of another's.
    assert refused(lambda: apply(mallory, statement, signatures))[0] == "NOT_FOUND"
    set_approvers(mallory, approver_set(factory, "dave", "mallory", tenant="globex"))
    assert refused(lambda: apply(mallory, statement, signatures))[0] == "NOT_FOUND"
    assert refused(lambda: propose(mallory, proposal(factory, ref, author="mallory")))[0] == "NOT_FOUND"
    assert "is no authority here" in refused(lambda: apply(alice, statement, sign(statement, "bob", "dave")))[1]
    assert not mallory.declassifications.ListDeclassifications(pb.ListDeclassificationsRequest()).declassifications
    asked = pb.ListDeclassificationsRequest(asset=ref.asset)
    assert refused(lambda: mallory.declassifications.ListDeclassifications(asked))[0] == "NOT_FOUND"
    token = pb.ListDeclassificationsRequest(page_token=statement.digest.hex())
    assert refusal(lambda: mallory.declassifications.ListDeclassifications(token)).field == "page_token"
    theirs = approver_set(factory, "mallory", "dave", serial=2)
    assert refused(lambda: set_approvers(mallory, theirs, *sign(theirs, "mallory", "dave")))[0] == "BAD_STATEMENT"
    names = {each.name for each in mallory.declassifications.GetApprovers(pb.GetApproversRequest()).approvers.approvers}
    assert names == {"dave", "mallory"}


def test_a_set_of_approvers_changes_by_the_present_ones_only(ready: tuple[Factory, AssetRef, Any]) -> None:
    factory, ref, alice = ready
    following = approver_set(factory, "bob", "dave", serial=2, threshold=1)
    assert refused(lambda: set_approvers(alice, following))[0] == "SIGNATURES_MISSING"
    assert refused(lambda: set_approvers(alice, following, *sign(following, "bob")))[0] == "SIGNATURES_MISSING"
    assert (
        "is no authority here" in refused(lambda: set_approvers(alice, following, *sign(following, "bob", "dave")))[1]
    )
    for serial in (1, 3):
        wrong = approver_set(factory, "bob", "dave", serial=serial)
        assert refused(lambda s=wrong: set_approvers(alice, s, *sign(s, "bob", "carol")))[0] == "BAD_STATEMENT"
    for statement in (
        lambda: approver_set(factory, "bob", threshold=2, serial=2),
        lambda: ApproverSet(
            tenant="acme",
            serial=2,
            threshold=1,
            keys=dict.fromkeys(("bob", "bobby"), KEYS["bob"].private_key.public_key().public_bytes_raw()),
            reason="one key, two names",
            not_after=factory.clock() + 60,
        ).statement(author="alice"),
    ):
        bad = statement()
        assert refused(lambda s=bad: set_approvers(alice, s, *sign(s, "bob", "carol")))[0] == "BAD_STATEMENT"
    assert {record.reasons for record in records(factory, "approvers.refused")} >= {("BAD_STATEMENT",)}
    pending = proposal(factory, ref)
    propose(alice, pending)
    answer = set_approvers(alice, following, *sign(following, "bob", "carol")).approvers
    assert (answer.serial, answer.threshold) == (2, 1)
    assert [record.detail["serial"] for record in records(factory, "approvers.set")] == [1, 2]
    # Who is no approver any more approves nothing, whenever it was signed.
    assert "is no authority here" in refused(lambda: apply(alice, pending, sign(pending, "carol")))[1]
    apply(alice, pending, sign(pending, "dave"))


def test_without_approvers_nothing_is_declassified(factory: Factory) -> None:
    ref = factory.register_asset()
    owner = factory.stubs("acme-owner")
    assert not owner.declassifications.GetApprovers(pb.GetApproversRequest()).HasField("approvers")
    assert refused(lambda: propose(owner, proposal(factory, ref, author="owner")))[0] == "STATE_CONFLICT"
    first = approver_set(factory, "bob", "carol")
    assert refused(lambda: set_approvers(owner, first, *sign(first, "bob")))[0] == "BAD_STATEMENT"
    set_approvers(owner, first)
    assert refused(lambda: set_approvers(owner, approver_set(factory, "dave", threshold=1)))[0] == "BAD_STATEMENT"


def test_lists_have_pages(ready: tuple[Factory, AssetRef, Any]) -> None:
    factory, ref, alice = ready
    made = {
        (statement := proposal(factory, ref, budgets={"opens": 10 + number})).digest: statement for number in range(5)
    }
    for statement in made.values():
        propose(alice, statement)
        factory.clock.offset += 1
    seen: list[bytes] = []
    token = ""
    while True:
        page = alice.declassifications.ListDeclassifications(
            pb.ListDeclassificationsRequest(asset=ref.asset, version=1, page_size=2, page_token=token)
        )
        seen += [each.digest for each in page.declassifications]
        token = page.next_page_token
        if not token:
            break
    assert seen == list(reversed(made))


def test_constraints_only_ever_become_stricter_by_an_owner_alone(any_factory: Factory) -> None:
    factory = any_factory
    ref = factory.register_asset("acme/data", classification=2, allowed=("EU", "US"))
    factory.add_version(AssetRef(ref.asset, 2))
    owner = factory.stubs("acme-owner").assets

    def constrain(version: int, **extra: Any) -> Any:
        return owner.ConstrainAsset(
            asset_service_pb2.ConstrainAssetRequest(
                request_id=request_id(),
                asset=ref.asset,
                version=version,
                constraints=extra,  # type: ignore[arg-type]
            )
        )

    before = constraints(factory, ref)
    for extra, field in (
        ({}, "constraints"),
        ({"residency": {"allowed": [{"areas": ["EUROPE"]}]}}, "residency.allowed"),
        ({"residency": {"allowed": [{"areas": ["JP"]}]}}, "residency"),
        ({"purposes": {"names": ["training"]}}, "purposes"),
    ):
        assert refusal(lambda extra=extra: constrain(1, **extra)).field == field
    assert refusal(lambda: constrain(9, classification=4)).reason == "NOT_FOUND"
    assert (
        refusal(
            lambda: factory.stubs("globex-owner").assets.ConstrainAsset(
                asset_service_pb2.ConstrainAssetRequest(
                    request_id=request_id(),
                    asset=ref.asset,
                    constraints={"classification": 4},  # type: ignore[arg-type]
                )
            )
        ).reason
        == "NOT_FOUND"
    )
    assert constraints(factory, ref) == before
    # One version: the other, and those to come, stay as they are. What is freer than before changes nothing.
    done = constrain(1, classification=1, node_ceiling=5)
    assert [each.version for each in done.tightened] == [1]
    assert constraints(factory, ref) == join(before, Constraints(node_ceiling=5))
    assert constraints(factory, AssetRef(ref.asset, 2)) == before
    # All of them.
    done = constrain(0, assurance=1, classification=4)
    assert [each.version for each in done.tightened] == [1, 2]
    factory.add_version(AssetRef(ref.asset, 3))
    assert constraints(factory, AssetRef(ref.asset, 3)) == replace(before, classification=4)
    assert constraints(factory, ref).assurance is Assurance.SIMULATED
    assert [record.detail["tightened"] for record in records(factory, "asset.constrained")] == [1, 2]


def test_leases_that_break_the_new_constraints_end_at_once(any_factory: Factory) -> None:
    factory = any_factory
    ref = factory.register_asset("acme/data", allowed=("EU", "US"))
    other = factory.register_asset("acme/other", allowed=("EU", "US"))
    owner = factory.stubs("acme-owner").assets

    def constrain(**extra: Any) -> int:
        answer = owner.ConstrainAsset(
            asset_service_pb2.ConstrainAssetRequest(
                request_id=request_id(),
                asset=ref.asset,
                constraints=extra,  # type: ignore[arg-type]
            )
        )
        return int(answer.revoked_leases)

    def live(lease: Any) -> bool:
        with factory.broker.read() as connection:
            return leases.get(connection, lease.lease_id).state is LeaseState.LIVE

    with factory.client() as client:
        french, american = hold(client, factory, ref, "node-a"), hold(client, factory, ref, "node-us")
        apart = hold(client, factory, other, "node-us")
        french.renew()
        assert constrain(classification=4, copy_ceiling=8) == 0
        assert constrain(residency={"allowed": [{"areas": ["EU"]}]}) == 1
        assert [live(each) for each in (french, american, apart)] == [True, False, True]
        french.renew()
        # A ceiling lets the oldest stay; a duty that no lease carries ends them all.
        factory.clock.offset += 2
        second = hold(client, factory, ref, "node-b")
        assert constrain(node_ceiling=1) == 1
        assert [live(each) for each in (french, second)] == [True, False]
        assert constrain(obligations={"no_logits": {}}) == 1
        assert not live(french)
        assert live(apart)
    (because,) = {record.detail["because"] for record in records(factory, "lease.revoked")}
    assert because == "CONSTRAINTS_TIGHTENED"


def test_no_lease_slips_past_a_tightening_that_races_it(any_factory: Factory) -> None:
    """Whatever the order, no live lease remains that the constraints do not allow."""
    factory = any_factory
    for attempt in range(3):
        ref = factory.register_asset(f"acme/raced{attempt}", allowed=("EU", "US"))
        requests = [acquire_request(factory, "node-us", factory.authorize(ref), ref) for _ in range(6)]
        owner, node = factory.stubs("acme-owner").assets, factory.stubs("node").leases
        tightening = asset_service_pb2.ConstrainAssetRequest(
            request_id=request_id(),
            asset=ref.asset,
            version=1,
            constraints={"residency": {"allowed": [{"areas": ["EU"]}]}},  # type: ignore[arg-type]
        )

        def acquire(request: Any, node: Any = node) -> str:
            try:
                node.AcquireLease(request)
            except grpc.RpcError as error:
                return "refused" if read_refusal(error).denied else read_refusal(error).reason
            return "granted"

        with ThreadPoolExecutor(7) as pool:
            outcomes = [pool.submit(acquire, request) for request in requests]
            revoked = pool.submit(owner.ConstrainAsset, tightening).result().revoked_leases
            found = [outcome.result() for outcome in outcomes]
        assert set(found) <= {"granted", "refused"}
        assert found.count("granted") == revoked
        with factory.broker.read() as connection:
            assert leases.live_covering(connection, [ref.asset], now=factory.clock()) == []
